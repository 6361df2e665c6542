"""The upload app on both kinds of stores. `app` is shared by all tests that neither stop nor configure it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import ALL_SQL
from tests.services import RedisServer, SQLServer, scratch
from tests.upload.harness import App, BackEnd, ServersBackEnd, SQLiteBackEnd, run_app
from tests.upload.nursery import Nursery

Start = Callable[..., App]


@pytest.fixture(scope="session", params=["sqlite", *ALL_SQL])
def back_end_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def _back_end(request: pytest.FixtureRequest, name: str, stack: ExitStack) -> BackEnd:
    """Sessions in an own SQLite file, or in the shared Redis; rows in a database of its own."""
    if name == "sqlite":
        return SQLiteBackEnd()
    redis: RedisServer = request.getfixturevalue("redis_server")
    sql: SQLServer = request.getfixturevalue(name)
    return ServersBackEnd(redis, sql, stack.enter_context(sql.database()))


@pytest.fixture
def back_end(request: pytest.FixtureRequest, back_end_name: str) -> Iterator[BackEnd]:
    """SQLite, then Redis with MariaDB (in `make test-mysql`, with MySQL 9 and MariaDB 11): empty."""
    with ExitStack() as stack:
        yield _back_end(request, back_end_name, stack)


@pytest.fixture(scope="session")
def app(request: pytest.FixtureRequest, back_end_name: str) -> Iterator[App]:
    """A running app for all tests on this kind of stores."""
    with ExitStack() as stack:
        back_end = _back_end(request, back_end_name, stack)
        app = App(scratch().directory("upload"), back_end)
        stack.callback(app.close)
        yield app


@pytest.fixture
def account(app: App) -> tuple[str, str]:
    """Name and password of an account made on the command line."""
    name = f"user-{app.log_in()}"
    done = run_app("--dir", str(app.directory), *app.back_end.options, "user", "add", name, stdin="pass wörd\n")
    assert (done.returncode, done.stderr) == (0, "")
    return name, "pass wörd"


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def directory() -> Path:
    """A new directory, in memory where there is room."""
    return scratch().directory("upload")


@pytest.fixture
def small_disk(directory: Path) -> list[str]:
    """The start of a command whose process finds a disk of 10 MB at `directory`, alone in its view of the system."""
    mount = f"mount -t tmpfs -o size=10m tmpfs {directory}"
    view = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    prefix = [*view, "sh", "-c", f'{mount} && exec "$@"', "sh"]
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.fail(f"this test needs the right to mount a tmpfs: {tried.stderr}", pytrace=False)
    return prefix


@pytest.fixture
def start(directory: Path) -> Iterator[Start]:
    """Starts apps of this test's own, on its directory: start(back_end, *options)."""
    with ExitStack() as stack:

        def start_one(back_end: BackEnd, *options: str, **settings: object) -> App:
            app = App(directory, back_end, *options, **settings)  # type: ignore[arg-type]
            stack.callback(app.close)
            return app

        yield start_one
