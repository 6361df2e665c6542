"""Sets.

Specification: https://redis.io/docs/latest/commands/?group=set
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coro.redis.commands.base import Key, Keys, S, Sender, option, words
from coro.redis.commands.scan import Scan
from coro.redis.replies import as_bools, page
from coro.redis.resp import Argument
from coro.task import Coro


class SetCommands(Sender[S]):
    """Commands on values that are sets."""

    def sadd(self, name: Key, *values: Argument) -> Coro[int]:
        """Add members; how many are new."""
        return self._send((b"SADD", name, *values))

    def scard(self, name: Key) -> Coro[int]:
        """How many members there are."""
        return self._send((b"SCARD", name))

    def sdiff(self, keys: Keys, *args: Key) -> Coro[set[S]]:
        """The members of the first set that are in none of the others."""
        return self._send((b"SDIFF", *words(keys, args)), set)

    def sdiffstore(self, dest: Key, keys: Keys, *args: Key) -> Coro[int]:
        """Store what `sdiff` returns; how many members that are."""
        return self._send((b"SDIFFSTORE", dest, *words(keys, args)))

    def sinter(self, keys: Keys, *args: Key) -> Coro[set[S]]:
        """The members that are in all sets."""
        return self._send((b"SINTER", *words(keys, args)), set)

    def sintercard(self, numkeys: int, keys: Iterable[Key], limit: int = 0) -> Coro[int]:
        """How many members are in all sets, counted up to `limit` (0: all)."""
        return self._send((b"SINTERCARD", numkeys, *keys, b"LIMIT", limit))

    def sinterstore(self, dest: Key, keys: Keys, *args: Key) -> Coro[int]:
        """Store what `sinter` returns; how many members that are."""
        return self._send((b"SINTERSTORE", dest, *words(keys, args)))

    def sismember(self, name: Key, value: Argument) -> Coro[bool]:
        """Whether `value` is a member."""
        return self._send((b"SISMEMBER", name, value), bool)

    def smembers(self, name: Key) -> Coro[set[S]]:
        """All members."""
        return self._send((b"SMEMBERS", name), set)

    def smismember(self, name: Key, values: Argument | Iterable[Argument], *args: Argument) -> Coro[list[bool]]:
        """For each of the values whether it is a member."""
        return self._send((b"SMISMEMBER", name, *words(values, args)), as_bools)

    def smove(self, src: Key, dst: Key, value: Argument) -> Coro[bool]:
        """Move a member to another set; False if it was none."""
        return self._send((b"SMOVE", src, dst, value), bool)

    def spop(self, name: Key, count: int | None = None) -> Coro[Any]:
        """Take out some member, or None; with `count` a list of up to so many."""
        return self._send((b"SPOP", name)) if count is None else self._send((b"SPOP", name, count), list)

    def srandmember(self, name: Key, number: int | None = None) -> Coro[Any]:
        """Some member, or None; with `number` a list of up to so many; below 0, of so many, some perhaps twice."""
        return self._send((b"SRANDMEMBER", name) if number is None else (b"SRANDMEMBER", name, number))

    def srem(self, name: Key, *values: Argument) -> Coro[int]:
        """Remove members; how many there were."""
        return self._send((b"SREM", name, *values))

    def sunion(self, keys: Keys, *args: Key) -> Coro[set[S]]:
        """The members that are in any of the sets."""
        return self._send((b"SUNION", *words(keys, args)), set)

    def sunionstore(self, dest: Key, keys: Keys, *args: Key) -> Coro[int]:
        """Store what `sunion` returns; how many members that are."""
        return self._send((b"SUNIONSTORE", dest, *words(keys, args)))

    def sscan(
        self, name: Key, cursor: int = 0, match: Key | None = None, count: int | None = None
    ) -> Coro[tuple[int, list[S]]]:
        """Some members, and the cursor for the next ones; 0 when there are no more."""
        return self._send((b"SSCAN", name, cursor, *option(b"MATCH", match), *option(b"COUNT", count)), page(list))

    def sscan_iter(self, name: Key, match: Key | None = None, count: int | None = None) -> Scan[list[S]]:
        """All members that match, a batch at a time: see `Scan`. Does not suspend."""
        return Scan(lambda cursor: self.sscan(name, cursor, match, count))
