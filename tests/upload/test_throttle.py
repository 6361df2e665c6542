"""How often something may be tried, on a clock of the test's."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from apps.upload.throttle import Throttle

New = Callable[[int], Throttle]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def new(tmp_path: Path, clock: Clock) -> New:
    """A process's own, with a burst of so many and another one every 10 seconds."""
    return lambda burst: Throttle(f"{tmp_path}/tried", burst, 10.0, clock)


def test_a_burst_then_a_steady_rate(new: New, clock: Clock) -> None:
    limited = new(3)
    assert [limited.attempt("a") for _ in range(5)] == [0, 0, 0, 10, 10]
    clock.now += 4
    assert limited.attempt("a") == 6
    clock.now += 6
    assert [limited.attempt("a") for _ in range(2)] == [0, 10]
    clock.now += 30
    assert [limited.attempt("a") for _ in range(4)] == [0, 0, 0, 10]


def test_keys_are_independent(new: New) -> None:
    limited = new(1)
    assert [limited.attempt(key) for key in "aab"] == [0, 10, 0]


def test_what_is_forgiven_does_not_count(new: New) -> None:
    limited = new(2)
    for _ in range(5):
        assert limited.attempt("a") == 0
        limited.forgive("a")
    limited.forgive("of nobody")
    assert [limited.attempt("a") for _ in range(3)] == [0, 0, 10]
    assert [limited.attempt("of nobody") for _ in range(3)] == [0, 0, 10]


def test_processes_count_together(new: New) -> None:
    assert [new(3).attempt("a") for _ in range(4)] == [0, 0, 0, 10]


def test_nobody_is_kept_out_by_a_clock_that_begins_anew(new: New, clock: Clock) -> None:
    limited = new(2)
    assert [limited.attempt("a") for _ in range(3)] == [0, 0, 10]
    clock.now = 5
    assert [limited.attempt("a") for _ in range(3)] == [0, 0, 10]


def test_somebody_can_get_in_to_make_room_on_a_full_disk(new: New, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    limited = new(1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert [limited.attempt("a") for _ in range(2)] == [0, 0]
    assert [limited.attempt("a") for _ in range(2)] == [0, 10]


def test_file_does_not_grow_beyond_its_places(new: New, tmp_path: Path) -> None:
    limited = new(2)
    for key in range(2000):
        assert limited.attempt(str(key)) == 0
    size = (tmp_path / "tried").stat().st_size
    assert size <= 8 << 20
