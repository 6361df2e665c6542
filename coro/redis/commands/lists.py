"""Lists.

Specification: https://redis.io/docs/latest/commands/?group=list
"""

from __future__ import annotations

from typing import Any

from coro.redis.commands.base import Key, Keys, S, Sender, option, words
from coro.redis.replies import is_ok, pair
from coro.redis.resp import Argument
from coro.task import Coro


class ListCommands(Sender[S]):
    """Commands on values that are lists. Those that begin with a b wait until there is something, or `timeout`
    seconds (0: for ever); they have a connection of their own meanwhile.

    Cancelled while it waits, such a command may already have taken what it waited for: `blmove` leaves it in a list.
    """

    def blmove(
        self, first_list: Key, second_list: Key, timeout: float, src: str = "LEFT", dest: str = "RIGHT"
    ) -> Coro[S | None]:
        """As `lmove`, when there is an element; None if none came in time."""
        return self._wait((b"BLMOVE", first_list, second_list, src, dest, timeout), timeout)

    def blmpop(
        self, timeout: float, numkeys: int, *args: Key, direction: str, count: int = 1
    ) -> Coro[tuple[S, list[S]] | None]:
        """As `lmpop`, when there is an element; None if none came in time."""
        return self._wait((b"BLMPOP", timeout, numkeys, *args, direction, b"COUNT", count), timeout, pair)

    def blpop(self, keys: Keys, timeout: float = 0) -> Coro[tuple[S, S] | None]:
        """The first element of the first of the lists that has one, taken out: (key, element), or None in the end."""
        return self._wait((b"BLPOP", *words(keys), timeout), timeout, pair)

    def brpop(self, keys: Keys, timeout: float = 0) -> Coro[tuple[S, S] | None]:
        """The last element of the first of the lists that has one, taken out: (key, element), or None in the end."""
        return self._wait((b"BRPOP", *words(keys), timeout), timeout, pair)

    def brpoplpush(self, src: Key, dst: Key, timeout: float = 0) -> Coro[S | None]:
        """As `rpoplpush`, when there is an element; None if none came in time."""
        return self._wait((b"BRPOPLPUSH", src, dst, timeout), timeout)

    def lindex(self, name: Key, index: int) -> Coro[S | None]:
        """The element at `index`, or None; negative numbers count from the end."""
        return self._send((b"LINDEX", name, index))

    def linsert(self, name: Key, where: str, refvalue: Argument, value: Argument) -> Coro[int]:
        """Insert "BEFORE" or "AFTER" an element; the list's length, -1 if there is no such element."""
        return self._send((b"LINSERT", name, where, refvalue, value))

    def llen(self, name: Key) -> Coro[int]:
        """How many elements there are."""
        return self._send((b"LLEN", name))

    def lmove(self, first_list: Key, second_list: Key, src: str = "LEFT", dest: str = "RIGHT") -> Coro[S | None]:
        """Move an element from one end of a list to one of another: the element, or None if there was none."""
        return self._send((b"LMOVE", first_list, second_list, src, dest))

    def lmpop(self, num_keys: int, *args: Key, direction: str, count: int = 1) -> Coro[tuple[S, list[S]] | None]:
        """Take up to `count` elements off the "LEFT" or "RIGHT" of the first list that has some: (key, elements)."""
        return self._send((b"LMPOP", num_keys, *args, direction, b"COUNT", count), pair)

    def lpop(self, name: Key, count: int | None = None) -> Coro[Any]:
        """Take off the first element, or None; with `count` a list of up to so many."""
        return self._send((b"LPOP", name) if count is None else (b"LPOP", name, count))

    def lpos(
        self, name: Key, value: Argument, rank: int | None = None, count: int | None = None, maxlen: int | None = None
    ) -> Coro[Any]:
        """Where an element stands, or None; with `count` a list of up to so many places (0: all)."""
        options = [*option(b"RANK", rank), *option(b"COUNT", count), *option(b"MAXLEN", maxlen)]
        return self._send((b"LPOS", name, value, *options))

    def lpush(self, name: Key, *values: Argument) -> Coro[int]:
        """Put elements before the first, one after the other; the list's length."""
        return self._send((b"LPUSH", name, *values))

    def lpushx(self, name: Key, *values: Argument) -> Coro[int]:
        """As `lpush`, if there is such a list."""
        return self._send((b"LPUSHX", name, *values))

    def lrange(self, name: Key, start: int, end: int) -> Coro[list[S]]:
        """The elements from `start` to `end`, which is included; negative numbers count from the end."""
        return self._send((b"LRANGE", name, start, end))

    def lrem(self, name: Key, count: int, value: Argument) -> Coro[int]:
        """Remove `count` elements that are equal to `value` (0: all; below 0: from the end); how many there were."""
        return self._send((b"LREM", name, count, value))

    def lset(self, name: Key, index: int, value: Argument) -> Coro[bool]:
        """Put another element in a place. True. `ReplyError` if there is no such place."""
        return self._send((b"LSET", name, index, value), is_ok)

    def ltrim(self, name: Key, start: int, end: int) -> Coro[bool]:
        """Remove all but the elements from `start` to `end`. True."""
        return self._send((b"LTRIM", name, start, end), is_ok)

    def rpop(self, name: Key, count: int | None = None) -> Coro[Any]:
        """Take off the last element, or None; with `count` a list of up to so many."""
        return self._send((b"RPOP", name) if count is None else (b"RPOP", name, count))

    def rpoplpush(self, src: Key, dst: Key) -> Coro[S | None]:
        """Move the last element of a list to the front of another: the element, or None if there was none."""
        return self._send((b"RPOPLPUSH", src, dst))

    def rpush(self, name: Key, *values: Argument) -> Coro[int]:
        """Put elements behind the last; the list's length."""
        return self._send((b"RPUSH", name, *values))

    def rpushx(self, name: Key, *values: Argument) -> Coro[int]:
        """As `rpush`, if there is such a list."""
        return self._send((b"RPUSHX", name, *values))
