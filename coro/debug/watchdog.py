"""What holds the loop up, named while it does; and that all tasks wait for each other, when they do.

A thread looks at the loop's stack a few times in each limit. A step is known by two things that are there anyway, the
list of tasks of the loop's turn and the task that is being stepped: each task comes once in a list. If both have been
the same for the limit, the step is too long, and the stack that the thread sees is where it is. So the watchdog costs
the loop nothing. It cannot look while a call keeps the interpreter to itself: it is let in at the end of that call, and
tells then. That it was kept out by the loop, and did not just come late, it knows by three times that are all too long:
how late it is, how much CPU time the loop's thread has used meanwhile, and the age of the loop's turn.

A call of C code has no frame, and the calls that block are such calls. So what the innermost line of the program calls
is looked up by the names that stand there, and what is known to block is answered with what does not.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import logging
import math
import os
import sys
import threading
import time
from types import FrameType, MemberDescriptorType
from typing import Any

from coro.debug.tree import STEP, of_coro, places, snapshot, step_of, walk
from coro.debug.waits import from_outside
from coro.group import TaskGroup
from coro.loop import Loop
from coro.signals import Arrivals
from coro.task import Join, Task

logger = logging.getLogger("coro.watchdog")

ENDS = (TaskGroup, Join)  # waits that are for the sake of other tasks
LOOKS = 4  # in each limit
SHORTEST_LOOK = 0.002  # seconds between two looks
MOST_CULPRITS = 1000  # that are told; each is told once

INSTALLED = frozenset(("site-packages", "dist-packages"))
LIBRARY = os.path.join(os.path.dirname(os.path.realpath(os.__file__)), "")

# What to use instead, by how the full name of what is called begins; the first that fits.
ADVICE = (
    (("time.sleep",), "use `yield from coro.sleep(seconds)`"),
    (("_socket.getaddrinfo", "socket.getaddrinfo", "_socket.gethostby", "socket.create_connection"),
     "use `yield from coro.connect(host, port)`, which looks up names in a thread"),
    (("socket.", "_socket.", "ssl.", "select.", "selectors."),
     "use `coro.connect` or `coro.listen` and the `Stream` that they give, not a blocking socket"),
    (("subprocess.", "os.system", "posix.system", "os.wait", "posix.wait"),
     "use `yield from coro.run_process(...)` or `coro.open_process`"),
    (("requests.", "urllib3.", "urllib.", "http.client.", "httpx."), "use the client in `coro.http`"),
    (("redis.",), "use `coro.redis`"),
    (("pymysql.", "MySQLdb.", "mysql."), "use `coro.mysql`"),
    (("sqlite3.", "_sqlite3.", "psycopg"), "hand it to a thread: `yield from coro.to_thread(function, ...)`"),
    (("hashlib.", "_hashlib.", "_blake2.", "_sha", "_md5", "zlib.", "bz2.", "_bz2.", "lzma.", "_lzma.", "gzip."),
     "hand it to a thread, it runs beside the loop there: `yield from coro.to_thread(function, ...)`"),
    (("io.", "_io.", "posix.", "os.", "shutil.", "pathlib.", "tempfile.", "glob."),
     "use `coro.open_file`, or `yield from coro.on_disk(function, ...)`"),
    (("threading.", "_thread.", "queue.", "_queue.", "multiprocessing.", "concurrent."),
     "use coro's own Lock, Event and Queue between tasks, `coro.to_thread` to wait for a thread"),
    (("input", "builtins.input"), "hand it to a thread: `yield from coro.to_thread(input)`"),
)  # fmt: skip
COMPUTES = (
    "hand long computations to `coro.to_process`, or let others run in between with `yield from coro.checkpoint()`"
)


class Watchdog:
    """Watches the loop that runs in this thread, from `start` to `stop`. `limit` is in seconds."""

    def __init__(self, loop: Loop, limit: float) -> None:
        self._loop = loop
        self._limit = limit
        self._ident = threading.get_ident()
        self._cpu_clock = time.pthread_getcpuclockid(self._ident)
        self._stopped = threading.Event()
        self._culprits: set[object] = set()
        self._deadlocked: list[Task[Any]] = []  # as was told last
        self._thread = threading.Thread(target=self._watch, name="coro-watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._loop._poll = self._poll  # type: ignore[method-assign]

    def stop(self) -> None:
        del self._loop._poll
        self._stopped.set()
        self._thread.join()

    # --- Long steps, in the watchdog's thread -------------------------------------------------

    def _watch(self) -> None:
        pause = max(SHORTEST_LOOK, self._limit / LOOKS)
        step: tuple[object, object] = (None, None)
        since = 0.0
        looked, used = time.monotonic(), time.clock_gettime(self._cpu_clock)
        while not self._stopped.wait(pause):
            frame = sys._current_frames().get(self._ident)
            now, cpu = time.monotonic(), time.clock_gettime(self._cpu_clock)
            kept_out = min(now - looked - pause, cpu - used, self._loop.time() - self._loop.now)
            looked, used = now, cpu
            seen = step_of(frame)
            if seen[0] is None or seen[0] is not step[0] or seen[1] is not step[1]:
                step, since = seen, now - max(0.0, kept_out)
            if now - since >= self._limit and frame is not None and isinstance(seen[1], Task):
                self._tell(frame, seen[1], now - since, ended=kept_out >= self._limit)
            del frame, seen

    def _tell(self, frame: FrameType, task: Task[Any], held: float, *, ended: bool) -> None:
        culprit = own_frame(frame)
        key = (culprit.f_code, culprit.f_lineno)
        if key in self._culprits or len(self._culprits) >= MOST_CULPRITS:
            return
        self._culprits.add(key)
        stack = "".join(f"\n    {place}" for place in places(frame))
        how = "in a call that let no other thread run, and ends now" if ended else "and still does"
        text = "task %r has held up the loop for %.3g s, %s:%s\n  %s"
        logger.warning(text, task.name, held, how, stack, advice(frame))

    # --- Deadlocks, in the loop's thread ---------------------------------------------------------

    def _poll(self) -> None:
        loop = self._loop
        if not loop.ready and not loop._posted and loop.timers.next_due() == math.inf and not from_outside(loop):
            self._check_deadlock()
        Loop._poll(loop)

    def _check_deadlock(self) -> None:
        found = snapshot(self._loop, idle=True)
        everything = (entry for _, entry in walk(self._loop))
        tasks = [entry for entry in everything if isinstance(entry, Task) and not isinstance(entry.request, ENDS)]
        if tasks == self._deadlocked or any(isinstance(task.request, Arrivals) for task in tasks):
            return
        self._deadlocked = tasks
        lines = found.cycles_in_words()
        if not lines:
            for view in found.tasks:
                if not view.waits_for.startswith("the end of"):
                    lines += [f"  {view}", f"      {view.own_line()}"]
        logger.error("deadlock: every task waits, and nothing can wake any of them\n%s", "\n".join(lines))


# --- What is called, and what to use instead ------------------------------------------------------


def own_frame(frame: FrameType) -> FrameType:
    """The innermost frame of the program's own code; the innermost of all if there is none."""
    found: FrameType | None = frame
    while found is not None and found.f_code is not STEP:
        path = os.path.realpath(found.f_code.co_filename)
        library = path.startswith(LIBRARY) or of_coro(path) or INSTALLED.intersection(path.split(os.sep))
        if not library and not path.startswith("<"):
            return found
        found = found.f_back
    return frame


