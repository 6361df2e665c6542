"""Waiting for descriptors, and the few socket operations that everything on the network is made of.

Every operation has the same three lines: try; if the kernel would block, yield "readable" or "writable"; try again.
A descriptor stays registered with the selector between waits, so a wait costs no system call of its own; an event
that nobody waits for takes the registration back. One task may wait for each direction.
"""

from __future__ import annotations

import os
import socket
import ssl
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, Any, TypeAlias

from coro.errors import BusyError, ClosedError
from coro.task import Coro, Request, Task

if TYPE_CHECKING:
    from coro.loop import Loop

Buffer: TypeAlias = bytes | bytearray | memoryview

WANTS_READ = (BlockingIOError, ssl.SSLWantReadError)
WANTS_WRITE = ssl.SSLWantWriteError


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


class Descriptor:
    """A non-blocking descriptor: its registration with the selector and the tasks that wait for it."""

    __slots__ = ("events", "fd", "loop", "readable", "reader", "writable", "writer")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.loop: Loop | None = None
        self.events = 0  # registered with the selector
        self.reader: Task[Any] | None = None
        self.writer: Task[Any] | None = None
        self.readable = Readable(self)
        self.writable = Writable(self)

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
        if unwanted and self.fd >= 0:
            assert self.loop is not None
            self.watch(self.loop, self.events & ~unwanted)

    def forget(self) -> None:
        """Before the descriptor is closed: leave the selector, end the waits with `ClosedError`."""
        if self.fd < 0:
            return
        if self.events and self.loop is not None:
            self.watch(self.loop, 0)
        description = repr(self)
        self.fd = -1
        for task in self.reader, self.writer:
            if task is not None:
                task.fail(ClosedError(f"{description} was closed while task {task.name!r} waited for it"))
        self.reader = self.writer = None

    def __repr__(self) -> str:
        return f"fd {self.fd}" if self.fd >= 0 else "closed descriptor"


class Socket(Descriptor):
    """A non-blocking socket. Takes over `sock`; `close` closes it."""

    __slots__ = ("drained", "sock", "tls")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        super().__init__(sock.fileno())
        self.sock = sock
        self.tls = False
        self.drained = False  # the last read emptied the kernel's buffer: wait before the next (not TLS: it buffers)

    def recv(self, limit: int) -> Coro[bytes]:
        """Up to `limit` bytes, as soon as there are any; b"" at the end of the stream. May suspend. OSError."""
        if self.drained:
            yield self.readable
        while True:
            try:
                data = self.sock.recv(limit)
            except WANTS_READ:
                yield self.readable
            except WANTS_WRITE:
                yield self.writable
            else:
                self.drained = len(data) < limit and not self.tls
                return data

    def recv_into(self, buffer: bytearray | memoryview) -> Coro[int]:
        """Fill (part of) `buffer`; the number of bytes, 0 at the end of the stream. May suspend. OSError."""
        if self.drained:
            yield self.readable
        while True:
            try:
                count = self.sock.recv_into(buffer)
            except WANTS_READ:
                yield self.readable
            except WANTS_WRITE:
                yield self.writable
            else:
                self.drained = count < len(buffer) and not self.tls
                return count

    def send_all(self, data: Buffer) -> Coro[None]:
        """Hand all of `data` to the kernel. Suspends while its buffer is full (backpressure). OSError."""
        while True:
            try:
                sent = self.sock.send(data)
            except (BlockingIOError, WANTS_WRITE):
                yield self.writable
            except ssl.SSLWantReadError:
                yield self.readable
            else:
                if sent == len(data):
                    return
                data = memoryview(data)[sent:]

    def connect(self, address: Any) -> Coro[None]:
        """Connect to a resolved address. Suspends. OSError."""
        try:
            self.sock.connect(address)
        except BlockingIOError:
            yield self.writable
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code)) from None

    def accept(self) -> Coro[Socket]:
        """The next connection of a listening socket. Suspends. OSError, such as EMFILE."""
        while True:
            try:
                return Socket(self.sock.accept()[0])
            except BlockingIOError:
                yield self.readable
            except ConnectionAbortedError:
                continue  # it went away while it was queued

    def start_tls(self, context: ssl.SSLContext, server_side: bool, server_hostname: str | None) -> Coro[None]:
        """Put TLS on the connection, in place. Suspends for the handshake. ssl.SSLError, OSError."""
        self.sock = context.wrap_socket(
            self.sock, server_side=server_side, server_hostname=server_hostname, do_handshake_on_connect=False
        )
        self.tls, self.drained = True, False
        while True:
            try:
                self.sock.do_handshake()
            except WANTS_READ:
                yield self.readable
            except WANTS_WRITE:
                yield self.writable
            else:
                return

    def close(self) -> None:
        """Close it now; who waits for it gets `ClosedError`. Does not suspend; closing twice is allowed."""
        self.forget()
        self.sock.close()

    def __repr__(self) -> str:
        if self.fd < 0:
            return "closed socket"
        try:
            return f"fd {self.fd}, {address_text(self.sock.getsockname())} -> {address_text(self.sock.getpeername())}"
        except OSError:
            return f"fd {self.fd}, {address_text(self.sock.getsockname())}"


def address_text(address: Any) -> str:
    """A socket address for people: 127.0.0.1:80, [::1]:80, or a path."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(address) or "unix socket"
