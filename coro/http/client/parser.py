"""HTTP/1.1 responses out of bytes (RFC 9112), without any I/O.

    parser.start("GET")
    parser.feed(data)
    head = parser.read_head()           # None: more bytes are needed
    piece = parser.read_body(65536)     # None: more bytes are needed; b"": the body has ended

A client asks one thing at a time on a connection, so there is one response to wait for, and whatever comes after its
end is an answer to nothing: `clean` tells whether the connection may carry another request.

Line ends are CR LF, framing is unambiguous or the response is refused. A head is checked and split by regular
expressions of bounded effort once it is complete; until then only its size and its first bytes are looked at.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import dataclass

from coro.http.client.errors import ClientError, ConnectionLost, ProtocolError, ResponseTooLarge

TOKEN = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # RFC 9110, section 5.6.2
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
FIELD = re.compile(rb"(?<=\n)(" + TOKEN + rb"):[ \t]*+([\t\x20-\x7e\x80-\xff]*)\r\n")
CHUNK_LINE = rb"([0-9A-Fa-f]{1,15})[ \t]*(;[\t\x20-\x7e\x80-\xff]*)?\r\n"
FIRST_CHUNK_LINE = re.compile(CHUNK_LINE)
NEXT_CHUNK_LINE = re.compile(rb"\r\n" + CHUNK_LINE)  # with the end of the chunk before
KEPT = re.compile(rb"timeout=([0-9]{1,9})", re.IGNORECASE)  # RFC 2068, section 19.7.1.1; no later one tells it
BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")
BEGINNING = b"HTTP/1."

ONCE = frozenset({b"content-length", b"location", b"transfer-encoding"})
BODILESS = frozenset({204, 304})  # and 1xx: RFC 9112, section 6.3
MAX_INTERIM = 32  # 1xx responses ahead of the final one
MAX_CHUNK_LINE = 4096  # bytes
MAX_LENGTH_DIGITS = 18
UNTIL_CLOSED = -1


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """How many connections there may be, what a server may send and how long it may take; bytes and seconds."""

    connections: int = 100  # in all, idle ones included; who asks for more waits, first come, first served
    connections_per_origin: int = 20
    idle_time: float = 60.0  # for which a connection is kept that nobody uses
    connect_time: float = 10.0  # for the look-up of the name, the connection and its TLS together
    read_time: float = 60.0  # for the head of the response; without a byte of its body, or one taken of the request's
    total_time: float = 300.0  # for a request that returns its whole response, redirects included; not for `stream`
    continue_time: float = 1.0  # for which a request with `expect_continue` holds its body back
    head: int = 65536  # status line and header fields; trailer fields likewise
    fields: int = 256  # number of header fields; of trailer fields likewise
    chunk_extensions: int = 16384  # of one body, all together


class ResponseHead:
    """A status line and its header fields: names in lower case, repeated ones joined by commas."""

    __slots__ = ("fields", "keep_alive", "kept", "reason", "set_cookies", "status", "version")

    def __init__(self, version: str, status: int, reason: bytes) -> None:
        self.version = version
        self.status = status
        self.reason = reason.decode("latin-1")
        self.fields: dict[bytes, bytes] = {}
        self.set_cookies: list[bytes] = []  # the one field that commas cannot join: RFC 9110, section 5.3
        self.keep_alive = version == "1.1"  # RFC 9112, section 9.3
        self.kept = math.inf  # seconds for which the server keeps the connection, if it tells


class ResponseParser:
    """The responses of one connection, one at a time. Errors are `ProtocolError`, `ResponseTooLarge`, `ConnectionLost`.

    After an error the connection is of no use any more.
    """

    __slots__ = (
        "_buffer", "_checked", "_chunk_line", "_chunked", "_extensions", "_interim", "_left", "_limits", "_method",
        "_position", "complete", "head",
    )  # fmt: skip

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self.start("")

    def start(self, method: str) -> None:
        """A request with this method is sent: its response is what comes next."""
        self._method = method
        self._buffer = b""
        self._position = 0  # in the buffer: what is before it has been parsed
        self._checked = 0  # bytes of a head that is not complete in which no bare line end was found
        self.head: ResponseHead | None = None  # the final response's, once it is there
        self.complete = False  # has the whole response been read?
        self._interim = 0
        self._left = 0  # bytes of the body, or of the chunk, still to come; or UNTIL_CLOSED
        self._chunked = False
        self._chunk_line: re.Pattern[bytes] | None = FIRST_CHUNK_LINE  # None: the last one has been read
        self._extensions = 0  # bytes of them in the chunk lines so far

    @property
    def clean(self) -> bool:
        """Is the response complete, and nothing behind it?"""
        return self.complete and self._position == len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take in received bytes."""
        self._buffer = data if self._position == len(self._buffer) else self._buffer[self._position :] + data
        self._position = 0

    def feed_eof(self) -> None:
        """The server has ended the connection: which ends a body that nothing else frames; else `ConnectionLost`."""
        if self.head is None:
            what = "in the middle of the response's head" if self._buffer or self._interim else "without a response"
            raise ConnectionLost(f"the server closed the connection {what}")
        if self._left == UNTIL_CLOSED:
            self._left = 0
            self.complete = True
        elif self._chunked:
            raise ConnectionLost("the server closed the connection before the last chunk of the response's body")
        elif not self.complete:
            raise ConnectionLost(f"the server closed the connection {self._left} bytes before the response's end")

    # --- Head -----------------------------------------------------------------------

    def read_head(self) -> ResponseHead | None:
        """The next head, interim ones (1xx) too; None while it is not complete."""
        buffer, start = self._buffer, self._position
        end = buffer.find(b"\r\n\r\n", start) + 4
        if end < 4 or end - start > self._limits.head:
            if len(buffer) > start:
                self._check_beginning(buffer[start:])
            return None
        line = STATUS_LINE.match(buffer, start, end)
        if line is None:
            self._check_beginning(buffer[start:end])
            raise ProtocolError(f"malformed status line {_shown(buffer[start:end])}")
        head = ResponseHead("1." + chr(line[1][0]), int(line[2]), line[3] or b"")
        self._join_fields(head, self._split_fields(start, end))
        self._position = end
        self._checked = 0
        if head.status < 200:
            self._interim += 1
            if head.status == 101 or self._interim > MAX_INTERIM:
                raise ProtocolError(f"a response {head.status} that nothing asked for, or one too many of its kind")
        else:
            self.head = head
            self._find_framing(head)
        return head

    def _check_beginning(self, begun: bytes) -> None:
        """Refuse as early as possible what will never become a head."""
        if not begun.startswith(BEGINNING) and not BEGINNING.startswith(begun):
            raise ProtocolError(f"this is not HTTP/1.1: {_shown(begun)}")
        if len(begun) > self._limits.head:
            raise ResponseTooLarge(f"the response's head is larger than {self._limits.head} bytes (ClientLimits.head)")
        self._check_line_ends(begun)

    def _check_line_ends(self, begun: bytes) -> None:
        if BARE_LINE_END.search(begun, max(0, self._checked - 1)) is not None:
            raise ProtocolError("a header field that ends with CR or LF alone")
        self._checked = len(begun)

    def _split_fields(self, start: int, end: int) -> list[tuple[bytes, bytes]]:
        """The fields between the first line that begins at `start` and the empty line that ends at `end`."""
        found: list[tuple[bytes, bytes]] = FIELD.findall(self._buffer, start, end)
        lines = self._buffer.count(b"\n", start, end) - 2
        if len(found) != lines:
            raise ProtocolError("malformed header field (or a folded one, or one that ends with CR or LF alone)")
        if lines > self._limits.fields:
            raise ResponseTooLarge(f"more than {self._limits.fields} header fields (ClientLimits.fields)")
        return found

    def _join_fields(self, head: ResponseHead, found: list[tuple[bytes, bytes]]) -> None:
        fields = head.fields
        for name, value in found:
            name, value = name.lower(), value.rstrip(b" \t")
            if name == b"set-cookie":
                head.set_cookies.append(value)
            if name in fields:
                if name in ONCE:
                    raise ProtocolError(f"more than one {name.decode('ascii')} field")
                value = fields[name] + b", " + value
            fields[name] = value

    def _find_framing(self, head: ResponseHead) -> None:
        """RFC 9112, section 6.3."""
        fields = head.fields
        if b"connection" in fields:
            options = {option.strip() for option in fields[b"connection"].lower().split(b",")}
            head.keep_alive = b"close" not in options and (head.keep_alive or b"keep-alive" in options)
        if b"keep-alive" in fields and (told := KEPT.search(fields[b"keep-alive"])) is not None:
            head.kept = float(told[1])
        coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
        if coding is not None:
            if length is not None:
                raise ProtocolError("both Content-Length and Transfer-Encoding")
            if head.version == "1.0" or coding.lower() != b"chunked":
                raise ProtocolError(f"Transfer-Encoding {_shown(coding)} in HTTP/{head.version} is not supported")
        if length is not None and not (length.isdigit() and len(length) <= MAX_LENGTH_DIGITS):
            raise ProtocolError(f"malformed Content-Length {_shown(length)}")
        if self._method == "HEAD" or head.status in BODILESS:
            self.complete = True
        elif coding is not None:
            self._chunked = True
        elif length is not None:
            self._left = int(length)
            self.complete = self._left == 0
        else:
            self._left = UNTIL_CLOSED
            head.keep_alive = False

    # --- Body -----------------------------------------------------------------------

    @property
    def content_length(self) -> int | None:
        """Bytes of the body still to come, if the server has told."""
        return None if self._chunked or self._left == UNTIL_CLOSED else self._left

    def read_body(self, limit: int) -> bytes | None:
        """Up to `limit` bytes; None while more have to be fed; b"" at the end."""
        if self.complete:
            return b""
        if self._chunked and not self._left and not self._next_chunk():
            return b"" if self.complete else None
        buffer, start = self._buffer, self._position
        size = min(len(buffer) - start, limit)
        if self._left != UNTIL_CLOSED:
            size = min(size, self._left)
            self._left -= size
        if not size:
            return None
        if not self._left and not self._chunked:
            self.complete = True
        if start + size == len(buffer):
            self._buffer, self._position = b"", 0  # an idle connection need not hold it
            return buffer[start:]  # which copies nothing if that is all
        self._position = start + size
        return buffer[start : self._position]

    def buffered(self) -> bytes | None:
        """The rest of a body of known length if it has been fed already, else None."""
        if self._chunked or not 0 <= self._left <= len(self._buffer) - self._position:
            return None
        return self.read_body(self._left)

    def skip(self) -> None:
        """Read past what has come of the body: that may be all of it."""
        with suppress(ClientError):
            while self.read_body(1 << 20):
                pass

    def _next_chunk(self) -> bool:
        """Read the line in front of a chunk (RFC 9112, section 7.1). False when it is not there yet or none follows."""
        if self._chunk_line is None:
            self._read_trailers()
            return False
        buffer, start = self._buffer, self._position
        line = self._chunk_line.match(buffer, start)
        if line is None:
            begun = buffer[start : start + MAX_CHUNK_LINE]
            if b"\n" in begun[2:] or len(begun) == MAX_CHUNK_LINE or BARE_LINE_END.search(begun) is not None:
                raise ProtocolError(f"malformed chunk size {_shown(begun)}")
            return False
        self._extensions += len(line[2] or b"")
        if self._extensions > self._limits.chunk_extensions:
            raise ResponseTooLarge(f"more than {self._limits.chunk_extensions} bytes of chunk extensions")
        self._left = int(line[1], 16)
        if self._left:
            self._chunk_line = NEXT_CHUNK_LINE
            self._position = line.end()
            return True
        self._chunk_line = None
        self._position = line.end() - 2  # the line end: with it, trailer fields are framed as a head is
        self._read_trailers()
        return False

    def _read_trailers(self) -> None:
        """Read past the trailer fields: nothing here needs them."""
        start = self._position
        end = self._buffer.find(b"\r\n\r\n", start) + 4
        if (end if end >= 4 else len(self._buffer)) - start > self._limits.head:
            raise ResponseTooLarge(f"more than {self._limits.head} bytes of trailer fields (ClientLimits.head)")
        if end >= 4:
            self._split_fields(start, end)
            self._position = end
            self.complete = True
        else:
            self._check_line_ends(self._buffer[start:])


def _shown(data: bytes) -> str:
    """Bytes of a stranger, for an error message."""
    return repr(data if len(data) <= 60 else data[:60] + b"...")[1:]
