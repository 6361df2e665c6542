"""Who waits for whom: the graph behind "held by task 17", and the circles in it, which are deadlocks.

Permits have no owner: whoever was handed one may give it back. But a task in `with (yield from lock.acquire()):` has
the lock's `__exit__` on the value stack of its suspended generator, and the garbage collector can tell what a generator
refers to. So a holder is found when somebody asks, and holding costs nothing. One that does not use `with` (or an
`ExitStack`) is not found; nor is the task that is running.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from types import GeneratorType, MethodType
from typing import Any, TypeAlias

from coro.group import TaskGroup
from coro.io import Descriptor
from coro.loop import Loop
from coro.sync import WaitQueue
from coro.task import Join, Request, Task

Tasks: TypeAlias = Sequence[Task[Any]]
Holders: TypeAlias = dict[int, list[Task[Any]]]


def generators(task: Task[Any]) -> Iterator[Any]:
    """The task's `yield from` chain, from the outside in."""
    generator: Any = task.generator
    while isinstance(generator, GeneratorType):
        yield generator
        generator = generator.gi_yieldfrom


def holders_of(tasks: Tasks) -> Holders:
    """For each lock, semaphore or limiter that somebody waits for, by `id`: the tasks that hold a permit of it."""
    holders: Holders = {id(task.request): [] for task in tasks if is_permit(task.request)}
    if holders:
        for task in tasks:
            for owner in _held_by(task):
                if id(owner) in holders and task not in holders[id(owner)]:
                    holders[id(owner)].append(task)
    return holders


def is_permit(request: Request | None) -> bool:
    """Is it a wait for what others hold?"""
    return isinstance(request, WaitQueue) and hasattr(request, "give_back")


def _held_by(task: Task[Any]) -> Iterator[object]:
    yield getattr(task.request, "holds", None)
    for generator in generators(task):
        yield from _owners(gc.get_referents(generator))


def _owners(referents: Iterable[object]) -> Iterator[object]:
    for referent in referents:
        if type(referent) is MethodType and referent.__name__ == "__exit__":
            yield referent.__self__
            if isinstance(referent.__self__, ExitStack):
                yield from _owners(callback for _, callback in referent.__self__._exit_callbacks)  # type: ignore[attr-defined]


def from_outside(loop: Loop) -> bool:
    """Can a descriptor that a task waits for, or a call in a thread, wake the loop?"""
    if loop.calls:
        return True
    owners = (getattr(key.data, "__self__", None) for key in loop.selector.get_map().values())
    return any(isinstance(owner, Descriptor) and (owner.reader or owner.writer) for owner in owners)


def cycles(tasks: Tasks, holders: Holders, *, idle: bool = False) -> list[list[Task[Any]]]:
    """The circles in which tasks wait for each other for good: each task waits for the next, the last for the first.

    `idle` says that nothing outside the tasks can wake any of them. Else a task counts only if nothing but the others
    of its circle can: it has no time limit, and waits for all that the others have.
    """
    waits = {task: _awaited(task, holders, idle) for task in tasks if idle or not _has_time_limit(task)}
    stuck = {task for task, awaited in waits.items() if awaited}
    while lucky := [task for task in stuck if not any(other in stuck for other in waits[task])]:
        stuck.difference_update(lucky)
    found: list[list[Task[Any]]] = []
    seen: set[Task[Any]] = set()
    for task in tasks:
        path: list[Task[Any]] = []
        while task in stuck and task not in seen:
            seen.add(task)
            path.append(task)
            task = next(other for other in waits[task] if other in stuck)
        if task in path:
            found.append(path[path.index(task) :])
    return found


def _awaited(task: Task[Any], holders: Holders, idle: bool) -> Tasks:
    """The tasks for which it waits."""
    request = task.request
    if isinstance(request, Join):
        return [request.target]
    if isinstance(request, TaskGroup):
        return list(request.tasks)
    if is_permit(request) and (idle or getattr(request, "limit", None) == 1):  # of a semaphore others may hold the rest
        return holders[id(request)]
    return []


def _has_time_limit(task: Task[Any]) -> bool:
    """Will a time limit end the wait, or is the task being cancelled already?"""
    scope = task.scope
    while scope is not None:
        if scope.deadline != float("inf") or scope.cancel_called:
            return True
        scope = scope.parent
    return False
