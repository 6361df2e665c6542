"""All commands that a server is given, as it tells them to who asks (MONITOR): for looking, not for production.

    monitor = redis.monitor()
    while True:
        command = yield from monitor.next_command()

Nothing is read ahead: what nobody takes stays in the kernel, and then with the server, which after a while closes the
connection.

Specification: https://redis.io/docs/latest/commands/monitor/
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import Any

from coro import ClosedError, CoroError, EndOfStream, timeout
from coro.redis.connection import READ_SIZE, Connection, lost
from coro.redis.errors import ReplyError
from coro.redis.pool import ConnectionPool
from coro.redis.resp import Parser, ProtocolError, encode
from coro.task import Coro

MAX_LINE = 64 * 1024 * 1024  # bytes: a command stands in one line, with all its values

# 1339518083.107412 [0 127.0.0.1:60866] "keys" "*"
_LINE = re.compile(rb"(\d+\.\d+) \[(\d+) ([^\]]*\]?[^\]]*)\] (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Monitored:
    """A command that the server was given: when (seconds since 1970), in which database, by whom.

    `client` is an address, "lua" for a script, or "unix:" and a path; `command` is as the server writes it, each word
    in quotation marks.
    """

    time: float
    db: int
    client: str
    command: str


class Monitor:
    """Made by `Redis.monitor`; `close` it in the end. For one task at a time."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._connection: Connection | None = None
        self._ready: deque[Monitored] = deque()
        self._closed = False

    def next_command(self) -> Coro[Monitored]:
        """The next command that the server is given. Suspends until there is one.

        The first call begins to listen. `RedisConnectionError` when the connection is lost: the next call begins anew.
        """
        if self._closed:
            raise ClosedError("the monitor is closed")
        while not self._ready:
            if self._connection is None:
                yield from self._begin()
            else:
                self._ready.extend((yield from self._received(self._connection)))
        return self._ready.popleft()

    def close(self) -> None:
        """Stop listening. Does not suspend; can be repeated."""
        self._closed = True
        self._end()

    def _begin(self) -> Coro[None]:
        connection = self._connection = yield from self._pool.take()
        connection.parser = Parser(max_line=MAX_LINE)
        connection.in_step = False  # for good
        patience = self._pool.settings.timeout
        try:
            with timeout(patience):
                yield from connection.stream.write(encode([b"MONITOR"]))
                while not (told := (yield from self._received(connection))):
                    pass
            if isinstance(told[0], ReplyError):
                raise told[0]
            self._ready.extend(told[1:])
        except TimeoutError:
            self._end()
            reason = TimeoutError(f"MONITOR was not answered within {patience:g} s")
            raise lost(self._pool.settings, reason, "MONITOR", sent=True) from None
        except BaseException:
            self._end()
            raise

    def _received(self, connection: Connection) -> Coro[list[Any]]:
        try:
            data = yield from connection.stream.read(READ_SIZE)
            if not data:
                raise EndOfStream("the server closed the connection")
            return [_read(reply) for reply in connection.parser.feed(data)]
        except (OSError, CoroError) as error:
            self._end()
            raise lost(self._pool.settings, None if self._closed else error, "MONITOR", sent=True) from error

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._pool.give_back(self._connection)
            self._connection = None


def _read(reply: Any) -> Any:
    """A command; or the reply to MONITOR itself, which stands before the first."""
    if reply == b"OK" or isinstance(reply, ReplyError):
        return reply
    found = _LINE.fullmatch(reply) if isinstance(reply, bytes) else None
    if found is None:
        raise ProtocolError(f"{reply!r:.40} is not what MONITOR sends")
    time, db, client, command = found.groups()
    return Monitored(float(time), int(db), client.decode(), command.decode("utf-8", "backslashreplace"))
