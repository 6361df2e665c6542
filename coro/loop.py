"""The event loop: a queue of ready tasks, a heap of timers, a selector. One turn fires timers, polls, steps a batch.

To *switch* is to return from one generator's `send` and call the next one's. No stack is copied and no register is
saved: a waiting task is a chain of small heap objects. All that a task may wait for lives outside this module, in
subclasses of `Request`; the loop arms them without knowing what they are. Ready tasks cannot starve I/O, because the
selector is polled every turn, and a turn steps only tasks that were ready when it began.

Other threads and signal handlers reach the loop through `post` alone.
"""

from __future__ import annotations

import logging
import math
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import FrameType
from typing import Any, TypeVar

from coro.errors import Cancelled, TaskCancelled, without_cancelled
from coro.handover import Delivery
from coro.mistakes import check_fresh, not_a_request, note_task, swallows_cancelled, user_frames
from coro.task import CHECKPOINT, CancelScope, Coro, Failure, Request, Task, running
from coro.timers import Action, Timer, TimerQueue

T = TypeVar("T")

logger = logging.getLogger("coro.loop")

DEAF = 1000  # times that Cancelled is raised at a task's requests until its author is told


class Loop:
    """Drives tasks until the main one, and the background ones after it, have ended."""

    scope: CancelScope | None = None
    described = ""  # its tasks are in no group
    LONGEST_POLL = 86400.0  # seconds; selectors raise OverflowError for very distant timers

    def __init__(
        self, selector: selectors.BaseSelector | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if running.loop is not None:
            raise RuntimeError("coro.run() was called inside coro.run(): use `yield from` or a task group instead")
        self.selector = selector or selectors.DefaultSelector()
        self.time, self.now = clock, clock()  # `now` is when the turn began
        self.ready: list[Task[Any]] = []
        self.current: Task[Any] | None = None  # the task that is being stepped
        self.main: Task[Any] | None = None
        self.tasks: dict[Task[Any], float] = {}  # main and background ones, and when each began; others are in groups
        self.locals: dict[object, Any] = {}  # what library modules keep for the time of this run
        self._failures: list[BaseException] = []  # of background tasks
        self._interrupted = False
        self.timers = TimerQueue()
        self._posted: deque[Action] = deque()
        self._polling = False
        self.calls = 0  # under way in threads; each will `post`
        self._wake_receiver, self._wake_sender = socket.socketpair()
        for end in self._wake_receiver, self._wake_sender:
            end.setblocking(False)
        self.selector.register(self._wake_receiver, selectors.EVENT_READ, self._on_wake)

    # --- Running --------------------------------------------------------------

    def run(self, main: Coro[T]) -> T:
        """Drive `main` to its end; its result. Then cancel the background tasks and wait for them."""
        task: Task[T] = self.spawn(main)
        self.main = task
        with self._installed():
            while self.tasks:
                self._fire_timers()
                self._poll()
                self._step_batch()
        return self._result(task)

    def _fire_timers(self) -> None:
        due = self.timers.pop_due
        self.now = now = self.time()
        while (action := due(now)) is not None:
            self._call(action)

    def _poll(self) -> None:
        self._polling = True  # from here on, `post` must wake the selector
        if self.ready or self._posted:
            timeout: float | None = 0
        elif (due := self.timers.next_due()) < math.inf:
            timeout = min(max(0.0, due - self.time()), self.LONGEST_POLL)
        else:
            timeout = None
        events = self.selector.select(timeout)
        self._polling = False
        for key, mask in events:
            key.data(mask)
        for _ in range(len(self._posted)):  # not those that come meanwhile: a thread may post without end
            self._call(self._posted.popleft())

    def _call(self, action: Action) -> None:
        try:
            action()
        except Exception as error:
            self._fail(error)

    def _step_batch(self) -> None:
        batch, self.ready = self.ready, []
        ready = self.ready
        for task in batch:
            self.current = task
            try:
                if task.error is None:
                    value = task.value
                    if value is not None:
                        task.value = None
                        if isinstance(value, Delivery):
                            value = value.accept(task.generator)
                    request = task.context.run(task.send, value)
                else:
                    request = task.context.run(task.generator.throw, task.take_error())
            except StopIteration as stop:
                task.finish(stop.value)
                continue
            except BaseException as error:
                self._failed(task, error)
                continue
            if task.cancelled:
                self._insist(task)
                continue
            if request is CHECKPOINT:
                ready.append(task)
                continue
            task.request = request
            try:
                request.submit(task)
            except Exception as error:
                task.fail(error if isinstance(request, Request) else not_a_request(request, task))
        # The traceback of a task that failed leads to this frame (`f_back`): it must not lead on from here.
        batch.clear()
        self.current = task = request = value = None  # type: ignore[assignment]

    def _insist(self, task: Task[Any]) -> None:
        """A task waits for something although it is cancelled: raise it again; say so if it never listens."""
        task.insisted += 1
        if task.insisted == DEAF:
            logger.warning("%s", swallows_cancelled(task, DEAF))
        task.fail(Cancelled(f"task {task.name!r} is being cancelled"))

    def _failed(self, task: Task[Any], error: BaseException) -> None:
        rest = without_cancelled(error)
        if rest is None:
            error = Cancelled(f"task {task.name!r} was cancelled")  # without a traceback, which holds all the task had
        else:
            error = rest.with_traceback(user_frames(error.__traceback__))
            note_task(error, task)
        task.finish(Failure(error))

    # --- The loop as parent of main and background tasks ----------------------

    def spawn(self, generator: Coro[T], name: str | None = None) -> Task[T]:
        task = Task(generator, self, self, None, name)
        self.tasks[task] = self.now
        self.ready.append(task)
        if self.main is not None and self.main.done:
            task.cancel()  # as those that were there when it ended
        return task

    def task_done(self, task: Task[Any]) -> None:
        del self.tasks[task]
        if task is self.main:
            for other in tuple(self.tasks):
                other.cancel()
        elif task.exception is not None and not isinstance(task.exception, Cancelled):
            self._fail(task.exception)

    def _fail(self, error: BaseException) -> None:
        """What belongs to no group has failed: end the run."""
        self._failures.append(error)
        if self.main is not None:
            self.main.cancel()

    def adopt(self, tasks: dict[Task[Any], float]) -> None:
        """Wait for tasks whose group was broken off, before the run ends."""
        for task in tasks:
            task.parent = self
        self.tasks.update(tasks)

    def _result(self, main: Task[T]) -> T:
        failures = self._failures
        cancelled = isinstance(main.exception, Cancelled)
        if main.exception is not None and not cancelled and main.exception not in failures:
            failures = [main.exception, *failures]
        if len(failures) > 1:
            raise BaseExceptionGroup("several tasks failed", failures)
        if failures:
            raise failures[0]
        if self._interrupted:
            raise KeyboardInterrupt
        if cancelled:
            raise TaskCancelled("the main task was cancelled")
        return main.result()

    def call_at(self, when: float, action: Action) -> Timer:
        """Call `action` in the loop's thread when its clock shows `when` (seconds). It must not block or raise."""
        return self.timers.add(when, action)

    # --- Threads and signals -----------------------------------------------------

    def post(self, action: Action) -> None:
        """Have `action` called in the loop's thread, soon. The one call for other threads and signal handlers."""
        self._posted.append(action)
        if self._polling:
            with suppress(OSError):  # full: a wake-up is under way; closed: the loop has ended
                self._wake_sender.send(b"\0")

    def _on_wake(self, mask: int) -> None:
        with suppress(BlockingIOError):
            self._wake_receiver.recv(4096)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """First Ctrl-C: cancel the main task, at a request of its own. A second one interrupts whatever runs."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._interrupted = True
        if self.main is not None:
            self.post(self.main.cancel)

    def _installed(self) -> ExitStack:
        """Make this the thread's loop, and take Ctrl-C, until the stack is closed."""
        stack = ExitStack()
        stack.callback(self._close)
        running.loop = self
        if threading.current_thread() is threading.main_thread():
            previous_fd = signal.set_wakeup_fd(self._wake_sender.fileno(), warn_on_full_buffer=False)
            stack.callback(signal.set_wakeup_fd, previous_fd)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, self._interrupt)
                stack.callback(self._leave_signals)
        return stack

    def _leave_signals(self) -> None:
        if signal.getsignal(signal.SIGINT) == self._interrupt:  # else the program has set one of its own meanwhile
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _close(self) -> None:
        running.loop = None
        for key in tuple(self.selector.get_map().values()):
            key.data(0)  # nothing will be reported any more
        self.selector.close()
        self._wake_receiver.close()
        self._wake_sender.close()


def run(main: Coro[T], *, clock: Callable[[], float] = time.monotonic) -> T:
    """Run `main` in a new loop, in this thread, until it ends; its result. The one door in.

    Raises what `main` raised. Ctrl-C cancels the main task and, when it has cleaned up, raises KeyboardInterrupt.
    """
    check_fresh(main, "coro.run")
    try:
        return Loop(clock=clock).run(main)
    except BaseException as error:
        error.__traceback__ = user_frames(error.__traceback__)
        raise
