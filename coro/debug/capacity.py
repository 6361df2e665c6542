"""How many requests a second a program can do, what gives out first, and what it takes: `coro run --stats`.

What is measured, while the program does its work at some load: for each handler the CPU time of its steps and its waits
by kind; the CPU time of the whole process, the kernel's share of it included; the turns of the loop.

What follows from it. A turn costs something whatever it does (the poll, the tasks that serve all connections at once),
and something for each step of a connection. Over windows of some milliseconds, CPU time = T * turns + R * steps; least
squares give T and R. When all C connections that there were at once have always something to do, each turn has C
steps. So a request of s steps takes s * (R + T / C) of CPU time then, which is less than at a light load, and the
core's limit is one over that. A pool of n threads or connections, of which a request holds one for a time h, is at its
limit at n / h. The smallest of these limits is the program's. By Little's law (L = lambda * W) the requests in flight
are then the limit times the time that a request takes, and memory follows from what a connection was seen to take.

The tool's own cost is in the figures: they are those of the program as it runs, with `--stats` on.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from types import CodeType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from coro.debug.kinds import code_of, kind_of
from coro.debug.steps import Steps, Wait
from coro.debug.tree import of_coro
from coro.debug.waits import generators
from coro.loop import Loop
from coro.task import Request, Task, current_task
from coro.threads import Limiter

if TYPE_CHECKING:
    from coro.http import Request as HTTPRequest

WINDOW = 10_000_000  # nanoseconds
MOST_HANDLERS = 500  # that are told apart; requests decide on their names
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
ANSWER = "the answer"  # what a request's last step leads to
FEW = 200  # windows before which T and R are not told apart


@dataclass
class Stage:
    """What a handler does up to a wait, and that wait. Times are in nanoseconds."""

    busy: int = 0
    waited: int = 0
    count: int = 0


@dataclass
class Handler:
    requests: int = 0
    measured: int = 0  # of these, whose steps were seen from the first one on
    seconds: float = 0.0  # from the head to the end of the answer
    stages: dict[tuple[str, str], Stage] = field(default_factory=dict)  # by function and kind of wait

    def stage(self, key: tuple[str, str]) -> Stage:
        return self.stages.setdefault(key, Stage())


class Capacity:
    """Measures from `start` to `stop`, and is a recorder for `coro.http.Server`. In the loop's thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._steps = Steps.of(loop)
        self.handlers: dict[str, Handler] = {}
        self._open: dict[Task[Any], list[tuple[tuple[str, str], int, int]]] = {}  # of requests under way: their stages
        self._now: dict[Task[Any], tuple[str, str]] = {}  # the stage that the task waits in
        self._answered: dict[Task[Any], tuple[str, float, bool]] = {}  # requests that ended in the step under way
        self._functions: set[CodeType] = set()  # what tasks run that serve connections
        self._connections: set[Task[Any]] = set()
        self._new: set[Task[Any]] = set()  # of these, that have made no step but the first
        self._names: dict[CodeType, str] = {}
        self._fit = Fit()
        self._since = perf_counter_ns()
        self._cpu, self._thread_cpu = time.process_time_ns(), time.thread_time_ns()
        self._busy = 0
        self._most = 0  # connections at once
        self._window = self._since, self._cpu
        self._connection_steps = self._window_turns = self._window_steps = 0
        self._resident = resident_bytes()

    def start(self) -> None:
        self._loop.locals[Capacity] = self
        self._steps.observe(self)

    def stop(self) -> None:
        self._steps.ignore(self)
        del self._loop.locals[Capacity]

    # --- A recorder of answers -----------------------------------------------------------------

    def record(self, request: HTTPRequest, status: int, size: int, seconds: float) -> None:
        task = current_task()
        known = code_of(task) in self._functions
        self._functions.add(code_of(task))
        name = handler_name(request) if status not in (404, 405) or request.params else "(no handler)"
        if name not in self.handlers and len(self.handlers) >= MOST_HANDLERS:
            name = "(others)"
        self._answered[task] = name, seconds, known

    def record_refusal(self, peer: str, status: int, size: int) -> None:
        pass

    # --- An observer of steps ---------------------------------------------------------------------

    def step(self, task: Task[Any], wait: Wait, begin: int, end: int, woken: Sequence[Task[Any]]) -> None:
        self._busy += end - begin
        if code_of(task) not in self._functions:
            return
        self._window_steps += 1
        self._new.discard(task)
        if task not in self._connections:
            self._connections.add(task)
            self._new.add(task)
            self._most = max(self._most, len(self._connections))
        stages = self._open.setdefault(task, [])
        stage = self._now.pop(task, None)
        if stage is not None and stages:
            key, busy, _ = stages[-1]
            stages[-1] = key, busy, begin - max(wait[1], self._since)
        stages.append(((ANSWER, ""), end - begin, 0))
        answered = self._answered.pop(task, None)
        if answered is not None:
            self._add(*answered, self._open.pop(task))
        if task.done:
            self._connections.discard(task)
            self._new.discard(task)
            self._open.pop(task, None)

    def waits(self, task: Task[Any], request: Request) -> None:
        stages = self._open.get(task)
        if not stages:
            return  # it waits for its next request
        key = self._where(task), kind_of(task, request)
        if task in self._new and key[1] == "client":
            del self._open[task]  # it waits for its first one
            return
        self._now[task] = key
        stages[-1] = key, stages[-1][1], 0

    def turn(self, ready: int, begin: int, end: int) -> None:
        self._window_turns += 1
        began, cpu = self._window
        if end - began >= WINDOW:
            now = time.process_time_ns()
            self._fit.add(self._window_turns, self._window_steps, now - cpu)
            self._connection_steps += self._window_steps
            self._window_turns = self._window_steps = 0
            self._window = end, now

    def _add(
        self, name: str, seconds: float, measured: bool, stages: list[tuple[tuple[str, str], int, int]]
    ) -> None:
        handler = self.handlers.setdefault(name, Handler())
        handler.requests += 1
        handler.seconds += seconds
        if not measured:
            return
        handler.measured += 1
        for key, busy, waited in stages:
            stage = handler.stage(key)
            stage.busy += busy
            stage.waited += waited
            stage.count += 1

    def _where(self, task: Task[Any]) -> str:
        """The innermost function in the task's chain that is the program's own."""
        found = ""
        for generator in generators(task):
            code = generator.gi_code
            name = self._names.get(code)
            if name is None:
                name = self._names[code] = "" if of_coro(code.co_filename) else code.co_qualname
            found = name or found
        return found

    # --- The report -------------------------------------------------------------------------------

    def report(self) -> Report:
        """What was measured so far."""
        seconds = max(1e-9, (perf_counter_ns() - self._since) / 1e9)
        requests = sum(handler.requests for handler in self.handlers.values())
        thread = time.thread_time_ns() - self._thread_cpu
        process = time.process_time_ns() - self._cpu
        turn, step = self._fit.solve()
        steps = self._connection_steps / max(1, requests)
        most = max(1, self._most)
        full = steps * (step + turn / most)
        waited: Counter[str] = Counter()  # by all requests, as if all had been measured
        for handler in self.handlers.values():
            for (_, kind), stage in handler.stages.items():
                waited[kind] += round(stage.waited * handler.requests / max(1, handler.measured))
        pools: dict[str, tuple[int, float]] = {}  # by kind: how many there are, for how long a request holds one
        limiters: dict[str, Limiter] = self._loop.locals.get(Limiter, {})
        for kind, limiter in limiters.items():
            if waited[kind]:
                used = sum(1 for task, (_, name) in self._now.items() if name == kind)
                pools[kind] = limiter.free + used, waited[kind] / 1e9 / max(1, requests)
        flight = sum(handler.seconds for handler in self.handlers.values()) / seconds
        resident = resident_bytes()
        return Report(
            seconds=seconds,
            requests=requests,
            cpu_now=process / max(1, requests) / 1e9,
            cpu_full=full / 1e9,
            used=min(1.0, thread / max(1, self._busy)),
            in_flight=flight,
            time_in_flight=flight * seconds / max(1, requests),
            connections=most,
            pools=pools,
            resident=resident,
            bytes_each=max(0, resident - self._resident) / most,
            descriptors=len(self._loop.selector.get_map()),
            handlers=self.handlers,
        )


