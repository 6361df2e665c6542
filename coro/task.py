"""Tasks, what they wait for, and how they are cancelled.

A task is a generator that the loop drives. Where it must wait it yields a *request*: an object that knows how to
arrange for the task to be woken (`submit`) and how to undo that (`withdraw`). Between the two, `task.request` says
what the task waits for. Whoever fulfils the request calls `task.wake(value)` or `task.fail(error)`, once; the loop
then resumes the generator with `send(value)` or `throw(error)`.

Cancellation is level-triggered. A scope that is cancelled marks every task inside it; a marked task gets `Cancelled`
at each request it makes until it has left the scope. A task whose request was fulfilled before the mark goes on, and
gets `Cancelled` at its next request; but what it was handed and has not taken yet goes to the next waiter
(coro/handover.py). So nothing is lost in a race with a cancellation.
"""

from __future__ import annotations

import contextvars
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

from coro.errors import Cancelled, TaskCancelled
from coro.handover import START, Delivery
from coro.running import current_task, running
from coro.scopes import CancelScope, misnested

if TYPE_CHECKING:
    from coro.loop import Loop

__all__ = [
    "CHECKPOINT", "CancelScope", "Coro", "Failure", "Join", "Parent", "Request", "Task", "current_task", "running",
]  # fmt: skip

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


class Parent(Protocol):
    """What a task belongs to: a group, or the loop itself."""

    @property
    def scope(self) -> CancelScope | None: ...

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
        self.joiners: dict[Task[Any], None] | None = None
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
                waited_for = repr(request)
                request.withdraw(task)
                task.fail(Cancelled(f"task {task.name!r} was cancelled while waiting for {waited_for}", waited_for))
            elif task.cancelled and isinstance(task.value, Delivery) and task.value.refuse():
                task.value, task.error = None, Cancelled(f"task {task.name!r} was cancelled")
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
        own.parent = self.parent.scope
        outermost: CancelScope | None = None
        scope = self.scope
        while scope is not None and scope is not own.parent:
            outermost, scope = scope, scope.parent
        if outermost is None:
            self.scope = own
        elif outermost.task is not None:  # else it is such a scope, of an earlier call
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
            if self.outcome.cancelled:
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
        if self.scope is not self.parent.scope and (not isinstance(outcome, Failure) or outcome.cancelled):
            scope = self.scope
            while scope is not None and scope.task is not self:
                scope = scope.parent
            outcome = outcome if scope is None else Failure(misnested(self))
        self.outcome = outcome
        joiners, self.joiners = self.joiners, None
        for joiner in joiners or ():
            joiner.wake()
        self.parent.task_done(self)

    def __repr__(self) -> str:
        if self.done:
            state = f"failed: {self.exception!r}" if self.exception else "done"
            state = "cancelled" if isinstance(self.exception, Cancelled) else state
        else:
            state = f"waiting for {self.request!r}" if self.request else "ready"
        return f"<Task {self.name!r} {state}>"


class Failure:
    """The outcome of a task that raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @property
    def cancelled(self) -> bool:
        return isinstance(self.error, Cancelled)


class Join(Request):
    """Wait for the end of a task."""

    __slots__ = ("target",)

    def __init__(self, target: Task[Any]) -> None:
        self.target = target

    def submit(self, task: Task[Any]) -> None:
        if self.target is task:
            raise RuntimeError(f"task {task.name!r} joins itself: it would wait for ever")
        if self.target.joiners is None:
            self.target.joiners = {}
        self.target.joiners[task] = None

    def withdraw(self, task: Task[Any]) -> None:
        assert self.target.joiners is not None
        del self.target.joiners[task]

    def __repr__(self) -> str:
        return f"the end of task {self.target.name!r}"
