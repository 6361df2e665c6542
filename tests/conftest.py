"""Fixtures that the whole suite shares: real servers, and a clean place in them for each test.

A shared server starts when the first test asks for it, once per pytest-xdist worker. A test that stops, kills
or reconfigures a server takes one of its own (`own_...`). A server that is not installed is a failure, with
one line that says what to do, never a skip.

`..._database` is the URL of an empty place for this test alone. What is called `sql_...` runs the test three times,
against Debian's MariaDB, MySQL 9 and MariaDB 11 (the latter two only in `make test-mysql`).
"""

from __future__ import annotations

import os
import selectors
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TypeVar

import hypothesis
import pytest

from tests.nginx import NginxServer
from tests.services import MariaDB11Server, MariaDBServer, MissingServer, MySQL9Server, RedisServer, Server, SQLServer

S = TypeVar("S", bound=Server)

# How long an example takes, or to think of it, is the machine's affair; and one run says the same as the next.
hypothesis.settings.register_profile(
    "untimed", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background job: so would be all that we start
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "CORO_TEST_SELECTOR" in os.environ:  # `make test-selectors`: every loop of the tests waits in this one
    selectors.DefaultSelector = getattr(selectors, os.environ["CORO_TEST_SELECTOR"])  # type: ignore[misc]

SQL_SERVERS: dict[str, Callable[..., SQLServer]] = {
    "mariadb": MariaDBServer,
    "mysql9": MySQL9Server,
    "mariadb11": MariaDB11Server,
}
ALL_SQL = [
    pytest.param("mariadb"),
    pytest.param("mysql9", marks=pytest.mark.mysql9),
    pytest.param("mariadb11", marks=pytest.mark.mariadb11),
]


def _started(stack: ExitStack, server: S) -> S:
    try:
        stack.enter_context(server)
        return server
    except MissingServer as missing:
        advice = str(missing)
    pytest.fail(advice, pytrace=False)


@pytest.fixture(scope="session")
def servers() -> Iterator[ExitStack]:
    """Holds the shared servers until the end of the run."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def redis_server(servers: ExitStack) -> RedisServer:
    """The shared Redis, holding whatever earlier tests left in it."""
    return _started(servers, RedisServer())


@pytest.fixture(scope="session")
def mariadb(servers: ExitStack) -> MariaDBServer:
    """The shared MariaDB."""
    return _started(servers, MariaDBServer())


@pytest.fixture
def mariadb_database(mariadb: MariaDBServer) -> Iterator[str]:
    """The URL of a new empty database in the shared MariaDB."""
    with mariadb.database() as name:
        yield mariadb.url(name)


@pytest.fixture(scope="session")
def mysql9(servers: ExitStack) -> MySQL9Server:
    """The shared MySQL 9. A test that uses it is marked with `pytest.mark.mysql9`."""
    return _started(servers, MySQL9Server())


@pytest.fixture(scope="session")
def mariadb11(servers: ExitStack) -> MariaDB11Server:
    """The shared MariaDB 11. A test that uses it is marked with `pytest.mark.mariadb11`."""
    return _started(servers, MariaDB11Server())


@pytest.fixture(scope="session", params=ALL_SQL)
def sql_server(request: pytest.FixtureRequest) -> SQLServer:
    """The shared server of each kind in turn."""
    server: SQLServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def sql_database(sql_server: SQLServer) -> Iterator[str]:
    """The URL of a new empty database in the shared server of each kind in turn."""
    with sql_server.database() as name:
        yield sql_server.url(name)


@pytest.fixture
def own_redis() -> Iterator[Callable[..., RedisServer]]:
    """Starts a Redis for this test alone, from what `RedisServer` takes; as many as are asked for."""
    with ExitStack() as stack:
        yield lambda *options, **login: _started(stack, RedisServer(*options, **login))


@pytest.fixture
def own_mariadb() -> Iterator[Callable[..., MariaDBServer]]:
    """Starts a MariaDB for this test alone, with the given command-line options."""
    with ExitStack() as stack:
        yield lambda *options: _started(stack, MariaDBServer(*options))


@pytest.fixture(params=ALL_SQL)
def own_sql_server(request: pytest.FixtureRequest) -> Iterator[Callable[..., SQLServer]]:
    """Starts a server of each kind in turn, for this test alone, with the given command-line options."""
    with ExitStack() as stack:
        yield lambda *options: _started(stack, SQL_SERVERS[request.param](*options))


@pytest.fixture(scope="session")
def nginx(servers: ExitStack) -> NginxServer:
    """The shared nginx. Tests write to places of their own in it."""
    return _started(servers, NginxServer())


@pytest.fixture
def own_nginx() -> Iterator[Callable[..., NginxServer]]:
    """Starts an nginx for this test alone, from what `NginxServer` takes."""
    with ExitStack() as stack:
        yield lambda *options: _started(stack, NginxServer(*options))
