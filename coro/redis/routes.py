"""Which commands a connection that all tasks share can take, and which need one of their own.

Specification: https://redis.io/docs/latest/commands/
"""

from __future__ import annotations

from collections.abc import Sequence

from coro.redis.errors import OwnConnectionError
from coro.redis.resp import Argument

BLOCKS = "it blocks"
_CHANGES = "it changes the connection"
_REPLIES = "it is not answered by one reply"
_WAITS = "it is about what its connection wrote before"

_REFUSED: dict[bytes, str] = {
    **dict.fromkeys(b"BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN".split(), BLOCKS),
    **dict.fromkeys(b"WAIT WAITAOF".split(), _WAITS),
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


def why_not_shared(args: Sequence[Argument]) -> str | None:
    """Why a command would hold up, or change, a connection that others use as well; None if it would not.

    `BLOCKS` is the one reason for which any other connection will do.
    """
    name = _word(args[0]) if args else b""
    if name not in _HAS_RULES:
        return None
    reason = _REFUSED.get(name)
    if reason is None and len(args) > 1:
        reason = _REFUSED_WITH.get((name, _word(args[1])))
    if reason is None and name in _MAY_BLOCK:
        options = [_word(arg) for arg in args[1:]]
        if b"BLOCK" in options[: options.index(b"STREAMS") if b"STREAMS" in options else None]:
            reason = BLOCKS
    return reason


def check_shareable(args: Sequence[Argument]) -> None:
    """`OwnConnectionError` for a command that would hold up, or change, a connection that others use as well."""
    reason = why_not_shared(args)
    if reason is not None:
        raise refusal(args, reason)


def may_block(args: Sequence[Argument]) -> bool:
    """Is it a command that the server may answer only after a while, or never?"""
    return why_not_shared(args) in (BLOCKS, _WAITS)


def check_answered(args: Sequence[Argument]) -> None:
    """`OwnConnectionError` for a command that is not answered by one reply."""
    if why_not_shared(args) == _REPLIES:
        raise refusal(args, _REPLIES)


def check_lendable(args: Sequence[Argument]) -> None:
    """`OwnConnectionError` for a command that would change a connection which others use afterwards."""
    reason = why_not_shared(args)
    if reason is not None and reason != BLOCKS:
        raise refusal(args, reason)


def refusal(args: Sequence[Argument], reason: str) -> OwnConnectionError:
    """The error for a command that was to be sent where it must not be."""
    return OwnConnectionError(
        f"{_word(args[0]).decode('utf-8', 'backslashreplace')} needs a connection of its own, because {reason}:"
        " see Redis.transaction, Redis.pubsub and Redis.session"
    )


def _word(arg: Argument) -> bytes:
    if isinstance(arg, str):
        return arg.encode("utf-8", "replace").upper()
    return bytes(arg).upper() if isinstance(arg, (bytes, bytearray, memoryview)) else b""
