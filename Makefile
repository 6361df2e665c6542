# coro: what one does with a checkout. Everything is installed into .venv and .cache, below this folder; only the servers
# that the tests start (redis-server, mariadbd, nginx) are installed as Debian packages, when they are missing.
#
#   make run          start the upload app and say where to click    make run ARGS='--port 9000'
#   make test         ruff, mypy --strict, pytest                    make test ARGS='tests/test_layers.py'
#   make test-mysql   the tests that need MySQL 9 or MariaDB 11, on real ones
#   make test-others  pytest on every other CPython >= 3.11 found on this machine
#   make test-selectors  the kernel and HTTP, with every loop waiting in poll(2), then in select(2)
#   make test-all     all of these tests
#   make bench        the benchmarks, with their peers               make bench ARGS='switch'
#   make book         put what the book's programs print here into its pages
#   make soak         the tests that run for minutes
#   make clean        remove what was installed and cached (not the files in ./var)

ARGS =
BIN = .venv/bin
PYTEST = scripts/run-tests $(BIN)/python

.PHONY: run test test-env services mysql9 mariadb11 test-mysql test-others test-selectors test-all bench book soak clean

run:
	@scripts/venv .venv ''
	@exec $(BIN)/coro run apps.upload $(ARGS)

services:
	@scripts/install-services

test-env: services
	@scripts/venv .venv dev,rsa
	@scripts/node-packages tus-js-client@4 playwright-core@1 @uppy/core@6 @uppy/tus@6 esbuild@0.25 axe-core@4

test: test-env
	$(BIN)/ruff check
	$(BIN)/mypy --strict
	$(PYTEST) $(ARGS)

# Exits with 75 (EX_TEMPFAIL) when the packages cannot be had: .ci/run tells that apart from a fault.
mysql9 mariadb11: test-env
	@$(BIN)/python scripts/newest_sql.py $@

test-mysql: mysql9 mariadb11
	$(PYTEST) -m 'mysql9 or mariadb11' $(ARGS)

test-others: test-env
	@scripts/test-others $(ARGS)

test-selectors: test-env
	CORO_TEST_SELECTOR=PollSelector $(PYTEST) tests/kernel tests/http $(ARGS)
	CORO_TEST_SELECTOR=SelectSelector $(PYTEST) tests/kernel tests/http $(ARGS)

test-all: test test-mysql test-selectors test-others

bench:
	@scripts/install-services wrk pkg-config mariadb_config=libmariadb-dev
	@scripts/venv .venv bench,rsa
	$(BIN)/python -m benchmarks $(ARGS)

book: test-env
	$(BIN)/python scripts/book.py --write $(ARGS)

soak: test-env
	$(BIN)/python -m pytest -s -m 'soak and not mysql9 and not mariadb11' -o faulthandler_timeout=0 $(ARGS)

clean:
	rm -rf .venv .cache .pytest_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
