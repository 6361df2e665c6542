"""Where the keys stand in a command, and whether it only reads: what sends a command to its node of a cluster.

RESP does not mark keys: `MSET k v k v`, `EVAL script 2 k k arg`, `XREAD COUNT 1 STREAMS k k id id`. The server knows,
and tells by `COMMAND INFO` (for keys at fixed positions) and `COMMAND GETKEYS` (for one whole command). That costs a
round trip, so the commands of Redis itself stand in a table here; the client asks the server about the rest, those of
modules and of versions to come.

Specification: https://redis.io/docs/latest/develop/reference/key-specs/ and https://redis.io/docs/latest/commands/command/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from coro.redis.resp import Argument, bytes_of

Finder: TypeAlias = Callable[[Sequence[Argument]], Sequence[int]]


class Rule(NamedTuple):
    """How one command treats keys."""

    find: Finder  # the positions of its keys among its arguments (its name is at 0)
    reads: bool = False  # it changes nothing: a replica can carry it out


def command_name(args: Sequence[Argument]) -> bytes:
    """The name in capitals, with its subcommand where it is one of several: `GET`, `SCRIPT LOAD`."""
    name = _word(args[0]) if args else b""
    if name in CONTAINERS and len(args) > 1:
        return name + b" " + _word(args[1])
    return name


def keys_of(args: Sequence[Argument], rule: Rule) -> list[bytes]:
    """The keys of a command, in their order. TypeError for what cannot be sent."""
    return [bytes_of(args[position]) for position in rule.find(args)]


def told_rule(info: Any) -> Rule | None:
    """The rule that one element of a reply to COMMAND INFO tells; None if keys may be anywhere: ask GETKEYS."""
    _name, _arity, flags, first, last, step = info[:6]
    if b"movablekeys" in flags:
        return None
    return Rule(_range(first, last, step), b"readonly" in flags)


def _word(arg: Argument) -> bytes:
    if isinstance(arg, str):
        return arg.encode("utf-8", "replace").upper()
    return bytes(arg).upper() if isinstance(arg, (bytes, bytearray, memoryview)) else b""


# --- The ways to find them -----------------------------------------------------------------


def _range(first: int, last: int = 0, step: int = 1) -> Finder:
    """From `first` to `last` (from the end if negative), each `step`-th argument."""
    if not first:
        return lambda args: ()
    if last >= 0:
        return lambda args: range(first, min(max(first, last) + 1, len(args)), step)
    return lambda args: range(first, len(args) + last + 1, step)


def _numbered(at: int, *fixed: int) -> Finder:
    """At the `fixed` positions, and as many as the argument `at` says right behind it."""

    def find(args: Sequence[Argument]) -> Sequence[int]:
        try:
            count = int(bytes_of(args[at]))
        except (IndexError, ValueError):
            return fixed  # the server will find fault with it
        return (*fixed, *range(at + 1, min(at + 1 + max(count, 0), len(args))))

    return find


def _streams(args: Sequence[Argument]) -> Sequence[int]:
    """XREAD, XREADGROUP: the first half of what stands behind STREAMS; the other half are ids."""
    position = 1
    while position < len(args):
        word = _word(args[position])
        position += 1 + _STREAM_OPTIONS.get(word, 0)
        if word == b"STREAMS":
            return range(position, position + (len(args) - position) // 2)
    return ()


_STREAM_OPTIONS = {b"BLOCK": 1, b"COUNT": 1, b"GROUP": 2}  # how many words belong to each


def _stored(*options: bytes) -> Finder:
    """The first argument, and the one behind an option that names where the result goes (the last such one)."""

    def find(args: Sequence[Argument]) -> Sequence[int]:
        stored = [position + 1 for position in range(2, len(args) - 1) if _word(args[position]) in options]
        return (1, *stored[-1:]) if len(args) > 1 else ()

    return find


def _migrated(args: Sequence[Argument]) -> Sequence[int]:
    """MIGRATE host port key db timeout ..., or with an empty key, and keys behind KEYS at the end."""
    if len(args) > 3 and bytes_of(args[3]):
        return (3,)
    for position in range(6, len(args)):
        if _word(args[position]) == b"KEYS":
            return range(position + 1, len(args))
    return ()


# --- The table -----------------------------------------------------------------------------

_NONE, _FIRST, _SECOND, _TWO, _ALL = _range(0), _range(1), _range(2), _range(1, 2), _range(1, -1)

# One key, right behind the name: nearly everything.
ONE_KEY_READS = frozenset(
    b"""BITCOUNT BITFIELD_RO BITPOS DUMP EXPIRETIME GEODIST GEOHASH GEOPOS GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH
    GET GETBIT GETRANGE HEXISTS HEXPIRETIME HGET HGETALL HKEYS HLEN HMGET HPEXPIRETIME HPTTL HRANDFIELD HSCAN
    HSTRLEN HTTL HVALS LINDEX LLEN LPOS LRANGE PEXPIRETIME PTTL SCARD SISMEMBER SMEMBERS SMISMEMBER SORT_RO
    SRANDMEMBER SSCAN STRLEN SUBSTR TTL TYPE XLEN XPENDING XRANGE XREVRANGE ZCARD ZCOUNT ZLEXCOUNT ZMSCORE
    ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN
    ZSCORE""".split()
)
ONE_KEY = ONE_KEY_READS | frozenset(
    b"""APPEND BITFIELD DECR DECRBY EXPIRE EXPIREAT GEOADD GETDEL GETEX GETSET HDEL HEXPIRE HEXPIREAT HGETDEL HGETEX
    HINCRBY HINCRBYFLOAT HMSET HPERSIST HPEXPIRE HPEXPIREAT HSET HSETEX HSETNX INCR INCRBY INCRBYFLOAT LINSERT
    LPOP LPUSH LPUSHX LREM LSET LTRIM MOVE PERSIST PEXPIRE PEXPIREAT PFADD PSETEX RESTORE RESTORE-ASKING RPOP
    RPUSH RPUSHX SADD SET SETBIT SETEX SETNX SETRANGE SPOP SPUBLISH SREM XACK XADD XAUTOCLAIM XCLAIM XDEL XSETID
    XTRIM ZADD ZINCRBY ZPOPMAX ZPOPMIN ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE""".split()
)

CONTAINERS = frozenset(
    b"""ACL CLIENT CLUSTER COMMAND CONFIG FUNCTION LATENCY MEMORY MODULE OBJECT PUBSUB SCRIPT SLOWLOG XGROUP
    XINFO""".split()
)
_KEYLESS = b"""ACL ASKING AUTH BGREWRITEAOF BGSAVE CLIENT CLUSTER COMMAND CONFIG DBSIZE DEBUG DISCARD ECHO EXEC FAILOVER
    FLUSHALL FLUSHDB FUNCTION HELLO INFO KEYS LASTSAVE LATENCY LOLWUT MEMORY MODULE MONITOR MULTI OBJECT
    PFSELFTEST PING PSUBSCRIBE PSYNC PUBLISH PUBSUB PUNSUBSCRIBE QUIT RANDOMKEY READONLY READWRITE REPLCONF
    REPLICAOF RESET ROLE SAVE SCAN SCRIPT SELECT SHUTDOWN SLAVEOF SLOWLOG SUBSCRIBE SWAPDB SYNC TIME UNSUBSCRIBE
    UNWATCH WAIT WAITAOF XGROUP XINFO"""


def _rules(names: bytes, find: Finder, reads: bool = False) -> dict[bytes, Rule]:
    return dict.fromkeys(names.split(), Rule(find, reads))


RULES: dict[bytes, Rule] = {
    **dict.fromkeys(ONE_KEY, Rule(_FIRST)),
    **dict.fromkeys(ONE_KEY_READS, Rule(_FIRST, True)),
    **_rules(_KEYLESS, _NONE),
    **_rules(b"EXISTS MGET PFCOUNT SDIFF SINTER SUNION TOUCH", _ALL, True),
    **_rules(b"DEL PFMERGE SDIFFSTORE SINTERSTORE SSUBSCRIBE SUNIONSTORE SUNSUBSCRIBE UNLINK WATCH", _ALL),
    **_rules(b"MSET MSETNX", _range(1, -1, 2)),
    **_rules(b"LCS", _TWO, True),
    **_rules(b"BLMOVE BRPOPLPUSH COPY GEOSEARCHSTORE LMOVE RENAME RENAMENX RPOPLPUSH SMOVE ZRANGESTORE", _TWO),
    **_rules(b"BLPOP BRPOP BZPOPMAX BZPOPMIN", _range(1, -2)),
    **_rules(b"BITOP", _range(2, -1)),
    **_rules(b"PFDEBUG", _SECOND),
    **_rules(b"SINTERCARD ZDIFF ZINTER ZINTERCARD ZUNION", _numbered(1), True),
    **_rules(b"LMPOP ZMPOP", _numbered(1)),
    **_rules(b"BLMPOP BZMPOP", _numbered(2)),
    **_rules(b"EVALSHA_RO EVAL_RO FCALL_RO", _numbered(2), True),
    **_rules(b"EVAL EVALSHA FCALL", _numbered(2)),
    **_rules(b"ZDIFFSTORE ZINTERSTORE ZUNIONSTORE", _numbered(2, 1)),
    **_rules(b"XREAD", _streams, True),
    **_rules(b"XREADGROUP", _streams),
    **_rules(b"SORT", _stored(b"STORE")),
    **_rules(b"GEORADIUS GEORADIUSBYMEMBER", _stored(b"STORE", b"STOREDIST")),
    **_rules(b"MIGRATE", _migrated),
    **{
        container + b" " + subcommand: Rule(_SECOND, reads)
        for container, reads, subcommands in (
            (b"MEMORY", True, b"USAGE"),
            (b"OBJECT", True, b"ENCODING FREQ IDLETIME REFCOUNT"),
            (b"XGROUP", False, b"CREATE CREATECONSUMER DELCONSUMER DESTROY SETID"),
            (b"XINFO", True, b"CONSUMERS GROUPS STREAM"),
        )
        for subcommand in subcommands.split()
    },
}


def rule_for(name: bytes) -> Rule | None:
    """The rule for a command by its `command_name`; None if it is not in the table."""
    rule = RULES.get(name)
    if rule is None and b" " in name:  # a subcommand without keys
        rule = RULES[name.partition(b" ")[0]]
    return rule
