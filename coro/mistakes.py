"""What to say of the mistakes that generators invite: what was done, where, and what was probably meant."""

from __future__ import annotations

from types import GeneratorType
from typing import Any

from coro.errors import BusyError
from coro.task import Task


def not_a_request(value: object, task: Task[Any]) -> TypeError:
    """The error for a task that yielded something else than a request."""
    if isinstance(value, GeneratorType):
        hint = f"write `yield from {value.__name__}(...)` instead of `yield {value.__name__}(...)`"
    elif value is None:
        hint = "to let others run, use `yield from coro.checkpoint()`"
    elif hasattr(value, "__await__"):
        hint = "awaitables belong to asyncio; coro drives plain generators with `yield from`"
    else:
        hint = "delegate to coro's functions with `yield from`"
    return TypeError(f"task {task.name!r} yielded {value!r}, which is not a request: {hint}")


def innermost(task: Task[Any]) -> Any:
    """The last generator of the task's `yield from` chain: the one that yielded its request."""
    generator: Any = task.generator
    while isinstance(generator.gi_yieldfrom, GeneratorType):
        generator = generator.gi_yieldfrom
    return generator


def swallows_cancelled(task: Task[Any], times: int) -> str:
    """For a task that catches `Cancelled` and goes on."""
    generator = innermost(task)
    place = f"{generator.gi_code.co_filename}:{generator.gi_frame.f_lineno}"
    return f"task {task.name!r} goes on although it was cancelled {times} times: let Cancelled pass, at {place}"


def check_generator(generator: object, where: str) -> None:
    """TypeError, with the likely mistake, for what cannot be driven; BusyError for what is driven already."""
    if not isinstance(generator, GeneratorType):
        raise TypeError(f"{where}() takes a generator, as in {where}(work()), not {generator!r}")
    if generator.gi_suspended or generator.gi_running:
        raise BusyError(f"{where}(): {_taken(generator)}")


def check_distinct(generators: tuple[object, ...], where: str) -> None:
    """`check_generator` for each of them, none of which may come twice."""
    seen: set[int] = set()
    for generator in generators:
        check_generator(generator, where)
        if id(generator) in seen:
            raise BusyError(f"{where}(): {_taken(generator)}")
        seen.add(id(generator))


def check_start(generator: Any) -> None:
    """At the first step of a task: BusyError if another one has driven its generator since `spawn`."""
    if generator.gi_suspended:
        raise BusyError(_taken(generator))


class SharedGenerators:
    """Finds tasks that have one generator in their `yield from` chains: one drives on what another waits in.

    Python does not see it, and a look along the chain at every step would cost more than the step: so it is done
    where tests run.
    """

    def __init__(self) -> None:
        self._drivers: dict[Any, Task[Any]] = {}  # by the innermost generators of the tasks that wait
        self._innermost: dict[Task[Any], Any] = {}

    def before_step(self, task: Task[Any]) -> BusyError | None:
        """What is wrong with a task that is about to go on: has another one ended what it waits in?"""
        generator = self._innermost.pop(task, None)
        if generator is None:
            return None
        self._drivers.pop(generator, None)
        return None if generator.gi_suspended else BusyError(_shared(generator, task))

    def after_step(self, task: Task[Any]) -> BusyError | None:
        """What is wrong with a task that waits now: does another one wait in the same generator?"""
        generator = innermost(task)
        other = self._drivers.setdefault(generator, task)
        if other is not task:
            return BusyError(_shared(generator, other))
        self._innermost[task] = generator
        return None


def _shared(generator: Any, task: Task[Any]) -> str:
    return f"task {task.name!r} waits in {generator.__qualname__}, which another task drives too: make a new generator"


def _taken(generator: Any) -> str:
    return f"{generator.__qualname__} is driven by another task already: make a new generator"
