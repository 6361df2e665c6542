"""Which loop runs in this thread, and which of its tasks."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coro.loop import Loop
    from coro.task import Task


class _Running(threading.local):
    loop: Loop | None = None


running = _Running()  # the loop that runs in this thread
os.register_at_fork(after_in_child=lambda: running.__dict__.clear())  # the loop stays with the parent


def current_task() -> Task[Any]:
    """The task whose code is running. Does not suspend. RuntimeError outside `coro.run`."""
    task = running.loop.current if running.loop is not None else None
    if task is None:
        raise RuntimeError("no task is running here: call this from inside coro.run(main())")
    return task
