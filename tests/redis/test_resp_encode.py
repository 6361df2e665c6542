"""Writing RESP: how each kind of argument is sent, what is refused, and which bytes are copied."""

from __future__ import annotations

import enum
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coro.redis.resp import LARGE, Parser, VerbatimString, encode, encode_into


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


class Direction(enum.StrEnum):
    ASC = "asc"


class Level(int, enum.Enum):
    HIGH = 3


class Celsius(float):
    def __repr__(self) -> str:
        return "warm"


@pytest.mark.parametrize(
    ("argument", "sent"),
    [
        (b"raw\r\n\x00", b"raw\r\n\x00"),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (memoryview(b"abcdefgh").cast("I"), b"abcdefgh"),
        (VerbatimString(b"abc"), b"abc"),
        ("", b""),
        ("naïve 中", "naïve 中".encode()),
        (0, b"0"),
        (-(2**70), b"-1180591620717411303424"),
        (0.1, b"0.1"),
        (1e300, b"1e+300"),
        (-math.inf, b"-inf"),
        (Direction.ASC, b"asc"),
        (Level.HIGH, b"3"),
        (Celsius(21.5), b"21.5"),
    ],
)
def test_an_argument_is_sent_as_its_exact_text(argument: Any, sent: bytes) -> None:
    assert encode(("ECHO", argument)) == b"*2\r\n$4\r\nECHO\r\n" + bulk(sent)


@pytest.mark.parametrize("argument", [None, True, False, [1], {}, object(), 1j])
def test_an_argument_that_redis_has_no_form_for_is_a_type_error(argument: Any) -> None:
    with pytest.raises(TypeError, match=type(argument).__name__):
        encode(("SET", "key", argument))


def test_a_command_needs_a_name() -> None:
    with pytest.raises(ValueError, match="name"):
        encode(())


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, LARGE - 1, LARGE, LARGE + 1])
@pytest.mark.parametrize("count", [1, 2, 1023, 1500])
def test_a_command_is_an_array_of_bulk_strings(size: int, count: int) -> None:
    args = [b"x" * size, *[b"ab"] * (count - 1)]
    assert encode(args) == b"*%d\r\n" % count + b"".join(map(bulk, args))


ARGUMENTS = st.one_of(st.binary(max_size=1100), st.text(), st.integers(), st.floats(allow_nan=False))


@given(st.lists(ARGUMENTS, min_size=1))
def test_a_command_is_read_back_with_every_argument_exact(args: list[Any]) -> None:
    (words,) = Parser().feed(encode(args))
    assert isinstance(words, list)
    for arg, word in zip(args, words, strict=True):
        assert isinstance(word, bytes)
        assert (word if isinstance(arg, bytes) else type(arg)(word.decode())) == arg


def test_many_commands_are_appended_to_one_list_of_parts() -> None:
    commands = [("GET", "a"), ("SET", "b", b"x" * LARGE), ("INCR", "c")]
    parts: list[bytes] = []
    for args in commands:
        encode_into(parts, args)
    assert b"".join(parts) == b"".join(encode(args) for args in commands)


def test_large_bytes_are_passed_by_reference() -> None:
    one, two, tail = b"1" * LARGE, b"2" * LARGE, b"3" * (LARGE - 1)
    parts: list[bytes] = []
    encode_into(parts, ("MSET", "k1", one, "k2", two, "k3", tail))
    assert len(parts) == 5
    assert parts[1] is one
    assert parts[3] is two


def test_a_large_buffer_that_may_change_is_copied() -> None:
    value = bytearray(b"x" * LARGE)
    parts: list[bytes] = []
    encode_into(parts, ("SET", "key", value, "NX"))
    value[:] = b"y" * LARGE
    assert b"".join(parts) == encode(("SET", "key", b"x" * LARGE, "NX"))


@pytest.mark.parametrize("wrong", [None, "\ud800"])
def test_a_command_that_is_refused_leaves_no_trace_among_the_parts(wrong: Any) -> None:
    parts = [b"before"]
    with pytest.raises((TypeError, UnicodeEncodeError)):
        encode_into(parts, ("SET", b"x" * LARGE, wrong))
    assert parts == [b"before"]
