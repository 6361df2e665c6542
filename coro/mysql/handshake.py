"""The login: from the server's greeting to its OK.

    server: HandshakeV10                       version, challenge, capabilities, preferred plugin
    client: SSLRequest, then TLS               if both want it
    client: HandshakeResponse41                user, database, answer to the challenge
    server: AuthSwitchRequest                  another plugin, another challenge; may come several times
    server: AuthMoreData  <->  client: data    as the plugin has it
    server: AuthNextFactor                     another plugin, for the account's second or third password
    server: OK or ERR

What is told before TLS starts is the server's greeting and our wish for TLS, nothing else; whatever the
server sent in the clear behind its greeting is refused, so that nobody can slip something in under the
encryption. The text of the connection is utf8mb4 from its first byte on.

COM_CHANGE_USER logs in again as somebody else, from the answer to a challenge on.

Source: "Connection Phase" and "COM_CHANGE_USER" in the client/server protocol manual.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Final

from coro.mysql import constants as c
from coro.mysql.auth import PLUGINS, Challenge
from coro.mysql.compression import ZSTD_LEVEL
from coro.mysql.errors import InterfaceError, NotSupportedError, OperationalError, ProtocolError
from coro.mysql.packets import Exchange, Framer, Need, Payload, lenenc
from coro.mysql.replies import EOF, ERR, OK, expect_ok, parse_err

_REQUIRED: Final = c.CLIENT_PROTOCOL_41 | c.CLIENT_SECURE_CONNECTION
_WANTED: Final = (
    c.CLIENT_LONG_PASSWORD
    | c.CLIENT_LONG_FLAG
    | c.CLIENT_PROTOCOL_41
    | c.CLIENT_TRANSACTIONS
    | c.CLIENT_SECURE_CONNECTION
    | c.CLIENT_MULTI_RESULTS
    | c.CLIENT_PS_MULTI_RESULTS
    | c.CLIENT_PLUGIN_AUTH
    | c.CLIENT_CONNECT_ATTRS
    | c.CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
    | c.CLIENT_SESSION_TRACK
    | c.MARIADB_CLIENT_STMT_BULK_OPERATIONS
    | c.CLIENT_DEPRECATE_EOF
    | c.CLIENT_MULTI_FACTOR_AUTHENTICATION
)
_AUTH_MORE_DATA: Final = b"\x01"
_AUTH_NEXT_FACTOR: Final = b"\x02"
# A plugin may be the first one, before the server has asked for it, if it can use the greeting's challenge, and if
# what it answers is of no use to anybody else.
_FIRST_PLUGINS: Final = ("mysql_native_password", "caching_sha2_password")
_Running = Generator[bytes, bytes, None]  # a plugin at work
_MAX_ROUNDS: Final = 32  # packets that the server may send between its greeting and its verdict


class Tls(enum.Enum):
    """Whether the connection is to be encrypted."""

    NO = "no"
    IF_OFFERED = "if the server offers it"
    MUST = "or else no connection"


@dataclass(frozen=True, slots=True)
class Login:
    """Who wants in, and on which terms."""

    user: str
    password: str = field(default="", repr=False)
    database: str = ""
    tls: Tls = Tls.NO
    private: bool = False  # the channel, once TLS was started if it is wanted, may carry the password itself
    public_key: bytes | None = None
    allow_public_key_retrieval: bool = False
    allow_cleartext: bool = False
    further_passwords: tuple[str, ...] = field(default=(), repr=False)  # of multi-factor accounts
    compress: str = ""  # zlib or zstd
    local_infile: bool = False  # the server may ask for data of LOAD DATA LOCAL
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Greeting:
    """HandshakeV10."""

    server_version: str
    connection_id: int
    nonce: bytes
    capabilities: int
    plugin: str


@dataclass(frozen=True, slots=True)
class Session:
    """What a login has agreed on."""

    greeting: Greeting
    who: Login
    capabilities: int
    encrypted: bool
    status: int


def parse_greeting(payload: bytes) -> Greeting:
    """Reads HandshakeV10. Raises the server's error if that is what came, or ProtocolError."""
    fields = Payload(payload)
    version = fields.integer(1)
    if version == ERR[0]:
        raise parse_err(payload)
    if version != 10:
        raise NotSupportedError(f"the server speaks protocol version {version}, not 10", c.CR_VERSION_ERROR)
    server_version = fields.zero_terminated().decode("ascii", "replace")
    connection_id = fields.integer(4)
    nonce = fields.take(8)
    fields.take(1)
    capabilities = fields.integer(2)
    fields.take(3)  # collation, status flags
    capabilities |= fields.integer(2) << 16
    nonce_size = fields.integer(1)
    fields.take(6)
    extended = fields.integer(4)
    if not capabilities & c.CLIENT_LONG_PASSWORD:  # which is how a MariaDB says what it is
        capabilities |= extended << 32
    nonce += fields.take(max(13, nonce_size - 8))
    plugin = ""
    if capabilities & c.CLIENT_PLUGIN_AUTH:
        plugin = fields.zero_terminated().decode("ascii", "replace")
    if capabilities & _REQUIRED != _REQUIRED:
        raise NotSupportedError("the server is too old: it lacks protocol 4.1", c.CR_VERSION_ERROR)
    return Greeting(server_version, connection_id, nonce, capabilities, plugin)


