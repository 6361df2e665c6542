"""The HTTP/1.1 server: accepts connections, keeps their time limits, and ends them in order.

Deadlines are plain numbers in the connections that one task of the server looks through now and then, so moving one
costs an assignment. How a connection is served is the matter of `connection.py`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Protocol

from coro.group import TaskGroup, task_group
from coro.http.connection import Connection
from coro.http.errorpage import error_page
from coro.http.forwarded import Proxies
from coro.http.log import AccessLog
from coro.http.message import Answer, Handler, HTTPError, Request, forget_starts
from coro.http.parser import Limits, PlainReader
from coro.net import Listener
from coro.sync import Event, WaitQueue
from coro.task import Coro
from coro.timing import checkpoint, move_on_after, now, sleep

logger = logging.getLogger("coro.http")

ROOM_TIME = 1.0  # seconds after which it is looked again for idle connections, if there is no room
ENDED_AT_ONCE = 32  # connections that are ended in one turn of the loop: their time is up, or others need room
COMPLAINT_TIME = 60.0  # seconds between two reports that there is no room


class Recorder(Protocol):
    """Told of each answer: an `AccessLog`, `Metrics`, or another that does not suspend."""

    def record(self, request: Request, status: int, size: int, seconds: float) -> None:
        """A request was answered: status and bytes of the answer's body, the time it took."""
        ...

    def record_refusal(self, peer: str, status: int, size: int) -> None:
        """Bytes that could not become a request were answered."""
        ...


class Server:
    """Serves `handler` on listeners until it is stopped."""

    def __init__(
        self,
        handler: Handler,
        *,
        limits: Limits | None = None,
        access_log: AccessLog | None = None,
        recorders: Iterable[Recorder] = (),
        error_page: Callable[[Request, HTTPError], Answer] = error_page,
        proxies: Iterable[str] = (),
    ) -> None:
        """`proxies`: addresses or networks, or `unix`, of which `X-Forwarded-For`, `-Proto` and `-Host` are believed.

        `error_page(request, error)` makes the answer of an `HTTPError`. ValueError for a malformed address.
        """
        self.handler = handler
        self.limits = limits or Limits()
        self.access_log = access_log
        self.recorders: tuple[Recorder, ...] = (*([access_log] if access_log else ()), *recorders)
        self.error_page = error_page
        self.proxies = Proxies(proxies)
        self.plain = PlainReader(self.limits)
        self.connections: set[Connection] = set()
        self.now = 0.0  # the loop's time, as exact as the deadlines need it
        self.stopping = False
        self._complained = -math.inf
        self._room = WaitQueue("room for a connection")
        self._stop = Event()
        self._drained = Event()
        self._grace = 0.0

    def stop(self, grace: float) -> None:
        """Stop accepting, close idle connections, give requests `grace` seconds to finish. Does not suspend."""
        self.stopping = True
        self._grace = grace
        self._stop.set()

    def serve(self, listeners: Listener | Iterable[Listener]) -> Coro[None]:
        """Serve until `stop` was called and every connection has ended. Suspends. Closes the listeners.

        Clients of listeners with TLS are told by ALPN (RFC 7301) that HTTP/1.1 is what is spoken.
        """
        listeners = [listeners] if isinstance(listeners, Listener) else list(listeners)
        for listener in listeners:
            if listener.tls is not None:
                listener.tls.set_alpn_protocols(["http/1.1"])

        def body(group: TaskGroup) -> Coro[None]:
            self.now = now()
            group.spawn(self._watch_deadlines())
            acceptors = [group.spawn(self._accept_all(listener, group)) for listener in listeners]
            yield from self._stop.wait()
            for acceptor in acceptors:
                acceptor.cancel()
            yield from self._drain()
            group.cancel()

        try:
            yield from task_group(body)
        finally:
            self._forget()
            for connection in tuple(self.connections):  # whose task never began
                connection.close()
            if self.access_log is not None:
                self.access_log.flush()

    def ended(self, connection: Connection) -> None:
        """Called by a connection when it is closed."""
        self.connections.discard(connection)
        self._room.wake_one()
        if self.stopping and not self.connections:
            self._drained.set()

    def _forget(self) -> None:
        """Whatever of requests and answers was kept to save time: it may be secret."""
        self.plain.forget()
        forget_starts()

    def _accept_all(self, listener: Listener, group: TaskGroup) -> Coro[None]:
        try:
            while True:
                if len(self.connections) >= self.limits.connections:
                    yield listener.socket.readable  # for somebody to want it
                    yield from self._make_room()
                stream = yield from listener.accept()
                connection = Connection(self, stream)
                self.connections.add(connection)
                connection.task = group.spawn(connection.run())
        finally:
            listener.close()  # here, where nobody can be about to accept on it

    def _make_room(self) -> Coro[None]:
        """Wait until a connection has ended. Who wants to be accepted goes before who has been answered and is idle."""
        while len(self.connections) >= self.limits.connections:
            for connection in [c for c in self.connections if c.answered and c.idle][:ENDED_AT_ONCE]:
                connection.expire()
            if self.now >= self._complained + COMPLAINT_TIME:
                self._complained = self.now
                logger.warning("all %d connections (Limits.connections) are in use: others wait", len(self.connections))
            with move_on_after(ROOM_TIME):
                yield self._room

    def _watch_deadlines(self) -> Coro[None]:
        """Look through the connections now and then: whose time is up, and whose client has gone unreported?"""
        limits = self.limits
        interval = min(1.0, min(limits.head_time, limits.idle_time, limits.body_idle_time) / 4)
        while True:
            yield from sleep(interval)
            self.now = now()
            self._forget()
            due = [c for c in self.connections if c.deadline < self.now or c.unwatched]
            for number, connection in enumerate(due, 1):
                if connection.deadline < self.now:  # still
                    connection.expire()
                elif connection.unwatched:
                    connection.on_unread()
                if not number % ENDED_AT_ONCE:
                    yield from checkpoint()  # thousands of attackers end together: others are served between them

    def _drain(self) -> Coro[None]:
        """Wait until the connections have ended, for as long as the grace allows."""
        yield from checkpoint()  # for one that was accepted just now to come to where it can be seen to be idle
        for connection in [c for c in self.connections if c.idle]:
            connection.expire()
        if self.connections:
            with move_on_after(self._grace):
                yield from self._drained.wait()
