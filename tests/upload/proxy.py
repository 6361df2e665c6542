"""A TCP proxy between the app and a server, which can be told to cut a connection at a chosen moment."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class Proxy:
    """Forwards what comes to `port` to a server on this machine. Each order to cut is for one connection."""

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.refuse = False  # connections that come from now on
        self._cut_before: bytes | None = None
        self._cut_after: bytes | None = None
        self.cuts = 0
        self._hold: bytes | None = None
        self._hold_answer: bytes | None = None
        self.held = threading.Event()  # what was to be held
        self.answered = threading.Event()  # by the server, after `release`
        self._released = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_before(self, mark: bytes, *, refuse: bool = False) -> None:
        """Cut instead of forwarding what holds `mark`: the server never sees it."""
        self._cut_before, self._refuse_then = mark, refuse

    def cut_after(self, mark: bytes, *, refuse: bool = False) -> None:
        """Forward what holds `mark`, wait until the server has answered, cut instead of forwarding the answer."""
        self._cut_after, self._refuse_then = mark, refuse

    def hold(self, mark: bytes) -> None:
        """Hold what has `mark` until `release`: it is forwarded then, even if its sender is gone."""
        self._hold = mark

    def hold_answer(self, mark: bytes) -> None:
        """Forward what has `mark`, and hold the answer until `release`."""
        self._hold_answer = mark

    def release(self) -> None:
        self._released.set()

    def wait_for_release(self) -> None:
        self.held.set()
        self._released.wait()

    def holds(self, data: bytes) -> bool:
        if self._hold is None or self._hold not in data:
            return False
        self._hold = None
        return True

    def holds_answer(self, data: bytes) -> bool:
        if self._hold_answer is None or self._hold_answer not in data:
            return False
        self._hold_answer = None
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                if self.refuse:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self.server_port))
                connection = _Connection(self, client, server)
                threading.Thread(target=connection.forward_requests, daemon=True).start()
                threading.Thread(target=connection.forward_answers, daemon=True).start()

    def before(self, data: bytes) -> bool:
        if self._cut_before is None or self._cut_before not in data:
            return False
        self._cut_before = None
        self._note_cut()
        return True

    def after(self, data: bytes) -> bool:
        if self._cut_after is None or self._cut_after not in data:
            return False
        self._cut_after = None
        return True

    def _note_cut(self) -> None:
        self.refuse = self._refuse_then
        self.cuts += 1

    note_cut = _note_cut


class _Connection:
    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.was_held = False
        self.hold_answer = False
        self.swallow = False  # the next answer is not forwarded, and is the last

    def forward_requests(self) -> None:
        with suppress(OSError):
            while data := self.client.recv(1 << 16):
                if self.proxy.before(data):
                    break
                self.swallow = self.proxy.after(data)
                self.hold_answer = self.proxy.holds_answer(data)
                if self.proxy.holds(data):
                    self.was_held = True
                    self.proxy.wait_for_release()
                self.server.sendall(data)
                if self.was_held:
                    self.proxy.answered.wait()  # before the end of the client ends the connection to the server
        self.close()

    def forward_answers(self) -> None:
        with suppress(OSError):
            while data := self.server.recv(1 << 16):
                if self.swallow:
                    self.proxy.note_cut()
                    break
                if self.was_held:
                    self.proxy.answered.set()
                if self.hold_answer:
                    self.proxy.wait_for_release()
                self.client.sendall(data)
        self.close()

    def close(self) -> None:
        for end in self.client, self.server:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
