"""Content codings undone, however the bytes are split (coro/http/client/decoding.py)."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coro.http.client.decoding import Decoder

DATA = b"hello world" * 500 + random.Random(1).randbytes(2000)


def raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


def decoded(coding: str, data: bytes, size: int = 1 << 20, limit: int = 1 << 20) -> bytes:
    decoder = Decoder(coding)
    parts = []
    for start in range(0, len(data), size):
        decoder.feed(data[start : start + size])
        while part := decoder.read(limit):
            assert len(part) <= limit
            parts.append(part)
    decoder.feed_eof()
    return b"".join(parts)


ENCODED = {
    "gzip": ("gzip", gzip.compress(DATA)),
    "x-gzip": ("x-gzip", gzip.compress(DATA)),
    "gzip in several members": ("gzip", gzip.compress(DATA[:100]) + gzip.compress(b"") + gzip.compress(DATA[100:])),
    "deflate": ("deflate", zlib.compress(DATA)),
    "deflate without its frame": ("deflate", raw_deflate(DATA)),
}


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("limit", [1, 100, 1 << 20])
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_decodes(name: str, size: int, limit: int) -> None:
    coding, data = ENCODED[name]
    assert decoded(coding, data, size, limit) == DATA


def test_body_of_nothing_is_nothing() -> None:
    assert decoded("gzip", b"") == b""


@pytest.mark.parametrize("name", ENCODED)
def test_end_in_the_middle_is_an_error(name: str) -> None:
    coding, data = ENCODED[name]
    for size in 1, 5, len(data) // 2, len(data) - 1:
        with pytest.raises(ValueError, match="ends in the middle"):
            decoded(coding, data[:size])


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_bytes_that_are_not_encoded_so_are_an_error(coding: str) -> None:
    with pytest.raises(ValueError, match=f"the body is not {coding}"):
        decoded(coding, b"\xff\xffplain text")


def test_bytes_after_the_end_are_an_error() -> None:
    with pytest.raises(ValueError, match="after the end of the deflate body"):
        decoded("deflate", zlib.compress(DATA) + b"x")
    with pytest.raises(ValueError, match="the body is not gzip"):
        decoded("gzip", gzip.compress(DATA) + b"more")


def test_bomb_comes_out_in_pieces_no_larger_than_asked_for() -> None:
    decoder = Decoder("gzip")
    decoder.feed(gzip.compress(bytes(1 << 25)))
    assert all(len(decoder.read(1000)) == 1000 for _ in range(100))
    assert len(decoder._input) > 20_000  # the rest is still compressed


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]), st.integers(1, 50), st.integers(1, 50))
def test_any_bytes_decode_or_are_a_value_error(data: bytes, coding: str, size: int, limit: int) -> None:
    try:
        whole: object = decoded(coding, data)
    except ValueError:
        whole = ValueError
    try:
        split: object = decoded(coding, data, size, limit)
    except ValueError:
        split = ValueError
    assert whole == split
