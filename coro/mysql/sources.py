"""Data that are sent in pieces: the lines of LOAD DATA LOCAL, and parameters that are not to be held in memory whole.

A `Source` is the data themselves; or an iterable of pieces, such as a list or a generator; or a function that waits for
the next piece and returns b"" at the end, such as the `read` of a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from coro.mysql.errors import ProgrammingError
from coro.task import Coro

Source = bytes | bytearray | memoryview | Iterable[bytes] | Callable[[], Coro[bytes]]

PIECE: Final = 256 << 10  # bytes; what is longer is cut


@dataclass(slots=True, eq=False)
class LongData:
    """A parameter that is sent in pieces, before the statement is executed. To the server it is a BLOB.

    With `execute`, `results` and `fetch_...` of a connection or pool. It can be used once.
    """

    source: Source
    sent: bool = False


def pieces(source: Source) -> Callable[[], Coro[bytes]]:
    """A function that waits for the next piece, of whatever size; b"" at the end. ProgrammingError."""
    if isinstance(source, str):
        raise ProgrammingError("data are bytes: encode a text, open a file")
    if callable(source):
        return source
    rest = iter((bytes(source),) if isinstance(source, (bytes, bytearray, memoryview)) else source)

    def read() -> Coro[bytes]:
        while True:
            piece = next(rest, None)
            if piece is None:
                return b""
            if piece:
                return piece
        yield  # type: ignore[unreachable]

    return read
