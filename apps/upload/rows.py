"""Rows of uploads that finish together are committed together.

A commit costs the database and us about the same whether it has one row or many. So the rows that are ready go out as
one INSERT. Each upload is answered after the commit of its own row, and a row that the database refuses fails alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from apps.upload.batches import Batches
from apps.upload.store import StoreDown, Upload
from coro import Coro


class RowWriter(Batches[Upload]):
    """Gathers rows for `insert`, which commits all that it is given, or none and raises.

    INSERTs have a power of two of rows: there are few different ones, which stay prepared.
    """

    name = "row writer"
    kind = "MySQL"
    at_once = 2

    def __init__(self, insert: Callable[[Sequence[Upload]], Coro[None]]) -> None:
        super().__init__()
        self._insert = insert

    def work(self, batch: Sequence[Upload]) -> Coro[Sequence[Exception | None]]:
        try:
            yield from self._insert(batch)
        except StoreDown as error:
            return [type(error)(error.server, error.reason) for _ in batch]  # one each: it gets a traceback of its own
        except Exception as error:
            if len(batch) == 1:
                return [error]
            outcomes: list[Exception | None] = []
            for row in batch:
                outcomes += yield from self.work([row])
            return outcomes
        return [None] * len(batch)
