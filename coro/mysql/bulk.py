"""Many rows for one statement: what carries many of them at once, and how many go into one packet.

MariaDB has a command for it, COM_STMT_BULK_EXECUTE, which runs a prepared statement for each row of a batch:

    2 bytes a parameter        its type, which all rows of the batch share
    for each parameter of each row
      1 byte                   0: the value follows, 1: NULL
      n bytes                  the value, as in COM_STMT_EXECUTE

For other servers, `INSERT INTO t (a, b) VALUES (?, ?)` becomes `... VALUES (?, ?), (?, ?), ...`.

Both are done only where they cannot go wrong: an INSERT or REPLACE with one group of values behind VALUES that holds
all placeholders, no quotation marks in the group or before it, and at most an ON DUPLICATE KEY UPDATE or RETURNING
behind it. For the command, each placeholder must stand there by itself: MariaDB (10.11) computes an expression once and
uses it for all rows, in some places. It runs any UPDATE or DELETE row by row, and rightly. Everything else is sent row
by row.

Source: "COM_STMT_BULK_EXECUTE" in MariaDB's protocol documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Final

from coro.mysql.constants import CR_INVALID_PARAMETER_NO, MYSQL_TYPE_NULL
from coro.mysql.errors import ProgrammingError
from coro.mysql.parameters import Parameter, encode_parameter

MAX_PLACEHOLDERS: Final = 0xFFFF  # the protocol counts them in two bytes
MAX_ROWS: Final = 1000  # beyond this, rows are no cheaper in one statement
MAX_BYTES: Final = 1 << 20  # of one packet, where the server takes that much
_HEAD: Final = 16  # bytes of a packet around what is counted here
_SIZE_OF_OTHERS: Final = 16
_SIZE_OF_DECIMAL: Final = 96
_NULL_TYPE: Final = bytes((MYSQL_TYPE_NULL, 0))

_INSERT: Final = re.compile(
    r"""
    (?P<head> \s* (?:INSERT|REPLACE) \b [^?'"]* \b VALUES? \s* )
    (?P<group> \( (?: [^()'"] | \( [^()'"]* \) )* \) )          # parentheses nest once: (?, NOW(6), ?)
    (?P<tail> \s* (?: (?: ON \s+ DUPLICATE \s+ KEY \s+ UPDATE | RETURNING ) \b [^?]* )? )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_ROW_BY_ROW: Final = re.compile(r"\s*(?:UPDATE|DELETE)\b", re.IGNORECASE)  # as the server runs it

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

    def is_plain(self) -> bool:
        """Whether every placeholder is a value by itself, and no part of an expression."""
        return all(value.strip() == "?" for value in self._group[1:-1].split(",") if "?" in value)

    def sql(self, rows: int) -> str:
        """The statement for so many rows."""
        return f"{self._head}{', '.join([self._group] * rows)}{self._tail}"

    def batches(self, rows: Iterable[Parameters], room: int) -> Iterator[list[Parameters]]:
        """Cuts the rows into what goes into one statement each, of at most `room` bytes unless one row is longer.

        Takes them as they are needed. ProgrammingError for a row with too few or many values.
        """
        room = min(room, MAX_BYTES) - _HEAD
        fitting = (room - len(self._head.encode()) - len(self._tail.encode())) // (len(self._group.encode()) + 2)
        most = max(1, min(MAX_ROWS, MAX_PLACEHOLDERS // self.placeholders, fitting))
        batch: list[Parameters] = []
        size = 0
        for row in rows:
            _check_row(row, self.placeholders)
            row_size = sum(map(_size, row))
            if batch and (len(batch) == most or size + row_size > room):
                yield batch
                batch, size = [], 0
            batch.append(row)
            size += row_size
        if batch:
            yield batch


def suits_bulk(sql: str, insert: MultiRowInsert | None) -> bool:
    """Whether MariaDB does the right thing when it is given many rows at once for this statement."""
    return insert.is_plain() if insert is not None else bool(_ROW_BY_ROW.match(sql))


def bulk_batches(rows: Iterable[Parameters], parameters: int, room: int) -> Iterator[bytes]:
    """Cuts the rows into what goes into one COM_STMT_BULK_EXECUTE each, behind its head.

    A batch has at most `room` bytes unless one row is longer, and ends where a parameter changes its type. Takes the
    rows as they are needed. Raises as `encode_parameters`.
    """
    room = min(room, MAX_BYTES) - _HEAD - 2 * parameters
    types: _Types = []
    batch: list[bytes] = []
    size = 0
    for row in rows:
        _check_row(row, parameters)
        row_types, data = _encode_row(row)
        common = types if row_types == types else _common(types, row_types)
        if batch and (common is None or size + len(data) > room):
            yield _join(types, batch)
            batch, size, common = [], 0, None
        types = row_types if common is None or not batch else common
        batch.append(data)
        size += len(data)
    if batch:
        yield _join(types, batch)


def _check_row(row: Parameters, due: int) -> None:
    """ProgrammingError unless this is a row, and has as many values as are due."""
    if type(row) is not tuple and (not isinstance(row, Sequence) or isinstance(row, (str, bytes, bytearray))):
        raise ProgrammingError(f"a row is a tuple or list of values, not a {type(row).__qualname__}")
    if len(row) != due:
        message = f"{due} parameters are due, and {len(row)} were given"
        raise ProgrammingError(message, CR_INVALID_PARAMETER_NO)


_Types = list[bytes | None]  # of each parameter; None where it was always NULL


def _encode_row(row: Parameters) -> tuple[_Types, bytes]:
    types: _Types = []
    parts: list[bytes] = []
    for index, value in enumerate(row):
        if value is None:
            types.append(None)
            parts.append(b"\x01")
        else:
            kind, data = encode_parameter(index, value)
            types.append(kind)
            parts += (b"\x00", data)
    return types, b"".join(parts)


def _common(types: _Types, others: _Types) -> _Types | None:
    """The types that fit both, or None."""
    common = [one or other for one, other in zip(types, others, strict=False)]
    fits = all(other is None or kind == other for kind, other in zip(common, others, strict=False))
    return common if fits else None


def _join(types: _Types, data: list[bytes]) -> bytes:
    return b"".join([kind or _NULL_TYPE for kind in types] + data)


def _size(value: Parameter) -> int:
    """At most how many bytes a value takes, nearly."""
    if isinstance(value, str):
        return len(value) if value.isascii() else 4 * len(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return len(value)
    return _SIZE_OF_DECIMAL if isinstance(value, Decimal) else _SIZE_OF_OTHERS
