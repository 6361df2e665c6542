"""What a server may say, and what it is to become: the conformance corpus of the response parser.

A vector of `COMPLETE` becomes this response and leaves the connection fit for another. One of `LAST` becomes this
response, and the connection must be closed. One of `ENDED` does so when the connection ends; one of `CUT` is an error
then. One of `REFUSED` is an error as it stands.
"""

from __future__ import annotations

from typing import NamedTuple

from coro.http.client.errors import ClientError, ProtocolError, ResponseTooLarge


class Received(NamedTuple):
    """A response, as the parser is to report it."""

    status: int
    body: bytes = b""


OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: 3\r\n\r\n"
ABC = Received(200, b"abc")
EMPTY = Received(200)


def ok(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *lines, b"", b"")) + body


def chunked(body: bytes) -> bytes:
    return ok(b"Transfer-Encoding: chunked", body=body)


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
WHOLE = ok(b"Content-Length: 3", body=b"abc")

COMPLETE: dict[str, tuple[bytes, Received]] = {
    "Content-Length": (WHOLE, ABC),
    "Content-Length 0": (ok(b"Content-Length: 0"), EMPTY),
    "Content-Length with zeros and spaces": (ok(b"Content-Length: \t 003 ", body=b"abc"), ABC),
    "no reason": (b"HTTP/1.1 200 \r\n" + LENGTH + b"abc", ABC),
    "no reason, no space": (b"HTTP/1.1 200\r\n" + LENGTH + b"abc", ABC),
    "reason of strange bytes": (b"HTTP/1.1 200 \xe4\t\xff OK \r\n" + LENGTH + b"abc", ABC),
    "status that no standard knows": (b"HTTP/1.1 999 Go away\r\n" + LENGTH + b"abc", Received(999, b"abc")),
    "fields of all kinds": (ok(b"Content-Length: 3", b"X:", b"!#$%&'*+-.^_`|~09: \xe9\t\xff :", body=b"abc"), ABC),
    "repeated fields": (ok(b"X: 1", b"Content-Length: 3", b"x: 2", body=b"abc"), ABC),
    "HTTP/1.0 that keeps the connection": (
        b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n" + LENGTH + b"abc", ABC
    ),
    "Connection with other options": (ok(b"Connection: x, Keep-Alive", b"Content-Length: 3", body=b"abc"), ABC),
    "chunked": (chunked(b"3\r\nabc\r\n0\r\n\r\n"), ABC),
    "chunked in other letters": (ok(b"TRANSFER-encoding:CHUNKED", body=b"3\r\nabc\r\n0\r\n\r\n"), ABC),
    "several chunks": (chunked(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"), ABC),
    "no chunks": (chunked(b"0\r\n\r\n"), EMPTY),
    "chunk size with zeros": (chunked(b"0003\r\nabc\r\n00\r\n\r\n"), ABC),
    "chunk size in hexadecimal": (chunked(b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n"),
        Received(200, b"01234567890123456789a")),
    "chunk size with space after it": (chunked(b"3  \r\nabc\r\n0 \r\n\r\n"), ABC),
    "chunk extensions": (chunked(b'3;a;b=c;d="e f"\r\nabc\r\n0;x\r\n\r\n'), ABC),
    "chunk that looks like the end": (chunked(b"5\r\n0\r\n\r\n\r\n0\r\n\r\n"), Received(200, b"0\r\n\r\n")),
    "trailer fields": (chunked(b"3\r\nabc\r\n0\r\nX: y\r\nContent-Length: 9\r\n\r\n"), ABC),
    "body that looks like a response": (ok(b"Content-Length: 41", body=WHOLE), Received(200, WHOLE)),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", Received(204)),
    "204 with a length": (b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", Received(204)),
    "304 with the length of what was not modified": (
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 300\r\n\r\n", Received(304)
    ),
    "304 with the coding of what was not modified": (
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", Received(304)
    ),
    "100 ahead": (CONTINUE + WHOLE, ABC),
    "several interim responses": (
        CONTINUE + b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + CONTINUE + WHOLE, ABC
    ),
    "interim response with a length": (b"HTTP/1.1 103 Hints\r\nContent-Length: 3\r\n\r\n" + WHOLE, ABC),
}  # fmt: skip

LAST: dict[str, tuple[bytes, Received]] = {
    "Connection: close": (ok(b"Connection: close", b"Content-Length: 3", body=b"abc"), ABC),
    "close among other options": (ok(b"Connection: x , CLOSE", b"Content-Length: 3", body=b"abc"), ABC),
    "close in a second field": (ok(b"Connection: x", b"Connection: close", b"Content-Length: 3", body=b"abc"), ABC),
    "close and keep-alive": (ok(b"Connection: keep-alive, close", b"Content-Length: 3", body=b"abc"), ABC),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n" + LENGTH + b"abc", ABC),
    "204 and close": (b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", Received(204)),
}

ENDED: dict[str, tuple[bytes, Received]] = {
    "neither length nor chunks": (ok(b"X: y", body=b"abc"), ABC),
    "nothing at all": (ok(), EMPTY),
    "HTTP/1.0 with keep-alive": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nabc", ABC),
    "redirect without a length": (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", Received(302)),
}

CUT: dict[str, bytes] = {
    "nothing": b"",
    "in the status line": b"HTTP/1.1 20",
    "in the head": OK + b"X: y\r\n",
    "after an interim response": CONTINUE,
    "in the body": ok(b"Content-Length: 3", body=b"ab"),
    "before the body": ok(b"Content-Length: 3"),
    "before the chunks": chunked(b""),
    "in a chunk size": chunked(b"1"),
    "in a chunk": chunked(b"3\r\nab"),
    "after a chunk": chunked(b"3\r\nabc\r\n"),
    "in the last chunk": chunked(b"3\r\nabc\r\n0\r\n"),
    "in the trailer fields": chunked(b"3\r\nabc\r\n0\r\nX: y\r\n"),
}

REFUSED: dict[str, tuple[bytes, type[ClientError]]] = {
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", ProtocolError),
    "another protocol, in binary": (b"\x15\x03\x01\x00\x02\x02", ProtocolError),
    "HTTP/0.9": (b"<html>", ProtocolError),
    "HTTP/2": (b"HTTP/2 200 OK\r\n" + LENGTH, ProtocolError),
    "HTTP/1.2": (b"HTTP/1.2 200 OK\r\n" + LENGTH, ProtocolError),
    "small letters": (b"http/1.1 200 OK\r\n" + LENGTH, ProtocolError),
    "empty line ahead": (b"\r\n" + WHOLE, ProtocolError),
    "two spaces": (b"HTTP/1.1  200 OK\r\n" + LENGTH, ProtocolError),
    "tab": (b"HTTP/1.1\t200 OK\r\n" + LENGTH, ProtocolError),
    "status of two digits": (b"HTTP/1.1 99 OK\r\n" + LENGTH, ProtocolError),
    "status of four digits": (b"HTTP/1.1 2000 OK\r\n" + LENGTH, ProtocolError),
    "status that begins with 0": (b"HTTP/1.1 020 OK\r\n" + LENGTH, ProtocolError),
    "status that is no number": (b"HTTP/1.1 OK\r\n" + LENGTH, ProtocolError),
    "NUL in the reason": (b"HTTP/1.1 200 O\0K\r\n" + LENGTH, ProtocolError),
    "switching protocols unasked": (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", ProtocolError),
    "LF alone": (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", ProtocolError),
    "LF alone after the status line": (b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", ProtocolError),
    "LF alone after a field": (ok(b"X: y\nContent-Length: 0"), ProtocolError),
    "CR alone in a value": (ok(b"X: y\rContent-Length: 0"), ProtocolError),
    "CR alone before the end": (ok(b"Content-Length: 0\r"), ProtocolError),
    "NUL in a value": (ok(b"X: \0", b"Content-Length: 0"), ProtocolError),
    "folded line": (ok(b"X: y", b" z", b"Content-Length: 0"), ProtocolError),
    "folded line that looks like a field": (ok(b"X: y", b" Content-Length: 3", b"Content-Length: 0"), ProtocolError),
    "folded first line": (ok(b" X: y", b"Content-Length: 0"), ProtocolError),
    "no colon": (ok(b"X", b"Content-Length: 0"), ProtocolError),
    "no name": (ok(b": x", b"Content-Length: 0"), ProtocolError),
    "space before the colon": (ok(b"Content-Length : 0"), ProtocolError),
    "name with a space": (ok(b"X Y: z", b"Content-Length: 0"), ProtocolError),
    "Content-Length twice": (ok(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"), ProtocolError),
    "Content-Length as a list": (ok(b"Content-Length: 3, 3", body=b"abc"), ProtocolError),
    "Content-Length with a sign": (ok(b"Content-Length: +3", body=b"abc"), ProtocolError),
    "Content-Length below 0": (ok(b"Content-Length: -1"), ProtocolError),
    "Content-Length in hexadecimal": (ok(b"Content-Length: 0x3", body=b"abc"), ProtocolError),
    "Content-Length of nothing": (ok(b"Content-Length:"), ProtocolError),
    "Content-Length of other digits": (ok(b"Content-Length: \xb2"), ProtocolError),
    "Content-Length beyond all": (ok(b"Content-Length: " + b"9" * 19), ProtocolError),
    "both framings": (
        ok(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"), ProtocolError
    ),
    "transfer coding that was not asked for": (ok(b"Transfer-Encoding: gzip, chunked"), ProtocolError),
    "transfer coding twice": (ok(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), ProtocolError),
    "transfer coding identity": (ok(b"Transfer-Encoding: identity"), ProtocolError),
    "chunked in HTTP/1.0": (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ProtocolError),
    "two locations": (b"HTTP/1.1 302 Found\r\nLocation: /a\r\nLocation: /b\r\n" + LENGTH + b"abc", ProtocolError),
    "chunk size with a sign": (chunked(b"+3\r\nabc\r\n"), ProtocolError),
    "chunk size with 0x": (chunked(b"0x3\r\nabc\r\n"), ProtocolError),
    "chunk size with an underscore": (chunked(b"1_0\r\n"), ProtocolError),
    "chunk size with space before it": (chunked(b" 3\r\nabc\r\n"), ProtocolError),
    "chunk size of nothing": (chunked(b"\r\nabc\r\n"), ProtocolError),
    "chunk size beyond all": (chunked(b"1" * 16 + b"\r\n"), ProtocolError),
    "chunk size and LF alone": (chunked(b"3\nabc\r\n"), ProtocolError),
    "chunk size and CR alone": (chunked(b"3\rabc\r\n"), ProtocolError),
    "chunk longer than it told": (chunked(b"3\r\nabcd\r\n0\r\n\r\n"), ProtocolError),
    "chunk shorter than it told": (chunked(b"3\r\nab\r\n0\r\n\r\n"), ProtocolError),
    "LF alone after a chunk": (chunked(b"3\r\nabc\n0\r\n\r\n"), ProtocolError),
    "NUL in a chunk extension": (chunked(b"3;\0\r\nabc\r\n"), ProtocolError),
    "malformed trailer field": (chunked(b"0\r\nX : y\r\n\r\n"), ProtocolError),
    "LF alone in the trailer fields": (chunked(b"0\r\nX: y\n\r\n"), ProtocolError),
    "too many interim responses": (CONTINUE * 33, ProtocolError),
    "too many fields": (ok(*[b"a: b"] * 300), ResponseTooLarge),
    "head without end": (OK + b"X: " + b"y" * 70_000, ResponseTooLarge),
    "head that is too large": (ok(b"X: " + b"y" * 70_000), ResponseTooLarge),
    "status line without end": (b"HTTP/1.1 200 " + b"y" * 70_000, ResponseTooLarge),
    "chunk line without end": (chunked(b"3;" + b"y" * 5000), ProtocolError),
    "chunk extensions without end": (
        chunked((b"1;" + b"y" * 3000 + b"\r\na\r\n") * 6), ResponseTooLarge
    ),
    "trailer fields without end": (chunked(b"0\r\n" + b"X: y\r\n" * 12_000), ResponseTooLarge),
    "too many trailer fields": (chunked(b"0\r\n" + b"X: y\r\n" * 300 + b"\r\n"), ResponseTooLarge),
}  # fmt: skip