def advice(frame: FrameType) -> str:
    """What the program's innermost line calls, if that can be told, and what to use instead."""
    own = own_frame(frame)
    called: FrameType | None = None  # what it calls, if that is Python code
    while frame is not own and frame.f_back is not None:
        called, frame = frame, frame.f_back
    name = full_name(_callee(own))
    inner = "" if called is None else f"{called.f_globals.get('__name__', '')}.{called.f_code.co_qualname}"
    for candidate in (name, inner):
        for beginnings, instead in ADVICE:
            if candidate.startswith(beginnings):
                return f"{name or inner} blocks every task: {instead}"
    return f"{name or inner or 'this code'} keeps every other task from running: {COMPUTES}"


def full_name(called: object) -> str:
    """module.name of a function, method or class; empty if it has none."""
    owner = getattr(called, "__objclass__", None)  # of a method of a class in C
    module = getattr(owner or called, "__module__", None) or getattr(getattr(called, "__self__", None), "__name__", "")
    name = getattr(called, "__qualname__", "")
    return f"{module}.{name}" if module and name else str(name)


def _callee(frame: FrameType) -> object:
    """What is being called where the frame stands, found by the names that are written there; None if it is not."""
    positions = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    first, last, begin, end = positions
    if first is None or last is None or begin is None or end is None:
        return None
    lines = [linecache.getline(frame.f_code.co_filename, n).encode() for n in range(first, last + 1)]
    if not lines:
        return None
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][begin:]
    try:
        expression = ast.parse(b"".join(lines).decode().strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None
    return _named(expression.func, frame) if isinstance(expression, ast.Call) else None


def _named(expression: ast.expr, frame: FrameType) -> object:
    """The value of a name, or of names joined by dots, without running any code of the program."""
    if isinstance(expression, ast.Name):
        for names in (frame.f_locals, frame.f_globals, vars(builtins)):
            if expression.id in names:
                return names[expression.id]
    if isinstance(expression, ast.Attribute):
        owner = _named(expression.value, frame)
        found: Any = None if owner is None else inspect.getattr_static(owner, expression.attr, None)
        return found.__get__(owner) if isinstance(found, MemberDescriptorType) else found
    if isinstance(expression, ast.Call):  # as in hashlib.sha256(data).hexdigest()
        return _named(expression.func, frame)
    return None
