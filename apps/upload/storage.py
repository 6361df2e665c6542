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
import os
import resource
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import coro
from apps.upload.parts import PIECE_SIZE, Hash, NewPart, Part, SmallFiles, StoredFile, sync_directory
from apps.upload.shared import Room
from coro import Coro

RUNS, FILES, DELETED = "runs", "files", ".deleted"
FILES_PER_DIRECTORY = 10_000

COPY_SIZE = 1 << 18  # bytes that are copied at once, without fsync: what stays in a processor's cache meanwhile
BUFFER_SIZE = 1 << 20  # bytes of a buffer of a fast upload
BUFFERS = 16  # how many uploads at once may have one
FAST = 1 << 20  # bytes a second from which on an upload gets one
FILL_TIME = 0.05  # seconds that a fast upload waits for its buffer to fill


class Body(Protocol):
    """What is stored: the body of a request, as `coro.http` gives it."""

    def buffered(self) -> bytes | None: ...
    def read(self, limit: int = ...) -> Coro[bytes]: ...
    def read_into(self, buffer: memoryview) -> Coro[int]: ...


class Pieces(Protocol):
    """What is stored: a part of a form."""

    def read(self, limit: int = ...) -> Coro[bytes]: ...


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
        self._open: OrderedDict[NewPart, None] = OrderedDict()  # parts that wait, with their file open; oldest first
        self._open_limit = max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 16)
        self._buffers = coro.Semaphore(BUFFERS)
        self._idle_buffers: list[bytearray] = []
        self._copy_buffer = memoryview(bytearray(COPY_SIZE))
        self.small_files = SmallFiles()

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

    def _new_part(self, limit: int | None, room: Room | None) -> NewPart:
        part = NewPart(self, self._directory(), self.new_id())
        part.limit = self.max_size if limit is None else limit
        part.room = room
        return part

    def receive(self, body: Body, part: Part) -> Coro[None]:
        """Write the body to its end, or the rest of it. Nothing is held while the client is slow. Suspends.

        `TooLarge`, OSError, and what reading the body raises.
        """
        if part.is_copied:
            while count := (yield from body.read_into(self._copy_buffer)):  # nobody else comes between this, and:
                part.write_nowait(self._copy_buffer[:count])
            return
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

    def claim(self, part: NewPart) -> None:
        """Before a part's file is used: nobody else may close it."""
        self._open.pop(part, None)

    def park(self, part: NewPart) -> None:
        """After it: it may be closed when others need its descriptor."""
        self._open[part] = None
        if len(self._open) > self._open_limit:
            self._open.popitem(last=False)[0].close()


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


def _unlink(*paths: str) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            os.unlink(path)
