"""Requests and responses as a handler sees them (RFC 9110).

A handler is a generator function `handle(request) -> Coro[Response]`. To refuse, it raises `HTTPError`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from time import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, overload
from urllib.parse import parse_qsl, unquote

from coro.errors import CoroError
from coro.http.forwarded import host_of
from coro.http.parser import Head
from coro.task import Coro
from coro.task import Request as Wait

if TYPE_CHECKING:
    from coro.http.body import Body
    from coro.http.connection import Connection
    from coro.net import Stream

HeaderList: TypeAlias = Sequence[tuple[str, str]]

T = TypeVar("T")

JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode_json(value: Any) -> bytes:
    """`value` as JSON. Half a surrogate pair, which UTF-8 cannot have, becomes an escape, as JSON has it too."""
    return JSON.encode(value).encode(errors="backslashreplace")


class HTTPError(CoroError):
    """Raise it from a handler to answer with an error status. The message is shown to the client."""

    def __init__(self, status: int, message: str = "", headers: HeaderList = ()) -> None:
        super().__init__(message or HTTPStatus(status).phrase)
        self.status = status
        self.headers = headers

    def response(self) -> Response:
        return Response.json({"error": str(self)}, self.status, self.headers)


class ClientDisconnected(CoroError):
    """The client went away, or broke the protocol, in the middle of its request or of our answer."""


@functools.lru_cache
def _key(name: str) -> bytes:
    """A field's name as the parser has it."""
    return name.lower().encode("latin-1")


