"""The client that programs use: one object for a whole program, and for all its tasks at once.

    redis = Redis.from_url("redis://localhost:6379/0")

    def count(name: str) -> Coro[int]:
        return (yield from redis.incr(f"visits:{name}"))

What the tasks issue in one round of the loop leaves together and is answered together (`coro.redis.shared` says how).
Commands that block, and transactions, get a connection of their own from a pool (`coro.redis.pool`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

from coro.redis.commands import Commands, Key
from coro.redis.commands.base import Convert, S
from coro.redis.commands.script import Script
from coro.redis.connection import Connector
from coro.redis.errors import RedisConnectionError, ReplyError
from coro.redis.lock import Lock
from coro.redis.monitor import Monitor
from coro.redis.pipeline import Pipeline
from coro.redis.pool import ConnectionPool
from coro.redis.pubsub import MAX_BYTES, MAX_MESSAGES, PubSub
from coro.redis.replies import decoded, result
from coro.redis.resp import Argument
from coro.redis.routes import BLOCKS, refusal, why_not_shared
from coro.redis.session import Session, Transaction, exec_transaction, run_session, run_transaction
from coro.redis.shared import Batch, Command, SharedConnection
from coro.redis.url import Settings, parse_url
from coro.task import Coro

T = TypeVar("T")


class Options(TypedDict, total=False):
    """What `Redis.from_url` takes besides the URL; it goes before what the URL says."""

    timeout: float  # seconds from a command's sending to its reply
    connect_timeout: float  # seconds for connecting and logging in, and for the wait for a free connection
    max_unanswered: int  # commands under way at once on the shared connection
    max_connections: int  # connections besides the shared one
    health_check_interval: float  # seconds without a command after which the connection is tried with PING
    client_name: str  # what CLIENT LIST shows


class Client(Commands[S]):
    """What a client offers besides the commands. A subclass says how one command, and several, are carried out."""

    decode: bool

    def execute(self, *args: Argument, idempotent: bool = False) -> Coro[Any]:
        """Carry out any command; its reply. Suspends.

        Strings are bytes, arrays lists, maps dicts (lists in RESP2), sets sets. Raises `ReplyError` (or the class for
        its prefix) when the server answers with an error; `RedisConnectionError` when it cannot be reached, does not
        answer in time or the connection is lost; `OwnConnectionError` for a command that changes the connection (one
        that blocks gets a connection of its own); TypeError for what cannot be sent.

        A command that was sent is never sent again, unless it is declared `idempotent`: then it is, once, when the
        connection is lost. Cancelled while it waits, its caller gets no reply, and nobody else does; the command may
        be carried out all the same.
        """
        reason = why_not_shared(args)
        if reason == BLOCKS:
            return (yield from self._wait(args, 0))
        if reason is not None:
            raise refusal(args, reason)
        try:
            return (yield from self._send(args))
        except RedisConnectionError:
            if not idempotent:
                raise
        return (yield from self._send(args))

    def send_all(self, commands: Sequence[Sequence[Argument]]) -> Coro[list[Any]]:
        """Carry out commands that leave together; the replies as they came. Suspends.

        Error replies are values among the others. Whether they can share a connection is for the caller to know.
        """
        raise NotImplementedError

    def send_transaction(self, commands: Sequence[Sequence[Argument]]) -> Coro[list[Any]]:
        """Carry out commands between MULTI and EXEC, on a connection of their own; the replies. Suspends.

        `TransactionAbortedError` when the server refused one of them, and therefore all.
        """
        raise NotImplementedError

    def pipeline(self, transaction: bool = True) -> Pipeline[S]:
        """Collects commands to be sent together: see `coro.redis.pipeline`. Does not suspend.

        With `transaction` they are carried out as one, between MULTI and EXEC, on a connection of their own.
        """
        return Pipeline(self.send_transaction if transaction else self.send_all, self.decode, alone=transaction)

    def script(self, source: str) -> Script:
        """A script that is sent once and then called by its digest: see `Script`. Does not suspend."""
        return Script(self._send, source)

    register_script = script

    def lock(self, name: str, timeout: float) -> Lock:
        """A lock among all clients of the server, which is given up after `timeout` seconds unless it is extended.

        See `coro.redis.lock`. Does not suspend.
        """
        return Lock(self.script, name, timeout)


class Redis(Client[S]):
    """A client for one server. It connects when the first command is issued, and again when the connection was lost.

    It belongs to one run of the loop at a time (RuntimeError); when that ends, so do its connections. `Redis` stands
    for `Redis[bytes]`, whose strings are bytes; with `decode=True` it is a `Redis[str]`.
    """

    def __init__(self, settings: Settings, *, decode: bool = False, connector: Connector | None = None) -> None:
        """Does not suspend and does not connect; reads the files that TLS needs (OSError, ValueError).

        `connector` opens the connections, where the settings do not say to which server.
        """
        if not isinstance(settings, Settings):
            raise TypeError(f"Redis is made of Settings, not of {type(settings).__name__}: for a URL, Redis.from_url")
        self.settings = settings
        self.decode = decode
        connector = connector or Connector(settings)
        self.pool = ConnectionPool(connector)
        self._shared = SharedConnection(connector)

    @overload
    @classmethod
    def from_url(cls, url: str, *, decode: Literal[True], **options: Unpack[Options]) -> Redis[str]: ...

    @overload
    @classmethod
    def from_url(cls, url: str, *, decode: Literal[False] = False, **options: Unpack[Options]) -> Redis: ...

    @classmethod
    def from_url(cls, url: str, *, decode: bool = False, **options: Unpack[Options]) -> Redis[Any]:
        """A client for a `redis://`, `rediss://` or `unix://` URL; see `coro.redis.url` and `Options`. ValueError.

        With `decode` the strings in replies are str, read as UTF-8, and not bytes. Does not suspend.
        """
        return cls(dataclasses.replace(parse_url(url), **options), decode=decode)

    # --- Carrying out commands -----------------------------------------------------

    def send_all(self, commands: Sequence[Sequence[Argument]]) -> Coro[list[Any]]:
        if not commands:
            return []
        replies: list[Any] = yield Batch(self._shared, commands)
        return replies

    def send_transaction(self, commands: Sequence[Sequence[Argument]]) -> Coro[list[Any]]:
        replies = yield from self.pool.lend(lambda connection: exec_transaction(self.pool, connection, commands))
        assert replies is not None, "no key was watched"
        return replies

    def transaction(
        self, body: Callable[[Transaction[S]], Coro[Any]], *watches: Key, attempts: int = 64
    ) -> Coro[list[Any]]:
        """What `body` has queued after `multi()`, carried out as one if no key of `watches` has changed; the results.

        If one has, `body` is run again, `attempts` times in all, then `WatchError` is raised. See `coro.redis.session`.
        Suspends. Raises what `body` raises; `ReplyError` for the first command that failed.
        """
        return run_transaction(self.pool, self.decode, body, watches, attempts)

    def session(self, body: Callable[[Session[S]], Coro[T]]) -> Coro[T]:
        """Run `body` with a connection of its own, for commands that change it; its result. Suspends."""
        return run_session(self.pool, self.decode, body)

    def pubsub(self, *, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> PubSub[S]:
        """Subscriptions on a connection of their own: see `coro.redis.pubsub`. Does not suspend.

        Up to `max_messages`, of `max_bytes` in all, wait to be taken.
        """
        return PubSub(self.pool, self.decode, max_messages=max_messages, max_bytes=max_bytes)

    def monitor(self) -> Monitor:
        """All commands that the server is given: see `coro.redis.monitor`. Does not suspend."""
        return Monitor(self.pool)

    def _send(self, args: Sequence[Argument], convert: Convert = None) -> Coro[Any]:
        reply = yield Command(self._shared, args)
        if convert is not None:
            return result(reply, convert, self.decode)
        return decoded(reply) if self.decode else reply

    def _wait(self, args: Sequence[Argument], seconds: float, convert: Convert = None) -> Coro[Any]:
        patience = seconds + self.settings.timeout if seconds else math.inf
        (reply,) = yield from self.pool.lend(lambda connection: self.pool.exchange(connection, [args], patience))
        if isinstance(reply, ReplyError):
            raise reply
        return result(reply, convert, self.decode)

    # --- Its end -------------------------------------------------------------------

    def close(self) -> None:
        """Close the client for good; who waits for a reply gets `ClosedError`. Does not suspend."""
        self._shared.close()
        self.pool.close()

    def __repr__(self) -> str:
        return f"<Redis at {self._shared!r}>"
