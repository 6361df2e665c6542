"""Values: what each column type becomes in Python in both protocols, and how parameters are written."""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coro.mysql import constants as c
from coro.mysql.columns import Column, parse_column
from coro.mysql.errors import DataError, ProgrammingError, ProtocolError
from coro.mysql.packets import Payload, lenenc
from coro.mysql.parameters import Parameter, encode_parameters
from coro.mysql.rows import BinaryRows, Row, RowReader, TextRows
from tests.mysql.wire import binary_row, column, text_row

BINARY = c.BINARY_CHARSET
UNSIGNED = c.UNSIGNED_FLAG


def decoded(reader: Callable[[list[Column]], RowReader], row: bytes, kind: int, charset: int, flags: int) -> Any:
    """One cell of one row, and the same cell next to a NULL."""
    definition = parse_column(column("x", kind, charset=charset, flags=flags))
    rows: list[Row] = []
    reader([definition]).take_one(row, rows)
    return rows[0][0]


def from_text(cell: bytes | None, kind: int, *, charset: int = BINARY, flags: int = 0) -> Any:
    return decoded(TextRows, text_row(cell), kind, charset, flags)


def from_binary(cell: bytes | None, kind: int, *, charset: int = BINARY, flags: int = 0) -> Any:
    return decoded(BinaryRows, binary_row(cell), kind, charset, flags)


INTEGERS = [
    (c.MYSQL_TYPE_TINY, "b"),
    (c.MYSQL_TYPE_SHORT, "h"),
    (c.MYSQL_TYPE_INT24, "i"),
    (c.MYSQL_TYPE_LONG, "i"),
    (c.MYSQL_TYPE_LONGLONG, "q"),
]


@pytest.mark.parametrize(("kind", "code"), INTEGERS)
@pytest.mark.parametrize("flags", [0, UNSIGNED])
def test_integers_keep_their_whole_range(kind: int, code: str, flags: int) -> None:
    bits = struct.calcsize(code) * 8
    extremes = (0, 2**bits - 1) if flags else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for value in extremes:
        assert from_text(str(value).encode(), kind, flags=flags) == value
        assert from_binary(struct.pack("<" + (code.upper() if flags else code), value), kind, flags=flags) == value


def test_a_year_is_an_int() -> None:
    assert from_text(b"2026", c.MYSQL_TYPE_YEAR, flags=UNSIGNED) == 2026
    assert from_binary(struct.pack("<H", 2026), c.MYSQL_TYPE_YEAR, flags=UNSIGNED) == 2026


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_is_the_same_float_in_both_protocols(value: float) -> None:
    assert from_text(repr(value).encode(), c.MYSQL_TYPE_DOUBLE) == value
    assert from_binary(struct.pack("<d", value), c.MYSQL_TYPE_DOUBLE) == value


def test_a_float_is_exact_in_the_binary_protocol_and_short_in_the_text_protocol() -> None:
    [exact] = struct.unpack("<f", struct.pack("<f", 0.1))
    assert from_binary(struct.pack("<f", 0.1), c.MYSQL_TYPE_FLOAT) == exact
    assert from_text(b"0.1", c.MYSQL_TYPE_FLOAT) == 0.1


@pytest.mark.parametrize("text", ["0", "-1.50", "12345678901234567890123456789012345.000000000000000000000000000001"])
def test_a_decimal_keeps_every_digit(text: str) -> None:
    for value in (
        from_text(text.encode(), c.MYSQL_TYPE_NEWDECIMAL),
        from_binary(lenenc(text.encode()), c.MYSQL_TYPE_NEWDECIMAL),
    ):
        assert isinstance(value, Decimal)
        assert str(value) == text


def test_bits_are_an_unsigned_int() -> None:
    assert from_text(b"\x01\x02", c.MYSQL_TYPE_BIT) == 0x0102
    assert from_binary(lenenc(b"\xff" * 8), c.MYSQL_TYPE_BIT) == 2**64 - 1


@pytest.mark.parametrize(
    "kind", [c.MYSQL_TYPE_VAR_STRING, c.MYSQL_TYPE_STRING, c.MYSQL_TYPE_BLOB, c.MYSQL_TYPE_LONG_BLOB]
)
def test_the_charset_decides_between_text_and_bytes(kind: int) -> None:
    assert from_text("ä😀".encode(), kind, charset=45) == "ä😀"
    assert from_binary(lenenc("ä😀".encode()), kind, charset=255) == "ä😀"
    assert from_text(b"\xff\0", kind, charset=BINARY) == b"\xff\0"
    assert from_binary(lenenc(b"\xff\0"), kind, charset=BINARY) == b"\xff\0"