class Headers(Mapping[str, str]):
    """Header fields of a request; names are case-insensitive. Fields sent several times are joined by commas."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[bytes, bytes]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        return self._fields[_key(name)].decode("latin-1")

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: T) -> str | T: ...
    def get(self, name: str, default: object = None) -> object:
        value = self._fields.get(_key(name))
        return default if value is None else value.decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._fields)

    def __len__(self) -> int:
        return len(self._fields)


MAX_FORM_FIELDS = 1000
NO_PARAMS: Mapping[str, str] = MappingProxyType({})


class Request:
    """One HTTP request. Its body is read with `request.body`."""

    params: Mapping[str, str] = NO_PARAMS  # what the router found in the path
    _body: Body | None = None
    _fields: Headers | None = None
    _cookies: dict[str, str] | None = None

    def __init__(self, head: Head, connection: Connection) -> None:
        self.head = head
        self._connection = connection

    @property
    def body(self) -> Body:
        """The body, to be read as a stream."""
        if self._body is None:
            self._body = self._connection.open_body(self.head)
        return self._body

    @property
    def peer(self) -> str:
        """The address at the other end of the connection: a client's or a proxy's, as in `192.0.2.1:54321`."""
        return self._connection.peer

    @property
    def client(self) -> str:
        """The client's IP address, also behind a proxy that the server was told to trust; `unix` for a Unix socket."""
        return self._connection.server.proxies.client(host_of(self.peer), self.headers.get("x-forwarded-for", ""))

    @property
    def scheme(self) -> str:
        """`https` if the client uses TLS, here or to a proxy that the server was told to trust; else `http`."""
        return self._forwarded("x-forwarded-proto") or ("https" if self._connection.tls else "http")

    @property
    def host(self) -> str:
        """The host, perhaps with a port, that the client asks; what a trusted proxy says it was counts."""
        return self._forwarded("x-forwarded-host") or self.headers.get("host", "")

    def _forwarded(self, name: str) -> str:
        value = self.headers.get(name, "")
        if not value or not self._connection.server.proxies.trusts(host_of(self.peer)):
            return ""
        return value.rpartition(",")[2].strip()  # the nearest proxy's word

    @property
    def upgrade(self) -> str:
        """The protocols that the client offers to go over to, as it lists them; "" if none. See `Upgrade`."""
        return self.headers.get("upgrade", "") if self.head.upgrade else ""

    @property
    def method(self) -> str:
        return self.head.method

    @property
    def target(self) -> str:
        """Path and query as they were sent."""
        return self.head.target

    @property
    def version(self) -> str:
        return self.head.version

    @property
    def path(self) -> str:
        """The path, percent-decoded."""
        return unquote(self.head.target.partition("?")[0])

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters, decoded; of those given several times, the last."""
        return dict(parse_qsl(self.head.target.partition("?")[2], keep_blank_values=True))

    @property
    def headers(self) -> Headers:
        if self._fields is None:
            self._fields = Headers(self.head.fields)
        return self._fields

    @property
    def content_length(self) -> int | None:
        """Bytes of the body, if the client has told."""
        return self.head.content_length

    @property
    def cookies(self) -> dict[str, str]:
        """Cookies by name (RFC 6265, section 4.2); of those sent twice, the first."""
        if self._cookies is None:
            self._cookies = {}
            for pair in self.head.fields.get(b"cookie", b"").decode("latin-1").split(";"):
                name, equals, value = pair.strip().partition("=")
                if equals:
                    self._cookies.setdefault(name, value.strip('"'))
        return self._cookies

    def json(self, limit: int = 1 << 20) -> Coro[Any]:
        """The body as JSON. May suspend. `HTTPError` 400 when it is none, 413 beyond `limit` bytes."""
        data = yield from self.body.read_all(limit)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:  # the latter: nested too deeply
            raise HTTPError(400, f"the body is not JSON: {error}") from None

    def form(self, limit: int = 1 << 20) -> Coro[dict[str, str]]:
        """The fields of a form sent as application/x-www-form-urlencoded; of those given several times, the last.

        May suspend. `HTTPError` 415 for another type (see `MultipartReader`), 413 beyond `limit` bytes, 400.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise HTTPError(415, "the body must be application/x-www-form-urlencoded")
        data = yield from self.body.read_all(limit)
        try:
            return dict(parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS))
        except ValueError as error:  # not UTF-8, or too many
            raise HTTPError(400, f"malformed form: {error}") from None

    def inform(self, status: int, headers: HeaderList = ()) -> Coro[None]:
        """Send an interim answer ahead of the answer itself, as 103 (Early Hints) is: RFC 9110, section 15.2.

        Not to HTTP/1.0 clients, who know none. 100 is sent by the server itself, 101 by `Upgrade`. Suspends while the
        client does not take it. `ClientDisconnected`, ValueError.
        """
        yield from self._connection.inform(status, headers)

    @property
    def open_connections(self) -> int:
        """How many connections the server has."""
        return len(self._connection.server.connections)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target}>"


class Answer(Protocol):
    """What a handler returns: a `Response`, or another object that knows how to send itself."""

    status: int
    headers: HeaderList

    def send(self, sender: Sender) -> Iterable[Wait]:
        """What there is to wait for until it is sent, often nothing: for `yield from`."""
        ...


class Sender(Protocol):
    """The connection, as an answer sees it."""

    @property
    def method(self) -> str:
        """Of the request that is answered."""
        ...

    def send_head(self, answer: Answer, length: int | None, body: bytes = b"") -> Iterable[Wait]:
        """Send status line and header fields, with the first bytes of the body. Length None: framed as it goes."""
        ...

    def send_body(self, data: bytes | memoryview) -> Coro[None]:
        """Send a piece of the body. Suspends while the client does not take it. `ClientDisconnected`."""
        ...

    def send_file(self, fd: int, offset: int, count: int) -> Coro[None]:
        """Send a piece of a file as the body, without copying it. Suspends. `ClientDisconnected`, EOFError."""
        ...

    def switch_protocols(self, answer: Answer, protocol: str) -> Coro[Stream]:
        """Send 101; the connection, for the other protocol. ValueError if the client did not offer to."""
        ...


