"""Looking into a running program. Nothing here is imported, or costs anything, before it is asked for.

    tree.py        what every task waits for, in which line, who holds what: `coro.dump_tasks`, `coro ps`
    waits.py       who waits for whom, and in a circle
    attach.py      how `coro ps` and `coro top` get into another process; client.py, top.py: their side of it
    watchdog.py    what holds the loop up, named while it does
    steps.py       the loop's steps, observed: what the tools below are built on; kinds.py: kinds of waits
    monitor.py     the numbers of `coro top`
    trace.py       `coro run --trace`
    capacity.py    `coro run --stats`: how many requests a second the program can do
    frames.py      `coro run --task-frames`: tasks' names for profilers
    tools.py       switches on what `coro run` was asked for

Two rules. The kernel has no hooks: a tool replaces a method of one loop, on that instance, for as long as it is on.
And what a tool wants to know is found when it is asked for, in what the tasks hold anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coro.debug.capacity import Capacity


def stats() -> Capacity | None:
    """What `coro run --stats` measures of this run; None without it. A recorder for `coro.http.Server`.

    Does not suspend.
    """
    import sys

    from coro.task import running

    module = sys.modules.get("coro.debug.capacity")
    if module is None or running.loop is None:
        return None
    found: Capacity | None = running.loop.locals.get(module.Capacity)
    return found
