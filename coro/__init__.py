"""coro: stackless coroutines on plain generators. `coro.run(main())` is the one door in."""

from coro.debug.tree import dump_tasks
from coro.errors import (
    BusyError,
    Cancelled,
    ClosedError,
    CoroError,
    EndOfStream,
    LimitExceeded,
    TaskCancelled,
)
from coro.files import File, on_disk, open_file
from coro.group import TaskGroup, background, gather, race, task_group
from coro.io import Descriptor, Readable, Socket, Writable
from coro.loop import Loop, run
from coro.net import Listener, Stream, connect, connect_unix, listen, listen_unix, serve
from coro.processes import Process, ProcessError, ProcessLimiter, open_process, run_process, to_process
from coro.signals import Signals, open_signals
from coro.streams import ReadStream, WriteStream
from coro.sync import Condition, Event, Lock, Queue, Semaphore
from coro.task import CancelScope, Coro, Request, Task, current_task
from coro.threads import Limiter, from_thread, to_thread
from coro.timing import (
    call_later,
    checkpoint,
    move_on_after,
    now,
    shield,
    sleep,
    sleep_forever,
    stopping,
    timeout,
    until_stopping,
)

__version__ = "0.1.0"

__all__ = [
    "BusyError",
    "CancelScope",
    "Cancelled",
    "ClosedError",
    "Condition",
    "Coro",
    "CoroError",
    "Descriptor",
    "EndOfStream",
    "Event",
    "File",
    "LimitExceeded",
    "Limiter",
    "Listener",
    "Lock",
    "Loop",
    "Process",
    "ProcessError",
    "ProcessLimiter",
    "Queue",
    "ReadStream",
    "Readable",
    "Request",
    "Semaphore",
    "Signals",
    "Socket",
    "Stream",
    "Task",
    "TaskCancelled",
    "TaskGroup",
    "Writable",
    "WriteStream",
    "background",
    "call_later",
    "checkpoint",
    "connect",
    "connect_unix",
    "current_task",
    "dump_tasks",
    "from_thread",
    "gather",
    "listen",
    "listen_unix",
    "move_on_after",
    "now",
    "on_disk",
    "open_file",
    "open_process",
    "open_signals",
    "race",
    "run",
    "run_process",
    "serve",
    "shield",
    "sleep",
    "sleep_forever",
    "stopping",
    "task_group",
    "timeout",
    "to_process",
    "to_thread",
    "until_stopping",
]
