"""How often something may be tried, on a clock of the test's."""

from __future__ import annotations

from apps.upload import throttle
from apps.upload.throttle import Throttle


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_a_steady_rate() -> None:
    clock = Clock()
    limited = Throttle(3, 10.0, clock)
    assert [limited.attempt("a") for _ in range(5)] == [0, 0, 0, 10, 10]
    clock.now += 4
    assert limited.attempt("a") == 6
    clock.now += 6
    assert [limited.attempt("a") for _ in range(2)] == [0, 10]
    clock.now += 30
    assert [limited.attempt("a") for _ in range(4)] == [0, 0, 0, 10]


def test_keys_are_independent() -> None:
    limited = Throttle(1, 10.0, Clock())
    assert [limited.attempt(key) for key in "aab"] == [0, 10, 0]


def test_what_is_forgiven_does_not_count() -> None:
    limited = Throttle(2, 10.0, Clock())
    for _ in range(5):
        assert limited.attempt("a") == 0
        limited.forgive("a")
    limited.forgive("of nobody")
    assert [limited.attempt("a") for _ in range(3)] == [0, 0, 10]


def test_keys_are_bounded_and_the_longest_unused_is_forgotten() -> None:
    limited = Throttle(2, 10.0, Clock())
    for key in range(throttle.KEYS):
        limited.attempt(key)
    limited.attempt(0)
    limited.attempt("one more")  # which 1 has to go for
    assert [limited.attempt(key) for key in (0, 2, 2, 1, 1)] == [10, 0, 10, 0, 0]
