"""Keys, whatever their values.

Specification: https://redis.io/docs/latest/commands/?group=generic
"""

from __future__ import annotations

from coro.redis.commands.base import Key, S, Sender
from coro.task import Coro


class KeyCommands(Sender[S]):
    """Commands on keys as such."""

    def delete(self, *names: Key) -> Coro[int]:
        """Delete keys; how many there were."""
        return self._send((b"DEL", *names))

    def exists(self, *names: Key) -> Coro[int]:
        """How many of the keys exist; one that is named twice counts twice."""
        return self._send((b"EXISTS", *names))

    def expire(self, name: Key, time: int) -> Coro[bool]:
        """Have a key expire in `time` seconds; False if it does not exist."""
        return self._send((b"EXPIRE", name, time), bool)

    def pexpire(self, name: Key, time: int) -> Coro[bool]:
        """Have a key expire in `time` milliseconds; False if it does not exist."""
        return self._send((b"PEXPIRE", name, time), bool)

    def persist(self, name: Key) -> Coro[bool]:
        """Have a key not expire; False if it would not have, or does not exist."""
        return self._send((b"PERSIST", name), bool)

    def ttl(self, name: Key) -> Coro[int]:
        """In how many seconds a key expires; -1 if it does not, -2 if it does not exist."""
        return self._send((b"TTL", name))

    def pttl(self, name: Key) -> Coro[int]:
        """In how many milliseconds a key expires; -1 if it does not, -2 if it does not exist."""
        return self._send((b"PTTL", name))
