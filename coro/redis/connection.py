"""One connection to a server: opened, secured, logged in; commands in step with their replies.

The login prefers RESP3, by `HELLO 3`. A server that does not know the command or the version (before Redis 6, or a
proxy) is spoken to in RESP2, which the parser reads as well: `AUTH`, then `SELECT`. All of it, from the look-up of
the host name on, has to be done within one deadline.

Specification: https://redis.io/docs/latest/commands/hello/
"""

from __future__ import annotations

import copy
import dataclasses
import random
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any

from coro import BusyError, ClosedError, EndOfStream, Stream, __version__, connect, connect_unix, now, timeout
from coro.redis.errors import (
    NoPermissionError,
    NoProtocolError,
    ReadOnlyError,
    RedisConnectionError,
    ReplyError,
    reply_error,
)
from coro.redis.resp import LARGE, Argument, OutOfBand, Parser, ProtocolError, encode_into
from coro.redis.url import Settings
from coro.task import Coro

FIRST_PAUSE = 0.05  # seconds after a failed attempt to connect in which calls fail at once; doubled each time
LONGEST_PAUSE = 1.0  # seconds
KEEP_ALIVE = (
    ("TCP_KEEPIDLE", 30),  # seconds of silence before the kernel asks
    ("TCP_KEEPINTVL", 5),  # seconds from one question to the next
    ("TCP_KEEPCNT", 3),  # questions without an answer that end the connection
)
WHO_WE_ARE = (("CLIENT", "SETINFO", "LIB-NAME", "coro"), ("CLIENT", "SETINFO", "LIB-VER", __version__))
READ_SIZE = 65536  # bytes asked of the kernel at once
SEND_SIZE = 256 * 1024  # bytes joined into one send, unless a single argument is larger


