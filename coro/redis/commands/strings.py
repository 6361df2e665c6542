"""Strings, and numbers in them.

Specification: https://redis.io/docs/latest/commands/?group=string
"""

from __future__ import annotations

from typing import Any, Literal, overload

from coro.redis.commands.base import (
    Duration,
    Fields,
    Key,
    Keys,
    Moment,
    S,
    Sender,
    expiry,
    flags,
    milliseconds,
    pairs,
    words,
)
from coro.redis.commands.base import seconds as in_seconds
from coro.redis.replies import as_float, as_info, is_ok, was_done
from coro.redis.resp import Argument
from coro.task import Coro


class StringCommands(Sender[S]):
    """Commands on values that are one string."""

    def append(self, key: Key, value: Argument) -> Coro[int]:
        """Append to a string; its length in bytes."""
        return self._send((b"APPEND", key, value))

    def decr(self, name: Key, amount: int = 1) -> Coro[int]:
        """Subtract from the number in a key, which counts as 0 if it does not exist; the difference."""
        return self._send((b"DECRBY", name, amount))

    decrby = decr

    def get(self, name: Key) -> Coro[S | None]:
        """The value of a key, or None."""
        return self._send((b"GET", name))

    def getdel(self, name: Key) -> Coro[S | None]:
        """The value of a key, or None; the key is deleted."""
        return self._send((b"GETDEL", name))

    def getex(
        self,
        name: Key,
        ex: Duration | None = None,
        px: Duration | None = None,
        exat: Moment | None = None,
        pxat: Moment | None = None,
        persist: bool = False,
    ) -> Coro[S | None]:
        """The value of a key, or None; the key expires as the options say, or with `persist` not at all."""
        return self._send((b"GETEX", name, *expiry(ex, px, exat, pxat), *flags(persist=persist)))

    def getrange(self, key: Key, start: int, end: int) -> Coro[S]:
        """The bytes from `start` to `end`, which is included; negative numbers count from the string's end."""
        return self._send((b"GETRANGE", key, start, end))

    def getset(self, name: Key, value: Argument) -> Coro[S | None]:
        """Set a key; the value it had, or None."""
        return self._send((b"GETSET", name, value))

    def incr(self, name: Key, amount: int = 1) -> Coro[int]:
        """Add to the number in a key, which counts as 0 if it does not exist; the sum."""
        return self._send((b"INCRBY", name, amount))

    incrby = incr

    def incrbyfloat(self, name: Key, amount: float = 1.0) -> Coro[float]:
        """Add to the number in a key, which may have a fraction; the sum."""
        return self._send((b"INCRBYFLOAT", name, amount), as_float)

    def lcs(
        self,
        key1: Key,
        key2: Key,
        len: bool = False,
        idx: bool = False,
        minmatchlen: int = 0,
        withmatchlen: bool = False,
    ) -> Coro[Any]:
        """The longest common subsequence of two strings; with `len` its length, with `idx` where it stands."""
        least: list[Argument] = [b"MINMATCHLEN", minmatchlen] if minmatchlen else []
        options = [*flags(len=len, idx=idx), *least, *flags(withmatchlen=withmatchlen)]
        return self._send((b"LCS", key1, key2, *options), as_info if idx else None)

    def mget(self, keys: Keys, *args: Key) -> Coro[list[S | None]]:
        """The values of several keys, in their order; None for one that does not exist."""
        return self._send((b"MGET", *words(keys, args)))

    def mset(self, mapping: Fields) -> Coro[bool]:
        """Set several keys at once. True."""
        return self._send((b"MSET", *pairs(mapping)), is_ok)

    def msetnx(self, mapping: Fields) -> Coro[bool]:
        """Set several keys at once if none of them exists; whether they were set."""
        return self._send((b"MSETNX", *pairs(mapping)), bool)

    def psetex(self, name: Key, time_ms: Duration, value: Argument) -> Coro[bool]:
        """Set a key, to expire in `time_ms` milliseconds. True."""
        return self._send((b"PSETEX", name, milliseconds(time_ms), value), is_ok)

    @overload
    def set(
        self,
        name: Key,
        value: Argument,
        ex: Duration | None = None,
        px: Duration | None = None,
        nx: bool = False,
        xx: bool = False,
        keepttl: bool = False,
        get: Literal[False] = False,
        exat: Moment | None = None,
        pxat: Moment | None = None,
    ) -> Coro[bool]: ...

    @overload
    def set(
        self,
        name: Key,
        value: Argument,
        ex: Duration | None = None,
        px: Duration | None = None,
        nx: bool = False,
        xx: bool = False,
        keepttl: bool = False,
        *,
        get: Literal[True],
        exat: Moment | None = None,
        pxat: Moment | None = None,
    ) -> Coro[S | None]: ...

    def set(
        self,
        name: Key,
        value: Argument,
        ex: Duration | None = None,
        px: Duration | None = None,
        nx: bool = False,
        xx: bool = False,
        keepttl: bool = False,
        get: bool = False,
        exat: Moment | None = None,
        pxat: Moment | None = None,
    ) -> Coro[Any]:
        """Set a key, to expire as the options say; with `keepttl`, when it did before.

        With `nx` only if it does not exist, with `xx` only if it does: whether it was set. With `get`, the value that
        it had instead, or None.
        """
        options = [*expiry(ex, px, exat, pxat), *flags(nx=nx, xx=xx, keepttl=keepttl, get=get)]
        return self._send((b"SET", name, value, *options), None if get else was_done)

    def setex(self, name: Key, time: Duration, value: Argument) -> Coro[bool]:
        """Set a key, to expire in `time` seconds. True."""
        return self._send((b"SETEX", name, in_seconds(time), value), is_ok)

    def setnx(self, name: Key, value: Argument) -> Coro[bool]:
        """Set a key if it does not exist; whether it was set."""
        return self._send((b"SETNX", name, value), bool)

    def setrange(self, name: Key, offset: int, value: Argument) -> Coro[int]:
        """Overwrite a part of a string, which grows as needed; its length in bytes."""
        return self._send((b"SETRANGE", name, offset, value))

    def strlen(self, name: Key) -> Coro[int]:
        """The length of a string in bytes; 0 if the key does not exist."""
        return self._send((b"STRLEN", name))
