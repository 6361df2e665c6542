"""A proxy that stands between a client under test and a real server, and breaks the connection as it is told.

It runs in the test's own loop, so that what it does happens at a known point of the test, without any sleeping:

    def body(proxy: Proxy) -> Coro[None]:
        client = Client("127.0.0.1", proxy.port)
        proxy.hold_replies()
        ...

    coro.run(through_proxy(server.port, body))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import coro
from coro import Coro, Event, Stream, TaskGroup

T = TypeVar("T")


class Proxy:
    """Passes bytes on both ways, whole and in order, until it is told otherwise."""

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.listener = coro.listen("127.0.0.1", 0)
        self.connections = 0  # that clients have opened so far
        self.requests = bytearray()  # all that clients have sent
        self.replies = bytearray()  # all that was passed on to clients
        self.kept = 0  # pieces of replies that had to wait for `release_replies`
        self.cut_after: int | None = None  # close the connection when this many bytes of replies have passed
        self.delay = 0.0  # seconds by which replies come later
        self._open = Event()
        self._open.set()
        self._clients: list[Stream] = []
        self._held: set[Stream] | None = None  # whose replies are kept; None: everybody's

    @property
    def port(self) -> int:
        return self.listener.port

    def hold_replies(self, *, old: bool = False) -> None:
        """Keep what the server says, until `release_replies`; with `old`, only on the connections there are now."""
        self._open = Event()
        self._held = set(self._clients) if old else None

    def release_replies(self) -> None:
        self._open.set()

    def cut(self) -> None:
        """Close every connection now."""
        for client in self._clients:
            client.close()

    def half_close(self) -> None:
        """Tell the clients that nothing more will come; what they send still arrives."""
        for client in self._clients:
            client.write_eof()

    def serve(self, client: Stream) -> Coro[None]:
        self.connections += 1
        self._clients.append(client)
        server = yield from coro.connect("127.0.0.1", self.server_port)

        def both(group: TaskGroup) -> Coro[None]:
            group.spawn(self._pass_requests(client, server))
            yield from self._pass_replies(server, client)
            group.cancel()

        try:
            yield from coro.task_group(both)
        except* (OSError, coro.ClosedError):
            pass  # cut: either task may notice, or both
        finally:
            self._clients.remove(client)
            server.close()

    def _pass_requests(self, client: Stream, server: Stream) -> Coro[None]:
        while data := (yield from client.read()):
            self.requests += data
            yield from server.write(data)
        server.write_eof()

    def _pass_replies(self, server: Stream, client: Stream) -> Coro[None]:
        while data := (yield from server.read()):
            if self._held is None or client in self._held:
                self.kept += not self._open.is_set()
                yield from self._open.wait()
            if self.delay:
                yield from coro.sleep(self.delay)
            if self.cut_after is not None and len(self.replies) + len(data) >= self.cut_after:
                data = data[: self.cut_after - len(self.replies)]
                self.cut_after = None
                self.replies += data
                yield from client.write(data)
                client.close()
                return
            self.replies += data
            yield from client.write(data)


def through_proxy(server_port: int, body: Callable[[Proxy], Coro[T]]) -> Coro[T]:
    """Run `body` with a proxy in front of the server on `server_port`; its result. Suspends."""

    def run(group: TaskGroup) -> Coro[T]:
        proxy = Proxy(server_port)
        group.spawn(coro.serve(proxy.listener, proxy.serve), name="proxy")
        try:
            return (yield from body(proxy))
        finally:
            group.cancel()
            proxy.listener.close()

    return coro.task_group(run)
