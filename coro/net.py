"""Streams and servers over TCP and Unix sockets.

A `Stream` is a socket with a buffer in front of it: bytes in order, both ways. Its reading functions, those of every
`ReadStream`, return what was asked for or raise; writing suspends while the peer does not take the bytes, which is all
the backpressure there is.
"""

from __future__ import annotations

import errno
import itertools
import logging
import math
import os
import socket
import ssl
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, cast

from coro.errors import ClosedError, EndOfStream
from coro.group import TaskGroup, task_group
from coro.io import WANTS_READ, WANTS_WRITE, Buffer, Socket, address_text
from coro.streams import ReadStream
from coro.sync import WaitQueue
from coro.task import Coro, Request
from coro.threads import default_limiter, to_thread_abandonable
from coro.timing import move_on_after, sleep

logger = logging.getLogger("coro.net")

BACKLOG = 4096
HANDSHAKE_TIME = 20.0  # seconds that a client of `serve` has for its TLS handshake
DNS_THREADS = 8
OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# accept(2): faults of a connection that was waiting to be accepted, not of the listening socket.
CONNECTION_LOST = (
    errno.ECONNABORTED, errno.ENETDOWN, errno.EPROTO, errno.ENOPROTOOPT, errno.EHOSTDOWN, errno.ENONET,
    errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.EPERM,
)  # fmt: skip
ATTEMPT_DELAY = 0.25  # seconds for which one address is tried before the next one is too: RFC 8305, section 8
BACK_OFF = 0.1  # seconds before another try, where nothing tells when it could succeed


class Stream(ReadStream):
    """A connection. Read from one task and write from one task at a time; `close` may be called from any."""

    __slots__ = ("socket",)

    def __init__(self, sock: Socket) -> None:
        super().__init__(sock)
        self.socket = sock

    def write(self, data: Buffer) -> Coro[None]:
        """Send all of `data`. Suspends while the peer does not take it (backpressure). OSError."""
        return self.socket.send_all(data)

    def write_eof(self) -> None:
        """Tell the peer that nothing more will come; reading goes on. Does not suspend. Not for TLS. OSError."""
        self.socket.send_eof()

    def start_tls(
        self, context: ssl.SSLContext, *, server_hostname: str | None = None, server_side: bool = False
    ) -> Coro[None]:
        """Put TLS on the connection, in place; if that fails, it is closed. Suspends. ssl.SSLError, OSError."""
        if self._buffer:
            # Bytes from before the handshake must not pass for protected ones.
            self.close()
            raise ssl.SSLError(errno.EPROTO, "the peer sent data ahead of the TLS handshake")
        if self.socket.tls:
            raise RuntimeError(f"{self!r} has TLS already")
        try:
            self._put_tls_on(context, server_hostname, server_side)
            yield from self.handshake()
        except BaseException:
            self.close()
            raise

    def _put_tls_on(self, context: ssl.SSLContext, server_hostname: str | None, server_side: bool) -> None:
        under = self.socket
        under.sock = context.wrap_socket(
            under.sock, server_side=server_side, server_hostname=server_hostname, do_handshake_on_connect=False,
            suppress_ragged_eofs=False,  # an end that the peer did not sign is an error: somebody may have cut it
        )  # fmt: skip
        under.tls, under.drained = True, False

    def handshake(self) -> Coro[None]:
        """Shake hands, on a connection of a listener with TLS; reading and writing would do it too. Suspends.

        ssl.SSLError, OSError.
        """
        sock = cast(ssl.SSLSocket, self.socket.sock)
        while True:
            try:
                sock.do_handshake()
            except WANTS_READ:
                request: Request = self.socket.readable
            except WANTS_WRITE:
                request = self.socket.writable
            else:
                return
            yield request


# --- Connecting --------------------------------------------------------------------


