"""Cancellation and the errors that it meets: groups of them, children that were cancelled, blocks left open."""

from __future__ import annotations

import os
import time

import pytest

import coro
from coro import Coro, TaskGroup


def sleeper(log: list[str]) -> Coro[None]:
    log.append("begun")
    yield from coro.sleep(10)
    log.append("ended")


# --- A group whose tasks were cancelled has no result --------------------------------------------


def shielded() -> Coro[None]:
    with coro.shield():
        yield from coro.sleep(2)


@pytest.mark.parametrize("wait", [shielded, lambda: coro.to_thread(time.sleep, 0.01)], ids=["shield", "thread"])
def test_time_limit_that_strikes_the_tasks_of_a_group_is_not_lost(wait: object) -> Coro[None]:
    log: list[str] = []

    def body(group: TaskGroup) -> Coro[str]:
        group.spawn(sleeper(log))
        yield from coro.checkpoint()
        scope.deadline = coro.now()
        yield from wait()  # type: ignore[operator]
        return "all done"

    with pytest.raises(TimeoutError), coro.timeout(1) as scope:
        yield from coro.task_group(body)
    assert log == ["begun"]


def test_result_of_a_group_whose_tasks_had_ended_is_kept() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[str]:
        group.spawn(coro.sleep(0))
        yield from shielded()
        return "all done"

    with coro.move_on_after(1) as scope:
        result = yield from coro.task_group(body)
    assert result == "all done"
    assert not scope.cancelled_caught


def test_task_that_was_cancelled_by_itself_does_not_cancel_its_group() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[str]:
        task = group.spawn(sleeper([]))
        yield from coro.checkpoint()
        task.cancel()
        return "all done"

    assert (yield from coro.task_group(body)) == "all done"


# --- Cancelled in groups of errors ---------------------------------------------------------------


def regroups() -> Coro[None]:
    try:
        yield from coro.sleep(5)
    except* coro.Cancelled:
        raise


def adds_an_error() -> Coro[None]:
    try:
        yield from coro.sleep(5)
    except coro.Cancelled as cancelled:
        raise BaseExceptionGroup("both", [cancelled, ValueError("wrong")]) from None


def test_cancelled_in_a_group_of_errors_is_caught_by_its_scope() -> Coro[None]:
    with pytest.raises(TimeoutError), coro.timeout(1):
        yield from regroups()
    with coro.move_on_after(1) as scope:
        yield from regroups()
    assert scope.cancelled_caught


def test_what_else_is_in_the_group_goes_on() -> Coro[None]:
    with pytest.raises(ExceptionGroup) as caught, coro.move_on_after(1) as scope:
        yield from adds_an_error()
    assert scope.cancelled_caught
    assert [repr(error) for error in caught.value.exceptions] == ["ValueError('wrong')"]


@pytest.mark.parametrize("inner", [True, False], ids=["task", "body"])
def test_cancelled_in_a_group_of_errors_is_no_failure_of_a_group(inner: bool) -> Coro[None]:
    def body(group: TaskGroup) -> Coro[None]:
        if inner:
            group.spawn(regroups())
        yield from coro.checkpoint()
        coro.call_later(1, group.cancel)
        yield from regroups()

    with pytest.raises(coro.TaskCancelled):
        yield from coro.task_group(body)


def test_errors_beside_cancelled_are_the_groups_failures() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(adds_an_error())
        yield from coro.checkpoint()
        group.cancel()

    with pytest.raises(ExceptionGroup) as caught:
        yield from coro.task_group(body)
    assert [repr(error) for error in caught.value.exceptions] == ["ValueError('wrong')"]


def test_time_limit_says_what_was_waited_for() -> Coro[None]:
    with pytest.raises(TimeoutError, match="not done within 1 s, while waiting for sleep"), coro.timeout(1):
        yield from coro.sleep(5)


def test_block_that_is_cancelled_before_its_limit_says_so() -> Coro[None]:
    with pytest.raises(TimeoutError, match="cancelled before its time limit"), coro.timeout(5) as scope:
        scope.cancel()
        yield from coro.sleep(1)


def test_time_limit_that_is_no_number_is_refused() -> Coro[None]:
    with pytest.raises(ValueError, match="nan"), coro.timeout(float("nan")):
        pass
    yield from ()


def test_deadline_moved_into_the_past_strikes_at_the_next_request() -> Coro[None]:
    with coro.move_on_after(5) as scope:
        scope.deadline = coro.now() - 1
        yield from coro.checkpoint()
    assert scope.cancelled_caught


def test_deadline_that_is_moved_in_a_cancelled_scope_sets_no_timer() -> Coro[None]:
    loop = coro.current_task().loop
    with coro.move_on_after(5) as scope:
        scope.cancel()
        scope.deadline = coro.now() + 100
        assert len(loop.timers) == 0
        yield from coro.checkpoint()


