"""The queue of timers against a model: a plain sorted list (coro/timers.py)."""

from __future__ import annotations

import math
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from coro.timers import Timer, TimerQueue

TIMES = st.one_of(
    st.sampled_from([0.0, 0.5, 0.999, 1.0, 1.5, 2.0, 2.5, 3.0, 60.0, 1e9]), st.floats(0, 100), st.floats(0, 3)
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), TIMES),
        st.tuples(st.just("cancel"), st.integers(0, 100)),
        st.tuples(st.just("advance"), TIMES),
    ),
    max_size=60,
)


class Model:
    """The queue, beside a dict of what ought to be in it."""

    def __init__(self) -> None:
        self.queue = TimerQueue()
        self.now = 0.0
        self.called: list[int] = []
        self.timers: list[Timer] = []
        self.armed: dict[int, float] = {}

    def set(self, seconds: float) -> None:
        number = len(self.timers)
        when = self.now + seconds
        self.timers.append(self.queue.add(when, partial(self.called.append, number)))
        self.armed[number] = when

    def cancel(self, number: int) -> None:
        if number < len(self.timers):
            self.timers[number].cancel()
            self.armed.pop(number, None)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = sorted((when, number) for number, when in self.armed.items() if when <= self.now)
        for _, number in due:
            del self.armed[number]
        self.called.clear()
        while (action := self.queue.pop_due(self.now)) is not None:
            action()
        assert self.called == [number for _, number in due]

    def check(self) -> None:
        assert len(self.queue) == len(self.armed)
        first = min(self.armed.values(), default=math.inf)
        assert self.queue.next_due() <= first
        assert (self.queue.next_due() == math.inf) == (not self.armed)


@given(steps=STEPS)
def test_calls_are_made_in_order_once_and_never_before_their_time(steps: list[tuple[str, float]]) -> None:
    model = Model()
    for step, argument in steps:
        if step == "set":
            model.set(argument)
        elif step == "cancel":
            model.cancel(int(argument))
        else:
            model.advance(argument)
        model.check()
    model.advance(1e10)
    assert model.armed == {}
    assert model.queue.kept == 0


@given(seconds=TIMES)
def test_waiting_for_what_next_due_says_comes_to_the_call_in_few_steps(seconds: float) -> None:
    """It may tell a time that is too early once, when a far timer comes near; it must not spin."""
    queue = TimerQueue()
    now, called = 5.25, False
    queue.add(now + seconds, int)
    for _ in range(3):
        if not called:
            now = max(now, queue.next_due())
            called = queue.pop_due(now) is not None
    assert called
    assert now == 5.25 + seconds


def test_timer_that_is_cancelled_far_ahead_leaves_nothing_behind() -> None:
    queue = TimerQueue()
    queue.pop_due(0.0)
    for _ in range(1000):
        queue.add(60.0, int).cancel()
    assert queue.kept == 0


def test_timers_that_are_cancelled_near_are_swept() -> None:
    queue = TimerQueue()
    queue.pop_due(0.0)
    keep = [queue.add(0.5 + n / 1000, int) for n in range(10)]
    for _ in range(1000):
        queue.add(0.5, int).cancel()
    assert queue.kept <= 10 + 101
    assert len(queue) == len(keep)


def test_timer_at_infinity_is_never_due() -> None:
    queue = TimerQueue()
    timer = queue.add(math.inf, int)
    assert queue.next_due() == math.inf
    assert queue.pop_due(1e300) is None
    timer.cancel()
    assert queue.kept == 0


def test_cancelling_twice_or_after_the_call_changes_nothing() -> None:
    queue = TimerQueue()
    timer, other = queue.add(1.0, int), queue.add(90.0, int)
    assert queue.pop_due(1.0) is int
    timer.cancel()
    other.cancel()
    other.cancel()
    assert len(queue) == 0
    assert queue.pop_due(1e6) is None
