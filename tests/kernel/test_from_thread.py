"""Calls in threads that call back into the loop, limiters of one's own, and the end of programs (coro/threads.py)."""

from __future__ import annotations

import contextvars
import gc
import queue
import signal
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import coro
from coro import Cancelled, Coro, Limiter, Loop, TaskCancelled, TaskGroup, from_thread, to_thread
from coro.threads import default_limiter, to_thread_abandonable
from tests.kernel.support import PATIENCE, BrokenOff, python, run_tidy, start_python


def double(value: int) -> Coro[int]:
    yield from coro.checkpoint()
    return 2 * value


def fails() -> Coro[None]:
    yield from coro.checkpoint()
    raise LookupError("in the loop")


def in_own_thread(function: Callable[[], Any]) -> Any:
    """Call `function` in a thread that coro does not know; its result or error."""
    outcomes: list[Any] = []

    def call() -> None:
        try:
            outcomes.append(function())
        except BaseException as error:
            outcomes.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return outcomes[0]


# --- Results and errors --------------------------------------------------------------------------------


def test_thread_gets_the_result_of_what_ran_in_the_loop() -> None:
    def call() -> int:
        return from_thread(double, 3) + from_thread(double, value=4)

    def main() -> Coro[None]:
        assert (yield from to_thread(call)) == 14

    run_tidy(main())


def test_thread_gets_the_error_and_may_handle_it() -> None:
    def call() -> str:
        with pytest.raises(LookupError, match="in the loop"):
            from_thread(fails)
        return "handled"

    def main() -> Coro[None]:
        assert (yield from to_thread(call)) == "handled"

    run_tidy(main())


def test_error_that_the_thread_does_not_handle_reaches_the_caller() -> None:
    def main() -> Coro[None]:
        with pytest.raises(LookupError, match="in the loop"):
            yield from to_thread(from_thread, fails)

    run_tidy(main())


def test_error_that_was_handled_leaves_no_garbage() -> None:
    class Error(Exception):
        pass

    def fails() -> Coro[None]:
        yield from coro.checkpoint()
        raise Error

    def call() -> weakref.ref[Error]:
        try:
            from_thread(fails)
        except Error as error:
            return weakref.ref(error)
        raise AssertionError

    def main() -> Coro[None]:
        gc.disable()
        try:
            error = yield from to_thread(call)
            assert error() is None
        finally:
            gc.enable()

    run_tidy(main())


def test_it_runs_in_the_calling_task_with_its_contextvars() -> Coro[None]:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("the task's")

    def look() -> Coro[tuple[object, str, threading.Thread]]:
        yield from coro.checkpoint()
        return coro.current_task(), variable.get(), threading.current_thread()

    def call() -> tuple[object, str, threading.Thread]:
        variable.set("the call's")
        return from_thread(look)

    seen = yield from to_thread(call)
    assert seen == (coro.current_task(), "the task's", threading.current_thread())


def test_it_may_call_threads_that_call_back_in_turn() -> None:
    def further(depth: int) -> Coro[int]:
        return (yield from to_thread(call, depth))

    def call(depth: int) -> int:
        return 1 + from_thread(further, depth - 1) if depth else 0

    def main() -> Coro[None]:
        assert (yield from to_thread(call, 5)) == 5

    run_tidy(main())


def test_threads_of_many_tasks_call_back_at_once() -> None:
    def main() -> Coro[None]:
        calls = (to_thread(from_thread, double, number) for number in range(50))
        assert (yield from coro.gather(*calls)) == [2 * number for number in range(50)]

    run_tidy(main())


def test_time_stands_still_while_the_thread_waits_for_a_task_that_can_run() -> None:
    def main() -> Coro[None]:
        yield from to_thread(from_thread, coro.sleep, 1000)
        assert coro.now() >= 1000  # of virtual time: the thread was not taken for one that can wake the loop

    run_tidy(main())


def test_what_is_not_a_generator_function_is_refused() -> Coro[None]:
    event = coro.Event()
    with pytest.raises(TypeError, match=r"from_thread\(Event.set\) returned None: it takes a generator function"):
        yield from to_thread(from_thread, event.set)  # type: ignore[arg-type]


