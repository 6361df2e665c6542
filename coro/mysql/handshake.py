"""The login: from the server's greeting to its OK.

    server: HandshakeV10                       version, challenge, capabilities, preferred plugin
    client: SSLRequest, then TLS               if both want it
    client: HandshakeResponse41                user, database, answer to the challenge
    server: AuthSwitchRequest                  another plugin, another challenge; may come several times
    server: AuthMoreData  <->  client: data    as the plugin has it
    server: OK or ERR

What is told before TLS starts is the server's greeting and our wish for TLS, nothing else; whatever the
server sent in the clear behind its greeting is refused, so that nobody can slip something in under the
encryption. The text of the connection is utf8mb4 from its first byte on.

Source: "Connection Phase" in the client/server protocol manual.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Final

from coro.mysql import constants as c
from coro.mysql.auth import PLUGINS, Challenge
from coro.mysql.errors import InterfaceError, NotSupportedError, OperationalError, ProtocolError
from coro.mysql.packets import Exchange, Framer, Need, Payload, lenenc
from coro.mysql.replies import EOF, ERR, OK, Outcome, expect_ok, parse_err

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
    | c.CLIENT_DEPRECATE_EOF
)
_AUTH_MORE_DATA: Final = b"\x01"
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

    server_version: str
    connection_id: int
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
    fields.take(10)
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
    encrypted = bool(greeting.capabilities & c.CLIENT_SSL) and who.tls is not Tls.NO
    if encrypted:
        if framer.unread:
            raise ProtocolError("the server sent data in the clear behind its greeting")
        capabilities |= c.CLIENT_SSL
        yield framer.frame(_response_head(capabilities, framer.limit))
        yield Need.TLS
    elif who.tls is Tls.MUST:
        raise OperationalError("the server offers no TLS, and TLS is required", c.CR_SSL_CONNECTION_ERROR)
    outcome = yield from _authenticate(framer, who, greeting, capabilities, encrypted)
    return Session(greeting.server_version, greeting.connection_id, capabilities, encrypted, outcome.status)


def _authenticate(
    framer: Framer, who: Login, greeting: Greeting, capabilities: int, encrypted: bool
) -> Exchange[Outcome]:
    """Sends HandshakeResponse41 and follows the server's plugins until it has decided."""
    plugin_name = greeting.plugin if greeting.plugin in PLUGINS else "mysql_native_password"
    first = _start(who, plugin_name, greeting.nonce, encrypted)
    yield framer.frame(_response(who, capabilities, plugin_name, next(first), framer.limit))
    plugin: _Running | None = first
    unknown: list[str] = []
    for _ in range(_MAX_ROUNDS):
        payload = yield from framer.packet()
        kind = payload[:1]
        if kind == ERR and unknown:
            raise _unknown_plugin(parse_err(payload).message, unknown)
        if kind in (OK, ERR):
            return expect_ok(payload)
        if kind == EOF:
            plugin_name, nonce = _parse_auth_switch(payload)
            if plugin_name in PLUGINS:
                plugin = _start(who, plugin_name, nonce, encrypted)
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


def _start(who: Login, name: str, nonce: bytes, encrypted: bool) -> _Running:
    private = who.private and (encrypted or who.tls is Tls.NO)
    return PLUGINS[name](
        Challenge(who.password.encode(), nonce, private, who.public_key, who.allow_public_key_retrieval)
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
            capabilities.to_bytes(4, "little"),
            min(limit, 0xFFFFFFFF).to_bytes(4, "little"),
            c.UTF8MB4_GENERAL_CI.to_bytes(1, "little"),
            bytes(23),
        )
    )


def _response(who: Login, capabilities: int, plugin_name: str, answer: bytes, limit: int) -> bytes:
    """HandshakeResponse41. Answers have less than 251 bytes: both forms of their length are the same."""
    parts = [_response_head(capabilities, limit), _zero_terminated(who.user), lenenc(answer)]
    if capabilities & c.CLIENT_CONNECT_WITH_DB:
        parts.append(_zero_terminated(who.database))
    if capabilities & c.CLIENT_PLUGIN_AUTH:
        parts.append(_zero_terminated(plugin_name))
    if capabilities & c.CLIENT_CONNECT_ATTRS:
        pairs = (lenenc(key.encode()) + lenenc(value.encode()) for key, value in who.attributes.items())
        parts.append(lenenc(b"".join(pairs)))
    return b"".join(parts)


def _zero_terminated(text: str) -> bytes:
    if "\0" in text:
        raise InterfaceError("a user or database name cannot hold a zero byte")
    return text.encode() + b"\0"
