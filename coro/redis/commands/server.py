"""The server, its clients and its channels.

What would change the connection itself (CLIENT TRACKING, SELECT, ...) is not here: all tasks share it.

Specification: https://redis.io/docs/latest/commands/?group=server
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from coro.redis.commands.base import Key, S, Sender, flags, option
from coro.redis.replies import (
    as_dicts,
    as_info,
    client_info,
    client_list,
    counts,
    info,
    is_ok,
    latencies,
    memory_stats,
    server_time,
    settings,
    slow_log,
    text,
    unix_time,
)
from coro.redis.resp import Argument
from coro.task import Coro


class ServerCommands(Sender[S]):
    """Commands to the server itself."""

    def bgrewriteaof(self) -> Coro[bool]:
        """Have the append-only file rewritten in the background. True."""
        return self._send((b"BGREWRITEAOF",), _always)

    def bgsave(self, schedule: bool = True) -> Coro[bool]:
        """Have the data saved in the background, with `schedule` after what runs already. True."""
        return self._send((b"BGSAVE", *flags(schedule=schedule)), _always)

    def command_count(self) -> Coro[int]:
        """How many commands the server has."""
        return self._send((b"COMMAND", b"COUNT"))

    def config_get(self, pattern: Key = "*", *args: Key) -> Coro[dict[str, str]]:
        """The settings whose names match."""
        return self._send((b"CONFIG", b"GET", pattern, *args), settings)

    def config_resetstat(self) -> Coro[bool]:
        """Reset the counters that `info` shows. True."""
        return self._send((b"CONFIG", b"RESETSTAT"), is_ok)

    def config_rewrite(self) -> Coro[bool]:
        """Write the settings to the server's file. True."""
        return self._send((b"CONFIG", b"REWRITE"), is_ok)

    def config_set(self, name: Key, value: Argument, *args: Argument) -> Coro[bool]:
        """Change a setting, or several. True."""
        return self._send((b"CONFIG", b"SET", name, value, *args), is_ok)

    def dbsize(self) -> Coro[int]:
        """How many keys the database has."""
        return self._send((b"DBSIZE",))

    def echo(self, value: Argument) -> Coro[S]:
        """The value."""
        return self._send((b"ECHO", value))

    def flushall(self, asynchronous: bool = False) -> Coro[bool]:
        """Delete all keys of all databases. True."""
        return self._send((b"FLUSHALL", *([b"ASYNC"] if asynchronous else [])), is_ok)

    def flushdb(self, asynchronous: bool = False) -> Coro[bool]:
        """Delete all keys of the database. True."""
        return self._send((b"FLUSHDB", *([b"ASYNC"] if asynchronous else [])), is_ok)

    def info(self, section: str | None = None, *args: str) -> Coro[dict[str, Any]]:
        """What the server tells of itself, or those sections of it; numbers as numbers, lists as dicts."""
        return self._send((b"INFO", *([] if section is None else [section]), *args), info)

    def lastsave(self) -> Coro[datetime]:
        """When the data were saved last, in local time."""
        return self._send((b"LASTSAVE",), unix_time)

    def latency_history(self, event: str) -> Coro[list[list[int]]]:
        """[time, milliseconds] of each spike."""
        return self._send((b"LATENCY", b"HISTORY", event))

    def latency_latest(self) -> Coro[list[list[Any]]]:
        """[event, time of the last spike, its milliseconds, those of the worst] of each event."""
        return self._send((b"LATENCY", b"LATEST"), latencies)

    def latency_reset(self, *events: str) -> Coro[int]:
        """Forget the spikes of these events, or all; how many events that were."""
        return self._send((b"LATENCY", b"RESET", *events))

    def memory_purge(self) -> Coro[bool]:
        """Have the allocator give memory back. True."""
        return self._send((b"MEMORY", b"PURGE"), is_ok)

    def memory_stats(self) -> Coro[dict[str, Any]]:
        """What the memory is used for."""
        return self._send((b"MEMORY", b"STATS"), memory_stats)

    def memory_usage(self, key: Key, samples: int | None = None) -> Coro[int | None]:
        """How many bytes a key takes, estimated from so many of its elements; None if it does not exist."""
        return self._send((b"MEMORY", b"USAGE", key, *option(b"SAMPLES", samples)))

    def module_list(self) -> Coro[list[dict[str, Any]]]:
        """About each module that is loaded."""
        return self._send((b"MODULE", b"LIST"), as_dicts)

    def ping(self) -> Coro[bool]:
        """True if the server answers."""
        return self._send((b"PING",), lambda reply: reply == b"PONG")

    def replicaof(self, *args: Argument) -> Coro[bool]:
        """Be a replica of host and port, or of "NO", "ONE". True."""
        return self._send((b"REPLICAOF", *args), _always)

    def role(self) -> Coro[list[Any]]:
        """The server's role and, by role, its replication."""
        return self._send((b"ROLE",))

    def save(self) -> Coro[bool]:
        """Have the data saved now, which holds up everybody. True."""
        return self._send((b"SAVE",), is_ok)

    def slowlog_get(self, num: int | None = None) -> Coro[list[dict[str, Any]]]:
        """The slowest commands: `id`, `start_time`, `duration` (microseconds), `command`, client's address and name."""
        return self._send((b"SLOWLOG", b"GET", *([] if num is None else [num])), slow_log)

    def slowlog_len(self) -> Coro[int]:
        """How many commands are in the slow log."""
        return self._send((b"SLOWLOG", b"LEN"))

    def slowlog_reset(self) -> Coro[bool]:
        """Empty the slow log. True."""
        return self._send((b"SLOWLOG", b"RESET"), is_ok)

    def swapdb(self, first: int, second: int) -> Coro[bool]:
        """Swap two databases. True."""
        return self._send((b"SWAPDB", first, second), is_ok)

    def time(self) -> Coro[tuple[int, int]]:
        """The server's time: seconds since 1970, and microseconds."""
        return self._send((b"TIME",), server_time)

    # --- Clients -------------------------------------------------------------

    def client_getname(self) -> Coro[S | None]:
        """The name of this client's shared connection, or None."""
        return self._send((b"CLIENT", b"GETNAME"))

    def client_id(self) -> Coro[int]:
        """The number of this client's shared connection."""
        return self._send((b"CLIENT", b"ID"))

    def client_info(self) -> Coro[dict[str, Any]]:
        """About this client's shared connection."""
        return self._send((b"CLIENT", b"INFO"), client_info)

    def client_kill(self, address: str) -> Coro[bool]:
        """Close the connection from that "host:port". True. `ReplyError` if there is none."""
        return self._send((b"CLIENT", b"KILL", address), is_ok)

    def client_kill_filter(
        self,
        _id: int | None = None,
        _type: str | None = None,
        addr: str | None = None,
        skipme: bool | None = None,
        laddr: str | None = None,
        user: str | None = None,
    ) -> Coro[int]:
        """Close the connections that all of this is true of; how many that were."""
        skip = None if skipme is None else "YES" if skipme else "NO"
        options = [*option(b"ID", _id), *option(b"TYPE", _type), *option(b"ADDR", addr), *option(b"SKIPME", skip)]
        return self._send((b"CLIENT", b"KILL", *options, *option(b"LADDR", laddr), *option(b"USER", user)))

    def client_list(self, _type: str | None = None, client_id: list[int] | None = None) -> Coro[list[dict[str, str]]]:
        """About each connection, of a type or with these numbers."""
        ids: list[Argument] = [b"ID", *client_id] if client_id else []
        return self._send((b"CLIENT", b"LIST", *option(b"TYPE", _type), *ids), client_list)

    def client_pause(self, timeout: int, all: bool = True) -> Coro[bool]:
        """Have commands (or only writes) wait for `timeout` milliseconds. True."""
        return self._send((b"CLIENT", b"PAUSE", timeout, b"ALL" if all else b"WRITE"), is_ok)

    def client_unblock(self, client_id: int, error: bool = False) -> Coro[bool]:
        """End what another connection waits for, as if the time were up or with an error; whether it waited."""
        return self._send((b"CLIENT", b"UNBLOCK", client_id, *flags(error=error)), bool)

    def client_unpause(self) -> Coro[bool]:
        """End a pause. True."""
        return self._send((b"CLIENT", b"UNPAUSE"), is_ok)

    # --- Channels ------------------------------------------------------------

    def publish(self, channel: Key, message: Argument) -> Coro[int]:
        """Send a message to who has subscribed; how many that are (on this node)."""
        return self._send((b"PUBLISH", channel, message))

    def spublish(self, shard_channel: Key, message: Argument) -> Coro[int]:
        """As `publish`, to a sharded channel."""
        return self._send((b"SPUBLISH", shard_channel, message))

    def pubsub_channels(self, pattern: Key = "*") -> Coro[list[S]]:
        """The channels that match and have a subscriber."""
        return self._send((b"PUBSUB", b"CHANNELS", pattern))

    def pubsub_numpat(self) -> Coro[int]:
        """How many patterns are subscribed to."""
        return self._send((b"PUBSUB", b"NUMPAT"))

    def pubsub_numsub(self, *args: Key) -> Coro[list[tuple[S, int]]]:
        """Each channel, and how many have subscribed to it."""
        return self._send((b"PUBSUB", b"NUMSUB", *args), counts)

    def pubsub_shardchannels(self, pattern: Key = "*") -> Coro[list[S]]:
        """The sharded channels that match and have a subscriber."""
        return self._send((b"PUBSUB", b"SHARDCHANNELS", pattern))

    def pubsub_shardnumsub(self, *args: Key) -> Coro[list[tuple[S, int]]]:
        """Each sharded channel, and how many have subscribed to it."""
        return self._send((b"PUBSUB", b"SHARDNUMSUB", *args), counts)


