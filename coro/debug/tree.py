"""The task tree: groups and tasks, each with its age, its state, what it waits for in words, and where.

Every waiting task has its request at hand and its `yield from` chain as objects, so there is nothing to record while
the program runs: a snapshot reads what is there. Tasks are numbered within one snapshot, in the order of the tree.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple, TextIO

from coro.debug.waits import cycles, generators, holders_of, is_permit
from coro.group import TaskGroup
from coro.loop import Loop
from coro.task import Request, Task, running

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
STEP = Loop._step_batch.__code__


class Place(NamedTuple):
    """A line in a task's `yield from` chain."""

    function: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.function}  {short(self.file)}:{self.line}"


@dataclass
class GroupView:
    name: str
    tasks: list[int]

    def __str__(self) -> str:
        return f"group {self.name!r}" + ("" if self.tasks else ", without tasks")


@dataclass
class TaskView:
    number: int
    name: str
    age: float  # seconds since its spawn
    state: str  # "running", "ready", "waiting"
    waits_for: str  # in words; empty unless it waits
    held_by: list[int]  # who holds the permit that it waits for, as far as that can be told
    cancelled: bool
    chain: list[Place]  # the innermost last
    groups: list[GroupView]  # that it has open

    def __str__(self) -> str:
        state = f"waiting for {self.waits_for}" if self.waits_for else self.state
        return f"task {self.number} {self.name!r}, {seconds(self.age)}, {state}" + ", cancelled" * self.cancelled

    def own_line(self) -> str:
        """The innermost line of its chain that is not coro's own."""
        own = [place for place in self.chain if not of_coro(place.file)] or self.chain
        return str(own[-1]) if own else ""


@dataclass
class Snapshot:
    """A program at one moment."""

    pid: int
    loop: str  # its state, in words
    tree: list[tuple[int, TaskView | GroupView]]  # from the top down, each with its depth
    cycles: list[list[int]]  # tasks that wait for each other for good

    @property
    def tasks(self) -> list[TaskView]:
        """In the order of their numbers, from 1 on."""
        return [entry for _, entry in self.tree if isinstance(entry, TaskView)]

    def __str__(self) -> str:
        """The tree as text, with a line for each task, each place of its chain and each group."""
        lines = [f"process {self.pid}: {self.loop}"]
        for depth, entry in self.tree:
            lines.append(f"{'  ' * depth}{entry}")
            if isinstance(entry, TaskView):
                lines += [f"{'  ' * depth}      {place}" for place in entry.chain]
        return "\n".join([*lines, *self.cycles_in_words()]) + "\n"

    def cycles_in_words(self) -> list[str]:
        """Lines that say who waits for whom, where."""
        lines = []
        tasks = self.tasks
        for cycle in self.cycles:
            lines.append("deadlock: " + " -> ".join(f"task {number}" for number in [*cycle, cycle[0]]))
            for task in (tasks[number - 1] for number in cycle):
                lines += [f"  {task}", f"      {task.own_line()}"]
        return lines

    def as_json(self) -> str:
        """The same as one JSON object; groups and cycles refer to tasks by number."""
        tasks = [
            {**vars(task), "chain": [place._asdict() for place in task.chain], "groups": [*map(vars, task.groups)]}
            for task in self.tasks
        ]
        return json.dumps({"pid": self.pid, "loop": self.loop, "tasks": tasks, "cycles": self.cycles})


def dump_tasks(file: TextIO | None = None) -> None:
    """Write the tree of all tasks of this thread's loop to `file` (stderr by default). Does not suspend.

    RuntimeError when no loop runs in this thread.
    """
    if running.loop is None:
        raise RuntimeError("no loop is running in this thread: call dump_tasks() from inside coro.run(main())")
    print(snapshot(running.loop), end="", file=file or sys.stderr, flush=True)


def snapshot(loop: Loop, *, idle: bool = False) -> Snapshot:
    """What the tasks of a loop do now. To be called in the loop's thread. `idle`: see `cycles`."""
    collects = gc.isenabled()
    gc.disable()  # many objects are made and none is dropped: looking for garbage would take longer than all else
    try:
        return _snapshot(loop, idle)
    finally:
        if collects:
            gc.enable()


def _snapshot(loop: Loop, idle: bool) -> Snapshot:
    entries = list(walk(loop))
    tasks = [entry for _, entry in entries if isinstance(entry, Task)]
    numbers = {task: number for number, task in enumerate(tasks, 1)}
    holders = holders_of(tasks)
    tree: list[tuple[int, TaskView | GroupView]] = []
    for depth, entry in entries:
        if isinstance(entry, TaskGroup):
            tree.append((depth, _view_group(entry, numbers)))
        else:
            tree.append((depth, _view(entry, numbers, holders.get(id(entry.request), []))))
    circles = [[numbers[task] for task in cycle] for cycle in cycles(tasks, holders, idle=idle)]
    return Snapshot(os.getpid(), _loop_in_words(loop, len(tasks)), tree, circles)


