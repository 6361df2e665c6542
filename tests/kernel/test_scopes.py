"""Cancel scopes: nesting, deadlines, shields (coro/task.py). What they must not lose is in test_handover.py."""

from __future__ import annotations

import math
from typing import Any

import pytest

import coro
from coro import Cancelled, CancelScope, Coro, Task, TaskGroup
from coro.testing import memory_streams
from tests.kernel.support import run_tidy


def cancel_after(seconds: float, target: CancelScope | Task[Any]) -> Coro[None]:
    yield from coro.sleep(seconds)
    target.cancel()


# --- Who catches -----------------------------------------------------------------------------


def test_cancelled_scope_ends_its_block_and_no_more() -> None:
    def main() -> Coro[None]:
        with CancelScope() as outer:
            with coro.move_on_after(1) as inner:
                yield from coro.sleep(10)
            assert inner.cancelled_caught
            yield from coro.sleep(1)
            assert coro.now() == 2
        assert not outer.cancelled_caught

    run_tidy(main())


def test_scope_that_was_not_cancelled_lets_cancelled_pass() -> None:
    def main() -> Coro[None]:
        with coro.move_on_after(1) as outer:
            with CancelScope() as inner:
                yield from coro.sleep(10)
        assert outer.cancelled_caught
        assert not inner.cancelled_caught

    run_tidy(main())


def test_outer_scope_catches_when_both_are_cancelled() -> None:
    def main() -> Coro[None]:
        with CancelScope() as outer:
            with CancelScope() as inner:
                inner.cancel()
                outer.cancel()
                yield from coro.sleep(10)
            raise AssertionError("went on in a cancelled scope")
        assert outer.cancelled_caught
        assert not inner.cancelled_caught

    run_tidy(main())


def test_cancelled_scope_whose_block_made_no_further_request_did_not_catch() -> None:
    def main() -> Coro[None]:
        with CancelScope() as scope:
            yield from coro.checkpoint()
            scope.cancel()
        assert scope.cancel_called
        assert not scope.cancelled_caught
        yield from coro.sleep(1)

    run_tidy(main())


def test_other_errors_pass_a_cancelled_scope() -> None:
    def main() -> Coro[None]:
        with CancelScope() as scope:
            scope.cancel()
            try:
                yield from coro.checkpoint()
            except Cancelled:
                raise LookupError from None

    with pytest.raises(LookupError):
        run_tidy(main())


def test_inside_a_cancelled_scope_every_request_raises() -> None:
    def main() -> Coro[None]:
        with CancelScope() as scope:
            scope.cancel()
            for _ in range(3):
                with pytest.raises(Cancelled):
                    yield from coro.checkpoint()
        yield from coro.checkpoint()

    run_tidy(main())


def test_scope_cancelled_before_its_block_cancels_the_first_request() -> None:
    def main() -> Coro[None]:
        scope = CancelScope()
        scope.cancel()
        with scope:
            yield from coro.checkpoint()
            raise AssertionError
        assert scope.cancelled_caught

    run_tidy(main())


def test_scope_cancelled_after_its_block_does_nothing() -> None:
    def main() -> Coro[None]:
        with CancelScope() as scope:
            yield from coro.checkpoint()
        scope.cancel()
        yield from coro.sleep(1)

    run_tidy(main())


def test_deadline_set_after_the_block_arms_no_timer() -> None:
    def main() -> Coro[None]:
        with CancelScope() as scope:
            yield from coro.checkpoint()
        scope.deadline = 1000.0
        yield from coro.sleep(1)

    run_tidy(main())


def test_scope_can_be_entered_only_once() -> Coro[None]:
    scope = CancelScope()
    with scope:
        pass
    with pytest.raises(RuntimeError, match="make a new one"), scope:
        pass
    yield from ()


def test_scope_cancels_the_groups_that_were_opened_inside_it_and_no_other() -> None:
    ended: list[str] = []

    def child(name: str) -> Coro[None]:
        try:
            yield from coro.sleep(2)
            ended.append(f"{name} slept")
        except Cancelled:
            ended.append(f"{name} was cancelled")
            raise

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(child("outside"))
        with coro.move_on_after(1):
            yield from coro.gather(child("inside"))

    run_tidy(coro.task_group(body))
    assert ended == ["inside was cancelled", "outside slept"]


# --- Scopes that end in the wrong order ------------------------------------------------------


def leaves_a_timeout_open() -> Coro[None]:
    with coro.timeout(5):
        yield from coro.checkpoint()


def test_scope_left_open_by_an_unfinished_generator_is_reported_and_taken_off() -> None:
    def main() -> Coro[None]:
        with CancelScope() as outermost:
            unfinished = leaves_a_timeout_open()
            with pytest.raises(RuntimeError, match="wrong order: was a generator with an open `with timeout`"):
                with CancelScope():
                    next(unfinished)
            with pytest.raises(RuntimeError, match="wrong order"):
                unfinished.close()
            assert coro.current_task().scope is outermost
        yield from coro.sleep(10)  # and the timeout does not strike

    run_tidy(main())


