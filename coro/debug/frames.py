"""Tasks' names for profilers: `coro run --task-frames`.

A profiler knows functions, and all tasks are stepped by the same one. So each step is made from inside a function that
is called like the task: "task NAME" then stands between the loop and the task's own functions in what py-spy, cProfile
and, from Python 3.12 on with `-X perf`, perf(1) show.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from coro.debug.steps import Steps, Wait
from coro.loop import Loop
from coro.task import Request, Task


def _step(loop: Loop) -> None:
    type(loop)._step_batch(loop)


@functools.lru_cache(maxsize=1000)
def named(name: str) -> Callable[[Loop], None]:
    """A function called "task NAME" that has the loop step what is ready."""
    title = f"task {name}"
    function: Callable[[Loop], None] = FunctionType(
        _step.__code__.replace(co_name=title, co_qualname=title, co_filename="<coro>"), globals()
    )
    return function


class TaskFrames:
    """On from `start` to `stop`, in the loop's thread."""

    def __init__(self, loop: Loop) -> None:
        self._steps = Steps.of(loop)

    def start(self) -> None:
        self._steps.run_by = lambda task: named(task.name)
        self._steps.observe(self)

    def stop(self) -> None:
        self._steps.ignore(self)
        self._steps.run_by = None

    # It observes nothing:

    def step(self, task: Task[Any], wait: Wait, begin: int, end: int, woken: Sequence[Task[Any]]) -> None: ...
    def waits(self, task: Task[Any], request: Request) -> None: ...
    def turn(self, ready: int, begin: int, end: int) -> None: ...
