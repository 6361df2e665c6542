"""Messages that others publish, received on a connection of its own.

    pubsub = redis.pubsub()
    yield from pubsub.subscribe("news")
    while True:
        message = yield from pubsub.get_message()
        if isinstance(message, Gap):
            ...  # some were missed: read the state anew
        else:
            print(message.channel, message.data)

A task in the background reads the connection, so that a dead one is found by PING also while nobody asks for messages.
When it is lost, the next one subscribes to the same channels, and a `Gap` stands where messages may be missing: once
all is subscribed again, so that what is read anew from then on is complete.

Messages wait in a queue that is bounded in number and in bytes. When it is full the new ones are dropped, and a `Gap`
stands in their place: who is too slow learns of it, and costs neither memory here nor the server's patience.

Specification: https://redis.io/docs/latest/develop/interact/pubsub/
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol

from coro import (
    ClosedError,
    CoroError,
    EndOfStream,
    Task,
    TaskGroup,
    background,
    checkpoint,
    sleep,
    task_group,
    timeout,
)
from coro.redis.commands.base import Key, S
from coro.redis.connection import READ_SIZE, Connection, lost, other_loop
from coro.redis.errors import RedirectError, RedisConnectionError, RedisError, ReplyError
from coro.redis.replies import decoded
from coro.redis.resp import Attributes, ProtocolError, Push, bytes_of, encode
from coro.redis.url import Settings
from coro.sync import WaitQueue
from coro.task import Coro, current_task

logger = logging.getLogger("coro.redis")

MAX_MESSAGES = 10_000  # that wait to be taken, unless told otherwise
MAX_BYTES = 64 * 1024 * 1024  # in them
RETRY = 1.0  # seconds between attempts to connect again

# Each kind of subscription, and what ends it. The server confirms each name with the command's name as the kind.
KINDS = {b"SUBSCRIBE": b"UNSUBSCRIBE", b"PSUBSCRIBE": b"PUNSUBSCRIBE", b"SSUBSCRIBE": b"SUNSUBSCRIBE"}
MESSAGES = {b"message": 2, b"smessage": 2, b"pmessage": 3}  # of how many parts: (pattern,) channel, data
CONFIRMATIONS = frozenset(command.lower() for command in (*KINDS, *KINDS.values()))


@dataclass(frozen=True, slots=True)
class Message(Generic[S]):
    """What was published on a channel; `pattern` is the one it matched, if it came by one."""

    channel: S
    data: S
    pattern: S | None = None


@dataclass(slots=True)
class Gap:
    """Here messages are missing, or may be: `dropped` of them, 0 if nobody knows how many; `reason` says why."""

    reason: str
    dropped: int = 0


class _Change:
    """A command to subscribe or unsubscribe that is to be confirmed, once for each name."""

    def __init__(self, command: bytes, names: Sequence[bytes], *, again: bool = False) -> None:
        self.command = command
        self.names = names
        self.again = again  # after a loss: nobody's call waits for it
        self.left = len(names)
        self.done = False
        self.error: Exception | None = None
        self.waiters = WaitQueue(f"the confirmation of {command.decode()}")

    def end(self, error: Exception | None = None) -> None:
        self.done, self.error = True, error
        self.waiters.wake_all()

    def wait(self) -> Coro[None]:
        if not self.done:
            yield self.waiters
        if self.error is not None:
            raise self.error


PING = _Change(b"PING", ())  # answered, but not confirmed


class Lender(Protocol):
    """Where connections come from: a `ConnectionPool`, or in a cluster the pools of several nodes."""

    settings: Settings

    @property
    def closed(self) -> bool: ...

    def check_loop(self) -> None: ...

    def take(self) -> Coro[Connection]: ...

    def give_back(self, connection: Connection) -> None: ...


class PubSub(Generic[S]):
    """Subscriptions, and the messages they bring. Made by `Redis.pubsub`; `close` it in the end."""

    def __init__(
        self, pool: Lender, decode: bool, *, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES
    ) -> None:
        if max_messages < 1 or max_bytes < 1:
            raise ValueError("a queue of messages has room for at least one message of at least one byte")
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.closed = False
        self._pool = pool
        self._decode = decode
        self._wanted: dict[bytes, dict[bytes, None]] = {command: {} for command in KINDS}  # names, in order
        self._unsent: deque[_Change] = deque()
        self._unconfirmed: deque[_Change] = deque()
        self._messages: deque[tuple[bytes, bytes, bytes | None] | Gap] = deque()
        self._bytes = 0  # in them
        self._gap: Gap | None = None  # to be told when all is subscribed again
        self._restoring = 0  # changes that are still to be confirmed before that
        self._heard = False
        self._connection: Connection | None = None
        self._keeper: Task[None] | None = None
        self._getters = WaitQueue("a message from Redis")
        self._work = WaitQueue("changes to subscriptions")

    # --- Subscribing -------------------------------------------------------------

    def subscribe(self, *channels: Key) -> Coro[None]:
        """Receive what is published on these channels, from the return of this call on. Suspends.

        `ReplyError` when the server refuses, `RedisConnectionError` when it cannot be reached: then nothing is
        subscribed that was not before. TypeError for what is no name. Cancelled while it waits, it may have succeeded.
        """
        return self._change(b"SUBSCRIBE", channels)

    def psubscribe(self, *patterns: Key) -> Coro[None]:
        """As `subscribe`, for all channels that match patterns such as "news.*"."""
        return self._change(b"PSUBSCRIBE", patterns)

    def ssubscribe(self, *channels: Key) -> Coro[None]:
        """As `subscribe`, for sharded channels."""
        return self._change(b"SSUBSCRIBE", channels)

    def unsubscribe(self, *channels: Key) -> Coro[None]:
        """No more of these channels, or of all that were subscribed by name. Suspends. What came already stays."""
        return self._end(b"SUBSCRIBE", channels)

    def punsubscribe(self, *patterns: Key) -> Coro[None]:
        """As `unsubscribe`, for patterns."""
        return self._end(b"PSUBSCRIBE", patterns)

    def sunsubscribe(self, *channels: Key) -> Coro[None]:
        """As `unsubscribe`, for sharded channels."""
        return self._end(b"SSUBSCRIBE", channels)

    def _change(self, command: bytes, given: Sequence[Key]) -> Coro[None]:
        self._check_open()
        names = dict.fromkeys(map(bytes_of, given))
        wanted = self._wanted[command]
        under_way = [change for change in (*self._unsent, *self._unconfirmed) if change.command == command]
        new = [name for name in names if name not in wanted]
        if new:
            wanted.update(dict.fromkeys(new))
            yield from self._confirmed(_Change(command, new))
        for change in under_way:  # of other tasks
            if not names.keys().isdisjoint(change.names):
                yield from change.wait()

    def _end(self, command: bytes, given: Sequence[Key]) -> Coro[None]:
        self._check_loop()
        wanted = self._wanted[command]
        names = [name for name in dict.fromkeys(map(bytes_of, given or list(wanted))) if name in wanted]
        self._drop(command, names)
        if names and self._keeper is not None:
            with suppress(RedisConnectionError):  # without a connection there is no subscription either
                yield from self._confirmed(_Change(KINDS[command], names))

    def _confirmed(self, change: _Change) -> Coro[None]:
        """Have the change sent, and wait until the server has confirmed it."""
        if self._keeper is None:
            self._pool.check_loop()
            self._keeper = background(self._keep(), name=f"messages from Redis at {self._pool.settings.address}")
        self._unsent.append(change)
        self._work.wake_one()
        patience = self._pool.settings.connect_timeout + self._pool.settings.timeout
        try:
            with timeout(patience):
                yield from change.wait()
        except TimeoutError:
            if self._connection is not None:
                self._connection.close()
            self._forget(change)
            name = change.command.decode()
            reason = TimeoutError(f"{name} was not confirmed within {patience:g} s")
            raise lost(self._pool.settings, reason, name, sent=True) from None

    def _forget(self, change: _Change) -> None:
        """What was to be subscribed is not, unless it was before."""
        if not change.again:
            self._drop(change.command, change.names)

    def _drop(self, command: bytes, names: Iterable[bytes]) -> None:
        """These are not wanted any more. When nothing is, nobody need wait for a message."""
        for name in names:
            self._wanted.get(command, {}).pop(name, None)
        if not any(self._wanted.values()):
            self._getters.wake_all()

    # --- Receiving -------------------------------------------------------------

    def get_message(self) -> Coro[Message[S] | Gap]:
        """The next message, or a `Gap` where some are missing. Suspends until there is one.

        `RedisError` when nothing is subscribed, `ClosedError` when this was closed. With `decode`, UnicodeDecodeError
        for a message that is not UTF-8; the next call goes on behind it.
        """
        while not self._messages:
            self._check_open()
            if not any(self._wanted.values()):
                raise RedisError("nothing is subscribed: no message will come")
            yield self._getters
        item = self._messages.popleft()
        if isinstance(item, Gap):
            return item
        self._bytes -= len(item[1])
        channel, data, pattern = decoded(item) if self._decode else item
        return Message(channel, data, pattern)

    def reconnect(self) -> Coro[None]:
        """Have all subscribed again on a new connection. Suspends until the old one is closed."""
        connection = self._connection
        if connection is not None:
            connection.close()
            while self._connection is connection:
                yield from checkpoint()

    def close(self) -> None:
        """End all subscriptions; who waits for a message gets `ClosedError`. Does not suspend; can be repeated."""
        self.closed = True
        if self._keeper is not None:
            self._keeper.cancel()

    def _check_open(self) -> None:
        if self.closed or self._pool.closed:
            raise ClosedError(f"the subscriptions at Redis at {self._pool.settings.address} are closed")
        self._check_loop()

    def _check_loop(self) -> None:
        if self._keeper is not None and self._keeper.loop is not current_task().loop:
            raise other_loop(f"Redis at {self._pool.settings.address}")

    def _put(self, item: tuple[bytes, bytes, bytes | None] | Gap) -> None:
        """Queue a message; the newest go first when there is no room."""
        messages = self._messages
        size = 0 if isinstance(item, Gap) else len(item[1])
        if not isinstance(item, Gap) and (len(messages) >= self.max_messages or self._bytes + size > self.max_bytes):
            last = messages[-1] if messages else None
            if isinstance(last, Gap) and last.dropped:
                last.dropped += 1
                return
            item, size = Gap("messages came faster than they were taken", 1), 0
        self._bytes += size
        messages.append(item)
        self._wake_getter()

    def _wake_getter(self, nothing: None = None) -> None:
        """See that what waits is taken: by the next one, if the first is cancelled before it takes it."""
        if self._messages:
            self._getters.hand_one(None, self._wake_getter)

    # --- The connection, in a task of its own ------------------------------------

    def _keep(self) -> Coro[None]:
        """Hold a connection, one after the other, as long as anything is wanted."""
        end: Exception | None = None  # None: `close`, or the run has ended
        try:
            while end is None:
                try:
                    connection = yield from self._pool.take()
                except RedisConnectionError as error:
                    self._fail_changes(error)
                    if any(self._wanted.values()):
                        yield from sleep(RETRY * random.uniform(0.5, 1))
                    else:
                        end = error
                    continue
                yield from self._use(connection)
        except ClosedError:
            self.closed = True  # with the client
        finally:
            self._keeper = None
            self._fail_changes(end)
            for wanted in self._wanted.values():
                wanted.clear()
            self._getters.fail_all(lambda: lost(self._pool.settings, end, "the subscription", sent=False))

    def _use(self, connection: Connection) -> Coro[None]:
        try:
            yield from task_group(lambda group: self._serve(connection, group))
        except* (OSError, CoroError) as errors:
            reason = errors.exceptions[0]
            if not self._pool.closed:
                where = self._pool.settings.address
                logger.warning("the connection to Redis at %s was lost: %s; subscribing again", where, reason)
                self._gap = Gap(f"the connection to Redis at {where} was lost: {reason}")
                self._fail_changes(reason)
        finally:
            self._connection = None
            connection.close()  # what it is subscribed to ends with it
            self._pool.give_back(connection)

    def _fail_changes(self, reason: BaseException | None) -> None:
        changes = [*self._unconfirmed, *self._unsent]
        self._unconfirmed.clear()
        self._unsent.clear()
        for change in changes:
            if change is not PING:
                self._forget(change)
                sent = not isinstance(reason, RedisConnectionError)
                change.end(lost(self._pool.settings, reason, change.command.decode(), sent=sent))

    def _serve(self, connection: Connection, group: TaskGroup) -> Coro[None]:
        """Subscribe to all that is wanted, then read until the connection ends."""
        asked = {(change.command, name) for change in self._unsent for name in change.names}
        again: list[_Change] = []
        for command, wanted in self._wanted.items():
            names = [name for name in wanted if (command, name) not in asked]
            if names:
                again.append(_Change(command, names, again=True))
        self._unsent.extendleft(reversed(again))
        self._restoring = len(again)
        if not again:
            self._gap = None  # nothing was subscribed, so nothing was missed
        self._connection = connection
        group.spawn(self._write(connection), name="Redis writer")
        group.spawn(self._watch(), name="Redis watchdog")
        yield from self._read(connection)

    def _settle(self, change: _Change, error: ReplyError | None = None) -> None:
        """A change was confirmed, or refused. When the last of those after a loss was, the gap is told: from here on
        nothing is missing. What came before on the new connection was dropped, so that all that is missing is before.
        """
        if change.again and isinstance(error, RedirectError):
            raise error  # in a cluster: the channel's slot has moved, and there the next connection goes
        if error is not None:
            self._drop(change.command, change.names)
        change.end(error)
        if not change.again:
            return
        if error is not None:  # such as NOPERM: what this user may do has been changed
            self._put(Gap(f"{change.command.decode()} is refused now: {error}"))
        self._restoring -= 1
        if not self._restoring and self._gap is not None:
            gap, self._gap = self._gap, None
            self._put(gap)

    def _write(self, connection: Connection) -> Coro[None]:
        while True:
            while self._unsent:
                change = self._unsent.popleft()
                if change is not PING:
                    self._unconfirmed.append(change)
                yield from connection.stream.write(encode([change.command, *change.names]))
            yield self._work

    def _watch(self) -> Coro[None]:
        """Raise TimeoutError when the server, asked after a silence, says nothing."""
        settings = self._pool.settings
        while True:
            self._heard = False
            yield from sleep(settings.health_check_interval)
            if not self._heard:
                self._unsent.append(PING)
                self._work.wake_one()
                yield from sleep(settings.timeout)
                yield from checkpoint()  # where this program was held up, what came meanwhile is read first
                if not self._heard:
                    raise TimeoutError(f"PING was not answered within {settings.timeout:g} s")

    def _read(self, connection: Connection) -> Coro[None]:
        while True:
            data = yield from connection.stream.read(READ_SIZE)
            if not data:
                raise EndOfStream("the server closed the connection")
            self._heard = True
            for reply in connection.parser.feed(data):
                if not isinstance(reply, Attributes):
                    self._take(reply)

    def _take(self, reply: Any) -> None:
        """What RESP3 pushes comes as an array in RESP2; a PONG there too, once something is subscribed."""
        if isinstance(reply, ReplyError):
            if not self._unconfirmed:
                raise reply
            self._settle(self._unconfirmed.popleft(), reply)
            return
        if isinstance(reply, list) and reply and isinstance(reply[0], bytes):
            reply = Push(reply[0], reply[1:])
        if not isinstance(reply, Push):
            if reply != b"PONG":
                raise ProtocolError("a reply came to which there is no command")
            return
        if reply.kind in CONFIRMATIONS:
            self._confirm(reply.kind.upper())
        elif reply.kind in MESSAGES:
            parts: list[Any] = reply.data
            if len(parts) != MESSAGES[reply.kind] or not all(isinstance(part, bytes) for part in parts):
                raise ProtocolError(f"a {reply.kind.decode()} is not made of {parts!r:.40}")
            if not self._restoring:  # or it comes before the gap, which stands for it as well
                *pattern, channel, data = parts
                self._put((channel, data, pattern[0] if pattern else None))

    def _confirm(self, command: bytes) -> None:
        change = self._unconfirmed[0] if self._unconfirmed else None
        if change is None or change.command != command:
            raise ConnectionResetError(f"the server sent {command.decode()} unasked")  # a shard that moved away
        change.left -= 1
        if not change.left:
            self._settle(self._unconfirmed.popleft())

    def __repr__(self) -> str:
        state = "closed" if self.closed else "idle" if self._connection is None else "open"
        names = sum(map(len, self._wanted.values()))
        return f"<PubSub at {self._pool.settings.address} {state}, {names} subscribed, {len(self._messages)} waiting>"
