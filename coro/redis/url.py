"""Where a Redis is and how to log in there: the URLs that users write, and the settings that they mean.

    redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]     TCP; port 6379 and database 0 unless told otherwise
    rediss://...                                         the same over TLS, the certificate always verified
    unix://[USER[:PASSWORD]@]/PATH[?db=DATABASE]         a Unix socket
    redis://[...@]HOST[:PORT],HOST[:PORT]...             several nodes of a cluster, to which one logs in alike
    redis+sentinel://[...@]HOST[:PORT],.../NAME[/DATABASE]    a master, by its name and the sentinels that watch it

Options follow a `?`: `db`, `name` (the client's, shown by CLIENT LIST), `timeout` and `connect_timeout` (seconds), and
for rediss `ca`, the path of a file of certificate authorities to trust in place of the system's. In user names,
passwords and paths every character that means something in a URL is written as %XX. An option that is not known is an
error: it may be a misspelt one.

Specification: https://www.iana.org/assignments/uri-schemes/prov/redis and RFC 3986
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

PORT = 6379
SENTINEL_PORT = 26379
TIMEOUT = 5.0  # seconds
SENTINEL_FORM = "redis+sentinel://[user:password@]host:port,host:port/name/db, or rediss+sentinel://... for TLS"
FORMS = "redis://[user:password@]host:port/db, rediss://... for TLS, or unix:///path?db=0"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a client must know about its server. Without `path` it is reached over TCP at `host` and `port`."""

    host: str = "localhost"
    port: int = PORT
    path: str = ""  # of a Unix socket
    username: str = ""
    password: str = field(default="", repr=False)
    database: int = 0
    tls: bool = False
    ca: str = ""  # a PEM file; the system's authorities if empty
    timeout: float = TIMEOUT  # seconds from the sending of a command to its reply
    connect_timeout: float = TIMEOUT  # seconds for connecting, TLS and login together
    max_unanswered: int = 1024  # commands sent on one connection and not answered yet; the rest waits for them
    max_connections: int = 50  # besides the shared one: for commands that block, transactions, subscriptions
    health_check_interval: float = 30.0  # seconds without a command after which the connection is tried with PING
    client_name: str = ""  # what CLIENT LIST shows

    def __post_init__(self) -> None:
        for name in "timeout", "connect_timeout", "health_check_interval":
            seconds = getattr(self, name)
            if not isinstance(seconds, (int, float)):
                raise TypeError(f"{name} must be a number of seconds, not {seconds!r}")
            if not 0 < seconds < math.inf:
                raise ValueError(f"{name} must be a number of seconds above 0, not {seconds!r}")
        for name in "max_unanswered", "max_connections":
            count = getattr(self, name)
            if not isinstance(count, int):
                raise TypeError(f"{name} must be a whole number, not {count!r}")
            if count < 1:
                raise ValueError(f"{name} must be at least 1, not {count!r}")
        if not all("!" <= character <= "~" for character in self.client_name):
            raise ValueError(f"a client's name has no spaces or special characters, unlike {self.client_name!r}")
        if self.ca and not self.tls:
            raise ValueError("a certificate authority (ca) is of use with TLS only: write rediss://")

    @property
    def address(self) -> str:
        """The server's address for people: `host:port`, or the path of its socket."""
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_url(url: str, default_port: int = PORT) -> Settings:
    """The settings that `url` stands for. ValueError when it is not a Redis URL, without showing its password."""
    if not isinstance(url, str):
        raise TypeError(f"a Redis URL is a str, not of the type {type(url).__name__}")
    hosts = re.match("rediss?://(?:[^/?#]*@)?([^/?#]*)", url)
    if hosts is not None and "," in hosts[1]:
        raise ValueError("a Redis URL names one host here: several are for RedisCluster, or for redis+sentinel://")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may show a password with a / in it
        raise ValueError(
            f"the host or port of a Redis URL cannot be read: write {FORMS}, with %XX for /, # and ? in a password"
        ) from None
    options = _options(parts)
    database = options.pop("db", "")
    if parts.scheme == "unix":
        if parts.hostname or not parts.path:
            raise ValueError("a unix:// URL names the socket by its absolute path, as in unix:///run/redis.sock")
        host, path = "localhost", unquote(parts.path)
    elif parts.scheme in ("redis", "rediss"):
        if "://" not in url:
            raise ValueError(f"a Redis URL has // behind its scheme: write {FORMS}")
        host, path = parts.hostname or "localhost", ""
        if database and parts.path.strip("/") not in ("", database):
            raise ValueError("a Redis URL names two databases: one behind the host, and another one by ?db=")
        database = parts.path.strip("/") or database
    else:
        raise ValueError(f"{parts.scheme or 'nothing'!r} is no scheme of Redis URLs: write {FORMS}")
    settings = Settings(
        host=host,
        port=default_port if port is None else port,
        path=path,
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=_database(database),
        tls=parts.scheme == "rediss",
        ca=options.pop("ca", ""),
        client_name=options.pop("name", ""),
        timeout=_seconds(options, "timeout"),
        connect_timeout=_seconds(options, "connect_timeout"),
    )
    if options:
        known = "db, name, ca, timeout and connect_timeout"
        raise ValueError(f"{', '.join(options)} in a Redis URL: the options are {known}")
    return settings


def parse_urls(url: str) -> list[Settings]:
    """The settings for each host of a URL that may name several, as in `redis://HOST:PORT,HOST:PORT`. ValueError."""
    scheme, separator, rest = url.partition("://")
    authority = re.match("[^/?#]*", rest)
    assert authority is not None
    login, at, hosts = authority[0].rpartition("@")
    tail = rest[authority.end() :]
    return [parse_url(f"{scheme}{separator}{login}{at}{host}{tail}") for host in hosts.split(",")]


def parse_sentinel_url(url: str) -> tuple[list[Settings], str, Settings]:
    """What a `redis+sentinel://` URL says: the sentinels, the master's name, and its settings but for the host."""
    found = re.fullmatch(r"(rediss?)\+sentinel://(?:([^/?#]*)@)?([^@/?#]+)/([^/?#]+)(/[^/?#]*)?(?:\?([^#]*))?", url)
    if found is None:
        raise ValueError(f"the URL of a master that sentinels watch cannot be read: write {SENTINEL_FORM}")
    scheme, login, hosts, name, database, query = found.groups(default="")
    options = dict(parse_qsl(query, keep_blank_values=True))
    username, password = options.pop("sentinel_username", ""), options.pop("sentinel_password", "")
    settings = parse_url(f"{scheme}://{login}@{database}?{urlencode(options)}")
    places = [parse_url(f"redis://{host}", SENTINEL_PORT) for host in hosts.split(",")]
    sentinels = [
        replace(settings, host=place.host, port=place.port, username=username, password=password, database=0)
        for place in places
    ]
    return sentinels, unquote(name), replace(settings, host=unquote(name))


def _options(parts: SplitResult) -> dict[str, str]:
    if parts.fragment:
        raise ValueError("a Redis URL has no part after '#': write %23 where the character itself is meant")
    if "@" in parts.query:  # what stands before it may be a password's second half
        raise ValueError("a Redis URL has an '@' behind its '?': write %3F for ? in a password, %40 for @ in an option")
    return dict(parse_qsl(parts.query, keep_blank_values=True))


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdigit()):
        raise ValueError("a Redis URL ends in something else than the number of a database")
    return int(text or 0)


def _seconds(options: dict[str, str], name: str) -> float:
    text = options.pop(name, None)
    if text is None:
        return TIMEOUT
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number of seconds, not {text!r}") from None
