"""The server and its connections.

Specification: https://redis.io/docs/latest/commands/?group=server
"""

from __future__ import annotations

from coro.redis.commands.base import S, Sender
from coro.task import Coro


class ServerCommands(Sender[S]):
    """Commands to the server itself."""

    def ping(self) -> Coro[bool]:
        """True if the server answers."""
        return self._send((b"PING",), lambda reply: reply == b"PONG")