def _view_group(group: TaskGroup, numbers: dict[Task[Any], int]) -> GroupView:
    return GroupView(group.name, [numbers[task] for task in group.tasks])


def _view(task: Task[Any], numbers: dict[Task[Any], int], holders: list[Task[Any]]) -> TaskView:
    request, loop = task.request, task.loop
    running_now = task is loop.current
    held_by = [numbers[holder] for holder in holders]
    return TaskView(
        number=numbers[task],
        name=task.name,
        age=age_of(task),
        state="running" if running_now else "ready" if request is None else "waiting",
        waits_for="" if request is None else words(request) + _held_in_words(request, held_by, loop),
        held_by=held_by,
        cancelled=task.cancelled,
        chain=places(sys._getframe()) if running_now else chain(task),
        groups=[_view_group(group, numbers) for group in task.groups or ()],
    )


def age_of(task: Task[Any]) -> float:
    """Seconds since its spawn. Not for a task that has ended."""
    parent: Any = task.parent
    born: float = parent.tasks[task]
    return max(0.0, task.loop.time() - born)


def walk(loop: Loop) -> Iterator[tuple[int, Task[Any] | TaskGroup]]:
    """All tasks, each with its open groups and their tasks behind it, and the depth of each."""
    stack: list[tuple[int, Task[Any] | TaskGroup]] = [(0, task) for task in reversed(loop.tasks)]
    while stack:  # and not recursion: groups may be nested more deeply than Python's own stack allows
        depth, entry = stack.pop()
        yield depth, entry
        inner = entry.tasks if isinstance(entry, TaskGroup) else entry.groups or []
        stack += [(depth + 1, below) for below in reversed(inner)]


def chain(task: Task[Any]) -> list[Place]:
    """The `yield from` chain of a task that is not running."""
    frames = [(generator, generator.gi_frame) for generator in generators(task)]
    return [
        Place(generator.gi_code.co_qualname, generator.gi_code.co_filename, frame.f_lineno or 0)
        for generator, frame in frames
        if frame is not None
    ]


def places(frame: FrameType | None) -> list[Place]:
    """What is on a thread's stack above the loop, up to `frame`: the chain of the running task, and what it calls."""
    found: list[Place] = []
    while frame is not None and frame.f_code is not STEP:
        code = frame.f_code
        if not code.co_filename.startswith(HERE):
            found.append(Place(code.co_qualname, code.co_filename, frame.f_lineno or 0))
        frame = frame.f_back
    return found[::-1]


def step_of(frame: FrameType | None) -> tuple[object, object]:
    """The list of tasks of the loop's turn, and the task that it is stepping."""
    while frame is not None:
        if frame.f_code is STEP:
            names = frame.f_locals
            return names.get("batch"), names.get("task")
        frame = frame.f_back
    return None, None


def words(request: Request) -> str:
    """What a request waits for. A request of the program's own may be broken: then its class has to do."""
    try:
        return repr(request)
    except Exception as error:
        return f"a {type(request).__name__} (its repr raises {type(error).__name__})"


def _held_in_words(request: Request, holding: list[int], loop: Loop) -> str:
    if not is_permit(request):
        return ""
    if holding:
        return f" held by task{'s' * (len(holding) > 1)} " + ", ".join(map(str, holding))
    if loop.current is not None:
        return " (held by the running task, or by one that did not take it in a `with`)"
    return " (whoever holds it did not take it in a `with`)"


def _loop_in_words(loop: Loop, tasks: int) -> str:
    counts = [(tasks, "task"), (len(loop.ready), "ready"), (len(loop.timers), "timer")]
    counts += [(loop.calls, "call in threads"), (len(loop.selector.get_map()) - 1, "registered descriptor")]
    plural = {"call in threads": "calls in threads", "ready": "ready"}
    return ", ".join(f"{n} {what if n == 1 else plural.get(what, what + 's')}" for n, what in counts)


def seconds(time: float) -> str:
    """A duration for people: 12 ms, 3.4 s, 12 min, 3.5 h."""
    if time < 1:
        return f"{max(0.0, time) * 1000:.0f} ms"
    if time < 120:
        return f"{time:.1f} s"
    return f"{time / 60:.0f} min" if time < 7200 else f"{time / 3600:.1f} h"


@functools.cache
def short(file: str) -> str:
    """A source file as it is imported: without the directory in which Python found it."""
    for entry in sorted((os.path.abspath(entry) for entry in sys.path), key=len, reverse=True):
        if file.startswith(os.path.join(entry, "")):
            return os.path.relpath(file, entry)
    return file


@functools.cache
def of_coro(file: str) -> bool:
    """Is it a source file of coro itself?"""
    return file.startswith(os.path.dirname(os.path.dirname(HERE)) + os.sep)

