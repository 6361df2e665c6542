"""One upload on its way to the disk: its part file, from the first byte to the whole file's name.

What only copies into the page cache is done in the loop's own thread; what may wait for the disk, or compute for long,
in others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import coro
from apps.upload.batches import Batches
from apps.upload.shared import Room
from coro import Coro, CoroError

if TYPE_CHECKING:
    from apps.upload.storage import Storage

PART = ".part"
PIECE_SIZE = 65536  # bytes asked for at once while an upload is slow; what is hashed at once in the loop's own thread
NO_FILE = -1


class TooLarge(CoroError):
    """More bytes than an upload may have."""


class Hash(Protocol):
    """What `hashlib` makes."""

    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...
    def digest(self) -> bytes: ...
    def copy(self) -> Self: ...


class StoredFile(NamedTuple):
    """A whole file, as durable as was asked for."""

    id: str
    path: str  # relative to the storage's directory
    size: int
    sha256: str | None


class Part:
    """A file that is being written, from its beginning to its end."""

    __slots__ = ("digests", "fd", "limit", "room", "size", "storage")

    def __init__(self, storage: Storage, fd: int = NO_FILE, size: int = 0) -> None:
        self.storage = storage
        self.fd = fd
        self.size = size  # bytes written so far
        self.limit: int | None = None  # bytes
        self.room: Room | None = None
        self.digests: list[Hash] = []  # of what is written

    @property
    def is_copied(self) -> bool:
        """Is writing no more than a copy into the page cache, without fsync and digests?"""
        return not (self.storage.durable or self.digests)

    def write(self, data: bytes | memoryview) -> Coro[None]:
        """Append to the file. Suspends. `TooLarge`, OSError."""
        if len(data) <= PIECE_SIZE and not self.storage.durable:
            self.write_nowait(data)
        else:
            self._count(data)
            yield from coro.on_disk(self._append, data)

    def write_nowait(self, data: bytes | memoryview) -> None:
        """`write` in the loop's own thread, of what `is_copied` or is little. Does not suspend. `TooLarge`, OSError."""
        self._count(data)
        self._append(data)

    def _count(self, data: bytes | memoryview) -> None:
        if self.limit is not None and self.size + len(data) > self.limit:
            raise TooLarge(f"this upload may have at most {self.limit} bytes")
        if self.room is not None:
            self.room.use(len(data))

    def _append(self, data: bytes | memoryview) -> None:
        # Blocks, and so runs in a thread unless durability is left to the operating system and the data are few.
        while True:
            written = os.pwrite(self.fd, data, self.size)
            self.size += written
            for digest in self.digests:
                digest.update(data[:written])
            if written == len(data):
                return
            data = memoryview(data)[written:]


class NewPart(Part):
    """One upload on its way to the disk, in one request."""

    __slots__ = ("directory", "id")

    def __init__(self, storage: Storage, directory: str, id: str) -> None:
        super().__init__(storage)
        self.directory = directory  # relative to the storage's
        self.id = id
        if storage.digest:
            self.digests.append(hashlib.sha256())

    @property
    def path(self) -> str:
        """Of the whole file, relative to the storage's directory."""
        return f"{self.directory}/{self.id}"

    def write(self, data: bytes | memoryview) -> Coro[None]:
        self.storage.claim(self)
        yield from super().write(data)
        self.storage.park(self)

    def write_nowait(self, data: bytes | memoryview) -> None:
        super().write_nowait(data)
        self.storage.park(self)

    def finish(self) -> Coro[StoredFile]:
        """Make the part file a whole one."""
        self.storage.claim(self)
        if self.storage.durable:
            yield from coro.on_disk(self._complete)
        else:
            self._complete()
        return self._stored()

    def write_whole(self, data: bytes) -> Coro[StoredFile]:
        """`write` and `finish` in one go."""
        self._count(data)
        if self.storage.durable:
            with coro.shield():  # what aborts it must come after what writes it
                yield from self.storage.small_files.add((self, data))
        else:
            self._write_in_place(data)
        return self._stored()

    def abort(self) -> Coro[None]:
        """Leave nothing behind."""
        self.storage.claim(self)
        self.close()
        yield from self.storage.discard(self.path + PART, self.path)

    def close(self) -> None:
        if self.fd != NO_FILE:
            os.close(self.fd)
            self.fd = NO_FILE

    def _stored(self) -> StoredFile:
        return StoredFile(self.id, self.path, self.size, self.digests[0].hexdigest() if self.storage.digest else None)

    # Blocking, as `Part._append` is:

    def _append(self, data: bytes | memoryview) -> None:
        self._open()
        super()._append(data)

    def _complete(self) -> None:
        self._open()  # again, if its descriptor was needed: fsync writes what was written through any descriptor
        if self.storage.durable:
            self.sync()
        self.rename()
        if self.storage.durable:
            self.sync_name()

    def write_soon(self, data: bytes) -> None:
        """Write it, and have the system begin to bring it to the disk."""
        self._append(data)
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)  # Linux writes dirty pages then, and does not wait

    def sync(self) -> None:
        os.fsync(self.fd)

    def rename(self) -> None:
        self.close()
        path = self._absolute
        os.rename(path + PART, path)

    def sync_name(self) -> None:
        sync_directory(os.path.dirname(self._absolute))

    def _write_in_place(self, data: bytes) -> None:
        # Without fsync there is no order to keep; and a file of a crashed run counts only if it has a row.
        self.fd = os.open(self._absolute, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._append(data)
        self.close()

    def _open(self) -> None:
        if self.fd == NO_FILE:
            self.fd = os.open(self._absolute + PART, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @property
    def _absolute(self) -> str:
        return f"{self.storage.directory}/{self.path}"


class SmallFiles(Batches[tuple[NewPart, bytes]]):
    """Writes and syncs whole small files, many in one call to a thread.

    A sync brings what all of them have changed in the file system to the disk, so those that follow it are cheap, and
    the directory is synced once. A batch of more than two milliseconds waits for the disk, which can do more then.
    """

    name = "file writer"
    kind = "fsync"
    at_once = 16
    patience = 0.002

    def work(self, batch: Sequence[tuple[NewPart, bytes]]) -> Coro[Sequence[Exception | None]]:
        return (yield from coro.on_disk(_write_all, batch))


def _write_all(batch: Sequence[tuple[NewPart, bytes]]) -> Sequence[Exception | None]:
    """For each file, what went wrong with it. Blocks."""
    contents = dict(batch)
    errors: dict[NewPart, OSError] = {}
    synced: set[str] = set()

    def each(step: Callable[[NewPart], None]) -> None:
        for part in [part for part in contents if part not in errors]:
            try:
                step(part)
            except OSError as error:
                errors[part] = error

    def sync_name(part: NewPart) -> None:
        if part.directory not in synced:
            part.sync_name()
            synced.add(part.directory)

    each(lambda part: part.write_soon(contents[part]))
    each(NewPart.sync)
    each(NewPart.rename)
    each(sync_name)
    return [errors.get(part) for part, _ in batch]


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
