"""Column definitions, and which Python value each column's cells become.

    INT and its sizes, YEAR, BIT   int                DATE                 date, or None for a zero date
    FLOAT, DOUBLE                  float              DATETIME, TIMESTAMP  datetime, or None for a zero date
    DECIMAL                        Decimal            TIME                 timedelta
    CHAR, TEXT, ENUM, SET, JSON    str                BINARY, BLOB, GEOMETRY, VECTOR   bytes

A NULL is None. FLOAT has its exact 32-bit value in the binary protocol and MySQL's six digits in the text
protocol.

Cells are decoded a column at a time: `Decoder` takes the raw cells that one column has in many rows, so that
the loop over them runs in C (`map`) and not in the interpreter.

Source: "Column Definition", "Text Resultset Row" and "Binary Protocol Value" in the client/server protocol
manual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from struct import Struct
from typing import Any, Final, NamedTuple

from coro.mysql import constants as c
from coro.mysql import temporal
from coro.mysql.errors import ProtocolError
from coro.mysql.packets import Payload, lenenc_int

Cells = list[Any]  # bytes, or None for NULL; in the binary protocol also int and float
Decoder = Callable[[Cells], Iterable[Any]]


class Column(NamedTuple):
    """What a result set says of one of its columns."""

    name: str
    type: int
    charset: int
    length: int
    flags: int
    decimals: int


_COLUMN_TAIL: Final = Struct("<BHIBHB")  # length of the rest, charset, length, type, flags, decimals


def parse_column(payload: bytes) -> Column:
    """Reads a ColumnDefinition41. Raises ProtocolError."""
    position = 0
    try:
        for _ in range(4):  # catalog, schema, table, org_table
            length, position = lenenc_int(payload, position)
            position += length
    except IndexError:
        raise ProtocolError("a column definition is cut off") from None
    fields = Payload(payload, position)
    name = fields.lenenc_bytes().decode("utf-8", "replace")
    fields.lenenc_bytes()  # org_name
    _, charset, length, kind, flags, decimals = _COLUMN_TAIL.unpack(fields.take(_COLUMN_TAIL.size))
    return Column(name, kind, charset, length, flags, decimals)


def _decoder(fast: Callable[[Cells], Iterable[Any]], one: Callable[[bytes], Any]) -> Decoder:
    """Decodes all cells in one go, or, if that stumbles over a NULL or an odd value, one by one."""

    def decode(cells: Cells) -> Iterable[Any]:
        try:
            return list(fast(cells))
        except (TypeError, ValueError):
            return [None if cell is None else one(cell) for cell in cells]

    return decode


def _each(one: Callable[[bytes], Any]) -> Decoder:
    return _decoder(partial(map, one), one)


def _as_sent(cells: Cells) -> Cells:
    return cells


def _decimal(text: bytes) -> Decimal:
    return Decimal(text.decode())


def _bits(cell: bytes) -> int:
    return int.from_bytes(cell, "big")


_TEXT: Final = _each(bytes.decode)
_DECIMAL: Final = _decoder(lambda cells: map(Decimal, map(bytes.decode, cells)), _decimal)
_DATE: Final = _decoder(lambda cells: map(date.fromisoformat, map(bytes.decode, cells)), temporal.text_date)
_DATETIME: Final = _decoder(
    lambda cells: map(datetime.fromisoformat, map(bytes.decode, cells)), temporal.text_datetime
)
_INTEGERS: Final = (
    c.MYSQL_TYPE_TINY,
    c.MYSQL_TYPE_SHORT,
    c.MYSQL_TYPE_LONG,
    c.MYSQL_TYPE_LONGLONG,
    c.MYSQL_TYPE_INT24,
    c.MYSQL_TYPE_YEAR,
)

_COMMON: Final[dict[int, Decoder]] = {
    c.MYSQL_TYPE_DECIMAL: _DECIMAL,
    c.MYSQL_TYPE_NEWDECIMAL: _DECIMAL,
    c.MYSQL_TYPE_BIT: _each(_bits),
    c.MYSQL_TYPE_JSON: _TEXT,  # MySQL calls its charset binary
    c.MYSQL_TYPE_GEOMETRY: _as_sent,
    c.MYSQL_TYPE_NULL: _as_sent,
}
_TEXT_PROTOCOL: Final[dict[int, Decoder]] = {
    **_COMMON,
    **dict.fromkeys(_INTEGERS, _each(int)),
    **dict.fromkeys((c.MYSQL_TYPE_FLOAT, c.MYSQL_TYPE_DOUBLE), _each(float)),
    **dict.fromkeys((c.MYSQL_TYPE_DATE, c.MYSQL_TYPE_NEWDATE), _DATE),
    **dict.fromkeys((c.MYSQL_TYPE_DATETIME, c.MYSQL_TYPE_TIMESTAMP), _DATETIME),
    c.MYSQL_TYPE_TIME: _each(temporal.text_time),
}
_BINARY_PROTOCOL: Final[dict[int, Decoder]] = {
    **_COMMON,
    **dict.fromkeys((*_INTEGERS, c.MYSQL_TYPE_FLOAT, c.MYSQL_TYPE_DOUBLE), _as_sent),
    **dict.fromkeys((c.MYSQL_TYPE_DATE, c.MYSQL_TYPE_NEWDATE), _each(temporal.binary_date)),
    **dict.fromkeys((c.MYSQL_TYPE_DATETIME, c.MYSQL_TYPE_TIMESTAMP), _each(temporal.binary_datetime)),
    c.MYSQL_TYPE_TIME: _each(temporal.binary_time),
}

_FIXED_SIZE: Final = {  # struct codes; the capital one is for UNSIGNED
    c.MYSQL_TYPE_TINY: "bB",
    c.MYSQL_TYPE_SHORT: "hH",
    c.MYSQL_TYPE_YEAR: "hH",
    c.MYSQL_TYPE_LONG: "iI",
    c.MYSQL_TYPE_INT24: "iI",
    c.MYSQL_TYPE_LONGLONG: "qQ",
    c.MYSQL_TYPE_FLOAT: "ff",
    c.MYSQL_TYPE_DOUBLE: "dd",
}


def text_decoder(column: Column) -> Decoder:
    """The decoder of a column in the text protocol, where all cells are strings."""
    return _TEXT_PROTOCOL.get(column.type) or _string_decoder(column)


def binary_decoder(column: Column) -> Decoder:
    """The decoder of a column in the binary protocol, where cells of fixed size are unpacked already."""
    return _BINARY_PROTOCOL.get(column.type) or _string_decoder(column)


def fixed_size_code(column: Column) -> str:
    """The `struct` code of a column whose cells have a fixed size in the binary protocol, else ""."""
    codes = _FIXED_SIZE.get(column.type)
    return codes[bool(column.flags & c.UNSIGNED_FLAG)] if codes else ""


def _string_decoder(column: Column) -> Decoder:
    return _as_sent if column.charset == c.BINARY_CHARSET else _TEXT