# --- Cancellation --------------------------------------------------------------------------------------


def test_cancelled_caller_ends_what_runs_for_the_thread_and_then_the_thread() -> None:
    log: list[str] = []

    def work() -> Coro[None]:
        try:
            yield from coro.sleep_forever()
        finally:
            log.append("loop")

    def call() -> None:
        try:
            from_thread(work)
        finally:
            log.append("thread")

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(to_thread(call))
        while not isinstance(task.request, coro.timing.Forever):
            yield from coro.checkpoint()
        task.cancel()
        with pytest.raises(TaskCancelled):
            yield from task.join()
        assert log == ["loop", "thread"]
        assert default_limiter("threads").free == 16

    run_tidy(coro.task_group(body))


def test_thread_of_a_caller_that_was_cancelled_before_is_cancelled_where_it_would_wait() -> None:
    begun, cancelled = threading.Event(), threading.Event()

    def at_once() -> Coro[str]:
        yield from ()
        return "did not wait"

    def call() -> str:
        begun.set()
        assert cancelled.wait(PATIENCE)
        value = from_thread(at_once)
        with pytest.raises(Cancelled):
            from_thread(coro.sleep, 1000)
        with pytest.raises(Cancelled):
            from_thread(coro.sleep, 1000)  # again and again
        return value

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(to_thread(call))
        while not begun.is_set():
            yield from coro.checkpoint()
        task.cancel()
        cancelled.set()
        assert (yield from task.join()) == "did not wait"
        assert coro.now() < 1000

    run_tidy(coro.task_group(body))


def test_time_limit_of_the_caller_holds_for_what_runs_for_its_thread() -> None:
    def main() -> Coro[None]:
        with pytest.raises(TimeoutError), coro.timeout(10):
            yield from to_thread(from_thread, coro.sleep, 1000)

    run_tidy(main())


def test_thread_whose_caller_has_gone_is_told_that_it_was_cancelled() -> None:
    gate, outcome = threading.Event(), queue.SimpleQueue[BaseException]()
    limiter = Limiter(1)

    def call() -> None:
        assert gate.wait(PATIENCE)
        try:
            from_thread(double, 3)
        except BaseException as error:
            outcome.put(error)
            raise

    def main() -> Coro[None]:
        with coro.move_on_after(0.01):
            yield from to_thread_abandonable(limiter, call)
        gate.set()
        yield from limiter.acquire()  # when the call has ended
        error = outcome.get_nowait()
        assert isinstance(error, Cancelled) and "has gone" in str(error)

    run_tidy(main())


def test_abandonable_call_that_is_abandoned_while_it_waits_for_the_loop_is_cancelled() -> None:
    outcome = queue.SimpleQueue[str]()
    limiter = Limiter(1)

    def call() -> None:
        try:
            from_thread(coro.sleep_forever)
        except Cancelled:
            outcome.put("cancelled")

    def main() -> Coro[None]:
        with coro.move_on_after(1) as scope:
            yield from to_thread_abandonable(limiter, call)
        assert scope.cancelled_caught
        yield from limiter.acquire()
        assert outcome.get_nowait() == "cancelled"

    run_tidy(main())


def test_abandonable_call_may_call_back() -> None:
    def main() -> Coro[None]:
        assert (yield from to_thread_abandonable(Limiter(1), from_thread, double, 3)) == 6

    run_tidy(main())


# --- Where it cannot be called -----------------------------------------------------------------------------


def test_loop_thread_is_told_to_delegate_instead() -> Coro[None]:
    with pytest.raises(RuntimeError, match=r"loop's own thread: write `yield from double\(\.\.\.\)`"):
        from_thread(double, 3)
    yield from ()


def test_thread_that_to_thread_did_not_start_is_refused() -> Coro[None]:
    with pytest.raises(RuntimeError, match="a thread that `to_thread` did not start"):
        raise in_own_thread(lambda: from_thread(double, 3))
    with pytest.raises(RuntimeError, match="a thread that `to_thread` did not start"):
        raise (yield from to_thread(in_own_thread, lambda: from_thread(double, 3)))