def test_json_is_text_although_mysql_calls_it_binary() -> None:
    assert from_text('["ä"]'.encode(), c.MYSQL_TYPE_JSON, charset=BINARY) == '["ä"]'
    assert from_binary(lenenc('["ä"]'.encode()), c.MYSQL_TYPE_JSON, charset=BINARY) == '["ä"]'


@pytest.mark.parametrize("kind", [c.MYSQL_TYPE_GEOMETRY, 242])
def test_geometries_vectors_and_what_the_future_brings_are_bytes(kind: int) -> None:
    assert from_text(b"\xff\x01", kind) == b"\xff\x01"
    assert from_binary(lenenc(b"\xff\x01"), kind) == b"\xff\x01"


@pytest.mark.parametrize("size", [0, 250, 251, 0xFFFF, 0x10000])
def test_cells_of_every_width_of_length(size: int) -> None:
    assert from_text(bytes(size), c.MYSQL_TYPE_BLOB) == bytes(size)
    assert from_binary(lenenc(bytes(size)), c.MYSQL_TYPE_BLOB) == bytes(size)


ALL_TYPES = sorted(value for name, value in vars(c).items() if name.startswith("MYSQL_TYPE_"))


@pytest.mark.parametrize("kind", ALL_TYPES)
@pytest.mark.parametrize("charset", [45, BINARY])
def test_null_is_none_in_every_type(kind: int, charset: int) -> None:
    assert from_text(None, kind, charset=charset) is None
    assert from_binary(None, kind, charset=charset) is None


@pytest.mark.parametrize(("reader", "row"), [(TextRows, b"\x01ab"), (BinaryRows, b"\0\0\x01ab")])
def test_a_row_longer_than_its_cells_is_refused(reader: Callable[[list[Column]], RowReader], row: bytes) -> None:
    with pytest.raises(ProtocolError, match="longer or shorter"):
        decoded(reader, row, c.MYSQL_TYPE_BLOB, BINARY, 0)


# --- Dates and times -----------------------------------------------------------------------------------


DATES = [
    (b"2026-01-31", struct.pack("<HBB", 2026, 1, 31), date(2026, 1, 31)),
    (b"0001-01-01", struct.pack("<HBB", 1, 1, 1), date(1, 1, 1)),
    (b"9999-12-31", struct.pack("<HBB", 9999, 12, 31), date(9999, 12, 31)),
    (b"0000-00-00", b"", None),
    (b"2026-00-00", struct.pack("<HBB", 2026, 0, 0), None),
    (b"2026-02-31", struct.pack("<HBB", 2026, 2, 31), None),
]


@pytest.mark.parametrize(("text", "binary", "value"), DATES)
def test_dates(text: bytes, binary: bytes, value: date | None) -> None:
    assert from_text(text, c.MYSQL_TYPE_DATE) == value
    assert from_binary(lenenc(binary), c.MYSQL_TYPE_DATE) == value


MICROSECOND = struct.pack("<HBBBBBI", 2026, 1, 31, 12, 34, 56, 1)
DATETIMES = [
    (b"2026-01-31 12:34:56", MICROSECOND[:7], datetime(2026, 1, 31, 12, 34, 56)),
    (b"2026-01-31 12:34:56.000001", MICROSECOND, datetime(2026, 1, 31, 12, 34, 56, 1)),
    (b"2026-01-31 00:00:00", MICROSECOND[:4], datetime(2026, 1, 31)),
    (b"0000-00-00 00:00:00", b"", None),
    (b"2026-00-10 12:00:00.5", struct.pack("<HBBBBBI", 2026, 0, 10, 12, 0, 0, 500_000), None),
]


@pytest.mark.parametrize(("text", "binary", "value"), DATETIMES)
@pytest.mark.parametrize("kind", [c.MYSQL_TYPE_DATETIME, c.MYSQL_TYPE_TIMESTAMP])
def test_datetimes(text: bytes, binary: bytes, value: datetime | None, kind: int) -> None:
    assert from_text(text, kind) == value
    assert from_binary(lenenc(binary), kind) == value


def test_tenths_of_a_second_are_not_taken_for_microseconds() -> None:
    assert from_text(b"2026-01-31 12:34:56.5", c.MYSQL_TYPE_DATETIME) == datetime(2026, 1, 31, 12, 34, 56, 500_000)
    assert from_text(b"00:00:00.05", c.MYSQL_TYPE_TIME) == timedelta(microseconds=50_000)


