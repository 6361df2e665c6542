"""The numbers of `coro top`: for each task function, what its tasks did since the last look; and the loop's state.

Switched on when somebody attaches, in the middle of the run, and off when the last one has left.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from time import perf_counter_ns
from types import CodeType
from typing import Any

from coro.debug.kinds import code_of, kind_of
from coro.debug.steps import Steps, Wait
from coro.debug.tree import walk
from coro.loop import Loop
from coro.task import Request, Task

MOST_SAMPLES = 10_000  # turns of which the length is kept, between two looks


class _Row:
    """The tasks of one function."""

    def __init__(self) -> None:
        self.busy = 0  # nanoseconds in its steps
        self.waits = 0
        self.waited: Counter[str] = Counter()  # nanoseconds, by kind


class Monitor:
    """Counts from `start` to `stop`; `look` tells what there was since the last look. All in the loop's thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._steps = Steps.of(loop)
        self._kinds: dict[Task[Any], str] = {}  # of the waits that go on
        self._reset()

    def _reset(self) -> None:
        self._rows: dict[CodeType, _Row] = {}
        self._turns: list[int] = []
        self._count = 0
        self._longest_queue = 0
        self._since = perf_counter_ns()
        self._cpu, self._thread_cpu = time.process_time(), time.thread_time()

    def start(self) -> None:
        self._steps.observe(self)

    def stop(self) -> None:
        self._steps.ignore(self)

    def step(self, task: Task[Any], wait: Wait, begin: int, end: int, woken: Sequence[Task[Any]]) -> None:
        row = self._row(task)
        row.busy += end - begin
        row.waits += 1
        row.waited[self._kinds.pop(task, "its turn")] += begin - max(wait[1], self._since)

    def waits(self, task: Task[Any], request: Request) -> None:
        self._kinds[task] = kind_of(task, request)

    def turn(self, ready: int, begin: int, end: int) -> None:
        self._count += 1
        self._longest_queue = max(self._longest_queue, ready)
        if len(self._turns) < MOST_SAMPLES:
            self._turns.append(end - begin)

    def _row(self, task: Task[Any]) -> _Row:
        code = code_of(task)
        row = self._rows.get(code)
        if row is None:
            row = self._rows[code] = _Row()
        return row

    def _descriptors(self) -> int:
        """That the process has open; where there is no /proc, those that the loop knows."""
        try:
            return len(os.listdir("/proc/self/fd")) - 1  # without the one that it takes to look
        except OSError:
            return len(self._loop.selector.get_map())

    def look(self) -> dict[str, Any]:
        """What happened since the last look, for JSON. Times are in seconds, shares of one core's time."""
        now = perf_counter_ns()
        for task, (_, since) in self._steps.waiting.items():
            self._row(task).waited[self._kinds.get(task, "its turn")] += now - max(since, self._since)
        counts = Counter(code_of(entry) for _, entry in walk(self._loop) if isinstance(entry, Task))
        seconds = max(1e-9, (now - self._since) / 1e9)
        # Steps are measured by the clock on the wall, which is cheap: what other processes took of it is taken off.
        busy = sum(row.busy for row in self._rows.values()) / 1e9
        used = min(1.0, (time.thread_time() - self._thread_cpu) / busy) if busy else 1.0
        rows: list[dict[str, Any]] = [
            {
                "function": code.co_qualname,
                "tasks": counts[code],
                "cpu": row.busy / 1e9 * used / seconds,
                "waits": row.waits / seconds,
                "waited": {kind: time / 1e9 for kind, time in row.waited.most_common() if time > 0},
            }
            for code, row in self._rows.items()
        ]
        rows.sort(key=lambda row: (-row["cpu"], -row["tasks"]))
        turns = sorted(self._turns) or [0]
        found = {
            "pid": os.getpid(),
            "seconds": seconds,
            "cpu": (time.process_time() - self._cpu) / seconds,
            "tasks": sum(counts.values()),
            "turns": self._count / seconds,
            "lag_p50": turns[len(turns) // 2] / 1e9,
            "lag_p99": turns[len(turns) * 99 // 100] / 1e9,
            "ready": self._longest_queue,
            "descriptors": self._descriptors(),
            "calls": self._loop.calls,
            "rows": rows,
        }
        self._reset()
        return found