def _always(reply: Any) -> bool:
    """For commands that answer with a text: that there is no error says enough."""
    return True


class AclCommands(Sender[S]):
    """Users and what they may do: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/"""

    def acl_cat(self, category: str | None = None) -> Coro[list[str]]:
        """The categories of commands, or the commands of one."""
        return self._send((b"ACL", b"CAT", *([] if category is None else [category])), text)

    def acl_deluser(self, *username: str) -> Coro[int]:
        """Delete users; how many there were."""
        return self._send((b"ACL", b"DELUSER", *username))

    def acl_dryrun(self, username: str, *args: Argument) -> Coro[Any]:
        """b"OK" if the user may carry out the command, else why not."""
        return self._send((b"ACL", b"DRYRUN", username, *args))

    def acl_genpass(self, bits: int | None = None) -> Coro[str]:
        """A random password, in hexadecimal digits."""
        return self._send((b"ACL", b"GENPASS", *([] if bits is None else [bits])), text)

    def acl_getuser(self, username: str) -> Coro[dict[str, Any] | None]:
        """About a user; None if there is none. What is a string to the server is text."""
        return self._send((b"ACL", b"GETUSER", username), lambda reply: text(as_info(reply)))

    def acl_list(self) -> Coro[list[str]]:
        """All users, as the rules that make them."""
        return self._send((b"ACL", b"LIST"), text)

    def acl_load(self) -> Coro[bool]:
        """Read the users from the server's file. True."""
        return self._send((b"ACL", b"LOAD"), is_ok)

    def acl_log(self, count: int | None = None) -> Coro[list[dict[str, Any]]]:
        """What was refused, the newest first."""
        return self._send((b"ACL", b"LOG", *([] if count is None else [count])), as_dicts)

    def acl_log_reset(self) -> Coro[bool]:
        """Empty that log. True."""
        return self._send((b"ACL", b"LOG", b"RESET"), is_ok)

    def acl_save(self) -> Coro[bool]:
        """Write the users to the server's file. True."""
        return self._send((b"ACL", b"SAVE"), is_ok)

    def acl_setuser(self, username: str, *rules: str) -> Coro[bool]:
        """Make or change a user by rules such as "on", ">password", "~key:*", "+@read". True."""
        return self._send((b"ACL", b"SETUSER", username, *rules), is_ok)

    def acl_users(self) -> Coro[list[str]]:
        """The names of all users."""
        return self._send((b"ACL", b"USERS"), text)

    def acl_whoami(self) -> Coro[str]:
        """The user of this client."""
        return self._send((b"ACL", b"WHOAMI"), text)
