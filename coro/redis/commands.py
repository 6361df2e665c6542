"""The commands that people use, as methods with types; and which commands a shared connection cannot take.

Names and the order of arguments are those of redis-py, so that habits carry over. A method returns a generator: drive
it with `yield from`. Values are bytes. Every method raises what `Redis.execute` raises.

Specification: https://redis.io/docs/latest/commands/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from coro.redis.errors import OwnConnectionError
from coro.redis.resp import Argument
from coro.task import Coro

Key: TypeAlias = bytes | str


class Commands:
    """The typed commands. A subclass says how a command is carried out."""

    def _send(self, args: Sequence[Argument]) -> Coro[Any]:
        """Carry out the command `args`; its reply. Suspends."""
        raise NotImplementedError

    def ping(self) -> Coro[bool]:
        """True if the server answers."""
        return bool((yield from self._send((b"PING",))) == b"PONG")

    # --- Strings -------------------------------------------------------------

    def get(self, name: Key) -> Coro[bytes | None]:
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
        return (yield from self._send(args)) is not None

    def getdel(self, name: Key) -> Coro[bytes | None]:
        """The value of a key, or None; the key is deleted."""
        return self._send((b"GETDEL", name))

    def mget(self, keys: Key | Iterable[Key], *args: Key) -> Coro[list[bytes | None]]:
        """The values of several keys, in their order; None for one that does not exist."""
        return self._send((b"MGET", *([keys] if isinstance(keys, (bytes, str)) else keys), *args))

    def mset(self, mapping: Mapping[Key, Argument]) -> Coro[None]:
        """Set several keys at once."""
        yield from self._send((b"MSET", *(word for pair in mapping.items() for word in pair)))

    def incr(self, name: Key, amount: int = 1) -> Coro[int]:
        """Add to the number in a key, which counts as 0 if it does not exist; the sum."""
        return self._send((b"INCRBY", name, amount))

    def decr(self, name: Key, amount: int = 1) -> Coro[int]:
        """Subtract from the number in a key, which counts as 0 if it does not exist; the difference."""
        return self._send((b"DECRBY", name, amount))

    # --- Keys ----------------------------------------------------------------

    def delete(self, *names: Key) -> Coro[int]:
        """Delete keys; how many there were."""
        return self._send((b"DEL", *names))

    def exists(self, *names: Key) -> Coro[int]:
        """How many of the keys exist; one that is named twice counts twice."""
        return self._send((b"EXISTS", *names))

    def expire(self, name: Key, time: int) -> Coro[bool]:
        """Have a key expire in `time` seconds; False if it does not exist."""
        return bool((yield from self._send((b"EXPIRE", name, time))))

    def pexpire(self, name: Key, time: int) -> Coro[bool]:
        """Have a key expire in `time` milliseconds; False if it does not exist."""
        return bool((yield from self._send((b"PEXPIRE", name, time))))

    def persist(self, name: Key) -> Coro[bool]:
        """Have a key not expire; False if it would not have, or does not exist."""
        return bool((yield from self._send((b"PERSIST", name))))

    def ttl(self, name: Key) -> Coro[int]:
        """In how many seconds a key expires; -1 if it does not, -2 if it does not exist."""
        return self._send((b"TTL", name))

    def pttl(self, name: Key) -> Coro[int]:
        """In how many milliseconds a key expires; -1 if it does not, -2 if it does not exist."""
        return self._send((b"PTTL", name))


# --- What cannot be shared --------------------------------------------------------------

_BLOCKS = "it blocks"
_CHANGES = "it changes the connection"
_REPLIES = "it is not answered by one reply"

_REFUSED: dict[bytes, str] = {
    **dict.fromkeys(b"BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN WAIT WAITAOF".split(), _BLOCKS),
    **dict.fromkeys(
        b"ASKING AUTH DISCARD EXEC HELLO MULTI QUIT READONLY READWRITE RESET SELECT UNWATCH WATCH".split(),
        _CHANGES,
    ),
    **dict.fromkeys(
        b"MONITOR PSUBSCRIBE PSYNC PUNSUBSCRIBE REPLCONF SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE SYNC UNSUBSCRIBE".split(),
        _REPLIES,
    ),
}
_REFUSED_WITH: dict[tuple[bytes, bytes], str] = {  # the command with this as its first argument
    (b"CLIENT", b"CACHING"): _CHANGES,
    (b"CLIENT", b"NO-EVICT"): _CHANGES,
    (b"CLIENT", b"NO-TOUCH"): _CHANGES,
    (b"CLIENT", b"REPLY"): _REPLIES,
    (b"CLIENT", b"TRACKING"): _CHANGES,
    (b"SCRIPT", b"DEBUG"): _CHANGES,
}
_MAY_BLOCK = frozenset((b"XREAD", b"XREADGROUP"))  # if BLOCK stands among its options, which end at STREAMS
_HAS_RULES = frozenset((*_REFUSED, *(name for name, _ in _REFUSED_WITH), *_MAY_BLOCK))


def check_shareable(args: Sequence[Argument]) -> None:
    """`OwnConnectionError` for a command that would hold up, or change, a connection that others use as well."""
    name = _word(args[0]) if args else b""
    if name not in _HAS_RULES:
        return
    reason = _REFUSED.get(name)
    if reason is None and len(args) > 1:
        reason = _REFUSED_WITH.get((name, _word(args[1])))
    if reason is None and name in _MAY_BLOCK:
        options = [_word(arg) for arg in args[1:]]
        if b"BLOCK" in options[: options.index(b"STREAMS") if b"STREAMS" in options else None]:
            reason = _BLOCKS
    if reason is not None:
        raise OwnConnectionError(
            f"{name.decode()} needs a connection of its own, because {reason}: this one is shared by all tasks"
        )


def _word(arg: Argument) -> bytes:
    if isinstance(arg, str):
        return arg.encode("utf-8", "replace").upper()
    return bytes(arg).upper() if isinstance(arg, (bytes, bytearray, memoryview)) else b""
