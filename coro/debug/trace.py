"""A recording of a run in the trace-event format, which ui.perfetto.dev and chrome://tracing open.

One track for each task: slices for its steps and its waits, with what it waited for, and an arrow from the step that
woke it to the step that followed. Tasks of one group stand together (as what the format calls a process), under the
path of groups from the main task down.

Events go to the file in batches, and at the latest half a second after they happened; what is kept in memory is a batch
and a number for each living task. The file is a JSON array, whose end may be missing: that is so until the run has
ended, and stays so if the process is killed. (Trace Event Format, Google, "JSON Array Format".)
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import os
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any

from coro.debug.steps import Steps, Wait
from coro.debug.tree import words
from coro.group import TaskGroup
from coro.io import Descriptor, Readable, Writable
from coro.loop import Loop
from coro.task import Request, Task

logger = logging.getLogger("coro.trace")

BATCH = 2000  # events
LATEST = 0.5  # seconds
MOST_DESCRIPTIONS = 4096  # of descriptors, and of groups

quoted = functools.lru_cache(maxsize=4096)(json.dumps)


class Trace:
    """Records a loop from `start` to `stop`. OSError when the file cannot be written from the start."""

    def __init__(self, loop: Loop, path: str) -> None:
        self._loop = loop
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._steps = Steps.of(loop)
        self._events: list[str] = []
        self._scheduled = False  # is a flush due?
        self._numbers = itertools.count(1)
        self._tracks: dict[Task[Any], tuple[int, int]] = {}  # the numbers of a task's group and of itself
        self._groups: dict[TaskGroup, tuple[int, str]] = {}  # a group's number, and the path of its groups
        self._waking: dict[Task[Any], int] = {}  # the arrow that leads to a task's next step
        self._waits: dict[Task[Any], str] = {}  # what it waits for, in words, as JSON
        self._described: dict[Descriptor, str] = {}

    def start(self) -> None:
        try:
            os.write(self._fd, b"[\n")
        except OSError:
            self._close()
            raise
        self._name("process_name", 0, 0, "main and background tasks")
        self._steps.observe(self)

    def stop(self) -> None:
        """Write what is left, with the waits that still go on, and the end."""
        if self._fd < 0:
            return  # it has ended before
        now = perf_counter_ns()
        for task, (_, since) in self._steps.waiting.items():
            if task in self._waits:
                group, number = self._tracks.get(task) or self._new_track(task)
                self._events.append(_wait(group, number, since, now, self._waits[task]))
        self._steps.ignore(self)
        self._name("trace_end", 0, 0, "")
        self._write(",\n".join(self._events) + "\n]\n")
        self._events.clear()  # a flush may still be due
        self._close()

    # --- Observing -------------------------------------------------------------------------

    def step(self, task: Task[Any], wait: Wait, begin: int, end: int, woken: Sequence[Task[Any]]) -> None:
        group, number = self._tracks.get(task) or self._new_track(task)
        start, append = begin / 1e3, self._events.append
        place = f'"pid":{group},"tid":{number}'
        waited = self._waits.pop(task, None)
        if waited is not None:
            append(_wait(group, number, wait[1], begin, waited))
        arrow = self._waking.pop(task, None)
        if arrow is not None:
            append(f'{{"ph":"f","bp":"e",{place},"ts":{start},"id":{arrow},"name":"wake","cat":"wake"}}')
        append(f'{{"ph":"X",{place},"ts":{start},"dur":{(end - begin) / 1e3},"name":"run"}}')
        for other in woken:
            if other is not task:
                arrow = self._waking[other] = next(self._numbers)
                at = (begin + end) / 2e3
                append(f'{{"ph":"s",{place},"ts":{at},"id":{arrow},"name":"wake","cat":"wake"}}')
        if task.done:
            del self._tracks[task]

    def waits(self, task: Task[Any], request: Request) -> None:
        self._waits[task] = self._words(request)

    def turn(self, ready: int, begin: int, end: int) -> None:
        if len(self._events) >= BATCH:
            self._flush()
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_at(self._loop.now + LATEST, self._flush_late)

    # --- What things are called -----------------------------------------------------------------

    def _new_track(self, task: Task[Any]) -> tuple[int, int]:
        parent = task.parent
        group = self._group(parent)[0] if isinstance(parent, TaskGroup) else 0
        track = self._tracks[task] = group, next(self._numbers)
        self._name("thread_name", *track, task.name)
        return track

    def _group(self, group: TaskGroup) -> tuple[int, str]:
        found = self._groups.get(group)
        if found is None:
            if len(self._groups) >= MOST_DESCRIPTIONS:
                self._groups = {known: number for known, number in self._groups.items() if known.open}
            outer = group.owner.parent
            path = f"{self._group(outer)[1]} > " if isinstance(outer, TaskGroup) and outer in self._groups else ""
            found = self._groups[group] = next(self._numbers), f"{path}{group.name}"
            self._name("process_name", found[0], 0, f"group {found[1]} (of {group.owner.name})")
        return found

    def _name(self, what: str, group: int, number: int, name: str) -> None:
        args = f'{{"name":{quoted(name)}}}'
        self._events.append(f'{{"ph":"M","pid":{group},"tid":{number},"name":"{what}","args":{args}}}')

    def _words(self, request: Request) -> str:
        if isinstance(request, (Readable, Writable)):  # its words take two system calls, and stay the same
            text = self._described.get(request.descriptor)
            if text is None:
                if len(self._described) >= MOST_DESCRIPTIONS:
                    self._described.clear()
                text = self._described[request.descriptor] = repr(request.descriptor)
            return quoted(f"{'readable' if isinstance(request, Readable) else 'writable'} {text}")
        return quoted(words(request))

    # --- Writing ------------------------------------------------------------------------------------

    def _flush_late(self) -> None:
        self._scheduled = False
        self._flush()

    def _flush(self) -> None:
        if self._events:
            text = ",\n".join(self._events) + ",\n"
            self._events.clear()
            self._write(text)

    def _write(self, text: str) -> None:
        try:
            data = memoryview(text.encode())
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:  # a full disk must not end the program
            logger.error("the trace ends here: cannot write %s: %s", self._path, error.strerror)
            self._steps.ignore(self)
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _wait(group: int, number: int, begin: int, end: int, what: str) -> str:
    """The event for a task's wait."""
    return f'{{"ph":"X","pid":{group},"tid":{number},"ts":{begin / 1e3},"dur":{(end - begin) / 1e3},"name":{what}}}'
