"""Rows that become ready together are committed together, each upload answered after its own commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

import coro
from apps.upload.batches import MAX_SIZE
from apps.upload.rows import RowWriter
from apps.upload.store import OutcomeUnknown, StoreDown, Upload
from coro import Coro, CoroError

Outcome = Callable[[Sequence[Upload]], Exception | None]


def upload(number: int) -> Upload:
    return Upload(str(number), 1, f"name {number}", f"files/{number}", 1, None)


class Table:
    """What is inserted into, slowly; `outcome` may refuse it."""

    def __init__(self, outcome: Outcome = lambda uploads: None) -> None:
        self.inserts: list[list[int]] = []
        self.committed: list[int] = []
        self.at_once = self.most_at_once = 0
        self._outcome = outcome

    def insert(self, uploads: Sequence[Upload]) -> Coro[None]:
        numbers = [int(row.id) for row in uploads]
        self.inserts.append(numbers)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            for _ in range(10):
                yield from coro.checkpoint()
            error = self._outcome(uploads)
            if error is not None:
                raise error
            self.committed += numbers
        finally:
            self.at_once -= 1


def add_all(table: Table, count: int) -> list[Exception | None]:
    """Add rows at once; what each `add` raised."""
    writer = RowWriter(table.insert)

    def add(number: int) -> Coro[Exception | None]:
        try:
            yield from writer.add(upload(number))
        except CoroError as error:
            return error
        assert number in table.committed
        return None

    return coro.run(coro.gather(*(add(number) for number in range(count))))


def test_rows_that_are_ready_together_are_one_insert() -> None:
    table = Table()
    assert add_all(table, 8) == [None] * 8
    assert table.inserts == [list(range(8))]


def test_inserts_have_few_different_sizes() -> None:
    table = Table()
    add_all(table, 300)
    assert sorted(table.committed) == list(range(300))
    assert {len(rows) for rows in table.inserts} <= {1, 2, 4, 8, 16, 32, MAX_SIZE}


def test_a_bounded_number_of_inserts_is_under_way_at_once() -> None:
    table = Table()
    writer = RowWriter(table.insert)

    def add_later(number: int) -> Coro[None]:
        for _ in range(number):
            yield from coro.checkpoint()
        yield from writer.add(upload(number))

    coro.run(coro.gather(*(add_later(number) for number in range(50))))
    assert sorted(table.committed) == list(range(50))
    assert table.most_at_once == RowWriter.at_once


def test_a_row_that_is_refused_fails_alone() -> None:
    def refuse(uploads: Sequence[Upload]) -> Exception | None:
        return CoroError("does not fit") if any(row.id == "3" for row in uploads) else None

    table = Table(refuse)
    failures = add_all(table, 8)
    assert [str(failure) for failure in failures if failure] == ["does not fit"]
    assert failures[3] is not None
    assert sorted(table.committed) == [0, 1, 2, 4, 5, 6, 7]


@pytest.mark.parametrize("kind", [StoreDown, OutcomeUnknown])
def test_when_the_store_is_down_each_fails_with_an_error_of_its_own(kind: type[StoreDown]) -> None:
    table = Table(lambda uploads: kind("MySQL", "lost"))
    failures = add_all(table, 8)
    assert len(table.inserts) == 1
    assert {type(failure) for failure in failures} == {kind}
    assert len({id(failure) for failure in failures}) == 8


def test_a_caller_that_is_cancelled_does_not_hold_up_the_others() -> None:
    table = Table()
    writer = RowWriter(table.insert)

    def body(group: coro.TaskGroup) -> Coro[None]:
        first = group.spawn(writer.add(upload(1)))
        second = group.spawn(writer.add(upload(2)))
        while not table.inserts:
            yield from coro.checkpoint()
        first.cancel()
        yield from second.join()

    coro.run(coro.task_group(body))
    assert table.committed == [1, 2]
