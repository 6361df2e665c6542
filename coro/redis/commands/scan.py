"""Going through a large collection, a batch at a time.

    scan = redis.scan_iter(match="user:*")
    while batch := (yield from scan.next()):
        for key in batch:
            ...

A generator cannot both wait for the server and yield items to a loop; so what a `for` loop would do in one line takes
two, and the wait is seen. What is added or deleted meanwhile may be seen or not; what is there all the time is seen at
least once (https://redis.io/docs/latest/commands/scan/).
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Generic, TypeVar

from coro.task import Coro

B = TypeVar("B", bound=Sized)


class Scan(Generic[B]):
    """Batches of a collection, as SCAN, SSCAN, HSCAN and ZSCAN tell them. For one task at a time."""

    def __init__(self, page: Callable[[int], Coro[tuple[int, B]]]) -> None:
        """`page(cursor)` asks for a batch: the next cursor, which is 0 at the end, and the batch."""
        self._page = page
        self._cursor: int | None = 0

    def next(self) -> Coro[B | None]:
        """The next batch that is not empty; None when there is none. Suspends. What the command itself raises."""
        while self._cursor is not None:
            cursor, batch = yield from self._page(self._cursor)
            self._cursor = cursor or None
            if batch:
                return batch
        return None
