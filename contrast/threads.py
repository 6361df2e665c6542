"""The job with a thread for each connection: a call blocks its thread, and the kernel runs another.

What a connection is at is the thread's stack: in the kernel a stack of its own, in the process another, and for Python
a chain of frames on it. A switch goes through the kernel, and through the lock that lets one thread run Python.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

from contrast.job import CHUNK, END_OF_HEAD, MAX_HEAD, MAX_REPLY, ClientError, Upload, main


class Stream:
    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.buffer = b""

    def read(self, limit: int) -> bytes:
        data, self.buffer = self.buffer[:limit], self.buffer[limit:]
        return data or self.sock.recv(limit)

    def read_until(self, separator: bytes, limit: int) -> bytes:
        while separator not in self.buffer:
            data = self.sock.recv(CHUNK)
            self.buffer += data
            if not data or len(self.buffer) > limit:
                raise ClientError("the end, or no end of it")
        found, separator, self.buffer = self.buffer.partition(separator)
        return found + separator

    def write(self, data: bytes) -> None:
        self.sock.sendall(data)

    def close(self) -> None:
        self.sock.close()


class Services:
    """A connection for each question that is under way, kept for the next one."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.idle: list[Stream] = []

    def ask(self, question: bytes) -> bytes | None:
        """The reply; None when the services are down."""
        try:
            try:
                stream = self.idle.pop()
            except IndexError:  # looking first would not do: another thread may take it between look and pop
                stream = Stream(socket.create_connection(self.address))
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
        with suppress(ConnectionError):
            handle(Stream(sock), services, folder)

    while True:
        sock, _ = listener.accept()
        threading.Thread(target=run, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main(serve)
