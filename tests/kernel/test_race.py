"""`race`, and `gather` with a limit (coro/group.py)."""

from __future__ import annotations

import pytest

import coro
from coro import Coro
from tests.kernel.support import run_tidy


class Counter:
    """How many of its tasks run now, and how many at most ran at once."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.cancelled: list[float] = []

    def work(self, seconds: float) -> Coro[float]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            yield from coro.sleep(seconds)
        except coro.Cancelled:
            self.cancelled.append(seconds)
            raise
        finally:
            self.running -= 1
        return seconds


def fails(after: float) -> Coro[float]:
    yield from coro.sleep(after)
    raise LookupError(after)


def test_gather_runs_no_more_than_its_limit_at_a_time() -> None:
    counter = Counter()

    def main() -> Coro[float]:
        results = yield from coro.gather(*[counter.work(1) for _ in range(10)], limit=3)
        assert results == [1] * 10
        return coro.now()

    assert run_tidy(main()) == 4  # 3 + 3 + 3 + 1
    assert counter.most == 3


def test_gather_with_a_limit_keeps_the_order_given() -> None:
    counter = Counter()
    assert run_tidy(coro.gather(*map(counter.work, (3, 1, 2, 0.5)), limit=2)) == [3, 1, 2, 0.5]


def test_gather_with_a_limit_starts_the_next_when_one_has_ended() -> Coro[None]:
    counter = Counter()
    yield from coro.gather(*map(counter.work, (3, 1, 1, 1)), limit=2)
    assert coro.now() == 3


def test_gather_with_a_limit_that_is_never_reached() -> None:
    assert run_tidy(coro.gather(Counter().work(1), limit=5)) == [1]
    assert run_tidy(coro.gather(limit=5)) == []


def test_gather_with_a_limit_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="limit of 0"):
        run_tidy(coro.gather(coro.sleep(1), limit=0))


def test_failure_under_a_limit_cancels_what_runs_and_begins_nothing_more() -> None:
    counter = Counter()
    with pytest.raises(LookupError):
        run_tidy(coro.gather(counter.work(5), fails(1), counter.work(5), limit=2))
    assert (counter.cancelled, counter.most) == ([5], 1)


def test_race_gives_the_first_result_and_cancels_the_others() -> None:
    counter = Counter()

    def main() -> Coro[tuple[float, float]]:
        winner = yield from coro.race(*map(counter.work, (3, 1, 2)))
        return winner, coro.now()

    assert run_tidy(main()) == (1, 1)
    assert (sorted(counter.cancelled), counter.running) == ([2, 3], 0)


def test_race_of_two_that_end_together_has_one_winner() -> None:
    for seed in range(20):
        assert run_tidy(coro.race(Counter().work(1), Counter().work(1)), seed=seed) == 1


def test_race_raises_the_failure_that_comes_first() -> None:
    counter = Counter()
    with pytest.raises(LookupError):
        run_tidy(coro.race(counter.work(2), fails(1)))
    assert counter.cancelled == [2]


def test_race_that_is_cancelled_cancels_all_of_it() -> None:
    counter = Counter()

    def main() -> Coro[None]:
        with coro.move_on_after(1) as scope:
            yield from coro.race(*map(counter.work, (3, 2)))
        assert scope.cancelled_caught

    run_tidy(main())
    assert sorted(counter.cancelled) == [2, 3]


def test_race_of_nobody_is_an_error() -> None:
    with pytest.raises(ValueError, match="nobody"):
        run_tidy(coro.race())


def test_race_of_which_all_tasks_are_cancelled_has_no_result() -> None:
    def gives_up() -> Coro[float]:
        coro.current_task().cancel()
        yield from coro.checkpoint()
        return 1.0

    with pytest.raises(coro.TaskCancelled, match="race"):
        run_tidy(coro.race(gives_up()))


def test_race_of_what_is_no_generator_is_an_error() -> None:
    with pytest.raises(TypeError, match="takes a generator"):
        run_tidy(coro.race(5))  # type: ignore[arg-type]
