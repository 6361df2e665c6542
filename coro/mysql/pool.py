"""A pool of connections: at most so many, opened when needed, lent out first come, first served.

A semaphore holds one permit for each connection there may be; who has a permit takes an idle connection or
opens a new one. So a permit cannot get lost with a connection that breaks, and a released one is handed to
whoever has waited longest. Which connection is taken is decided without waiting: the one used last, whose
statements are prepared, unless it turns out to be dead.

A connection comes back as it was lent: a transaction left open is rolled back. In a pool of autocommitting
statements that costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from coro.errors import ClosedError
from coro.mysql.commands import Result
from coro.mysql.connection import Connection, Queries
from coro.mysql.login import connect_to, tls_context
from coro.mysql.parameters import Parameter
from coro.mysql.url import parse_url
from coro.sync import Semaphore
from coro.task import Coro

T = TypeVar("T")


class Pool(Queries):
    """Up to `size` connections to the server of a `mysql://` URL (see `coro.mysql.url`). For one run of the
    loop.

    Opens none until it is asked something. Raises InterfaceError for a bad URL.
    """

    def __init__(self, url: str, *, size: int = 16) -> None:
        if size < 1:
            raise ValueError(f"a pool of {size} connections")
        self.size = size
        self.closed = False
        self._target = parse_url(url)
        self._context = tls_context(self._target)
        self._permits = Semaphore(size)
        self._idle: list[Connection] = []

    def results(self, sql: str, *parameters: Parameter) -> Coro[list[Result]]:
        return (yield from self._lend(lambda connection: connection.results(sql, *parameters)))

    def execute_many(self, sql: str, rows: Iterable[Sequence[Parameter]]) -> Coro[Result]:
        """`Connection.execute_many` on a connection of the pool. Suspends."""
        return (yield from self._lend(lambda connection: connection.execute_many(sql, rows)))

    def transaction(self, body: Callable[[Connection], Coro[T]]) -> Coro[T]:
        """`Connection.transaction` on a connection of the pool: commits when the body returns. Suspends."""
        return (yield from self._lend(lambda connection: connection.transaction(body)))

    def close(self) -> None:
        """Ends the idle connections now and the others when they come back. Who still waits gets ClosedError.

        Does not suspend; can be repeated.
        """
        self.closed = True
        while self._idle:
            self._idle.pop().close()

    def _lend(self, use: Callable[[Connection], Coro[T]]) -> Coro[T]:
        """Runs `use(connection)`. Suspends while all connections are taken."""
        with (yield from self._permits.acquire()):
            connection = self._take_idle()
            if connection is None:
                connection = yield from connect_to(self._target, self._context)
            try:
                result = yield from use(connection)
                if connection.in_transaction:
                    yield from connection.rollback()
                return result
            finally:
                self._take_back(connection)

    def _take_idle(self) -> Connection | None:
        if self.closed:
            raise ClosedError(f"{self!r} is closed")
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable():
                return connection
            connection.abort()
        return None

    def _take_back(self, connection: Connection) -> None:
        if self.closed:
            connection.close()
        elif connection.in_transaction:
            connection.abort()
        elif not connection.closed:
            self._idle.append(connection)

    def __repr__(self) -> str:
        lent = self.size - self._permits.free
        state = "closed" if self.closed else f"{lent} of {self.size} connections lent, {len(self._idle)} idle"
        return f"<mysql.Pool on {self._target.peer}, {state}>"
