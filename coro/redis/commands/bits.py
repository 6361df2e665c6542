"""Strings as arrays of bits; and the counting of distinct things by HyperLogLog.

Specification: https://redis.io/docs/latest/commands/?group=bitmap and ?group=hyperloglog
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from coro.redis.commands.base import Key, S, Sender, option
from coro.redis.replies import is_ok
from coro.redis.resp import Argument
from coro.task import Coro


class BitCommands(Sender[S]):
    """Commands on bits, and on HyperLogLogs."""

    def bitcount(
        self, key: Key, start: int | None = None, end: int | None = None, mode: str | None = None
    ) -> Coro[int]:
        """How many bits are set, from byte `start` to `end`; with `mode` "BIT" from bit to bit."""
        return self._send((b"BITCOUNT", key, *_range(start, end, mode)))

    def bitfield(self, key: Key, default_overflow: str | None = None) -> BitField:
        """Integers of any width inside a string: collects operations, see `BitField`. Does not suspend."""
        return BitField(self._send, key, default_overflow)

    def bitfield_ro(
        self, key: Key, encoding: str, offset: int | str, items: Sequence[tuple[str, int | str]] | None = None
    ) -> Coro[list[int]]:
        """The integers at `offset`, and at those of `items`, (encoding, offset); an encoding is as "u8" or "i16"."""
        wanted = [word for item in ((encoding, offset), *(items or ())) for word in (b"GET", *item)]
        return self._send((b"BITFIELD_RO", key, *wanted))

    def bitop(self, operation: str, dest: Key, *keys: Key) -> Coro[int]:
        """Store the "AND", "OR", "XOR" of strings, or the "NOT" of one; its length in bytes."""
        return self._send((b"BITOP", operation, dest, *keys))

    def bitpos(
        self, key: Key, bit: int, start: int | None = None, end: int | None = None, mode: str | None = None
    ) -> Coro[int]:
        """Where the first bit stands that is `bit`, looked for as `bitcount` counts; -1 if there is none."""
        return self._send((b"BITPOS", key, bit, *_range(start, end, mode)))

    def getbit(self, name: Key, offset: int) -> Coro[int]:
        """The bit at `offset`."""
        return self._send((b"GETBIT", name, offset))

    def setbit(self, name: Key, offset: int, value: int) -> Coro[int]:
        """Set the bit at `offset` to 0 or 1; what it was."""
        return self._send((b"SETBIT", name, offset, value))

    def pfadd(self, name: Key, *values: Argument) -> Coro[int]:
        """Count things in; 1 if the estimate has changed."""
        return self._send((b"PFADD", name, *values))

    def pfcount(self, *sources: Key) -> Coro[int]:
        """About how many distinct things were counted, in all of the keys together."""
        return self._send((b"PFCOUNT", *sources))

    def pfmerge(self, dest: Key, *sources: Key) -> Coro[bool]:
        """Count into `dest` what was counted into the others. True."""
        return self._send((b"PFMERGE", dest, *sources), is_ok)


class BitField:
    """Operations on integers inside a string; `execute` carries them out as one. An encoding is as "u8" or "i16";
    an offset in bits, or as "#2": the third integer of that width.
    """

    def __init__(self, send: Callable[[Sequence[Argument]], Coro[Any]], key: Key, overflow: str | None) -> None:
        self._send = send
        self._key = key
        self._operations = option(b"OVERFLOW", overflow)

    def get(self, fmt: str, offset: int | str) -> BitField:
        """Read an integer."""
        self._operations += (b"GET", fmt, offset)
        return self

    def incrby(self, fmt: str, offset: int | str, increment: int, overflow: str | None = None) -> BitField:
        """Add to an integer; from here on too large a sum does as `overflow` says: "WRAP", "SAT", "FAIL"."""
        self._operations += (*option(b"OVERFLOW", overflow), b"INCRBY", fmt, offset, increment)
        return self

    def overflow(self, overflow: str) -> BitField:
        """From here on, too large a sum does so."""
        self._operations += (b"OVERFLOW", overflow)
        return self

    def set(self, fmt: str, offset: int | str, value: int) -> BitField:
        """Write an integer; the result is what it was."""
        self._operations += (b"SET", fmt, offset, value)
        return self

    def execute(self) -> Coro[list[int | None]]:
        """Carry the operations out; a result for each, None for a sum that failed. Suspends."""
        return self._send((b"BITFIELD", self._key, *self._operations))


def _range(start: int | None, end: int | None, mode: str | None) -> list[Argument]:
    if start is None and (end is not None or mode is not None):
        raise ValueError("where the range ends, or in what it is counted, says nothing without its start")
    return [word for word in (start, end, mode) if word is not None]
