"""Absolute http and https URLs (RFC 3986), as far as a client needs them: whom to connect to, and what to ask for.

What two readers could understand in two ways is refused: which server is asked must not depend on who reads the URL.
Spaces and letters outside ASCII, which people write, are percent-encoded; the names of hosts are put into IDNA.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias
from urllib.parse import quote, quote_plus, unquote_to_bytes, urljoin

from coro.http.client.errors import InvalidURL

Value: TypeAlias = str | int | float
Pairs: TypeAlias = Mapping[str, Value | Sequence[Value]] | Sequence[tuple[str, Value]]

# RFC 3986, appendix B, for the two schemes there are here.
PARTS = re.compile(r"(https?)://([^/?#\\]*)(/[^?#]*)?(\?[^#]*)?(?:#.*)?", re.IGNORECASE | re.DOTALL)
AUTHORITY = re.compile(
    r"(?:(?P<user>[^@]*)@)?(?P<host>\[[0-9A-Fa-f:.]*\]|[^@:\[\]]*)(?::(?P<port>[0-9]{0,9}))?", re.DOTALL
)
HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
# Letters that IDNA 2003, which Python has, and IDNA 2008 read differently: another host for each.
TWO_HOSTS = re.compile("[ßς\u200c\u200d]")
SAFE = "%/:?#[]@!$&'()*+,;=~"  # besides letters, digits and -._
PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Whom a request goes to (RFC 6454). Connections and credentials belong to one origin."""

    scheme: str
    host: str  # in lower case and ASCII; IPv6 without brackets
    port: int

    @property
    def authority(self) -> str:
        """As it stands in `Host`, without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


class URL(NamedTuple):
    """A URL taken apart. Its text has no user, no password and no fragment."""

    origin: Origin
    target: str  # path and query, as the request line has them
    credentials: bytes | None = None  # user:password

    def __str__(self) -> str:
        return f"{self.origin}{self.target}"


def parse_url(text: str) -> URL:
    """The parts of an absolute http or https URL. `InvalidURL`, whose message never holds a password."""
    # What may hold a password or a key is not remembered for longer than it is needed.
    return _parse(text) if "@" in text or "?" in text else _remembered(text)


def _parse(text: str) -> URL:
    parts = PARTS.fullmatch(text.strip(" "))
    if parts is None:
        raise InvalidURL("a URL here begins with http:// or https:// and a host; this one does not")
    if CONTROL.search(text):
        raise InvalidURL("a URL with control characters, such as line ends or NUL")
    scheme, authority, path, query = parts[1].lower(), parts[2], parts[3] or "/", parts[4] or ""
    found = AUTHORITY.fullmatch(authority)
    if found is None:
        raise InvalidURL("malformed host or port in a URL (a user's '@', ':' and '/' are written %40, %3A and %2F)")
    port = int(found["port"]) if found["port"] else PORTS[scheme]
    if not 1 <= port <= 65535:
        raise InvalidURL(f"{port} in a URL is not the number of a port")
    user = found["user"]
    credentials = None if user is None else unquote_to_bytes(user if ":" in user else f"{user}:")
    target = quote(path + query, safe=SAFE)
    return URL(Origin(scheme, _host(found["host"]), port), target, credentials)


_remembered = functools.lru_cache(maxsize=1024)(_parse)


def _host(text: str) -> str:
    if text.startswith("["):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise InvalidURL(f"{text} in a URL is not an IPv6 address") from None
    host = text.lower()
    if not host.isascii():
        if TWO_HOSTS.search(host):
            raise InvalidURL(f"host {text!r} means different hosts to different readers: write it as xn--...")
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise InvalidURL(f"{text!r} cannot be the name of a host: {error}") from None
    if not HOST_NAME.fullmatch(host):
        raise InvalidURL(f"{text!r} cannot be the name of a host" if text else "a URL without a host")
    if NUMERIC_LABEL.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise InvalidURL(f"{text} in a URL is neither a name nor an IPv4 address of four numbers") from None
    return host


def encode_pairs(pairs: Pairs) -> str:
    """application/x-www-form-urlencoded; a sequence as value gives its name once for each."""
    parts = []
    for name, given in pairs.items() if isinstance(pairs, Mapping) else pairs:
        start = quote_plus(name) + "="
        for value in (given,) if isinstance(given, str | int | float) else given:
            parts.append(start + quote_plus(str(value)))
    return "&".join(parts)


def add_query(url: URL, params: Pairs) -> URL:
    """The URL with more parameters in its query."""
    query = encode_pairs(params)
    if not query:
        return url
    return url._replace(target=url.target + ("&" if "?" in url.target else "?") + query)


def join(base: URL, location: str) -> URL:
    """Where the `Location` of a response to `base` leads (RFC 9110, section 10.2.2). `InvalidURL`.

    One with a user in it is refused, as section 4.2.4 advises: no server has to tell us who we are.
    """
    encoded = quote(location.encode("latin-1"), safe=SAFE)  # what browsers do with the UTF-8 that some servers send
    try:
        url = parse_url(urljoin(str(base), encoded))
    except ValueError as error:
        raise InvalidURL(str(error)) from None
    if url.credentials is not None:
        raise InvalidURL("a location with a user's name in it")
    return url
