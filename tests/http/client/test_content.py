"""What is made of a response's body: pieces, the whole within a limit, decoded, as text, as JSON."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from typing import Any

import pytest

import coro
from coro import Coro, LimitExceeded
from coro.http import ClientError, ProtocolError, ResponseTooLarge, StatusError, StreamedResponse
from tests.http.client.network import OK, Network, Wire, answer


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # always the same: it names a test


def ok(body: bytes, *lines: str) -> bytes:
    fields = "".join(f"{line}\r\n" for line in lines)
    return f"HTTP/1.1 200 OK\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_what_a_response_tells(network: Network) -> Coro[None]:
    network.serve(answer(ok(b"abc", "X-Y: 1", "x-y: 2", "Set-Cookie: a=b", "Set-Cookie: c=d")))
    response = yield from network.client.get("http://u:p@a/b?c#d")
    assert (response.status, response.reason, response.method, response.ok) == (200, "OK", "GET", True)
    assert response.url == "http://a/b?c"
    assert response.headers["X-Y"] == "1, 2"
    assert response.set_cookies == ["a=b", "c=d"]
    assert response.raise_for_status() is response
    assert repr(response) == "<ClientResponse 200 of GET http://a>"


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        ("grüße".encode(), "text/plain", "grüße"),
        ("grüße".encode("latin-1"), "text/plain; charset=ISO-8859-1", "grüße"),
        ("grüße".encode("utf-16"), 'text/x; a=b; CharSet="utf-16"', "grüße"), (b"\xff", "", "\ufffd"),
        (b"\xff", "text/plain; charsets=latin-1; charset=utf-8; charset=latin-1", "\ufffd"),
        (b"abc", "text/plain; charset=nonsense", "abc"), (b"abc", "text/plain; charset=base64", "abc"),
        (b"abc", "text/plain; charset=\xe4\0", "abc"), (b"", "", ""),
        (b"abc", "text/plain; charset*=utf-8''a%00b", "abc"), (b"a\xffb", "text/plain; charset=undefined", "a\ufffdb"),
        (b"a" * 9, "text/plain; charset=Punycode", "a" * 9), (b"\\x41", "text/plain; charset=unicode_escape", "\\x41"),
        (b"a\xff", "text/plain; charset=idna", "a\ufffd"), (b"+AGE-", "text/plain; charset=utf7", "+AGE-"),
    ],
)  # fmt: skip
def test_text_in_the_charset_that_is_told(network: Network, body: bytes, kind: str, text: str) -> Coro[None]:
    network.serve(answer(ok(body, f"Content-Type: {kind}".replace("\0", ""))))
    assert (yield from network.client.get("http://a/")).text == text


def test_json(network: Network) -> Coro[None]:
    network.serve(answer(ok('{"a": ["ü", 1]}'.encode())))

    def read(response: StreamedResponse) -> Coro[Any]:
        return response.json(limit=100)

    assert (yield from network.client.get("http://a/")).json() == {"a": ["ü", 1]}
    assert (yield from network.client.stream("GET", "http://a/", read)) == {"a": ["ü", 1]}


@pytest.mark.parametrize("body", [b"<html>\x1b[31m", b"", b"\xff", b"[" * 100_000])
def test_what_is_no_json(network: Network, body: bytes) -> Coro[None]:
    network.serve(answer(ok(body)))
    response = yield from network.client.get("http://a/")
    with pytest.raises(ProtocolError, match="GET http://a: the body is not JSON") as raised:
        response.json()
    assert str(raised.value).isprintable()


def test_status_that_is_an_error_if_one_wants(network: Network) -> Coro[None]:
    network.serve(answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc"))
    response = yield from network.client.get("http://a/b")
    assert not response.ok
    with pytest.raises(StatusError, match="GET http://a: answered 404 Not Found") as raised:
        response.raise_for_status()
    assert raised.value.status == 404


# --- Pieces and limits ------------------------------------------------------------------------


def test_body_comes_in_pieces_as_it_is_sent(network: Network) -> Coro[None]:
    def handler(wire: Wire) -> Coro[None]:
        yield from wire.request()
        yield from wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for n in range(3):
            yield from coro.sleep(10)
            yield from wire.send(b"2\r\n%d;\r\n" % n)
        yield from wire.send(b"0\r\n\r\n")
        yield from wire.until_closed()

    def use(response: StreamedResponse) -> Coro[list[tuple[float, bytes]]]:
        pieces = []
        while piece := (yield from response.read()):
            pieces.append((coro.now(), piece))
        return pieces

    network.serve(handler)
    pieces = yield from network.client.stream("GET", "http://a/", use)
    assert pieces == [(10, b"0;"), (20, b"1;"), (30, b"2;")]
    assert network.open == [True]


def test_body_is_not_received_faster_than_it_is_read(network: Network) -> Coro[None]:
    sent = 0

    def handler(wire: Wire) -> Coro[None]:
        nonlocal sent
        yield from wire.request()
        yield from wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            yield from wire.stream.write(bytes(10_000))
            sent += 10_000

    def use(response: StreamedResponse) -> Coro[None]:
        yield from response.read(1)
        yield from coro.sleep(100)
        assert sent < 150_000
        for _ in range(100):
            assert len((yield from response.read(1000))) <= 1000
        yield from coro.sleep(100)
        assert sent < 250_000

    network.serve(handler)
    yield from network.client.stream("GET", "http://a/", use)


CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"64\r\n" + bytes(100) + b"\r\n0\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\n\r\n" + bytes(100)
ENCODED = ok(packed(bytes(100)), "Content-Encoding: gzip")


BODIES = {"length": ok(bytes(100)), "chunks": CHUNKS, "end": UNTIL_CLOSED, "gzip": ENCODED}


@pytest.mark.parametrize("data", BODIES.values(), ids=BODIES)
def test_limit_for_the_whole_body(network: Network, data: bytes) -> Coro[None]:
    network.serve(answer(data, close=True))
    client = network.client
    assert (yield from client.get("http://a/", limit=100)).body == bytes(100)
    expected = "GET http://a: the response's body has more than 99 bytes: allow more with `limit`, or stream it"
    with pytest.raises(ResponseTooLarge, match=expected) as raised:
        yield from client.get("http://a/", limit=99)
    assert isinstance(raised.value, LimitExceeded) and isinstance(raised.value, ClientError)
    assert network.open[-1] is (data is not UNTIL_CLOSED)  # the others were there to their end


def test_body_in_tiny_chunks_takes_no_more_memory_than_its_bytes(network: Network) -> Coro[None]:
    chunks = b"2\r\nab\r\n" * 10_000
    network.serve(answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"))
    tracemalloc.start()
    try:
        assert (yield from network.client.get("http://a/")).body == b"ab" * 10_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 400_000  # of which the network holds a part; the pieces' objects alone would take more


def test_length_beyond_the_limit_is_not_even_begun(network: Network) -> Coro[None]:
    network.serve(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n"))
    with pytest.raises(ResponseTooLarge):
        yield from network.client.get("http://a/")


def test_response_to_head_tells_a_length_and_has_none(network: Network) -> Coro[None]:
    network.serve(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\nContent-Encoding: br\r\n\r\n"))
    response = yield from network.client.head("http://a/")
    assert (response.body, response.headers["content-length"]) == (b"", "1000000000000")
    assert network.open == [True]


# --- Content codings --------------------------------------------------------------------------


DATA = b"hello " * 5000


@pytest.mark.parametrize(
    ("coding", "encoded"),
    [("gzip", packed(DATA)), ("GZip", packed(DATA)), ("x-gzip", packed(DATA)),
     ("deflate", zlib.compress(DATA)), ("deflate", zlib.compress(DATA, wbits=-15)), ("identity", DATA), ("", DATA)],
)  # fmt: skip
def test_decoded(network: Network, coding: str, encoded: bytes) -> Coro[None]:
    network.serve(answer(ok(encoded, f"Content-Encoding: {coding}")))
    for _ in range(2):
        response = yield from network.client.get("http://a/")
        assert response.body == DATA
        assert response.headers["content-encoding"] == coding
    assert len(network.wires) == 1


def test_bomb_is_cut_at_the_limit(network: Network) -> Coro[None]:
    network.serve(answer(ok(gzip.compress(bytes(1 << 26)), "Content-Encoding: gzip")))
    with pytest.raises(ResponseTooLarge):
        yield from network.client.get("http://a/")


def test_bomb_is_streamed_in_pieces_of_the_size_asked_for(network: Network) -> Coro[None]:
    def use(response: StreamedResponse) -> Coro[int]:
        total = 0
        while piece := (yield from response.read(1000)):
            assert len(piece) <= 1000
            total += len(piece)
        return total

    network.serve(answer(ok(gzip.compress(bytes(1 << 21)), "Content-Encoding: gzip")))
    assert (yield from network.client.stream("GET", "http://a/", use)) == 1 << 21
    assert network.open == [True]


def test_limit_is_for_the_decoded_body(network: Network) -> Coro[None]:
    network.serve(answer(ok(packed(b"abc"), "Content-Encoding: gzip")))
    assert (yield from network.client.get("http://a/", limit=3)).body == b"abc"
    with pytest.raises(ResponseTooLarge):
        yield from network.client.get("http://a/", limit=2)


@pytest.mark.parametrize("limit", [0, -1])
def test_nobody_reads_no_bytes(network: Network, limit: int) -> Coro[None]:
    def use(response: StreamedResponse) -> Coro[bytes]:
        with pytest.raises(ValueError, match=f"reading {limit} bytes"):
            yield from response.read(limit)
        return (yield from response.read_all(10))

    network.serve(answer(ok(gzip.compress(b"abc"), "Content-Encoding: gzip")))
    assert (yield from network.client.stream("GET", "http://a/", use)) == b"abc"


@pytest.mark.parametrize("headers", [{"Accept-Encoding": "gzip"}, {"Range": "bytes=0-"}])
def test_who_asks_for_codings_or_ranges_gets_what_comes(network: Network, headers: dict[str, str]) -> Coro[None]:
    network.serve(answer(ok(b"\x1f\x8bpart of it", "Content-Encoding: gzip")))
    assert (yield from network.client.get("http://a/", headers=headers)).body == b"\x1f\x8bpart of it"


@pytest.mark.parametrize(
    ("coding", "body", "words"),
    [("br", b"abc", "in the coding 'br', which was not asked for"), ("gzip, gzip", b"abc", "'gzip, gzip'"),
     ("gzip", b"plain", "the body is not gzip"), ("gzip", packed(DATA)[:-5], "the gzip body ends in the middle"),
     ("deflate", zlib.compress(DATA) + b"more", "bytes after the end of the deflate body")],
)  # fmt: skip
def test_body_that_cannot_be_decoded(network: Network, coding: str, body: bytes, words: str) -> Coro[None]:
    network.serve(answer(ok(body, f"Content-Encoding: {coding}")))
    with pytest.raises(ProtocolError, match=f"GET http://a: .*{words}"):
        yield from network.client.get("http://a/")


def test_empty_body_in_a_coding_is_empty(network: Network) -> Coro[None]:
    network.serve(answer(ok(b"", "Content-Encoding: gzip"), OK))
    assert (yield from network.client.get("http://a/")).body == b""
