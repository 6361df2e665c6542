"""HTTP/1.1 requests out of bytes (RFC 9112), without any I/O. Framing is llhttp's, through httptools.

    parser.feed(data)
    while parser.heads: head = parser.heads.pop(0) ...      # each request, as soon as its head is complete
    if parser.refusal: ...                                     # nothing after it can be trusted: answer and close

llhttp decides where messages begin and end, and refuses ambiguous framing. It accepts heads of any size, any number of
header fields, chunk extensions without end, requests without `Host` and chunked bodies from HTTP/1.0 clients: these
are limited or refused here. What arrives of a body waits in `head.chunks` for its reader.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NoReturn

import httptools


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may send and how long it may take: sizes in bytes, times in seconds."""

    target: int = 8192  # the request target (URL): 414 beyond it
    head: int = 32768  # all header fields together: 431 beyond it
    fields: int = 100  # number of header fields: 431 beyond it
    chunk_framing: int = 16384  # chunk extensions and trailer fields of one body, seen at each read: 400 beyond it
    head_time: float = 20.0  # from the first byte of a request to the end of its head: 408
    idle_time: float = 75.0  # between two requests of a connection: closed
    body_idle_time: float = 60.0  # without a byte of the body, or without one taken of the answer: 408, closed


class Refusal(Exception):
    """A request that cannot be accepted: its status code (RFC 9110, section 15) and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Head:
    """A request line and its header fields (names in lower case), and what has come of the body."""

    __slots__ = (
        "buffered", "chunked", "chunks", "complete", "content_length", "expects_continue", "fields",
        "keep_alive", "method", "target", "version",
    )  # fmt: skip

    def __init__(self, method: str, target: str, version: str, fields: dict[bytes, bytes], keep_alive: bool) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.fields = fields
        self.keep_alive = keep_alive  # RFC 9112, section 9.3
        self.content_length: int | None = None
        self.chunked = False
        self.expects_continue = False
        self.chunks: list[bytes] = []  # of the body: received, not yet read
        self.buffered = 0  # bytes of the body received so far
        self.complete = False  # has the whole message arrived?


MIN_CHUNK_FRAMING = 32  # bytes that any chunk may take for its size line and line ends
ONCE = {b"host", b"content-length", b"transfer-encoding", b"expect", b"authorization", b"range"}
HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]+)(:[0-9]*)?")  # RFC 3986, section 3.2.2
ABSOLUTE = re.compile(r"https?://([^/?]+)", re.IGNORECASE)
HEAD_SLACK = 256  # bytes that a head may have besides its target and its fields


class RequestParser:
    """One connection's requests. `feed` never raises: what is wrong ends up in `refusal`."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.heads: list[Head] = []  # a deque would take 600 bytes more for each connection
        self.refusal: Refusal | None = None
        self._restart()

    def _restart(self) -> None:
        self._host: bytes | None = None  # the last one that was checked
        self._llhttp: Any = httptools.HttpRequestParser(self)
        self._target = b""
        self._fields: dict[bytes, bytes] = {}
        self._head_size = 0  # of the fields that llhttp has reported
        self._field_count = 0
        self._unparsed = 0  # bytes fed since the head began, while it is incomplete
        self._current: Head | None = None  # the message whose body is arriving
        self._framing = 0  # bytes of its body that were not content
        self._chunk_count = 0

    @property
    def mid_head(self) -> bool:
        """Has a head begun that is not complete?"""
        return self._unparsed > 0

    def feed(self, data: bytes) -> None:
        """Take in received bytes: new entries in `heads`, more in the last one's `chunks`, or a `refusal`."""
        if self.refusal is not None:
            return
        if self._llhttp is None:
            self._llhttp = httptools.HttpRequestParser(self)
        message = self._current
        before = message.buffered if message is not None else 0
        while True:
            try:
                self._llhttp.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._decline_upgrade(self.heads[-1])
            except httptools.HttpParserError as error:
                status = 505 if "HTTP version" in str(error) else 400
                self.refusal = self.refusal or Refusal(status, f"malformed request: {error}")
                return
        if message is not None and message.chunked and self._current is message:
            self._framing += len(data) - (message.buffered - before)
            self._check_chunk_framing()
        if self._current is None and (self._target or self._unparsed):
            # The first piece may hold other messages as well. What exceeds the limits within it is found by llhttp.
            self._unparsed += len(data) if self._unparsed else 1
            if self._unparsed > self.limits.head + self.limits.target + HEAD_SLACK:
                self.refusal = self._too_large()

    def detach(self) -> None:
        """The rest of the current body will be read past this parser; the next byte fed begins a new request."""
        self._restart()
        self._llhttp = None  # while a body arrives, which may take long, it would only take up memory

    def _decline_upgrade(self, head: Head) -> None:
        """Stay with HTTP/1.1, as RFC 9110, section 7.8 allows.

        llhttp takes all that follows `head`, its body too, for another protocol's. A new one is brought to where
        the body begins: it reads the framing of `head` once more.
        """
        self._restart()
        if head.chunked:
            framing = b"Transfer-Encoding: chunked"
        elif head.content_length:
            framing = b"Content-Length: %d" % head.content_length
        else:
            return
        self._llhttp.feed_data(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n\r\n")
        self.heads.pop()
        self._current = head
        head.complete = False

    # --- Called by llhttp ------------------------------------------------------

    def on_url(self, piece: bytes) -> None:
        self._target = self._target + piece if self._target else piece

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value) + 4
        self._field_count += 1
        if self._head_size > self.limits.head or self._field_count > self.limits.fields:
            self.refusal = self._too_large()
            raise self.refusal
        if self._current is not None:
            return  # a trailer field: nothing here needs them
        name, value = name.lower(), value.rstrip()  # llhttp takes off the space in front only
        fields = self._fields
        if name in fields:
            if name in ONCE:
                self._refuse(400, f"more than one {name.decode('latin-1')} field")
            value = fields[name] + (b"; " if name == b"cookie" else b", ") + value
        fields[name] = value

    def on_headers_complete(self) -> None:
        llhttp, fields = self._llhttp, self._fields
        version = llhttp.get_http_version()
        head = Head(
            str(llhttp.get_method(), "ascii"), self._check_target(), version, fields, llhttp.should_keep_alive()
        )
        if fields.get(b"host") != self._host:  # a connection's requests mostly name the same
            self._check_host()
        if version == "1.1":
            if self._host is None:
                self._refuse(400, "a request needs a Host field")
        elif version != "1.0":
            self._refuse(505, f"HTTP/{version} is not supported")
        if b"transfer-encoding" in fields:
            self._check_transfer_encoding(version, fields)
            head.chunked = True
        elif b"content-length" in fields:
            head.content_length = int(fields[b"content-length"])  # llhttp has checked that these are digits
        if b"expect" in fields:
            if fields[b"expect"].lower() != b"100-continue":
                self._refuse(417, "the only expectation supported is 100-continue")
            head.expects_continue = version == "1.1"
        self._current = head
        self._target = b""
        self._fields = {}
        self._head_size = self._field_count = self._unparsed = 0
        self.heads.append(head)

    def on_chunk_header(self) -> None:
        self._chunk_count += 1

    def on_body(self, data: bytes) -> None:
        head = self._current
        assert head is not None
        head.chunks.append(data)
        head.buffered += len(data)

    def on_message_complete(self) -> None:
        assert self._current is not None
        self._current.complete = True
        self._current = None
        self._framing = self._chunk_count = self._head_size = self._field_count = 0

    # --- Checks ------------------------------------------------------------------

    def _refuse(self, status: int, reason: str) -> NoReturn:
        self.refusal = Refusal(status, reason)
        raise self.refusal  # out of the callback: llhttp stops here

    def _too_large(self) -> Refusal:
        if len(self._target) > self.limits.target:
            return Refusal(414, f"the request target is longer than {self.limits.target} bytes")
        return Refusal(431, f"more than {self.limits.fields} header fields or {self.limits.head} bytes of them")

    def _check_target(self) -> str:
        """The target in origin form (RFC 9112, section 3.2), or `*` for OPTIONS."""
        if len(self._target) > self.limits.target:
            self._refuse(414, f"the request target is longer than {self.limits.target} bytes")
        method = self._llhttp.get_method()
        if method == b"CONNECT":
            self._refuse(501, "CONNECT is not supported")
        target = str(self._target, "ascii")  # llhttp has checked that
        if "#" in target:
            self._refuse(400, "the request target has a fragment")
        if target.startswith("/") or (target == "*" and method == b"OPTIONS"):
            return target
        absolute = ABSOLUTE.match(target)
        if absolute is None:
            self._refuse(400, "malformed request target")
        self._check_host()
        if b"host" in self._fields:  # the one in the target counts: RFC 9112, section 3.2.2
            self._fields[b"host"] = absolute[1].encode()
        rest = target[absolute.end() :]
        return rest if rest.startswith("/") else "/" + rest

    def _check_host(self) -> None:
        self._host = self._fields.get(b"host")
        if self._host is not None and not HOST.fullmatch(self._host):
            self._refuse(400, "malformed Host field")

    def _check_transfer_encoding(self, version: str, fields: dict[bytes, bytes]) -> None:
        if version == "1.0":
            self._refuse(400, "Transfer-Encoding in an HTTP/1.0 request")
        if b"content-length" in fields:
            self._refuse(400, "both Content-Length and Transfer-Encoding")
        if fields[b"transfer-encoding"].lower() != b"chunked":
            self._refuse(501, "the only transfer coding supported is chunked")

    def _check_chunk_framing(self) -> None:
        if self._framing > self.limits.chunk_framing + MIN_CHUNK_FRAMING * self._chunk_count:
            self.refusal = Refusal(400, f"more than {self.limits.chunk_framing} bytes of chunk extensions or trailers")