def resolve(host: str, port: int) -> Coro[list[tuple[int, Any]]]:
    """The addresses of a host, as (family, address). Look-ups run in a thread. May suspend. OSError, naming both."""
    if not 0 <= port <= 65535:
        raise OSError(errno.EINVAL, f"cannot connect to {address_text((host, port))}: there is no such port")
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except (socket.gaierror, UnicodeError):  # the latter for what cannot be a host's name
        limiter = default_limiter("dns", DNS_THREADS)
        try:
            found = yield from to_thread_abandonable(
                limiter, socket.getaddrinfo, host, port, socket.AF_UNSPEC, socket.SOCK_STREAM
            )
        except (socket.gaierror, UnicodeError) as error:
            code = error.errno if isinstance(error, OSError) else None
            raise OSError(code, f"cannot find host {host!r}, for port {port}: {_reason(error)}") from None
    return [(family, address) for family, _, _, _, address in found]


def connect(
    host: str, port: int, *, tls: ssl.SSLContext | None = None, server_hostname: str | None = None
) -> Coro[Stream]:
    """Connect over TCP; with `tls`, verified as the context says. Suspends.

    Of several addresses of `host`, the first that answers is taken: one that is silent delays the others by
    `ATTEMPT_DELAY` only.

    OSError (ConnectionRefusedError, ...) or ssl.SSLError, with the host and port in its text.
    """
    addresses = yield from resolve(host, port)
    try:
        stream = yield from _connect_any(addresses)
    except OSError as error:
        raise OSError(error.errno, f"cannot connect to {address_text((host, port))}: {_reason(error)}") from None
    stream.socket.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is not None:
        try:
            yield from stream.start_tls(tls, server_hostname=server_hostname or host)
        except OSError as failure:
            failure.strerror = f"cannot connect to {address_text((host, port))} with TLS: {_reason(failure)}"
            raise
    return stream


def connect_unix(path: str) -> Coro[Stream]:
    """Connect to a Unix socket. Suspends. OSError, with the path in its text."""
    while True:
        try:
            return (yield from _connect_socket(socket.AF_UNIX, path))
        except BlockingIOError:
            pass  # the server's queue is full; connect(2) would wait, but tells nobody when it could succeed
        except OSError as error:
            raise OSError(error.errno, f"cannot connect to {path}: {_reason(error)}") from None
        yield from sleep(BACK_OFF)


def _connect_any(addresses: list[tuple[int, Any]]) -> Coro[Stream]:
    """The first connection that comes about ("happy eyeballs", RFC 8305); the first OSError when none does.

    Attempts begin one after another, when the one before has failed or has not answered for a while.
    """
    if len(addresses) == 1:
        return (yield from _connect_socket(*addresses[0]))
    won: list[Stream] = []
    failures: list[OSError] = []
    news = WaitQueue("an answer from one of a host's addresses")

    def attempt(family: int, address: Any) -> Coro[None]:
        try:
            won.append((yield from _connect_socket(family, address)))
        except OSError as error:
            failures.append(error)
        news.wake_one()

    def body(group: TaskGroup) -> Coro[None]:
        untried = interleaved(addresses)
        while not won and len(failures) < len(addresses):
            if untried:
                group.spawn(attempt(*untried.pop(0)))
            with move_on_after(ATTEMPT_DELAY if untried else math.inf):
                yield news
        group.cancel()

    try:
        yield from task_group(body)
        if not won:
            raise failures[0]
        return won.pop(0)
    finally:
        for stream in won:  # a second one, or nobody wants it any more
            stream.close()


