"""What a task held is gone when the task is, without the garbage collector's help."""

from __future__ import annotations

import gc
import os
import signal
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

import coro
from coro import Coro, TaskGroup


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Thing:
    pass


held: list[weakref.ref[Thing]] = []


def holds() -> Coro[None]:
    thing = Thing()
    held.append(weakref.ref(thing))
    yield from coro.sleep_forever()


def fails() -> Coro[None]:
    yield from coro.checkpoint()
    raise ValueError("wrong")


def cancelled_scope() -> Coro[None]:
    with coro.move_on_after(0.001):
        yield from holds()


def time_limit() -> Coro[None]:
    with pytest.raises(TimeoutError), coro.timeout(0.001):
        yield from holds()


def cancelled_task() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(holds())
        yield from coro.checkpoint()
        task.cancel()

    yield from coro.task_group(body)


def failed_group() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(holds())
        group.spawn(fails())
        yield from ()

    with suppress(ValueError):
        yield from coro.task_group(body)


@pytest.mark.parametrize("ending", [cancelled_scope, time_limit, cancelled_task, failed_group])
def test_locals_of_a_task_that_was_cancelled_are_destroyed_at_once(ending: Callable[[], Coro[None]]) -> None:
    def main() -> Coro[object]:
        yield from ending()
        yield from coro.checkpoint()  # the step in which it ended is over
        return held[-1]()

    assert coro.run(main()) is None


def test_locals_are_destroyed_after_ctrl_c() -> None:
    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(holds())
        yield from coro.checkpoint()
        os.kill(os.getpid(), signal.SIGINT)
        yield from coro.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        coro.run(coro.task_group(body))
    assert held[-1]() is None


@pytest.mark.parametrize("ending", [cancelled_scope, cancelled_task, failed_group])
def test_what_ended_leaves_no_cycle(ending: Callable[[], Coro[None]]) -> None:
    def main() -> Coro[int]:
        yield from ending()  # what is made once
        gc.collect()
        yield from ending()
        yield from coro.checkpoint()
        return gc.collect()

    # By chance another thread leaves some meanwhile: one of pytest-xdist, or of an earlier test.
    assert min(coro.run(main()) for _ in range(5)) == 0
