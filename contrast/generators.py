"""The job with a generator for each connection, on coro: `yield from` waits, and the loop resumes another.

What a connection is at are the suspended frames: one for each function that waits, on the heap, a few hundred bytes
each. A switch is one `send`: no stack is copied. Every call that may wait shows it, by its `yield from`.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

import coro
from contrast.job import CHUNK, END_OF_HEAD, MAX_HEAD, MAX_REPLY, Upload, main


class Services:
    """A connection for each question that is under way, kept for the next one."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.idle: list[coro.Stream] = []

    def ask(self, question: bytes) -> coro.Coro[bytes | None]:
        """The reply; None when the services are down."""
        try:
            stream = self.idle.pop() if self.idle else (yield from coro.connect(*self.address))
        except OSError:
            return None
        reply = None
        try:
            yield from stream.write(question)
            reply = yield from stream.read_until(b"\n", MAX_REPLY)
        except (OSError, coro.EndOfStream, coro.LimitExceeded):
            pass
        finally:
            if reply is None:
                stream.close()
            else:
                self.idle.append(stream)
        return reply


def handle(stream: coro.Stream, services: Services, folder: Path) -> coro.Coro[None]:
    try:
        while True:
            head = yield from stream.read_until(END_OF_HEAD, MAX_HEAD)
            with Upload(folder, head) as upload:
                upload.admit((yield from services.ask(upload.session)))
                while upload.left:
                    upload.write((yield from stream.read(min(upload.left, CHUNK))))
                if upload.admitted:
                    upload.acknowledge((yield from services.ask(upload.complete())))
            yield from stream.write(upload.answer())
    finally:
        stream.close()


def serve(listener: socket.socket, folder: Path, address: tuple[str, int]) -> None:
    services = Services(address)

    def run(stream: coro.Stream) -> coro.Coro[None]:
        with suppress(ConnectionError, coro.EndOfStream, coro.LimitExceeded):
            yield from handle(stream, services, folder)

    coro.run(coro.serve(coro.Listener(listener), run))


if __name__ == "__main__":
    main(serve)
