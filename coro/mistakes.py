"""What to say of the mistakes that generators invite: what was done, where, and what was probably meant."""

from __future__ import annotations

import os
from inspect import isgeneratorfunction
from types import GeneratorType, TracebackType
from typing import Any

from coro.errors import BusyError
from coro.handover import taken
from coro.task import Task

PACKAGE = os.path.join(os.path.dirname(__file__), "")
KERNEL = frozenset(f"coro.{name}" for name in ("loop", "task", "group", "timing", "threads", "cli", "supervisor"))


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
    place = ""
    generator: Any = task.generator
    while isinstance(generator, GeneratorType):
        frame: Any = generator.gi_frame
        if not frame.f_code.co_filename.startswith(PACKAGE) or not place:
            place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        generator = generator.gi_yieldfrom
    return f"task {task.name!r} goes on although it was cancelled {times} times: let Cancelled pass, at {place}"


def user_frames(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback without the kernel's frames; as it is if nothing would be left."""
    frames = []
    following = traceback
    while following is not None:
        if following.tb_frame.f_globals.get("__name__") not in KERNEL:
            frames.append(following)
        following = following.tb_next
    shortened: TracebackType | None = None
    for frame in reversed(frames):
        shortened = TracebackType(shortened, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return shortened or traceback


def note_task(error: BaseException, task: Task[Any]) -> None:
    """Note on an error in which task it was raised, once for each."""
    note = f"in task {task.name!r}{task.parent.described}"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def check_generator(generator: object, where: str) -> None:
    """TypeError, with the likely mistake, for what cannot be driven; BusyError for what is driven already."""
    if not isinstance(generator, GeneratorType):
        hint = ""
        if isgeneratorfunction(generator):
            hint = f": call it, {where}({generator.__name__}())"
        elif generator is None:
            hint = ": what was called is no generator function, there is no `yield` in it"
        raise TypeError(f"{where}() takes a generator, as in {where}(work()), not {generator!r}{hint}")
    if generator.gi_suspended or generator.gi_running:
        raise BusyError(f"{where}(): {taken(generator)}")


def check_fresh(generator: object, where: str) -> None:
    """`check_generator`, and BusyError for what has ended. (To look for that takes memory: not done for each task.)"""
    check_generator(generator, where)
    if getattr(generator, "gi_frame", None) is None:
        raise BusyError(f"{where}(): {getattr(generator, '__qualname__', generator)} has ended: make a new generator")


def check_distinct(generators: tuple[object, ...], where: str) -> None:
    """`check_generator` for each of them, none of which may come twice."""
    seen: set[int] = set()
    for generator in generators:
        check_generator(generator, where)
        if id(generator) in seen:
            raise BusyError(f"{where}(): {taken(generator)}")
        seen.add(id(generator))


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