def interleaved(addresses: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """The addresses with their families in turn, so that one that is broken is left soon (RFC 8305, section 4)."""
    families: dict[int, list[tuple[int, Any]]] = {}
    for family, address in addresses:
        families.setdefault(family, []).append((family, address))
    rounds = itertools.zip_longest(*families.values())
    return [entry for turn in rounds for entry in turn if entry is not None]


def _connect_socket(family: int, address: Any) -> Coro[Stream]:
    sock = Socket(socket.socket(family, socket.SOCK_STREAM))
    try:
        yield from sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return Stream(sock)


# --- Serving ----------------------------------------------------------------------


class Listener:
    """A listening socket. With `tls`, the connections that it accepts have TLS on them, and shake hands later."""

    def __init__(
        self, raw: socket.socket, unlink: str | None = None, tls: ssl.SSLContext | None = None
    ) -> None:  # fmt: skip
        self.tls = tls
        self.socket = Socket(raw)
        self.address = raw.getsockname()
        self._unlink = unlink
        self._tcp = raw.family in (socket.AF_INET, socket.AF_INET6)

    @property
    def port(self) -> int:
        """The TCP port, also when 0 was asked for."""
        return int(self.address[1])

    def accept(self) -> Coro[Stream]:
        """The next connection. Suspends. When descriptors run out it backs off, and goes on when there are some."""
        while True:
            try:
                sock = yield from self.socket.accept()
            except OSError as error:
                if error.errno in CONNECTION_LOST:
                    continue
                if error.errno not in OUT_OF_DESCRIPTORS:
                    raise
                reason = _reason(error)
            else:
                stream = Stream(sock)
                try:
                    if self._tcp:
                        sock.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    if self.tls is not None:
                        stream._put_tls_on(self.tls, None, server_side=True)
                except OSError:  # it has gone already
                    stream.close()
                    continue
                return stream
            logger.warning("cannot accept on %s: %s; trying again", address_text(self.address), reason)
            yield from sleep(BACK_OFF)

    def close(self) -> None:
        """Stop listening. Does not suspend; closing twice is allowed."""
        if self._unlink is not None and self.socket.fd >= 0:
            with suppress(FileNotFoundError):
                os.unlink(self._unlink)
        self.socket.close()


def listen(
    host: str, port: int, *, reuse_port: bool = False, tls: ssl.SSLContext | None = None
) -> Listener:  # fmt: skip
    """Listen on a TCP port (0: any free one). Does not suspend.

    OSError, with the address in its text. With `reuse_port`, several processes share the port and its connections.
    `tls`: a server's context, with its certificate.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        raw = socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=reuse_port)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address_text((host, port))}: {_reason(error)}") from None
    return Listener(raw, tls=tls)


def listen_unix(path: str) -> Listener:
    """Listen on a Unix socket; one that an ended process left behind is replaced. Does not suspend. OSError."""
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode) and not _answers(path):
            os.unlink(path)
        raw.bind(path)
        raw.listen(BACKLOG)
    except OSError as error:
        raw.close()
        raise OSError(error.errno, f"cannot listen on {path}: {_reason(error)}") from None
    return Listener(raw, unlink=path)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) != errno.ECONNREFUSED


def _reason(error: Exception) -> str:
    """What is wrong, without the details that the caller's message gives better."""
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
    return str(error)


def serve(listeners: Listener | Iterable[Listener], handler: Callable[[Stream], Coro[None]]) -> Coro[None]:
    """Accept, and run `handler(stream)` as a task for each connection. Suspends.

    Ends when cancelled, or when the listeners have been closed and the handlers have ended. A stream is closed when its
    handler ends. A handler that raises is logged; the others go on.
    """
    listeners = [listeners] if isinstance(listeners, Listener) else list(listeners)

    def accept_all(listener: Listener, group: TaskGroup) -> Coro[None]:
        with suppress(ClosedError):
            while True:
                stream = yield from listener.accept()
                group.spawn(_handle(handler, stream))

    def body(group: TaskGroup) -> Coro[None]:
        for listener in listeners:
            group.spawn(accept_all(listener, group))
        yield from ()

    yield from task_group(body)


def _handle(handler: Callable[[Stream], Coro[None]], stream: Stream) -> Coro[None]:
    try:
        if stream.socket.tls:
            with move_on_after(HANDSHAKE_TIME) as scope:
                yield from stream.handshake()
            if scope.cancelled_caught:
                logger.info("%r: no TLS handshake within %g s", stream, HANDSHAKE_TIME)
                return
        yield from handler(stream)
    except (ConnectionError, EndOfStream, ssl.SSLError) as error:
        logger.info("%r: %s", stream, error)
    except Exception:
        logger.exception("the handler of %r failed", stream)
    finally:
        stream.close()
