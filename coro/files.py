"""Files, without the loop waiting for a disk.

A regular file is always "ready" to a selector and blocks all the same, so every operation is a call in a thread. These
calls have a limiter of their own: a disk that hangs keeps neither look-ups nor the program's other calls from running.

    with (yield from coro.open_file(path)) as file:
        while data := (yield from file.read(1 << 20)):
            ...

What this module does not offer is one call away: `yield from coro.on_disk(os.stat, path)`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, AnyStr, Generic, ParamSpec, TypeAlias, TypeVar, overload

from coro.errors import ClosedError
from coro.task import Coro
from coro.threads import default_limiter

if TYPE_CHECKING:
    from _typeshed import OpenBinaryMode, OpenTextMode

T = TypeVar("T")
P = ParamSpec("P")

Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

DISK_THREADS = 16  # calls at once in a run


def on_disk(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Coro[T]:
    """As `to_thread`, for calls that wait for a disk, such as `os.rename`. Suspends. Raises what the call raises."""
    return (yield from default_limiter("disk", DISK_THREADS).run(function, *args, **kwargs))


@overload
def open_file(path: Path, mode: OpenBinaryMode = "rb") -> Coro[File[bytes]]: ...
@overload
def open_file(path: Path, mode: OpenTextMode, *, encoding: str = "utf-8") -> Coro[File[str]]: ...
def open_file(path: Path, mode: str = "rb", *, encoding: str = "utf-8") -> Coro[File[Any]]:
    """Open a file as the builtin `open` does, but for bytes unless the mode has a "t" or no "b". Suspends. OSError.

    Close it, or use it in a `with` block, which closes it at its end.
    """
    opened: IO[Any] = yield from on_disk(open, path, mode, encoding=None if "b" in mode else encoding)
    return File(opened)


class File(Generic[AnyStr]):
    """An open file. Every operation but `close` suspends and raises OSError; ClosedError after it.

    For one task at a time. An operation that has begun is waited for when its task is cancelled: it uses its data.
    """

    def __init__(self, opened: IO[AnyStr]) -> None:
        self._file: IO[Any] = opened

    def read(self, limit: int = -1) -> Coro[AnyStr]:
        """The next `limit` bytes (or characters), fewer at the end; all the rest without a limit."""
        return self._call(self._file.read, limit)

    def read_line(self, limit: int = -1) -> Coro[AnyStr]:
        """The next line with its end, or the first `limit` bytes (or characters) of it; empty at the end."""
        return self._call(self._file.readline, limit)

    def write(self, data: AnyStr | bytearray | memoryview) -> Coro[None]:
        """Write all of `data`; some of it may stay in the file's buffer until `flush` or `close`."""
        yield from self._call(self._file.write, data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> Coro[int]:
        """Move to a place in the file, in bytes; the place."""
        return self._call(self._file.seek, offset, whence)

    def tell(self) -> Coro[int]:
        """The place in the file, in bytes."""
        return self._call(self._file.tell)

    def truncate(self, size: int) -> Coro[None]:
        """Cut the file, or extend it with zeros, to `size` bytes."""
        yield from self._call(self._file.truncate, size)

    def flush(self) -> Coro[None]:
        """Hand what is in the buffer to the kernel."""
        yield from self._call(self._file.flush)

    def sync(self) -> Coro[None]:
        """Return when the disk has all that was written (fsync(2))."""
        yield from self._call(self._sync)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def _call(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Coro[T]:
        if self._file.closed:
            raise ClosedError(f"{self!r}: the file was closed")
        return (yield from on_disk(method, *args, **kwargs))

    def fileno(self) -> int:
        """The descriptor's number, for calls of the `os` module. Does not suspend."""
        number: int = self._file.fileno()
        return number

    def close(self) -> None:
        """Close it, writing what is left in its buffer (some kilobytes) in this thread. Does not suspend. OSError.

        Can be repeated. Where the disk may be slow or full, `yield from file.flush()` before.
        """
        self._file.close()

    def __enter__(self) -> File[AnyStr]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<File {self._file.name!r}{', closed' if self._file.closed else ''}>"
