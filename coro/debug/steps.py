"""The loop's steps, observed: who ran, from when to when, what for it had waited, whom it woke.

While there is an observer, a method of this module stands in the place of the loop's `_step_batch`, on that instance
only, and has the original do the work with one task at a time. What a step adds to the ready queue was woken by that
step's task; all else was woken by I/O, a timer or a thread. Without observers the loop is as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any, Protocol, TypeAlias

from coro.debug.tree import walk
from coro.loop import Loop
from coro.task import Request, Task

Wait: TypeAlias = tuple[Request | None, int]  # what a task waits for (None: its turn), and since when, in nanoseconds


class Observer(Protocol):
    def step(self, task: Task[Any], wait: Wait, begin: int, end: int, woken: Sequence[Task[Any]]) -> None:
        """A task has made a step, after a wait; times are in nanoseconds of `perf_counter_ns`. Must not raise."""
        ...

    def waits(self, task: Task[Any], request: Request) -> None:
        """A task has come to wait."""
        ...

    def turn(self, ready: int, begin: int, end: int) -> None:
        """The loop has stepped all tasks that were ready."""
        ...


class Steps:
    """The steps of one loop. Use `observe` and `ignore`, in the loop's thread."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.waiting: dict[Task[Any], Wait] = {}  # of all tasks but the running one
        self._observers: tuple[Observer, ...] = ()
        self.run_by: Callable[[Task[Any]], Callable[[Loop], None]] | None = None  # what makes a step, for this task
        self._under_way: tuple[Task[Any], Wait, int] | None = None  # the step, and since when

    @classmethod
    def of(cls, loop: Loop) -> Steps:
        """Those of this loop, shared by all tools."""
        steps: Steps = loop.locals.setdefault(cls, cls(loop))
        return steps

    def observe(self, observer: Observer) -> None:
        if not self._observers:
            now = perf_counter_ns()
            self.waiting = {entry: (entry.request, now) for _, entry in walk(self.loop) if isinstance(entry, Task)}
            self.loop._step_batch = self._step_batch  # type: ignore[method-assign]
        self._observers += (observer,)
        for task, (request, _) in self.waiting.items():
            if request is not None:
                observer.waits(task, request)
        if self.loop.current is not None:
            task = self.loop.current
            self.loop.post(lambda: self._catch_up(task))

    def _catch_up(self, task: Task[Any]) -> None:
        """The task that was running at `observe` has come to wait since, unseen."""
        if task.request is not None and self.waiting.get(task, (task.request,))[0] is None:
            self.waiting[task] = task.request, perf_counter_ns()
            for observer in self._observers:
                observer.waits(task, task.request)

    def ignore(self, observer: Observer) -> None:
        """Report the step under way, if there is one, as far as it has come, and nothing after it."""
        if self._under_way is not None:
            observer.step(*self._under_way, perf_counter_ns(), self.loop.ready)
        self._observers = tuple(other for other in self._observers if other is not observer)
        if not self._observers:
            del self.loop._step_batch
            self.waiting = {}

    def _step_batch(self) -> None:
        loop, waiting = self.loop, self.waiting
        original = type(loop)._step_batch
        batch, ready = loop.ready, []
        began = begin = perf_counter_ns()
        for task in batch:
            loop.ready = [task]
            wait = waiting.pop(task, None) or (None, begin)
            self._under_way = task, wait, begin
            if self.run_by is None:
                original(loop)
            else:
                self.run_by(task)(loop)
            self._under_way = None
            woken = loop.ready
            end = perf_counter_ns()
            request = task.request
            if not task.done:
                waiting[task] = request, end
            for other in woken:
                if other not in waiting:
                    waiting[other] = None, end  # it is new
            for observer in self._observers:
                observer.step(task, wait, begin, end, woken)
                if request is not None:
                    observer.waits(task, request)
            ready += woken
            begin = end
        loop.ready = ready
        for observer in self._observers:
            observer.turn(len(batch), began, begin)
        batch.clear()  # the traceback of a task that failed leads to this frame: it must not lead on from here
        task = wait = woken = other = request = None  # type: ignore[assignment]
