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
    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.stream: Stream | None = None

    def ask(self, question: bytes) -> bytes | None:
        """The reply; None when the services are down."""
        try:
            if self.stream is None:
                self.stream = Stream(socket.create_connection(self.address))
            self.stream.write(question)
            return self.stream.read_until(b"\n", MAX_REPLY)
        except OSError:
            self.close()
            return None

    def close(self) -> None:
        if self.stream is not None:
            self.stream.close()
            self.stream = None


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
        services.close()


def serve(listener: socket.socket, folder: Path, address: tuple[str, int]) -> None:
    def run(sock: socket.socket) -> None:
        with suppress(ConnectionError):
            handle(Stream(sock), Services(address), folder)

    while True:
        sock, _ = listener.accept()
        threading.Thread(target=run, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main(serve)
