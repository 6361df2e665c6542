"""Blocking calls in threads, so that the loop's own thread never blocks.

`to_thread` borrows a worker thread, runs the call there and brings back its result. A `Limiter` bounds how many
calls of one kind run at once; a permit comes back when the call has really ended, also if its caller was cancelled
meanwhile. Workers are daemon threads: a stuck look-up cannot keep the interpreter from exiting.

`from_thread` is the way back: the task that waits for the call runs a generator function for it, with the task's own
scopes, and then waits on. So what a call does in the loop is cancelled with its caller, and cannot outlive it.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from functools import partial
from types import GeneratorType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from coro.errors import Cancelled
from coro.sync import Semaphore
from coro.task import CancelScope, Coro, Request, Task, current_task, running
from coro.timing import checkpoint

if TYPE_CHECKING:
    from coro.loop import Loop

T = TypeVar("T")
P = ParamSpec("P")

DEFAULT_THREADS = 16  # calls at once, for each run and limiter that is not given another number
IDLE_SECONDS = 10.0  # after which a worker without work ends
LOOP_CHECK = 1.0  # seconds after which a thread that waits for the loop looks whether it is still there


class Limiter(Semaphore):
    """How many calls of one kind may run in threads at once. `to_thread` uses the one that every run has."""

    _what = "a free thread"

    def __init__(self, threads: int = DEFAULT_THREADS) -> None:
        super().__init__(threads)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Coro[T]:
        """`to_thread` under this limiter. Suspends. Raises what the call raises."""
        if current_task().cancelled:
            yield from checkpoint()  # raises `Cancelled`, which the shield below would keep out
        yield from self.acquire()
        call = _call(self, function, args, kwargs)
        while True:
            with CancelScope(shielded=True):
                result = yield call
            if not isinstance(result, _Callback):
                value: T = result
                return value
            yield from result.perform(call)


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


class _Here(threading.local):
    call: _ThreadCall | None = None


_here = _Here()  # the call that this worker thread performs


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
        if self.submitted:  # waiting again, after a callback
            return
        self._loop: Loop = task.loop
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
        _here.call = self
        try:
            self._result = self._context.run(self._function, *self._arguments)
        except BaseException as error:
            self._error = error
        _here.call = None
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

    def call_back(self, callback: _Callback) -> None:
        """In the worker thread: have the caller perform `callback`, return when it has."""
        self._loop.post(lambda: self._pass_on(callback))
        while not callback.done.wait(LOOP_CHECK) and not self._loop_ended():
            pass
        if not callback.done.is_set():
            raise RuntimeError(f"from_thread({callback.name}): the run that this thread works for has ended")

    def _loop_ended(self) -> bool:
        """Threads are not told. It ends before its calls only if it is broken off or they were left alone."""
        return self._loop.selector.get_map() is None  # closed

    def _pass_on(self, callback: _Callback) -> None:
        """In the loop's thread: the call wants something of its caller."""
        task, self._task = self._task, None
        if task is None:
            callback.fail(Cancelled("the task that waited for this thread was cancelled and has gone"))
            return
        self._loop.calls -= 1  # until the thread has its answer, it waits for us
        task.wake(callback)

    def go_on(self) -> None:
        """In the loop's thread: the call is about to have its answer."""
        self._loop.calls += 1

    @property
    def holds(self) -> Request:
        """The permits of which it has one: see coro/debug/waits.py."""
        return self._limiter._permits

    def __repr__(self) -> str:
        function = self._function
        name = getattr(function, "__qualname__", repr(function))
        # What the system is asked for may be told; what else a program calls may be given a password.
        if getattr(function, "__module__", "") in ("socket", "posix", "io", "_io") and self._arguments:
            return f"thread: {name} {self._arguments[0]}"
        return f"thread: {name}"


class _Callback:
    """What a call in a thread wants its caller to run: made in the thread, performed in the loop."""

    def __init__(self, name: str, make: Callable[[], Coro[Any]]) -> None:
        self.name = name
        self._make = make
        self._result: Any = None
        self._error: BaseException | None = None
        self.done = threading.Event()

    def perform(self, call: _ThreadCall) -> Coro[None]:
        """In the caller's task. All that goes wrong, cancellation too, is for the thread to know."""
        try:
            generator = self._make()
            if not isinstance(generator, GeneratorType):
                raise TypeError(f"from_thread({self.name}) returned {generator!r}: it takes a generator function")
            self._result = yield from generator
        except GeneratorExit:
            self._error = Cancelled("the task that waited for this thread was broken off")
            raise
        except BaseException as error:
            self._error = error
        finally:
            call.go_on()
            self.done.set()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self.done.set()

    def result(self) -> Any:
        """In the thread: what came of it."""
        if self._error is None:
            return self._result
        try:
            raise self._error
        finally:
            self._error = None  # else it would be its own traceback's, in a cycle


def to_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Coro[T]:
    """Call `function` in a worker thread; its result. Suspends. Raises what the call raises.

    A call that has begun is waited for even when the caller is cancelled: it may be using the caller's data.
    To keep a kind of call apart from the others, make a `Limiter` for it: `yield from limiter.run(function, ...)`.
    """
    return (yield from default_limiter("threads").run(function, *args, **kwargs))


def from_thread(function: Callable[P, Coro[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """In a call made by `to_thread`: have the calling task run `function(...)`; its result. Blocks the thread.

    `function` is a generator function. Raises what it raises; `Cancelled` (let it pass) when the caller is cancelled.
    RuntimeError in any other thread, above all in the loop's own, or when the run has ended.
    """
    name = getattr(function, "__qualname__", repr(function))
    if running.loop is not None:
        raise RuntimeError(f"from_thread({name}) was called in the loop's own thread: write `yield from {name}(...)`")
    call = _here.call
    if call is None:
        raise RuntimeError(f"from_thread({name}) was called in a thread that `to_thread` did not start")
    callback = _Callback(name, partial(function, *args, **kwargs))
    call.call_back(callback)
    value: T = callback.result()
    return value


def to_thread_abandonable(limiter: Limiter, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Coro[T]:
    """As `to_thread`, under a limiter of its own, but a cancelled caller goes on at once and the call is left alone.

    Only for calls that touch nothing of the caller's, such as a look-up in the DNS.
    """
    yield from limiter.acquire()
    call = _call(limiter, function, args, kwargs)
    try:
        while isinstance(result := (yield call), _Callback):
            yield from result.perform(call)
    except BaseException:
        if not call.submitted:  # cancelled before it could begin
            limiter.release()
        raise
    value: T = result
    return value


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
