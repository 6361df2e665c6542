"""Tasks, what they wait for, and how they are cancelled.

A task is a generator that the loop drives. Where it must wait it yields a *request*: an object that knows how to
arrange for the task to be woken (`submit`) and how to undo that (`withdraw`). Between the two, `task.request` says
what the task waits for. Whoever fulfils the request calls `task.wake(value)` or `task.fail(error)`, once; the loop
then resumes the generator with `send(value)` or `throw(error)`.

Cancellation is level-triggered. A scope that is cancelled marks every task inside it; a marked task gets `Cancelled`
at each request it makes until it has left the scope. A task whose request was fulfilled before the mark keeps what
it got: nothing handed over is lost, and `Cancelled` follows at its next request.
"""

from __future__ import annotations

import contextvars
import math
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

from coro.errors import Cancelled, TaskCancelled

if TYPE_CHECKING:
    from types import TracebackType

    from coro.loop import Loop
    from coro.timers import Timer

T = TypeVar("T")


class Request:
    """What a task yields to the loop. Subclass it, in the module that needs it, for each new thing to wait for."""

    __slots__ = ()

    def submit(self, task: Task[Any]) -> None:
        """Arrange that `task` is woken later (or wake it at once). An error raised here is thrown into the task."""
        raise NotImplementedError

    def withdraw(self, task: Task[Any]) -> None:
        """Undo `submit`: the task will not be woken by this request any more. Called at most once, while it waits."""
        raise NotImplementedError


Coro: TypeAlias = Generator[Request, Any, T]

CHECKPOINT = Request()  # the one that the loop knows: whoever yields it stays ready, and nothing is armed
START = object()  # the value of a task that has not run yet


class Parent(Protocol):
    """What a task belongs to: a group, or the loop itself."""

    def task_done(self, task: Task[Any]) -> None: ...
    @property
    def described(self) -> str: ...  # " of group 'name'", after the name of one of its tasks


