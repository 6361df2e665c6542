"""Dates and times as they come from the server, in both protocols.

    text    2026-01-31    2026-01-31 12:34:56.000001    -838:59:59.000001
    binary  u16 year, u8 month, day [, hour, minute, second [, u32 microsecond]]
            u8 negative, u32 days, u8 hour, minute, second [, u32 microsecond]
            (as a length-encoded string; all-zero values and zero ends are cut off)

TIME is a span, from -838:59:59 to 838:59:59, and becomes a `timedelta`. A date that the calendar does not
have (MySQL can hold 0000-00-00, 2026-00-00 and, when told to, 2026-02-31) becomes None. What is no date at
all raises ValueError.

Source: "Binary Protocol Value" in the client/server protocol manual; "Date and Time Data Types" in the
reference.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from struct import Struct
from typing import Final

_DATE_TEXT: Final = re.compile(rb"(\d{4})-(\d\d)-(\d\d)(?: (\d\d):(\d\d):(\d\d)(?:\.\d{1,6})?)?")
_TIME_TEXT: Final = re.compile(rb"(-?)(\d{1,4}):(\d\d):(\d\d)(?:\.(\d{1,6}))?")

_DATE: Final = Struct("<HBB")
_DATETIME: Final = Struct("<HBBBBB")
_DATETIME_MICROSECONDS: Final = Struct("<HBBBBBI")
_TIME: Final = Struct("<BIBBB")
_TIME_MICROSECONDS: Final = Struct("<BIBBBI")


def text_date(text: bytes) -> date | None:
    """A DATE of the text protocol."""
    try:
        return date.fromisoformat(text.decode())
    except ValueError:
        _check_text(text)
        return None


def text_datetime(text: bytes) -> datetime | None:
    """A DATETIME or TIMESTAMP of the text protocol."""
    try:
        return datetime.fromisoformat(text.decode())
    except ValueError:
        _check_text(text)
        return None


def text_time(text: bytes) -> timedelta:
    """A TIME of the text protocol."""
    match = _TIME_TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:32]!r} is no time")
    sign, hours, minutes, seconds, fraction = match.groups()
    microseconds = int(fraction.ljust(6, b"0")) if fraction else 0
    span = timedelta(0, int(seconds), microseconds, 0, int(minutes), int(hours))
    return -span if sign else span


def binary_date(cell: bytes) -> date | None:
    """A DATE of the binary protocol."""
    if not cell:
        return None
    if len(cell) != _DATE.size:
        raise ValueError(f"a date of {len(cell)} bytes")
    year, month, day = _DATE.unpack(cell)
    try:
        return date(year, month, day)
    except ValueError:
        _check_numbers(year, month, day)
        return None


def binary_datetime(cell: bytes) -> datetime | None:
    """A DATETIME or TIMESTAMP of the binary protocol."""
    size = len(cell)
    if size == 7:
        fields = _DATETIME.unpack(cell)
    elif size == 11:
        fields = _DATETIME_MICROSECONDS.unpack(cell)
    elif size == 4:
        fields = _DATE.unpack(cell)
    elif size == 0:
        return None
    else:
        raise ValueError(f"a date and time of {size} bytes")
    try:
        return datetime(*fields)
    except ValueError:
        _check_numbers(*fields)
        return None


def binary_time(cell: bytes) -> timedelta:
    """A TIME of the binary protocol."""
    size = len(cell)
    microseconds = 0
    if size == _TIME.size:
        negative, days, hours, minutes, seconds = _TIME.unpack(cell)
    elif size == _TIME_MICROSECONDS.size:
        negative, days, hours, minutes, seconds, microseconds = _TIME_MICROSECONDS.unpack(cell)
    elif size == 0:
        return timedelta(0)
    else:
        raise ValueError(f"a time of {size} bytes")
    span = timedelta(days, seconds, microseconds, 0, minutes, hours)
    return -span if negative else span


def _check_text(text: bytes) -> None:
    match = _DATE_TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:32]!r} is no date")
    _check_numbers(*(int(field) for field in match.groups() if field))


def _check_numbers(
    year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0, microsecond: int = 0
) -> None:
    """Raises ValueError for numbers that are no date in MySQL either."""
    fits = year <= 9999 and month <= 12 and day <= 31 and hour <= 23 and minute <= 59 and second <= 59
    if not fits or microsecond > 999_999:
        raise ValueError(f"{year}-{month}-{day} {hour}:{minute}:{second}.{microsecond} is no date")
