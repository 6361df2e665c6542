"""A pool of connections: at most so many, opened when needed, lent out first come, first served.

A semaphore holds one permit for each connection there may be; who has a permit takes an idle connection or
opens a new one. So a permit cannot get lost with a connection that breaks, and a released one is handed to
whoever has waited longest. Which connection is taken is decided without waiting: the one used last, whose
statements are prepared, unless it turns out to be dead.

A connection is lent as good as new. A server that has ended the session has said so, or closed its end, and that is
seen before anything is sent. One that may have vanished without a word is asked for a sign of life when the connection
was idle for long. What the last user left in the session is undone when the connection comes back, and only then: in
a pool of plain statements that costs nothing.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from coro.errors import ClosedError
from coro.group import background
from coro.mysql.commands import Result
from coro.mysql.connection import Connection, Isolation, Queries
from coro.mysql.errors import DatabaseError, Error
from coro.mysql.parameters import Parameter
from coro.mysql.servers import CONNECT_TIMEOUT, Servers
from coro.mysql.streaming import RowStream
from coro.mysql.url import Target
from coro.sync import Semaphore
from coro.task import Coro, Task
from coro.timing import move_on_after, now, shield, sleep, timeout

T = TypeVar("T")

logger = logging.getLogger("coro.mysql")

PING_AFTER: Final = 30.0  # seconds of idleness
PING_TIMEOUT: Final = 2.0  # seconds
CLEAN_TIMEOUT: Final = 5.0  # seconds
KILL_TIMEOUT: Final = 5.0  # seconds
ER_UNKNOWN_COM_ERROR: Final = 1047  # "WSREP has not yet prepared node for application use"
FIRST_PAUSE: Final = 0.01  # seconds before a transaction is run again; twice as long each time, up to
LONGEST_PAUSE: Final = 1.0
# ER_CHECKREAD, ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK, and the same from a group of servers that certify each other's
# transactions: Galera's failures are 1213, ER_TRANSACTION_ROLLBACK_DURING_COMMIT is MySQL Group Replication's
_WORTH_ANOTHER_TRY: Final = (1020, 1205, 1213, 3101)


@dataclass(slots=True, eq=False)
class _Pooled:
    connection: Connection
    target: Target
    retire_at: float  # by the loop's clock
    idle_since: float


class Pool(Queries):
    """Up to `size` connections to a server of a `mysql://` URL (see `coro.mysql.url`). For one run of the loop.

    Opens none until it is asked something; closes those that are `max_age` seconds old or were idle for `max_idle`.
    `connect_timeout` is in seconds, for each server. With `kill_cancelled`, the server is told (KILL QUERY) when a
    statement is cancelled or timed out while it runs; not for servers behind a load balancer, where the next
    connection may lead to another one. Raises InterfaceError for a bad URL.
    """

    def __init__(
        self,
        url: str,
        *,
        size: int = 16,
        max_age: float = 3600.0,
        max_idle: float = 300.0,
        connect_timeout: float = CONNECT_TIMEOUT,
        kill_cancelled: bool = False,
    ) -> None:
        if size < 1:
            raise ValueError(f"a pool of {size} connections")
        self.size = size
        self.closed = False
        self._servers = Servers(url, connect_timeout=connect_timeout)
        self._max_age = max_age
        self._max_idle = max_idle
        self._kill_cancelled = kill_cancelled
        self._permits = Semaphore(size)
        self._idle: list[_Pooled] = []  # the one used last at the end
        self._sweeper: Task[None] | None = None

    # --- Asking ------------------------------------------------------------------

    def results(self, sql: str, *parameters: Parameter) -> Coro[list[Result]]:
        return (yield from self.lend(lambda connection: connection.results(sql, *parameters)))

    def execute_many(self, sql: str, rows: Iterable[Sequence[Parameter]]) -> Coro[Result]:
        """`Connection.execute_many` on a connection of the pool. Suspends."""
        return (yield from self.lend(lambda connection: connection.execute_many(sql, rows)))

    def stream(self, sql: str, *parameters: Parameter) -> Coro[RowStream]:
        """`Connection.stream` on a connection of the pool, which comes back when the stream is closed: use `with`.
        Suspends.
        """
        return (yield from self._lend_for(lambda connection: connection.stream(sql, *parameters)))

    def cursor(self, sql: str, *parameters: Parameter, fetch_size: int = 1000) -> Coro[RowStream]:
        """`Connection.cursor` on a connection of the pool, which comes back when the cursor is closed: use `with`.
        Suspends.
        """
        return (yield from self._lend_for(lambda lent: lent.cursor(sql, *parameters, fetch_size=fetch_size)))

    def transaction(
        self,
        body: Callable[[Connection], Coro[T]],
        *,
        attempts: int = 1,
        isolation: Isolation | None = None,
        read_only: bool = False,
    ) -> Coro[T]:
        """`Connection.transaction` on a connection of the pool: commits when the body returns. Suspends.

        With `attempts`, a transaction that was rolled back for another's sake (deadlock, lock wait timeout, failed
        certification) is run again after a pause, up to so many times in all: `body` must be fit for that. One
        whose outcome is unknown never is.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                return (
                    yield from self.lend(
                        lambda connection: connection.transaction(body, isolation=isolation, read_only=read_only)
                    )
                )
            except DatabaseError as error:
                attempts -= 1
                if attempts <= 0 or error.code not in _WORTH_ANOTHER_TRY:
                    raise
            yield from sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, LONGEST_PAUSE)

    def lend(self, use: Callable[[Connection], Coro[T]]) -> Coro[T]:
        """Runs `use(connection)` with a connection of the pool; its result. Suspends while all are taken.

        For what needs one session: temporary tables, locks, variables. They are gone when `use` has returned.
        """
        with (yield from self._permits.acquire()):
            pooled = self._ready() or (yield from self._take())
            connection = pooled.connection
            try:
                result = yield from use(connection)
                if connection.has_leftovers:
                    yield from self._clean(pooled)
                return result
            except GeneratorExit:
                connection.abort()
                raise
            except DatabaseError as error:
                if error.code == ER_UNKNOWN_COM_ERROR:
                    self._avoid(pooled)
                raise
            finally:
                self._take_back(pooled)

    def _lend_for(self, open_stream: Callable[[Connection], Coro[RowStream]]) -> Coro[RowStream]:
        """As `lend`, until the stream is closed."""
        yield from self._permits.acquire()
        pooled = None
        try:
            pooled = self._ready() or (yield from self._take())
            stream = yield from open_stream(pooled.connection)
        except BaseException as error:
            if pooled is not None:
                if isinstance(error, GeneratorExit):
                    pooled.connection.abort()
                self._take_back(pooled)
            self._permits.release()
            raise

        def give_back(pooled: _Pooled = pooled) -> None:
            self._take_back(pooled)
            self._permits.release()

        stream.on_close = give_back
        return stream

    def close(self) -> None:
        """Ends the idle connections now and the others when they come back. Who still waits gets ClosedError.

        Does not suspend; can be repeated.
        """
        self.closed = True
        while self._idle:
            self._idle.pop().connection.close()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def __repr__(self) -> str:
        lent = self.size - self._permits.free
        state = "closed" if self.closed else f"{lent} of {self.size} connections lent, {len(self._idle)} idle"
        return f"<mysql.Pool on {self._servers!r}, {state}>"

    # --- Lending -----------------------------------------------------------------

    def _ready(self) -> _Pooled | None:
        """The idle connection that was used last, if it can be used at once. Those that are dead or too old go."""
        if self.closed:
            raise ClosedError(f"{self!r} is closed")
        time = now()
        while self._idle:
            pooled = self._idle.pop()
            idle = time - pooled.idle_since
            if idle < self._max_idle and time < pooled.retire_at and pooled.connection.is_silent():
                if idle < PING_AFTER:
                    return pooled
                self._idle.append(pooled)  # `_take` asks it first
                return None
            pooled.connection.close()
        return None

    def _take(self) -> Coro[_Pooled]:
        """A connection for which one has to wait: idle for long, and alive after all, or new."""
        while self._idle:
            pooled = self._idle.pop()
            if (yield from self._answers(pooled.connection)):
                return pooled
            self._drop([other for other in self._idle if other.target == pooled.target])
            if (ready := self._ready()) is not None:
                return ready
        connection, target = yield from self._servers.connect()
        if self._kill_cancelled:
            connection.linger()
        return _Pooled(connection, target, now() + self._max_age * random.uniform(0.9, 1), 0)

    def _answers(self, connection: Connection) -> Coro[bool]:
        with suppress(Error), move_on_after(PING_TIMEOUT):
            yield from connection.ping()
            return True
        connection.abort()
        return False

    def _clean(self, pooled: _Pooled) -> Coro[None]:
        """Undo what is left in the session. Its user has the result already: a failure costs the connection only."""
        connection = pooled.connection
        if connection.user_changed or connection.is_streaming:
            return connection.abort()
        with suppress(Error), move_on_after(CLEAN_TIMEOUT):
            if not connection.session_changed:
                yield from connection.rollback()
                return
            yield from connection.reset()
            database = yield from connection.fetch_value("SELECT DATABASE()")
            if (database or "").lower() != pooled.target.database.lower():  # a reset does not undo USE
                connection.abort()

    def _avoid(self, pooled: _Pooled) -> None:
        """A Galera node left its cluster, and refuses all statements: go to another one."""
        pooled.connection.abort()
        self._drop([other for other in self._idle if other.target == pooled.target])
        self._servers.note_failure(pooled.target)

    def _take_back(self, pooled: _Pooled) -> None:
        connection = pooled.connection
        if connection.closed:
            if connection.interrupted and connection.is_silent():
                background(self._kill(pooled), name=f"KILL QUERY {connection.id}")
            else:
                connection.abort()
        elif self.closed:
            connection.close()
        elif connection.has_leftovers:
            connection.abort()
        else:
            pooled.idle_since = now()
            self._idle.append(pooled)
            if self._sweeper is None:
                self._sweeper = background(self._sweep(), name=f"sweeper of the pool on {self._servers!r}")

    def _kill(self, pooled: _Pooled) -> Coro[None]:
        """Have the server end an interrupted statement, if it is still at it.

        The connection is still open, so its session is there and no other has its id.
        """
        connection = pooled.connection
        try:
            with shield(), timeout(KILL_TIMEOUT):
                killer = yield from self._servers.connect_to(pooled.target)
                try:
                    if connection.is_silent():
                        yield from killer.execute(f"KILL QUERY {connection.id}")
                finally:
                    killer.close()
        except (Error, TimeoutError) as error:
            logger.warning("cannot kill the statement of session %d on %s: %s", connection.id, connection.peer, error)
        finally:
            connection.abort()

    # --- Closing what is idle ------------------------------------------------------

    def _end(self, idle: _Pooled) -> float:
        return min(idle.retire_at, idle.idle_since + self._max_idle)

    def _drop(self, idle: Sequence[_Pooled]) -> None:
        for pooled in idle:
            self._idle.remove(pooled)
            pooled.connection.close()

    def _sweep(self) -> Coro[None]:
        """Closes idle connections when their time is up; ends when none is left."""
        while self._idle:
            yield from sleep(min(map(self._end, self._idle)) - now())
            time = now()
            self._drop([pooled for pooled in self._idle if self._end(pooled) <= time])
        self._sweeper = None