class Task(Generic[T]):
    """One generator being driven by a loop. Made by `TaskGroup.spawn`; read its attributes, do not set them."""

    __slots__ = (
        "cancelled", "context", "done", "error", "generator", "groups", "insisted", "joiners", "label", "loop",
        "outcome", "parent", "request", "scope", "send", "value",
    )  # fmt: skip

    def __init__(
        self, generator: Coro[T], loop: Loop, parent: Parent, scope: CancelScope | None, label: str | None
    ) -> None:
        self.generator = generator
        self.send = generator.send
        self.loop = loop
        self.parent = parent
        self.scope = scope  # the innermost scope that the task is in
        self.label = label
        self.context = contextvars.copy_context()
        self.request: Request | None = None  # what it waits for; None while it is ready or running
        self.value: Any = START  # to be sent at its next step
        self.error: BaseException | None = None  # to be thrown at its next step
        self.cancelled = scope is not None and scope.pending()  # is a scope around it cancelled?
        self.insisted = 0  # requests it made although it was cancelled
        self.groups: list[Any] | None = None  # the groups that this task has open
        self.joiners: list[Task[Any]] | None = None
        self.done = False
        self.outcome: Any = None  # the result, or the exception that ended it

    @property
    def name(self) -> str:
        return self.label or str(getattr(self.generator, "__qualname__", "a generator"))

    def wake(self, value: Any = None) -> None:
        """Fulfil the task's request with a value."""
        self.request = None
        self.value = value
        self.loop.ready.append(self)

    def fail(self, error: BaseException) -> None:
        """Fulfil the task's request with an error."""
        self.request = None
        self.error = error
        self.loop.ready.append(self)

    def take_error(self) -> Any:
        """What is to be thrown now."""
        error, self.error = self.error, None
        return error

    def interrupt(self) -> None:
        """Note that a scope around the task was cancelled: end its wait, and those of the tasks in its groups."""
        tasks = [self]
        for task in tasks:  # it grows meanwhile: groups may be nested more deeply than Python's own stack allows
            task.cancelled = task.scope is not None and task.scope.pending()
            request = task.request
            if task.cancelled and request is not None:
                request.withdraw(task)
                task.fail(Cancelled(f"task {task.name!r} was cancelled while waiting for {request!r}"))
            for group in task.groups or ():
                if group.scope.pending() or group.scope.stopping():
                    tasks.extend(group.tasks)

    def cancel(self) -> None:
        """Cancel this task and what it has spawned. Returns at once; `join` tells when it has ended."""
        if self.done:
            return
        # A scope of its own, put around all that the task is in, but inside its parent's.
        own = CancelScope()
        own.cancel_called = True
        own.parent = base = getattr(self.parent, "scope", None)
        outermost: CancelScope | None = None
        scope = self.scope
        while scope is not None and scope is not base:
            outermost, scope = scope, scope.parent
        if outermost is None:
            self.scope = own
        else:
            outermost.parent = own
        self.interrupt()

    def join(self) -> Coro[T]:
        """Wait until the task has ended; its result. Suspends.

        Raises what the task raised, or `TaskCancelled` if it was cancelled.
        """
        if not self.done:
            yield Join(self)
        return self.result()

    def result(self) -> T:
        """The result of an ended task, or what it raised. Does not suspend."""
        if not self.done:
            raise RuntimeError(f"{self!r} has not ended: use `yield from task.join()`")
        if isinstance(self.outcome, Failure):
            if isinstance(self.outcome.error, Cancelled):
                raise TaskCancelled(f"task {self.name!r} was cancelled")
            raise self.outcome.error
        result: T = self.outcome
        return result

    @property
    def exception(self) -> BaseException | None:
        """What ended the task, if it was not a `return`."""
        return self.outcome.error if isinstance(self.outcome, Failure) else None

    def finish(self, outcome: Any) -> None:
        """Called by the loop when the generator has ended: tell the parent, wake the joiners."""
        self.done = True
        self.outcome = outcome
        joiners, self.joiners = self.joiners, None
        for joiner in joiners or ():
            joiner.wake()
        self.parent.task_done(self)

    def __repr__(self) -> str:
        if self.done:
            state = f"failed: {self.exception!r}" if self.exception else "done"
        else:
            state = f"waiting for {self.request!r}" if self.request else "ready"
        return f"<Task {self.name!r} {state}>"


class Failure:
    """The outcome of a task that raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Join(Request):
    """Wait for the end of a task."""

    __slots__ = ("target",)

    def __init__(self, target: Task[Any]) -> None:
        self.target = target

    def submit(self, task: Task[Any]) -> None:
        if self.target is task:
            raise RuntimeError(f"task {task.name!r} joins itself: it would wait for ever")
        if self.target.joiners is None:
            self.target.joiners = []
        self.target.joiners.append(task)

    def withdraw(self, task: Task[Any]) -> None:
        assert self.target.joiners is not None
        self.target.joiners.remove(task)

    def __repr__(self) -> str:
        return f"the end of task {self.target.name!r}"


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
            self._arm()

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
        """The timer fired: the deadline has come, unless it was moved later meanwhile."""
        assert self.task is not None
        self._timer = None
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
            raise RuntimeError(
                f"cancel scopes of task {task.name!r} end in the wrong order: was a generator with an open"
                " `with timeout` or `with shield` block left unfinished?"
            )
        self.cancelled_caught = called and isinstance(error, Cancelled) and (self.shielded or not outer)
        return self.cancelled_caught


class _Running(threading.local):
    loop: Loop | None = None


running = _Running()  # the loop that runs in this thread


def current_task() -> Task[Any]:
    """The task whose code is running. Does not suspend. RuntimeError outside `coro.run`."""
    task = running.loop.current if running.loop is not None else None
    if task is None:
        raise RuntimeError("no task is running here: call this from inside coro.run(main())")
    return task
