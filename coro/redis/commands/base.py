"""What a typed command is made of: its words, and what becomes of the reply.

A command method puts the words together and hands them to `_send`, with a function that turns the reply into the
Python value that the method promises, the same in RESP2 and RESP3. How the words get to a server is for the subclass to
say: a client sends them, a pipeline collects them. So all of them offer the same commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

from coro.redis.errors import OwnConnectionError
from coro.redis.resp import Argument
from coro.task import Coro

if TYPE_CHECKING:  # type checkers bring this module along; at run time nobody asks for the default
    from typing_extensions import TypeVar

    S = TypeVar("S", bytes, str, default=bytes)
else:
    from typing import TypeVar

    S = TypeVar("S", bytes, str)

Key: TypeAlias = bytes | str
Convert: TypeAlias = Callable[[Any], Any] | None


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


def pairs(mapping: Mapping[Any, Argument]) -> list[Argument]:
    """Keys and values in turns."""
    return [word for pair in mapping.items() for word in pair]
