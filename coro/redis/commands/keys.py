"""Keys, whatever their values.

Specification: https://redis.io/docs/latest/commands/?group=generic
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coro.redis.commands.base import (
    Duration,
    Key,
    Moment,
    S,
    Sender,
    flags,
    milliseconds,
    option,
    seconds,
    unix_milliseconds,
    unix_seconds,
    words,
)
from coro.redis.commands.scan import Scan
from coro.redis.replies import as_bytes, grouped, is_ok, page
from coro.redis.resp import Argument
from coro.task import Coro


class KeyCommands(Sender[S]):
    """Commands on keys as such."""

    def copy(
        self, source: Key, destination: Key, destination_db: int | None = None, replace: bool = False
    ) -> Coro[bool]:
        """Copy a value to another key; False if there is none, or (without `replace`) there is one already."""
        options = [*option(b"DB", destination_db), *flags(replace=replace)]
        return self._send((b"COPY", source, destination, *options), bool)

    def delete(self, *names: Key) -> Coro[int]:
        """Delete keys; how many there were."""
        return self._send((b"DEL", *names))

    def dump(self, name: Key) -> Coro[bytes | None]:
        """A key's value in the server's own form, for `restore`; None if it does not exist. Always bytes."""
        return self._send((b"DUMP", name), as_bytes)

    def exists(self, *names: Key) -> Coro[int]:
        """How many of the keys exist; one that is named twice counts twice."""
        return self._send((b"EXISTS", *names))

    def expire(
        self, name: Key, time: Duration, nx: bool = False, xx: bool = False, gt: bool = False, lt: bool = False
    ) -> Coro[bool]:
        """Have a key expire in `time` seconds; False if it does not exist, or the options do not allow it.

        With `nx` only if it would not expire, `xx` only if it would, `gt` only later, `lt` only earlier than before.
        """
        return self._send((b"EXPIRE", name, seconds(time), *flags(nx=nx, xx=xx, gt=gt, lt=lt)), bool)

    def expireat(
        self, name: Key, when: Moment, nx: bool = False, xx: bool = False, gt: bool = False, lt: bool = False
    ) -> Coro[bool]:
        """As `expire`, at a time in seconds since 1970."""
        return self._send((b"EXPIREAT", name, unix_seconds(when), *flags(nx=nx, xx=xx, gt=gt, lt=lt)), bool)

    def expiretime(self, key: Key) -> Coro[int]:
        """When a key expires, in seconds since 1970; -1 if it does not, -2 if it does not exist."""
        return self._send((b"EXPIRETIME", key))

    def keys(self, pattern: Key = "*") -> Coro[list[S]]:
        """All keys that match, of the whole database at once, which holds up the server: see `scan_iter`."""
        return self._send((b"KEYS", pattern))

    def move(self, name: Key, db: int) -> Coro[bool]:
        """Move a key to another database; False if there is none, or there is one already."""
        return self._send((b"MOVE", name, db), bool)

    def object(self, infotype: str, key: Key) -> Coro[Any]:
        """What the server knows of a key: "encoding" (a string), "refcount", "idletime", "freq"; None without one."""
        return self._send((b"OBJECT", infotype, key))

    def persist(self, name: Key) -> Coro[bool]:
        """Have a key not expire; False if it would not have, or does not exist."""
        return self._send((b"PERSIST", name), bool)

    def pexpire(
        self, name: Key, time: Duration, nx: bool = False, xx: bool = False, gt: bool = False, lt: bool = False
    ) -> Coro[bool]:
        """As `expire`, in milliseconds."""
        return self._send((b"PEXPIRE", name, milliseconds(time), *flags(nx=nx, xx=xx, gt=gt, lt=lt)), bool)

    def pexpireat(
        self, name: Key, when: Moment, nx: bool = False, xx: bool = False, gt: bool = False, lt: bool = False
    ) -> Coro[bool]:
        """As `expire`, at a time in milliseconds since 1970."""
        return self._send((b"PEXPIREAT", name, unix_milliseconds(when), *flags(nx=nx, xx=xx, gt=gt, lt=lt)), bool)

    def pexpiretime(self, key: Key) -> Coro[int]:
        """When a key expires, in milliseconds since 1970; -1 if it does not, -2 if it does not exist."""
        return self._send((b"PEXPIRETIME", key))

    def pttl(self, name: Key) -> Coro[int]:
        """In how many milliseconds a key expires; -1 if it does not, -2 if it does not exist."""
        return self._send((b"PTTL", name))

    def randomkey(self) -> Coro[S | None]:
        """Some key; None if there is none."""
        return self._send((b"RANDOMKEY",))

    def rename(self, src: Key, dst: Key) -> Coro[bool]:
        """Rename a key; what had the new name is lost. True. `ReplyError` if there is no such key."""
        return self._send((b"RENAME", src, dst), is_ok)

    def renamenx(self, src: Key, dst: Key) -> Coro[bool]:
        """Rename a key if the new name is free; whether it was."""
        return self._send((b"RENAMENX", src, dst), bool)

    def restore(
        self,
        name: Key,
        ttl: int,
        value: bytes,
        replace: bool = False,
        absttl: bool = False,
        idletime: int | None = None,
        frequency: int | None = None,
    ) -> Coro[bool]:
        """Make a key of what `dump` returned, to expire in `ttl` milliseconds (0: never). True."""
        options = [*flags(replace=replace, absttl=absttl), *option(b"IDLETIME", idletime), *option(b"FREQ", frequency)]
        return self._send((b"RESTORE", name, ttl, value, *options), is_ok)

    def sort(
        self,
        name: Key,
        start: int | None = None,
        num: int | None = None,
        by: Key | None = None,
        get: Key | Iterable[Key] | None = None,
        desc: bool = False,
        alpha: bool = False,
        store: Key | None = None,
        groups: bool = False,
    ) -> Coro[Any]:
        """The members of a list, set or sorted set in order; with `store`, how many were stored in that key.

        `num` members from `start` on, ordered `by` other keys, and as `get` says other keys' values instead; if those
        are several and `groups` is set, as tuples.
        """
        wanted = [] if get is None else words(get)
        options = [*_sorting(start, num, by, wanted, desc, alpha), *option(b"STORE", store)]
        return self._send((b"SORT", name, *options), grouped(len(wanted)) if groups else None)

    def sort_ro(
        self,
        key: Key,
        start: int | None = None,
        num: int | None = None,
        by: Key | None = None,
        get: Key | Iterable[Key] | None = None,
        desc: bool = False,
        alpha: bool = False,
    ) -> Coro[list[S | None]]:
        """As `sort`, without storing, so that a replica can do it."""
        wanted = [] if get is None else words(get)
        return self._send((b"SORT_RO", key, *_sorting(start, num, by, wanted, desc, alpha)))

    def touch(self, *args: Key) -> Coro[int]:
        """Count as used just now; how many of the keys exist."""
        return self._send((b"TOUCH", *args))

    def ttl(self, name: Key) -> Coro[int]:
        """In how many seconds a key expires; -1 if it does not, -2 if it does not exist."""
        return self._send((b"TTL", name))

    def type(self, name: Key) -> Coro[S]:
        """What kind of value a key holds: string, list, set, zset, hash, stream; none if it does not exist."""
        return self._send((b"TYPE", name))

    def unlink(self, *names: Key) -> Coro[int]:
        """Delete keys, and let the server free their memory later; how many there were."""
        return self._send((b"UNLINK", *names))

    def scan(
        self, cursor: int = 0, match: Key | None = None, count: int | None = None, _type: str | None = None
    ) -> Coro[tuple[int, list[S]]]:
        """Some keys, and the cursor for the next ones; 0 when there are no more."""
        options = [*option(b"MATCH", match), *option(b"COUNT", count), *option(b"TYPE", _type)]
        return self._send((b"SCAN", cursor, *options), page(list))

    def scan_iter(self, match: Key | None = None, count: int | None = None, _type: str | None = None) -> Scan[list[S]]:
        """All keys that match, a batch at a time: see `Scan`. Does not suspend."""
        return Scan(lambda cursor: self.scan(cursor, match, count, _type))


def _sorting(
    start: int | None, num: int | None, by: Key | None, get: list[Argument], desc: bool, alpha: bool
) -> list[Argument]:
    if (start is None) != (num is None):
        raise ValueError("sort: start and num go together")
    limit: list[Argument] = [] if start is None or num is None else [b"LIMIT", start, num]
    wanted = [word for pattern in get for word in (b"GET", pattern)]
    return [*option(b"BY", by), *limit, *wanted, *flags(desc=desc, alpha=alpha)]