LONGEST = timedelta(hours=838, minutes=59, seconds=59)
TIMES = [
    (b"00:00:00", b"", timedelta(0)),
    (b"12:34:56", struct.pack("<BIBBB", 0, 0, 12, 34, 56), timedelta(hours=12, minutes=34, seconds=56)),
    (b"838:59:59", struct.pack("<BIBBB", 0, 34, 22, 59, 59), LONGEST),
    (b"-838:59:59.000000", struct.pack("<BIBBBI", 1, 34, 22, 59, 59, 0), -LONGEST),
    (b"-00:00:00.000001", struct.pack("<BIBBBI", 1, 0, 0, 0, 0, 1), timedelta(microseconds=-1)),
]


@pytest.mark.parametrize(("text", "binary", "value"), TIMES)
def test_times(text: bytes, binary: bytes, value: timedelta) -> None:
    assert from_text(text, c.MYSQL_TYPE_TIME) == value
    assert from_binary(lenenc(binary), c.MYSQL_TYPE_TIME) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (c.MYSQL_TYPE_DATE, b"2026-13-01"),
        (c.MYSQL_TYPE_DATE, b""),
        (c.MYSQL_TYPE_DATETIME, b"2026-01-01 24:00:00x"),
        (c.MYSQL_TYPE_DATETIME, b"2026-01-01 25:00:00"),
        (c.MYSQL_TYPE_TIME, b"12:34"),
        (c.MYSQL_TYPE_LONG, b"1.5"),
        (c.MYSQL_TYPE_LONG, b"9" * 5000),
        (c.MYSQL_TYPE_DOUBLE, b"x"),
        (c.MYSQL_TYPE_NEWDECIMAL, b"x"),
        (c.MYSQL_TYPE_NEWDECIMAL, b"\xff"),
        (c.MYSQL_TYPE_JSON, b"\xff"),
    ],
)
def test_text_that_is_no_value_of_its_type_is_refused(kind: int, text: bytes) -> None:
    with pytest.raises(ProtocolError, match="column 'x'"):
        from_text(text, kind)


@pytest.mark.parametrize(
    ("kind", "cell"),
    [
        (c.MYSQL_TYPE_DATE, b"\x01"),
        (c.MYSQL_TYPE_DATE, struct.pack("<HBB", 2026, 13, 1)),
        (c.MYSQL_TYPE_DATE, struct.pack("<HBB", 10_000, 1, 1)),
        (c.MYSQL_TYPE_DATETIME, bytes(5)),
        (c.MYSQL_TYPE_DATETIME, struct.pack("<HBBBBB", 2026, 1, 1, 24, 0, 0)),
        (c.MYSQL_TYPE_TIME, bytes(7)),
        (c.MYSQL_TYPE_TIME, struct.pack("<BIBBB", 0, 0xFFFFFFFF, 0, 0, 0)),
    ],
)
def test_binary_values_that_are_none_are_refused(kind: int, cell: bytes) -> None:
    with pytest.raises(ProtocolError, match="column 'x'"):
        from_binary(lenenc(cell), kind)


@pytest.mark.parametrize("reader", [TextRows, BinaryRows])
def test_nulls_and_odd_values_do_not_disturb_their_neighbours(reader: Callable[[Any], RowReader]) -> None:
    when = parse_column(column("when", c.MYSQL_TYPE_DATE))
    size = parse_column(column("size", c.MYSQL_TYPE_NEWDECIMAL))
    cells: list[tuple[bytes | None, bytes | None]] = [
        (b"2026-01-31", b"1.5"), (None, b"2"), (b"0000-00-00", None), (b"2026-02-01", b"3")
    ]  # fmt: skip
    binary = {b"2026-01-31": struct.pack("<HBB", 2026, 1, 31), b"2026-02-01": struct.pack("<HBB", 2026, 2, 1)}
    rows: list[Row] = []
    for first, second in cells:
        if reader is TextRows:
            row = text_row(first, second)
        else:
            day = None if first is None else lenenc(binary.get(first, b""))
            row = binary_row(day, None if second is None else lenenc(second))
        reader([when, size]).take_one(row, rows)
    assert rows == [
        (date(2026, 1, 31), Decimal("1.5")),
        (None, Decimal(2)),
        (None, None),
        (date(2026, 2, 1), Decimal(3)),
    ]


# --- Parameters --------------------------------------------------------------------------------------------


