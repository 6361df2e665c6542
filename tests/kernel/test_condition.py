"""`Condition` (coro/sync.py)."""

from __future__ import annotations

import pytest

import coro
from coro import Coro
from tests.kernel.support import run_tidy


class Watchers:
    """Tasks that wait for one condition, and the order in which they went on."""

    def __init__(self) -> None:
        self.condition = coro.Condition()
        self.log: list[str] = []

    def watch(self, name: str) -> Coro[None]:
        with (yield from self.condition.acquire()):
            try:
                yield from self.condition.wait()
                self.log.append(name)
            except coro.Cancelled:
                assert self.condition._lock.locked()
                self.log.append(f"{name} cancelled")
                raise


def test_notify_wakes_those_that_have_waited_longest() -> Coro[None]:
    watchers = Watchers()

    def body(group: coro.TaskGroup) -> Coro[None]:
        for name in "abc":
            group.spawn(watchers.watch(name))
        yield from coro.sleep(1)
        with (yield from watchers.condition.acquire()):
            watchers.condition.notify(2)
        yield from coro.sleep(1)
        assert watchers.log == ["a", "b"]
        with (yield from watchers.condition.acquire()):
            watchers.condition.notify_all()

    yield from coro.task_group(body)
    assert watchers.log == ["a", "b", "c"]


def test_waiter_goes_on_only_when_the_notifier_has_let_go_of_the_lock() -> Coro[None]:
    watchers = Watchers()

    def body(group: coro.TaskGroup) -> Coro[None]:
        group.spawn(watchers.watch("a"))
        yield from coro.sleep(1)
        with (yield from watchers.condition.acquire()):
            watchers.condition.notify()
            yield from coro.sleep(1)
            assert watchers.log == []

    yield from coro.task_group(body)
    assert watchers.log == ["a"]


def test_notify_without_a_waiter_is_forgotten() -> Coro[None]:
    watchers = Watchers()
    with (yield from watchers.condition.acquire()):
        watchers.condition.notify()
    with coro.move_on_after(1) as scope:
        yield from watchers.watch("a")
    assert scope.cancelled_caught


def test_wait_and_notify_need_the_lock() -> Coro[None]:
    condition = coro.Condition()
    with pytest.raises(RuntimeError, match="whose lock this task does not hold"):
        yield from condition.wait()
    with pytest.raises(RuntimeError, match="whose lock this task does not hold"):
        condition.notify()


@pytest.mark.parametrize("step", range(12))
def test_cancelled_at_any_step_it_holds_the_lock_and_leaves_nothing(step: int) -> None:
    watchers = Watchers()

    def main() -> Coro[None]:
        def body(group: coro.TaskGroup) -> Coro[None]:
            victim = group.spawn(watchers.watch("victim"))
            group.spawn(watchers.watch("other"))
            for turn in range(12):
                if turn == step:
                    victim.cancel()
                if turn == 5:
                    with (yield from watchers.condition.acquire()):
                        watchers.condition.notify_all()
                yield from coro.checkpoint()

        with coro.timeout(10):
            yield from coro.task_group(body)

    run_tidy(main())
    assert "other" in watchers.log
    assert not watchers.condition._lock.locked()
    assert not watchers.condition._waiters
