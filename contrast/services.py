"""The stand-in for Redis and MySQL: answers each line after a settable delay, from memory, so that it runs anywhere.

A thread with a selector of its own; `python -m contrast.services` is the same in a process. As the delay is the same
for all, answers leave in the order in which their questions came: a queue is all the timer it needs.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress

from contrast.job import BACKLOG, HOST, MAX_REPLY, allow_descriptors

SESSIONS = {b"alice-s-token": b"alice"}


class StandIn:
    """`rows` are those inserted. With `drops_rows`, a question for one ends its connection, as a crash would."""

    def __init__(self, delay: float) -> None:
        self.rows: list[tuple[str, str, int]] = []  # id, user, size in bytes
        self.drops_rows = False
        self._delay = delay  # seconds
        self._answers: deque[tuple[float, socket.socket, bytes]] = deque()
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server((HOST, 0), backlog=BACKLOG)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._selector.register(self._wake_receiver, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self.run, name="services", daemon=True)
        self.port = int(self._listener.getsockname()[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Go down, with all connections. Waits for the thread. Stopping twice is allowed."""
        with suppress(OSError):
            self._wake_sender.send(b"\0")
        self._thread.join()

    def run(self) -> None:
        """Answer, until `stop`."""
        while True:
            wait = max(0.0, self._answers[0][0] - time.monotonic()) if self._answers else None
            for key, _ in self._selector.select(wait):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is self._wake_receiver:
                    return self._close()
                if sock is self._listener:
                    self._accept()
                else:
                    self._read(sock)
            now = time.monotonic()
            while self._answers and self._answers[0][0] <= now:
                _, sock, answer = self._answers.popleft()
                with suppress(OSError):  # who asked has gone meanwhile
                    sock.send(answer)

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            while True:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setblocking(False)
                self._selector.register(sock, selectors.EVENT_READ)

    def _read(self, sock: socket.socket) -> None:
        """One question a connection is on its way, and it is short: it comes in one piece."""
        try:
            question = sock.recv(MAX_REPLY)
        except OSError:
            question = b""
        answer = self._answer(question.split()) if question else None
        if answer is None:
            self._selector.unregister(sock)
            sock.close()
        else:
            self._answers.append((time.monotonic() + self._delay, sock, answer))

    def _answer(self, words: list[bytes]) -> bytes | None:
        match words:
            case [b"SESSION", token]:
                return SESSIONS.get(token, b"") + b"\n"
            case [b"ROW", name, user, size] if not self.drops_rows:
                self.rows.append((name.decode(), user.decode(), int(size)))
                return b"ok\n"
        return None

    def _close(self) -> None:
        for key in tuple(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._wake_sender.close()
        self._selector.close()


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--delay", type=float, required=True, metavar="SECONDS")
    stand_in = StandIn(parser.parse_args().delay)
    allow_descriptors()
    print(stand_in.port, flush=True)
    stand_in.run()


if __name__ == "__main__":
    main()
