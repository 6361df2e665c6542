"""Responses out of bytes: every vector whole, byte by byte, with what follows, and split anywhere."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coro.http.client.errors import ClientError, ConnectionLost, ProtocolError, ResponseTooLarge
from coro.http.client.parser import ClientLimits, ResponseHead, ResponseParser
from tests.http.client.vectors import COMPLETE, CONTINUE, CUT, EMPTY, ENDED, LAST, REFUSED, WHOLE, Received, chunked, ok

untimed = settings(deadline=None)
MANY_WAYS = 300  # bytes up to which a vector is cut at every place


def take(parser: ResponseParser, body: list[bytes], limit: int = 1 << 20) -> None:
    """Have the parser give out all that it can."""
    while parser.head is None:
        if parser.read_head() is None:
            return
    while piece := parser.read_body(limit):
        assert len(piece) <= limit
        body.append(piece)


def receive(pieces: Iterable[bytes], method: str = "GET", limit: int = 1 << 20) -> tuple[ResponseParser, bytes]:
    """What has come of these pieces."""
    parser = ResponseParser(ClientLimits())
    parser.start(method)
    body: list[bytes] = []
    for piece in pieces:
        parser.feed(piece)
        take(parser, body, limit)
    return parser, b"".join(body)


def described(parser: ResponseParser, body: bytes) -> Received:
    assert parser.head is not None
    return Received(parser.head.status, body)


def ways(data: bytes) -> Iterator[list[bytes]]:
    """The data whole, byte by byte, cut once at each place, and cut at random."""
    yield [data]
    chance = random.Random(data)
    if len(data) <= MANY_WAYS:
        yield [data[i : i + 1] for i in range(len(data))]
        yield from ([data[:place], data[place:]] for place in range(1, len(data)))
    for _ in range(10):
        places = sorted(chance.choices(range(len(data) + 1), k=chance.randrange(2, 8)))
        yield [data[a:b] for a, b in pairwise([0, *places, len(data)]) if a < b]


# --- The corpus ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPLETE)
def test_response_after_which_the_connection_may_be_used_again(name: str) -> None:
    data, expected = COMPLETE[name]
    for pieces in ways(data):
        for limit in 1 << 20, 1:
            parser, body = receive(pieces, limit=limit)
            assert (described(parser, body), parser.complete, parser.clean) == (expected, True, True), pieces
            assert parser.head is not None and parser.head.keep_alive


@pytest.mark.parametrize("name", [*COMPLETE, *LAST])
def test_what_follows_a_response_belongs_to_nothing(name: str) -> None:
    data, expected = (COMPLETE | LAST)[name]
    for extra in WHOLE, b"\r\n", b"\0":
        for pieces in ways(data + extra):
            parser, body = receive(pieces)
            assert (described(parser, body), parser.complete, parser.clean) == (expected, True, False), pieces


@pytest.mark.parametrize("name", LAST)
def test_response_after_which_the_connection_ends(name: str) -> None:
    data, expected = LAST[name]
    for pieces in ways(data):
        parser, body = receive(pieces)
        assert (described(parser, body), parser.complete) == (expected, True), pieces
        assert parser.head is not None and not parser.head.keep_alive


@pytest.mark.parametrize("name", ENDED)
def test_response_that_ends_with_the_connection(name: str) -> None:
    data, expected = ENDED[name]
    for pieces in ways(data):
        parser, body = receive(pieces)
        assert (described(parser, body), parser.complete) == (expected, False), pieces
        parser.feed_eof()
        assert parser.complete and parser.head is not None and not parser.head.keep_alive


@pytest.mark.parametrize("name", CUT)
def test_connection_that_ends_too_early_is_an_error(name: str) -> None:
    for pieces in ways(CUT[name]):
        parser, _ = receive(pieces)
        assert not parser.complete
        with pytest.raises(ConnectionLost, match="the server closed the connection"):
            parser.feed_eof()


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    data, kind = REFUSED[name]
    for pieces in ways(data):
        with pytest.raises((ProtocolError, ResponseTooLarge)) as raised:
            receive(pieces)
        assert type(raised.value) is kind or len(pieces) > 1, pieces


HEADS = [ok(b"Content-Length: 3"), ok(b"Transfer-Encoding: chunked"), ok(), CONTINUE + ok(b"Content-Length: 3")]


@pytest.mark.parametrize("data", HEADS)
def test_response_to_head_has_no_body(data: bytes) -> None:
    for pieces in ways(data):
        parser, body = receive(pieces, "HEAD")
        assert (described(parser, body), parser.clean) == (EMPTY, True)


# --- What a head says ---------------------------------------------------------------------


def head_of(data: bytes) -> ResponseHead:
    parser, _ = receive([data])
    assert parser.head is not None
    return parser.head


def test_names_are_in_lower_case_and_values_without_the_space_around() -> None:
    head = head_of(ok(b"X-Y:  z \t", b"Content-Length: 0"))
    assert head.fields == {b"x-y": b"z", b"content-length": b"0"}


def test_repeated_fields_are_joined_but_cookies_are_kept_apart() -> None:
    head = head_of(ok(b"X: 1", b"Set-Cookie: a=b; expires=Mon, 1 Jan", b"x: 2", b"Set-Cookie: c", b"Content-Length: 0"))
    assert head.fields[b"x"] == b"1, 2"
    assert head.set_cookies == [b"a=b; expires=Mon, 1 Jan", b"c"]


def test_version_and_reason() -> None:
    head = head_of(b"HTTP/1.0 404 Nowhere to be found\r\n\r\n")
    assert (head.version, head.status, head.reason) == ("1.0", 404, "Nowhere to be found")


def test_time_for_which_the_server_keeps_the_connection() -> None:
    assert head_of(ok(b"Keep-Alive: max=100, timeout=5", b"Content-Length: 0")).kept == 5
    assert head_of(ok(b"Keep-Alive: nonsense", b"Content-Length: 0")).kept == float("inf")


def test_interim_responses_are_told_one_by_one() -> None:
    parser = ResponseParser(ClientLimits())
    parser.start("POST")
    parser.feed(CONTINUE + WHOLE)
    statuses = [head.status for _ in range(2) if (head := parser.read_head()) is not None]
    assert statuses == [100, 200]


def test_length_that_is_told_counts_down() -> None:
    parser, _ = receive([ok(b"Content-Length: 10", body=b"abc")])
    assert parser.content_length == 7
    assert receive([chunked(b"")])[0].content_length is None
    assert receive([ok()])[0].content_length is None


def test_no_more_is_kept_than_was_not_read() -> None:
    parser = ResponseParser(ClientLimits())
    parser.start("GET")
    parser.feed(ok(b"Content-Length: 1000000"))
    assert parser.read_head() is not None
    for _ in range(100):
        parser.feed(bytes(10_000))
        assert parser.read_body(1 << 20) == bytes(10_000)
        assert not parser._buffer


# --- Anything -----------------------------------------------------------------------------

WORDS = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 302 \r\n", b"HTTP/1.1 100 C\r\n\r\n", b"HTTP/1.1 204\r\n", b"\r\n", b"\r", b"\n",
    b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"X: y\r\n", b": ", b" ", b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\n", b";a", b"abc", b"\0", b"\xff",
]  # fmt: skip
bytes_of_a_server = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=12).map(b"".join),
    st.builds(
        lambda name, at, new: vector(name)[:at] + new + vector(name)[at + len(new) :],
        st.sampled_from([*COMPLETE, *LAST, *ENDED]),
        st.integers(0, 80),
        st.binary(max_size=3),
    ),
    st.binary(max_size=60),
)


def vector(name: str) -> bytes:
    return (COMPLETE | LAST | ENDED)[name][0]


def outcome(pieces: Iterable[bytes]) -> tuple[object, ...]:
    """All there is to know of how a connection that brings these pieces, and then ends, turns out."""
    parser = ResponseParser(ClientLimits())
    parser.start("GET")
    body: list[bytes] = []
    try:
        for piece in pieces:
            parser.feed(piece)
            take(parser, body)
        clean = parser.clean
        if not parser.complete:
            parser.feed_eof()
    except ClientError:
        return ("error", b"".join(body) if parser.head is not None else b"")
    assert parser.head is not None and parser.complete
    return parser.head.status, b"".join(body), clean


@untimed
@given(bytes_of_a_server, st.lists(st.integers(0, 100), max_size=6))
def test_any_bytes_are_a_response_or_a_client_error_however_they_are_split(data: bytes, cuts: list[int]) -> None:
    places = sorted(min(place, len(data)) for place in cuts)
    pieces = [data[a:b] for a, b in pairwise([0, *places, len(data)]) if a < b]
    assert outcome(pieces) == outcome([data]) == outcome([data[i : i + 1] for i in range(len(data))])