class Encoded:
    """The parameters' part of COM_STMT_EXECUTE, read as a server reads it."""

    LAYOUTS = {c.MYSQL_TYPE_TINY: "b", c.MYSQL_TYPE_LONGLONG: "q", c.MYSQL_TYPE_DOUBLE: "d"}

    def __init__(self, data: bytes, count: int) -> None:
        fields = Payload(data)
        nulls = fields.integer((count + 7) // 8)
        assert fields.integer(1) == 1  # the types follow
        types = [(fields.integer(1), fields.integer(1)) for _ in range(count)]
        self.types = [kind for kind, _ in types]
        self.values = []
        for index, (kind, flag) in enumerate(types):
            assert (kind == c.MYSQL_TYPE_NULL) == bool(nulls >> index & 1)
            self.values.append(None if kind == c.MYSQL_TYPE_NULL else self._value(fields, kind, flag))
        assert fields.rest() == b""

    def _value(self, fields: Payload, kind: int, flag: int) -> Any:
        layout = self.LAYOUTS.get(kind)
        if layout is None:
            cell = lenenc(fields.lenenc_bytes())
            charset = BINARY if kind == c.MYSQL_TYPE_BLOB else 45
            return from_binary(cell, kind, charset=charset)
        layout = "<" + (layout.upper() if flag == 0x80 else layout)
        return struct.unpack(layout, fields.take(struct.calcsize(layout)))[0]


def written(*parameters: Parameter) -> Encoded:
    return Encoded(encode_parameters(parameters), len(parameters))


VALUES: st.SearchStrategy[Parameter] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.datetimes(),
    st.dates(),
    st.timedeltas(timedelta(days=-34), timedelta(days=34)),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(VALUES, min_size=1, max_size=20))
def test_every_parameter_arrives_as_it_was_given(values: list[Parameter]) -> None:
    assert written(*values).values == values


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, c.MYSQL_TYPE_NULL),
        (True, c.MYSQL_TYPE_TINY),
        (1, c.MYSQL_TYPE_LONGLONG),
        (1.5, c.MYSQL_TYPE_DOUBLE),
        (Decimal("1.5"), c.MYSQL_TYPE_NEWDECIMAL),
        ("x", c.MYSQL_TYPE_VAR_STRING),
        (b"x", c.MYSQL_TYPE_BLOB),
        (datetime(2026, 1, 1), c.MYSQL_TYPE_DATETIME),
        (date(2026, 1, 1), c.MYSQL_TYPE_DATE),
        (time(12), c.MYSQL_TYPE_TIME),
        (timedelta(1), c.MYSQL_TYPE_TIME),
    ],
)
def test_each_python_type_has_its_mysql_type(value: Parameter, kind: int) -> None:
    assert written(value).types == [kind]


class Colour(enum.IntEnum):
    RED = 3


class Name(str):
    """A text with a type of its own."""


@pytest.mark.parametrize(
    ("given", "arrived"),
    [
        (Colour.RED, 3),
        (Name("anna"), "anna"),
        (bytearray(b"x"), b"x"),
        (memoryview(b"abc")[1:], b"bc"),
        (time(1, 2, 3, 4), timedelta(hours=1, minutes=2, seconds=3, microseconds=4)),
        (timedelta(microseconds=-1), timedelta(microseconds=-1)),
        (Decimal("1E+3"), Decimal(1000)),
        (Decimal("1E+64"), Decimal("1E+64")),
        (-LONGEST, -LONGEST),
    ],
)
def test_relatives_of_a_type_arrive_as_their_base(given: Parameter, arrived: Parameter) -> None:
    assert written(given).values == [arrived]


@pytest.mark.parametrize("value", [-(2**63), -1, 0, 2**63 - 1, 2**63, 2**64 - 1])
def test_integers_of_64_bits_arrive_with_and_without_sign(value: int) -> None:
    assert written(value).values == [value]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 64, 65])
def test_nulls_are_marked_in_every_position(count: int) -> None:
    for hole in range(count):
        values = [None if index == hole else index for index in range(count)]
        assert written(*values).values == values


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        -(2**63) - 1,
        float("nan"),
        float("inf"),
        Decimal("NaN"),
        Decimal("Infinity"),
        Decimal("1E+65"),
        Decimal("-1E+400"),
        timedelta(hours=839),
        timedelta(hours=-839),
        timedelta.min,
        "\ud800",
        datetime(2026, 1, 1, tzinfo=UTC),
        time(12, tzinfo=UTC),
    ],
    ids=ascii,
)
def test_a_value_that_mysql_cannot_hold_is_refused_by_its_place(value: Parameter) -> None:
    with pytest.raises(DataError, match="parameter 2: "):
        encode_parameters((1, value))


@pytest.mark.parametrize("value", [[1], (1, 2), {}, object(), 1j])
def test_a_value_of_an_unknown_type_is_refused(value: Any) -> None:
    with pytest.raises(ProgrammingError, match=f"parameter 1: .* a {type(value).__name__}"):
        encode_parameters((value,))
