"""Task groups, `gather` (coro/group.py)."""

from __future__ import annotations

from typing import Any

import pytest

import coro
from coro import Cancelled, Coro, TaskCancelled, TaskGroup
from tests.kernel.support import run_tidy


def returns(value: Any, after: float) -> Coro[Any]:
    yield from coro.sleep(after)
    return value


def fails(error: BaseException, after: float) -> Coro[None]:
    yield from coro.sleep(after)
    raise error


class Ended:
    """Notes when tasks end, and how."""

    def __init__(self) -> None:
        self.log: list[tuple[float, str]] = []

    def sleeper(self, seconds: float, cleanup: float = 0) -> Coro[None]:
        try:
            yield from coro.sleep(seconds)
        except Cancelled:
            with coro.shield():
                yield from coro.sleep(cleanup)
            self.log.append((coro.now(), "cancelled"))
            raise
        self.log.append((coro.now(), "slept"))


# --- Success --------------------------------------------------------------------------------------


def test_group_returns_the_result_of_its_body() -> None:
    def body(group: TaskGroup) -> Coro[int]:
        a, b = group.spawn(returns(3, after=2)), group.spawn(returns(4, after=1))
        total: int = (yield from a.join()) + (yield from b.join())
        return total

    assert run_tidy(coro.task_group(body)) == 7


def test_group_waits_for_tasks_that_nobody_joined() -> None:
    ended = Ended()

    def body(group: TaskGroup) -> Coro[str]:
        group.spawn(ended.sleeper(5))
        yield from ()
        return "body"

    def main() -> Coro[None]:
        assert (yield from coro.task_group(body)) == "body"
        assert ended.log == [(5, "slept")]

    run_tidy(main())


def test_empty_group_ends_at_once() -> None:
    def body(group: TaskGroup) -> Coro[str]:
        yield from ()
        return "body"

    assert run_tidy(coro.task_group(body)) == "body"


def test_tasks_of_a_group_can_spawn_into_it() -> None:
    ended = Ended()

    def chain(group: TaskGroup, links: int) -> Coro[None]:
        yield from ended.sleeper(1)
        if links:
            group.spawn(chain(group, links - 1))

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(chain(group, 3))
        yield from ()

    run_tidy(coro.task_group(body))
    assert [when for when, _ in ended.log] == [1, 2, 3, 4]


def test_task_spawned_from_outside_as_the_last_one_ends_is_waited_for() -> None:
    """The owner has been woken, but has not run yet, when the group gets another task; and again."""
    ended = Ended()

    def outsider(inner: TaskGroup) -> Coro[None]:
        for _ in range(3):
            yield from coro.sleep(1)
            assert not inner.tasks
            inner.spawn(ended.sleeper(1))
            yield from coro.checkpoint()  # so that our next sleep begins, and ends, after that of the sleeper

    def body(outer: TaskGroup) -> Coro[None]:
        def inner_body(inner: TaskGroup) -> Coro[None]:
            inner.spawn(coro.sleep(1))
            outer.spawn(outsider(inner))
            yield from ()

        yield from coro.task_group(inner_body)
        assert ended.log == [(2, "slept"), (3, "slept"), (4, "slept")]

    run_tidy(coro.task_group(body))


def test_spawn_into_a_group_that_has_ended_is_an_error() -> Coro[None]:
    groups: list[TaskGroup] = []

    def body(group: TaskGroup) -> Coro[None]:
        groups.append(group)
        yield from ()

    yield from coro.task_group(body)
    with pytest.raises(RuntimeError, match="group that has ended"):
        groups[0].spawn(returns(1, after=1))


# --- Failure -------------------------------------------------------------------------------------------


def test_first_failure_cancels_siblings_and_body_and_is_raised_as_it_is() -> None:
    ended = Ended()
    error = LookupError("lost")

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(ended.sleeper(10))
        group.spawn(fails(error, after=1))
        group.spawn(ended.sleeper(10))
        yield from ended.sleeper(10)

    with pytest.raises(LookupError) as caught:
        run_tidy(coro.task_group(body))
    assert caught.value is error
    assert ended.log == [(1, "cancelled")] * 3


def test_failure_of_the_body_cancels_the_tasks_and_is_raised_as_it_is() -> None:
    ended = Ended()

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(ended.sleeper(10))
        yield from coro.sleep(1)
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        run_tidy(coro.task_group(body))
    assert ended.log == [(1, "cancelled")]


def test_several_failures_are_raised_as_an_exception_group() -> None:
    def cleanup_fails() -> Coro[None]:
        try:
            yield from coro.sleep_forever()
        finally:
            raise ValueError("in cleanup")

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(fails(LookupError("first"), after=1))
        group.spawn(cleanup_fails())
        yield from coro.sleep_forever()

    with pytest.raises(ExceptionGroup, match="several tasks failed") as caught:
        run_tidy(coro.task_group(body))
    assert [repr(error) for error in caught.value.exceptions] == ["LookupError('first')", "ValueError('in cleanup')"]


def test_error_that_the_body_got_by_joining_counts_once() -> None:
    def body(group: TaskGroup) -> Coro[None]:
        yield from group.spawn(fails(LookupError("lost"), after=1)).join()

    with pytest.raises(LookupError, match="lost"):
        run_tidy(coro.task_group(body))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_exits_pass_through_groups(error: BaseException) -> None:
    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(fails(error, after=1))
        yield from coro.sleep_forever()

    with pytest.raises(type(error)):
        run_tidy(coro.task_group(body))


def test_failed_group_ends_only_when_its_tasks_have_cleaned_up() -> None:
    ended = Ended()

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(ended.sleeper(10, cleanup=4))
        group.spawn(fails(LookupError(), after=1))
        yield from ()

    def main() -> Coro[None]:
        with pytest.raises(LookupError):
            yield from coro.task_group(body)
        assert ended.log == [(5, "cancelled")]

    run_tidy(main())


