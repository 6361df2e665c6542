"""The job with a greenlet for each connection: code that looks blocking, and a hub that switches stacks below it.

What a connection is at is its stack: on a switch, the part of the C stack that another greenlet needs is copied to the
heap, and back later. No call shows that it may wait: `handle` is that of threads.py to the letter. The hub is the
greenlet that `serve` runs in; it waits in a selector. A descriptor stays registered between waits.
"""

from __future__ import annotations

import selectors
import socket
import traceback
from contextlib import suppress
from pathlib import Path

from greenlet import getcurrent, greenlet

from contrast.job import CHUNK, END_OF_HEAD, MAX_HEAD, MAX_REPLY, ClientError, Upload, main

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
selector = selectors.DefaultSelector()
hub = getcurrent()


class Stream:
    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.buffer = b""
        self.events = 0  # that the selector watches for
        self.waiter: greenlet | None = None

    def wait(self, events: int) -> None:
        """Run others until the socket is ready."""
        if self.events != events:
            watch = selector.modify if self.events else selector.register
            watch(self.sock, events, self)
            self.events = events
        self.waiter = getcurrent()
        hub.switch()

    def ready(self) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is None:  # ready, and nobody waits for it: look away until somebody does
            self.forget()
        else:
            waiter.switch()

    def forget(self) -> None:
        if self.events:
            selector.unregister(self.sock)
            self.events = 0

    def read(self, limit: int) -> bytes:
        data, self.buffer = self.buffer[:limit], self.buffer[limit:]
        return data or self.recv(limit)

    def recv(self, limit: int) -> bytes:
        self.wait(READ)
        return self.sock.recv(limit)

    def read_until(self, separator: bytes, limit: int) -> bytes:
        while separator not in self.buffer:
            data = self.recv(CHUNK)
            self.buffer += data
            if not data or len(self.buffer) > limit:
                raise ClientError("the end, or no end of it")
        found, separator, self.buffer = self.buffer.partition(separator)
        return found + separator

    def write(self, data: bytes) -> None:
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                self.wait(WRITE)

    def close(self) -> None:
        self.forget()
        self.sock.close()


def connect(address: tuple[str, int]) -> Stream:
    stream = Stream(socket.socket())
    try:
        with suppress(BlockingIOError):
            stream.sock.connect(address)
        stream.wait(WRITE)
        stream.sock.getpeername()  # OSError when that failed
    except OSError:
        stream.close()
        raise
    return stream


class Services:
    """A connection for each question that is under way, kept for the next one."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.idle: list[Stream] = []

    def ask(self, question: bytes) -> bytes | None:
        """The reply; None when the services are down."""
        try:
            stream = self.idle.pop() if self.idle else connect(self.address)
        except OSError:
            return None
        reply = None
        try:
            stream.write(question)
            reply = stream.read_until(b"\n", MAX_REPLY)
        except OSError:
            pass
        finally:
            if reply is None:
                stream.close()
            else:
                self.idle.append(stream)
        return reply


def handle(stream: Stream, services: Services, folder: Path) -> None:
    try:
        while True:
            head = stream.read_until(END_OF_HEAD, MAX_HEAD)
            with Upload(folder, head) as upload:
                upload.admit(services.ask(upload.session))
                while upload.left:
                    upload.write(stream.read(min(upload.left, CHUNK)))
                if upload.admitted:
                    upload.acknowledge(services.ask(upload.complete()))
            stream.write(upload.answer())
    finally:
        stream.close()


def serve(listener: socket.socket, folder: Path, address: tuple[str, int]) -> None:
    services = Services(address)

    def run(sock: socket.socket) -> None:
        try:
            handle(Stream(sock), services, folder)
        except ConnectionError:
            pass
        except Exception:  # would be raised in the hub
            traceback.print_exc()

    listener.setblocking(False)
    selector.register(listener, READ)
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                key.data.ready()
                continue
            with suppress(BlockingIOError):
                greenlet(run).switch(listener.accept()[0])


if __name__ == "__main__":
    main(serve)
