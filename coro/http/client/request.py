"""What a client asks, made into bytes (RFC 9112), and what it asks next after a redirect (RFC 9110, section 15.4).

No I/O: an `Outgoing` is a decision about what to send; `coro.http.client.exchange` sends it.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias, TypedDict

from coro.http.client.errors import InvalidURL, RedirectError
from coro.http.client.parser import ResponseHead
from coro.http.client.url import URL, Pairs, add_query, encode_pairs, join, parse_url
from coro.http.message import FIELD_NAME, encode_json
from coro.task import Coro

Write: TypeAlias = Callable[[bytes], Coro[None]]
HeaderPairs: TypeAlias = Mapping[str, str] | Sequence[tuple[str, str]]

FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
HOST_VALUE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]+)?")
OURS = frozenset({
    "connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
    "upgrade",
})  # fmt: skip
CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})
OF_ONE_ORIGIN = CREDENTIALS | {"host"}
IDEMPOTENT = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"})  # RFC 9110, section 9.2.2
EXPECTS_BODY = frozenset({"PATCH", "POST", "PUT"})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
USER_AGENT: Final = "User-Agent: coro\r\n"
ACCEPT: Final = "Accept: */*\r\n"
ACCEPT_ENCODING: Final = "Accept-Encoding: gzip, deflate\r\n"


class RequestBody(Protocol):
    """A body to send. `FileBody`, `StreamBody` and `MultipartBody` are such, and so can be classes of your own."""

    @property
    def content_type(self) -> str | None: ...

    @property
    def repeatable(self) -> bool:
        """May it be sent again, after a redirect or on another connection?"""
        ...

    def size(self) -> Coro[int | None]:
        """Bytes that `write_to` will write; None if that is not known before. May suspend."""
        ...

    def write_to(self, write: Write) -> Coro[None]:
        """Write the body, piece by piece, with `yield from write(data)`."""
        ...


class RequestOptions(TypedDict, total=False):
    """What can be given with every request. At most one of `body`, `json` and `form`."""

    params: Pairs  # added to the URL's query
    headers: HeaderPairs
    body: bytes | RequestBody
    json: Any  # sent as JSON
    form: Pairs  # sent as application/x-www-form-urlencoded
    auth: tuple[str, str]  # user and password (RFC 7617); a URL's own are used as well
    redirects: int  # how many to follow; 10 if it is not given, and with 0 the redirect is what is returned
    timeout: float  # seconds for everything together
    expect_continue: bool  # ask before the body is sent (RFC 9110, section 10.1.1)


class Outgoing:
    """One request, checked and ready to be sent; never changed."""

    __slots__ = ("body", "decodes", "expects", "fields", "hops", "method", "names", "url")

    def __init__(
        self,
        method: str,
        url: URL,
        fields: Sequence[tuple[str, str]],
        body: bytes | RequestBody,
        expects: bool = False,
        hops: int = 0,
    ) -> None:
        self.method = method
        self.url = url
        self.fields = fields
        self.body = body
        self.expects = expects
        self.hops = hops  # redirects that led to it
        self.names = {field_name(name) for name, _ in fields} if fields else frozenset()
        # Who asks for codings, or for a range of one, gets what comes as it is.
        self.decodes = "accept-encoding" not in self.names and "range" not in self.names

    @property
    def idempotent(self) -> bool:
        return self.method in IDEMPOTENT

    @property
    def repeatable(self) -> bool:
        """Can the body be sent again?"""
        return isinstance(self.body, bytes) or self.body.repeatable

    def encode_head(self, length: int | None) -> bytes:
        """The request line and the header fields. `length`: bytes of the body; None: it is sent in chunks."""
        url, names = self.url, self.names
        text = f"{self.method} {url.target} HTTP/1.1\r\n"
        if "host" not in names:
            text += f"Host: {url.origin.authority}\r\n"
        if self.fields:
            text += "" if "user-agent" in names else USER_AGENT
            text += "" if "accept" in names else ACCEPT
            text += ACCEPT_ENCODING if self.decodes else ""
            for name, value in self.fields:
                text += f"{name}: {value}\r\n"
        else:
            text += USER_AGENT + ACCEPT + ACCEPT_ENCODING
        if length is None:
            text += "Transfer-Encoding: chunked\r\n"
        elif length or self.method in EXPECTS_BODY:  # RFC 9110, section 8.6
            text += f"Content-Length: {length}\r\n"
        if self.expects:
            text += "Expect: 100-continue\r\n"
        return (text + "\r\n").encode("latin-1")

    def coding(self, head: ResponseHead) -> str | None:
        """The content coding that is to be undone, which may be one that cannot be."""
        if not self.decodes or b"content-encoding" not in head.fields:
            return None
        coding = head.fields[b"content-encoding"].decode("latin-1").lower()
        return None if coding in ("", "identity") else coding

    def without_expectation(self) -> Outgoing:
        """For a server that answers 417 (RFC 9110, section 15.5.18)."""
        return Outgoing(self.method, self.url, self.fields, self.body, hops=self.hops)

    def __repr__(self) -> str:
        return f"{self.method} {self.url.origin}"


def prepare(method: str, url: str, options: RequestOptions) -> Outgoing:
    """The request that is meant. `InvalidURL`; ValueError for what cannot be sent, as header fields with line ends."""
    _check_method(method)
    try:
        parsed = parse_url(url)
    except InvalidURL as error:
        raise InvalidURL(f"{method}: {error}") from None
    if not options:
        if parsed.credentials is None:
            return Outgoing(method, parsed, (), b"")
        return Outgoing(method, parsed, [_basic(parsed.credentials)], b"")
    if "params" in options:
        parsed = add_query(parsed, options["params"])
    fields = _check_fields(options.get("headers", ()))
    names = {field_name(name) for name, _ in fields}
    body, content_type = _body(options)
    if content_type is not None and "content-type" not in names:
        fields.append(("Content-Type", content_type))
    if "auth" in options:
        user, password = options["auth"]
        if ":" in user:
            raise ValueError("a user's name with a colon cannot be sent (RFC 7617)")
        parsed = parsed._replace(credentials=f"{user}:{password}".encode())
    if parsed.credentials is not None:
        if "authorization" in names:
            raise ValueError("both an Authorization field and a user's name and password")
        fields.append(_basic(parsed.credentials))
    expects = options.get("expect_continue", False) and body != b""
    return Outgoing(method, parsed, fields, body, expects)


def _body(options: RequestOptions) -> tuple[bytes | RequestBody, str | None]:
    """The body and its type."""
    if ("body" in options) + ("json" in options) + ("form" in options) > 1:
        raise ValueError("a request has one body: `body`, `json` or `form`")
    if "json" in options:
        return encode_json(options["json"]), "application/json"
    if "form" in options:
        return encode_pairs(options["form"]).encode(), "application/x-www-form-urlencoded"
    body = options.get("body", b"")
    if isinstance(body, str):
        raise TypeError("the body of a request is bytes: encode the text")
    if isinstance(body, bytes):
        return body, None
    if body.content_type is not None:
        _check_fields([("Content-Type", body.content_type)])
    return body, body.content_type


def _basic(credentials: bytes) -> tuple[str, str]:
    return "Authorization", "Basic " + base64.b64encode(credentials).decode("ascii")


@functools.lru_cache(maxsize=64)
def _check_method(method: str) -> None:
    if not FIELD_NAME.fullmatch(method):
        raise ValueError(f"{method!r} is not a method")
    if method.upper() == "CONNECT":
        raise ValueError("CONNECT is for proxies, which this client does not use")


@functools.lru_cache(maxsize=256)
def field_name(name: str) -> str:
    """The name in lower case. ValueError for what is none, or not the caller's."""
    if not FIELD_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a header field")
    if name.lower() in OURS:
        raise ValueError(f"header field {name!r} is set by the client itself")
    return name.lower()


