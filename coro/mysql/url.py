"""Where a server is and how to log in, written as a URL.

    mysql://user:password@host:port/database?tls=verify-identity&ca=/etc/ssl/company.pem
    mysql://user:password@host1:port,host2:port/database
    mysql://user@/database?socket=/run/mysqld/mysqld.sock

Of several servers, the first that can be had is used (see `coro.mysql.servers`). The parts are percent-encoded. Left
out, the host is 127.0.0.1, the port 3306, the user root. Parameters:

    tls          disabled, preferred, required, verify-ca or verify-identity, which mean what they mean to the
                 programs of MySQL; unless said otherwise, `verify-identity`, and for a server on this machine
                 (localhost, 127.0.0.1, ::1) without a `ca`, `preferred`
    ca           file of the certificates that vouch for the server (PEM); without it, the system's
    cert         file of a certificate to show to the server, and of its key unless `key` names another (PEM)
    socket       path of a Unix socket to connect to, instead of a host
    local-infile true: let `load_data` send data of this program; false
    compress     zlib, or zstd (MySQL only; needs the extra `zstd`)
    password2    and password3: further passwords, of accounts that are asked for several
    public-key   file of the server's RSA key (PEM), for logins that need the password, without TLS
    allow-public-key-retrieval    true: ask the server for that key, and trust what comes; false
    allow-cleartext-password      true: let `mysql_clear_password` send the password unencrypted; false

The password itself is sent, when the server must have it, only over a Unix socket or over TLS that is
verified, that was asked for as `required`, or that stays on this machine; without TLS, only encrypted with
the server's RSA key.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from coro.mysql.errors import InterfaceError

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 3306
DEFAULT_USER: Final = "root"


class TlsMode(enum.Enum):
    """The modes of `--ssl-mode`."""

    DISABLED = "disabled"
    PREFERRED = "preferred"  # when the server offers it; the certificate is not looked at
    REQUIRED = "required"  # the certificate is not looked at
    VERIFY_CA = "verify-ca"
    VERIFY_IDENTITY = "verify-identity"  # the certificate must be for this host


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL says. With `socket` set, host, port and TLS do not count."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    user: str = DEFAULT_USER
    password: str = field(default="", repr=False)
    further_passwords: tuple[str, ...] = field(default=(), repr=False)
    database: str = ""
    socket: str = ""
    tls: TlsMode = TlsMode.PREFERRED
    ca: str = ""
    cert: str = ""
    key: str = ""
    public_key: str = ""
    allow_public_key_retrieval: bool = False
    allow_cleartext: bool = False
    compress: str = ""
    local_infile: bool = False

    @property
    def peer(self) -> str:
        """The server in words: host:port, or the path of the socket."""
        if self.socket:
            return self.socket
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_url(url: str) -> Target:
    """Reads a `mysql://` URL. Raises InterfaceError, which names what is wrong, never the password."""
    if not url.startswith("mysql://"):
        raise InterfaceError("bad MySQL URL: it does not start with 'mysql://'")
    try:
        parts = urlsplit(url)
        port = parts.port if parts.port is not None else DEFAULT_PORT
        if not port:
            raise ValueError
    except ValueError:  # what stands there may be a password's first half: it is not shown
        raise InterfaceError(
            "bad MySQL URL: no host and port can be made out; a port is a number from 1 to 65535;"
            " write '/' in a password as %2F, '?' as %3F, '#' as %23"
        ) from None
    if "@" in parts.path + parts.query:  # what stands before it may be a password's second half
        raise InterfaceError(
            "bad MySQL URL: an '@' stands behind a '/' or '?'; write '/' in a password as %2F, '?' as %3F,"
            " and '@' behind the host as %40"
        )
    database = unquote(parts.path.removeprefix("/"))
    if "/" in parts.path.removeprefix("/") or parts.fragment:
        raise InterfaceError("bad MySQL URL: a database is one name; encode '/' in it as %2F, '#' as %23")
    options = _options(parts.query)
    ca = options.pop("ca", "")
    host = unquote(parts.hostname or "") or DEFAULT_HOST
    target = Target(
        host=host,
        port=port,
        user=unquote(parts.username or "") or DEFAULT_USER,
        password=unquote(parts.password or ""),
        further_passwords=_further_passwords(options),
        database=database,
        socket=options.pop("socket", ""),
        tls=_tls_mode(options.pop("tls", ""), ca, host),
        ca=ca,
        cert=options.pop("cert", ""),
        key=options.pop("key", ""),
        public_key=options.pop("public-key", ""),
        allow_public_key_retrieval=_flag(options, "allow-public-key-retrieval"),
        allow_cleartext=_flag(options, "allow-cleartext-password"),
        compress=_compression(options),
        local_infile=_flag(options, "local-infile"),
    )
    if target.cert and target.tls is TlsMode.DISABLED:
        raise InterfaceError("bad MySQL URL: cert has no meaning with tls=disabled")
    if target.key and not target.cert:
        raise InterfaceError("bad MySQL URL: key is given, and cert is not")
    if options:
        raise InterfaceError(f"bad MySQL URL: unknown parameter {next(iter(options))!r}")
    return target


_AUTHORITY: Final = re.compile(r"(mysql://(?:[^/?#]*@)?)([^/?#@]*)(.*)", re.DOTALL)


def parse_servers(url: str) -> tuple[Target, ...]:
    """As `parse_url`, for a URL that may name several servers: what it says of each, in their order."""
    match = _AUTHORITY.fullmatch(url)
    if match is None or "," not in match[2]:
        return (parse_url(url),)
    head, hosts, tail = match.groups()
    if "" in hosts.split(","):
        raise InterfaceError("bad MySQL URL: a server between two commas has no name")
    targets = tuple(parse_url(f"{head}{host}{tail}") for host in hosts.split(","))
    if targets[0].socket:
        raise InterfaceError("bad MySQL URL: it names several servers, and one socket")
    if len(set(targets)) < len(targets):
        raise InterfaceError("bad MySQL URL: a server is named twice")
    return targets


def _options(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise InterfaceError("bad MySQL URL: behind the '?' stands name=value&name=value") from None
    options = dict(pairs)
    if len(options) < len(pairs):
        raise InterfaceError("bad MySQL URL: a parameter is given twice")
    return options


def _further_passwords(options: dict[str, str]) -> tuple[str, ...]:
    second, third = options.pop("password2", None), options.pop("password3", None)
    if second is None and third is not None:
        raise InterfaceError("bad MySQL URL: password3 is given, and password2 is not")
    return tuple(password for password in (second, third) if password is not None)


def _tls_mode(text: str, ca: str, host: str) -> TlsMode:
    """A CA is given to be used: the modes that would not look at it become the one that does."""
    if not text:
        return TlsMode.PREFERRED if is_this_machine(host) and not ca else TlsMode.VERIFY_IDENTITY
    try:
        mode = TlsMode(text)
    except ValueError:
        known = ", ".join(mode.value for mode in TlsMode)
        raise InterfaceError(f"bad MySQL URL: tls={text!r} is none of {known}") from None
    if ca and mode is TlsMode.DISABLED:
        raise InterfaceError("bad MySQL URL: ca has no meaning with tls=disabled")
    if ca and mode in (TlsMode.PREFERRED, TlsMode.REQUIRED):
        return TlsMode.VERIFY_IDENTITY
    return mode


def _compression(options: dict[str, str]) -> str:
    name = options.pop("compress", "")
    if name in ("", "zlib", "zstd"):
        return name
    raise InterfaceError(f"bad MySQL URL: compress={name!r} is neither zlib nor zstd")


def is_this_machine(host: str) -> bool:
    """Whether the host, a name or an address, is the machine itself."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _flag(options: dict[str, str], name: str) -> bool:
    text = options.pop(name, "")
    if text in ("", "false"):
        return False
    if text == "true":
        return True
    raise InterfaceError(f"bad MySQL URL: {name}={text!r} is neither true nor false")