def test_failure_in_an_inner_group_reaches_the_outer_one() -> None:
    ended = Ended()

    def inner(group: TaskGroup) -> Coro[None]:
        group.spawn(ended.sleeper(10))
        group.spawn(fails(LookupError("inner"), after=1))
        yield from ()

    def outer(group: TaskGroup) -> Coro[None]:
        group.spawn(coro.task_group(inner))
        yield from ended.sleeper(10)

    with pytest.raises(LookupError, match="inner"):
        run_tidy(coro.task_group(outer))
    assert ended.log == [(1, "cancelled")] * 2


# --- Cancellation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_no_task_outlives_its_group(seed: int) -> None:
    alive = 0

    def child(seconds: float) -> Coro[None]:
        nonlocal alive
        alive += 1
        try:
            yield from coro.sleep(seconds)
        finally:
            with coro.shield():
                yield from coro.sleep(seconds)
            alive -= 1

    def body(group: TaskGroup) -> Coro[None]:
        for seconds in range(1, 6):
            group.spawn(child(seconds))
        yield from coro.sleep(2)

    def main() -> Coro[None]:
        with coro.move_on_after(3):
            yield from coro.task_group(body)
        assert alive == 0

    run_tidy(main(), seed=seed)


def test_cancelled_owner_waits_for_the_cleanup_of_its_tasks() -> None:
    ended = Ended()

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(ended.sleeper(10, cleanup=4))
        yield from ()

    def main() -> Coro[None]:
        with coro.move_on_after(1) as scope:
            yield from coro.task_group(body)
        assert scope.cancelled_caught
        assert ended.log == [(5, "cancelled")]

    run_tidy(main())


def test_group_cancel_ends_the_tasks_and_keeps_the_result_of_a_body_that_returned() -> None:
    ended = Ended()

    def body(group: TaskGroup) -> Coro[str]:
        group.spawn(ended.sleeper(10))
        yield from coro.sleep(1)
        group.cancel()
        return "body"

    assert run_tidy(coro.task_group(body)) == "body"
    assert ended.log == [(1, "cancelled")]


def test_group_cancelled_by_a_task_after_the_body_returned_keeps_its_result() -> None:
    def canceller(group: TaskGroup) -> Coro[None]:
        yield from coro.sleep(1)
        group.cancel()

    def body(group: TaskGroup) -> Coro[str]:
        group.spawn(canceller(group))
        group.spawn(coro.sleep_forever())
        yield from ()
        return "body"

    assert run_tidy(coro.task_group(body)) == "body"


def test_tasks_are_cancelled_in_the_order_in_which_they_were_spawned() -> None:
    """So that a run can be repeated: nothing may depend on where the tasks lie in memory."""
    order: list[int] = []

    def child(number: int) -> Coro[None]:
        try:
            yield from coro.sleep_forever()
        finally:
            order.append(number)

    def body(group: TaskGroup) -> Coro[None]:
        yield from coro.gather(*[coro.sleep(number % 7) for number in range(200)])  # leaves gaps in memory
        for number in range(200):
            group.spawn(child(number))
        yield from coro.sleep(10)
        group.cancel()

    run_tidy(coro.task_group(body))
    assert order == list(range(200))


def test_group_cancelled_before_its_body_returned_raises_task_cancelled() -> None:
    def body(group: TaskGroup) -> Coro[None]:
        group.cancel()
        yield from coro.sleep(1)

    def main() -> Coro[None]:
        with pytest.raises(TaskCancelled, match="before its body returned"):
            yield from coro.task_group(body)
        yield from coro.sleep(1)  # the cancellation has ended with the group

    run_tidy(main())


def test_task_spawned_into_a_cancelled_group_is_cancelled_at_its_first_request() -> None:
    ended = Ended()

    def body(group: TaskGroup) -> Coro[None]:
        group.cancel()
        group.spawn(ended.sleeper(10))
        yield from ()

    run_tidy(coro.task_group(body))
    assert ended.log == [(0, "cancelled")]


def test_generator_of_a_group_that_is_dropped_cancels_its_tasks() -> None:
    """Nobody can wait for them any more; but they do not go on as if nothing had happened."""
    ended = Ended()

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(ended.sleeper(10))
        yield from coro.checkpoint()

    def main() -> Coro[None]:
        dropped = coro.task_group(body)
        next(dropped)
        yield from coro.sleep(1)
        del dropped
        yield from coro.sleep(1)
        assert ended.log == [(1, "cancelled")]

    run_tidy(main())


# --- gather ----------------------------------------------------------------------------------------------------


def test_gather_returns_the_results_in_the_order_given() -> None:
    work = [returns(after, after=after) for after in (3, 1, 2)]
    assert run_tidy(coro.gather(*work)) == [3, 1, 2]


def test_gather_of_nothing_is_nothing() -> None:
    assert run_tidy(coro.gather()) == []


def test_gather_runs_everything_at_the_same_time() -> Coro[None]:
    yield from coro.gather(*[coro.sleep(5) for _ in range(10)])
    assert coro.now() == 5


def test_gather_raises_the_first_failure_and_cancels_the_rest() -> None:
    ended = Ended()
    with pytest.raises(LookupError):
        run_tidy(coro.gather(ended.sleeper(10), fails(LookupError(), after=1)))
    assert ended.log == [(1, "cancelled")]


def test_gather_of_what_is_no_generator_is_an_error() -> Coro[None]:
    with pytest.raises(TypeError, match="takes a generator"):
        yield from coro.gather(coro.sleep(1), 5)  # type: ignore[arg-type]