def test_worker_thread_forgets_its_call_when_that_has_ended() -> None:
    here: list[Any] = []

    def main() -> Coro[None]:
        yield from to_thread(lambda: here.append(coro.threads._here.__dict__))

    coro.run(main())
    while here[0]["call"] is not None:
        pass


def test_call_that_was_left_alone_is_told_when_the_run_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coro.threads.LOOP_CHECK", 0.001)
    gate, outcome = threading.Event(), queue.SimpleQueue[BaseException]()

    def call() -> None:
        assert gate.wait(PATIENCE)
        try:
            from_thread(double, 3)
        except BaseException as error:
            outcome.put(error)

    def main() -> Coro[None]:
        with coro.move_on_after(0.01):
            yield from to_thread_abandonable(Limiter(1), call)

    coro.run(main())
    gate.set()
    with pytest.raises(RuntimeError, match=r"from_thread\(double\): the run that this thread works for has ended"):
        raise outcome.get(timeout=PATIENCE)


def test_thread_that_waits_for_the_loop_is_told_when_the_run_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coro.threads.LOOP_CHECK", 0.001)
    outcome = queue.SimpleQueue[BaseException]()

    def call() -> None:
        try:
            from_thread(coro.sleep_forever)
        except BaseException as error:
            outcome.put(error)

    def break_off() -> None:
        raise BrokenOff

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(to_thread(call))
        while not isinstance(task.request, coro.timing.Forever):
            yield from coro.checkpoint()
        loop.post(break_off)
        yield from coro.sleep_forever()

    loop = Loop()
    with pytest.raises(BrokenOff):
        loop.run(coro.task_group(body))
    with pytest.raises(RuntimeError, match=r"from_thread\(sleep_forever\): the run .* has ended"):
        raise outcome.get(timeout=PATIENCE)


def test_thread_is_cancelled_when_the_task_of_a_run_that_broke_off_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coro.threads.LOOP_CHECK", 1000.0)  # else it may find first that the run has ended
    outcome = queue.SimpleQueue[BaseException]()

    def break_off() -> None:
        raise BrokenOff

    def work() -> Coro[None]:
        loop.post(break_off)
        yield from coro.sleep_forever()

    def call() -> None:
        try:
            from_thread(work)
        except BaseException as error:
            outcome.put(error)

    loop = Loop()
    main = to_thread(call)
    with pytest.raises(BrokenOff):
        loop.run(main)
    main.close()  # as the garbage collector will
    with pytest.raises(Cancelled, match="was broken off"):
        raise outcome.get(timeout=PATIENCE)


# --- Limiters ----------------------------------------------------------------------------------------------


def test_limiter_of_ones_own_is_used_instead_of_the_runs() -> None:
    limiter = Limiter(1)

    def free() -> Coro[tuple[int, int]]:
        yield from coro.checkpoint()
        return limiter.free, default_limiter("threads").free

    def main() -> Coro[None]:
        assert (yield from limiter.run(from_thread, free)) == (0, 16)
        assert (yield from to_thread(from_thread, free)) == (1, 15)
        assert (limiter.free, default_limiter("threads").free) == (1, 16)

    run_tidy(main())


# --- The end of the program -----------------------------------------------------------------------------------


def test_interpreter_exits_although_a_look_up_is_stuck() -> None:
    script = """
import coro, socket, threading
def stuck(*arguments, flags=0, **others):
    if flags:  # is it an address already?
        raise socket.gaierror
    threading.Event().wait()
socket.getaddrinfo = stuck
def main():
    with coro.timeout(0.01):
        yield from coro.connect("example.org", 80)
try:
    coro.run(main())
except TimeoutError:
    print("timed out")
"""
    done = python(script)
    assert (done.stdout, done.stderr, done.returncode) == ("timed out\n", "", 0)


def test_second_ctrl_c_ends_a_program_whose_call_is_stuck() -> None:
    process = start_python("""
import coro, threading
def call():
    print("ready")
    try:
        coro.from_thread(coro.sleep_forever)
    finally:
        print("cancelled")
        threading.Event().wait()
coro.run(coro.to_thread(call))
""")
    assert process.stdout is not None
    for expected in "ready\n", "cancelled\n":
        assert process.stdout.readline() == expected
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT
