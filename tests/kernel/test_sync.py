"""Event, Lock, Semaphore, Queue: what they do, in which order, and that cancellation loses nothing (coro/sync.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coro
from coro import ClosedError, Coro, Event, Lock, Queue, Semaphore, Task, TaskCancelled, TaskGroup
from tests.kernel.support import run_tidy


def parked(group: TaskGroup, *works: Coro[Any]) -> Coro[list[Task[Any]]]:
    """Start tasks, and return when each of them waits."""
    tasks = [group.spawn(work) for work in works]
    yield from coro.checkpoint()
    assert all(task.request for task in tasks)
    return tasks


# --- Event --------------------------------------------------------------------------------------


def test_event_wakes_everyone_who_waits() -> Coro[None]:
    event = Event()

    def body(group: TaskGroup) -> Coro[None]:
        tasks = yield from parked(group, event.wait(), event.wait())
        assert not event.is_set()
        event.set()
        for task in tasks:
            yield from task.join()

    yield from coro.task_group(body)


def test_event_that_is_set_is_not_waited_for() -> None:
    event = Event()
    event.set()
    event.set()
    assert event.is_set()
    assert list(event.wait()) == []  # no request is made


# --- Semaphore and Lock -------------------------------------------------------------------------------


def test_semaphore_admits_as_many_as_it_has_permits() -> Coro[None]:
    semaphore = Semaphore(3)
    inside = 0
    most = 0

    def work() -> Coro[None]:
        nonlocal inside, most
        with (yield from semaphore.acquire()):
            inside += 1
            most = max(most, inside)
            yield from coro.sleep(1)
            inside -= 1

    yield from coro.gather(*[work() for _ in range(10)])
    assert (most, semaphore.free, coro.now()) == (3, 3, 4)


def test_permits_are_handed_over_first_come_first_served() -> Coro[None]:
    lock = Lock()
    order: list[int] = []

    def work(number: int) -> Coro[None]:
        for _ in range(2):
            with (yield from lock.acquire()):
                order.append(number)

    def body(group: TaskGroup) -> Coro[None]:
        with (yield from lock.acquire()):
            yield from parked(group, work(1), work(2), work(3))

    yield from coro.task_group(body)
    assert order == [1, 2, 3, 1, 2, 3]  # 1 asks again at once, and is last in the queue


def test_nobody_can_barge_in_between_release_and_hand_over() -> Coro[None]:
    lock = Lock()
    order: list[str] = []

    def waiter() -> Coro[None]:
        with (yield from lock.acquire()):
            order.append("waiter")

    def body(group: TaskGroup) -> Coro[None]:
        with (yield from lock.acquire()):
            yield from parked(group, waiter())
        assert not lock.acquire_nowait()
        with (yield from lock.acquire()):
            order.append("barger")

    yield from coro.task_group(body)
    assert order == ["waiter", "barger"]


def test_waiter_that_is_cancelled_is_passed_over() -> Coro[None]:
    lock = Lock()

    def body(group: TaskGroup) -> Coro[None]:
        with (yield from lock.acquire()):
            first, second = yield from parked(group, lock.acquire(), lock.acquire())
            first.cancel()
        with (yield from second.join()):
            assert lock.locked()
        assert not lock.locked()

    yield from coro.task_group(body)


def test_acquire_nowait_takes_a_free_permit_or_tells_that_there_is_none() -> None:
    semaphore = Semaphore(1)
    assert semaphore.acquire_nowait()
    assert not semaphore.acquire_nowait()
    semaphore.release()
    assert semaphore.free == 1


def test_lock_is_released_when_its_block_fails() -> Coro[None]:
    lock = Lock()
    with pytest.raises(LookupError):
        with (yield from lock.acquire()):
            raise LookupError
    assert not lock.locked()


def test_release_of_a_lock_that_nobody_holds_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="a Lock that is not held"):
        Lock().release()


@pytest.mark.parametrize("lock", [Lock(), Semaphore(1)], ids=["Lock", "Semaphore"])
def test_with_on_the_lock_itself_instead_of_acquire_is_an_error(lock: Any) -> None:
    with pytest.raises(TypeError, match="context manager"):
        with lock:
            pass


def test_semaphore_cannot_have_less_than_no_permits() -> None:
    with pytest.raises(ValueError, match="-1 permits"):
        Semaphore(-1)


# --- Queue ---------------------------------------------------------------------------------------------


def test_queue_passes_items_in_order() -> Coro[None]:
    queue: Queue[int] = Queue()
    for item in range(5):
        yield from queue.put(item)
    assert len(queue) == 5
    for item in range(5):
        assert (yield from queue.get()) == item


def test_falsy_items_pass_as_they_are() -> Coro[None]:
    queue: Queue[object] = Queue()

    def body(group: TaskGroup) -> Coro[None]:
        items: tuple[object, ...] = (None, 0, "", False)
        for item in items:
            (getter,) = yield from parked(group, queue.get())
            queue.put_nowait(item)
            assert (yield from getter.join()) is item

    yield from coro.task_group(body)


def test_getters_are_served_first_come_first_served() -> Coro[None]:
    queue: Queue[int] = Queue()

    def body(group: TaskGroup) -> Coro[None]:
        getters = yield from parked(group, queue.get(), queue.get(), queue.get())
        for item in range(3):
            queue.put_nowait(item)
        for item, getter in enumerate(getters):
            assert (yield from getter.join()) == item

    yield from coro.task_group(body)


@pytest.mark.parametrize("capacity", [0, 1, 3])
def test_full_queue_holds_up_those_who_put(capacity: int) -> Coro[None]:
    queue: Queue[int] = Queue(capacity)
    most = 0

    def producer() -> Coro[None]:
        nonlocal most
        for item in range(20):
            yield from queue.put(item)
            most = max(most, len(queue))

    def body(group: TaskGroup) -> Coro[list[int]]:
        group.spawn(producer())
        got = []
        for _ in range(20):
            yield from coro.sleep(1)
            got.append((yield from queue.get()))
        return got

    assert (yield from coro.task_group(body)) == list(range(20))
    assert most == capacity


def test_get_from_a_full_queue_lets_the_first_of_those_who_put_go_on() -> Coro[None]:
    queue: Queue[str] = Queue(2)

    def body(group: TaskGroup) -> Coro[None]:
        for item in "ab":
            queue.put_nowait(item)
        first, second = yield from parked(group, queue.put("c"), queue.put("d"))
        assert (yield from queue.get()) == "a"
        yield from first.join()
        assert (len(queue), second.done) == (2, False)
        for item in "bcd":
            assert (yield from queue.get()) == item

    yield from coro.task_group(body)


def test_put_nowait_tells_whether_there_was_room() -> None:
    queue: Queue[int] = Queue(1)
    assert queue.put_nowait(1)
    assert not queue.put_nowait(2)
    assert queue.get_nowait() == 1
    with pytest.raises(IndexError, match="empty"):
        queue.get_nowait()


def test_item_of_a_cancelled_put_does_not_get_into_the_queue() -> Coro[None]:
    queue: Queue[str] = Queue(1)

    def body(group: TaskGroup) -> Coro[None]:
        queue.put_nowait("a")
        doomed, other = yield from parked(group, queue.put("b"), queue.put("c"))
        doomed.cancel()
        assert queue.get_nowait() == "a"
        assert queue.get_nowait() == "c"
        yield from other.join()
        assert len(queue) == 0

    yield from coro.task_group(body)


def test_close_ends_waits_with_an_error_for_each_waiter() -> Coro[None]:
    full, empty = Queue[int](0), Queue[int]()

    def expect_closed(work: Coro[Any]) -> Coro[ClosedError]:
        with pytest.raises(ClosedError) as caught:
            yield from work
        return caught.value

    def body(group: TaskGroup) -> Coro[None]:
        tasks = yield from parked(
            group, expect_closed(full.put(1)), expect_closed(full.put(2)),
            expect_closed(empty.get()), expect_closed(empty.get()),
        )  # fmt: skip
        full.close()
        empty.close()
        errors = []
        for task in tasks:
            errors.append((yield from task.join()))
        assert len({id(error) for error in errors}) == 4  # tracebacks of different tasks do not mix

    yield from coro.task_group(body)


def test_closed_queue_gives_out_what_is_left_and_takes_no_more() -> Coro[None]:
    queue: Queue[int] = Queue()
    queue.put_nowait(1)
    queue.close()
    with pytest.raises(ClosedError):
        yield from queue.put(2)
    assert (yield from queue.get()) == 1
    with pytest.raises(ClosedError, match="closed and empty"):
        yield from queue.get()


def test_queue_cannot_have_a_negative_capacity() -> None:
    with pytest.raises(ValueError, match="-1"):
        Queue(-1)


# --- Nothing is lost --------------------------------------------------------------------------------------

# What happens at each second: tasks are cancelled, and the seed orders all that is due in the same turn.
schedules = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5)), max_size=12)
seeds = st.integers(0, 2**32)
unhurried = settings(deadline=None)  # a busy machine is no failure


def cancels(tasks: list[Task[Any]], schedule: list[tuple[int, int]]) -> Coro[None]:
    """Cancel tasks as (seconds from the one before, number of the task)."""
    for seconds, number in schedule:
        yield from coro.sleep(seconds / 4)
        tasks[number % len(tasks)].cancel()


def under(schedule: list[tuple[int, int]], seed: int, *works: Callable[[], Coro[None]]) -> None:
    """Run works as tasks of a group, cancelled by the schedule. Nothing is left in the loop."""

    def body(group: TaskGroup) -> Coro[None]:
        tasks = [group.spawn(work()) for work in works]
        yield from cancels(tasks, schedule)

    run_tidy(coro.task_group(body), seed=seed)


@unhurried
@given(schedule=schedules, seed=seeds, permits=st.integers(1, 3))
def test_no_permit_is_lost_or_made(schedule: list[tuple[int, int]], seed: int, permits: int) -> None:
    semaphore = Semaphore(permits)
    inside = 0

    def work() -> Coro[None]:
        nonlocal inside
        for _ in range(4):
            with (yield from semaphore.acquire()):
                inside += 1
                try:
                    assert inside + semaphore.free <= permits
                    yield from coro.sleep(0.5)
                finally:
                    inside -= 1
            yield from coro.checkpoint()

    under(schedule, seed, *[work] * 5)
    assert semaphore.free == permits
    assert not semaphore._permits


@unhurried
@given(schedule=schedules, seed=seeds, capacity=st.sampled_from([0, 1, 2, None]))
def test_no_item_is_lost_doubled_or_overtaken(schedule: list[tuple[int, int]], seed: int, capacity: int | None) -> None:
    queue: Queue[tuple[int, int]] = Queue(capacity)
    taken: list[tuple[int, int]] = []
    given_up: list[tuple[int, int]] = []

    def producer(number: int) -> Callable[[], Coro[None]]:
        def produce() -> Coro[None]:
            for count in range(4):
                item = number, count
                try:
                    yield from queue.put(item)
                except coro.Cancelled:
                    given_up.append(item)
                    raise
                yield from coro.sleep(0.25)
            produced.append(number)

        return produce

    def consume() -> Coro[None]:
        while True:
            taken.append((yield from queue.get()))
            yield from coro.sleep(0.5)

    produced: list[int] = []

    def main() -> Coro[None]:
        def body(group: TaskGroup) -> Coro[None]:
            tasks = [group.spawn(producer(number)()) for number in range(3)]
            tasks += [group.spawn(consume()) for _ in range(3)]
            yield from cancels(tasks, schedule)
            yield from coro.sleep(20)
            group.cancel()

        yield from coro.task_group(body)

    run_tidy(main(), seed=seed)
    everything = taken + list(queue._items)
    assert len(everything) == len(set(everything))
    assert not set(everything) & set(given_up)
    for number in produced:
        assert {(number, count) for count in range(4)} <= set(everything) | {put.item for put in queue._puts}
    for number in range(3):
        counts = [count for producer_number, count in everything if producer_number == number]
        assert counts == sorted(counts)
    assert not queue._gets and not queue._puts
    assert capacity is None or len(queue) <= capacity


@unhurried
@given(schedule=schedules, seed=seeds)
def test_event_leaves_no_waiter_behind(schedule: list[tuple[int, int]], seed: int) -> None:
    event = Event()

    def setter() -> Coro[None]:
        with coro.shield():
            yield from coro.sleep(2)
        event.set()

    under(schedule, seed, event.wait, event.wait, event.wait, setter)
    assert not event._waiters


@unhurried
@given(schedule=schedules, seed=seeds)
def test_joiners_of_a_task_all_wake_or_leave(schedule: list[tuple[int, int]], seed: int) -> None:
    outcomes: list[str] = []

    def body(group: TaskGroup) -> Coro[None]:
        target = group.spawn(coro.sleep(2))

        def join() -> Coro[None]:
            try:
                yield from target.join()
                outcomes.append("joined")
            except TaskCancelled:
                outcomes.append("target cancelled")
            except coro.Cancelled:
                outcomes.append("cancelled")
                raise

        tasks: list[Task[Any]] = [target, *[group.spawn(join()) for _ in range(4)]]
        yield from cancels(tasks, schedule)
        yield from coro.sleep(5)
        assert target.done
        assert target.joiners is None

    run_tidy(coro.task_group(body), seed=seed)
    assert len(outcomes) == 4 or "joined" not in outcomes
