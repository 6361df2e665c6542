"""Rows a few at a time, for results that are not to be held in memory whole.

`AnswerRows` reads the answer itself as it comes. What is not read stays in the kernel, and the server waits
(backpressure): it holds its locks meanwhile, gives up after `net_write_timeout` (60 s), and the connection can do
nothing else. To leave in the middle means to close the connection, as for every answer that is not read to its end.

`CursorRows` asks for a number of rows each time, which the server keeps ready in a temporary table. That costs a
round trip each, and the server more, but the connection is free in between, and one can leave at any time.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Self

from coro.mysql.channel import Channel
from coro.mysql.columns import Column
from coro.mysql.commands import Answer, CommandPhase
from coro.mysql.errors import DatabaseError
from coro.mysql.rows import Row
from coro.task import Coro


class RowStream(abc.ABC):
    """The rows of one statement, in their order. For one task at a time; at the end of a `with` block, closed.

    with (yield from connection.stream("SELECT id, name FROM users")) as stream:
        while rows := (yield from stream.read()):
            ...
    """

    def __init__(self, channel: Channel, phase: CommandPhase, answer: Answer, sql: str) -> None:
        self.columns: tuple[Column, ...] = answer.reader.columns if answer.reader else ()
        self._channel = channel
        self._phase = phase
        self._answer = answer
        self._sql = sql
        self.on_close: Callable[[], None] | None = None  # called once, by `close`

    @property
    def ended(self) -> bool:
        """Whether all rows were read, or the stream was closed."""
        return self._answer.ended and not self._answer.rows

    @abc.abstractmethod
    def read(self) -> Coro[list[Row]]:
        """The next rows, at least one; none at the end. Suspends. Raises as `Queries.results`."""

    def close(self) -> None:
        """Lets go of the rows that were not read. Does not suspend; can be repeated."""
        self._let_go()
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()

    @abc.abstractmethod
    def _let_go(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._sql[:60]!r}, {'ended' if self.ended else 'open'}>"


class AnswerRows(RowStream):
    """Rows as they come. To close it before its end closes the connection."""

    def __init__(self, channel: Channel, phase: CommandPhase, answer: Answer, sql: str) -> None:
        super().__init__(channel, phase, answer, sql)
        if not answer.ended:
            channel.holder = self

    def read(self) -> Coro[list[Row]]:
        answer = self._answer
        if answer.rows or answer.ended:
            rows, answer.rows = answer.rows, []
            return rows
        try:
            return (yield from self._channel.perform(self._phase.more(answer), by=self))
        finally:
            if self.ended:
                self._channel.holder = None

    def _let_go(self) -> None:
        if not self._answer.ended:
            self._channel.give_up()
        self._answer.ended = True
        self._answer.rows.clear()


class CursorRows(RowStream):
    """Rows from a cursor of the server, `fetch_size` at a time."""

    def __init__(self, channel: Channel, phase: CommandPhase, answer: Answer, sql: str, fetch_size: int) -> None:
        super().__init__(channel, phase, answer, sql)
        self._fetch_size = fetch_size

    def read(self) -> Coro[list[Row]]:
        if self.ended:
            return []
        try:
            rows = yield from self._channel.perform(self._phase.fetch(self._answer, self._fetch_size))
        except DatabaseError:
            self._let_go()
            raise
        if self._answer.ended:
            self._discard()
        return rows

    def _let_go(self) -> None:
        if not self._answer.ended:
            self._answer.ended = True
            self._discard()

    def _discard(self) -> None:
        assert self._answer.statement is not None
        if not self._channel.closed:
            self._channel.send_ahead(self._phase.close_statement(self._answer.statement))
