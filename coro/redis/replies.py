"""What becomes of replies: functions that turn a reply of RESP2, or of RESP3, into the same Python value.

RESP2 has neither maps nor numbers with a fraction: where RESP3 sends a map, RESP2 sends an array in which keys and
values take turns, and a number is a string. Each function here takes either form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def is_ok(reply: Any) -> bool:
    """Whether the server said OK."""
    return bool(reply == b"OK")


def was_done(reply: Any) -> bool:
    """Whether there is a reply, for commands that answer null when they did nothing."""
    return reply is not None


def as_bytes(reply: Any) -> Any:
    """The reply as it is, also where strings are text: what it holds is not text."""
    return reply


def decoded(value: Any) -> Any:
    """`value`, with str for bytes everywhere in it. UnicodeDecodeError for what is not UTF-8."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [decoded(element) for element in value]
    if isinstance(value, dict):
        return {decoded(key): decoded(element) for key, element in value.items()}
    if value.__class__ is tuple:
        return tuple(decoded(element) for element in value)
    if isinstance(value, set):
        return {decoded(element) for element in value}
    if isinstance(value, frozenset):
        return frozenset(decoded(element) for element in value)
    return value


def result(reply: Any, convert: Callable[[Any], Any] | None, decode: bool) -> Any:
    """What a command method returns for `reply`."""
    if convert is not None:
        reply = convert(reply)
    return decoded(reply) if decode and convert is not as_bytes else reply
