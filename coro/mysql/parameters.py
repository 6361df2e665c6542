"""Python values as the parameters of a prepared statement, in the binary protocol.

    None             NULL                      datetime             DATETIME, to the microsecond
    bool             TINYINT, 0 or 1           date                 DATE
    int              BIGINT, signed or not     timedelta, time      TIME
    float            DOUBLE                    str                  VARCHAR, utf8mb4
    Decimal          DECIMAL                   bytes, bytearray, memoryview    BLOB; so is LongData

Subclasses (an `IntEnum`, say) go as their base. The types are sent with every execution (what MySQL makes
of that, see `Statement`). A `datetime` with a time zone is refused, because DATETIME has none:
which one the column means is the program's to know.

Source: COM_STMT_EXECUTE and "Binary Protocol Value" in the client/server protocol manual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from struct import Struct
from typing import Any, Final

from coro.mysql import constants as c
from coro.mysql.errors import DataError, ProgrammingError
from coro.mysql.packets import lenenc
from coro.mysql.sources import LongData

Parameter = (
    None | int | float | Decimal | str | bytes | bytearray | memoryview | datetime | date | time | timedelta | LongData
)
_Encoded = tuple[bytes, bytes]  # two bytes of type, then the value
_Encoder = Callable[[Any], _Encoded]

_UNSIGNED: Final = 0x80
_NULL: Final = bytes((c.MYSQL_TYPE_NULL, 0))
_TINY: Final = bytes((c.MYSQL_TYPE_TINY, 0))
_LONGLONG: Final = bytes((c.MYSQL_TYPE_LONGLONG, 0))
_LONGLONG_UNSIGNED: Final = bytes((c.MYSQL_TYPE_LONGLONG, _UNSIGNED))
_DOUBLE: Final = bytes((c.MYSQL_TYPE_DOUBLE, 0))
_DECIMAL: Final = bytes((c.MYSQL_TYPE_NEWDECIMAL, 0))
_STRING: Final = bytes((c.MYSQL_TYPE_VAR_STRING, 0))
_BLOB: Final = bytes((c.MYSQL_TYPE_BLOB, 0))
_DATE: Final = bytes((c.MYSQL_TYPE_DATE, 0))
_DATETIME: Final = bytes((c.MYSQL_TYPE_DATETIME, 0))
_TIME: Final = bytes((c.MYSQL_TYPE_TIME, 0))

_I64: Final = Struct("<q")
_U64: Final = Struct("<Q")
_F64: Final = Struct("<d")
_DATE_LAYOUT: Final = Struct("<BHBB")  # the first byte of each is the length of the rest
_DATETIME_LAYOUT: Final = Struct("<BHBBBBBI")
_TIME_LAYOUT: Final = Struct("<BBIBBBI")

# For what is beyond a range the servers take its end, without an error: MariaDB for both of these, MySQL for decimals
_LONGEST_TIME: Final = timedelta(hours=838, minutes=59, seconds=59, microseconds=999_999)
_LONGEST_DECIMAL: Final = 65  # digits before the point


def encode_parameters(parameters: Sequence[Parameter]) -> bytes:
    """The part of COM_STMT_EXECUTE behind its head: NULL bits, the types, the values.

    Raises DataError for a value that MySQL cannot take, ProgrammingError for one of an unknown type.
    """
    nulls = 0
    types: list[bytes] = []
    values: list[bytes] = []
    try:
        for index, value in enumerate(parameters):
            if value is None:
                nulls |= 1 << index
                types.append(_NULL)
            elif type(value) is str:  # as `encode_parameter` does it: most values are
                types.append(_STRING)
                values.append(lenenc(value.encode()))
            else:
                kind, data = encode_parameter(index, value)
                types.append(kind)
                values.append(data)
    except UnicodeEncodeError as error:
        raise DataError(f"parameter {index + 1}: {error}") from None
    bits = nulls.to_bytes((len(parameters) + 7) // 8, "little")
    return b"".join((bits, b"\x01", *types, *values))


def encode_parameter(index: int, value: Parameter) -> tuple[bytes, bytes]:
    """Type and value of a parameter other than None. Raises as `encode_parameters`; `index` counts from 0."""
    encoder = _ENCODERS.get(type(value)) or _encoder_of_base(value)
    if encoder is None:
        raise ProgrammingError(f"parameter {index + 1}: MySQL has nothing like a {type(value).__qualname__}")
    try:
        return encoder(value)
    except (ValueError, TypeError) as error:
        raise DataError(f"parameter {index + 1}: {error}") from None


def _encoder_of_base(value: object) -> _Encoder | None:
    return next((_ENCODERS[base] for base in type(value).__mro__ if base in _ENCODERS), None)


def _bool(value: bool) -> _Encoded:
    return _TINY, b"\x01" if value else b"\x00"


def _int(value: int) -> _Encoded:
    if -(1 << 63) <= value < 1 << 63:
        return _LONGLONG, _I64.pack(value)
    if 0 <= value < 1 << 64:
        return _LONGLONG_UNSIGNED, _U64.pack(value)
    raise ValueError("an integer of more than 64 bits; pass a Decimal or a str")


def _float(value: float) -> _Encoded:
    if not isfinite(value):
        raise ValueError(f"MySQL has no {value}")
    return _DOUBLE, _F64.pack(value)


def _decimal(value: Decimal) -> _Encoded:
    if not value.is_finite():
        raise ValueError(f"MySQL has no {value}")
    if value.adjusted() >= _LONGEST_DECIMAL:
        raise ValueError(f"a DECIMAL has {_LONGEST_DECIMAL} digits; pass a float or a str")
    return _DECIMAL, lenenc(str(value).encode())


def _str(value: str) -> _Encoded:
    return _STRING, lenenc(value.encode())


def _bytes(value: bytes | bytearray | memoryview) -> _Encoded:
    return _BLOB, lenenc(bytes(value))


def _datetime(value: datetime) -> _Encoded:
    if value.tzinfo is not None:
        raise ValueError("DATETIME has no time zone; convert, then value.replace(tzinfo=None)")
    return _DATETIME, _DATETIME_LAYOUT.pack(
        11, value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond
    )


def _date(value: date) -> _Encoded:
    return _DATE, _DATE_LAYOUT.pack(4, value.year, value.month, value.day)


def _timedelta(value: timedelta) -> _Encoded:
    if not -_LONGEST_TIME <= value <= _LONGEST_TIME:
        raise ValueError(f"TIME goes from -838:59:59 to 838:59:59, not to {value}")
    span = abs(value)
    minutes, seconds = divmod(span.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    negative = value.days < 0
    return _TIME, _TIME_LAYOUT.pack(12, negative, span.days, hours, minutes, seconds, span.microseconds)


def _time(value: time) -> _Encoded:
    if value.tzinfo is not None:
        raise ValueError("TIME has no time zone; convert, then value.replace(tzinfo=None)")
    return _TIME, _TIME_LAYOUT.pack(12, 0, 0, value.hour, value.minute, value.second, value.microsecond)


def _long_data(value: LongData) -> _Encoded:
    if not value.sent:
        raise ValueError("LongData goes by `execute`, `results` or `fetch_...`")
    return _BLOB, b""  # what was sent ahead is the value


_ENCODERS: Final[dict[type, _Encoder]] = {
    bool: _bool,
    int: _int,
    float: _float,
    Decimal: _decimal,
    str: _str,
    bytes: _bytes,
    bytearray: _bytes,
    memoryview: _bytes,
    datetime: _datetime,
    date: _date,
    timedelta: _timedelta,
    time: _time,
    LongData: _long_data,
}
