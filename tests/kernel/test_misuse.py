"""Mistakes that generators invite, and what is said of them."""

from __future__ import annotations

import logging

import pytest

import coro
from coro import Coro


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
    assert "timing.py" in record.getMessage()  # where it waits


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
