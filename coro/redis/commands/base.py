"""What a typed command is made of: its words, and what becomes of the reply.

A command method puts the words together and hands them to `_send`, with a function that turns the reply into the
Python value that the method promises, the same in RESP2 and RESP3. How the words get to a server is for the subclass to
say: a client sends them, a pipeline collects them. So all of them offer the same commands.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

from coro.redis.errors import OwnConnectionError
from coro.redis.resp import Argument
from coro.task import Coro

if TYPE_CHECKING:  # type checkers bring this module along; at run time nobody asks for the default
    from typing_extensions import TypeVar

    S = TypeVar("S", bound=bytes | str, default=bytes)
else:
    from typing import TypeVar

    S = TypeVar("S", bound=bytes | str)

Key: TypeAlias = bytes | str
Keys: TypeAlias = Key | Iterable[Key]
# Mapping is invariant in its keys, and a dict[str, ...] is to do as well as one with keys of both kinds: hence Any.
Fields: TypeAlias = Mapping[Any, Argument]
Names: TypeAlias = Mapping[Any, Key]
Scores: TypeAlias = Mapping[Any, float]
Convert: TypeAlias = Callable[[Any], Any] | None
Duration: TypeAlias = int | timedelta
Moment: TypeAlias = int | datetime  # an int is in the unit of the command, since 1970


class Sender(Generic[S]):
    """What the groups of commands stand on. `S` is what Redis's strings are here: bytes, or str with `decode`."""

    def _send(self, args: Sequence[Argument], convert: Convert = None) -> Coro[Any]:
        """Carry out the command `args`; its reply, as `convert` turns it. Suspends."""
        raise NotImplementedError

    def _wait(self, args: Sequence[Argument], seconds: float, convert: Convert = None) -> Coro[Any]:
        """As `_send`, for a command that the server may answer only after `seconds` (0: at any time, or never)."""
        raise OwnConnectionError(f"{args[0]!r} may block: here it would hold up everything behind it")


def words(first: Argument | Iterable[Argument], others: Iterable[Argument] = ()) -> list[Argument]:
    """Names that may be given as one, as several, or as a list."""
    if isinstance(first, (bytes, bytearray, memoryview, str, int, float)):
        return [first, *others]
    return [*first, *others]


def items(mapping: Mapping[Any, Argument]) -> ItemsView[Any, Argument]:
    """The keys with their values. TypeError for what is no mapping."""
    if not isinstance(mapping, Mapping):
        raise TypeError(f"{mapping!r:.80} ({type(mapping).__name__}) stands where a dict is to be")
    return mapping.items()


def pairs(mapping: Fields) -> list[Argument]:
    """Keys and values in turns. TypeError for what is no mapping."""
    return [word for pair in items(mapping) for word in pair]


def option(word: bytes, value: Argument | None) -> list[Argument]:
    """An option and its value; nothing without a value."""
    return [] if value is None else [word, value]


def flags(**given: object) -> list[Argument]:
    """The names, in capitals, of those that are true."""
    return [name.upper() for name, value in given.items() if value]


def seconds(time: Duration) -> int:
    return int(time.total_seconds()) if isinstance(time, timedelta) else time


def milliseconds(time: Duration) -> int:
    return time // timedelta(milliseconds=1) if isinstance(time, timedelta) else time


def unix_seconds(when: Moment) -> int:
    return int(when.timestamp()) if isinstance(when, datetime) else when


def unix_milliseconds(when: Moment) -> int:
    return int(when.timestamp() * 1000) if isinstance(when, datetime) else when


def expiry(
    ex: Duration | None = None, px: Duration | None = None, exat: Moment | None = None, pxat: Moment | None = None
) -> list[Argument]:
    """When a key is to expire: in seconds, milliseconds; at a time in seconds, milliseconds since 1970. ValueError."""
    if (ex, px, exat, pxat).count(None) < 3:
        raise ValueError("ex, px, exat and pxat all tell when a key expires: give one of them")
    if ex is not None:
        return [b"EX", seconds(ex)]
    if px is not None:
        return [b"PX", milliseconds(px)]
    if exat is not None:
        return [b"EXAT", unix_seconds(exat)]
    if pxat is not None:
        return [b"PXAT", unix_milliseconds(pxat)]
    return []