def login(framer: Framer, who: Login) -> Exchange[Session]:
    """Logs in and returns what was agreed on. The framer must be new.

    Yields `Need.TLS` at most once. Raises OperationalError when the server refuses, when TLS is wanted and
    not to be had, or when the password would have to go out over a channel that is not private;
    ProtocolError.
    """
    greeting = parse_greeting((yield from framer.packet()))
    capabilities = greeting.capabilities & _WANTED
    if who.database:
        capabilities |= c.CLIENT_CONNECT_WITH_DB
    if who.local_infile:
        capabilities |= greeting.capabilities & c.CLIENT_LOCAL_FILES
    if who.compress:
        capabilities |= _compression_flag(who, greeting)
    encrypted = bool(greeting.capabilities & c.CLIENT_SSL) and who.tls is not Tls.NO
    if encrypted:
        if framer.unread:
            raise ProtocolError("the server sent data in the clear behind its greeting")
        capabilities |= c.CLIENT_SSL
        yield framer.frame(_response_head(capabilities, framer.limit))
        yield Need.TLS
    elif who.tls is Tls.MUST:
        message = "the server offers no TLS, and it is required; tls=disabled in the URL goes without"
        raise OperationalError(message, c.CR_SSL_CONNECTION_ERROR)

    def first(plugin_name: str, answer: bytes) -> bytes:
        return framer.frame(_response(who, capabilities, plugin_name, answer, framer.limit))

    status = yield from _authenticate(framer, who, greeting, encrypted, first)
    return Session(greeting, who, capabilities, encrypted, status)


def _compression_flag(who: Login, greeting: Greeting) -> int:
    flag = c.CLIENT_COMPRESS if who.compress == "zlib" else c.CLIENT_ZSTD_COMPRESSION_ALGORITHM
    if not greeting.capabilities & flag:
        raise NotSupportedError(f"the server does not offer compression by {who.compress}")
    return flag


def change_user(framer: Framer, who: Login, session: Session) -> Exchange[int]:
    """Makes the session new, and one of `who`; the status flags. Raises as `login`, and is in step afterwards.

    A server that refuses ends the session.
    """

    def first(plugin_name: str, answer: bytes) -> bytes:
        return framer.command(_change_user(who, session.capabilities, plugin_name, answer))

    return (yield from _authenticate(framer, who, session.greeting, session.encrypted, first))


def _authenticate(
    framer: Framer, who: Login, greeting: Greeting, encrypted: bool, first: Callable[[str, bytes], bytes]
) -> Exchange[int]:
    """Sends `first(plugin name, answer)` and follows the server's plugins until it has decided; the status flags."""
    plugin_name = greeting.plugin if greeting.plugin in _FIRST_PLUGINS else _FIRST_PLUGINS[0]
    passwords = iter((who.password, *who.further_passwords))
    password = next(passwords)
    starting = _start(who, password, plugin_name, greeting.nonce, encrypted)
    yield first(plugin_name, next(starting))
    plugin: _Running | None = starting
    unknown: list[str] = []
    for _ in range(_MAX_ROUNDS):
        payload = yield from framer.packet()
        kind = payload[:1]
        if kind == ERR and unknown:
            raise _unknown_plugin(parse_err(payload).message, unknown)
        if kind in (OK, ERR):
            return expect_ok(payload).status
        if kind in (EOF, _AUTH_NEXT_FACTOR):
            plugin_name, nonce = _parse_auth_switch(payload)
            if kind == _AUTH_NEXT_FACTOR:
                password = next(passwords, "")
            if plugin_name in PLUGINS:
                plugin = _start(who, password, plugin_name, nonce, encrypted)
                yield framer.frame(next(plugin))
            else:
                plugin = None
                unknown.append(plugin_name)
                yield framer.frame(b"")  # the server may know another way in
        elif kind == _AUTH_MORE_DATA:
            answer = _resume(plugin, payload[1:])
            if answer is not None:
                yield framer.frame(answer)
        else:
            raise ProtocolError(f"{payload[:8].hex() or 'an empty packet'} has no meaning in a login")
    raise ProtocolError(f"the server has not decided on the login after {_MAX_ROUNDS} packets")