class Response:
    """A complete answer."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        status: int = 200,
        body: bytes | str = b"",
        headers: HeaderList = (),
        content_type: str | None = None,
    ) -> None:
        self.status = status
        if isinstance(body, str):
            body = body.encode()
            content_type = content_type or "text/plain; charset=utf-8"
        self.body = body
        if content_type is not None:
            field = ("Content-Type", content_type)
            headers = (*headers, field) if type(headers) is tuple else [*headers, field]  # see `encode_head`
        self.headers = headers

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: HeaderList = ()) -> Response:
        """An answer with `value` as JSON."""
        body = encode_json(value)
        return cls(status, body, headers, "application/json")

    def send(self, sender: Sender) -> Iterable[Wait]:
        return sender.send_head(self, len(self.body), self.body)


class StreamResponse:
    """An answer whose body is made while it is sent: `write_body(write)` calls `yield from write(data)`."""

    def __init__(
        self,
        write_body: Callable[[Callable[[bytes], Coro[None]]], Coro[None]],
        status: int = 200,
        headers: HeaderList = (),
        content_type: str = "application/octet-stream",
    ) -> None:
        self.status = status
        self.headers: HeaderList = [*headers, ("Content-Type", content_type)]
        self._write_body = write_body

    def send(self, sender: Sender) -> Coro[None]:
        yield from sender.send_head(self, None)
        if sender.method != "HEAD" and self.status not in BODILESS:
            yield from self._write_body(sender.send_body)


Handler: TypeAlias = Callable[[Request], Coro[Answer]]

PHRASES = {status.value: status.phrase for status in HTTPStatus}
BODILESS = frozenset({204, 304})  # and 1xx: RFC 9110, section 6.4.1
FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2
SERVERS_OWN = frozenset({"connection", "content-length", "date", "transfer-encoding"})


@functools.lru_cache
def _check_name(name: str) -> None:
    if not FIELD_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a header field")
    if name.lower() in SERVERS_OWN:
        raise ValueError(f"header field {name!r} is set by the server itself")


def _encode_fields(headers: HeaderList) -> str:
    """The header fields, checked."""
    text = ""
    for name, value in headers:
        _check_name(name)
        if not value.isprintable():
            raise ValueError(f"header field {name!r}: {value!r} has characters that could end or split it")
        text += f"{name}: {value}\r\n"
    return text


KNOWN_STARTS = 256
_starts: dict[tuple[int, HeaderList], str] = {}  # what answers began with in this second: many have the same
_second = 0.0
_date = ""


def _start(status: int, headers: HeaderList) -> str:
    """The status line, `Date` and the header fields."""
    if not 100 < status <= 599:
        raise ValueError(f"{status} is not the status of an answer")
    text = f"HTTP/1.1 {status} {PHRASES.get(status, '')}\r\nDate: {_date}\r\n{_encode_fields(headers)}"
    if type(headers) is tuple and len(text) <= 1024 and "set-cookie:" not in text.lower():
        if len(_starts) >= KNOWN_STARTS:
            _starts.clear()
        _starts[status, headers] = text
    return text


def forget_starts() -> None:
    """Forget what answers began with: some of it may be secret."""
    _starts.clear()


def encode_head(status: int, headers: HeaderList, length: int | None, chunked: bool, connection: str) -> bytes:
    """Status line and header fields, to the empty line.

    ValueError for a status that is none, a field that would end its line, and fields that are the server's own.
    Fields in a tuple are taken for those that many answers have, and remembered.
    """
    global _second, _date
    second = time() // 1
    if second != _second:
        _second, _date = second, formatdate(second, usegmt=True)
        _starts.clear()
    text = (_starts.get((status, headers)) if type(headers) is tuple else None) or _start(status, headers)
    if chunked:
        text += "Transfer-Encoding: chunked\r\n"
    elif length is not None and status not in BODILESS:
        text += f"Content-Length: {length}\r\n"
    text += f"Connection: {connection}\r\n\r\n" if connection else "\r\n"
    return text.encode("latin-1")
