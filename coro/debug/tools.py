"""The tools that `coro run` switches on: a wrapper around the main task, and nothing at all without them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from coro.errors import CoroError
from coro.loop import Loop
from coro.task import Coro, current_task

T = TypeVar("T")


class ToolError(CoroError):
    """Why a tool cannot be switched on."""


@dataclass(frozen=True)
class Tools:
    """What was asked for on the command line."""

    watchdog: float | None = None  # seconds
    trace: str | None = None  # a file
    stats: bool = False
    frames: bool = False
    worker: int | None = None  # which of several processes this is

    def around(self, main: Coro[T]) -> Coro[T]:
        """`main`, with the tools on while it runs."""
        starts: list[Callable[[Loop, ExitStack], None]] = []
        if self.watchdog is not None:
            starts.append(self._watch)
        if self.trace is not None:
            starts.append(self._trace)
        if self.stats:
            starts.append(self._measure)
        if self.frames:
            starts.append(self._name)
        return _with(starts, main) if starts else main

    def _watch(self, loop: Loop, stack: ExitStack) -> None:
        from coro.debug.watchdog import Watchdog  # each tool is loaded only when it is wanted

        assert self.watchdog is not None
        watchdog = Watchdog(loop, self.watchdog)
        watchdog.start()
        stack.callback(watchdog.stop)

    def _trace(self, loop: Loop, stack: ExitStack) -> None:
        from coro.debug.trace import Trace

        assert self.trace is not None
        stem, suffix = os.path.splitext(self.trace)
        path = self.trace if self.worker is None else f"{stem}.{self.worker}{suffix}"
        try:
            trace = Trace(loop, path)
            trace.start()
        except OSError as error:
            raise ToolError(f"cannot write the trace {path}: {error.strerror}") from None
        stack.callback(trace.stop)

    def _measure(self, loop: Loop, stack: ExitStack) -> None:
        from coro.debug.capacity import Capacity

        capacity = Capacity(loop)
        capacity.start()
        stack.callback(capacity.stop)
        whose = "" if self.worker is None else f"worker {self.worker}, "
        stack.callback(lambda: print(f"{whose}{capacity.report()}", end="", file=sys.stderr, flush=True))

    def _name(self, loop: Loop, stack: ExitStack) -> None:
        from coro.debug.frames import TaskFrames

        frames = TaskFrames(loop)
        frames.start()
        stack.callback(frames.stop)


def _with(starts: list[Callable[[Loop, ExitStack], None]], main: Coro[T]) -> Coro[T]:
    wrapper: Any = _run(starts, main)
    wrapper.__qualname__ = getattr(main, "__qualname__", "main")  # the main task keeps its name
    result: Coro[T] = wrapper
    return result


def _run(starts: list[Callable[[Loop, ExitStack], None]], main: Coro[T]) -> Coro[T]:
    with ExitStack() as stack:
        for start in starts:
            start(current_task().loop, stack)
        return (yield from main)
