"""Waiting for descriptors, and the few socket operations that everything on the network is made of.

Every operation has the same three lines: try; if the kernel would block, yield "readable" or "writable"; try again.
A descriptor stays registered with the selector between waits, so a wait costs no system call of its own; an event
that nobody waits for takes the registration back. One task may wait for each direction.

A peer that is always ready must not let a task run for ever: after `EAGER` operations that did not have to wait, the
next one waits for readiness first, so that others get their turn and cancellation gets in.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias, cast

from coro.errors import BusyError, ClosedError
from coro.task import Coro, Request, Task

if TYPE_CHECKING:
    from coro.loop import Loop

Buffer: TypeAlias = bytes | bytearray | memoryview

WANTS_READ = (BlockingIOError, ssl.SSLWantReadError)
WANTS_WRITE = ssl.SSLWantWriteError
WOULD_BLOCK = (*WANTS_READ, WANTS_WRITE)
EAGER = 16  # operations in a row that need not wait
PLENTY = 65536  # bytes


class Readable(Request):
    """Wait until a descriptor can be read (or is at its end, or broken). Made once for each descriptor."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor

    def submit(self, task: Task[Any]) -> None:
        descriptor = self.descriptor
        if descriptor.reader is not None:
            raise BusyError(f"task {descriptor.reader.name!r} already reads from {descriptor!r}")
        if not descriptor.events & EVENT_READ:
            descriptor.watch(task.loop, descriptor.events | EVENT_READ)
        descriptor.reader = task

    def withdraw(self, task: Task[Any]) -> None:
        self.descriptor.reader = None

    def __repr__(self) -> str:
        return f"readable {self.descriptor!r}"


class Writable(Request):
    """Wait until a descriptor can be written to (or is broken). Made once for each descriptor."""

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor

    def submit(self, task: Task[Any]) -> None:
        descriptor = self.descriptor
        if descriptor.writer is not None:
            raise BusyError(f"task {descriptor.writer.name!r} already writes to {descriptor!r}")
        if not descriptor.events & EVENT_WRITE:
            descriptor.watch(task.loop, descriptor.events | EVENT_WRITE)
        descriptor.writer = task

    def withdraw(self, task: Task[Any]) -> None:
        self.descriptor.writer = None

    def __repr__(self) -> str:
        return f"writable {self.descriptor!r}"


class Watcher(Protocol):
    def on_unread(self) -> None:
        """A descriptor has become readable although no task reads from it. Called once for each watch."""


class Descriptor:
    """A non-blocking descriptor: its registration with the selector and the tasks that wait for it."""

    __slots__ = ("events", "fd", "loop", "readable", "reader", "watcher", "writable", "writer")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.loop: Loop | None = None
        self.events = 0  # registered with the selector
        self.reader: Task[Any] | None = None
        self.writer: Task[Any] | None = None
        self.readable = Readable(self)
        self.writable = Writable(self)
        self.watcher: Watcher | None = None

    def watch(self, loop: Loop, events: int) -> None:
        """Have the selector report exactly `events`."""
        if self.fd < 0:
            raise ClosedError(f"{self!r} is closed")
        self.loop = loop
        if not self.events:
            loop.selector.register(self.fd, events, self.on_event)
        elif events:
            loop.selector.modify(self.fd, events, self.on_event)
        else:
            loop.selector.unregister(self.fd)
        self.events = events

    def on_event(self, mask: int) -> None:
        """Called by the loop with what the selector reports: wake who waits, stop watching what nobody waits for."""
        unwanted = 0
        if mask & EVENT_READ:
            task = self.reader
            if task is not None:
                self.reader = None
                task.request = None
                task.loop.ready.append(task)
            else:
                unwanted = EVENT_READ
        if mask & EVENT_WRITE:
            task = self.writer
            if task is not None:
                self.writer = None
                task.request = None
                task.loop.ready.append(task)
            else:
                unwanted |= EVENT_WRITE
        elif not mask:  # the loop has ended: a wait in another one registers anew
            self.events = 0
            self.reader = self.writer = None
        if unwanted and self.fd >= 0:
            assert self.loop is not None
            self.watch(self.loop, self.events & ~unwanted)
            if self.watcher is not None and unwanted & EVENT_READ:
                self.watcher.on_unread()

    def forget(self) -> None:
        """Before the descriptor is closed: leave the selector, end the waits with `ClosedError`."""
        if self.fd < 0:
            return
        if self.events and self.loop is not None:
            self.watch(self.loop, 0)
        waiting = [task for task in (self.reader, self.writer) if task is not None]
        description = repr(self) if waiting else ""
        self.fd = -1
        self.reader = self.writer = None
        for task in waiting:
            task.fail(ClosedError(f"{description} was closed while task {task.name!r} waited for it"))

    def __repr__(self) -> str:
        return f"fd {self.fd}" if self.fd >= 0 else "closed descriptor"


