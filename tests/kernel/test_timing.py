"""Sleeping and time limits, in virtual time (coro/timing.py)."""

from __future__ import annotations

import math

import pytest

import coro
from coro import Coro, TaskGroup
from coro.timing import call_later
from tests.kernel.support import run_tidy


def test_sleep_lets_the_time_pass() -> Coro[None]:
    yield from coro.sleep(2.5)
    yield from coro.sleep(1.5)
    assert coro.now() == 4


def test_sleepers_wake_in_the_order_of_their_times() -> Coro[None]:
    woken: list[float] = []

    def sleeper(seconds: float) -> Coro[None]:
        yield from coro.sleep(seconds)
        woken.append(seconds)

    yield from coro.gather(*[sleeper(seconds) for seconds in (3, 1, 2, 0.5)])
    assert woken == [0.5, 1, 2, 3]


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_sleep_of_nothing_lets_others_run_once(seconds: float) -> Coro[None]:
    order: list[str] = []

    def work(name: str) -> Coro[None]:
        order.append(name)
        yield from coro.sleep(seconds)
        order.append(name)

    yield from coro.gather(work("a"), work("b"))
    assert order == ["a", "b", "a", "b"]
    assert coro.now() == 0


def test_call_later_calls_unless_cancelled() -> Coro[None]:
    called: list[str] = []
    call_later(1, lambda: called.append("one"))
    call_later(2, lambda: called.append("two")).cancel()
    yield from coro.sleep(5)
    assert called == ["one"]


# --- timeout ----------------------------------------------------------------------------------


def test_timeout_raises_timeout_error_when_the_time_is_up() -> None:
    def main() -> Coro[None]:
        with pytest.raises(TimeoutError, match=r"not done within 2\.5 s"):
            with coro.timeout(2.5):
                yield from coro.sleep_forever()
        assert coro.now() == 2.5
        yield from coro.sleep(1)

    run_tidy(main())


def test_timeout_that_is_not_needed_leaves_no_timer() -> None:
    def main() -> Coro[None]:
        with coro.timeout(100):
            yield from coro.sleep(1)

    run_tidy(main())


def test_other_errors_pass_a_timeout() -> None:
    def main() -> Coro[None]:
        with coro.timeout(100):
            yield from coro.sleep(1)
            raise LookupError

    with pytest.raises(LookupError):
        run_tidy(main())


def test_timeout_of_zero_lets_pass_what_need_not_wait() -> Coro[None]:
    queue: coro.Queue[int] = coro.Queue()
    queue.put_nowait(1)
    with coro.timeout(0):
        assert (yield from queue.get()) == 1
    with pytest.raises(TimeoutError), coro.timeout(0):
        yield from queue.get()


def test_endless_timeout_sets_no_timer() -> Coro[None]:
    with coro.timeout(math.inf), coro.move_on_after(math.inf):
        assert not coro.current_task().loop.timers
        yield from coro.sleep(1)


@pytest.mark.parametrize(("outer", "inner", "raised"), [(1, 2, "1"), (2, 1, "1"), (1, 1, "1")])
def test_shorter_of_two_nested_timeouts_strikes(outer: float, inner: float, raised: str) -> None:
    def main() -> Coro[None]:
        with pytest.raises(TimeoutError, match=f"within {raised} s"):
            with coro.timeout(outer), coro.timeout(inner):
                yield from coro.sleep_forever()
        assert coro.now() == 1

    run_tidy(main())


def test_code_between_two_timeouts_can_handle_the_inner_one() -> None:
    def main() -> Coro[str]:
        with coro.timeout(10):
            try:
                with coro.timeout(1):
                    yield from coro.sleep_forever()
            except TimeoutError:
                yield from coro.sleep(5)
        return "took another way"

    assert run_tidy(main()) == "took another way"


def test_outer_timeout_strikes_while_the_inner_one_is_handled() -> None:
    def main() -> Coro[None]:
        with pytest.raises(TimeoutError, match="within 3 s"):
            with coro.timeout(3):
                try:
                    with coro.timeout(1):
                        yield from coro.sleep_forever()
                finally:
                    yield from coro.sleep_forever()
        assert coro.now() == 3

    run_tidy(main())


def test_timeout_does_not_hide_cancellation_from_outside() -> None:
    def work() -> Coro[None]:
        with coro.timeout(5):
            yield from coro.sleep_forever()

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(work())
        yield from coro.sleep(1)
        task.cancel()
        with pytest.raises(coro.TaskCancelled):
            yield from task.join()

    run_tidy(coro.task_group(body))


def test_timeout_ends_the_tasks_inside_it() -> None:
    ended: list[float] = []

    def child() -> Coro[None]:
        try:
            yield from coro.sleep_forever()
        finally:
            ended.append(coro.now())

    def main() -> Coro[None]:
        with pytest.raises(TimeoutError), coro.timeout(1):
            yield from coro.gather(child(), child())
        assert ended == [1, 1]

    run_tidy(main())


# --- move_on_after ------------------------------------------------------------------------------


def test_move_on_after_goes_on_when_the_time_is_up() -> None:
    def main() -> Coro[None]:
        with coro.move_on_after(2) as scope:
            yield from coro.sleep_forever()
        assert scope.cancelled_caught
        yield from coro.sleep(1)
        assert coro.now() == 3

    run_tidy(main())


def test_move_on_after_that_was_not_needed_did_not_catch() -> None:
    def main() -> Coro[None]:
        with coro.move_on_after(2) as scope:
            yield from coro.sleep(1)
        assert not scope.cancelled_caught
        assert not scope.cancel_called
        yield from coro.sleep(5)

    run_tidy(main())


def test_shield_cannot_be_cancelled_and_has_no_deadline() -> Coro[None]:
    with coro.shield() as shield:
        with pytest.raises(RuntimeError, match="put `with timeout"):
            shield.cancel()
        with pytest.raises(RuntimeError, match="put `with timeout"):
            shield.deadline = 1.0
        yield from coro.sleep(5)
    assert coro.now() == 5
