"""One connection for all tasks: their commands are pipelined by themselves, and each gets its own reply.

A task that issues a command yields it as its request. The commands of one round of the loop pile up in `unsent`; the
first of them wakes the writer task, which runs in the next round and sends them all at once. The reader task parses
all that one `recv` brought, and hands the replies to the commands in `unanswered`, in order: that order is all that
RESP has to tell whose a reply is. Three rules follow, and nothing else keeps the replies from going astray:

- What was sent stays in `unanswered` until its reply has been read. A caller that is cancelled only takes its name
  off its command, and the reply is dropped when it comes.
- A connection on which anything went wrong is closed, and all that was sent on it fails. Nothing is sent twice.
- A command that is not answered in time takes its connection with it: the replies behind it would be late as well. So
  that a dead connection is found before a caller needs it, an idle one is asked for a sign of life now and then.

At most `max_unanswered` commands are under way; those behind them wait, in order, and their callers with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from coro import ClosedError, CoroError, EndOfStream, Task, TaskGroup, background, checkpoint, now, sleep, task_group
from coro.redis.connection import READ_SIZE, Connection, Connector, joined, lost, other_loop
from coro.redis.errors import ReadOnlyError, ReplyError
from coro.redis.resp import CRLF, Argument, OutOfBand, ProtocolError, encode_into
from coro.sync import WaitQueue
from coro.task import Coro, Request


class Receiver(Protocol):
    """Who gets a reply, or the error in place of it: a task, or a batch that collects."""

    def wake(self, value: Any = None) -> None: ...

    def fail(self, error: BaseException) -> None: ...


class Command(Request):
    """Wait for the reply to a command."""

    __slots__ = ("parts", "receiver", "sent", "shared")

    count = 1  # replies to come

    def __init__(self, shared: SharedConnection, args: Sequence[Argument]) -> None:
        self.shared = shared
        self.parts: list[bytes] = []
        encode_into(self.parts, args)
        self.receiver: Receiver | None = None  # who wants the reply, if still anybody does
        self.sent = 0.0

    def submit(self, task: Task[Any]) -> None:
        shared = self.shared
        if task.loop is not shared.loop:
            shared.check_loop()
        if shared.idle:
            shared.attend()
        self.receiver = task
        shared.unsent.append(self)

    def withdraw(self, task: Task[Any]) -> None:
        self.receiver = None

    @property
    def name(self) -> str:
        return self.parts[0].split(CRLF, 3)[2].decode("utf-8", "backslashreplace")

    def __repr__(self) -> str:
        return f"reply to {self.name} from Redis at {self.shared.settings.address}"


class Batch(Command):
    """Wait for the replies to several commands, which leave as one piece. Error replies are values among the others."""

    __slots__ = ("_replies", "_task", "count")

    def __init__(self, shared: SharedConnection, commands: Sequence[Sequence[Argument]]) -> None:
        super().__init__(shared, commands[0])
        for args in commands[1:]:
            encode_into(self.parts, args)
        self.count = len(commands)
        self._replies: list[Any] = []

    def submit(self, task: Task[Any]) -> None:
        super().submit(task)
        self._task = task
        self.receiver = self

    def wake(self, value: Any = None) -> None:
        self._replies.append(value)
        if len(self._replies) == self.count:
            self.receiver = None  # nothing cyclic is left behind
            self._task.wake(self._replies)

    def fail(self, error: BaseException) -> None:
        if isinstance(error, ReplyError):
            self.wake(error)
        else:
            self.receiver = None  # the connection was lost: said once, not for each command
            self._task.fail(error)

    @property
    def name(self) -> str:
        return f"a pipeline of {self.count} commands"


class Nobody:
    """Receives the reply to a PING that the connection itself sent: that there is one says enough."""

    def wake(self, value: Any = None) -> None:
        pass

    def fail(self, error: BaseException) -> None:
        pass


NOBODY = Nobody()


class Retired(CoroError):
    """Ends a connection on which nothing is left to be answered."""


class SharedConnection:
    """A connection that is opened when the first command needs it, and again after it was lost."""

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self.settings = connector.settings
        self.unsent: deque[Command] = deque()
        self.unanswered: deque[Command] = deque()
        self.idle = True  # nobody looks at `unsent` until `attend` is called
        self.closed = False
        self.loop: object = None  # that the connection belongs to, while there is one
        self._connection: Connection | None = None
        self._retiring = False
        self._work = WaitQueue("commands to send to Redis")
        self._keeper: Task[None] | None = None
        self._last_sent = 0.0

    def attend(self) -> None:
        """For the first command of a round: wake the writer, or have a connection opened. Does not suspend.

        `RedisConnectionError` in the pause after a failed attempt, `ClosedError` after `close`.
        """
        if self._keeper is None:
            if self.closed:
                raise ClosedError(f"the client of Redis at {self.settings.address} is closed")
            self.connector.check_pause()
            self._keeper = background(self._keep(), name=f"Redis at {self.settings.address}")
            self.loop = self._keeper.loop
        self._work.wake_one()
        self.idle = False

    def check_loop(self) -> None:
        """RuntimeError in another thread's loop than the one that is using the connection."""
        if self.loop is not None:
            raise other_loop(f"Redis at {self.settings.address}")

    def close(self) -> None:
        """Close for good; who waits for a reply gets `ClosedError`. Does not suspend; can be repeated."""
        self.closed = True
        if self._keeper is not None:
            self._keeper.cancel()

    def retire(self) -> None:
        """Close the connection when what was sent has been answered; what comes after is sent on a new one.

        For a server that is not, or may not be, the right one any more. Does not suspend.
        """
        if self._keeper is not None:
            self._retiring = True
            self._work.wake_one()

    @property
    def connected(self) -> bool:
        """Whether there is a connection, logged in and not known to be lost."""
        return self._connection is not None

    def drop(self) -> None:
        """Close the connection now: what was sent fails. For a server that was replaced. Does not suspend."""
        if self._connection is not None:
            self._connection.close()

    def fail_unsent(self, reason: BaseException | None) -> None:
        """End the wait of those whose command was not sent yet: they may try elsewhere. Does not suspend."""
        for command in self.unsent:
            if command.receiver is not None:
                command.receiver.fail(lost(self.settings, reason, command.name, sent=False))
        self.unsent.clear()

    # --- The life of one connection, in a task of its own ------------------------

    def _keep(self) -> Coro[None]:
        """Open a connection and serve it to its end. Everything that waits for it then fails."""
        reason: BaseException | None = None
        try:
            connection = yield from self.connector.open()
            self.settings = self.connector.settings  # which server it is may have been found out just now
            self._connection = connection
            self._last_sent = now()
            try:
                yield from task_group(lambda group: self._serve(connection, group))
            finally:
                connection.close()
        except* (OSError, CoroError) as errors:
            reason = errors.exceptions[0]
        finally:
            self._keeper = None
            self.loop = None
            self.idle = True
            self._connection = None
            self._retiring = False
            if not isinstance(reason, Retired):
                self._fail_all(reason)
            elif self.unsent:
                self.attend()

    def _serve(self, connection: Connection, group: TaskGroup) -> Coro[None]:
        group.spawn(self._write(connection), name="Redis writer")
        group.spawn(self._watch(), name="Redis watchdog")
        yield from self._read(connection)

    def _read(self, connection: Connection) -> Coro[None]:
        """Hand every reply to the command it belongs to."""
        stream, feed = connection.stream, connection.parser.feed
        while True:
            data = yield from stream.read(READ_SIZE)
            if not data:
                raise EndOfStream("the server closed the connection")
            try:
                self._deliver(feed(data))
            except ProtocolError as error:
                self._deliver(error.replies)
                raise
            if self.unsent or self._retiring:
                self._work.wake_one()

    def _deliver(self, replies: Iterable[Any]) -> None:
        unanswered = self.unanswered
        for reply in replies:
            if isinstance(reply, OutOfBand):
                continue
            if not unanswered:
                raise ProtocolError("a reply came to which there is no command")
            receiver = unanswered.popleft().receiver
            if receiver is None:
                continue
            if isinstance(reply, ReplyError):
                if reply.__class__ is ReadOnlyError:  # a primary was demoted: its name may mean another server by now
                    self.retire()
                receiver.fail(reply)
            else:
                receiver.wake(reply)

    def _write(self, connection: Connection) -> Coro[None]:
        """Send what has piled up, once a round."""
        while True:
            parts = self._next_round()
            if not parts:
                if self._retiring and not self.unanswered:
                    raise Retired("the connection is not wanted any more")
                self.idle = True
                yield self._work
            for data in joined(parts):
                yield from connection.stream.write(data)

    def _next_round(self) -> list[bytes]:
        """Move as many commands as may go from `unsent` to `unanswered`; what is to be sent for them.

        A batch goes as a whole, also when it alone is more than may be under way.
        """
        unsent, unanswered = self.unsent, self.unanswered
        if self._retiring:
            return []
        room = self.settings.max_unanswered - len(unanswered)
        time = now()
        parts: list[bytes] = []
        while unsent and room > 0:
            command = unsent.popleft()
            if command.receiver is not None:
                command.sent = self._last_sent = time
                count = command.count
                if count == 1:
                    unanswered.append(command)
                else:
                    unanswered.extend([command] * count)
                parts += command.parts
                room -= count
        return parts

    def _watch(self) -> Coro[None]:
        """Raise TimeoutError when a command is not answered in time; ask for a sign of life when nobody else does."""
        patience, interval = self.settings.timeout, self.settings.health_check_interval
        while True:
            if self.unanswered:
                oldest, number = self.unanswered[0], len(self.unanswered)
                left = oldest.sent + patience - now()
                if left <= 0:
                    yield from checkpoint()  # where this program was held up, what came meanwhile is read first
                    if self.unanswered and self.unanswered[0] is oldest and len(self.unanswered) >= number:
                        raise TimeoutError(f"{oldest.name} was not answered within {patience:g} s")
                    continue
            else:
                left = min(self._last_sent + interval - now(), patience)
                if left <= 0 and not self.unsent:
                    ping = Command(self, (b"PING",))
                    ping.receiver = NOBODY
                    self.unsent.append(ping)
                    self.attend()
                    left = patience
            yield from sleep(left)

    # --- Its end -------------------------------------------------------------------

    def _fail_all(self, reason: BaseException | None) -> None:
        """End the wait of every caller: with `ClosedError` if there is no other reason."""
        for command in self.unanswered:
            if command.receiver is not None:
                command.receiver.fail(lost(self.settings, reason, command.name, sent=True))
        self.unanswered.clear()
        self.fail_unsent(reason)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "idle" if self._keeper is None else "open"
        return f"{self.settings.address} {state}, {len(self.unsent)} unsent, {len(self.unanswered)} unanswered"
