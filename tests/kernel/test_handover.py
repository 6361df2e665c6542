"""Cancellation loses nothing: what was handed over goes on, and no step leaves anything behind (coro/handover.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import coro
from coro import Coro, Task, TaskGroup
from coro.testing import memory_streams
from tests.kernel.support import TidyLoop, run_tidy

Wait = Callable[[], Coro[Any]]


def queue_item() -> tuple[Wait, Callable[[], object], Callable[[], object]]:
    queue: coro.Queue[str] = coro.Queue()
    return queue.get, lambda: queue.put_nowait("handed over"), lambda: queue.get_nowait() == "handed over"


def semaphore_permit() -> tuple[Wait, Callable[[], object], Callable[[], object]]:
    semaphore = coro.Semaphore(0)
    return semaphore.acquire, semaphore.release, semaphore.acquire_nowait


def thread_permit() -> tuple[Wait, Callable[[], object], Callable[[], object]]:
    limiter = coro.Limiter(1)
    limiter.acquire_nowait()
    called: list[int] = []
    return lambda: limiter.run(called.append, 1), limiter.release, lambda: limiter.acquire_nowait() and not called


def notification() -> tuple[Wait, Callable[[], object], Callable[[], object]]:
    condition = coro.Condition()

    def wait() -> Coro[None]:
        with (yield from condition.acquire()):
            yield from condition.wait()

    def notify() -> None:
        condition._owner = coro.current_task()
        condition._lock.acquire_nowait()
        condition.notify()
        condition._lock.release()

    return wait, notify, lambda: not condition._lock.locked()


kinds = pytest.mark.parametrize("kind", [queue_item, semaphore_permit, thread_permit, notification])
Kind = Callable[[], tuple[Wait, Callable[[], object], Callable[[], object]]]


@kinds
def test_what_was_handed_to_a_task_that_is_cancelled_goes_to_the_next(kind: Kind) -> None:
    outcomes: list[str] = []

    def receiver(name: str, wait: Wait) -> Coro[None]:
        try:
            yield from wait()
            outcomes.append(f"{name} has it")
        except coro.Cancelled:
            outcomes.append(f"{name} was cancelled")
            raise

    def body(group: TaskGroup) -> Coro[None]:
        wait, hand_over, _ = kind()
        first = group.spawn(receiver("first", wait))
        group.spawn(receiver("second", wait))
        yield from coro.sleep(1)
        hand_over()
        first.cancel()
        yield from coro.sleep(1)

    run_tidy(coro.task_group(body))
    assert sorted(outcomes) == ["first was cancelled", "second has it"]


@kinds
def test_what_was_handed_to_a_task_that_is_cancelled_is_free_when_nobody_else_waits(kind: Kind) -> None:
    def body(group: TaskGroup) -> Coro[None]:
        wait, hand_over, is_free = kind()
        task = group.spawn(wait())
        yield from coro.sleep(1)
        hand_over()
        task.cancel()
        with pytest.raises(coro.TaskCancelled):
            yield from task.join()
        assert is_free()

    run_tidy(coro.task_group(body))


def test_what_a_task_has_taken_is_its_own() -> Coro[None]:
    queue: coro.Queue[str] = coro.Queue()
    got: list[str] = []

    def receiver() -> Coro[None]:
        got.append((yield from queue.get()))
        yield from coro.sleep(5)

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(receiver())
        yield from coro.checkpoint()
        queue.put_nowait("item")
        yield from coro.checkpoint()
        task.cancel()

    yield from coro.task_group(body)
    assert got == ["item"]


@pytest.mark.parametrize("turns", range(4))
def test_bytes_that_arrive_as_the_reader_is_cancelled_are_read_by_it_or_by_the_next(turns: int) -> None:
    near, far = memory_streams()

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(far.read())
        yield from coro.sleep(1)
        yield from near.write(b"bytes")
        for _ in range(turns):
            yield from coro.checkpoint()
        task.cancel()
        try:
            data = yield from task.join()
        except coro.TaskCancelled:
            data = yield from far.read()
        assert data == b"bytes"

    run_tidy(coro.task_group(body))


def test_time_limit_that_passes_as_the_item_is_handed_over_leaves_it_to_others() -> None:
    def body(group: TaskGroup) -> Coro[None]:
        queue: coro.Queue[str] = coro.Queue()

        def put() -> Coro[None]:
            yield from coro.sleep(1)
            queue.put_nowait("item")
            scope.cancel()

        with coro.move_on_after(5) as scope:
            group.spawn(put())
            yield from queue.get()
            raise AssertionError("it has the item and is cancelled")
        assert scope.cancelled_caught
        assert queue.get_nowait() == "item"

    run_tidy(coro.task_group(body))


# --- Cancellation at every step ----------------------------------------------------------------


def workload(log: list[str]) -> Coro[None]:
    """Every kind of wait, with cleanup that waits as well."""
    lock, queue, event = coro.Lock(), coro.Queue[int](1), coro.Event()
    near, far = memory_streams(capacity=2)

    def worker(name: str) -> Coro[None]:
        with (yield from lock.acquire()):
            yield from coro.sleep(1)
            yield from queue.put(1)
        yield from event.wait()
        try:
            with coro.timeout(3):
                yield from near.write(b"abcd") if name == "a" else coro.sleep_forever()
        except TimeoutError:
            log.append("timeout")
        finally:
            with coro.shield():
                yield from coro.sleep(1)

    def body(group: TaskGroup) -> Coro[None]:
        tasks = [group.spawn(worker("a")), group.spawn(worker("b"))]
        for _ in tasks:
            yield from queue.get()
        event.set()
        yield from far.read_exactly(4)
        for task in tasks:
            yield from task.join()

    try:
        yield from coro.task_group(body)
    finally:
        assert not lock.locked()
        assert not queue._puts and not queue._gets and not event._waiters
        assert not near.socket.writer and not far.socket.reader
    log.append("done")


@pytest.mark.parametrize("seed", range(5))
def test_cancellation_at_any_turn_leaves_nothing_behind(seed: int) -> None:
    for turn in range(1000):
        log: list[str] = []
        loop = CancellingLoop(seed)

        def body(
            group: TaskGroup, turn: int = turn, log: list[str] = log, loop: CancellingLoop = loop
        ) -> Coro[None]:
            task = group.spawn(workload(log))
            loop.cancel_at(turn, task)
            try:
                yield from task.join()
            except coro.TaskCancelled:
                log.append("cancelled")

        loop.run(coro.task_group(body))
        if log == ["timeout", "done"]:
            assert turn > 10
            return
        assert log in (["cancelled"], ["timeout", "cancelled"]), turn
    raise AssertionError("the workload does not end")


class CancellingLoop(TidyLoop):
    """Cancels a task after a given number of turns."""

    def cancel_at(self, turn: int, task: Task[Any]) -> None:
        self._turn, self._task = turn, task

    def _step_batch(self) -> None:
        super()._step_batch()
        if self._turn == 0:
            self._task.cancel()
        self._turn -= 1
