"""Bodies into files, in an order that survives a crash at any point.

    DIR/runs/RUN            one for each process that stores files, locked (flock) for as long as it lives
    DIR/files/RUN-N/ID      whole files; ID.part: those still arriving; ID.deleted: notes of deletions under way

A body is written to its part file, synced, renamed, and the directory synced; only then may its row be written to
the table of uploads. So a file whose run is over is an upload if its id is in the table, and rubbish otherwise:
`reconcile.py` looks through the files of runs that did not end in order, and through no others.

Uploads are many and slow, or few and fast. A slow one holds nothing while it waits, neither a buffer nor, when many
wait, the descriptor of its file. A fast one borrows a large buffer: few system calls and thread switches a byte.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import resource
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import coro
from apps.upload.batches import Batches
from apps.upload.shared import Room
from coro import Coro, CoroError

RUNS, FILES, PART, DELETED = "runs", "files", ".part", ".deleted"
FILES_PER_DIRECTORY = 10_000

PIECE_SIZE = 65536  # bytes asked for at once while an upload is slow; without fsync, also what is written in place
BUFFER_SIZE = 1 << 20  # bytes of a buffer of a fast upload
BUFFERS = 16  # how many uploads at once may have one
FAST = 1 << 20  # bytes a second from which on an upload gets one
FILL_TIME = 0.05  # seconds that a fast upload waits for its buffer to fill

NO_FILE = -1


class TooLarge(CoroError):
    """More bytes than an upload may have."""


class Body(Protocol):
    """What is stored: the body of a request, as `coro.http` gives it."""

    def buffered(self) -> bytes | None: ...
    def read(self, limit: int = ...) -> Coro[bytes]: ...
    def read_into(self, buffer: memoryview) -> Coro[int]: ...


class Pieces(Protocol):
    """What is stored: a part of a form."""

    def read(self, limit: int = ...) -> Coro[bytes]: ...


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


class Storage:
    """The directory of one app, as one of its processes writes to it. Opening and closing it blocks briefly."""

    def __init__(
        self, root: Path, database: str, *, durable: bool = True, digest: bool = True, max_size: int | None = None
    ) -> None:
        """`database` is the identity of the table that the rows of these files go to. OSError."""
        self.root = root
        self.directory = str(root)
        self.durable = durable
        self.digest = digest
        self.max_size = max_size
        self.undecided = False  # is there a file of which it is not known whether it has a row?
        make_directories(root)
        self._milliseconds = time.time_ns() // 1_000_000
        self._random = secrets.token_hex(6)  # the part of ids that other processes do not share
        self._count = 0
        self.run = f"{self._milliseconds:012x}{self._random}"
        self._lock = _create_locked(root / RUNS / self.run, database)
        self._directories: list[str] = []
        self._room = 0  # for so many files more in the last directory
        self._open: OrderedDict[_Part, None] = OrderedDict()  # parts that wait, with their file open; oldest first
        self._open_limit = max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 16)
        self._buffers = coro.Semaphore(BUFFERS)
        self._idle_buffers: list[bytearray] = []
        self.small_files = _SmallFiles()

    def close(self) -> None:
        """Say that this run ended in order, unless some file's fate is open. No upload may be under way."""
        for directory in self._directories:
            try:
                os.rmdir(self.root / directory)
            except OSError:  # there are files in it
                if self.durable:  # what was removed stays so: nobody will look for it
                    sync_directory(str(self.root / directory))
        if self.durable:
            sync_directory(str(self.root / FILES))
        if not self.undecided:
            os.unlink(self.root / RUNS / self.run)
        os.close(self._lock)

    def store(
        self, body: Body, limit: int | None = None, room: Room | None = None, hashes: Sequence[Hash] = ()
    ) -> Coro[StoredFile]:
        """The whole body as a file, of at most `limit` bytes; `hashes` are updated with it. Suspends.

        `TooLarge`, OSError (of `FULL`, when there is no room), and what reading the body raises; nothing is left then.
        """
        part = self._new_part(limit, room)
        part.digests.extend(hashes)
        try:
            data = body.buffered()
            if data is None:
                data = yield from body.read(PIECE_SIZE)
                rest = body.buffered()
                if rest is None:
                    yield from part.write(data)
                    del data  # lest it is kept for as long as the client is slow
                    yield from self.receive(body, part)
                    return (yield from part.finish())
                data += rest
            return (yield from part.write_whole(data))
        except BaseException:
            yield from part.abort()
            raise

    def store_pieces(self, pieces: Pieces, limit: int | None = None, room: Room | None = None) -> Coro[StoredFile]:
        """As `store`, for what can only be read piece by piece."""
        part = self._new_part(limit, room)
        try:
            while data := (yield from pieces.read(PIECE_SIZE)):
                yield from part.write(data)
            return (yield from part.finish())
        except BaseException:
            yield from part.abort()
            raise

    def discard(self, *paths: str) -> Coro[None]:
        """Remove files, as far as they are there. Suspends; completes even when cancelled. OSError."""
        with coro.shield():
            yield from coro.on_disk(_unlink, *(os.path.join(self.root, path) for path in paths))

    def note_deletion(self, upload_id: str, path: str) -> Coro[str]:
        """Note that a file is to go once its row has gone; the note's path, to be discarded together with the file.

        A crash in between leaves the note to `reconcile`. It is a symbolic link, for what it says only. Suspends.
        OSError.
        """
        note = f"{self._directory()}/{upload_id}{DELETED}"
        yield from coro.on_disk(self._write_note, os.path.join(self.root, note), path)
        return note

    def _write_note(self, note: str, text: str) -> None:
        with suppress(FileExistsError):  # two requests delete it at once
            os.symlink(text, note)
        if self.durable:
            sync_directory(os.path.dirname(note))

    def _directory(self) -> str:
        """Where the next file goes."""
        if not self._room:
            directory = f"{FILES}/{self.run}-{len(self._directories)}"
            with suppress(FileExistsError):  # made by an upload that got no further
                os.mkdir(self.root / directory)
            if self.durable:
                sync_directory(str(self.root / FILES))
            self._directories.append(directory)
            self._room = FILES_PER_DIRECTORY
        self._room -= 1
        return self._directories[-1]

    def new_id(self) -> str:
        """An id for an upload. Ids begin with the time, never going back within a run: they sort as uploads began."""
        self._milliseconds = max(self._milliseconds, time.time_ns() // 1_000_000)
        self._count = (self._count + 1) & 0xFFFFFFFF
        return f"{self._milliseconds:012x}{self._random}{self._count:08x}"

    def adopt(self, upload_id: str, path: str) -> Coro[str]:
        """Make a whole file, which lies elsewhere and is synced, a file of this run; its path here. Suspends. OSError.

        It keeps its name there as well, until it has its row.
        """
        adopted = f"{self._directory()}/{upload_id}"
        yield from coro.on_disk(self._link, path, os.path.join(self.root, adopted))
        return adopted

    def _link(self, path: str, adopted: str) -> None:
        with suppress(FileExistsError):  # adopted before, when the row could not be written
            os.link(path, adopted)
        if self.durable:
            sync_directory(os.path.dirname(adopted))

    def _new_part(self, limit: int | None, room: Room | None) -> _Part:
        part = _Part(self, self._directory(), self.new_id())
        part.limit = self.max_size if limit is None else limit
        part.room = room
        return part

    def receive(self, body: Body, part: Part) -> Coro[None]:
        """Write the body to its end, or the rest of it. Nothing is held while the client is slow. Suspends.

        `TooLarge`, OSError, and what reading the body raises.
        """
        while True:
            asked = time.monotonic()
            data = yield from body.read(PIECE_SIZE)
            if not data:
                return
            fast = len(data) >= PIECE_SIZE // 4 and len(data) > FAST * (time.monotonic() - asked)
            yield from part.write(data)
            del data
            if fast and self._buffers.acquire_nowait():
                buffer = self._idle_buffers.pop() if self._idle_buffers else bytearray(BUFFER_SIZE)
                try:
                    yield from self._stream_fast(body, part, memoryview(buffer))
                finally:
                    self._idle_buffers.append(buffer)
                    self._buffers.release()

    def _stream_fast(self, body: Body, part: Part, buffer: memoryview) -> Coro[None]:
        """Write the body through a large buffer, until its end or until the client becomes slow."""
        filled, count = BUFFER_SIZE, 1
        while count and filled >= PIECE_SIZE:
            filled = 0
            with coro.move_on_after(FILL_TIME):
                while count and filled < BUFFER_SIZE:
                    count = yield from body.read_into(buffer[filled:])
                    filled += count
            if filled:
                yield from part.write(buffer[:filled])

    # --- Part files with an open descriptor ------------------------------------------

    def claim(self, part: _Part) -> None:
        """Before a part's file is used: nobody else may close it."""
        self._open.pop(part, None)

    def park(self, part: _Part) -> None:
        """After it: it may be closed when others need its descriptor."""
        self._open[part] = None
        if len(self._open) > self._open_limit:
            self._open.popitem(last=False)[0].close()


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

    def write(self, data: bytes | memoryview) -> Coro[None]:
        """Append to the file. Suspends. `TooLarge`, OSError."""
        self._count(data)
        if self.storage.durable or len(data) > PIECE_SIZE:
            yield from coro.on_disk(self._append, data)
        else:
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


class _Part(Part):
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


class _SmallFiles(Batches[tuple[_Part, bytes]]):
    """Writes and syncs whole small files, many in one call to a thread.

    A sync brings what all of them have changed in the file system to the disk, so those that follow it are cheap, and
    the directory is synced once. That takes a few milliseconds, or else the disk is slow, and is given more to do.
    """

    name = "file writer"
    kind = "fsync"
    at_once = 16
    patience = 0.005

    def work(self, batch: Sequence[tuple[_Part, bytes]]) -> Coro[Sequence[Exception | None]]:
        return (yield from coro.on_disk(_write_all, batch))


def _write_all(batch: Sequence[tuple[_Part, bytes]]) -> Sequence[Exception | None]:
    """For each file, what went wrong with it. Blocks."""
    contents = dict(batch)
    errors: dict[_Part, OSError] = {}
    synced: set[str] = set()

    def each(step: Callable[[_Part], None]) -> None:
        for part in [part for part in contents if part not in errors]:
            try:
                step(part)
            except OSError as error:
                errors[part] = error

    def sync_name(part: _Part) -> None:
        if part.directory not in synced:
            part.sync_name()
            synced.add(part.directory)

    each(lambda part: part.write_soon(contents[part]))
    each(_Part.sync)
    each(_Part.rename)
    each(sync_name)
    return [errors.get(part) for part, _ in batch]


# --- Blocking helpers ------------------------------------------------------------------


def make_directories(root: Path) -> None:
    """Create what is missing of the storage's directories, for nobody else to look into. OSError."""
    for directory in root, root / RUNS, root / FILES:
        make_directory(directory)


def make_directory(path: Path) -> None:
    """Create it and its parents, as far as they are missing, and see that the disk has them. OSError."""
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for parent in path.parents:
            with suppress(PermissionError):  # to read it
                sync_directory(str(parent))


def _create_locked(path: Path, text: str) -> int:
    """A new file with the given text, locked for this process; its descriptor."""
    while True:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            os.write(fd, text.encode())
            os.fsync(fd)
            sync_directory(str(path.parent))
            return fd
        os.close(fd)  # a reconciliation found it before it was locked, and removed it


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unlink(*paths: str) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            os.unlink(path)
