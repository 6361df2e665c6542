"""Sorted sets: members with scores.

Bounds of scores and of names are what Redis takes: a number, "-inf", "+inf", "(5" for above 5; "-", "+", "[a", "(a".

Specification: https://redis.io/docs/latest/commands/?group=sorted-set
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from coro.redis.commands.base import Key, Keys, S, Scores, Sender, flags, items, option, words
from coro.redis.commands.scan import Scan
from coro.redis.replies import as_float, as_floats, first_scored, page, popped, scored
from coro.redis.resp import Argument
from coro.task import Coro

Weighted: TypeAlias = Keys | Scores


class SortedSetCommands(Sender[S]):
    """Commands on values that are sorted sets. With `withscores` results are pairs (member, score).

    Those that begin with a b wait until there is something, or `timeout` seconds (0: for ever).
    """

    def bzmpop(
        self, timeout: float, numkeys: int, keys: Iterable[Key], min: bool = False, max: bool = False, count: int = 1
    ) -> Coro[tuple[S, list[tuple[S, float]]] | None]:
        """As `zmpop`, when there is a member; None if none came in time."""
        args = (b"BZMPOP", timeout, numkeys, *keys, _end(min, max), b"COUNT", count)
        return self._wait(args, timeout, popped)

    def bzpopmax(self, keys: Keys, timeout: float = 0) -> Coro[tuple[S, S, float] | None]:
        """The member with the highest score of the first set that has one: (key, member, score), or None in the end."""
        return self._wait((b"BZPOPMAX", *words(keys), timeout), timeout, first_scored)

    def bzpopmin(self, keys: Keys, timeout: float = 0) -> Coro[tuple[S, S, float] | None]:
        """The member with the lowest score of the first set that has one: (key, member, score), or None in the end."""
        return self._wait((b"BZPOPMIN", *words(keys), timeout), timeout, first_scored)

    def zadd(
        self,
        name: Key,
        mapping: Scores,
        nx: bool = False,
        xx: bool = False,
        ch: bool = False,
        incr: bool = False,
        gt: bool = False,
        lt: bool = False,
    ) -> Coro[Any]:
        """Add members, or change their scores; how many are new, with `ch` how many are new or changed.

        With `nx` only new ones, `xx` only those there are, `gt` and `lt` only to higher or lower scores. With `incr`
        the score of the one member is added to what it had: the sum, or None if that was not to be done.
        """
        options = flags(nx=nx, xx=xx, ch=ch, incr=incr, gt=gt, lt=lt)
        members = [word for member, score in items(mapping) for word in (score, member)]
        return self._send((b"ZADD", name, *options, *members), as_float if incr else None)

    def zcard(self, name: Key) -> Coro[int]:
        """How many members there are."""
        return self._send((b"ZCARD", name))

    def zcount(self, name: Key, min: Argument, max: Argument) -> Coro[int]:
        """How many members have scores from `min` to `max`."""
        return self._send((b"ZCOUNT", name, min, max))

    def zdiff(self, keys: Iterable[Key], withscores: bool = False) -> Coro[list[Any]]:
        """The members of the first set that are in none of the others."""
        return self._combine((b"ZDIFF",), keys, None, withscores)

    def zdiffstore(self, dest: Key, keys: Iterable[Key]) -> Coro[int]:
        """Store what `zdiff` returns; how many members that are."""
        return self._combine((b"ZDIFFSTORE", dest), keys)

    def zincrby(self, name: Key, amount: float, value: Argument) -> Coro[float]:
        """Add to the score of a member, which counts as 0 if it is none; the sum."""
        return self._send((b"ZINCRBY", name, amount, value), as_float)

    def zinter(self, keys: Weighted, aggregate: str | None = None, withscores: bool = False) -> Coro[list[Any]]:
        """The members that are in all sets; scores are added, or as `aggregate` says: "MIN", "MAX".

        `keys` may be a mapping of keys to weights, by which their scores are multiplied.
        """
        return self._combine((b"ZINTER",), keys, aggregate, withscores)

    def zintercard(self, numkeys: int, keys: Iterable[Key], limit: int = 0) -> Coro[int]:
        """How many members are in all sets, counted up to `limit` (0: all)."""
        return self._send((b"ZINTERCARD", numkeys, *keys, b"LIMIT", limit))

    def zinterstore(self, dest: Key, keys: Weighted, aggregate: str | None = None) -> Coro[int]:
        """Store what `zinter` returns; how many members that are."""
        return self._combine((b"ZINTERSTORE", dest), keys, aggregate)

    def zlexcount(self, name: Key, min: Key, max: Key) -> Coro[int]:
        """How many members are from `min` to `max` by name, where all scores are equal."""
        return self._send((b"ZLEXCOUNT", name, min, max))

    def zmpop(
        self, num_keys: int, keys: Iterable[Key], min: bool = False, max: bool = False, count: int = 1
    ) -> Coro[tuple[S, list[tuple[S, float]]] | None]:
        """Take up to `count` members with the lowest or highest scores out of the first set that has some."""
        return self._send((b"ZMPOP", num_keys, *keys, _end(min, max), b"COUNT", count), popped)

    def zmscore(self, key: Key, members: Iterable[Argument]) -> Coro[list[float | None]]:
        """The scores of members; None for one that is none."""
        return self._send((b"ZMSCORE", key, *members), as_floats)

    def zpopmax(self, name: Key, count: int | None = None) -> Coro[list[tuple[S, float]]]:
        """Take out the member with the highest score, or up to `count` of them."""
        return self._send((b"ZPOPMAX", name) if count is None else (b"ZPOPMAX", name, count), scored)

    def zpopmin(self, name: Key, count: int | None = None) -> Coro[list[tuple[S, float]]]:
        """Take out the member with the lowest score, or up to `count` of them."""
        return self._send((b"ZPOPMIN", name) if count is None else (b"ZPOPMIN", name, count), scored)

    def zrandmember(self, key: Key, count: int | None = None, withscores: bool = False) -> Coro[Any]:
        """Some member, or None; with `count` a list of up to so many; below 0, of so many, some perhaps twice."""
        args = [*([] if count is None else [count]), *flags(withscores=withscores)]
        return self._send((b"ZRANDMEMBER", key, *args), scored if withscores else None)

    def zrange(
        self,
        name: Key,
        start: Argument,
        end: Argument,
        desc: bool = False,
        withscores: bool = False,
        byscore: bool = False,
        bylex: bool = False,
        offset: int | None = None,
        num: int | None = None,
    ) -> Coro[list[Any]]:
        """The members from place `start` to `end`, which is included, from the lowest score up; with `desc` down.

        With `byscore` or `bylex`, `start` and `end` are bounds of the score or the name, and `num` members from
        `offset` on are returned.
        """
        options = [*flags(byscore=byscore, bylex=bylex, rev=desc), *_limit(offset, num), *flags(withscores=withscores)]
        return self._send((b"ZRANGE", name, start, end, *options), scored if withscores else None)

    def zrangebylex(
        self, name: Key, min: Key, max: Key, start: int | None = None, num: int | None = None
    ) -> Coro[list[S]]:
        """The members from `min` to `max` by name, where all scores are equal; `num` of them from `start` on."""
        return self._send((b"ZRANGEBYLEX", name, min, max, *_limit(start, num)))

    def zrangebyscore(
        self,
        name: Key,
        min: Argument,
        max: Argument,
        start: int | None = None,
        num: int | None = None,
        withscores: bool = False,
    ) -> Coro[list[Any]]:
        """The members with scores from `min` to `max`; `num` of them from `start` on."""
        options = [*flags(withscores=withscores), *_limit(start, num)]
        return self._send((b"ZRANGEBYSCORE", name, min, max, *options), scored if withscores else None)

    def zrangestore(
        self,
        dest: Key,
        name: Key,
        start: Argument,
        end: Argument,
        byscore: bool = False,
        bylex: bool = False,
        desc: bool = False,
        offset: int | None = None,
        num: int | None = None,
    ) -> Coro[int]:
        """Store what `zrange` returns; how many members that are."""
        options = [*flags(byscore=byscore, bylex=bylex, rev=desc), *_limit(offset, num)]
        return self._send((b"ZRANGESTORE", dest, name, start, end, *options))

    def zrank(self, name: Key, value: Argument) -> Coro[int | None]:
        """In which place a member stands, from the lowest score up (0 is the first); None if it is none."""
        return self._send((b"ZRANK", name, value))

    def zrem(self, name: Key, *values: Argument) -> Coro[int]:
        """Remove members; how many there were."""
        return self._send((b"ZREM", name, *values))

    def zremrangebylex(self, name: Key, min: Key, max: Key) -> Coro[int]:
        """Remove the members from `min` to `max` by name; how many there were."""
        return self._send((b"ZREMRANGEBYLEX", name, min, max))

    def zremrangebyrank(self, name: Key, min: int, max: int) -> Coro[int]:
        """Remove the members from place `min` to `max`, which is included; how many there were."""
        return self._send((b"ZREMRANGEBYRANK", name, min, max))

    def zremrangebyscore(self, name: Key, min: Argument, max: Argument) -> Coro[int]:
        """Remove the members with scores from `min` to `max`; how many there were."""
        return self._send((b"ZREMRANGEBYSCORE", name, min, max))

    def zrevrange(self, name: Key, start: int, end: int, withscores: bool = False) -> Coro[list[Any]]:
        """As `zrange`, from the highest score down."""
        options = flags(withscores=withscores)
        return self._send((b"ZREVRANGE", name, start, end, *options), scored if withscores else None)

    def zrevrangebylex(
        self, name: Key, max: Key, min: Key, start: int | None = None, num: int | None = None
    ) -> Coro[list[S]]:
        """As `zrangebylex`, from `max` down."""
        return self._send((b"ZREVRANGEBYLEX", name, max, min, *_limit(start, num)))

    def zrevrangebyscore(
        self,
        name: Key,
        max: Argument,
        min: Argument,
        start: int | None = None,
        num: int | None = None,
        withscores: bool = False,
    ) -> Coro[list[Any]]:
        """As `zrangebyscore`, from `max` down."""
        options = [*flags(withscores=withscores), *_limit(start, num)]
        return self._send((b"ZREVRANGEBYSCORE", name, max, min, *options), scored if withscores else None)

    def zrevrank(self, name: Key, value: Argument) -> Coro[int | None]:
        """In which place a member stands, from the highest score down (0 is the first); None if it is none."""
        return self._send((b"ZREVRANK", name, value))

    def zscore(self, name: Key, value: Argument) -> Coro[float | None]:
        """The score of a member; None if it is none."""
        return self._send((b"ZSCORE", name, value), as_float)

    def zunion(self, keys: Weighted, aggregate: str | None = None, withscores: bool = False) -> Coro[list[Any]]:
        """The members that are in any of the sets; weights and scores as in `zinter`."""
        return self._combine((b"ZUNION",), keys, aggregate, withscores)

    def zunionstore(self, dest: Key, keys: Weighted, aggregate: str | None = None) -> Coro[int]:
        """Store what `zunion` returns; how many members that are."""
        return self._combine((b"ZUNIONSTORE", dest), keys, aggregate)

    def zscan(
        self, name: Key, cursor: int = 0, match: Key | None = None, count: int | None = None
    ) -> Coro[tuple[int, list[tuple[S, float]]]]:
        """Some members with their scores, and the cursor for the next ones; 0 when there are no more."""
        return self._send((b"ZSCAN", name, cursor, *option(b"MATCH", match), *option(b"COUNT", count)), page(scored))

    def zscan_iter(self, name: Key, match: Key | None = None, count: int | None = None) -> Scan[list[tuple[S, float]]]:
        """All members that match, a batch at a time: see `Scan`. Does not suspend."""
        return Scan(lambda cursor: self.zscan(name, cursor, match, count))

    def _combine(
        self, command: tuple[Argument, ...], keys: Weighted, aggregate: str | None = None, withscores: bool = False
    ) -> Coro[Any]:
        names = words(keys)
        weights: list[Argument] = [b"WEIGHTS", *keys.values()] if isinstance(keys, Mapping) else []
        options = [*weights, *option(b"AGGREGATE", aggregate), *flags(withscores=withscores)]
        return self._send((*command, len(names), *names, *options), scored if withscores else None)


def _limit(start: int | None, num: int | None) -> list[Argument]:
    if start is None and num is None:
        return []
    if start is None or num is None:
        raise ValueError("the first member to return and their number go together")
    return [b"LIMIT", start, num]


def _end(lowest: bool, highest: bool) -> bytes:
    if lowest == highest:
        raise ValueError("say one of min=True and max=True")
    return b"MIN" if lowest else b"MAX"
