"""Rows of uploads that finish together are committed together.

A commit costs the database and us about the same whether it has one row or many. So the rows that are ready go out as
one INSERT; those that become ready while it is under way go with the next. Each upload is answered after the commit
of its own row, and a row that the database refuses fails alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from apps.upload.store import OutcomeUnknown, StoreDown, Upload
from coro import Coro, Request, Task, background

WRITERS = 2  # INSERTs that may be under way at once
MAX_ROWS = 64  # in one INSERT


class RowWriter:
    """Gathers rows for `insert`, which commits all that it is given, or none and raises."""

    def __init__(self, insert: Callable[[Sequence[Upload]], Coro[None]]) -> None:
        self._insert = insert
        self._ready: deque[_Row] = deque()
        self._writers = 0

    def add(self, upload: Upload) -> Coro[None]:
        """Commit one row. Suspends. Raises what `insert` raises. When cancelled, the row may be written or not."""
        yield _Row(self, upload)

    def submit(self, row: _Row) -> None:
        self._ready.append(row)
        if self._writers < WRITERS and len(self._ready) == 1:
            self._writers += 1
            background(self._write(), name="row writer")  # it begins when all that are ready now have come here

    def _write(self) -> Coro[None]:
        try:
            while self._ready:
                yield from self._write_batch(self._next_batch())
        finally:
            self._writers -= 1

    def _next_batch(self) -> list[_Row]:
        """A power of two of rows: INSERTs of few different sizes, which stay prepared."""
        size = min(MAX_ROWS, 1 << (len(self._ready).bit_length() - 1))
        return [self._ready.popleft() for _ in range(size)]

    def _write_batch(self, batch: list[_Row]) -> Coro[None]:
        try:
            yield from self._insert([row.upload for row in batch])
        except StoreDown as error:
            for row in batch:
                row.fail(type(error)(error.server, error.reason))  # one of its own for each: it gets a traceback
        except Exception as error:
            if len(batch) == 1:
                batch[0].fail(error)
            else:
                for row in batch:
                    yield from self._write_batch([row])
        except BaseException:
            for row in batch:
                row.fail(OutcomeUnknown("the database", "the write was cancelled"))
            raise
        else:
            for row in batch:
                row.done()


class _Row(Request):
    """Wait for the commit of a row."""

    __slots__ = ("task", "upload", "writer")
    kind = "MySQL"  # for `coro top` and `coro run --stats`

    def __init__(self, writer: RowWriter, upload: Upload) -> None:
        self.writer = writer
        self.upload = upload
        self.task: Task[Any] | None = None

    def submit(self, task: Task[Any]) -> None:
        self.task = task
        self.writer.submit(self)

    def withdraw(self, task: Task[Any]) -> None:
        self.task = None  # the row is written all the same, which `add` has said

    def done(self) -> None:
        if self.task is not None:
            self.task.wake()

    def fail(self, error: Exception) -> None:
        if self.task is not None:
            self.task.fail(error)

    def __repr__(self) -> str:
        return f"the row of upload {self.upload.id}"
