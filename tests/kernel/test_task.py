"""Tasks and their cancellation (coro/task.py)."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Generator
from typing import Any

import pytest

import coro
from coro import Cancelled, CancelScope, Coro, Request, Task, TaskCancelled, TaskGroup
from tests.kernel.support import run_tidy


def in_group(body: Callable[[TaskGroup], Coro[Any]]) -> None:
    """Run `body` in a task group, in virtual time; nothing may be left behind in the loop."""
    run_tidy(coro.task_group(body))


def returns(value: int, after: float = 1) -> Coro[int]:
    yield from coro.sleep(after)
    return value


def fails(error: BaseException, after: float = 1) -> Coro[None]:
    yield from coro.sleep(after)
    raise error


# --- The end of a task --------------------------------------------------------------------


def test_join_returns_the_result() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[int]:
        return (yield from group.spawn(returns(7)).join())

    assert (yield from coro.task_group(body)) == 7


def test_join_of_an_ended_task_returns_at_once() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[int]:
        task = group.spawn(returns(7))
        yield from coro.sleep(2)
        before = coro.now()
        assert (yield from task.join()) == 7
        assert coro.now() == before
        return task.result()

    assert (yield from coro.task_group(body)) == 7


def test_join_raises_what_the_task_raised() -> Coro[None]:
    error = ValueError("wrong")

    def body(group: TaskGroup) -> Coro[None]:
        with pytest.raises(ValueError) as caught:
            yield from group.spawn(fails(error)).join()
        assert caught.value is error

    with pytest.raises(ValueError):
        yield from coro.task_group(body)


def test_join_of_a_cancelled_task_raises_task_cancelled_and_does_not_cancel_the_joiner() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[str]:
        task = group.spawn(coro.sleep_forever(), name="idler")
        yield from coro.checkpoint()
        task.cancel()
        with pytest.raises(TaskCancelled, match="'idler'"):
            yield from task.join()
        yield from coro.checkpoint()
        return "went on"

    assert (yield from coro.task_group(body)) == "went on"


def test_every_joiner_gets_the_result() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[list[int]]:
        task = group.spawn(returns(7))
        return (yield from coro.gather(task.join(), task.join(), task.join()))

    assert (yield from coro.task_group(body)) == [7, 7, 7]


def test_joiner_that_gives_up_leaves_the_task_and_other_joiners_alone() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(returns(7, after=10))
        other = group.spawn(task.join())
        with coro.move_on_after(1) as scope:
            yield from task.join()
        assert scope.cancelled_caught
        assert task.joiners == {other: None}
        assert (yield from other.join()) == 7

    yield from coro.task_group(body)


def test_task_that_joins_itself_is_told_so() -> Coro[None]:
    with pytest.raises(RuntimeError, match="joins itself"):
        yield from coro.current_task().join()


def test_result_of_a_task_that_has_not_ended_is_an_error() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(returns(7))
        with pytest.raises(RuntimeError, match=r"use `yield from task\.join\(\)`"):
            task.result()
        yield from ()

    yield from coro.task_group(body)


def test_error_names_the_task_that_failed() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(fails(ValueError("wrong")), name="the worker")
        yield from ()

    with pytest.raises(ValueError) as caught:
        yield from coro.task_group(body)
    assert caught.value.__notes__[0].startswith("in task 'the worker' of group 'test_error_names")


def test_repr_shows_what_a_task_waits_for_and_how_it_ended() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[None]:
        good, bad = group.spawn(returns(1, after=5), name="good"), group.spawn(fails(ValueError("no"), 7), name="bad")
        seen = [repr(good)]
        yield from coro.sleep(1)
        seen.append(repr(good))
        yield from coro.sleep(5)
        seen.append(repr(good))
        try:
            yield from coro.sleep(5)
        finally:
            assert [*seen, repr(bad)] == [
                "<Task 'good' ready>",
                "<Task 'good' waiting for sleep until +4.0 s>",
                "<Task 'good' done>",
                "<Task 'bad' failed: ValueError('no')>",
            ]

    with pytest.raises(ValueError):
        yield from coro.task_group(body)


def test_unnamed_task_is_called_after_its_generator() -> Coro[None]:
    assert coro.current_task().name == "test_unnamed_task_is_called_after_its_generator"
    yield from ()


def test_no_task_is_current_outside_of_run() -> None:
    with pytest.raises(RuntimeError, match=r"coro\.run"):
        coro.current_task()


# --- What may be driven and yielded --------------------------------------------------------


@pytest.mark.parametrize("work", [returns, None, [1], coro.checkpoint()], ids=["function", "None", "list", "tuple"])
def test_only_generators_can_be_spawned(work: Any) -> Coro[None]:
    def body(group: TaskGroup) -> Coro[None]:
        with pytest.raises(TypeError, match=r"group\.spawn\(\) takes a generator, as in group\.spawn\(work\(\)\)"):
            group.spawn(work)
        yield from ()

    yield from coro.task_group(body)


class Awaitable:
    def __await__(self) -> Generator[None, None, None]:
        yield


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (None, r"yield from coro\.checkpoint\(\)"),
        (returns(1), r"write `yield from returns\(\.\.\.\)` instead of `yield returns"),
        (Awaitable(), "asyncio"),
        (5, "5, which is not a request"),
        (Request, "not a request"),
    ],
    ids=["None", "generator", "awaitable", "number", "class"],
)
def test_yielding_what_is_not_a_request_raises_an_error_with_the_likely_mistake(value: Any, hint: str) -> Coro[None]:
    with pytest.raises(TypeError, match=hint):
        yield value
    yield from coro.sleep(1)  # the task goes on as if nothing had happened


def test_error_of_submit_is_raised_at_the_request() -> Coro[None]:
    class Broken(Request):
        def submit(self, task: Task[Any]) -> None:
            raise LookupError("cannot arm this")

    with pytest.raises(LookupError, match="cannot arm this"):
        yield Broken()
    assert coro.current_task().error is None


def test_falsy_values_are_sent_as_they_are() -> Coro[None]:
    class Gives(Request):
        def __init__(self, value: object) -> None:
            self.value = value

        def submit(self, task: Task[Any]) -> None:
            task.wake(self.value)

    values: tuple[object, ...] = (None, 0, "", False, [])
    for value in values:
        got = yield Gives(value)
        assert got is value


def test_each_task_has_its_own_context() -> Coro[None]:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    def child(name: str) -> Coro[list[str]]:
        inherited = variable.get()
        variable.set(name)
        yield from coro.checkpoint()
        return [inherited, variable.get()]

    variable.set("parent")
    assert (yield from coro.gather(child("a"), child("b"))) == [["parent", "a"], ["parent", "b"]]
    assert variable.get() == "parent"


# --- Cancelling a task -----------------------------------------------------------------------


def test_cancelled_task_raises_again_at_each_request_until_its_end() -> None:
    raised = 0

    def stubborn() -> Coro[str]:
        nonlocal raised
        for _ in range(3):
            try:
                yield from coro.sleep(10)
            except Cancelled:
                raised += 1
        return "its own way"

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(stubborn())
        yield from coro.sleep(1)
        task.cancel()
        assert (yield from task.join()) == "its own way"
        assert (raised, coro.now()) == (3, 1)

    in_group(body)


def test_except_exception_does_not_stop_cancellation() -> None:
    def careless() -> Coro[None]:
        try:
            yield from coro.sleep(10)
        except Exception:
            raise AssertionError from None

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(careless())
        yield from coro.checkpoint()
        task.cancel()
        with pytest.raises(TaskCancelled):
            yield from task.join()

    in_group(body)


def test_task_cancelled_before_it_started_runs_up_to_its_first_request() -> None:
    seen: list[str] = []

    def work() -> Coro[None]:
        try:
            seen.append("started")
            yield from coro.sleep(10)
            seen.append("went on")
        finally:
            seen.append("cleaned up")

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(work()).cancel()
        yield from ()

    in_group(body)
    assert seen == ["started", "cleaned up"]


def test_task_can_cancel_itself() -> None:
    def work() -> Coro[None]:
        coro.current_task().cancel()
        yield from coro.sleep(10)

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(work())
        with pytest.raises(TaskCancelled):
            yield from task.join()
        assert coro.now() == 0

    in_group(body)


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_cancel_reaches_through_the_scopes_that_a_task_has_open(depth: int, times: int) -> None:
    def nested(depth: int) -> Coro[None]:
        if depth:
            with CancelScope() as scope:
                yield from nested(depth - 1)
            raise AssertionError(f"{scope} caught what was not its own")
        yield from coro.sleep(10)

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(nested(depth))
        yield from coro.sleep(1)
        for _ in range(times):
            task.cancel()
        with pytest.raises(TaskCancelled):
            yield from task.join()
        assert coro.now() == 1

    in_group(body)


def test_cancel_reaches_the_tasks_in_the_groups_of_a_task() -> None:
    ended: list[str] = []

    def leaf() -> Coro[None]:
        try:
            yield from coro.sleep(10)
        finally:
            ended.append("leaf")

    def inner() -> Coro[None]:
        try:
            yield from coro.gather(leaf(), coro.gather(leaf(), leaf()))
        finally:
            ended.append("inner")

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(inner())
        yield from coro.sleep(1)
        task.cancel()
        with pytest.raises(TaskCancelled):
            yield from task.join()
        assert ended == ["leaf", "leaf", "leaf", "inner"]

    in_group(body)


def test_cancel_leaves_siblings_alone() -> None:
    def body(group: TaskGroup) -> Coro[None]:
        doomed, other = group.spawn(returns(1, after=5)), group.spawn(returns(2, after=5))
        yield from coro.sleep(1)
        doomed.cancel()
        assert (yield from other.join()) == 2
        assert coro.now() == 5

    in_group(body)


def test_cancelling_an_ended_task_does_nothing() -> None:
    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(returns(7))
        yield from task.join()
        task.cancel()
        assert task.result() == 7

    in_group(body)


def test_task_that_ended_in_the_turn_of_its_cancellation_keeps_its_result() -> None:
    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(returns(7, after=1))
        yield from coro.sleep(1)  # both are ready now, and the task is behind us
        task.cancel()
        assert (yield from task.join()) == 7

    in_group(body)


def test_groups_nested_more_deeply_than_pythons_stack_are_cancelled() -> None:
    def nest(depth: int) -> Coro[None]:
        if depth:
            yield from coro.gather(nest(depth - 1))
        else:
            yield from coro.sleep_forever()

    def main() -> Coro[None]:
        with coro.move_on_after(1) as scope:
            yield from nest(1500)
        assert scope.cancelled_caught

    run_tidy(main())
