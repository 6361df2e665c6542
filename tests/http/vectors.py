"""What may come over the wire, and what it is to become: the conformance corpus of the request parser.

A vector of `ACCEPTED` becomes these requests and nothing else. One of `REFUSED` is refused with this status, after
these requests; `...` as a body means that the request was handed out and its body never came to an end.
"""

from __future__ import annotations

from types import EllipsisType
from typing import NamedTuple


class Expected(NamedTuple):
    """A request, as the parser is to report it."""

    line: str
    body: bytes | EllipsisType = b""
    keep_alive: bool = True


HOST = b"Host: example.org\r\n"
NEXT = b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n"
NEXT_REQUEST = Expected("GET /next HTTP/1.1")
GET = Expected("GET / HTTP/1.1")
POST = Expected("POST / HTTP/1.1", b"abc")
UNFINISHED = Expected("POST / HTTP/1.1", ...)


def get(*lines: bytes) -> bytes:
    return b"\r\n".join((b"GET / HTTP/1.1", *lines, b"", b""))


def line(start: bytes) -> bytes:
    return start + b"\r\n" + HOST + b"\r\n"


def post(fields: bytes, body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + fields + b"\r\n\r\n" + body


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body)


ACCEPTED: dict[str, tuple[bytes, list[Expected]]] = {
    "the least": (get(b"Host: a"), [GET]),
    "fields of all kinds": (get(b"Host: a", b"X:", b"Y:   z  ", b"!#$%&'*+-.^_`|~09: \xe9\t\xff"), [GET]),
    "empty lines ahead": (b"\r\n\r\n" + get(b"Host: a"), [GET]),
    "target with query": (line(b"GET /a/b?c=d&e=%20f HTTP/1.1"), [Expected("GET /a/b?c=d&e=%20f HTTP/1.1")]),
    "target with two slashes": (line(b"GET //a HTTP/1.1"), [Expected("GET //a HTTP/1.1")]),
    "target with odd characters": (line(b"GET /\"<>\\^`{|} HTTP/1.1"), [Expected("GET /\"<>\\^`{|} HTTP/1.1")]),
    "absolute form": (line(b"GET http://h:8/a?b HTTP/1.1"), [Expected("GET /a?b HTTP/1.1")]),
    "absolute form, https": (line(b"GET HTTPS://h/a HTTP/1.1"), [Expected("GET /a HTTP/1.1")]),
    "absolute form without path": (line(b"GET http://h HTTP/1.1"), [GET]),
    "absolute form with bare query": (line(b"GET http://h?a HTTP/1.1"), [Expected("GET /?a HTTP/1.1")]),
    "asterisk form": (line(b"OPTIONS * HTTP/1.1"), [Expected("OPTIONS * HTTP/1.1")]),
    "host with port": (get(b"Host: a.example:8080"), [GET]),
    "host with empty port": (get(b"Host: a:"), [GET]),
    "host is IPv4": (get(b"Host: 127.0.0.1:80"), [GET]),
    "host is IPv6": (get(b"Host: [::1]:80"), [GET]),
    "HTTP/1.0 without Host": (
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", [Expected("GET / HTTP/1.0")]
    ),
    "Content-Length": (post(b"Content-Length: 3", b"abc"), [POST]),
    "Content-Length with spaces": (post(b"Content-Length:  3 ", b"abc"), [POST]),
    "Content-Length with zeros": (post(b"Content-Length: 0003", b"abc"), [POST]),
    "Content-Length 0": (post(b"Content-Length: 0", b""), [Expected("POST / HTTP/1.1")]),
    "POST without a body": (b"POST / HTTP/1.1\r\n" + HOST + b"\r\n", [Expected("POST / HTTP/1.1")]),
    "GET with a body": (get(b"Host: a", b"Content-Length: 3") + b"abc", [GET._replace(body=b"abc")]),
    "body that looks like a request": (post(b"Content-Length: 41", NEXT), [Expected("POST / HTTP/1.1", NEXT)]),
    "chunked": (chunked(b"3\r\nabc\r\n0\r\n\r\n"), [POST]),
    "space after the values": (
        post(b"Transfer-Encoding: chunked \r\nExpect: 100-continue\t \r\nX: \t", b"3\r\nabc\r\n0\r\n\r\n"), [POST]
    ),
    "space after the host": (get(b"Host: a \t"), [GET]),
    "chunked in other letters": (post(b"TRANSFER-encoding: CHunkeD", b"3\r\nabc\r\n0\r\n\r\n"), [POST]),
    "several chunks": (chunked(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"), [POST]),
    "no chunks": (chunked(b"0\r\n\r\n"), [Expected("POST / HTTP/1.1")]),
    "chunk size with zeros": (chunked(b"0003\r\nabc\r\n00\r\n\r\n"), [POST]),
    "chunk size in hexadecimal": (chunked(b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"),
                                  [Expected("POST / HTTP/1.1", b"0123456789" * 2)]),
    "chunk extensions": (chunked(b"3;a;b=c;d=\"e f\"\r\nabc\r\n0;z\r\n\r\n"), [POST]),
    "trailer fields": (chunked(b"3\r\nabc\r\n0\r\nX: y\r\nHost: evil\r\n\r\n"), [POST]),
    "chunk that looks like a request": (chunked(b"29\r\n" + NEXT + b"\r\n0\r\n\r\n"),
                                        [Expected("POST / HTTP/1.1", NEXT)]),
    "keep-alive, HTTP/1.1": (get(b"Host: a", b"Connection: keep-alive"), [GET]),
    "pipelined": (get(b"Host: a") + post(b"Content-Length: 3", b"abc") + get(b"Host: b"), [GET, POST, GET]),
    "upgrade": (get(b"Host: a", b"Connection: upgrade", b"Upgrade: websocket"), [GET]),
    "upgrade with Content-Length": (
        post(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 3", b"abc"), [POST]
    ),
    "upgrade with a body that looks like a request": (
        post(b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 41", NEXT), [Expected("POST / HTTP/1.1", NEXT)]
    ),
    "upgrade with chunks": (
        post(b"Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked", b"3;x\r\nabc\r\n0\r\nA: b\r\n\r\n"),
        [POST],
    ),
    "upgrade in a trailer field": (
        post(b"Connection: upgrade\r\nTransfer-Encoding: chunked", b"3\r\nabc\r\n0\r\nUpgrade: h2c\r\n\r\n"), [POST]
    ),
    "upgrade without the connection option": (get(b"Host: a", b"Upgrade: h2c"), [GET]),
}  # fmt: skip

# These end the connection: nothing may follow.
LAST: dict[str, tuple[bytes, Expected]] = {
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", Expected("GET / HTTP/1.0", keep_alive=False)),
    "close": (get(b"Host: a", b"Connection: close"), GET._replace(keep_alive=False)),
    "close in other letters": (get(b"Host: a", b"connection: ClosE"), GET._replace(keep_alive=False)),
    "close among others": (get(b"Host: a", b"Connection: keep-alive, close"), GET._replace(keep_alive=False)),
    "close in a second field": (get(b"Host: a", b"Connection: x", b"Connection: close"),
                                GET._replace(keep_alive=False)),
}  # fmt: skip

REFUSED: dict[str, tuple[bytes, list[Expected], int]] = {
    # Request line: RFC 9112, section 3.
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [], 400),
    "unknown method": (line(b"FROB / HTTP/1.1"), [], 400),
    "method in small letters": (line(b"get / HTTP/1.1"), [], 400),
    "no target": (line(b"GET HTTP/1.1"), [], 400),
    "relative target": (line(b"GET a HTTP/1.1"), [], 400),
    "space in the target": (line(b"GET /a b HTTP/1.1"), [], 400),
    "tab in the target": (line(b"GET /a\tb HTTP/1.1"), [], 400),
    "NUL in the target": (line(b"GET /a\0b HTTP/1.1"), [], 400),
    "control character in the target": (line(b"GET /a\x7fb HTTP/1.1"), [], 400),
    "target outside ASCII": (line(b"GET /\xc3\xa9 HTTP/1.1"), [], 400),
    "fragment": (line(b"GET /a#b HTTP/1.1"), [], 400),
    "GET *": (line(b"GET * HTTP/1.1"), [], 400),
    "absolute form, other scheme": (line(b"GET ftp://h/a HTTP/1.1"), [], 400),
    "absolute form with user": (line(b"GET http://u@h/a HTTP/1.1"), [], 400),
    "absolute form without host": (line(b"GET http:///a HTTP/1.1"), [], 400),
    "absolute form, no Host field": (b"GET http://h/a HTTP/1.1\r\n\r\n", [], 400),
    "absolute form, malformed Host field": (b"GET http://h/a HTTP/1.1\r\nHost: a/b\r\n\r\n", [], 400),
    "CONNECT": (line(b"CONNECT example.org:443 HTTP/1.1"), [], 501),
    "CONNECT with a path": (line(b"CONNECT /a HTTP/1.1"), [], 501),
    "HTTP/0.9": (b"GET /\r\n\r\n", [], 505),
    "HTTP/0.9, said": (line(b"GET / HTTP/0.9"), [], 505),
    "HTTP/1.2": (line(b"GET / HTTP/1.2"), [], 505),
    "HTTP/2.0": (line(b"GET / HTTP/2.0"), [], 505),
    "HTTP/3.0": (line(b"GET / HTTP/3.0"), [], 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [], 400),
    "version in small letters": (line(b"GET / http/1.1"), [], 400),
    "version of two digits": (line(b"GET / HTTP/1.10"), [], 400),
    "version without minor": (line(b"GET / HTTP/1"), [], 400),
    "space after the version": (line(b"GET / HTTP/1.1 "), [], 400),
    "other protocol": (line(b"GET / ICE/1.0"), [], 400),
    "other protocol that llhttp takes for HTTP": (line(b"GET / RTSP/1.0"), [], 400),
    "two spaces before the target": (line(b"GET  / HTTP/1.1"), [], 400),
    "two spaces after the target": (line(b"GET /  HTTP/1.1"), [], 400),
    "space before the method": (line(b" GET / HTTP/1.1"), [], 400),
    # Header fields: RFC 9112, section 5, and RFC 9110, section 5.
    "bare LF after the request line": (b"GET / HTTP/1.1\nHost: a\r\n\r\n", [], 400),
    "bare LF after a field": (b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", [], 400),
    "bare LF at the end": (b"GET / HTTP/1.1\r\nHost: a\r\n\n", [], 400),
    "bare CR after the request line": (b"GET / HTTP/1.1\rHost: a\r\n\r\n", [], 400),
    "bare CR in a field": (get(b"Host: a", b"X: y\rZ: z"), [], 400),
    "NUL in a field": (get(b"Host: a", b"X: y\0z"), [], 400),
    "NUL in a name": (get(b"Host: a", b"X\0: y"), [], 400),
    "control character in a field": (get(b"Host: a", b"X: y\x01z"), [], 400),
    "folded line": (get(b"Host: a", b"X: y", b" z"), [], 400),
    "folded line, tab": (get(b"Host: a", b"X: y", b"\tz"), [], 400),
    "space before the first field": (get(b" Host: a", b"Host: a"), [], 400),
    "space before the colon": (get(b"Host: a", b"X : y"), [], 400),
    "space in a name": (get(b"Host: a", b"X Y: z"), [], 400),
    "name outside ASCII": (get(b"Host: a", b"\xe9: z"), [], 400),
    "empty name": (get(b"Host: a", b": y"), [], 400),
    "no colon": (get(b"Host: a", b"X"), [], 400),
    # Host: RFC 9112, section 3.2.
    "no Host": (get(b"X: y"), [], 400),
    "two Hosts": (get(b"Host: a", b"Host: b"), [], 400),
    "the same Host twice": (get(b"Host: a", b"host: a"), [], 400),
    "empty Host": (get(b"Host:"), [], 400),
    "Host with path": (get(b"Host: a/b"), [], 400),
    "Host with user": (get(b"Host: u@a"), [], 400),
    "Host with comma": (get(b"Host: a,b"), [], 400),
    "Host with space": (get(b"Host: a b"), [], 400),
    "Host with a bad port": (get(b"Host: a:b"), [], 400),
    "Host with two ports": (get(b"Host: a:1:2"), [], 400),
    "Host outside ASCII": (get(b"Host: \xc3\xa9"), [], 400),
    "Host with half a bracket": (get(b"Host: [::1"), [], 400),
    "malformed Host, HTTP/1.0": (b"GET / HTTP/1.0\r\nHost: a/b\r\n\r\n", [], 400),
    # Expect: RFC 9110, section 10.1.1.
    "other expectation": (get(b"Host: a", b"Expect: 200-ok"), [], 417),
    "two expectations": (get(b"Host: a", b"Expect: 100-continue", b"Expect: 100-continue"), [], 400),
    # Framing: RFC 9112, section 6.
    "Content-Length with sign": (post(b"Content-Length: +3", b"abc"), [], 400),
    "negative Content-Length": (post(b"Content-Length: -3", b"abc"), [], 400),
    "empty Content-Length": (post(b"Content-Length:", b"abc"), [], 400),
    "hexadecimal Content-Length": (post(b"Content-Length: 0x3", b"abc"), [], 400),
    "Content-Length with underscore": (post(b"Content-Length: 1_0", b"abc"), [], 400),
    "Content-Length with point": (post(b"Content-Length: 3.0", b"abc"), [], 400),
    "Content-Length in two numbers": (post(b"Content-Length: 3 3", b"abc"), [], 400),
    "Content-Length as a list": (post(b"Content-Length: 3, 3", b"abc"), [], 400),
    "Content-Length beyond 64 bits": (post(b"Content-Length: 99999999999999999999", b"abc"), [], 400),
    "Content-Length of 5000 digits": (post(b"Content-Length: " + b"0" * 4999 + b"3", b"abc"), [], 400),
    "Content-Length twice": (post(b"Content-Length: 3\r\nContent-Length: 3", b"abc"), [], 400),
    "two Content-Lengths": (post(b"Content-Length: 3\r\nContent-Length: 4", b"abc"), [], 400),
    "Content-Length and chunked": (post(b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"), [], 400),
    "chunked and Content-Length": (post(b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n"), [], 400),
    "chunked in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [], 400),
    "chunked twice": (post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"), [], 400),
    "chunked twice in a field": (post(b"Transfer-Encoding: chunked, chunked", b"0\r\n\r\n"), [], 400),
    "chunked, not last": (post(b"Transfer-Encoding: chunked, gzip", b"0\r\n\r\n"), [], 400),
    "chunked behind a control character": (post(b"Transfer-Encoding: \x0bchunked", b"0\r\n\r\n"), [], 400),
    "empty Transfer-Encoding": (post(b"Transfer-Encoding:", b"0\r\n\r\n"), [], 400),
    "gzip": (post(b"Transfer-Encoding: gzip", b""), [], 501),
    "gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked", b"0\r\n\r\n"), [], 501),
    "identity": (post(b"Transfer-Encoding: identity", b""), [], 501),
    "xchunked": (post(b"Transfer-Encoding: xchunked", b"0\r\n\r\n"), [], 501),
    # Chunks: RFC 9112, section 7.1.
    "empty chunk size": (chunked(b"\r\nabc\r\n0\r\n\r\n"), [UNFINISHED], 400),
    "chunk size with sign": (chunked(b"+3\r\nabc\r\n0\r\n\r\n"), [UNFINISHED], 400),
    "negative chunk size": (chunked(b"-3\r\nabc\r\n0\r\n\r\n"), [UNFINISHED], 400),
    "chunk size with 0x": (chunked(b"0x3\r\nabc\r\n0\r\n\r\n"), [UNFINISHED], 400),
    "chunk size with underscore": (chunked(b"0_3\r\nabc\r\n0\r\n\r\n"), [UNFINISHED], 400),
    "chunk size behind a space": (chunked(b" 3\r\nabc\r\n0\r\n\r\n"), [UNFINISHED], 400),
    "chunk size before a space": (chunked(b"3 \r\nabc\r\n0\r\n\r\n"), [UNFINISHED], 400),
    "chunk size beyond 64 bits": (chunked(b"10000000000000003\r\nabc\r\n0\r\n\r\n"), [UNFINISHED], 400),
    "chunk longer than its size": (chunked(b"2\r\nabc\r\n0\r\n\r\n"), [UNFINISHED], 400),
    "chunk shorter than its size": (chunked(b"4\r\nabc\r\n0\r\n\r\n"), [UNFINISHED], 400),
    "bare LF after a chunk size": (chunked(b"3\nabc\r\n0\r\n\r\n"), [UNFINISHED], 400),
    "bare CR after a chunk size": (chunked(b"3\rabc\r\n0\r\n\r\n"), [UNFINISHED], 400),
    "bare LF after a chunk": (chunked(b"3\r\nabc\n0\r\n\r\n"), [UNFINISHED], 400),
    "bare LF in a chunk extension": (chunked(b"3;a\nabc\r\n0\r\n\r\n"), [UNFINISHED], 400),
    "bare CR in a chunk extension": (chunked(b"3;a\rb\r\nabc\r\n0\r\n\r\n"), [UNFINISHED], 400),
    "line end in a quoted chunk extension": (chunked(b"3;a=\"\r\nabc\r\n0\r\n\r\n"), [UNFINISHED], 400),
    "NUL in a chunk extension": (chunked(b"3;\0\r\nabc\r\n0\r\n\r\n"), [UNFINISHED], 400),
    "bare LF after the last chunk": (chunked(b"3\r\nabc\r\n0\n\r\n"), [UNFINISHED], 400),
    "bare LF at the end of the chunks": (chunked(b"3\r\nabc\r\n0\r\n\n"), [UNFINISHED], 400),
    "trailer Content-Length": (chunked(b"0\r\nContent-Length: 5\r\n\r\n"), [UNFINISHED], 400),
    "trailer Transfer-Encoding": (chunked(b"0\r\nTransfer-Encoding: chunked\r\n\r\n"), [UNFINISHED], 400),
    "malformed trailer": (chunked(b"0\r\nX Y: z\r\n\r\n"), [UNFINISHED], 400),
    "NUL in a trailer": (chunked(b"0\r\nX: \0\r\n\r\n"), [UNFINISHED], 400),
    "folded trailer": (chunked(b"0\r\nX: y\r\n z\r\n\r\n"), [UNFINISHED], 400),
    # What came before is kept.
    "garbage after a request": (get(b"Host: a") + b"\0", [GET], 400),
    "garbage after a body": (post(b"Content-Length: 3", b"abc") + b"d\r\n", [POST], 400),
}  # fmt: skip
