"""Connections for one task at a time: for what blocks the connection, or changes its state.

At most `max_connections` of them are open. One that is free is used again if it is in step and silent; one that was
interrupted in mid-exchange (cancelled, late, broken) is closed, as a reply may still be on its way to it. Those that
nobody has used for a while are closed too, so a connection taken from here is no older than that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from coro import (
    BusyError,
    ClosedError,
    CoroError,
    Semaphore,
    Task,
    background,
    now,
    sleep,
    timeout,
)
from coro.redis.connection import Connection, Connector, lost, other_loop
from coro.redis.errors import RedisConnectionError
from coro.redis.resp import Argument
from coro.task import Coro, current_task

T = TypeVar("T")

IDLE_TIME = 30.0  # seconds after which a connection that nobody uses is closed


class ConnectionPool:
    """The connections of one client besides the shared one. For one run of the loop at a time."""

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self.settings = connector.settings
        self.closed = False
        self._permits = Semaphore(self.settings.max_connections)
        self._idle: list[tuple[Connection, float]] = []  # and since when; the one used last is at the end
        self._lent: set[Connection] = set()
        self._keeper: Task[None] | None = None
        self._loop: object = None  # that connections were taken in last

    def lend(self, use: Callable[[Connection], Coro[T]]) -> Coro[T]:
        """Run `use(connection)`; its result. Suspends, also while all connections are taken. As `take`."""
        connection = yield from self.take()
        try:
            return (yield from use(connection))
        finally:
            self.give_back(connection)

    def take(self) -> Coro[Connection]:
        """A connection, to be given back. Suspends. `RedisConnectionError` when there is none, `ClosedError`."""
        self.check_loop()
        yield from self._permit()
        try:
            connection = self._take_idle() or (yield from self.connector.open())
            self.settings = self.connector.settings  # which server it is may have been found out just now
            if self.closed:
                connection.close()
                raise self._closed_error()
        except BaseException:
            self._permits.release()
            raise
        self._lent.add(connection)
        return connection

    def check_loop(self) -> None:
        """RuntimeError in another thread's loop than the one that uses connections, or keeps some."""
        loop = current_task().loop
        in_use = self._keeper is not None or self._permits.free < self.settings.max_connections
        if loop is not self._loop and in_use:
            raise other_loop(f"Redis at {self.settings.address}")
        self._loop = loop

    def _permit(self) -> Coro[None]:
        if self.closed:
            raise self._closed_error()
        patience = self.settings.connect_timeout
        try:
            with timeout(patience):
                yield from self._permits.acquire()
        except TimeoutError:
            count = self.settings.max_connections
            raise RedisConnectionError(
                f"no connection to Redis at {self.settings.address}: all {count} (max_connections) were in use"
                f" for {patience:g} s",
                sent=False,
            ) from None

    def give_back(self, connection: Connection) -> None:
        """For the next one to use, if it is in step; else it is closed. Does not suspend."""
        self._lent.discard(connection)
        if connection.in_step and not self.closed and self._attended():
            self._idle.append((connection, now()))
        else:
            connection.close()
        self._permits.release()

    def exchange(
        self, connection: Connection, commands: Sequence[Sequence[Argument]], seconds: float | None = None
    ) -> Coro[list[Any]]:
        """`connection.exchange(commands)`, to be done within `seconds` (None: the client's timeout). Suspends.

        `RedisConnectionError` when the connection is lost or the replies do not come in time.
        """
        patience = self.settings.timeout if seconds is None else seconds
        name = commands[0][0] if len(commands) == 1 else f"a pipeline of {len(commands)} commands"
        shown = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
        reason: BaseException | None
        try:
            with timeout(patience):
                return (yield from connection.exchange(commands))
        except TimeoutError:
            reason = TimeoutError(f"{shown} was not answered within {patience:g} s")
        except BusyError:
            raise  # of our own making: the exchange that is under way goes on
        except (OSError, CoroError) as error:
            reason = error
        connection.close()
        if self.closed:
            reason = None
        raise lost(self.settings, reason, shown, sent=True)

    def close(self) -> None:
        """Close all connections; who uses one gets `ClosedError`. Does not suspend; can be repeated."""
        self.closed = True
        self.drop()
        if self._keeper is not None:
            self._keeper.cancel()

    def retire(self) -> None:
        """Have connections opened anew: those that are free are closed. Does not suspend."""
        self._close_idle(math.inf)

    def drop(self) -> None:
        """Close all connections now: what was sent on them fails. For a server that was replaced. Does not suspend."""
        self.retire()
        for connection in tuple(self._lent):
            connection.close()

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection, _ = self._idle.pop()
            if connection.is_usable():
                return connection
            connection.close()
        return None

    def _attended(self) -> bool:
        """See that somebody closes what is left idle, at the end of the run at the latest; False after that."""
        if self._keeper is None:
            self._keeper = background(self._keep(), name=f"idle connections to Redis at {self.settings.address}")
        return not self._keeper.cancelled

    def _keep(self) -> Coro[None]:
        try:
            while True:
                yield from sleep(IDLE_TIME / 2)
                self._close_idle(now() - IDLE_TIME)
        finally:
            self._keeper = None
            self._close_idle(math.inf)

    def _close_idle(self, before: float) -> None:
        for connection, since in self._idle:
            if since <= before:
                connection.close()
        self._idle = [(connection, since) for connection, since in self._idle if since > before]

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"the client of Redis at {self.settings.address} is closed")

    def __repr__(self) -> str:
        return f"{len(self._lent)} of {self.settings.max_connections} own connections lent, {len(self._idle)} idle"
