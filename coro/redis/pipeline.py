"""Several commands in one piece: collected here, sent together, answered together.

    pipeline = redis.pipeline()
    visits = pipeline.incr("visits")
    pipeline.expire("visits", 3600)
    yield from pipeline.execute()
    print((yield from visits))

A command method of a pipeline does not send anything: it returns a `Queued` that stands for the result to come. Who
prefers a list takes what `execute` returns, as with redis-py.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

from coro.redis.commands.base import Convert, S
from coro.redis.commands.every import Commands
from coro.redis.errors import RedisError
from coro.redis.replies import result
from coro.redis.resp import Argument
from coro.redis.routes import check_lendable, check_shareable
from coro.task import Coro, Request

T = TypeVar("T")
Run: TypeAlias = Callable[[Sequence[Sequence[Argument]]], Coro[list[Any]]]


class Queued(Generator[Request, Any, T]):
    """The result of a command that stands in a pipeline: `yield from` it when the pipeline was executed."""

    __slots__ = ("args", "convert", "done", "failed", "outcome")

    def __init__(self, args: Sequence[Argument], convert: Convert) -> None:
        self.args = args
        self.convert = convert
        self.done = self.failed = False
        self.outcome: Any = None

    def settle(self, reply: Any, decode: bool) -> Any:
        """Take the reply; what has become of it: the result, or the error that is raised in its place."""
        try:
            self.failed = isinstance(reply, RedisError)
            self.outcome = reply if self.failed else result(reply, self.convert, decode)
        except ValueError as error:  # UnicodeDecodeError: it is this command's alone
            self.failed, self.outcome = True, error
        self.done = True
        return self.outcome

    def send(self, value: Any) -> Request:
        """The end of `yield from queued`: never waits."""
        if not self.done:
            raise RuntimeError(f"{self!r} has no result: `yield from pipeline.execute()` comes first, and must succeed")
        if self.failed:
            raise self.outcome
        raise StopIteration(self.outcome)

    def throw(
        self,
        kind: type[BaseException] | BaseException,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
        /,
    ) -> Request:
        raise kind

    def __repr__(self) -> str:
        name = self.args[0]
        return f"<Queued {name.decode('utf-8', 'backslashreplace') if isinstance(name, bytes) else name}>"


def first_error(queue: Sequence[Queued[Any]]) -> Exception | None:
    """The error of the first command that failed, with a note saying which one that is."""
    for number, queued in enumerate(queue, 1):
        if queued.failed:
            queued.outcome.add_note(f"command {number} of {len(queue)} in a pipeline: {queued!r}")
            return queued.outcome  # type: ignore[no-any-return]
    return None


class Pipeline(Commands[S]):
    """Commands to be sent together. Made by `Redis.pipeline`. Once executed it is empty, and can be filled again."""

    def __init__(self, run: Run, decode: bool, *, alone: bool = False) -> None:
        """`run` carries out a list of commands, on a connection that they have `alone`, or that they share."""
        self._run = run
        self._decode = decode
        self._alone = alone
        self._queue: list[Queued[Any]] = []

    def execute_command(self, *args: Argument) -> Coro[Any]:
        """Queue any command. `OwnConnectionError` for one that cannot stand here. Does not suspend."""
        return self._send(args)

    def execute(self, raise_on_error: bool = True) -> Coro[list[Any]]:
        """Send what was queued; the results, in order. Suspends.

        With `raise_on_error` the first command that failed raises its error, when all have been carried out; else
        errors stand among the results. RedisConnectionError when the connection is lost meanwhile: then nobody knows
        which of the commands were carried out.
        """
        queue, self._queue = self._queue, []
        if not queue:
            return []
        replies = yield from self._run([queued.args for queued in queue])
        results = [queued.settle(reply, self._decode) for queued, reply in zip(queue, replies, strict=True)]
        if raise_on_error and (error := first_error(queue)) is not None:
            raise error
        return results

    def reset(self) -> None:
        """Forget what was queued. Does not suspend."""
        self._queue = []

    def _send(self, args: Sequence[Argument], convert: Convert = None) -> Coro[Any]:
        check_lendable(args) if self._alone else check_shareable(args)
        queued: Queued[Any] = Queued(args, convert)
        self._queue.append(queued)
        return queued

    def _wait(self, args: Sequence[Argument], seconds: float, convert: Convert = None) -> Coro[Any]:
        return self._send(args, convert)  # in a transaction it does not block; elsewhere it is refused

    def __len__(self) -> int:
        return len(self._queue)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self._queue)} commands>"