def test_generator_that_is_dropped_closes_its_scopes() -> None:
    def main() -> Coro[None]:
        before = coro.current_task().scope
        unfinished = leaves_a_timeout_open()
        next(unfinished)
        del unfinished
        assert coro.current_task().scope is before
        yield from coro.sleep(10)

    run_tidy(main())


# --- Deadlines -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "ends"),
    [
        ([], 5),
        ([(1, 8)], 8),
        ([(1, 3)], 3),
        ([(1, 8), (2, 3)], 3),
        ([(1, 3), (2, 8)], 8),
        ([(1, 7), (6, 9)], 9),
        ([(2, 1)], 2),
        ([(1, math.inf)], 20),
        ([(1, math.inf), (8, 9)], 9),
    ],
    ids=str,
)
def test_deadline_can_be_moved(changes: list[tuple[float, float]], ends: float) -> None:
    def move(scope: CancelScope) -> Coro[None]:
        for when, deadline in changes:
            yield from coro.sleep(when - coro.now())
            scope.deadline = deadline

    def body(group: TaskGroup) -> Coro[None]:
        with coro.move_on_after(5) as scope:
            group.spawn(move(scope))
            yield from coro.sleep(20)
        assert coro.now() == ends
        assert scope.cancelled_caught == (ends < 20)

    run_tidy(coro.task_group(body))


def test_deadline_can_be_set_on_a_scope_that_had_none() -> None:
    def main() -> Coro[None]:
        with CancelScope() as scope:
            scope.deadline = 3
            yield from coro.sleep(20)
        assert coro.now() == 3

    run_tidy(main())


def test_deadline_moved_later_costs_no_timer() -> None:
    def main() -> Coro[None]:
        timers = coro.current_task().loop.timers
        with coro.move_on_after(5) as scope:
            for later in range(1000):
                scope.deadline = 5.0 + later
            assert len(timers) == 1
        yield from ()

    run_tidy(main())


def test_deadline_that_has_passed_cancels_the_first_request() -> None:
    def main() -> Coro[None]:
        yield from coro.sleep(5)
        with CancelScope(deadline=5) as scope:
            yield from coro.checkpoint()
            raise AssertionError
        assert scope.cancelled_caught

    run_tidy(main())


# --- Shields ---------------------------------------------------------------------------------


def test_shield_keeps_cancellation_out_until_its_end() -> None:
    def main() -> Coro[None]:
        with coro.move_on_after(1) as scope:
            with coro.shield():
                yield from coro.sleep(5)
            assert coro.now() == 5
            yield from coro.checkpoint()
            raise AssertionError
        assert scope.cancelled_caught

    run_tidy(main())


def test_cleanup_under_a_shield_can_wait_for_io() -> None:
    near, far = memory_streams(capacity=4)

    def work() -> Coro[None]:
        try:
            yield from coro.sleep_forever()
        finally:
            with coro.shield(), coro.timeout(5):
                yield from near.write(b"good bye")  # more than fits: it has to wait for the reader
            near.close()

    def body(group: TaskGroup) -> Coro[bytes]:
        task = group.spawn(work())
        yield from coro.sleep(1)
        task.cancel()
        yield from coro.sleep(1)
        return (yield from far.read_exactly(8))

    assert run_tidy(coro.task_group(body)) == b"good bye"


def test_time_limit_inside_a_shield_bounds_it() -> None:
    def main() -> Coro[None]:
        with coro.move_on_after(1):
            with pytest.raises(TimeoutError), coro.shield(), coro.timeout(5):
                yield from coro.sleep_forever()
            assert coro.now() == 5

    run_tidy(main())


def test_shielded_scope_can_be_cancelled_itself() -> None:
    def main() -> Coro[None]:
        went_on = False
        with CancelScope() as outer:
            outer.cancel()
            with CancelScope(shielded=True) as shielded:
                shielded.cancel()
                yield from coro.sleep(5)
            assert shielded.cancelled_caught
            went_on = True
            yield from coro.checkpoint()
        assert outer.cancelled_caught
        assert (went_on, coro.now()) == (True, 0)

    run_tidy(main())


def test_shield_covers_the_tasks_spawned_inside_it() -> None:
    def main() -> Coro[None]:
        with coro.move_on_after(1) as scope:
            with coro.shield():
                yield from coro.gather(coro.sleep(5), coro.sleep(6))
            assert coro.now() == 6
            yield from coro.checkpoint()
        assert scope.cancelled_caught

    run_tidy(main())


def test_cancellation_that_came_during_a_shield_reaches_the_groups_opened_outside_it() -> None:
    def body(group: TaskGroup) -> Coro[None]:
        child = group.spawn(coro.sleep_forever())
        with coro.shield():
            yield from coro.sleep(5)
            assert isinstance(child.exception, Cancelled)

    def main() -> Coro[None]:
        with coro.move_on_after(1):
            yield from coro.task_group(body)

    run_tidy(main())
