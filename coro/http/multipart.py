"""multipart/form-data bodies (RFC 7578), streamed part by part. The parsing is the `multipart` library's.

    form = MultipartReader(request)
    while part := (yield from form.next_part()):
        while data := (yield from part.read()):
            ...
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import multipart

from coro.http.message import HTTPError, Request
from coro.task import Coro

MAX_PARTS = 1000
MAX_PART_FIELDS = 8
MAX_PART_FIELD_SIZE = 4096  # bytes
MAX_OUTSIDE = 65536  # bytes in a row that are no part's content: its fields, and what stands around the parts
MAX_BOUNDARY = 70  # bytes: RFC 2046, section 5.1.1


class Readable(Protocol):
    """What a form can be read from."""

    def read(self) -> Coro[bytes]:
        """Some more bytes; b"" at the end."""
        ...


class Part:
    """One part of a form: a file if it has a `filename`, else a field. Read it before asking for the next."""

    def __init__(self, segment: Any, reader: MultipartReader) -> None:
        self.name: str = segment.name or ""
        self.filename: str | None = segment.filename
        self.content_type: str | None = segment.content_type
        self._reader = reader

    def read(self, limit: int = 65536) -> Coro[bytes]:
        """Up to `limit` bytes, as soon as there are any; b"" at the part's end. May suspend. `HTTPError` 400."""
        return (yield from self._reader.read_part(self, limit))


class MultipartReader:
    """The parts of one request's body, in order. `HTTPError` 415 when the body is of another type, 400 if broken."""

    def __init__(self, request: Request, body: Readable | None = None) -> None:
        """`body` is read in the place of the request's own, which it passes on."""
        kind, options = multipart.parse_options_header(request.headers.get("content-type", ""))
        if kind != "multipart/form-data" or not 1 <= len(options.get("boundary", "")) <= MAX_BOUNDARY:
            raise HTTPError(415, "the body must be multipart/form-data with a boundary")
        try:
            self._parser = multipart.PushMultipartParser(
                options["boundary"],
                max_segment_count=MAX_PARTS,
                max_header_count=MAX_PART_FIELDS,
                max_header_size=MAX_PART_FIELD_SIZE,
                # Strictness would refuse what follows the last boundary, even its line end if that comes by itself.
                strict=False,
            )
        except multipart.MultipartError as error:
            raise HTTPError(400, f"malformed multipart body: {error}") from None
        self._body: Readable = request.body if body is None else body
        self._events: deque[Any] = deque()  # of the parser: a segment, bytes of its content, None at its end
        self._part: Part | None = None  # the one being read

    def next_part(self) -> Coro[Part | None]:
        """The next part, or None after the last one; what was not read of the current one is skipped. May suspend."""
        while self._part is not None:
            yield from self.read_part(self._part, 65536)
        if not (yield from self._fill()):
            return None
        self._part = Part(self._events.popleft(), self)
        return self._part

    def read_part(self, part: Part, limit: int) -> Coro[bytes]:
        if part is not self._part:
            return b""
        if not (yield from self._fill()):
            raise HTTPError(400, "malformed multipart body: it ends within a part")
        data = self._events.popleft()
        if data is None:
            self._part = None
            return b""
        if len(data) > limit:
            self._events.appendleft(data[limit:])
        return bytes(data[:limit])

    def _fill(self) -> Coro[bool]:
        """Have an event to handle; False at the end of the body."""
        outside = 0
        while not self._events and not self._parser.closed:
            data = yield from self._body.read()
            outside += len(data)
            if outside > MAX_OUTSIDE + len(data):
                raise HTTPError(400, f"malformed multipart body: more than {MAX_OUTSIDE} bytes outside of its parts")
            try:
                self._events.extend(self._parser.parse(data))
            except multipart.MultipartError as error:
                raise HTTPError(400, f"malformed multipart body: {error}") from None
        return bool(self._events)
