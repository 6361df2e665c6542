"""HTTP/1.1 requests out of bytes (RFC 9112), without any I/O. Framing is llhttp's, through httptools.

    parser.feed(data)
    while head := parser.next_head(): ...     # each request, as soon as its head is complete
    if parser.refusal: ...                    # nothing after it can be trusted: answer and close

llhttp decides where messages begin and end, and refuses ambiguous framing. It accepts heads of any size, any number of
header fields, chunk extensions without end, requests without `Host` and chunked bodies from HTTP/1.0 clients: these
are limited or refused here. What arrives of a body waits in `head.chunks` for its reader.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeVar

import httptools

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may send and how long it may take: sizes in bytes, times in seconds."""

    target: int = 8192  # the request target (URL): 414 beyond it
    head: int = 32768  # all header fields together: 431 beyond it
    fields: int = 100  # number of header fields: 431 beyond it
    body: float = math.inf  # a body: 413 beyond it, before its handler is called if its length is told
    chunk_framing: int = 16384  # chunk extensions and trailer fields of one body, seen at each read: 400 beyond it
    head_time: float = 20.0  # from the first byte of a request to the end of its head: 408
    idle_time: float = 75.0  # between two requests of a connection: closed
    body_idle_time: float = 60.0  # without a byte of the body, or without one taken of the answer: 408, closed
    body_rate: float = 240.0  # bytes of a body that buy a second of that time back; 0: any byte buys all of it
    requests: int = 10_000  # of one connection: closed after that
    connections: int = 20_000  # at the same time: no more are accepted until one ends


class Refusal(Exception):
    """A request that cannot be accepted: its status code (RFC 9110, section 15) and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Head:
    """A request line and its header fields (names in lower case), and what has come of the body.

    Equal requests may share one: what it says is not to be changed.
    """

    # Class attributes, because most requests keep these values: setting them would take as long as all the rest.
    content_length: int | None = None
    chunked = False
    expects_continue = False
    upgrade = False  # does the client offer another protocol, to be spoken right behind this head?
    chunks: list[bytes] | tuple[()] = ()  # of the body: received, not yet read
    buffered = 0  # bytes of the body received so far
    complete = False  # has the whole message arrived?

    def __init__(self, method: str, target: str, version: str, fields: dict[bytes, bytes], keep_alive: bool) -> None:
        self.method: Final = method
        self.target: Final = target
        self.version: Final = version
        self.fields: Final[Mapping[bytes, bytes]] = MappingProxyType(fields)
        self.keep_alive: Final = keep_alive  # RFC 9112, section 9.3


MIN_CHUNK_FRAMING = 32  # bytes that any chunk may take for its size line and line ends
ONCE = {b"host", b"content-length", b"transfer-encoding", b"expect", b"authorization", b"range"}
HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]+)(:[0-9]*)?")  # RFC 3986, section 3.2.2
ABSOLUTE = re.compile(r"https?://([^/?]+)", re.IGNORECASE)
# llhttp takes several spaces for one, and RTSP/1.0 for HTTP/1.0; RFC 9112, section 3 has one space and one name.
REQUEST_LINE = re.compile(rb"[A-Z-]+ [^ ]+ HTTP/[0-9]\.[0-9]\r\n")
# What most requests consist of, and what cannot be understood in two ways; all else is for llhttp.
PLAIN_LINE = re.compile(rb"(GET|HEAD|PUT|POST|PATCH|DELETE|OPTIONS) (/[!\"$-~]*) HTTP/1\.1")
PLAIN_FIELD = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+): ([!-~]|[!-~][ -~]*[!-~])")
PLAIN_LENGTH = re.compile(rb"[0-9]{1,15}")
FRAMING = {b"expect", b"proxy-connection", b"transfer-encoding", b"upgrade"}
HEAD_END = b"\r\n\r\n"
HEAD_SLACK = 256  # bytes that a head may have besides its target and its fields
KNOWN_SIZE = 1024  # bytes of a line, or a head, that is remembered
KNOWN_NUMBER = 256  # lines, and heads, that are remembered


class NotPlain(Exception):
    """A line that llhttp is to read."""


class Known(dict[bytes, T]):
    """What bytes mean that were read before. Others are read when they are asked for; `lasts` says what to remember."""

    def __init__(self, read: Callable[[bytes], T], lasts: Callable[[T], bool] = bool) -> None:
        self._read = read
        self._lasts = lasts

    def __missing__(self, data: bytes) -> T:
        meaning = self._read(data)
        if len(data) <= KNOWN_SIZE and self._lasts(meaning):
            if len(self) >= KNOWN_NUMBER:
                self.clear()
            self[data] = meaning
        return meaning


class PlainReader:
    """Reads plain heads: of HTTP/1.1, the length of a body told, each field once. Connections of one server share it.

    A client mostly sends the same request over and over, or the same fields with most requests: lines that were read
    before, to the byte, are not read again, nor are whole heads that no body follows: of these, nothing ever changes.
    Many of them are secrets (cookies, tokens in fields of any name, or in targets), so the server has it all forgotten
    about once a second.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.heads = Known(self._read_head, lambda head: head is not None and head.complete)
        self.lines = Known(self._read_line)
        self.fields = Known(self._read_field)

    def forget(self) -> None:
        """Forget what was read."""
        for known in self.heads, self.lines, self.fields:
            known.clear()

    def _read_head(self, data: bytes) -> Head | None:
        """The head that `data` is, if it is a plain one within the limits, and nothing else."""
        if not data.endswith(HEAD_END):
            return None
        line, *lines = data[: -len(HEAD_END)].split(b"\r\n")
        if len(lines) > self._limits.fields or len(data) - len(line) > self._limits.head:
            return None
        try:
            method, target = self.lines[line]
            fields = dict(map(self.fields.__getitem__, lines))
        except NotPlain:
            return None
        if len(fields) < len(lines) or b"host" not in fields:
            return None
        head = Head(method, target, "1.1", fields, True)
        if b"content-length" in fields:
            head.content_length = int(fields[b"content-length"])
            if head.content_length > self._limits.body:
                return None
        head.complete = not head.content_length
        return head

    def _read_line(self, line: bytes) -> tuple[str, str]:
        plain = PLAIN_LINE.fullmatch(line)
        if plain is None or len(plain[2]) > self._limits.target:
            raise NotPlain
        return str(plain[1], "ascii"), str(plain[2], "ascii")

    def _read_field(self, line: bytes) -> tuple[bytes, bytes]:
        plain = PLAIN_FIELD.fullmatch(line)
        if plain is None:
            raise NotPlain
        name, value = plain[1].lower(), plain[2]
        if name in FRAMING or (name == b"connection" and value.lower() != b"keep-alive"):
            raise NotPlain
        if name == b"host" and not HOST.fullmatch(value):
            raise NotPlain
        if name == b"content-length" and not PLAIN_LENGTH.fullmatch(value):
            raise NotPlain
        return name, value