class Connection:
    """An open connection. Its stream and parser are for one task at a time, which knows whose the replies are."""

    __slots__ = ("in_step", "parser", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.parser = Parser()
        self.in_step = True  # has every command its reply?

    def call(self, *args: Argument) -> Coro[Any]:
        """Send one command and wait for its reply. Suspends. `ReplyError`, and what `exchange` raises."""
        (reply,) = yield from self.exchange([args])
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def exchange(self, commands: Sequence[Sequence[Argument]]) -> Coro[list[Any]]:
        """Send commands at once and wait for their replies, error replies among them. Suspends.

        What the server says out of band is passed over. After an error (OSError, `EndOfStream`, `ProtocolError`), and
        when cancelled, the connection is not `in_step` any more: it has to be closed. `BusyError`, and nothing is sent,
        while another exchange is under way.
        """
        parts: list[bytes] = []
        for args in commands:
            encode_into(parts, args)
        if not self.in_step and not self.stream.closed:
            raise BusyError("another reply is due on this connection of Redis: it is for one task at a time")
        self.in_step = False
        for data in joined(parts):
            yield from self.stream.write(data)
        replies: list[Any] = []
        while len(replies) < len(commands):
            data = yield from self.stream.read(READ_SIZE)
            if not data:
                raise EndOfStream("the server closed the connection")
            replies += [reply for reply in self.parser.feed(data) if not isinstance(reply, OutOfBand)]
        if len(replies) > len(commands):
            raise ProtocolError(f"{len(replies)} replies came where {len(commands)} were due")
        # One that is answered READONLY leads to a primary that was demoted: no next exchange belongs on it.
        self.in_step = not any(reply.__class__ is ReadOnlyError for reply in replies)
        return replies

    def is_usable(self) -> bool:
        """Is it open, in step, and silent? A server that speaks unasked says farewell. Does not suspend."""
        if not self.in_step or self.stream.closed:
            return False
        try:
            # Below TLS, if there is any: past its layer, as nothing is taken out.
            socket.socket.recv(self.stream.socket.sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Close now. Does not suspend; can be repeated."""
        self.in_step = False
        self.stream.close()


def joined(parts: list[bytes]) -> Iterator[bytes]:
    """The parts, small ones joined, so that one send takes many; a large one stays alone and is not copied."""
    if sum(map(len, parts)) <= SEND_SIZE:
        if parts:
            yield b"".join(parts)
        return
    small: list[bytes] = []
    size = 0
    for part in parts:
        if size and (len(part) >= LARGE or size + len(part) > SEND_SIZE):
            yield b"".join(small)
            small, size = [], 0
        if len(part) >= LARGE:
            yield part
        else:
            small.append(part)
            size += len(part)
    if small:
        yield b"".join(small)


def open_connection(
    settings: Settings, context: ssl.SSLContext | None, setup: Sequence[Sequence[Argument]] = ()
) -> Coro[Connection]:
    """Connect, log in and carry out `setup`, within `settings.connect_timeout`. Suspends.

    `RedisConnectionError` when that does not succeed; its `__cause__` is what went wrong, such as the
    `AuthenticationError` with which the server answered.
    """
    try:
        with timeout(settings.connect_timeout):
            return (yield from _open(settings, context, setup))
    except (OSError, EndOfStream, ProtocolError, ReplyError) as error:
        raise RedisConnectionError(
            f"no connection to Redis at {settings.address}: {explained(error, settings)}{_doubt(error, settings)}",
            sent=False,
        ) from error


def _doubt(error: Exception, settings: Settings) -> str:
    """A server that waits for commands is silent to a TLS handshake, one that waits for a handshake hangs up."""
    if settings.tls and isinstance(error, TimeoutError):
        return f"; is port {settings.port} for TLS? If not, write redis://"
    if not settings.tls and isinstance(error, (ConnectionResetError, EndOfStream)):
        return f"; is port {settings.port} for TLS? Then write rediss://"
    return ""


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


def _open(settings: Settings, context: ssl.SSLContext | None, setup: Sequence[Sequence[Argument]]) -> Coro[Connection]:
    if settings.path:
        stream = yield from connect_unix(settings.path)
    else:
        stream = yield from connect(settings.host, settings.port, tls=context)
        _keep_alive(stream.socket.sock)
    connection = Connection(stream)
    try:
        yield from _log_in(connection, settings, setup)
    except BaseException:
        connection.close()
        raise
    return connection


def _keep_alive(sock: socket.socket) -> None:
    """Have the kernel find out that the other end is gone, also where we wait for a reply without a limit of time."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE:
        if (option := getattr(socket, name, None)) is not None:  # not every system has all three
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _log_in(connection: Connection, settings: Settings, setup: Sequence[Sequence[Argument]]) -> Coro[None]:
    """First who we are: a server that does not want us says so and closes. Then, in one piece, the rest."""
    login: list[Argument] = []
    if settings.username or settings.password:
        login = [settings.username or "default", settings.password]
    name = ["SETNAME", settings.client_name] if settings.client_name else []
    hello = ("HELLO", 3, *(["AUTH", *login] if login else []), *name)
    (refusal,) = yield from _refusals(connection, [hello])
    rest: list[Sequence[Argument]] = []
    if refusal is not None and _speaks_resp2_only(refusal):
        refusal = None
        if login:
            # Redis before 6 has one password and no user names.
            (refusal,) = yield from _refusals(connection, [("AUTH", *(login if settings.username else login[1:]))])
        rest += [("CLIENT", *name)] if name else []
    if refusal is not None:
        raise refusal
    rest += [("SELECT", settings.database)] if settings.database else []
    rest += setup
    refused = yield from _refusals(connection, [*rest, *WHO_WE_ARE])
    for refusal in refused[: len(rest)]:  # Redis before 7.2 does not know CLIENT SETINFO
        if refusal is not None:
            raise refusal


def _refusals(connection: Connection, commands: Sequence[Sequence[Argument]]) -> Coro[list[ReplyError | None]]:
    """Carry out commands of the login: for each the error with which the server answers, if it does. Suspends.

    A server that does not know the command quotes its arguments. They may hold the password: they are cut off.
    """
    replies = yield from connection.exchange(commands)
    return [
        reply_error(str(reply).partition(", with args")[0].encode()) if isinstance(reply, ReplyError) else None
        for reply in replies
    ]


def _speaks_resp2_only(error: ReplyError) -> bool:
    refused = isinstance(error, (NoProtocolError, NoPermissionError))
    return refused or str(error).lower().startswith("err unknown command")


class Connector:
    """Opens the connections of one client, and remembers when the server could not be reached.

    In a pause after a failed attempt calls fail at once, lest everybody waits for an attempt of their own.
    """

    def __init__(self, settings: Settings, setup: Sequence[Sequence[Argument]] = ()) -> None:
        """`setup` are commands for each new connection. Reads the files that TLS needs. ValueError, OSError."""
        self.settings = settings
        self._setup = setup
        self._context = tls_context(settings)
        self._failures = 0  # attempts that failed one after the other
        self._refusal: RedisConnectionError | None = None  # the last of them
        self._retry_at = 0.0

    def elsewhere(self, host: str, port: int) -> Connector:
        """One for another server, to which it logs in alike. Does not suspend."""
        other = copy.copy(self)
        other.settings = dataclasses.replace(self.settings, host=host, port=port, path="")
        other._failures, other._refusal = 0, None
        return other

    def check_pause(self) -> None:
        """`RedisConnectionError` in the pause after a failed attempt. Does not suspend."""
        if self._refusal is not None and (left := self._retry_at - now()) > 0:
            text = f"{self._refusal} (trying again in {left:.2f} s)"
            raise RedisConnectionError(text, sent=False) from self._refusal.__cause__

    def open(self) -> Coro[Connection]:
        """A new connection, logged in. Suspends. `RedisConnectionError`."""
        self.check_pause()
        try:
            connection = yield from self._connect()
        except RedisConnectionError as error:
            self._note_failure(error)
            raise
        self._failures, self._refusal = 0, None
        return connection

    def _connect(self) -> Coro[Connection]:
        return open_connection(self.settings, self._context, self._setup)

    def _note_failure(self, refusal: RedisConnectionError) -> None:
        """The pause doubles with each failure; a bit at random, as there are other clients."""
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._failures)
        self._failures += 1
        self._refusal = refusal
        self._retry_at = now() + pause * random.uniform(0.5, 1)


def other_loop(whom: str) -> RuntimeError:
    """What a task of another thread's loop gets than the one that uses the connections: there, nobody would wake it."""
    return RuntimeError(f"the client of {whom} is in use by another loop: make one for each thread")


def lost(settings: Settings, reason: BaseException | None, name: str, *, sent: bool) -> Exception:
    """What the caller of the command `name` gets whose connection ended: by `reason`, or because the client was closed.

    A new exception for each caller: raised in several tasks, one object would gather all their tracebacks.
    """
    where = settings.address
    fate = f"{name} had been sent, whether it was carried out is not known" if sent else f"{name} was not sent"
    error: Exception
    if reason is None:
        error = ClosedError(f"the client of Redis at {where} was closed; {fate}")
    elif isinstance(reason, RedisConnectionError):
        error, reason = RedisConnectionError(str(reason), sent=sent), reason.__cause__
    else:
        error = RedisConnectionError(
            f"the connection to Redis at {where} was lost: {explained(reason, settings)}; {fate}", sent=sent
        )
    error.__cause__ = reason
    return error