def test_shield_has_no_deadline_and_says_so_before_it_is_entered() -> Coro[None]:
    shield = coro.shield()
    with pytest.raises(RuntimeError, match="a shield cannot be cancelled and has no deadline"):
        shield.deadline = coro.now() + 1
    with coro.move_on_after(1) as scope:
        yield from coro.sleep(2)
    assert scope.cancelled_caught


# --- Blocks left open ------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [lambda: coro.timeout(1), coro.shield], ids=["timeout", "shield"])
def test_block_that_a_generator_leaves_open_is_reported_at_the_end_of_the_task(limit: object) -> Coro[None]:
    kept: list[Coro[None]] = []

    def leaky() -> Coro[None]:
        with limit():  # type: ignore[operator]
            yield from coro.sleep(1)

    def child() -> Coro[None]:
        generator = leaky()
        kept.append(generator)
        next(generator)
        yield from coro.sleep(5)

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(child())
        yield from coro.sleep(10)

    with pytest.raises(RuntimeError, match="was a generator with an open `with timeout` or `with shield` block left"):
        yield from coro.task_group(body)


def test_calling_cancel_again_and_again_changes_nothing() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(sleeper([]))
        yield from coro.checkpoint()
        for _ in range(3):
            task.cancel()
        assert task.scope is not None
        assert task.scope.parent is group.scope

    yield from coro.task_group(body)


# --- What belongs to no group ------------------------------------------------------------------------


def test_call_that_fails_ends_the_run_in_good_order() -> None:
    log: list[str] = []

    def cleans_up() -> Coro[None]:
        try:
            yield from coro.sleep(10)
        finally:
            with coro.shield():
                yield from coro.sleep(0)
            log.append("cleaned up")

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(cleans_up())
        coro.call_later(0.001, lambda: os.environ["NO_SUCH_VARIABLE"])
        yield from coro.sleep(10)

    with pytest.raises(KeyError, match="NO_SUCH_VARIABLE"):
        coro.run(coro.task_group(body))
    assert log == ["cleaned up"]


def test_tasks_of_a_group_that_was_broken_off_are_waited_for() -> None:
    log: list[str] = []

    def child() -> Coro[None]:
        try:
            yield from coro.sleep(10)
        finally:
            with coro.shield():
                yield from coro.sleep(0.01)
            log.append("cleaned up")

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(child())
        yield from coro.sleep(10)

    def main() -> Coro[None]:
        broken_off = coro.task_group(body)
        next(broken_off)
        yield from coro.checkpoint()
        broken_off.close()

    coro.run(main())
    assert log == ["cleaned up"]


def test_only_its_body_waits_for_a_group() -> Coro[None]:
    def waits(group: TaskGroup) -> Coro[None]:
        yield group

    def body(group: TaskGroup) -> Coro[None]:
        yield group  # there is nothing to wait for
        group.spawn(waits(group))

    with pytest.raises(RuntimeError, match="only its own body waits for the end of group"):
        yield from coro.task_group(body)


def test_condition_that_is_abandoned_in_mid_wait_leaves_the_lock_to_its_holder() -> Coro[None]:
    condition = coro.Condition()

    def waiter() -> Coro[None]:
        with (yield from condition.acquire()):
            yield from condition.wait()

    abandoned = waiter()
    next(abandoned)
    with (yield from condition.acquire()):
        abandoned.close()
        assert condition._lock.locked()
    assert not condition._lock.locked()


def test_condition_cannot_be_used_with_the_lock_of_another_task() -> Coro[None]:
    condition = coro.Condition()

    def body(group: TaskGroup) -> Coro[None]:
        with (yield from condition.acquire()):
            group.spawn(condition.wait())
            yield from coro.sleep(1)

    with pytest.raises(RuntimeError, match="wait of a Condition whose lock this task does not hold"):
        yield from coro.task_group(body)


# --- Operations that need not wait let others run ------------------------------------------------------


def queue_forever() -> Coro[None]:
    queue: coro.Queue[int] = coro.Queue()
    while True:
        yield from queue.put(1)
        yield from queue.get()


def lock_forever() -> Coro[None]:
    lock = coro.Lock()
    while True:
        with (yield from lock.acquire()):
            pass


def event_forever() -> Coro[None]:
    event = coro.Event()
    event.set()
    while True:
        yield from event.wait()


@pytest.mark.parametrize("endless", [queue_forever, lock_forever, event_forever])
def test_time_limit_strikes_a_loop_that_never_has_to_wait(endless: object) -> None:
    def main() -> Coro[None]:
        with coro.move_on_after(0.01):
            yield from endless()  # type: ignore[operator]

    coro.run(main())