def _check_fields(headers: HeaderPairs) -> list[tuple[str, str]]:
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    for name, value in pairs:
        known = field_name(name)
        if not FIELD_VALUE.fullmatch(value):
            raise ValueError(f"header field {name!r} has characters that could end it, or that are not Latin-1")
        if known == "host" and not HOST_VALUE.fullmatch(value):
            raise ValueError(f"malformed Host field {value!r}")
    return pairs


def redirected(request: Outgoing, head: ResponseHead) -> Outgoing | None:
    """The request that follows from a response, if it is a redirect. `RedirectError` for one not to be followed.

    Credentials stay with the origin they were given for; nothing that was asked over TLS goes on without.
    """
    location = head.fields.get(b"location")
    if head.status not in REDIRECTS or location is None:
        return None
    try:
        url = join(request.url, location.decode("latin-1"))
    except InvalidURL as error:
        raise RedirectError(f"{request!r}: redirected to nowhere: {error}") from None
    if request.url.origin.scheme == "https" and url.origin.scheme != "https":
        raise RedirectError(
            f"{request!r}: redirected to {url.origin}, without TLS: this is not done unasked. Ask for that URL"
            " yourself if it is meant (with redirects=0 the response tells it)"
        )
    method, body, fields = request.method, request.body, request.fields
    dropped = OF_ONE_ORIGIN if url.origin != request.url.origin else frozenset[str]()
    rewrites = method == "POST" if head.status in (301, 302) else head.status == 303 and method not in ("GET", "HEAD")
    if rewrites:
        method, body = "GET", b""
    elif not request.repeatable:
        raise RedirectError(f"{request!r}: redirected with {head.status}, but this body cannot be sent again")
    kept = [
        (name, value)
        for name, value in fields
        if field_name(name) not in dropped and not (rewrites and field_name(name).startswith("content-"))
    ]
    return Outgoing(method, url, kept, body, request.expects and not rewrites, request.hops + 1)