class Fit:
    """Least squares for cpu = T * turns + R * steps."""

    def __init__(self) -> None:
        self.count = 0
        self._tt = self._ts = self._ss = self._tc = self._sc = 0.0
        self._turns = self._steps = self._cpu = 0.0

    def add(self, turns: int, steps: int, cpu: int) -> None:
        self.count += 1
        self._tt += turns * turns
        self._ts += turns * steps
        self._ss += steps * steps
        self._tc += turns * cpu
        self._sc += steps * cpu
        self._turns, self._steps, self._cpu = self._turns + turns, self._steps + steps, self._cpu + cpu

    def solve(self) -> tuple[float, float]:
        """(T, R) in nanoseconds, neither of them negative; all is R when they cannot be told apart."""
        whole = 0.0, self._cpu / max(1.0, self._steps)
        determinant = self._tt * self._ss - self._ts**2
        if self.count < FEW or determinant <= 1e-6 * self._tt * self._ss:
            return whole
        turn = (self._tc * self._ss - self._sc * self._ts) / determinant
        step = (self._sc * self._tt - self._tc * self._ts) / determinant
        return (turn, step) if turn > 0 and step > 0 else whole


@dataclass
class Report:
    """Times are in seconds, those of CPU for one request."""

    seconds: float
    requests: int
    cpu_now: float  # at the load that there was
    cpu_full: float  # when every connection has always something to do
    used: float  # the part of the time in steps that the core really worked for them
    in_flight: float
    time_in_flight: float
    connections: int  # that were open at once
    pools: dict[str, tuple[int, float]]
    resident: int  # bytes
    bytes_each: float  # of memory that came with each connection
    descriptors: int
    handlers: dict[str, Handler]

    def limits(self) -> dict[str, float]:
        """Requests a second at which each resource gives out."""
        found = {"CPU": 1 / self.cpu_full} if self.cpu_full > 0 else {}
        found |= {f"{kind} threads ({n})": n / held for kind, (n, held) in self.pools.items() if n and held > 0}
        if self.time_in_flight > 0:
            room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - self.descriptors + self.connections
            found["descriptors"] = room / self.time_in_flight
            if self.bytes_each > 0:
                found["memory"] = (available_bytes() / self.bytes_each + self.connections) / self.time_in_flight
        return found

    def __str__(self) -> str:
        if not self.requests:
            return f"capacity: no requests in {self.seconds:.0f} s\n"
        rate = self.requests / self.seconds
        limits = self.limits()
        first = min(limits, key=lambda name: limits[name])
        limit = limits[first]
        flight = limit * self.time_in_flight
        memory = self.resident + max(0.0, flight - self.connections) * self.bytes_each
        lines = [
            f"capacity: {self.requests:,} requests in {self.seconds:.0f} s, {rate:,.0f} a second,"
            f" {self.in_flight:.1f} in flight, {self.cpu_now * 1e6:.0f} us of CPU each"
            f" ({self.cpu_full * 1e6:.0f} us when all {self.connections} of its connections are busy)",
            f"limit: {limit:,.0f} requests a second per core; what gives out first: {first}",
            f"  there: {flight:.1f} requests in flight at {self.time_in_flight * 1e3:.2f} ms each (Little's law),"
            f" {memory / 2**20:.0f} MiB of memory",
            "  others: " + ", ".join(f"{name} {limits[name]:,.0f}" for name in sorted(limits, key=limits.__getitem__)),
        ]
        for name, handler in sorted(self.handlers.items(), key=lambda item: -item[1].requests):
            lines += self._handler_lines(name, handler)
        return "\n".join(lines) + "\n"

    def _handler_lines(self, name: str, handler: Handler) -> list[str]:
        n = max(1, handler.measured)
        busy = sum(stage.busy for stage in handler.stages.values()) * self.used / n / 1e3
        each = handler.seconds / handler.requests
        lines = [
            f"{name}: {handler.requests:,} requests, {busy:.0f} us of CPU in its steps, {each * 1e3:.2f} ms each,"
            f" {handler.seconds / self.seconds:.1f} in flight"
        ]
        for (where, kind), stage in sorted(handler.stages.items(), key=lambda item: item[0][0] == ANSWER):
            text = f"    {stage.busy * self.used / n / 1e3:>8.0f} us CPU up to {where or 'the server'}"
            lines.append(text if not kind else f"{text}, then waits {stage.waited / n / 1e3:,.0f} us for {kind}")
        return lines


def handler_name(request: HTTPRequest) -> str:
    """Method and path, with the names of the router's parameters in the place of their values."""
    names = {value: name for name, value in request.params.items()}
    parts = request.target.partition("?")[0].split("/")
    return f"{request.method} " + "/".join(
        f"{{{names[unquote(part)]}}}" if unquote(part) in names else part for part in parts
    )


def resident_bytes() -> int:
    """Of this process: proc(5), statm. 0 where there is no /proc."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * PAGE_SIZE
    except OSError:
        return 0


def available_bytes() -> int:
    """Memory that the system could still give, with what only caches files: proc(5), meminfo."""
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_AVPHYS_PAGES") * PAGE_SIZE