class RequestParser:
    """One connection's requests. Nothing here raises: what is wrong ends up in `refusal`.

    Bytes are looked at up to the end of one message at a time, so that a client that pipelines costs no more memory
    than the bytes it has sent. llhttp reads heads that are not plain or come in pieces, and chunked bodies; a body that
    has a length is only counted.
    """

    __slots__ = (
        "_chunk_count", "_current", "_field_count", "_fields", "_framing", "_head", "_head_size", "_host", "_last",
        "_line", "_llhttp", "_plain", "_rest", "_tail", "_target", "_unparsed", "limits", "refusal",
    )  # fmt: skip

    def __init__(self, limits: Limits, plain: PlainReader | None = None) -> None:
        self.limits = limits
        self.refusal: Refusal | None = None
        self._plain = plain or PlainReader(limits)
        self._head: Head | None = None  # complete and not handed out yet
        self._rest = b""  # received, and not looked at
        self._last = False  # was the last head one after which the connection is to be closed?
        self._restart()

    def _restart(self) -> None:
        self._llhttp: Any = None  # made when it is needed: an idle connection is better off without
        self._host: bytes | None = None  # the last one that was checked
        self._line = b""  # the request line, as far as it has come
        self._tail = b""  # the last bytes looked at, as far as they may belong to the end of a head
        self._target = b""
        self._fields: dict[bytes, bytes] = {}
        self._head_size = 0  # of the fields that llhttp has reported
        self._field_count = 0
        self._unparsed = 0  # bytes since the head began, while it is incomplete
        self._current: Head | None = None  # the message whose body is arriving
        self._framing = 0  # bytes of its body that were not content
        self._chunk_count = 0

    @property
    def mid_head(self) -> bool:
        """Has a head begun that is not complete?"""
        return bool(self._line)

    @property
    def asks_for_head(self) -> bool:
        """Does the head that has begun, or was refused, ask for HEAD?"""
        return self._line.startswith(b"HEAD ")

    def next_head(self, data: bytes = b"") -> Head | None:
        """Take in received bytes. The next request, as soon as its head is complete, else None."""
        if data:
            if not (self._rest or self._line or self._last) and self._current is None and self._head is None:
                head = self._plain.heads[data] if len(data) <= KNOWN_SIZE else None
                if head is not None:
                    if not head.complete:
                        self._current = head
                    return head
            self.feed(data)
        elif self._rest and self._head is None:
            self._advance()
        head, self._head = self._head, None
        return head

    def feed(self, data: bytes) -> None:
        """Take in received bytes."""
        if self.refusal is None:
            self._rest = self._rest + data if self._rest else data
            self._advance()

    def take_rest(self) -> bytes:
        """What was received behind the last message: another protocol's bytes, after an upgrade."""
        rest, self._rest = self._rest, b""
        return rest

    def detach(self) -> None:
        """The rest of the current body will be read past this parser; the next byte fed begins a new request."""
        self._restart()

    def _advance(self) -> None:
        """Look at what was received: to the end of the current message, then to the end of one more head."""
        while self._rest and self.refusal is None and (self._current is not None or self._head is None):
            rest, message = self._rest, self._current
            if self._last and message is None:
                self._rest = b""
                if rest.strip(b"\r\n"):
                    self.refusal = Refusal(400, "something follows the last request of the connection")
                return
            if message is None and not self._line and rest[0] in b"\r\n":
                self._rest = rest.lstrip(b"\r\n")  # empty lines ahead of a request: each two would pass for a head
                continue
            if message is not None and message.content_length is not None:
                self._take_body(message, message.content_length - message.buffered)
                continue
            end = (self._tail + rest).find(HEAD_END) if self._tail else rest.find(HEAD_END)
            size = len(rest) if end < 0 else end + len(HEAD_END) - len(self._tail)
            piece, self._rest = (rest, b"") if size >= len(rest) else (rest[:size], rest[size:])
            whole = message is None and not self._line and end >= 0
            head = self._plain.heads[piece] if whole else None
            if head is None:
                self._parse(piece)
            else:
                self._head = head
                self._current = None if head.complete else head

    def _take_body(self, head: Head, missing: int) -> None:
        """More of a body of which so many bytes are missing. llhttp does not see it, and begins anew behind it."""
        rest = self._rest
        piece, self._rest = (rest, b"") if missing >= len(rest) else (rest[:missing], rest[missing:])
        self._add(head, piece)
        if len(piece) == missing:
            head.complete = True
            self._current = None
            if self._llhttp is not None:
                self._restart()

    def _parse(self, piece: bytes) -> None:
        """Have llhttp look at a piece, which ends no later than the head or the chunked body that it belongs to."""
        if self._llhttp is None:
            self._llhttp = httptools.HttpRequestParser(self)
        message = self._current
        before = message.buffered if message is not None else 0
        self._tail = b"" if piece.endswith(HEAD_END) else (self._tail + piece)[-3:]
        if message is None and not self._line.endswith(b"\n"):
            line, end, _ = (self._line + piece).lstrip(b"\r\n").partition(b"\n")
            self._line = line + end
        try:
            self._llhttp.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._leave_upgrade(None if message is not None else self._head)
        except httptools.HttpParserError as error:
            status = 505 if "HTTP version" in str(error) else 400
            self.refusal = self.refusal or Refusal(status, f"malformed request: {error}")
            return
        if message is not None:
            self._framing += len(piece) - (message.buffered - before)
            self._check_chunk_framing()
        elif self._head is None and self._line:
            self._unparsed += len(piece)
            if self._unparsed > self.limits.head + self.limits.target + HEAD_SLACK:
                self.refusal = self._too_large()

    def _leave_upgrade(self, head: Head | None) -> None:
        """llhttp takes all that follows an upgrade for another protocol's; whether it is, the server will decide.

        A request with a body stays one of HTTP/1.1, as RFC 9110, section 7.8 allows. If that is chunked, a new llhttp
        is brought to where it begins: it reads the framing of `head` once more.
        """
        self._restart()
        if head is None:
            return
        if head.chunked:
            self._line = b"POST / HTTP/1.1\r\n"
            self._llhttp = httptools.HttpRequestParser(self)
            self._llhttp.feed_data(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        elif not head.content_length:
            head.upgrade = head.version == "1.1"
            return
        self._head = self._current = head
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
        if not REQUEST_LINE.fullmatch(self._line):
            self._refuse(400, "malformed request line")
        if b"transfer-encoding" in fields:
            self._check_transfer_encoding(version, fields)
            head.chunked = True
        elif b"content-length" in fields:
            head.content_length = int(fields[b"content-length"])  # llhttp has checked that these are digits
            if head.content_length > self.limits.body:
                self._refuse_body()
        if b"expect" in fields:
            if fields[b"expect"].lower() != b"100-continue":
                self._refuse(417, "the only expectation supported is 100-continue")
            head.expects_continue = version == "1.1"
        self._head = self._current = head
        self._last = not head.keep_alive
        self._line = self._target = b""
        self._fields = {}
        self._head_size = self._field_count = self._unparsed = 0

    def on_chunk_header(self) -> None:
        self._chunk_count += 1

    def on_body(self, data: bytes) -> None:
        assert self._current is not None
        self._add(self._current, data)
        if self._current.buffered > self.limits.body:
            self._refuse_body()

    def _add(self, head: Head, data: bytes) -> None:
        if head.chunks:
            head.chunks.append(data)
        else:
            head.chunks = [data]
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

    def _refuse_body(self) -> NoReturn:
        self._refuse(413, f"a body may have at most {self.limits.body} bytes")

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
