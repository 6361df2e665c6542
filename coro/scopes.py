"""Stretches of a task's code that can be cancelled as a whole, with all tasks that were spawned there.

Scopes form a tree: each has the one around it as its parent, and a group's tasks begin in the group's scope. Whether a
task is cancelled is a question to the scopes from its innermost one outwards, up to the first shield. It is asked when
something changes, and the answer is kept in `task.cancelled`, where the loop finds it at each step.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from coro.errors import without_cancelled
from coro.running import current_task

if TYPE_CHECKING:
    from types import TracebackType

    from coro.task import Task
    from coro.timers import Timer


class CancelScope:
    """A stretch of one task's code, and all that it spawns meanwhile, that can be cancelled as a whole.

    Use it as a `with` block, through `coro.move_on_after`, `coro.timeout` and `coro.shield`. `deadline` is in seconds
    of the loop's clock and can be changed at any time; moving it later costs one assignment.
    """

    __slots__ = (
        "_deadline", "_timer", "cancel_called", "cancelled_caught", "parent", "shielded", "soft", "stop_requested",
        "task",
    )  # fmt: skip

    def __init__(self, deadline: float = math.inf, shielded: bool = False, soft: bool = False) -> None:
        self._deadline = deadline
        self._timer: Timer | None = None
        self.cancel_called = False
        self.cancelled_caught = False  # did `Cancelled` reach the end of the block, and stop there?
        self.shielded = shielded
        self.soft = soft  # also cancelled when a scope around it is asked to stop
        self.stop_requested = False
        self.parent: CancelScope | None = None
        self.task: Task[Any] | None = None

    def pending(self) -> bool:
        """Is a task whose innermost scope is this one to be cancelled?"""
        scope: CancelScope | None = self
        soft = False
        while scope is not None:
            soft = soft or scope.soft
            if scope.cancel_called or (soft and scope.stop_requested):
                return True
            if scope.shielded:
                return False
            scope = scope.parent
        return False

    def stopping(self) -> bool:
        """Is a task whose innermost scope is this one asked to stop?"""
        scope: CancelScope | None = self
        while scope is not None and not scope.stop_requested:
            scope = scope.parent
        return scope is not None

    def request_stop(self) -> None:
        """Ask all inside to finish what they do and then stop: see `coro.stopping` and `coro.until_stopping`."""
        self.stop_requested = True
        if self.task is not None:
            self.task.interrupt()

    def cancel(self) -> None:
        """Cancel everything inside. Returns at once; the `with` block ends when its tasks have cleaned up."""
        if self.cancel_called:
            return
        self.cancel_called = True
        self._disarm()
        if self.task is not None:
            self.task.interrupt()

    @property
    def deadline(self) -> float:
        return self._deadline

    @deadline.setter
    def deadline(self, when: float) -> None:
        self._deadline = when
        if (self._timer is None or when < self._timer.when) and not self.cancel_called and self._entered():
            self._expire()

    def _entered(self) -> bool:
        """Is the task inside the block now?"""
        scope = self.task.scope if self.task is not None else None
        while scope is not None and scope is not self:
            scope = scope.parent
        return scope is self

    def _arm(self) -> None:
        self._disarm()
        if self._deadline < math.inf:
            assert self.task is not None
            self._timer = self.task.loop.call_at(self._deadline, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        """The timer fired, or the deadline was moved: has it come?"""
        assert self.task is not None
        if self._deadline <= self.task.loop.time():
            self.cancel()
        else:
            self._arm()

    def __enter__(self) -> CancelScope:
        if self.task is not None:
            raise RuntimeError("this cancel scope was entered before: make a new one for each block")
        task = self.task = current_task()
        self.parent = task.scope
        task.scope = self
        if self._deadline < math.inf:
            if self._deadline <= task.loop.time():
                self.cancel_called = True
            else:
                self._arm()
        if self.shielded or self.soft or self.cancel_called:
            task.cancelled = self.pending()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        task = self.task
        assert task is not None
        self._disarm()
        in_order = task.scope is self
        if in_order or self._entered():
            task.scope = self.parent
        outer, called = False, self.cancel_called or (self.soft and self.stopping())
        if called or self.shielded or task.cancelled:
            outer = task.cancelled = task.scope is not None and task.scope.pending()
        if not in_order:
            raise misnested(task)
        if error is None or not called or (outer and not self.shielded):
            return False
        rest = without_cancelled(error)
        self.cancelled_caught = rest is not error
        if rest is not None and rest is not error:
            raise rest from None
        return rest is None


def misnested(task: Task[Any]) -> RuntimeError:
    return RuntimeError(
        f"cancel scopes of task {task.name!r} end in the wrong order: was a generator with an open `with timeout` or"
        " `with shield` block left unfinished?"
    )
