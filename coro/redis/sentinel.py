"""A master that is replaced when it fails, found by asking the sentinels that watch it.

    sentinel = Sentinel.from_url("redis+sentinel://a.example,b.example,c.example/mymaster/0")
    redis = sentinel.master()      # a `Redis` like any other
    reads = sentinel.replica()     # the same for reads, at a replica

Only how connections are opened differs from a client whose server is known: each time, the sentinels are asked (all at
once; `coro.redis.views` says whom to believe), and the server itself is asked for its role, as what sentinels say may
be older than what happened. So a lost connection is all it takes to follow a failover. A master that was demoted
without losing its connections gives itself away by answering READONLY, or is given away by a sentinel's
`+switch-master`: then its connections are replaced.

Specification: https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal, Unpack, overload

from coro import (
    CancelScope,
    EndOfStream,
    Task,
    TaskCancelled,
    TaskGroup,
    background,
    move_on_after,
    now,
    sleep,
    task_group,
    timeout,
)
from coro.redis.client import Options, Redis
from coro.redis.commands.base import S
from coro.redis.connection import Connection, Connector, explained, open_connection, tls_context
from coro.redis.errors import RedisConnectionError, RedisError
from coro.redis.pubsub import Gap
from coro.redis.slots import Address
from coro.redis.url import Settings, parse_sentinel_url
from coro.redis.views import View, best_view, is_agreed, questions, read_view
from coro.sync import WaitQueue
from coro.task import Coro

PATIENCE = 0.5  # seconds in which the other sentinels may answer, after the first did
RETRY = 1.0  # seconds after which a sentinel that could not be reached is listened to again


class Sentinel:
    """The sentinels that watch one master. It has no connection of its own, and needs not be closed."""

    def __init__(self, sentinels: Sequence[Settings], name: str, settings: Settings) -> None:
        """`settings` say how to log in at the master called `name` and its replicas; not where, that is found out.

        Reads the files that TLS needs (ValueError, OSError). Does not suspend.
        """
        if not sentinels:
            raise ValueError("who is master can be found out from a sentinel only: name at least one")
        if not name:
            raise ValueError("sentinels watch masters by name: which one is meant?")
        self.sentinels = sentinels
        self.name = name
        self.settings = settings
        self._context = tls_context(sentinels[0])

    @classmethod
    def from_url(cls, url: str, **options: Unpack[Options]) -> Sentinel:
        """For a URL of this form, or with `rediss+sentinel` for TLS everywhere. ValueError. Does not suspend.

            redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT][,HOST[:PORT]...]/NAME[/DATABASE]

        The login is for the master and its replicas; `sentinel_username` and `sentinel_password`, among the options of
        `coro.redis.url` behind a `?`, are for the sentinels. The port of a sentinel is 26379 unless told otherwise.
        """
        sentinels, name, settings = parse_sentinel_url(url)
        return cls(sentinels, name, dataclasses.replace(settings, **options))

    @overload
    def master(self, *, decode: Literal[True]) -> Redis[str]: ...

    @overload
    def master(self, *, decode: Literal[False] = False) -> Redis: ...

    def master(self, *, decode: bool = False) -> Redis[Any]:
        """A client of whichever server is master. Does not suspend."""
        return Master(self, decode=decode)

    @overload
    def replica(self, *, decode: Literal[True]) -> Redis[str]: ...

    @overload
    def replica(self, *, decode: Literal[False] = False) -> Redis: ...

    def replica(self, *, decode: bool = False) -> Redis[Any]:
        """A client for reads: of one of the replicas, or of the master while there is none. Does not suspend.

        What a replica tells may be older than what the master was told.
        """
        return Redis(self.settings, decode=decode, connector=SentinelConnector(self, replica=True))

    # --- Asking --------------------------------------------------------------------

    def view(self) -> Coro[View]:
        """What the sentinels say now. Suspends. `RedisConnectionError` when none answers, or none knows the name."""
        views: list[View] = []
        unknown: list[str] = []
        failures: dict[str, list[str]] = {}
        news = WaitQueue(f"answers of the sentinels of {self.name!r}")
        left = len(self.sentinels)

        def ask(sentinel: Settings) -> Coro[None]:
            nonlocal left
            try:
                view = yield from self._ask(sentinel)
                if view is None:
                    unknown.append(sentinel.address)
                else:
                    views.append(view)
            except RedisError as error:
                failures.setdefault(_reason(error, sentinel), []).append(sentinel.address)
            left -= 1
            news.wake_one()

        def body(group: TaskGroup) -> Coro[None]:
            for sentinel in self.sentinels:
                group.spawn(ask(sentinel), name=f"question to the sentinel at {sentinel.address}")
            with move_on_after(math.inf) as scope:
                while left and not is_agreed(views, len(self.sentinels)):
                    yield news
                    if views:
                        scope.deadline = min(scope.deadline, now() + PATIENCE)
            group.cancel()

        with suppress(TaskCancelled):  # who has not answered by now is not waited for
            yield from task_group(body)
        if views:
            return best_view(views)
        problems = [f"{reason} ({', '.join(whose)})" for reason, whose in failures.items()]
        if unknown:
            problems.insert(0, f"no master of that name is known ({', '.join(unknown)})")
        raise RedisConnectionError(f"the master {self.name!r} cannot be found: {'; '.join(problems)}", sent=False)

    def _ask(self, sentinel: Settings) -> Coro[View | None]:
        connection = yield from open_connection(sentinel, self._context)
        try:
            with timeout(sentinel.timeout):
                return read_view((yield from connection.exchange(questions(self.name))))
        except (OSError, EndOfStream) as error:
            text = f"the connection to the sentinel at {sentinel.address} was lost"
            raise RedisConnectionError(text, sent=False) from error
        finally:
            connection.close()

    def __repr__(self) -> str:
        where = ", ".join(sentinel.address for sentinel in self.sentinels)
        return f"<Sentinel of {self.name!r} at {where}>"


def _reason(error: RedisError, settings: Settings) -> str:
    """Why there was no answer, without the address."""
    cause = error.__cause__
    return str(error) if cause is None else explained(cause, settings)


class SentinelConnector(Connector):
    """Opens connections to the server that sentinels name, when it says itself that it is what it is taken for."""

    def __init__(self, sentinel: Sentinel, *, replica: bool) -> None:
        super().__init__(sentinel.settings)
        self._sentinel = sentinel
        self._replica = replica
        self._attempts: set[CancelScope] = set()

    def _connect(self) -> Coro[Connection]:
        while True:
            with move_on_after(math.inf) as attempt:
                self._attempts.add(attempt)
                try:
                    return (yield from self._find())
                finally:
                    self._attempts.discard(attempt)
            # The master was replaced meanwhile: `look_again`.

    def look_again(self) -> None:
        """Have attempts that are under way begin anew. Does not suspend."""
        for attempt in tuple(self._attempts):
            attempt.cancel()

    def _find(self) -> Coro[Connection]:
        view = yield from self._sentinel.view()
        candidates = [(address, b"slave") for address in view.replicas if self._replica]
        random.shuffle(candidates)
        candidates.append((view.master, b"master"))
        for address, role in candidates[:-1]:
            with suppress(RedisConnectionError):  # there are others
                return (yield from self._open(address, role))
        return (yield from self._open(*candidates[-1]))

    def _open(self, address: Address, role: bytes) -> Coro[Connection]:
        settings = dataclasses.replace(self.settings, host=address.host, port=address.port)
        connection = yield from open_connection(settings, self._context)
        try:
            with timeout(settings.timeout):
                told = yield from connection.call("ROLE")
            if told[0] != role:
                raise RedisError(f"the sentinels take it for a {role.decode()}, but it is a {told[0].decode()}")
        except BaseException as error:
            connection.close()
            if not isinstance(error, (OSError, EndOfStream, RedisError)):
                raise
            text = f"no connection to {self._sentinel.name!r} at {settings.address}: {explained(error, settings)}"
            raise RedisConnectionError(text, sent=False) from error
        self.settings = settings
        return connection


class Master(Redis[S]):
    """The client that `Sentinel.master` makes. It listens to the sentinels while it has connections."""

    def __init__(self, sentinel: Sentinel, *, decode: bool) -> None:
        self._sentinel = sentinel
        self._connector = _ListeningConnector(sentinel, self)
        self._listener: Task[None] | None = None
        super().__init__(sentinel.settings, decode=decode, connector=self._connector)

    def listen(self) -> None:
        """Listen to the sentinels, until the client is closed or the run ends. Does not suspend."""
        if self._listener is None:
            self._listener = background(self._listen(), name=f"failovers of {self._sentinel.name!r}")

    def _listen(self) -> Coro[None]:
        def body(group: TaskGroup) -> Coro[None]:
            for settings in self._sentinel.sentinels:
                group.spawn(self._listen_to(settings))
            yield from ()

        try:
            yield from task_group(body)
        finally:
            self._listener = None

    def _listen_to(self, settings: Settings) -> Coro[None]:
        client = Redis(settings)
        pubsub = client.pubsub()
        try:
            while True:
                try:
                    yield from pubsub.subscribe("+switch-master")
                    while True:
                        message = yield from pubsub.get_message()
                        if isinstance(message, Gap):  # what was said meanwhile has to be asked for
                            self._settle((yield from self._sentinel.view()).master)
                        else:
                            self._hear(message.data.decode("utf-8", "replace"))
                except RedisError:
                    yield from sleep(RETRY * random.uniform(0.5, 1))
        finally:
            pubsub.close()
            client.close()

    def _hear(self, text: str) -> None:
        """Take a message about some master: `NAME OLD-HOST OLD-PORT NEW-HOST NEW-PORT`."""
        match text.split(" "):
            case [name, _, _, host, port] if name == self._sentinel.name and port.isdecimal():
                self._settle(Address(host, int(port)))

    def _settle(self, master: Address) -> None:
        """Let go of everything that leads to another server."""
        current = self._connector.settings
        if master != (current.host, current.port):
            self._connector.look_again()
            self._shared.drop()
            self.pool.drop()

    def close(self) -> None:
        super().close()
        if self._listener is not None:
            self._listener.cancel()


class _ListeningConnector(SentinelConnector):
    """Has its client listen to the sentinels as soon as it is used."""

    def __init__(self, sentinel: Sentinel, client: Master[Any]) -> None:
        super().__init__(sentinel, replica=False)
        self._client = client

    def _connect(self) -> Coro[Connection]:
        self._client.listen()
        return (yield from super()._connect())
