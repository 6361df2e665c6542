"""Responses as a client sees them."""

from __future__ import annotations

import codecs
import json
import re
from io import BytesIO
from typing import Any, Protocol, TypeVar

from coro.http.client.decoding import WINDOW, Decoder
from coro.http.client.errors import ProtocolError, ResponseTooLarge, StatusError
from coro.http.client.parser import ResponseHead
from coro.http.client.request import Outgoing
from coro.http.message import Headers
from coro.task import Coro

R = TypeVar("R", bound="ResponseInfo")

READ_SIZE = 65536  # bytes
CHARSET = re.compile(r';[ \t]*charset="?([^\s";,]+)', re.IGNORECASE)  # RFC 9110, section 8.3.2
# No page is in these: they are for other things, and some take the square of the body's length in time.
NO_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"})


class BodySource(Protocol):
    """The exchange, as a response sees it."""

    @property
    def content_length(self) -> int | None: ...

    def buffered(self) -> bytes | None: ...

    def read_body(self, limit: int) -> Coro[bytes]: ...


class ResponseInfo:
    """What is known of a response when its head has come."""

    __slots__ = ("_head", "_request", "status")

    def __init__(self, request: Outgoing, head: ResponseHead) -> None:
        self._request = request
        self._head = head
        self.status = head.status

    @property
    def reason(self) -> str:
        """The words beside the status, which mean nothing to programs."""
        return self._head.reason

    @property
    def method(self) -> str:
        """Of the request that this answers: after a redirect, it may be another than was asked with."""
        return self._request.method

    @property
    def url(self) -> str:
        """That this is the response of, after all redirects; without user and password."""
        return str(self._request.url)

    @property
    def headers(self) -> Headers:
        """The header fields, as they came; names are case-insensitive, repeated ones joined by commas."""
        return Headers(self._head.fields)

    @property
    def set_cookies(self) -> list[str]:
        """The `Set-Cookie` fields, one by one."""
        return [cookie.decode("latin-1") for cookie in self._head.set_cookies]

    @property
    def ok(self) -> bool:
        """Is the status below 400?"""
        return self.status < 400

    def raise_for_status(self: R) -> R:
        """The response itself; `StatusError` when its status is 400 or above."""
        if not self.ok:
            raise StatusError(f"{self._request!r}: answered {self.status} {self.reason}".rstrip(), self.status)
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status} of {self._request!r}>"


class ClientResponse(ResponseInfo):
    """A whole response: its body, decoded, is in `body`."""

    __slots__ = ("body",)

    def __init__(self, request: Outgoing, head: ResponseHead, body: bytes) -> None:
        super().__init__(request, head)
        self.body = body

    @property
    def text(self) -> str:
        """The body as text, in the charset that the server tells, or UTF-8; what is malformed becomes U+FFFD."""
        # `email.message` would take seconds for a field of many quotes and semicolons.
        told = CHARSET.search(self.headers.get("content-type", ""))
        charset = told[1] if told is not None else "utf-8"
        try:
            known = codecs.lookup(charset).name not in NO_CHARSETS
            return self.body.decode(charset if known else "utf-8", "replace")
        except (LookupError, ValueError):  # no such charset; NUL in its name
            return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON. `ProtocolError` when it is none. Does not suspend."""
        return parse_json(self._request, self.body)


class StreamedResponse(ResponseInfo):
    """A response whose body is read while it comes. When it is read slowly, it is sent slowly."""

    __slots__ = ("_decoder", "_source")

    def __init__(self, request: Outgoing, head: ResponseHead, source: BodySource) -> None:
        super().__init__(request, head)
        self._source = source
        self._decoder: Decoder | None = None
        coding = request.coding(head)
        if coding is not None and request.method != "HEAD":
            if coding not in WINDOW:
                raise ProtocolError(f"{request!r}: the body comes in the coding {coding!r}, which was not asked for")
            self._decoder = Decoder(coding)

    def read(self, limit: int = READ_SIZE) -> Coro[bytes]:
        """Up to `limit` bytes, at least one, of the body, decoded, as soon as they are there; b"" at its end.

        May suspend. `ConnectionLost`, `ProtocolError`, `RequestTimeout`. How much is too much in all, the caller
        decides: a compressed body can be a thousand times as long as what is received.
        """
        if limit < 1:
            raise ValueError(f"reading {limit} bytes: b\"\" would mean that the body has ended")
        decoder = self._decoder
        if decoder is None:
            return (yield from self._source.read_body(limit))
        try:
            while not (data := decoder.read(limit)):
                encoded = yield from self._source.read_body(READ_SIZE)
                if not encoded:
                    decoder.feed_eof()
                    return b""
                decoder.feed(encoded)
        except ValueError as error:
            raise ProtocolError(f"{self._request!r}: {error}") from None
        return data

    def read_all(self, limit: int) -> Coro[bytes]:
        """The whole (rest of the) body, decoded. `ResponseTooLarge` beyond `limit` bytes; else as `read`."""
        data = self._buffered(limit)
        if data is not None:
            return data
        body = BytesIO()  # and not a list: its pieces may be of a byte or two, and their objects not
        while data := (yield from self.read()):
            if body.tell() + len(data) > limit:
                raise self._too_large(limit)
            body.write(data)
        return body.getvalue()

    def whole(self, limit: int) -> Coro[ClientResponse]:
        """The response with its whole body. As `read_all`."""
        body = self._buffered(limit)  # the usual case: no generator is needed for it
        if body is None:
            body = yield from self.read_all(limit)
        return ClientResponse(self._request, self._head, body)

    def _buffered(self, limit: int) -> bytes | None:
        """The whole (rest of the) body if it is there already, as it is to be read."""
        if self._decoder is not None:
            return None  # the length that is told is not the one that counts
        told = self._source.content_length
        if told is not None and told > limit:
            raise self._too_large(limit)
        return self._source.buffered()

    def json(self, limit: int = 1 << 24) -> Coro[Any]:
        """The body as JSON. `ProtocolError` when it is none; else as `read_all`."""
        return parse_json(self._request, (yield from self.read_all(limit)))

    def _too_large(self, limit: int) -> ResponseTooLarge:
        return ResponseTooLarge(
            f"{self._request!r}: the response's body has more than {limit} bytes: allow more with `limit`, or stream it"
        )


def parse_json(request: Outgoing, body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:  # the latter: nested too deeply
        shown = re.sub(r"[^ -~]", "?", body[:60].decode("latin-1"))
        raise ProtocolError(f"{request!r}: the body is not JSON: {error}; it begins {shown!r}") from None
