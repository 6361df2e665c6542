"""Time: sleeping, and limits on how long a stretch of code may take.

A limit is a plain `with` block, because setting and lifting it needs no waiting:

    with coro.timeout(30):
        line = yield from stream.read_until(b"\\r\\n")

Times are seconds of the loop's clock, which is `time.monotonic` outside of tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from coro.task import CHECKPOINT, CancelScope, Coro, Request, Task, current_task, running

if TYPE_CHECKING:
    from types import TracebackType

    from coro.timers import Timer


_CHECKPOINT = (CHECKPOINT,)


def checkpoint() -> tuple[Request]:
    """`yield from checkpoint()` lets every other ready task run, and is a point where cancellation arrives.

    It returns no generator but a tuple of one request, the cheapest thing that `yield from` accepts.
    """
    return _CHECKPOINT


class Sleep(Request):
    """Wait until the loop's clock has moved on by `seconds`."""

    __slots__ = ("_timer", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._timer: Timer | None = None

    def submit(self, task: Task[Any]) -> None:
        loop = task.loop
        self._timer = loop.call_at(loop.time() + self.seconds, task.wake)

    def withdraw(self, task: Task[Any]) -> None:
        assert self._timer is not None
        self._timer.cancel()

    def __repr__(self) -> str:
        if self._timer is None or self._timer.action is None or running.loop is None:
            return f"sleep of {self.seconds:g} s"
        return f"sleep until +{self._timer.when - running.loop.time():.1f} s"


class Forever(Request):
    """Wait for cancellation."""

    __slots__ = ()

    def submit(self, task: Task[Any]) -> None:
        pass

    def withdraw(self, task: Task[Any]) -> None:
        pass

    def __repr__(self) -> str:
        return "cancellation"


def sleep(seconds: float) -> Coro[None]:
    """Let at least `seconds` pass; with 0 or less, just let others run. Suspends."""
    if seconds > 0:
        yield Sleep(seconds)
    else:
        yield from checkpoint()


def sleep_forever() -> Coro[None]:
    """Wait until cancelled. Suspends."""
    yield Forever()


def now() -> float:
    """The time of the loop's clock, in seconds. For differences and deadlines only. Does not suspend."""
    return current_task().loop.time()


def call_later(seconds: float, action: Callable[[], object]) -> Timer:
    """Call `action()` in the loop's thread in `seconds`; the timer returned can be cancelled. Does not suspend."""
    loop = current_task().loop
    return loop.call_at(loop.time() + seconds, action)


class Timeout(CancelScope):
    """What `timeout` returns."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        if seconds != seconds:
            raise ValueError("a time limit of nan seconds is none")
        super().__init__(now() + seconds)
        self.seconds = seconds

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        if super().__exit__(kind, error, traceback):
            waited_for = getattr(error, "waited_for", "")
            text = f"not done within {self.seconds:g} s"
            if self.deadline > now():
                text = "cancelled before its time limit"
            raise TimeoutError(f"{text}, while waiting for {waited_for}" if waited_for else text) from None
        return False


class Shield(CancelScope):
    """What `shield` returns."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(shielded=True)

    def cancel(self) -> None:
        """Not for a shield, which goes on after its block as if it were not there: RuntimeError."""
        raise RuntimeError("a shield cannot be cancelled and has no deadline: put `with timeout(...)` inside it")

    @property
    def deadline(self) -> float:
        return math.inf

    @deadline.setter
    def deadline(self, when: float) -> None:
        self.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        super().__exit__(kind, error, traceback)
        return False


def timeout(seconds: float) -> Timeout:
    """`with timeout(seconds):` cancels the block when the time is up and raises `TimeoutError` at its end."""
    return Timeout(seconds)


def move_on_after(seconds: float) -> CancelScope:
    """`with move_on_after(seconds) as scope:` cancels the block when the time is up and goes on after it.

    `scope.cancelled_caught` tells whether that happened.
    """
    return CancelScope(now() + seconds if seconds < math.inf else math.inf)


def shield() -> Shield:
    """`with shield():` keeps cancellation from outside out of the block: for clean-up that must wait.

    Bound it: `with shield(), timeout(5):`.
    """
    return Shield()


def until_stopping() -> CancelScope:
    """`with until_stopping():` cancels the block, and only it, once a scope around it was asked to stop.

    For waits between two pieces of work: what is begun is finished, what has not begun is not waited for.
    """
    return CancelScope(soft=True)


def stopping() -> bool:
    """Was a scope around this code asked to finish what it does and stop (`request_stop`)? Does not suspend."""
    scope = current_task().scope
    return scope is not None and scope.stopping()
