"""Many rows for one statement: which INSERT can carry them all at once, and how many go into one packet.

`INSERT INTO t (a, b) VALUES (?, ?)` becomes `... VALUES (?, ?), (?, ?), ...`. That is done only where it
cannot be mistaken: INSERT or REPLACE, one group of values behind VALUES that holds all placeholders, no
quotation marks in the group or before it, and at most an ON DUPLICATE KEY UPDATE behind it. Everything else
is run row by row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from coro.mysql.parameters import Parameter

MAX_PLACEHOLDERS: Final = 0xFFFF  # the protocol counts them in two bytes
MAX_ROWS: Final = 1000  # beyond this, rows are no cheaper in one statement
MAX_BYTES: Final = 1 << 20  # of one packet, roughly; far below any server's max_allowed_packet
_SIZE_OF_OTHERS: Final = 16

_INSERT: Final = re.compile(
    r"""
    (?P<head> \s* (?:INSERT|REPLACE) \b [^?'"]* \b VALUES? \s* )
    (?P<group> \( (?: [^()'"] | \( [^()'"]* \) )* \) )          # parentheses nest once: (?, NOW(6), ?)
    (?P<tail> \s* (?: ON \s+ DUPLICATE \s+ KEY \s+ UPDATE \b [^?]* )? )
    """,
    re.IGNORECASE | re.VERBOSE,
)

Parameters = Sequence[Parameter]


class MultiRowInsert:
    """An INSERT whose group of values can be repeated."""

    def __init__(self, head: str, group: str, tail: str) -> None:
        self._head = head
        self._group = group
        self._tail = tail
        self.placeholders = group.count("?")

    @classmethod
    def of(cls, sql: str) -> MultiRowInsert | None:
        """The statement taken apart, or None if it is not such an INSERT."""
        match = _INSERT.fullmatch(sql)
        if match is None or "?" not in match["group"]:
            return None
        return cls(match["head"], match["group"], match["tail"])

    def sql(self, rows: int) -> str:
        """The statement for so many rows."""
        return f"{self._head}{', '.join([self._group] * rows)}{self._tail}"

    def batches(self, rows: Iterable[Parameters]) -> Iterator[list[Parameters]]:
        """Cuts the rows into what goes well into one packet each. Takes them as they are needed."""
        most = max(1, min(MAX_ROWS, MAX_PLACEHOLDERS // self.placeholders))
        batch: list[Parameters] = []
        size = 0
        for row in rows:
            row_size = sum(len(v) if isinstance(v, (str, bytes, bytearray)) else _SIZE_OF_OTHERS for v in row)
            if batch and (len(batch) == most or size + row_size > MAX_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(row)
            size += row_size
        if batch:
            yield batch