class Socket(Descriptor):
    """A non-blocking socket. Takes over `sock`; `close` closes it."""

    __slots__ = ("blocked", "drained", "eager", "sock", "tls")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        super().__init__(sock.fileno())
        self.sock = sock
        self.tls = False
        self.drained = False  # wait before the next read: the last one emptied the kernel's buffer, or it is time to
        self.eager = 0  # operations in a row that did not wait
        self.blocked: Request = self.readable  # what to wait for, when a read would block

    def recv(self, limit: int) -> Coro[bytes]:
        """Up to `limit` bytes, as soon as there are any; b"" at the end of the stream. May suspend. OSError."""
        if self.drained:
            yield self.readable
        while (data := self.recv_nowait(limit)) is None:
            yield self.blocked
        return data

    def recv_into(self, buffer: bytearray | memoryview) -> Coro[int]:
        """Fill (part of) `buffer`; the number of bytes, 0 at the end of the stream. May suspend. OSError."""
        if self.drained:
            yield self.readable
        while True:
            try:
                count = self.sock.recv_into(buffer)
            except WOULD_BLOCK as error:
                self._note_blocked(error)
            else:
                self._note_read(count, len(buffer))
                return count
            yield self.blocked

    def recv_nowait(self, limit: int) -> bytes | None:
        """Up to `limit` bytes, b"" at the end; None: yield `blocked`, then try again. Does not suspend. OSError."""
        try:
            data = self.sock.recv(limit)
        except WOULD_BLOCK as error:
            self._note_blocked(error)
            return None
        self._note_read(len(data), limit)
        return data

    def _note_blocked(self, error: OSError) -> None:
        self.blocked = self.writable if isinstance(error, WANTS_WRITE) else self.readable

    def _note_read(self, count: int, limit: int) -> None:
        """Is the next read to wait, although more may be there?"""
        # After as much as `PLENTY`, more will have come by the time that it has been dealt with.
        emptied = count < limit and count < PLENTY and not self.tls
        self.eager += 1
        # TLS may hold bytes that the selector does not see.
        self.drained = emptied or (self.eager >= EAGER and not (self.tls and cast(ssl.SSLSocket, self.sock).pending()))
        if self.drained:
            self.eager = 0

    def send_all(self, data: Buffer) -> Coro[None]:
        """Hand all of `data` to the kernel. Suspends while its buffer is full (backpressure). OSError."""
        if self.eager >= EAGER:
            yield self.writable
            self.eager = 0
        self.eager += 1
        while True:
            try:
                sent = self.sock.send(data)
            except (BlockingIOError, WANTS_WRITE):
                request: Request = self.writable
            except ssl.SSLWantReadError:
                request = self.readable
            else:
                if sent == len(data):
                    return
                data = memoryview(data)[sent:]
                continue
            yield request

    def send_file(self, fd: int, offset: int, count: int) -> Coro[int]:
        """Have the kernel send up to `count` bytes of a file, from `offset` on; how many, 0 at the file's end.

        Suspends while the kernel's buffer is full. OSError; EOPNOTSUPP under TLS, past which the bytes would go.
        """
        if self.tls:
            raise OSError(errno.EOPNOTSUPP, f"{self!r}: sendfile would send the file unencrypted, past TLS")
        while self.fd >= 0:
            try:
                return os.sendfile(self.fd, fd, offset, count)
            except BlockingIOError:
                yield self.writable
        raise ClosedError("the socket is closed on this side")

    def send_eof(self) -> None:
        """Tell the peer that nothing more will come; reading goes on. Does not suspend.

        OSError; EOPNOTSUPP under TLS, which Python would take off: what is read then would not be protected.
        """
        if self.tls:
            raise OSError(errno.EOPNOTSUPP, f"{self!r}: one direction of a TLS connection cannot be closed by itself")
        self.sock.shutdown(socket.SHUT_WR)

    def connect(self, address: Any) -> Coro[None]:
        """Connect to a resolved address. Suspends. OSError; BlockingIOError when a Unix socket's queue is full."""
        try:
            self.sock.connect(address)
            return
        except BlockingIOError as error:
            if error.errno != errno.EINPROGRESS:
                raise
        yield self.writable
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    def accept(self) -> Coro[Socket]:
        """The next connection of a listening socket. Suspends. OSError, such as EMFILE."""
        while True:
            if self.eager >= EAGER:
                yield self.readable
                self.eager = 0
            self.eager += 1
            try:
                return Socket(self.sock.accept()[0])
            except BlockingIOError:
                self.eager = EAGER

    def close(self) -> None:
        """Close it now; who waits for it, or uses it later, gets `ClosedError`. Closing twice is allowed."""
        if self.fd >= 0:
            self.forget()
            if self.tls:
                with suppress(OSError, ValueError):
                    cast(ssl.SSLSocket, self.sock).unwrap()  # says that this is our end; does not wait for the peer's
            self.sock.close()
            self.sock = cast(socket.socket, _CLOSED)

    def __repr__(self) -> str:
        if self.fd < 0:
            return "closed socket"
        try:
            return f"fd {self.fd}, {address_text(self.sock.getsockname())} -> {address_text(self.sock.getpeername())}"
        except OSError:
            return f"fd {self.fd}, {address_text(self.sock.getsockname())}"


class _ClosedSocket:
    def __getattr__(self, name: str) -> NoReturn:
        raise ClosedError("the socket is closed on this side")


_CLOSED = _ClosedSocket()


def address_text(address: Any) -> str:
    """A socket address for people: 127.0.0.1:80, [::1]:80, or a path."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(address) or "unix socket"
