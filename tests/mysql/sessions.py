"""Runs a test's body with a connection or a pool, and closes it afterwards; makes users."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import coro
from coro import Coro
from coro.mysql import Connection, Pool, connect
from tests.proxy import Proxy, through_proxy
from tests.services import SQLServer

T = TypeVar("T")


def with_connection(url: str, body: Callable[[Connection], Coro[T]]) -> T:
    """The result of `body(connection)`, run in a loop of its own."""

    def main() -> Coro[T]:
        connection = yield from connect(url)
        try:
            return (yield from body(connection))
        finally:
            connection.close()

    return coro.run(main())


def with_pool(url: str, body: Callable[[Pool], Coro[T]], **options: Any) -> T:
    """The result of `body(pool)`, run in a loop of its own."""

    def main() -> Coro[T]:
        pool = Pool(url, **options)
        try:
            return (yield from body(pool))
        finally:
            pool.close()

    return coro.run(main())


def through(server: SQLServer, body: Callable[[Proxy, Pool], Coro[None]], *, size: int = 1, **options: Any) -> None:
    """Runs `body(proxy, pool)` with a pool that reaches the server, without TLS, through the proxy."""

    def run(proxy: Proxy) -> Coro[None]:
        pool = Pool(f"mysql://root@127.0.0.1:{proxy.port}/?tls=disabled", size=size, **options)
        try:
            yield from body(proxy, pool)
        finally:
            pool.close()

    coro.run(through_proxy(server.port, run))


def is_gone(server: SQLServer, session: int) -> bool:
    """Whether the server has no such session any more."""
    return not server.sql("SELECT 1 FROM information_schema.processlist WHERE id = %s", session)


def until(holds: Callable[[], bool]) -> Coro[None]:
    """Waits until something outside this loop has happened, asking again and again; not for ever."""
    with coro.timeout(100):
        while not (yield from coro.to_thread(holds)):
            yield from coro.checkpoint()


def create_user(server: SQLServer, password: str, how: str = "") -> str:
    """A new user that may do nothing but log in."""
    name = f"u{hashlib.sha256(password.encode() + how.encode()).hexdigest()[:12]}"
    server.sql(f"DROP USER IF EXISTS {name}@'%'")
    server.sql(f"CREATE USER {name}@'%' IDENTIFIED " + (how or f"BY '{password}'"))
    return name
