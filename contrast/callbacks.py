"""The job with callbacks: the selector calls a function when a socket is ready, and it must return at once.

What a connection is at is what its object says: nothing is suspended, so `handle` is cut in pieces where it would wait,
and each piece names the next. Local variables become attributes, loops become pieces that are called again, and `with`
and `finally` become a `close` that everything that can fail has to lead to.
"""

from __future__ import annotations

import selectors
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from contrast.job import CHUNK, END_OF_HEAD, MAX_HEAD, MAX_REPLY, ClientError, Upload, main

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
NO_UPLOAD = Upload(Path(), b"\r\nContent-Length: 0\r\n")
selector = selectors.DefaultSelector()


class Stream:
    __slots__ = ("events", "owner", "reading", "sock", "unsent")

    def __init__(self, sock: socket.socket, owner: Services | Connection) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.owner = sock, owner  # whose `received` and `failed` are called
        self.unsent = b""
        self.reading = True
        self.events = 0  # that the selector watches for

    def watch(self, events: int) -> None:
        if events != self.events:
            if self.events and events:
                selector.modify(self.sock, events, self)
            elif events:
                selector.register(self.sock, events, self)
            else:
                selector.unregister(self.sock)
            self.events = events

    def ready(self) -> None:
        try:
            if not self.events:
                pass  # closed since the selector looked
            elif self.unsent:
                self.write(b"")
            elif self.reading:
                self.owner.received(self.sock.recv(CHUNK))
            else:  # ready, and nobody wants it: look away until somebody does
                self.watch(0)
        except OSError as error:
            self.owner.failed(error)

    def read(self) -> None:
        self.reading = True
        self.watch(WRITE if self.unsent else READ)

    def write(self, data: bytes) -> None:
        self.unsent += data
        with suppress(BlockingIOError):
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        self.watch(WRITE if self.unsent else READ)

    def close(self) -> None:
        self.watch(0)
        self.sock.close()


class Services:
    __slots__ = ("address", "buffer", "replied", "stream")

    def __init__(self, address: tuple[str, int], replied: Callable[[bytes | None], None]) -> None:
        self.address, self.replied = address, replied
        self.stream: Stream | None = None
        self.buffer = b""

    def ask(self, question: bytes) -> None:
        """`replied` will be called with the reply; with None when the services are down."""
        if self.stream is None:
            self.stream = Stream(socket.socket(), self)
            self.stream.sock.connect_ex(self.address)  # `ready` is to find out how that went
            self.stream.unsent = question
            self.stream.watch(WRITE)
            return
        self.stream.reading = True
        try:
            self.stream.write(question)
        except OSError as error:
            self.failed(error)

    def received(self, data: bytes) -> None:
        self.buffer += data
        if not data or len(self.buffer) > MAX_REPLY:
            self.failed(None)
        elif self.buffer.endswith(b"\n") and self.stream is not None:
            self.stream.reading = False
            reply, self.buffer = self.buffer, b""
            self.replied(reply)

    def failed(self, error: OSError | None) -> None:
        self.close()
        self.replied(None)

    def close(self) -> None:
        if self.stream is not None:
            self.stream.close()
            self.stream, self.buffer = None, b""


class Connection:
    """`handle`, in pieces: got_head, got_user, got_body, got_row, and again. `next` is the piece that is to come."""

    __slots__ = ("buffer", "folder", "next", "reply", "services", "stream", "upload")

    def __init__(self, sock: socket.socket, folder: Path, address: tuple[str, int]) -> None:
        self.stream = Stream(sock, self)
        self.services = Services(address, self.replied)
        self.folder = folder
        self.buffer = b""
        self.reply: bytes | None = None
        self.upload = NO_UPLOAD
        self.next = self.got_head
        self.stream.read()

    def received(self, data: bytes) -> None:
        if not data:
            raise ClientError("the client is gone")
        self.buffer += data
        self.next()

    def replied(self, reply: bytes | None) -> None:
        self.reply = reply
        try:
            self.next()
        except OSError as error:
            self.failed(error)

    def got_head(self) -> None:
        if END_OF_HEAD in self.buffer:
            head, _, self.buffer = self.buffer.partition(END_OF_HEAD)
            self.upload = Upload(self.folder, head + END_OF_HEAD)
            self.stream.reading = False
            self.next = self.got_user
            self.services.ask(self.upload.session)
        elif len(self.buffer) > MAX_HEAD:
            raise ClientError("no end of it")

    def got_user(self) -> None:
        self.upload.admit(self.reply)
        self.next = self.got_body
        self.stream.read()
        self.got_body()

    def got_body(self) -> None:
        if self.upload.left and self.buffer:
            data, self.buffer = self.buffer[: self.upload.left], self.buffer[self.upload.left :]
            self.upload.write(data)
        if self.upload.left:
            return
        self.stream.reading = False
        if self.upload.admitted:
            self.next = self.got_row
            self.services.ask(self.upload.complete())
        else:
            self.answer()

    def got_row(self) -> None:
        self.upload.acknowledge(self.reply)
        self.answer()

    def answer(self) -> None:
        self.upload.close()
        self.next = self.got_head
        self.stream.reading = True
        self.stream.write(self.upload.answer())
        if self.buffer:
            self.got_head()

    def failed(self, error: OSError) -> None:
        if not isinstance(error, ConnectionError):
            traceback.print_exception(error)
        self.close()

    def close(self) -> None:
        self.upload.close()
        self.stream.close()
        self.services.close()


def serve(listener: socket.socket, folder: Path, address: tuple[str, int]) -> None:
    listener.setblocking(False)
    selector.register(listener, READ)
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                key.data.ready()
                continue
            with suppress(BlockingIOError):
                Connection(listener.accept()[0], folder, address)


if __name__ == "__main__":
    main(serve)
