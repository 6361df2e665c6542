"""Hashes: fields with values.

Specification: https://redis.io/docs/latest/commands/?group=hash
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from coro.redis.commands.base import Fields, Key, S, Sender, flags, option, pairs, words
from coro.redis.commands.scan import Scan
from coro.redis.replies import as_dict, as_float, flat, is_ok, page
from coro.redis.resp import Argument
from coro.task import Coro


class HashCommands(Sender[S]):
    """Commands on values that are hashes."""

    def hdel(self, name: Key, *keys: Key) -> Coro[int]:
        """Delete fields; how many there were."""
        return self._send((b"HDEL", name, *keys))

    def hexists(self, name: Key, key: Key) -> Coro[bool]:
        """Whether there is such a field."""
        return self._send((b"HEXISTS", name, key), bool)

    def hget(self, name: Key, key: Key) -> Coro[S | None]:
        """The value of a field, or None."""
        return self._send((b"HGET", name, key))

    def hgetall(self, name: Key) -> Coro[dict[S, S]]:
        """All fields with their values; an empty dict if the key does not exist."""
        return self._send((b"HGETALL", name), as_dict)

    def hincrby(self, name: Key, key: Key, amount: int = 1) -> Coro[int]:
        """Add to the number in a field, which counts as 0 if it does not exist; the sum."""
        return self._send((b"HINCRBY", name, key, amount))

    def hincrbyfloat(self, name: Key, key: Key, amount: float = 1.0) -> Coro[float]:
        """Add to the number in a field, which may have a fraction; the sum."""
        return self._send((b"HINCRBYFLOAT", name, key, amount), as_float)

    def hkeys(self, name: Key) -> Coro[list[S]]:
        """The names of all fields."""
        return self._send((b"HKEYS", name))

    def hlen(self, name: Key) -> Coro[int]:
        """How many fields there are."""
        return self._send((b"HLEN", name))

    def hmget(self, name: Key, keys: Key | Iterable[Key], *args: Key) -> Coro[list[S | None]]:
        """The values of several fields, in their order; None for one that does not exist."""
        return self._send((b"HMGET", name, *words(keys, args)))

    def hmset(self, name: Key, mapping: Fields) -> Coro[bool]:
        """Set several fields. True. (`hset` does it too, and tells more.)"""
        return self._send((b"HMSET", name, *pairs(mapping)), is_ok)

    def hrandfield(self, key: Key, count: int | None = None, withvalues: bool = False) -> Coro[Any]:
        """Some field, or None; with `count` a list of so many, and with `withvalues` each followed by its value."""
        args = [*([] if count is None else [count]), *flags(withvalues=withvalues)]
        return self._send((b"HRANDFIELD", key, *args), flat if withvalues else None)

    def hset(
        self,
        name: Key,
        key: Key | None = None,
        value: Argument | None = None,
        mapping: Fields | None = None,
        items: Sequence[Argument] | None = None,
    ) -> Coro[int]:
        """Set a field, those of `mapping` and those of `items` (names and values in turns); how many are new."""
        one: list[Argument] = [] if key is None or value is None else [key, value]
        if key is not None and value is None:
            raise ValueError(f"hset: there is no value for the field {key!r}")
        fields = [*(items or ()), *one, *pairs(mapping or {})]
        if not fields:
            raise ValueError("hset: there are no fields to set")
        return self._send((b"HSET", name, *fields))

    def hsetnx(self, name: Key, key: Key, value: Argument) -> Coro[bool]:
        """Set a field if it does not exist; whether it was set."""
        return self._send((b"HSETNX", name, key, value), bool)

    def hstrlen(self, name: Key, key: Key) -> Coro[int]:
        """The length in bytes of a field's value; 0 if it does not exist."""
        return self._send((b"HSTRLEN", name, key))

    def hvals(self, name: Key) -> Coro[list[S]]:
        """The values of all fields."""
        return self._send((b"HVALS", name))

    def hscan(
        self, name: Key, cursor: int = 0, match: Key | None = None, count: int | None = None
    ) -> Coro[tuple[int, dict[S, S]]]:
        """Some fields with their values, and the cursor for the next ones; 0 when there are no more."""
        options = [*option(b"MATCH", match), *option(b"COUNT", count)]
        return self._send((b"HSCAN", name, cursor, *options), page(as_dict))

    def hscan_iter(self, name: Key, match: Key | None = None, count: int | None = None) -> Scan[dict[S, S]]:
        """All fields that match, a dict at a time: see `Scan`. Does not suspend."""
        return Scan(lambda cursor: self.hscan(name, cursor, match, count))
