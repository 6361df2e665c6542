"""What becomes ready together is done together; rows and files show the rest: test_rows.py, test_storage.py."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

import coro
from apps.upload.batches import Batches
from coro import Coro, CoroError


class Slow(Batches[int]):
    """Each batch takes a second."""

    name = "clerk"
    at_once = 3
    patience = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[tuple[float, list[int]]] = []

    def work(self, batch: Sequence[int]) -> Coro[Sequence[Exception | None]]:
        self.begun.append((coro.now(), list(batch)))
        yield from coro.sleep(1)
        return [None] * len(batch)


def add_at(batches: Slow, *times: float) -> Coro[None]:
    def add(number: int, seconds: float) -> Coro[None]:
        yield from coro.sleep(seconds)
        yield from batches.add(number)

    yield from coro.gather(*(add(number, seconds) for number, seconds in enumerate(times)))


def test_another_batch_begins_beside_one_that_has_taken_long() -> Coro[None]:
    batches = Slow()
    yield from add_at(batches, 0, 0.25, 0.625, 0.75, 1.25)
    assert batches.begun == [
        (0, [0]),
        (0.625, [1, 2]),  # the first was too young at 0.25
        (1, [3]),  # when the first had ended
        (1.625, [4]),  # when the second had
    ]


def test_a_bounded_number_of_batches_is_under_way() -> Coro[None]:
    batches = Slow()
    yield from add_at(batches, 0, 0.5, 1 - 1 / 64, 1 - 1 / 64)
    yield from add_at(batches, *[0.0] * 200)
    assert [len(batch) for _, batch in batches.begun[3:]] == [64, 64, 64, 8]


def test_what_is_added_goes_on_when_its_own_batch_has_ended() -> Coro[None]:
    batches = Slow()
    ended: dict[int, float] = {}

    def add(number: int) -> Coro[None]:
        yield from coro.sleep(number / 4)
        yield from batches.add(number)
        ended[number] = coro.now()

    yield from coro.gather(*(add(number) for number in range(4)))
    assert ended == {0: 1, 1: 1.5, 2: 1.5, 3: 2}


def test_when_the_work_breaks_off_each_fails_with_an_error_of_its_own() -> Coro[None]:
    class Broken(Slow):
        def work(self, batch: Sequence[int]) -> Coro[Sequence[Exception | None]]:
            yield from coro.checkpoint()
            raise KeyError(len(batch))

    batches = Broken()
    errors: list[CoroError] = []

    def add() -> Coro[None]:
        with pytest.raises(CoroError, match=r"the clerk was stopped by KeyError\(2\)") as caught:
            yield from batches.add(1)
        errors.append(caught.value)

    for _ in range(2):  # and it goes on
        yield from coro.gather(add(), add())
    assert len({id(error) for error in errors}) == 4
