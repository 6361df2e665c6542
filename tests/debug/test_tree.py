"""The task tree: `coro.dump_tasks`, and what it says of each kind of wait, each holder, each circle."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest

import coro
from coro import Coro, TaskGroup
from coro.debug.tree import Snapshot, TaskView, seconds, snapshot
from coro.testing import run_virtual


def settle() -> Coro[None]:
    for _ in range(10):
        yield from coro.checkpoint()


def seen(*generators: Coro[object]) -> Snapshot:
    """What a loop looks like from outside when these tasks have come to wait."""
    shots: list[Snapshot] = []

    def body(group: TaskGroup) -> Coro[None]:
        for generator in generators:
            group.spawn(generator)
        yield from settle()
        loop = coro.current_task().loop
        loop.post(lambda: shots.append(snapshot(loop)))
        yield from settle()
        group.cancel()

    def main() -> Coro[None]:
        with suppress(coro.TaskCancelled):
            yield from coro.task_group(body, name="all")

    run_virtual(main())
    return shots[0]


def task(shot: Snapshot, name: str) -> TaskView:
    return next(task for task in shot.tasks if task.name == name)


def holds(lock: coro.Semaphore) -> Coro[None]:
    with (yield from lock.acquire()):
        yield from coro.sleep(100)


def waits(lock: coro.Semaphore) -> Coro[None]:
    yield from lock.acquire()


def test_a_sleep_tells_how_much_of_it_is_left() -> None:
    def main() -> Coro[Snapshot]:
        coro.background(coro.sleep(5))
        yield from coro.sleep(2)
        return snapshot(coro.current_task().loop)

    shot = run_virtual(main())
    assert task(shot, "sleep").waits_for == "sleep until +3.0 s"
    assert task(shot, "sleep").age == 2.0


def test_who_waits_for_a_lock_is_told_who_holds_it() -> None:
    lock = coro.Lock()
    shot = seen(holds(lock), waits(lock))
    assert task(shot, "waits").waits_for == f"a Lock held by task {task(shot, 'holds').number}"
    assert task(shot, "waits").held_by == [task(shot, "holds").number]


def test_all_holders_of_a_semaphore_are_named() -> None:
    semaphore = coro.Semaphore(2)
    shot = seen(holds(semaphore), holds(semaphore), waits(semaphore))
    assert task(shot, "waits").waits_for == "a Semaphore held by tasks 2, 3"


def test_a_lock_that_an_exit_stack_gives_back_has_a_known_holder() -> None:
    lock = coro.Lock()

    def stacked() -> Coro[None]:
        with ExitStack() as stack:
            stack.enter_context((yield from lock.acquire()))
            yield from coro.sleep(100)

    shot = seen(stacked(), waits(lock))
    assert len(task(shot, "waits").held_by) == 1


def test_a_holder_that_cannot_be_known_is_not_made_up() -> None:
    lock = coro.Lock()
    assert lock.acquire_nowait()
    shot = seen(waits(lock))
    assert task(shot, "waits").waits_for == "a Lock (whoever holds it did not take it in a `with`)"
    assert shot.cycles == []


def test_who_waits_for_a_thread_is_told_whose_calls_have_them() -> None:
    limiter = coro.Limiter(1)
    shots: list[Snapshot] = []

    def main() -> Coro[None]:
        loop = coro.current_task().loop
        release = coro.Event()

        def blocks() -> None:
            coro.from_thread(release.wait)

        def body(group: TaskGroup) -> Coro[None]:
            group.spawn(limiter.run(blocks), name="has it")
            group.spawn(limiter.run(print), name="wants it")
            yield from settle()
            loop.post(lambda: shots.append(snapshot(loop)))
            yield from settle()
            release.set()

        yield from coro.task_group(body)

    coro.run(main())
    assert task(shots[0], "wants it").waits_for.startswith("a free thread")


def test_the_chain_leads_to_the_line_that_waits() -> None:
    def inner() -> Coro[None]:
        yield from coro.sleep(100)

    def outer() -> Coro[None]:
        yield from inner()

    chain = task(seen(outer()), outer.__qualname__).chain
    assert [place.function.rpartition(".")[2] for place in chain] == ["outer", "inner", "sleep"]
    assert [place.line for place in chain[:2]] == [outer.__code__.co_firstlineno + 1, inner.__code__.co_firstlineno + 1]
    assert chain[0].file == __file__


def test_the_running_task_shows_where_it_runs_and_what_it_calls() -> None:
    def called() -> str:
        file = io.StringIO()
        coro.dump_tasks(file)
        return file.getvalue()

    def main() -> Coro[str]:
        yield from coro.checkpoint()
        return called()

    lines = coro.run(main()).splitlines()
    assert lines[1].endswith(", running")
    assert [line.split()[0].rpartition(".")[2] for line in lines[2:]] == ["main", "called"]


def test_dump_tasks_outside_of_a_run_says_what_is_wrong() -> None:
    with pytest.raises(RuntimeError, match="no loop is running in this thread"):
        coro.dump_tasks()


def test_a_repr_that_raises_does_not_end_the_dump() -> None:
    class Odd(coro.Request):
        broken = True

        def submit(self, task: coro.Task[object]) -> None:
            task.loop.call_at(1.0, task.wake)

        def withdraw(self, task: coro.Task[object]) -> None: ...

        def __repr__(self) -> str:
            if Odd.broken:
                raise ValueError
            return "odd"

    def odd() -> Coro[None]:
        yield Odd()

    def mend() -> Coro[None]:
        yield from settle()
        yield from coro.checkpoint()
        Odd.broken = False  # for what is said when it is cancelled

    assert task(seen(odd(), mend()), odd.__qualname__).waits_for == "a Odd (its repr raises ValueError)"


def test_groups_nested_more_deeply_than_the_stack_are_shown() -> None:
    depth = 2000

    def nest(levels: int) -> Coro[None]:
        if not levels:
            yield from settle()
            shots.append(snapshot(coro.current_task().loop))
            return

        def body(group: TaskGroup) -> Coro[None]:
            group.spawn(nest(levels - 1))
            yield from ()

        yield from coro.task_group(body)

    shots: list[Snapshot] = []
    coro.run(nest(depth))
    assert len(shots[0].tasks) == depth + 1
    assert str(shots[0]) and shots[0].as_json()


# --- Circles ------------------------------------------------------------------------------


def takes(lock: coro.Lock, then: Callable[[], Coro[None]]) -> Coro[None]:
    with (yield from lock.acquire()):
        yield from coro.checkpoint()
        yield from then()


def crossed(limit: float | None = None) -> Snapshot:
    one, two = coro.Lock(), coro.Lock()

    def second() -> Coro[None]:
        if limit is None:
            yield from waits(one)
        else:
            with coro.move_on_after(limit):
                yield from waits(one)

    return seen(takes(one, lambda: waits(two)), takes(two, second))


def test_tasks_that_wait_for_each_other_are_a_circle() -> None:
    shot = crossed()
    assert shot.cycles == [[2, 3]]
    assert "deadlock: task 2 -> task 3 -> task 2" in str(shot)


def test_a_circle_that_a_time_limit_will_break_is_none() -> None:
    assert crossed(limit=50.0).cycles == []


def test_a_task_that_joins_who_waits_for_its_lock_is_in_the_circle() -> None:
    lock = coro.Lock()

    def parent() -> Coro[None]:
        def body(group: TaskGroup) -> Coro[None]:
            group.spawn(waits(lock))
            yield from ()

        with (yield from lock.acquire()):
            yield from coro.task_group(body, name="inner")

    assert seen(parent()).cycles == [[2, 3]]


def test_json_has_what_the_text_has() -> None:
    shot = crossed()
    data = json.loads(shot.as_json())
    assert data["cycles"] == [[2, 3]]
    assert [entry["number"] for entry in data["tasks"]] == [1, 2, 3]
    assert data["tasks"][0]["groups"] == [{"name": "all", "tasks": [2, 3]}]
    assert data["tasks"][1]["held_by"] == [3]
    assert data["tasks"][1]["chain"][-1]["function"] == "Semaphore.acquire"


@pytest.mark.parametrize(
    ("time", "text"), [(0.0123, "12 ms"), (3.25, "3.2 s"), (600.0, "10 min"), (7200.0, "2.0 h"), (-1.0, "0 ms")]
)
def test_durations_are_readable(time: float, text: str) -> None:
    assert seconds(time) == text


def test_looking_leaves_nothing_behind() -> None:
    def main() -> Coro[bool]:
        loop = coro.current_task().loop
        before = dict(vars(loop))
        snapshot(loop)
        yield from coro.checkpoint()
        return before.keys() == vars(loop).keys()

    assert coro.run(main())
