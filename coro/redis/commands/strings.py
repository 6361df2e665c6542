"""Strings, and numbers in them.

Specification: https://redis.io/docs/latest/commands/?group=string
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coro.redis.commands.base import Key, S, Sender, pairs, words
from coro.redis.replies import is_ok, was_done
from coro.redis.resp import Argument
from coro.task import Coro


class StringCommands(Sender[S]):
    """Commands on values that are one string."""

    def get(self, name: Key) -> Coro[S | None]:
        """The value of a key, or None."""
        return self._send((b"GET", name))

    def set(
        self,
        name: Key,
        value: Argument,
        ex: int | None = None,
        px: int | None = None,
        nx: bool = False,
        xx: bool = False,
        keepttl: bool = False,
    ) -> Coro[bool]:
        """Set a key, to expire in `ex` seconds or `px` milliseconds; with `keepttl`, when it did before.

        With `nx` only if it does not exist, with `xx` only if it does: whether it was set.
        """
        args: list[Argument] = [b"SET", name, value]
        if ex is not None:
            args += (b"EX", ex)
        if px is not None:
            args += (b"PX", px)
        if nx:
            args.append(b"NX")
        if xx:
            args.append(b"XX")
        if keepttl:
            args.append(b"KEEPTTL")
        return self._send(args, was_done)

    def getdel(self, name: Key) -> Coro[S | None]:
        """The value of a key, or None; the key is deleted."""
        return self._send((b"GETDEL", name))

    def mget(self, keys: Key | Iterable[Key], *args: Key) -> Coro[list[S | None]]:
        """The values of several keys, in their order; None for one that does not exist."""
        return self._send((b"MGET", *words(keys, args)))

    def mset(self, mapping: Mapping[Key, Argument]) -> Coro[bool]:
        """Set several keys at once. True."""
        return self._send((b"MSET", *pairs(mapping)), is_ok)

    def incr(self, name: Key, amount: int = 1) -> Coro[int]:
        """Add to the number in a key, which counts as 0 if it does not exist; the sum."""
        return self._send((b"INCRBY", name, amount))

    def decr(self, name: Key, amount: int = 1) -> Coro[int]:
        """Subtract from the number in a key, which counts as 0 if it does not exist; the difference."""
        return self._send((b"DECRBY", name, amount))
