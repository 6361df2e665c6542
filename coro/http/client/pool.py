"""Connections to servers: at most so many, opened when needed, kept for the next request, lent first come first served.

Who wants a connection takes two permits in this order: one of the origin's, one of all. So nobody holds what another
needs while it waits for what that one holds, a busy origin's queue does not stand in the way of the others', and both
queues are fair. With the permits one may take an idle connection or open a new one; the one used last is taken, so that
what is not needed grows old. Idle connections have no permits: they make room, the oldest first, when somebody opens
another connection than theirs.

A kept connection may have been closed by its server, or hold bytes that answer nothing. This is looked at before it is
used again. The server can still close it at that very moment; what is done then is the exchange's decision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coro.errors import ClosedError
from coro.http.client.parser import ClientLimits, ResponseParser
from coro.http.client.url import Origin
from coro.io import WANTS_READ
from coro.net import Stream
from coro.sync import Semaphore
from coro.task import Coro, current_task
from coro.timers import Timer
from coro.timing import now

if TYPE_CHECKING:
    from coro.loop import Loop

MARGIN = 1.0  # seconds by which a connection is given up before its server does so, if that has told when


class Connection:
    """A connection to one origin, for one request at a time."""

    __slots__ = ("expires", "origin", "parser", "requests", "stream")

    def __init__(self, origin: Origin, stream: Stream, limits: ClientLimits) -> None:
        self.origin = origin
        self.stream = stream
        self.parser = ResponseParser(limits)
        self.requests = 0  # that were answered on it
        self.expires = 0.0  # on the loop's clock, while it is idle

    def is_silent(self) -> bool:
        """Is it open, with nothing to be read? What a server says unasked is a farewell, or worse."""
        try:
            self.stream.socket.sock.recv(1)
        except WANTS_READ:
            return True
        except (OSError, ClosedError):
            pass
        return False

    def close(self) -> None:
        self.stream.close()

    def __repr__(self) -> str:
        return f"<Connection to {self.origin}, {self.requests} requests>"


@dataclass(slots=True)
class _Place:
    """What there is of one origin."""

    permits: Semaphore
    idle: list[Connection] = field(default_factory=list)
    users: int = 0  # who have a permit or wait for one


class Pool:
    """The connections of one client."""

    def __init__(self, limits: ClientLimits) -> None:
        if limits.connections_per_origin < 1 or limits.connections < 1:
            raise ValueError("a pool without connections")
        self.limits = limits
        self.closed = False
        self._permits = Semaphore(limits.connections)
        self._places: dict[Origin, _Place] = {}
        self._idle: dict[Connection, None] = {}  # in the order in which they came back
        self._loop: Loop | None = None
        self._timer: Timer | None = None  # the one for all of them: it looks for those that have expired

    @property
    def lent(self) -> int:
        """Permits that are taken."""
        return self.limits.connections - self._permits.free

    def acquire_nowait(self, origin: Origin) -> bool:
        """Take permission for a connection if nobody has to be waited for; whether it was. Does not suspend."""
        place = self._place(origin)
        if place.permits.acquire_nowait():
            if self._permits.acquire_nowait():
                place.users += 1
                return True
            place.permits.release()
        self._forget_unused(origin, place)
        return False

    def acquire(self, origin: Origin) -> Coro[None]:
        """Wait for permission, to be given back with `release`. Suspends."""
        place = self._place(origin)
        place.users += 1
        try:
            yield from place.permits.acquire()
            try:
                yield from self._permits.acquire()
            except BaseException:
                place.permits.release()
                raise
        except BaseException:
            place.users -= 1
            self._forget_unused(origin, place)
            raise

    def take_idle(self, origin: Origin, fresh: bool) -> Connection | None:
        """With permission: an idle connection, or None: one may be opened. Does not suspend. `ClosedError`.

        When a `fresh` one is needed, the idle ones are closed: there is reason to doubt them.
        """
        if self.closed:
            raise ClosedError("the HTTP client is closed")
        place = self._places[origin]
        while place.idle:
            connection = place.idle.pop()
            del self._idle[connection]
            if not fresh and connection.expires > now() and connection.is_silent():
                return connection
            connection.close()
        while self._idle and self.lent + len(self._idle) > self.limits.connections:
            self._close_idle(next(iter(self._idle)))
        return None

    def release(self, origin: Origin, connection: Connection | None, kept: float = math.inf) -> None:
        """Give permission back, and the connection if it can be used again: its server keeps it for `kept` seconds."""
        place = self._places[origin]
        if connection is not None:
            seconds = min(self.limits.idle_time, kept - MARGIN)
            if self.closed or seconds <= 0:
                connection.close()
            else:
                connection.expires = now() + seconds
                place.idle.append(connection)
                self._idle[connection] = None
                if self._timer is None:
                    self._loop = current_task().loop
                    self._timer = self._loop.call_at(connection.expires, self._expire)
        place.users -= 1
        place.permits.release()
        self._permits.release()
        self._forget_unused(origin, place)

    def close(self) -> None:
        """Close the idle connections now and the others when they come back. Who still waits gets `ClosedError`."""
        self.closed = True
        for connection in tuple(self._idle):
            self._close_idle(connection)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _place(self, origin: Origin) -> _Place:
        place = self._places.get(origin)
        if place is None:
            place = self._places[origin] = _Place(Semaphore(self.limits.connections_per_origin))
        return place

    def _close_idle(self, connection: Connection) -> None:
        place = self._places[connection.origin]
        place.idle.remove(connection)
        del self._idle[connection]
        connection.close()
        self._forget_unused(connection.origin, place)

    def _forget_unused(self, origin: Origin, place: _Place) -> None:
        if not place.users and not place.idle:
            self._places.pop(origin, None)

    def _expire(self) -> None:
        """Close what has been idle for too long; look again when the next one is due."""
        self._timer = None
        assert self._loop is not None
        time = self._loop.time()
        for connection in [idle for idle in self._idle if idle.expires <= time]:
            self._close_idle(connection)
        if self._idle:
            due = min(connection.expires for connection in self._idle)
            self._timer = self._loop.call_at(due, self._expire)

    def __repr__(self) -> str:
        return f"{self.lent} connections lent, {len(self._idle)} idle"
