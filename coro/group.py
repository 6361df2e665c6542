"""Structured concurrency: tasks live inside a group, and no task outlives its group.

A generator cannot wait in `__exit__`, so the scope of a group is a function and not a `with` block:

    def body(group: TaskGroup) -> Coro[int]:
        a = group.spawn(fetch(1))
        b = group.spawn(fetch(2))
        return (yield from a.join()) + (yield from b.join())

    total = yield from coro.task_group(body)

The first failure cancels the siblings and the body. One failure is raised as it is; several as an `ExceptionGroup`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from coro.errors import Cancelled, TaskCancelled, without_cancelled
from coro.mistakes import check_distinct, check_generator
from coro.task import CancelScope, Coro, Request, Task, current_task

T = TypeVar("T")


class TaskGroup(Request):
    """The tasks spawned by one `task_group`. As a request: wait until all of them have ended."""

    __slots__ = ("errors", "lost", "name", "open", "owner", "scope", "tasks")

    def __init__(self, owner: Task[Any], name: str) -> None:
        self.owner = owner
        self.name = name
        self.scope = CancelScope()
        self.tasks: dict[Task[Any], float] = {}  # in the order of `spawn`, with the time of the turn it was in
        self.errors: list[BaseException] = []
        self.lost = False  # was a task of it cancelled?
        self.open = True

    def spawn(self, generator: Coro[T], *, name: str | None = None) -> Task[T]:
        """Start a task in this group; it runs from the next turn of the loop on. Does not suspend."""
        if not self.open:
            raise RuntimeError("spawn in a task group that has ended")
        check_generator(generator, "group.spawn")
        loop = self.owner.loop
        task = Task(generator, loop, self, self.scope, name)
        self.tasks[task] = loop.now
        loop.ready.append(task)
        return task

    def cancel(self) -> None:
        """Cancel the body and every task of the group. Returns at once."""
        self.scope.cancel()

    def request_stop(self) -> None:
        """Ask the body and every task of the group to finish what they do and stop. Returns at once."""
        self.scope.request_stop()

    def task_done(self, task: Task[Any]) -> None:
        del self.tasks[task]
        error = task.exception
        if isinstance(error, Cancelled):
            self.lost = True
        elif error is not None:
            self.record(error)
        if not self.tasks and self.owner.request is self:
            self.owner.wake()

    @property
    def described(self) -> str:
        return f" of group {self.name!r}"

    def record(self, error: BaseException) -> None:
        if not any(error is known for known in self.errors):
            self.errors.append(error)
        self.scope.cancel()

    def failure(self) -> BaseException:
        """What went wrong. The group forgets it: it would be its own traceback's, in a cycle."""
        errors, self.errors = self.errors, []
        return errors[0] if len(errors) == 1 else BaseExceptionGroup("several tasks failed", errors)

    def submit(self, task: Task[Any]) -> None:
        if task is not self.owner:
            raise RuntimeError(f"only its own body waits for the end of group {self.name!r}")
        if not self.tasks:
            task.wake()  # else task_done does, when it finds owner.request to be this

    def withdraw(self, task: Task[Any]) -> None:
        pass

    def __repr__(self) -> str:
        return f"the end of {len(self.tasks)} tasks of group {self.name!r}"


def task_group(body: Callable[[TaskGroup], Coro[T]], *, name: str | None = None) -> Coro[T]:
    """Run `body(group)`, wait for all tasks that it spawned into the group; the body's result. Suspends.

    Raises what the body or a task raised, with a note that names the task and the group (after the body, if it has no
    `name`); `TaskCancelled` when `group.cancel()` kept the body from returning.
    """
    owner = current_task()
    group = TaskGroup(owner, name or str(getattr(body, "__qualname__", "a group")))
    cancelled: BaseException | None = None
    returned = False
    with group.scope:
        owner.groups = [*(owner.groups or ()), group]
        try:
            try:
                result = yield from body(group)
                returned = True
                if group.tasks:
                    yield group
            except GeneratorExit:
                group.scope.cancel()
                owner.loop.adopt(group.tasks)
                raise
            except BaseException as error:
                rest = without_cancelled(error)
                if rest is None:
                    cancelled = error
                else:
                    group.record(rest)
                del rest
            while group.tasks:
                with CancelScope(shielded=True):
                    yield group
        finally:
            group.open = False
            owner.groups.remove(group)
        try:
            if group.errors:
                raise group.failure()
            if cancelled is not None:
                raise cancelled
            outer = group.scope.parent
            if group.lost and outer is not None and outer.pending():  # the body may not have noticed: it is no result
                raise Cancelled(f"task {owner.name!r} was cancelled, and with it tasks of group {group.name!r}")
        finally:
            cancelled = None  # or this frame would hold what holds the frame
    if returned:
        return result
    raise TaskCancelled("the task group was cancelled before its body returned")


def gather(*generators: Coro[T], limit: int | None = None) -> Coro[list[T]]:
    """Run all of them as tasks of one group, at most `limit` at a time; their results in the order given. Suspends.

    The first failure cancels the others, as in any group.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"gather with a limit of {limit} would never run anything")
    check_distinct(generators, "coro.gather")
    if limit is None:
        tasks: list[Task[T]] = []

        def body(group: TaskGroup) -> Coro[None]:
            tasks.extend(group.spawn(generator) for generator in generators)
            yield from ()

        yield from task_group(body, name="gather")
        return [task.result() for task in tasks]

    results: dict[int, T] = {}
    waiting = iter(enumerate(generators))  # shared: each worker takes the next one

    def work() -> Coro[None]:
        for number, generator in waiting:
            current_task().label = str(getattr(generator, "__qualname__", "gather"))  # whose error it would be
            results[number] = yield from generator

    yield from gather(*[work() for _ in range(min(limit, len(generators)))])
    return [results[number] for number in range(len(generators))]


def race(*generators: Coro[T]) -> Coro[T]:
    """Run all of them as tasks of one group until the first returns: its result. The others are cancelled. Suspends.

    Returns when all have ended. An error of any of them is raised.
    """
    if not generators:
        raise ValueError("a race of nobody would never end")
    check_distinct(generators, "coro.race")
    results: list[T] = []

    def run(generator: Coro[T], group: TaskGroup) -> Coro[None]:
        result = yield from generator
        results.append(result)
        group.cancel()

    def body(group: TaskGroup) -> Coro[None]:
        for generator in generators:
            group.spawn(run(generator, group), name=getattr(generator, "__qualname__", None))
        yield from ()

    yield from task_group(body, name="race")
    if not results:
        raise TaskCancelled("all tasks of a race were cancelled")
    return results[0]


def background(generator: Coro[T], *, name: str | None = None) -> Task[T]:
    """Start a task that belongs to the whole run: it is cancelled when the main task has ended. Does not suspend.

    For what serves many tasks, such as the reader of a shared connection. Its failure cancels the main task.
    """
    check_generator(generator, "coro.background")
    loop = current_task().loop
    return loop.spawn(generator, name)
