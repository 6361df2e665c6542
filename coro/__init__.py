"""coro: stackless coroutines on plain generators. `coro.run(main())` is the one door in."""

from coro.errors import (
    BusyError,
    Cancelled,
    ClosedError,
    CoroError,
    EndOfStream,
    LimitExceeded,
    TaskCancelled,
)
from coro.group import TaskGroup, background, gather, task_group
from coro.io import Descriptor, Readable, Socket, Writable
from coro.loop import Loop, run
from coro.net import Listener, Stream, connect, connect_unix, listen, listen_unix, serve
from coro.signals import open_signals
from coro.sync import Event, Lock, Queue, Semaphore
from coro.task import CancelScope, Coro, Request, Task, current_task
from coro.threads import Limiter, to_thread
from coro.timing import checkpoint, move_on_after, now, shield, sleep, sleep_forever, timeout

__version__ = "0.1.0"

__all__ = [
    "BusyError",
    "CancelScope",
    "Cancelled",
    "ClosedError",
    "Coro",
    "CoroError",
    "Descriptor",
    "EndOfStream",
    "Event",
    "LimitExceeded",
    "Limiter",
    "Listener",
    "Lock",
    "Loop",
    "Queue",
    "Readable",
    "Request",
    "Semaphore",
    "Socket",
    "Stream",
    "Task",
    "TaskCancelled",
    "TaskGroup",
    "Writable",
    "background",
    "checkpoint",
    "connect",
    "connect_unix",
    "current_task",
    "gather",
    "listen",
    "listen_unix",
    "move_on_after",
    "now",
    "open_signals",
    "run",
    "serve",
    "shield",
    "sleep",
    "sleep_forever",
    "task_group",
    "timeout",
    "to_thread",
]
