"""Blocking calls in threads, so that the loop's own thread never blocks.

`to_thread` borrows a worker thread, runs the call there and brings back its result. A `Limiter` bounds how many
calls of one kind run at once; a permit comes back when the call has really ended, also if its caller was cancelled
meanwhile. Workers are daemon threads: a stuck look-up cannot keep the interpreter from exiting.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from coro.sync import Semaphore
from coro.task import CancelScope, Coro, Request, Task, current_task
from coro.timing import checkpoint

T = TypeVar("T")
P = ParamSpec("P")

DEFAULT_THREADS = 16  # calls at once, for each run and limiter that is not given another number
IDLE_SECONDS = 10.0  # after which a worker without work ends


class Limiter(Semaphore):
    """How many calls of one kind may run in threads at once."""

    _what = "a free thread"

    def __init__(self, threads: int = DEFAULT_THREADS) -> None:
        super().__init__(threads)


class _Workers:
    """The process's worker threads: started as needed, ended when idle. The limiters bound their number."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)  # the threads stay with the parent

    def _reset(self) -> None:
        self._calls: queue.SimpleQueue[_ThreadCall] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0  # workers that wait for a call, less the calls that wait for a worker

    def submit(self, call: _ThreadCall) -> None:
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:  # RuntimeError when the system allows no more threads
                threading.Thread(target=self._work, name="coro-worker", daemon=True).start()
        self._calls.put(call)

    def _work(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._idle:  # else a call was just submitted in the belief that we would take it
                        self._idle -= 1
                        return
                continue
            call.perform()
            del call
            with self._lock:
                self._idle += 1


_workers = _Workers()


class _ThreadCall(Request):
    """Wait for a call in a worker thread."""

    __slots__ = ("_arguments", "_context", "_error", "_function", "_limiter", "_loop", "_result", "_task", "submitted")

    def __init__(self, limiter: Limiter, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._limiter = limiter
        self._function = function
        self._arguments = arguments
        self._error: BaseException | None = None
        self._result: Any = None
        self.submitted = False

    def submit(self, task: Task[Any]) -> None:
        self._task: Task[Any] | None = task
        self._loop = task.loop
        self._context = task.context.copy()
        self.submitted = True
        try:
            _workers.submit(self)
        except BaseException:
            self._limiter.release()
            raise
        self._loop.calls += 1

    def withdraw(self, task: Task[Any]) -> None:
        self._task = None  # the call goes on; nobody wants its result

    def perform(self) -> None:
        """In the worker thread: make the call, tell the loop."""
        try:
            self._result = self._context.run(self._function, *self._arguments)
        except BaseException as error:
            self._error = error
        self._loop.post(self._deliver)

    def _deliver(self) -> None:
        """In the loop's thread: give the permit back, wake the caller if it still waits."""
        self._loop.calls -= 1
        self._limiter.release()
        if self._task is None:
            return
        if self._error is None:
            self._task.wake(self._result)
        else:
            error, self._error = self._error, None
            self._task.fail(error)

    def __repr__(self) -> str:
        return f"thread: {getattr(self._function, '__qualname__', repr(self._function))}"


def to_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Coro[T]:
    """Call `function` in a worker thread; its result. Suspends. Raises what the call raises.

    A call that has begun is waited for even when the caller is cancelled: it may be using the caller's data.
    """
    if current_task().cancelled:
        yield from checkpoint()  # raises `Cancelled`, which the shield below would keep out
    limiter = default_limiter("threads")
    yield from limiter.acquire()
    with CancelScope(shielded=True):
        result: T = yield _call(limiter, function, args, kwargs)
    return result


def to_thread_abandonable(limiter: Limiter, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Coro[T]:
    """As `to_thread`, under a limiter of its own, but a cancelled caller goes on at once and the call is left alone.

    Only for calls that touch nothing of the caller's, such as a look-up in the DNS.
    """
    yield from limiter.acquire()
    call = _call(limiter, function, args, kwargs)
    try:
        result: T = yield call
    except BaseException:
        if not call.submitted:  # cancelled before it could begin
            limiter.release()
        raise
    return result


def default_limiter(kind: str, threads: int = DEFAULT_THREADS) -> Limiter:
    """This run's limiter for one kind of call, so that a stuck kind cannot starve another. Does not suspend."""
    limiters: dict[str, Limiter] = current_task().loop.locals.setdefault(Limiter, {})
    if kind not in limiters:
        limiters[kind] = Limiter(threads)
    return limiters[kind]


def _call(
    limiter: Limiter, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> _ThreadCall:
    if kwargs:
        return _ThreadCall(limiter, lambda: function(*args, **kwargs), ())
    return _ThreadCall(limiter, function, args)
