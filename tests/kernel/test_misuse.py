"""Mistakes that generators invite, and what is said of them."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

import coro
from coro import Coro
from coro.testing import run_virtual


def deaf(times: int) -> Coro[None]:
    for _ in range(times):
        try:
            yield from coro.sleep(1)
        except coro.Cancelled:
            continue


def test_task_that_swallows_cancelled_gets_it_at_each_request_and_is_reported_once(
    caplog: pytest.LogCaptureFixture,
) -> Coro[None]:
    with caplog.at_level(logging.WARNING), coro.move_on_after(0.5):
        yield from deaf(5000)
    assert coro.now() == 0.5  # no sleep took place after the limit
    [record] = caplog.records
    assert "let Cancelled pass" in record.getMessage()
    assert "test_misuse.py" in record.getMessage()  # where it waits


def test_cleaning_up_with_a_few_requests_is_not_reported(caplog: pytest.LogCaptureFixture) -> Coro[None]:
    with caplog.at_level(logging.WARNING), coro.move_on_after(0.5):
        yield from deaf(50)
    assert caplog.records == []


def test_generator_that_a_task_drives_cannot_be_given_to_another() -> Coro[None]:
    work = coro.sleep(1)

    def body(group: coro.TaskGroup) -> Coro[None]:
        group.spawn(work)
        yield from coro.checkpoint()
        with pytest.raises(coro.BusyError, match="sleep is driven by another task already"):
            group.spawn(work)

    yield from coro.task_group(body)


def test_generator_that_two_tasks_were_given_before_it_started_is_driven_by_the_first_alone() -> Coro[None]:
    work = coro.sleep(1)

    def body(group: coro.TaskGroup) -> Coro[None]:
        group.spawn(work, name="first")
        group.spawn(work, name="second")
        yield from ()

    with pytest.raises(coro.BusyError, match="sleep is driven by another task already") as caught:
        yield from coro.task_group(body)
    assert "in task 'second'" in caught.value.__notes__[0]


@pytest.mark.parametrize("together", [coro.gather, coro.race], ids=["gather", "race"])
def test_gather_and_race_refuse_one_generator_given_twice(together: Callable[..., Coro[object]]) -> Coro[None]:
    work = coro.sleep(1)
    with pytest.raises(coro.BusyError, match="sleep is driven by another task already"):
        yield from together(work, coro.sleep(2), work)


def delegates_to(work: Coro[None]) -> Coro[None]:
    yield from work


def test_generator_that_two_tasks_delegate_to_is_reported() -> Coro[None]:
    work = coro.sleep(1)

    def body(group: coro.TaskGroup) -> Coro[None]:
        group.spawn(delegates_to(work), name="first")
        yield from coro.checkpoint()
        group.spawn(delegates_to(naps(work)), name="second")

    def naps(work: Coro[None]) -> Coro[None]:
        yield from coro.sleep(0.5)
        yield from work  # drives the first one's sleep to its end

    with pytest.raises(coro.BusyError, match="task 'first' waits in sleep, which another task drives too"):
        yield from coro.task_group(body)


@pytest.mark.parametrize("seconds", [1, 0], ids=["waits", "gives way"])
def test_second_task_in_the_same_generator_is_told_at_its_first_wait(seconds: int) -> Coro[None]:
    def waits_twice() -> Coro[None]:
        yield from coro.sleep(1)
        yield from coro.sleep(seconds)

    work = waits_twice()

    def body(group: coro.TaskGroup) -> Coro[None]:
        group.spawn(delegates_to(work), name="first")
        yield from coro.checkpoint()
        second = group.spawn(delegates_to(work), name="second")
        yield from second.join()

    with pytest.raises(coro.BusyError, match=r"waits in .*which another task drives too"):
        yield from coro.task_group(body)


@pytest.mark.parametrize("run", [coro.run, run_virtual])
def test_generator_that_has_ended_cannot_be_run_again(run: Callable[[Coro[None]], None]) -> None:
    work = coro.sleep(0)
    run(work)
    with pytest.raises(coro.BusyError, match="sleep has ended: make a new generator"):
        run(work)
