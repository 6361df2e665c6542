"""The job with callbacks: the selector calls a function when a socket is ready, and it must return at once.

What a connection is at is what its object says: nothing is suspended, so `handle` is cut in pieces where it would wait,
and each piece names the next. Local variables become attributes, loops become pieces that are called again, and what
`try` and `finally` did once around all of it must be done around each piece.
"""

from __future__ import annotations

import selectors
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from contrast.job import CHUNK, END_OF_HEAD, MAX_HEAD, MAX_REPLY, Upload, main

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
NO_UPLOAD = Upload(Path(), b"\r\nContent-Length: 0\r\n")
selector = selectors.DefaultSelector()


class Stream:
    """What was asked for is passed to `callback`, once; b"" when the stream ends, or has no end of it."""

    __slots__ = ("buffer", "callback", "events", "limit", "separator", "sock", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.buffer = self.unsent = self.separator = b""
        self.limit = self.events = 0  # bytes that are wanted; what the selector watches for
        self.callback: Callable[[bytes], None] | None = None

    def watch(self, events: int) -> None:
        if events != self.events:
            if self.events:
                selector.unregister(self.sock)
            if events:
                selector.register(self.sock, events, self)
            self.events = events

    def ready(self) -> None:
        if self.unsent:
            self.write(b"")
        elif self.callback is not None:
            try:
                data = self.sock.recv(CHUNK)
            except OSError:
                data = b""
            self.buffer += data
            self.look(ended=not data)
        else:  # nobody waits for it: look away until somebody does
            self.watch(0)

    def read(self, limit: int, callback: Callable[[bytes], None]) -> None:
        self.read_until(b"", limit, callback)

    def read_until(self, separator: bytes, limit: int, callback: Callable[[bytes], None]) -> None:
        self.separator, self.limit, self.callback = separator, limit, callback
        self.look()

    def look(self, ended: bool = False) -> None:
        """Call back if what is wanted is there, or never will be; else wait for more."""
        size = min(len(self.buffer), self.limit)
        if self.separator:
            size = self.buffer.find(self.separator) + len(self.separator) if self.separator in self.buffer else 0
        if size or ended or len(self.buffer) > self.limit:
            data, self.buffer = self.buffer[:size], self.buffer[size:]
            callback, self.callback = self.callback, None
            assert callback is not None
            callback(data)
        else:
            self.watch(WRITE if self.unsent else READ)

    def write(self, data: bytes) -> None:
        self.unsent += data
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.unsent = b""  # who reads next is told
        self.watch(WRITE if self.unsent else READ)

    def close(self) -> None:
        self.unsent, self.callback = b"", None
        self.watch(0)
        self.sock.close()


class Services:
    """A connection for each question that is under way, kept for the next one."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.idle: list[Stream] = []

    def ask(self, question: bytes, callback: Callable[[bytes | None], None]) -> None:
        """The reply is passed to `callback`; None when the services are down."""

        def replied(reply: bytes) -> None:
            if reply:
                self.idle.append(stream)
            else:
                stream.close()
            callback(reply or None)

        if self.idle:
            stream = self.idle.pop()
        else:
            stream = Stream(socket.socket())
            stream.sock.connect_ex(self.address)  # sending is to find out how that went
        stream.write(question)
        stream.read_until(b"\n", MAX_REPLY, replied)


def piece(function: Callable[[Handle, Any], None]) -> Callable[[Handle, Any], None]:
    def guarded(self: Handle, data: Any) -> None:
        try:
            function(self, data)
        except Exception as error:
            self.upload.close()
            self.stream.close()
            if not isinstance(error, ConnectionError):
                traceback.print_exception(error)

    return guarded


class Handle:
    """The function `handle`, in pieces: got_head, got_user, got_body, got_row, and again."""

    __slots__ = ("folder", "services", "stream", "upload")

    def __init__(self, stream: Stream, services: Services, folder: Path) -> None:
        self.stream, self.services, self.folder = stream, services, folder
        self.upload = NO_UPLOAD
        stream.read_until(END_OF_HEAD, MAX_HEAD, self.got_head)

    @piece
    def got_head(self, head: bytes) -> None:
        self.upload = Upload(self.folder, head)
        self.services.ask(self.upload.session, self.got_user)

    @piece
    def got_user(self, reply: bytes | None) -> None:
        self.upload.admit(reply)
        self.read_body()

    def read_body(self) -> None:
        if self.upload.left:
            self.stream.read(min(self.upload.left, CHUNK), self.got_body)
        elif self.upload.admitted:
            self.services.ask(self.upload.complete(), self.got_row)
        else:
            self.answer()

    @piece
    def got_body(self, data: bytes) -> None:
        self.upload.write(data)
        self.read_body()

    @piece
    def got_row(self, reply: bytes | None) -> None:
        self.upload.acknowledge(reply)
        self.answer()

    def answer(self) -> None:
        self.upload.close()
        self.stream.write(self.upload.answer())
        self.stream.read_until(END_OF_HEAD, MAX_HEAD, self.got_head)


def serve(listener: socket.socket, folder: Path, address: tuple[str, int]) -> None:
    services = Services(address)
    listener.setblocking(False)
    selector.register(listener, READ)
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                key.data.ready()
                continue
            with suppress(BlockingIOError):
                Handle(Stream(listener.accept()[0]), services, folder)


if __name__ == "__main__":
    main(serve)
