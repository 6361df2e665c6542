"""One connection to a server: opened, secured, logged in; commands in step with their replies.

The login prefers RESP3, by `HELLO 3`. A server that does not know the command or the version (before Redis 6, or a
proxy) is spoken to in RESP2, which the parser reads as well: `AUTH`, then `SELECT`. All of it, from the look-up of
the host name on, has to be done within one deadline.

Specification: https://redis.io/docs/latest/commands/hello/
"""

from __future__ import annotations

import ssl
from typing import Any

from coro import EndOfStream, Stream, connect, connect_unix, timeout
from coro.redis.errors import NoPermissionError, NoProtocolError, RedisConnectionError, ReplyError, reply_error
from coro.redis.resp import Argument, OutOfBand, Parser, ProtocolError, encode
from coro.redis.url import Settings
from coro.task import Coro

READ_SIZE = 65536  # bytes asked of the kernel at once


class Connection:
    """An open connection. Its stream and parser are for one reader, which knows whose the replies are."""

    __slots__ = ("parser", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.parser = Parser()

    def call(self, *args: Argument) -> Coro[Any]:
        """Send one command and wait for its reply. Suspends. What the server says out of band is passed over.

        `ReplyError` for an error reply. After any other error (OSError, `EndOfStream`, `ProtocolError`), and when
        cancelled, the connection is out of step and has to be closed.
        """
        yield from self.stream.write(encode(args))
        replies: list[Any] = []
        while not replies:
            data = yield from self.stream.read(READ_SIZE)
            if not data:
                raise EndOfStream("the server closed the connection")
            replies = [reply for reply in self.parser.feed(data) if not isinstance(reply, OutOfBand)]
        if len(replies) > 1:
            raise ProtocolError(f"{len(replies)} replies to one command")
        if isinstance(replies[0], ReplyError):
            raise replies[0]
        return replies[0]

    def close(self) -> None:
        """Close now. Does not suspend; can be repeated."""
        self.stream.close()


def open_connection(settings: Settings, context: ssl.SSLContext | None) -> Coro[Connection]:
    """Connect and log in, within `settings.connect_timeout`. Suspends.

    `RedisConnectionError` when that does not succeed; its `__cause__` is what went wrong, such as the
    `AuthenticationError` with which the server answered.
    """
    try:
        with timeout(settings.connect_timeout):
            return (yield from _open(settings, context))
    except (OSError, EndOfStream, ProtocolError, ReplyError) as error:
        raise RedisConnectionError(
            f"no connection to Redis at {settings.address}: {explained(error, settings)}"
        ) from error


def explained(error: BaseException, settings: Settings) -> str:
    """What an error says, without the address that its reader is told anyway."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.removeprefix(f"cannot connect to {settings.address}: ")


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """What TLS connections are verified by; None if there is to be no TLS. Reads files. ValueError, OSError."""
    if not settings.tls:
        return None
    try:
        return ssl.create_default_context(cafile=settings.ca or None)
    except ssl.SSLError as error:
        raise ValueError(f"{settings.ca} holds no certificate authority in PEM form: {error.reason}") from None
    except OSError as error:
        raise type(error)(error.errno, error.strerror, settings.ca) from None


def _open(settings: Settings, context: ssl.SSLContext | None) -> Coro[Connection]:
    if settings.path:
        stream = yield from connect_unix(settings.path)
    else:
        stream = yield from connect(settings.host, settings.port, tls=context)
    connection = Connection(stream)
    try:
        yield from _log_in(connection, settings)
    except BaseException:
        connection.close()
        raise
    return connection


def _log_in(connection: Connection, settings: Settings) -> Coro[None]:
    login: list[Argument] = []
    if settings.username or settings.password:
        login = [settings.username or "default", settings.password]
    refusal = yield from _refusal(connection, "HELLO", 3, *(["AUTH", *login] if login else []))
    if refusal is not None and _speaks_resp2_only(refusal):
        refusal = None
        if login:
            # Redis before 6 has one password and no user names.
            refusal = yield from _refusal(connection, "AUTH", *(login if settings.username else login[1:]))
    if refusal is None and settings.database:
        refusal = yield from _refusal(connection, "SELECT", settings.database)
    if refusal is not None:
        raise refusal


def _refusal(connection: Connection, *args: Argument) -> Coro[ReplyError | None]:
    """Carry out a command of the login: the error with which the server answers, if it does. Suspends.

    A server that does not know the command quotes its arguments. They may hold the password: they are cut off, and
    the error as it came is let go, lest it is shown as the context of a later one.
    """
    try:
        yield from connection.call(*args)
    except ReplyError as error:
        text = str(error).partition(", with args")[0]
    else:
        return None
    return reply_error(text.encode())


def _speaks_resp2_only(error: ReplyError) -> bool:
    refused = isinstance(error, (NoProtocolError, NoPermissionError))
    return refused or str(error).lower().startswith("err unknown command")
