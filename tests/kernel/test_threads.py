"""Calls in threads: results, limits, cancellation, worker threads (coro/threads.py)."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import pytest

import coro
from coro import Cancelled, Coro, Limiter, TaskCancelled, TaskGroup, to_thread
from coro.threads import _Workers, default_limiter, to_thread_abandonable
from tests.kernel.support import PATIENCE, python, run_tidy


class Gate:
    """A call that blocks its thread until the gate is opened."""

    def __init__(self) -> None:
        self._begun = threading.Semaphore(0)
        self._open = threading.Event()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def call(self, value: Any = None) -> Any:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self._begun.release()
        assert self._open.wait(PATIENCE)
        with self._lock:
            self.running -= 1
        return value

    def open(self) -> None:
        self._open.set()

    def begun(self) -> Coro[None]:
        """Wait until one more call has begun."""
        while not self._begun.acquire(blocking=False):
            yield from coro.checkpoint()


def test_call_runs_in_another_thread_and_its_result_comes_back() -> Coro[None]:
    def call(a: int, *, b: int) -> tuple[int, bool]:
        return a + b, threading.current_thread() is threading.main_thread()

    assert (yield from to_thread(call, 3, b=4)) == (7, False)


@pytest.mark.parametrize("value", [None, 0, False, ""], ids=repr)
def test_falsy_results_come_back_as_they_are(value: object) -> Coro[None]:
    assert (yield from to_thread(lambda: value)) is value


def test_error_of_the_call_is_raised_in_the_task() -> Coro[None]:
    with pytest.raises(ZeroDivisionError):
        yield from to_thread(lambda: 1 / 0)


def test_stop_iteration_of_the_call_does_not_end_the_task() -> Coro[None]:
    with pytest.raises(RuntimeError, match="StopIteration"):
        yield from to_thread(next, iter(()))


def test_call_sees_the_contextvars_of_its_caller_and_cannot_change_them() -> Coro[None]:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("the caller's")

    def call() -> str:
        seen = variable.get()
        variable.set("the call's")
        return seen

    assert (yield from to_thread(call)) == "the caller's"
    assert variable.get() == "the caller's"


def test_loop_runs_on_while_a_call_blocks() -> Coro[None]:
    gate = Gate()

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(to_thread(gate.call, "value"))
        yield from gate.begun()
        for _ in range(10):
            yield from coro.checkpoint()
        gate.open()
        assert (yield from task.join()) == "value"

    yield from coro.task_group(body)


# --- Limits --------------------------------------------------------------------------------------------


def test_no_more_calls_run_at_once_than_the_limiter_allows() -> None:
    gate = Gate()
    limiter = Limiter(3)

    def body(group: TaskGroup) -> Coro[None]:
        for _ in range(8):
            group.spawn(to_thread_abandonable(limiter, gate.call))
        for _ in range(3):
            yield from gate.begun()
        assert limiter.free == 0
        gate.open()

    def main() -> Coro[None]:
        yield from coro.task_group(body)
        assert (gate.most, gate.running, limiter.free) == (3, 0, 3)

    run_tidy(main())


def test_stuck_calls_of_one_kind_do_not_hold_up_another() -> Coro[None]:
    gate = Gate()

    def body(group: TaskGroup) -> Coro[None]:
        limiter = default_limiter("look-ups", 1)
        assert default_limiter("look-ups") is limiter
        stuck = [group.spawn(to_thread_abandonable(limiter, gate.call)) for _ in range(2)]
        yield from gate.begun()
        assert (yield from to_thread(len, "disk")) == 4
        gate.open()
        for task in stuck:
            yield from task.join()

    yield from coro.task_group(body)


# --- Cancellation -----------------------------------------------------------------------------------------


def test_cancelled_caller_waits_for_the_end_of_its_call() -> None:
    gate = Gate()

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(to_thread(gate.call, "value"))
        yield from gate.begun()
        task.cancel()
        for _ in range(10):
            yield from coro.checkpoint()
        assert not task.done
        gate.open()
        assert (yield from task.join()) == "value"

    run_tidy(coro.task_group(body))


def test_caller_that_is_cancelled_before_its_call_begins_calls_nothing() -> None:
    def main() -> Coro[None]:
        with coro.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(Cancelled):
                yield from to_thread(pytest.fail, "was called")
        assert default_limiter("threads").free == 16

    run_tidy(main())


def test_caller_that_is_cancelled_while_it_waits_for_a_thread_calls_nothing() -> None:
    gate = Gate()

    def body(group: TaskGroup) -> Coro[None]:
        default_limiter("threads", 1)
        busy = group.spawn(to_thread(gate.call))
        yield from gate.begun()
        waiting = group.spawn(to_thread(pytest.fail, "was called"))
        yield from coro.checkpoint()
        waiting.cancel()
        with pytest.raises(TaskCancelled):
            yield from waiting.join()
        gate.open()
        yield from busy.join()
        assert default_limiter("threads").free == 1

    run_tidy(coro.task_group(body))


def test_caller_of_an_abandonable_call_leaves_at_once_and_the_permit_comes_back_later() -> None:
    gate = Gate()
    limiter = Limiter(1)

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(to_thread_abandonable(limiter, gate.call))
        yield from gate.begun()
        task.cancel()
        with pytest.raises(TaskCancelled):
            yield from task.join()
        assert (limiter.free, gate.running) == (0, 1)
        following = group.spawn(to_thread_abandonable(limiter, len, "next"))
        yield from coro.checkpoint()
        gate.open()
        assert (yield from following.join()) == 4
        assert limiter.free == 1

    run_tidy(coro.task_group(body))


def test_abandonable_call_that_is_cancelled_before_it_begins_gives_its_permit_back() -> None:
    limiter = Limiter(1)

    def main() -> Coro[None]:
        with coro.CancelScope() as scope:
            scope.cancel()
            yield from to_thread_abandonable(limiter, pytest.fail, "was called")
        assert scope.cancelled_caught
        assert limiter.free == 1

    run_tidy(main())


# --- Worker threads -------------------------------------------------------------------------------------------


@pytest.fixture
def own_workers(monkeypatch: pytest.MonkeyPatch) -> _Workers:
    """No worker threads but those that the test starts."""
    workers = _Workers()
    monkeypatch.setattr("coro.threads._workers", workers)
    return workers


def test_idle_worker_takes_the_next_call(own_workers: _Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coro.threads.IDLE_SECONDS", PATIENCE)

    def main() -> Coro[None]:
        first = yield from to_thread(threading.get_ident)
        while not own_workers._idle:
            yield from coro.checkpoint()
        assert (yield from to_thread(threading.get_ident)) == first

    coro.run(main())


def test_worker_that_has_nothing_to_do_ends(own_workers: _Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coro.threads.IDLE_SECONDS", 0.001)

    def main() -> Coro[None]:
        worker = yield from to_thread(threading.current_thread)
        while worker.is_alive():
            yield from coro.checkpoint()
        assert own_workers._idle == 0
        assert (yield from to_thread(len, "again")) == 5

    coro.run(main())


def test_call_that_no_thread_can_be_started_for_fails_and_returns_its_permit(
    own_workers: _Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot_start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def main() -> Coro[None]:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", cannot_start)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                yield from to_thread(pytest.fail, "was called")
        assert default_limiter("threads").free == 16
        assert (yield from to_thread(len, "again")) == 5

    run_tidy(main())


def test_forked_process_starts_threads_of_its_own() -> None:
    script = """
import coro, os, time
from coro.threads import _workers
coro.threads.IDLE_SECONDS = 1000
coro.run(coro.to_thread(len, "parent"))
while not _workers._idle:
    time.sleep(0)  # the parent's worker is about to wait for another call
pid = os.fork()
if not pid:
    print(coro.run(coro.to_thread(len, "child")), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""
    done = python(script)
    assert done.stdout == "5\n"


def test_interpreter_exits_although_an_abandoned_call_is_stuck() -> None:
    script = """
import coro, threading
from coro.threads import to_thread_abandonable
def main():
    with coro.move_on_after(0.01):
        yield from to_thread_abandonable(coro.Limiter(1), threading.Event().wait)
    print("done")
coro.run(main())
"""
    done = python(script)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


@pytest.mark.parametrize("calls", [1, 10, 100])
def test_bursts_of_calls_all_come_back(calls: int) -> None:
    def main() -> Coro[None]:
        for _ in range(3):
            works = [to_thread(pow, number, 2) for number in range(calls)]
            assert (yield from coro.gather(*works)) == [number * number for number in range(calls)]

    run_tidy(main())
