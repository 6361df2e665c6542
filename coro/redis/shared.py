"""One connection for all tasks: their commands are pipelined by themselves, and each gets its own reply.

A task that issues a command yields it as its request. The commands of one round of the loop pile up in `unsent`; the
first of them wakes the writer task, which runs in the next round and sends them all at once. The reader task parses
all that one `recv` brought, and hands the replies to the commands in `unanswered`, in order: that order is all that
RESP has to tell whose a reply is. Three rules follow, and nothing else keeps the replies from going astray:

- What was sent stays in `unanswered` until its reply has been read. A caller that is cancelled only takes its name
  off its command, and the reply is dropped when it comes.
- A connection on which anything went wrong is closed, and all that was sent on it fails. Nothing is sent twice.
- A command that is not answered in time takes its connection with it: the replies behind it would be late as well.

At most `max_unanswered` commands are under way; those behind them wait, in order, and their callers with them.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from coro import ClosedError, CoroError, EndOfStream, Task, TaskGroup, background, now, sleep, task_group
from coro.redis.connection import READ_SIZE, Connection, explained, open_connection, tls_context
from coro.redis.errors import RedisConnectionError, ReplyError
from coro.redis.resp import CRLF, LARGE, Argument, OutOfBand, ProtocolError, encode_into
from coro.redis.url import Settings
from coro.sync import WaitQueue
from coro.task import Coro, Request

FIRST_PAUSE = 0.05  # seconds after a failed attempt to connect in which calls fail at once; doubled each time
LONGEST_PAUSE = 1.0  # seconds
SEND_SIZE = 256 * 1024  # bytes joined into one send, unless a single argument is larger


class Command(Request):
    """Wait for the reply to a command."""

    __slots__ = ("parts", "sent", "shared", "task")

    def __init__(self, shared: SharedConnection, args: Sequence[Argument]) -> None:
        self.shared = shared
        self.parts: list[bytes] = []
        encode_into(self.parts, args)
        self.task: Task[Any] | None = None  # who wants the reply, if still anybody does
        self.sent = 0.0

    def submit(self, task: Task[Any]) -> None:
        shared = self.shared
        if shared.idle:
            shared.attend()
        self.task = task
        shared.unsent.append(self)

    def withdraw(self, task: Task[Any]) -> None:
        self.task = None

    @property
    def name(self) -> str:
        return self.parts[0].split(CRLF, 3)[2].decode("utf-8", "backslashreplace")

    def __repr__(self) -> str:
        return f"reply to {self.name} from Redis at {self.shared.settings.address}"


class SharedConnection:
    """A connection that is opened when the first command needs it, and again after it was lost."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.unsent: deque[Command] = deque()
        self.unanswered: deque[Command] = deque()
        self.idle = True  # nobody looks at `unsent` until `attend` is called
        self.closed = False
        self._context = tls_context(settings)
        self._work = WaitQueue("commands to send to Redis")
        self._keeper: Task[None] | None = None
        self._failures = 0  # attempts to connect that failed one after the other
        self._refusal: RedisConnectionError | None = None  # the last of them
        self._retry_at = 0.0

    def attend(self) -> None:
        """For the first command of a round: wake the writer, or have a connection opened. Does not suspend.

        `RedisConnectionError` in the pause after a failed attempt, `ClosedError` after `close`.
        """
        if self._keeper is None:
            if self.closed:
                raise ClosedError(f"the client of Redis at {self.settings.address} is closed")
            left = self._retry_at - now()
            if self._refusal is not None and left > 0:
                text = f"{self._refusal} (trying again in {left:.2f} s)"
                raise RedisConnectionError(text) from self._refusal.__cause__
            self._keeper = background(self._keep(), name=f"Redis at {self.settings.address}")
        self._work.wake_one()
        self.idle = False

    def close(self) -> None:
        """Close for good; who waits for a reply gets `ClosedError`. Does not suspend; can be repeated."""
        self.closed = True
        if self._keeper is not None:
            self._keeper.cancel()

    # --- The life of one connection, in a task of its own ------------------------

    def _keep(self) -> Coro[None]:
        """Open a connection and serve it to its end. Everything that waits for it then fails."""
        reason: BaseException | None = None
        try:
            try:
                connection = yield from open_connection(self.settings, self._context)
            except RedisConnectionError as error:
                self._note_failure(error)
                raise
            self._failures, self._refusal = 0, None
            try:
                yield from task_group(lambda group: self._serve(connection, group))
            finally:
                connection.close()
        except* (OSError, CoroError) as errors:
            reason = errors.exceptions[0]
        finally:
            self._keeper = None
            self.idle = True
            self._fail_all(reason)

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
            if self.unsent:
                self._work.wake_one()

    def _deliver(self, replies: Iterable[Any]) -> None:
        unanswered = self.unanswered
        for reply in replies:
            if isinstance(reply, OutOfBand):
                continue
            if not unanswered:
                raise ProtocolError("a reply came to which there is no command")
            task = unanswered.popleft().task
            if task is None:
                continue
            if isinstance(reply, ReplyError):
                task.fail(reply)
            else:
                task.wake(reply)

    def _write(self, connection: Connection) -> Coro[None]:
        """Send what has piled up, once a round."""
        while True:
            parts = self._next_round()
            if not parts:
                self.idle = True
                yield self._work
            for data in joined(parts):
                yield from connection.stream.write(data)

    def _next_round(self) -> list[bytes]:
        """Move as many commands as may go from `unsent` to `unanswered`; what is to be sent for them."""
        unsent, unanswered = self.unsent, self.unanswered
        room = self.settings.max_unanswered - len(unanswered)
        time = now()
        parts: list[bytes] = []
        while unsent and room:
            command = unsent.popleft()
            if command.task is not None:
                command.sent = time
                unanswered.append(command)
                parts += command.parts
                room -= 1
        return parts

    def _watch(self) -> Coro[None]:
        """Raise TimeoutError when a command is not answered in time."""
        patience = self.settings.timeout
        while True:
            start = self.unanswered[0].sent if self.unanswered else now()
            left = start + patience - now()
            if left <= 0:
                raise TimeoutError(f"{self.unanswered[0].name} was not answered within {patience:g} s")
            yield from sleep(left)

    # --- Its end -------------------------------------------------------------------

    def _note_failure(self, refusal: RedisConnectionError) -> None:
        """No attempt for a while, lest everybody who calls waits for one. A bit at random: there are other clients."""
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._failures)
        self._failures += 1
        self._refusal = refusal
        self._retry_at = now() + pause * random.uniform(0.5, 1)

    def _fail_all(self, reason: BaseException | None) -> None:
        """End the wait of every caller: with `ClosedError` if there is no other reason."""
        for commands, fate in (
            (self.unanswered, "had been sent, whether it was carried out is not known"),
            (self.unsent, "was not sent"),
        ):
            for command in commands:
                if command.task is not None:
                    command.task.fail(self._failure(reason, f"{command.name} {fate}"))
            commands.clear()

    def _failure(self, reason: BaseException | None, fate: str) -> Exception:
        """An exception for one caller: raised in several tasks, one object would gather all their tracebacks."""
        where = self.settings.address
        error: Exception
        if reason is None:
            error = ClosedError(f"the client of Redis at {where} was closed; {fate}")
        elif isinstance(reason, RedisConnectionError):
            error, reason = RedisConnectionError(str(reason)), reason.__cause__
        else:
            error = RedisConnectionError(
                f"the connection to Redis at {where} was lost: {explained(reason, self.settings)}; {fate}"
            )
        error.__cause__ = reason
        return error

    def __repr__(self) -> str:
        state = "closed" if self.closed else "idle" if self._keeper is None else "open"
        return f"{self.settings.address} {state}, {len(self.unsent)} unsent, {len(self.unanswered)} unanswered"


def joined(parts: list[bytes]) -> Iterator[bytes]:
    """The parts, small ones joined, so that one send takes many; a large one stays alone and is not copied."""
    if sum(map(len, parts)) <= SEND_SIZE:
        if parts:
            yield b"".join(parts)
        return
    small: list[bytes] = []
    size = 0
    for part in parts:
        if size and (len(part) >= LARGE or size + len(part) > SEND_SIZE):
            yield b"".join(small)
            small, size = [], 0
        if len(part) >= LARGE:
            yield part
        else:
            small.append(part)
            size += len(part)
    if small:
        yield b"".join(small)
