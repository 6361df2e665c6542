"""A TCP proxy between a browser and the app, which holds uploads in their middle and cuts connections when told to."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

HEAD_SIZE = 4096  # bytes: more than the head of any request here, less than a piece of a large body


class HoldingProxy:
    """Forwards what comes to `port` to a server on this machine."""

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.refuse = False  # connections that come from now on
        self._limit: int | None = None  # bytes of bodies that each connection may carry
        self._held: set[_Connection] = set()
        self._changed = threading.Condition()
        self._connections: set[_Connection] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def hold_after(self, count: int) -> None:
        """Forward about that many bytes of requests' bodies on each connection, then no body until `release`; requests
        without one pass.
        """
        with self._changed:
            self._limit = count
            self._held.clear()

    def wait_held(self, connections: int, seconds: float) -> bool:
        """Wait until so many connections are held, at most for a time; are they?"""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._held) >= connections, seconds)

    def release(self) -> None:
        with self._changed:
            self._limit = None
            self._changed.notify_all()

    def cut(self) -> None:
        """Cut all connections that there are."""
        for connection in tuple(self._connections):
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()
        self.release()

    def pass_through(self, connection: _Connection, count: int) -> None:
        """Wait until that many bytes may be forwarded."""
        if count < HEAD_SIZE:
            return
        connection.carried += count
        with self._changed:
            while self._limit is not None and connection.carried > self._limit:
                self._held.add(connection)
                self._changed.notify_all()
                self._changed.wait()

    def forget(self, connection: _Connection) -> None:
        self._connections.discard(connection)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                if self.refuse:
                    client.close()
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self.server_port))
                except OSError:  # it is not there just now
                    client.close()
                    continue
                connection = _Connection(self, client, server)
                self._connections.add(connection)
                threading.Thread(target=connection.forward_requests, daemon=True).start()
                threading.Thread(target=connection.forward_answers, daemon=True).start()


class _Connection:
    def __init__(self, proxy: HoldingProxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.carried = 0  # bytes of bodies

    def forward_requests(self) -> None:
        with suppress(OSError):
            while data := self.client.recv(1 << 16):
                self.proxy.pass_through(self, len(data))
                self.server.sendall(data)
        self.close()

    def forward_answers(self) -> None:
        with suppress(OSError):
            while data := self.server.recv(1 << 16):
                self.client.sendall(data)
        self.close()

    def close(self) -> None:
        self.proxy.forget(self)
        for end in self.client, self.server:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
