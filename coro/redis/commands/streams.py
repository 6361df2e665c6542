"""Streams: entries with ids, and the groups of consumers that share them.

An entry is a pair (id, fields); there are no fields where the entry itself has been deleted.

Specification: https://redis.io/docs/latest/commands/?group=stream
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from coro.redis.commands.base import Fields, Key, Names, S, Sender, flags, option, pairs
from coro.redis.replies import (
    claimed,
    entries,
    infos,
    is_ok,
    pending,
    pending_range,
    stream_info,
    stream_info_full,
    streams,
)
from coro.redis.resp import Argument
from coro.task import Coro

Entries: TypeAlias = list[tuple[S, dict[S, S]]]


class StreamCommands(Sender[S]):
    """Commands on values that are streams."""

    def xack(self, name: Key, groupname: Key, *ids: Key) -> Coro[int]:
        """Entries are done with; how many were pending."""
        return self._send((b"XACK", name, groupname, *ids))

    def xadd(
        self,
        name: Key,
        fields: Fields,
        id: Key = "*",
        maxlen: int | None = None,
        approximate: bool = True,
        nomkstream: bool = False,
        minid: Key | None = None,
        limit: int | None = None,
    ) -> Coro[S | None]:
        """Append an entry, and trim the stream as in `xtrim`; the entry's id, None if `nomkstream` forbade."""
        trim = _trim(maxlen, approximate, minid, limit)
        return self._send((b"XADD", name, *flags(nomkstream=nomkstream), *trim, id, *pairs(fields)))

    def xautoclaim(
        self,
        name: Key,
        groupname: Key,
        consumername: Key,
        min_idle_time: int,
        start_id: Key = "0-0",
        count: int | None = None,
        justid: bool = False,
    ) -> Coro[Any]:
        """Take over entries that others left pending for `min_idle_time` milliseconds.

        Returns [the id to go on from, the entries, the ids of deleted ones]; with `justid` only the ids of the entries.
        """
        options = [*option(b"COUNT", count), *flags(justid=justid)]
        args = (b"XAUTOCLAIM", name, groupname, consumername, min_idle_time, start_id, *options)
        return self._send(args, (lambda reply: reply[1]) if justid else claimed)

    def xclaim(
        self,
        name: Key,
        groupname: Key,
        consumername: Key,
        min_idle_time: int,
        message_ids: Iterable[Key],
        idle: int | None = None,
        time: int | None = None,
        retrycount: int | None = None,
        force: bool = False,
        justid: bool = False,
    ) -> Coro[list[Any]]:
        """Take over these entries if they were pending for `min_idle_time` milliseconds; with `justid` their ids."""
        options = [
            *option(b"IDLE", idle),
            *option(b"TIME", time),
            *option(b"RETRYCOUNT", retrycount),
            *flags(force=force, justid=justid),
        ]
        args = (b"XCLAIM", name, groupname, consumername, min_idle_time, *message_ids, *options)
        return self._send(args, None if justid else entries)

    def xdel(self, name: Key, *ids: Key) -> Coro[int]:
        """Delete entries; how many there were."""
        return self._send((b"XDEL", name, *ids))

    def xgroup_create(
        self, name: Key, groupname: Key, id: Key = "$", mkstream: bool = False, entries_read: int | None = None
    ) -> Coro[bool]:
        """Make a group that is given the entries after `id`. True. `BusyGroupError` if there is one."""
        options = [*flags(mkstream=mkstream), *option(b"ENTRIESREAD", entries_read)]
        return self._send((b"XGROUP", b"CREATE", name, groupname, id, *options), is_ok)

    def xgroup_createconsumer(self, name: Key, groupname: Key, consumername: Key) -> Coro[int]:
        """Make a consumer; 0 if there is one already."""
        return self._send((b"XGROUP", b"CREATECONSUMER", name, groupname, consumername))

    def xgroup_delconsumer(self, name: Key, groupname: Key, consumername: Key) -> Coro[int]:
        """Delete a consumer; how many entries were pending there, which nobody gets any more."""
        return self._send((b"XGROUP", b"DELCONSUMER", name, groupname, consumername))

    def xgroup_destroy(self, name: Key, groupname: Key) -> Coro[bool]:
        """Delete a group; whether there was one."""
        return self._send((b"XGROUP", b"DESTROY", name, groupname), bool)

    def xgroup_setid(self, name: Key, groupname: Key, id: Key, entries_read: int | None = None) -> Coro[bool]:
        """Have a group be given the entries after `id`. True."""
        options = option(b"ENTRIESREAD", entries_read)
        return self._send((b"XGROUP", b"SETID", name, groupname, id, *options), is_ok)

    def xinfo_consumers(self, name: Key, groupname: Key) -> Coro[list[dict[str, Any]]]:
        """About each consumer of a group."""
        return self._send((b"XINFO", b"CONSUMERS", name, groupname), infos)

    def xinfo_groups(self, name: Key) -> Coro[list[dict[str, Any]]]:
        """About each group of a stream."""
        return self._send((b"XINFO", b"GROUPS", name), infos)

    def xinfo_stream(self, name: Key, full: bool = False) -> Coro[dict[str, Any]]:
        """About a stream; with `full` also its entries and groups."""
        return self._send((b"XINFO", b"STREAM", name, *flags(full=full)), stream_info_full if full else stream_info)

    def xlen(self, name: Key) -> Coro[int]:
        """How many entries there are."""
        return self._send((b"XLEN", name))

    def xpending(self, name: Key, groupname: Key) -> Coro[dict[str, Any]]:
        """How many entries are pending: `pending`, `min` and `max` (ids), `consumers` (each `name`, `pending`)."""
        return self._send((b"XPENDING", name, groupname), pending)

    def xpending_range(
        self,
        name: Key,
        groupname: Key,
        min: Key,
        max: Key,
        count: int,
        consumername: Key | None = None,
        idle: int | None = None,
    ) -> Coro[list[dict[str, Any]]]:
        """Up to `count` pending entries: `message_id`, `consumer`, `time_since_delivered` (ms), `times_delivered`."""
        consumer = [] if consumername is None else [consumername]
        args = (b"XPENDING", name, groupname, *option(b"IDLE", idle), min, max, count, *consumer)
        return self._send(args, pending_range)

    def xrange(self, name: Key, min: Key = "-", max: Key = "+", count: int | None = None) -> Coro[Entries[S]]:
        """The entries from id `min` to `max`; up to `count` of them."""
        return self._send((b"XRANGE", name, min, max, *option(b"COUNT", count)), entries)

    def xread(
        self, streams: Names, count: int | None = None, block: int | None = None
    ) -> Coro[list[tuple[S, Entries[S]]]]:
        """The entries after the given id of each stream, as pairs (stream, entries); "$" stands for the last id.

        With `block` it waits so many milliseconds (0: for ever) for some, on a connection of its own.
        """
        return self._read([b"XREAD"], streams, count, block, [])

    def xreadgroup(
        self,
        groupname: Key,
        consumername: Key,
        streams: Names,
        count: int | None = None,
        block: int | None = None,
        noack: bool = False,
    ) -> Coro[list[tuple[S, Entries[S]]]]:
        """As `xread`, for a consumer of a group: ">" for entries that nobody was given yet, an id for its pending ones.

        Cancelled while it waits, it may already have been given entries: they are pending.
        """
        command: list[Argument] = [b"XREADGROUP", b"GROUP", groupname, consumername]
        return self._read(command, streams, count, block, flags(noack=noack))

    def xrevrange(self, name: Key, max: Key = "+", min: Key = "-", count: int | None = None) -> Coro[Entries[S]]:
        """The entries from id `max` down to `min`; up to `count` of them."""
        return self._send((b"XREVRANGE", name, max, min, *option(b"COUNT", count)), entries)

    def xtrim(
        self,
        name: Key,
        maxlen: int | None = None,
        approximate: bool = True,
        minid: Key | None = None,
        limit: int | None = None,
    ) -> Coro[int]:
        """Delete the oldest entries, all but `maxlen` or those before `minid`; how many that were.

        When `approximate`, some more may stay, which is much cheaper; `limit` bounds how many are deleted then.
        """
        return self._send((b"XTRIM", name, *_trim(maxlen, approximate, minid, limit)))

    def _read(
        self,
        command: list[Argument],
        names: Names,
        count: int | None,
        block: int | None,
        rest: list[Argument],
    ) -> Coro[Any]:
        options = [*option(b"COUNT", count), *option(b"BLOCK", block), *rest]
        args = (*command, *options, b"STREAMS", *names, *names.values())
        if block is None:
            return self._send(args, streams)
        return self._wait(args, block / 1000, streams)


def _trim(maxlen: int | None, approximate: bool, minid: Key | None, limit: int | None) -> list[Argument]:
    if maxlen is not None and minid is not None:
        raise ValueError("a stream is trimmed to maxlen or to minid, not to both")
    how: list[Argument] = [b"~"] if approximate else []
    if maxlen is not None:
        return [b"MAXLEN", *how, maxlen, *option(b"LIMIT", limit)]
    if minid is not None:
        return [b"MINID", *how, minid, *option(b"LIMIT", limit)]
    return []