def _start(who: Login, password: str, name: str, nonce: bytes, encrypted: bool) -> _Running:
    return PLUGINS[name](
        Challenge(
            password=password.encode(),
            nonce=nonce,
            private=who.private and (encrypted or who.tls is Tls.NO),
            encrypted=encrypted,
            allow_cleartext=who.allow_cleartext,
            public_key=who.public_key,
            allow_public_key_retrieval=who.allow_public_key_retrieval,
        )
    )


def _unknown_plugin(refusal: str, names: Sequence[str]) -> OperationalError:
    return OperationalError(
        f"{refusal}; the account logs in by {', '.join(names)}, this client by {', '.join(PLUGINS)}",
        c.CR_AUTH_PLUGIN_CANNOT_LOAD,
    )


def _resume(plugin: _Running | None, data: bytes) -> bytes | None:
    """The plugin's answer to more data, or None when it has nothing more to say."""
    if plugin is None or inspect.getgeneratorstate(plugin) == inspect.GEN_CLOSED:
        raise ProtocolError("the server goes on with an authentication that was over")
    try:
        return plugin.send(data)
    except StopIteration:
        return None


def _parse_auth_switch(payload: bytes) -> tuple[str, bytes]:
    """AuthSwitchRequest: the plugin's name and its challenge."""
    if len(payload) == 1:
        raise NotSupportedError("the account has a password of before MySQL 4.1", c.CR_AUTH_PLUGIN_ERR)
    fields = Payload(payload, 1)
    name = fields.zero_terminated().decode("ascii", "replace")
    return name, fields.rest()


def _response_head(capabilities: int, limit: int) -> bytes:
    """The first 32 bytes of HandshakeResponse41, which are also the whole of SSLRequest."""
    return b"".join(
        (
            (capabilities & 0xFFFFFFFF).to_bytes(4, "little"),
            min(limit, 0xFFFFFFFF).to_bytes(4, "little"),
            c.UTF8MB4_GENERAL_CI.to_bytes(1, "little"),
            bytes(19),
            (capabilities >> 32).to_bytes(4, "little"),
        )
    )


def _response(who: Login, capabilities: int, plugin_name: str, answer: bytes, limit: int) -> bytes:
    """HandshakeResponse41. Answers have less than 251 bytes: both forms of their length are the same."""
    parts = [_response_head(capabilities, limit), _zero_terminated(who.user), lenenc(answer)]
    if capabilities & c.CLIENT_CONNECT_WITH_DB:
        parts.append(_zero_terminated(who.database))
    if capabilities & c.CLIENT_PLUGIN_AUTH:
        parts.append(_zero_terminated(plugin_name))
    parts.append(_attributes(who, capabilities))
    if capabilities & c.CLIENT_ZSTD_COMPRESSION_ALGORITHM:
        parts.append(bytes((ZSTD_LEVEL,)))
    return b"".join(parts)


def _change_user(who: Login, capabilities: int, plugin_name: str, answer: bytes) -> bytes:
    """COM_CHANGE_USER."""
    parts = [bytes((c.COM_CHANGE_USER,)), _zero_terminated(who.user), lenenc(answer), _zero_terminated(who.database)]
    parts.append(c.UTF8MB4_GENERAL_CI.to_bytes(2, "little"))
    if capabilities & c.CLIENT_PLUGIN_AUTH:
        parts.append(_zero_terminated(plugin_name))
    parts.append(_attributes(who, capabilities))
    return b"".join(parts)


def _attributes(who: Login, capabilities: int) -> bytes:
    if not capabilities & c.CLIENT_CONNECT_ATTRS:
        return b""
    return lenenc(b"".join(lenenc(key.encode()) + lenenc(value.encode()) for key, value in who.attributes.items()))


def _zero_terminated(text: str) -> bytes:
    if "\0" in text:
        raise InterfaceError("a user or database name cannot hold a zero byte")
    return text.encode() + b"\0"
