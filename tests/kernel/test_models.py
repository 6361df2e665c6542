"""Programs that hypothesis makes up, run against small models of Semaphore, Queue, Event and Condition (coro/sync.py).

A program is a list of operations. Those that need a task of their own start it and then let everything run until all
wait; the others follow one another without a pause, so that a hand-over, a cancellation and a close happen in one
instant. The model says at each pause who holds what and who waits behind whom. The seed orders what is due together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import coro
from coro import Condition, Coro, Event, Queue, Semaphore, Task, TaskGroup
from coro.sync import WaitQueue
from tests.kernel.support import run_tidy

unhurried = settings(deadline=None, max_examples=100)  # a busy machine is no failure
seeds = st.integers(0, 2**32)


def programs(*operations: str, size: int = 25) -> st.SearchStrategy[list[tuple[str, int]]]:
    """Operations with a number each: which task it is about, or how many."""
    return st.lists(st.tuples(st.sampled_from(operations), st.integers(0, 7)), min_size=size // 3, max_size=size)


def settle() -> Coro[None]:
    """Until all others wait: time does not move before."""
    yield from coro.sleep(1)


def names(waiters: WaitQueue) -> list[str]:
    return [task.name for task in waiters._tasks]


def run(play: Callable[[TaskGroup], Coro[None]], seed: int) -> None:
    def main() -> Coro[None]:
        with coro.timeout(10_000):
            yield from coro.task_group(play)

    run_tidy(main(), seed=seed)


# --- Semaphore and Lock ---------------------------------------------------------------


class PermitModel:
    def __init__(self, permits: int) -> None:
        self.permits = self.free = permits
        self.holders: list[str] = []
        self.waiting: list[str] = []
        self.leaving: list[str] = []  # holders that give their permit back when they run
        self.grants: list[str] = []
        self.ours = 0  # permits that the program itself holds
        self.fresh: list[str] = []  # holders that have waited and have not run since

    def acquire(self, name: str) -> None:
        if self.free:
            self.free -= 1
            self.grant(name)
        else:
            self.waiting.append(name)

    def grant(self, name: str) -> None:
        self.holders.append(name)
        self.grants.append(name)

    def give_back(self) -> None:
        if self.waiting:
            self.fresh.append(self.waiting[0])
            self.grant(self.waiting.pop(0))
        else:
            self.free += 1

    def end(self, name: str) -> None:
        """Cancelled, or told to leave."""
        if name in self.waiting:
            self.waiting.remove(name)
        elif name in self.fresh:  # it has not taken it: the next one gets it
            for names in self.fresh, self.holders, self.grants:
                names.remove(name)
            self.give_back()
        elif name in self.holders and name not in self.leaving:
            self.leaving.append(name)

    def settle(self) -> None:
        while self.leaving:
            self.holders.remove(self.leaving.pop())
            self.give_back()
        self.fresh.clear()


class PermitProgram:
    """Carries the operations out, on the semaphore and on the model."""

    def __init__(self, semaphore: Semaphore, permits: int) -> None:
        self.semaphore = semaphore
        self.model = PermitModel(permits)
        self.tasks: list[Task[None]] = []
        self.told: dict[str, Event] = {}
        self.inside: list[str] = []
        self.grants: list[str] = []

    def hold(self, name: str) -> Coro[None]:
        with (yield from self.semaphore.acquire()):
            self.inside.append(name)
            self.grants.append(name)
            assert len(self.inside) + self.model.ours <= self.model.permits
            try:
                yield from self.told[name].wait()
            finally:
                self.inside.remove(name)

    def play(self, group: TaskGroup, program: list[tuple[str, int]]) -> Coro[None]:
        for operation, number in program:
            if operation == "acquire":
                yield from self.pause()
                name = f"task {len(self.tasks)}"
                self.told[name] = Event()
                self.tasks.append(group.spawn(self.hold(name), name=name))
                self.model.acquire(name)
                yield from self.pause()
            elif operation == "pause":
                yield from self.pause()
            elif operation == "take":
                assert self.semaphore.acquire_nowait() == bool(self.model.free)
                if self.model.free:
                    self.model.free -= 1
                    self.model.ours += 1
            elif operation == "release":
                if self.model.ours:
                    self.model.ours -= 1
                    self.semaphore.release()
                    self.model.give_back()
            elif self.tasks:
                self.end(operation, self.tasks[number % len(self.tasks)])
        for _ in range(self.model.ours):
            self.model.ours -= 1
            self.semaphore.release()
            self.model.give_back()
        for _ in range(len(self.tasks) + 1):
            yield from self.pause()  # whoever waited gets his turn, and leaves
            for task in self.tasks:
                self.end("leave", task)

    def end(self, operation: str, task: Task[None]) -> None:
        if operation == "cancel":
            task.cancel()
            self.model.end(task.name)
        elif task.name in self.inside:
            self.told[task.name].set()
            self.model.end(task.name)

    def pause(self) -> Coro[None]:
        yield from settle()
        self.model.settle()
        assert sorted(self.inside) == sorted(self.model.holders)
        assert names(self.semaphore._permits) == self.model.waiting
        assert self.semaphore.free == self.model.free
        assert sorted(self.grants) == sorted(self.model.grants)


permit_programs = programs("acquire", "acquire", "cancel", "leave", "take", "release", "pause")


@unhurried
@given(program=permit_programs, seed=seeds, permits=st.integers(0, 3))
def test_semaphore_hands_its_permits_on_in_order_and_keeps_their_number(
    program: list[tuple[str, int]], seed: int, permits: int
) -> None:
    semaphore = Semaphore(permits)
    run(lambda group: within(group, PermitProgram(semaphore, permits), program), seed)
    assert semaphore.free == permits
    assert not semaphore._permits


@unhurried
@given(program=permit_programs, seed=seeds)
def test_lock_is_held_by_one_and_handed_on_in_order(program: list[tuple[str, int]], seed: int) -> None:
    lock = coro.Lock()
    run(lambda group: within(group, PermitProgram(lock, 1), program), seed)
    assert not lock.locked()
    assert not lock._permits


def within(group: TaskGroup, permits: PermitProgram, program: list[tuple[str, int]]) -> Coro[None]:
    """Play it; those that still wait when there are no permits at all are cancelled."""
    yield from permits.play(group, program)
    group.cancel()


# --- Queue ----------------------------------------------------------------------------


class QueueModel:
    def __init__(self, capacity: int | None) -> None:
        self.capacity = capacity
        self.items: list[str] = []
        self.putting: list[str] = []  # each task is named for the item that it puts
        self.getting: list[str] = []
        self.ended: dict[str, str] = {}  # how the tasks have ended, or will when they run
        self.closed = False
        self.fresh: dict[str, str] = {}  # what was handed to whom, who has not run since

    def hand(self, item: str) -> bool:
        """To the first who waits for one, if anybody does."""
        if self.getting:
            self.fresh[self.getting[0]] = self.ended[self.getting[0]] = item
            del self.getting[0]
            return True
        return False

    def put(self, item: str) -> str:
        if self.closed:
            return "closed"
        if self.hand(item):
            pass
        elif self.capacity is None or len(self.items) < self.capacity:
            self.items.append(item)
        else:
            return "full"
        return "put"

    def get(self) -> str:
        if self.items:
            item = self.items.pop(0)
            if self.putting:
                self.items.append(self.admit())
            return item
        if self.putting:
            return self.admit()
        return "closed" if self.closed else "empty"

    def admit(self) -> str:
        self.ended[self.putting[0]] = "put"
        return self.putting.pop(0)

    def cancel(self, name: str) -> None:
        for waiting in self.putting, self.getting:
            if name in waiting:
                waiting.remove(name)
                self.ended[name] = "cancelled"
        if name in self.fresh:  # it has not taken it: the next one gets it
            self.ended[name] = "cancelled"
            item = self.fresh.pop(name)
            if not self.hand(item):
                self.items.insert(0, item)

    def close(self) -> None:
        self.closed = True
        self.ended.update(dict.fromkeys(self.putting + self.getting, "closed"))
        self.putting, self.getting = [], []


class QueueProgram:
    """Carries the operations out, on the queue and on the model."""

    def __init__(self, capacity: int | None) -> None:
        self.queue: Queue[str] = Queue(capacity)
        self.model = QueueModel(capacity)
        self.tasks: list[Task[None]] = []
        self.ended: dict[str, str] = {}

    def record(self, name: str, work: Coro[str | None]) -> Coro[None]:
        try:
            self.ended[name] = (yield from work) or "put"
        except coro.ClosedError:
            self.ended[name] = "closed"
        except coro.Cancelled:
            self.ended[name] = "cancelled"
            raise

    def play(self, group: TaskGroup, program: list[tuple[str, int]]) -> Coro[None]:
        for count, (operation, number) in enumerate(program):
            name = f"{operation} {count}"
            if operation in ("put", "get"):
                yield from self.pause()
                work: Coro[Any] = self.queue.put(name) if operation == "put" else self.queue.get()
                self.tasks.append(group.spawn(self.record(name, work), name=name))
                self.begin(operation, name)
                yield from self.pause()
            elif operation == "put_nowait":
                assert self.outcome(self.queue.put_nowait, name) == self.model.put(name)
            elif operation == "get_nowait":
                assert self.outcome(self.queue.get_nowait) == self.model.get()
            elif operation == "close" and number == 0:  # seldom: little happens afterwards
                self.queue.close()
                self.model.close()
            elif operation == "cancel" and self.tasks:
                task = self.tasks[number % len(self.tasks)]
                task.cancel()
                self.model.cancel(task.name)
        yield from self.pause()
        group.cancel()

    def begin(self, operation: str, name: str) -> None:
        """What the model does when the task runs for the first time."""
        outcome = self.model.put(name) if operation == "put" else self.model.get()
        if outcome in ("full", "empty"):
            (self.model.putting if operation == "put" else self.model.getting).append(name)
        else:
            self.model.ended[name] = outcome

    @staticmethod
    def outcome(call: Callable[..., bool | str], *args: str) -> str:
        try:
            result = call(*args)
        except coro.ClosedError:
            return "closed"
        except IndexError:
            return "empty"
        return result if isinstance(result, str) else "put" if result else "full"

    def pause(self) -> Coro[None]:
        yield from settle()
        self.model.fresh.clear()
        assert list(self.queue._items) == self.model.items
        assert [put.item for put in self.queue._puts] == self.model.putting
        assert names(self.queue._gets) == self.model.getting
        assert self.ended == self.model.ended


@unhurried
@given(
    program=programs("put", "put", "get", "get", "put_nowait", "get_nowait", "cancel", "close"),
    seed=seeds,
    capacity=st.sampled_from([0, 1, 2, None]),
)
def test_queue_gives_each_item_once_in_order_to_those_who_came_first(
    program: list[tuple[str, int]], seed: int, capacity: int | None
) -> None:
    queue_program = QueueProgram(capacity)
    run(lambda group: queue_program.play(group, program), seed)
    assert not queue_program.queue._gets
    assert not queue_program.queue._puts


# --- Event ----------------------------------------------------------------------------


@unhurried
@given(program=programs("wait", "wait", "cancel", "set", size=15), seed=seeds)
def test_event_wakes_all_who_wait_and_none_that_was_cancelled_before(
    program: list[tuple[str, int]], seed: int
) -> None:
    event = Event()
    woken: list[str] = []
    expected: list[str] = []
    waiting: list[str] = []

    def wait(name: str) -> Coro[None]:
        yield from event.wait()
        woken.append(name)

    def play(group: TaskGroup) -> Coro[None]:
        tasks: list[Task[None]] = []
        for operation, number in program:
            if operation == "wait":
                tasks.append(group.spawn(wait(f"task {len(tasks)}"), name=f"task {len(tasks)}"))
                yield from settle()
                (expected if event.is_set() else waiting).append(tasks[-1].name)
            elif operation == "set" and number < 3:
                event.set()
                expected.extend(waiting)
                waiting.clear()
            elif operation == "cancel" and tasks:
                task = tasks[number % len(tasks)]
                task.cancel()
                if task.name in waiting:
                    waiting.remove(task.name)
            assert names(event._waiters) == waiting
        yield from settle()
        assert sorted(woken) == sorted(expected)
        group.cancel()

    run(play, seed)
    assert not event._waiters


# --- Condition ------------------------------------------------------------------------


class Watching:
    """Tasks that wait for one condition; each says how its wait ended, and sees that it has the lock then."""

    def __init__(self) -> None:
        self.condition = Condition()
        self.inside = 0
        self.ended: dict[str, str] = {}
        self.tasks: list[Task[None]] = []

    def enter(self) -> None:
        self.inside += 1
        assert self.inside == 1
        assert self.condition._lock.locked()

    def watch(self, name: str) -> Coro[None]:
        with (yield from self.condition.acquire()):
            try:
                yield from self.condition.wait()
                self.ended[name] = "notified"
            except coro.Cancelled:
                self.ended[name] = "cancelled"
                raise
            finally:
                self.enter()
                try:
                    with coro.shield():
                        yield from coro.sleep(0.01)  # the others that were woken must wait
                finally:
                    self.inside -= 1


@unhurried
@given(program=programs("wait", "wait", "notify", "cancel", "release"), seed=seeds)
def test_condition_notifies_those_who_waited_longest_and_each_leaves_with_the_lock(
    program: list[tuple[str, int]], seed: int
) -> None:
    watching = Watching()
    condition, tasks = watching.condition, watching.tasks
    expected: dict[str, str] = {}
    waiting: list[str] = []

    def burst(group: TaskGroup, operations: list[tuple[str, int]]) -> Coro[None]:
        """One stretch with the lock, up to a `release`."""
        fresh: list[str] = []  # notified, and have not run since

        def notify(count: int) -> None:
            expected.update(dict.fromkeys(waiting[:count], "notified"))
            fresh.extend(waiting[:count])
            del waiting[:count]

        with (yield from condition.acquire()):
            watching.enter()
            for operation, number in operations:
                if operation == "notify":
                    condition.notify(number % 4)
                    notify(number % 4)
                elif operation == "cancel" and tasks:
                    task = tasks[number % len(tasks)]
                    task.cancel()
                    if task.name in waiting:
                        waiting.remove(task.name)
                        expected[task.name] = "cancelled"
                    elif task.name in fresh:
                        fresh.remove(task.name)
                        expected[task.name] = "cancelled"
                        notify(1)
                assert names(condition._waiters) == waiting
            yield from coro.sleep(0.01)  # what was woken may not go on before the lock is free
            watching.inside -= 1

    def play(group: TaskGroup) -> Coro[None]:
        operations: list[tuple[str, int]] = []
        for operation, number in [*program, ("release", 0)]:
            if operation == "wait":
                name = f"task {len(tasks)}"
                tasks.append(group.spawn(watching.watch(name), name=name))
                yield from settle()
                waiting.append(name)
            elif operation == "release":
                yield from burst(group, operations)
                operations.clear()
                yield from settle()
                assert watching.ended == expected
            else:
                operations.append((operation, number))
        group.cancel()

    run(play, seed)
    assert not condition._lock.locked()
    assert not condition._lock._permits
    assert not condition._waiters
