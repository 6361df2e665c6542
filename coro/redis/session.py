"""A connection for one task: whatever it does to the connection, nobody else sees it.

A session carries out each command as it comes. A transaction does too, until `multi()`: what follows is collected, and
carried out as one if none of the watched keys has changed since it was watched.

    def take_one(transaction: Transaction) -> Coro[None]:
        left = yield from transaction.get("stock")
        transaction.multi()
        transaction.set("stock", int(left or 0) - 1)

    yield from redis.transaction(take_one, "stock")

Specification: https://redis.io/docs/latest/develop/interact/transactions/
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from coro import ClosedError
from coro.redis.commands import Commands, Key
from coro.redis.commands.base import Convert, S
from coro.redis.connection import Connection
from coro.redis.errors import RedisConnectionError, ReplyError, TransactionAbortedError, WatchError
from coro.redis.pipeline import Queued, first_error
from coro.redis.pool import ConnectionPool
from coro.redis.replies import result
from coro.redis.resp import Argument
from coro.redis.routes import check_answered, check_lendable, may_block
from coro.task import Coro

T = TypeVar("T")


class Session(Commands[S]):
    """Commands on one connection, for one task at a time (`BusyError`). Given to the body of `Redis.session`."""

    ended = False

    def __init__(self, pool: ConnectionPool, connection: Connection, decode: bool) -> None:
        self._pool = pool
        self._connection = connection
        self._decode = decode

    def execute_command(self, *args: Argument) -> Coro[Any]:
        """Carry out any command that has one reply; the reply. Suspends. Raises what `Redis.execute` raises.

        One that blocks, `WAIT` too, has the time that it takes.
        """
        check_answered(args)
        return self._wait(args, 0) if may_block(args) else self._send(args)

    def _send(self, args: Sequence[Argument], convert: Convert = None) -> Coro[Any]:
        return self._exchange(args, convert, self._pool.settings.timeout)

    def _wait(self, args: Sequence[Argument], seconds: float, convert: Convert = None) -> Coro[Any]:
        return self._exchange(args, convert, seconds + self._pool.settings.timeout if seconds else math.inf)

    def _exchange(self, args: Sequence[Argument], convert: Convert, patience: float) -> Coro[Any]:
        if self.ended:
            raise RuntimeError("the session or transaction has ended: its connection is somebody else's now")
        (reply,) = yield from self._pool.exchange(self._connection, [args], patience)
        if isinstance(reply, ReplyError):
            raise reply
        return result(reply, convert, self._decode)


class Transaction(Session[S]):
    """Commands on one connection, which after `multi()` are collected. Given to the body of `Redis.transaction`."""

    queue: list[Queued[Any]] | None = None

    def multi(self) -> None:
        """From here on commands are collected: their methods return what stands for the results. Does not suspend."""
        if self.queue is not None:
            raise RuntimeError("multi() was called before in this transaction")
        self.queue = []

    def watch(self, *names: Key) -> Coro[None]:
        """Have the transaction fail, and be begun again, if these keys change. Suspends. Before `multi()` only."""
        if self.queue is not None:
            raise RuntimeError("watch() after multi(): what is read now could be old already")
        yield from super()._send((b"WATCH", *names))

    def _send(self, args: Sequence[Argument], convert: Convert = None) -> Coro[Any]:
        check_lendable(args)
        if self.queue is None:
            return super()._send(args, convert)
        queued: Queued[Any] = Queued(args, convert)
        self.queue.append(queued)
        return queued

    def _wait(self, args: Sequence[Argument], seconds: float, convert: Convert = None) -> Coro[Any]:
        check_lendable(args)
        return super()._wait(args, seconds, convert) if self.queue is None else self._send(args, convert)


def run_session(pool: ConnectionPool, decode: bool, body: Callable[[Session[S]], Coro[T]]) -> Coro[T]:
    """`body` with a connection, which is closed afterwards. Suspends."""

    def use(connection: Connection) -> Coro[T]:
        session: Session[S] = Session(pool, connection, decode)
        try:
            return (yield from body(session))
        finally:
            session.ended = True
            connection.close()  # nobody knows what was done to it

    return pool.lend(use)


def run_transaction(
    pool: ConnectionPool,
    decode: bool,
    body: Callable[[Transaction[S]], Coro[Any]],
    watches: Sequence[Key],
    attempts: int,
) -> Coro[list[Any]]:
    """`body` again and again, until no watched key has changed meanwhile; the results of what it queued. Suspends."""
    for _ in range(attempts):
        results = yield from pool.lend(lambda connection: _attempt(pool, connection, decode, body, watches))
        if results is not None:
            return results
    raise WatchError(f"a watched key was changed by others in each of {attempts} attempts at a transaction")


def _attempt(
    pool: ConnectionPool,
    connection: Connection,
    decode: bool,
    body: Callable[[Transaction[S]], Coro[Any]],
    watches: Sequence[Key],
) -> Coro[list[Any] | None]:
    transaction: Transaction[S] = Transaction(pool, connection, decode)
    try:
        if watches:
            yield from transaction.watch(*watches)
        work = body(transaction)
        if not isinstance(work, Generator):
            raise TypeError(f"the body of a transaction is to be a generator function: {body!r} returned {work!r}")
        yield from work
    except Exception:
        if connection.in_step:
            with suppress(RedisConnectionError, ClosedError):  # it is closed then, and watches nothing
                yield from pool.exchange(connection, [(b"UNWATCH",)])
        raise
    finally:
        transaction.ended = True
    queue = transaction.queue or []
    if not queue:
        yield from pool.exchange(connection, [(b"UNWATCH",)])
        return []
    replies = yield from exec_transaction(pool, connection, [queued.args for queued in queue])
    if replies is None:
        return None
    results = [queued.settle(reply, decode) for queued, reply in zip(queue, replies, strict=True)]
    if (error := first_error(queue)) is not None:
        raise error
    return results


def exec_transaction(
    pool: ConnectionPool, connection: Connection, commands: Sequence[Sequence[Argument]]
) -> Coro[list[Any] | None]:
    """MULTI, the commands, EXEC, in one piece; the replies, or None when a watched key had changed. Suspends."""
    outcome: Any
    _, *queued, outcome = yield from pool.exchange(connection, [(b"MULTI",), *commands, (b"EXEC",)])
    if isinstance(outcome, ReplyError):
        refused = next((reply for reply in queued if isinstance(reply, ReplyError)), None)
        if isinstance(outcome, TransactionAbortedError) and refused is not None:
            raise TransactionAbortedError(f"{outcome} The first was: {refused}") from refused
        raise outcome
    replies: list[Any] | None = outcome
    return replies
