"""What the processes of an app promise their clients together: room on the disk, and what each user may store.

    DIR/limits/processes     a slot for each process: its name, and the bytes that its uploads are yet to write
    DIR/limits/N             of users whose id is N modulo 256: how much each process has under way for them

A process holds a lock on its slot for as long as it lives, so what a process that was killed had promised is found out
when it matters: before somebody is refused. The files are read and written whole, under a lock or in one system call.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Self

import coro
from coro import Coro

LIMITS, PROCESSES = "limits", "processes"
PAGES = 256
SLOT = struct.Struct("=24sQ")  # the process's name, bytes
SLOTS = 1024
LOCK = struct.Struct("hhqqi4x")  # struct flock, see fcntl(2): type, whence, start, length, process
STEP = 1 << 20  # bytes written after which the others are told
RETRY_TIME = 0.001  # seconds between two attempts to get a lock that is held for an instant


class Room:
    """Bytes of the disk that are kept free for an upload, until it has written or released them."""

    __slots__ = ("_left", "_shared")

    def __init__(self, shared: Shared, size: int) -> None:
        self._shared = shared
        self._left = size

    def use(self, count: int) -> None:
        """So many of them have been written."""
        count = min(count, self._left)
        self._left -= count
        self._shared.give_back(count)

    def release(self) -> None:
        """The rest is not needed."""
        self.use(self._left)


class Shared:
    """One process's part of it. Made once in each process; blocks briefly."""

    def __init__(self, directory: str) -> None:
        """OSError."""
        self.directory = directory
        self.reserved = 0  # bytes that uploads of this process are going to write
        self.name = secrets.token_hex(12)
        self._told = 0  # as the others know it
        self._limits = os.path.join(directory, LIMITS)
        os.makedirs(self._limits, mode=0o700, exist_ok=True)
        self._fd = _open(os.path.join(self._limits, PROCESSES))
        try:
            self._slot = next((slot for slot in range(SLOTS) if self._lock(slot)), SLOTS)
            if self._slot == SLOTS:
                raise OSError(errno.EAGAIN, f"more than {SLOTS} processes use it", directory)
            self._tell(0)
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        """Promise nothing any more."""
        os.close(self._fd)

    # --- Room on the disk -----------------------------------------------------------------

    def reserve(self, size: int) -> Coro[Room]:
        """Keep so many bytes of the disk free. Suspends. OSError (ENOSPC) when there is less than that and what other
        uploads are going to write.
        """
        if not self._try_to_reserve(size):  # or two have tried at the same time: then one after the other
            lock = yield from _locked(os.path.join(self._limits, PROCESSES))
            try:
                self._forget_dead()
                if not self._try_to_reserve(size):
                    raise OSError(errno.ENOSPC, f"no room left for an upload of {size} bytes", self.directory)
            finally:
                os.close(lock)
        return Room(self, size)

    def _try_to_reserve(self, size: int) -> bool:
        self._tell(self.reserved + size)  # before looking: nobody who looks after that can count on the same room
        disk = os.statvfs(self.directory)
        if disk.f_bavail * disk.f_frsize >= sum(reserved for _, _, reserved in self._slots()):
            self.reserved += size
            return True
        self._tell(self.reserved)
        return False

    def give_back(self, count: int) -> None:
        """So many bytes less are to be written."""
        self.reserved -= count
        if self._told - self.reserved >= STEP or not self.reserved:
            with suppress(OSError):  # of a disk that is full: then the others count it for a while longer
                self._tell(self.reserved)

    # --- Processes ---------------------------------------------------------------------------

    def living(self) -> set[str]:
        """The names of the processes that live."""
        return {name for slot, name, _ in self._slots() if self._is_taken(slot)}

    def _forget_dead(self) -> None:
        for slot, _, reserved in self._slots():
            if reserved and slot != self._slot and self._lock(slot):  # so that no other process begins with it now
                os.pwrite(self._fd, SLOT.pack(b"", 0), slot * SLOT.size)
                self._lock(slot, fcntl.F_UNLCK)

    def _slots(self) -> Iterator[tuple[int, str, int]]:
        """Number, process and reserved bytes of every slot that was ever taken."""
        data = os.pread(self._fd, SLOT.size * SLOTS, 0)
        for slot, (name, reserved) in enumerate(SLOT.iter_unpack(data)):
            yield slot, name.decode("ascii"), reserved

    def _tell(self, reserved: int) -> None:
        os.pwrite(self._fd, SLOT.pack(self.name.encode(), reserved), self._slot * SLOT.size)
        self._told = reserved

    def _lock(self, slot: int, kind: int = fcntl.F_WRLCK) -> bool:
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, LOCK.pack(kind, os.SEEK_SET, slot, 1, 0))
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, says fcntl(2)
            return False
        return True

    def _is_taken(self, slot: int) -> bool:
        if slot == self._slot:
            return True
        asked = LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, slot, 1, 0)
        return bool(LOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK)

    # --- Users ----------------------------------------------------------------------------------

    def page(self, user_id: int) -> Coro[Page]:
        """What there is of a user, locked until the `with` block's end, in which nothing may be waited for. Suspends.
        OSError.
        """
        return Page(self, user_id, (yield from _locked(self._path(user_id))))

    def page_nowait(self, user_id: int) -> Page | None:
        """The same; None if another one has it at this moment."""
        fd = _try_to_lock(self._path(user_id))
        return None if fd is None else Page(self, user_id, fd)

    def _path(self, user_id: int) -> str:
        return os.path.join(self._limits, str(user_id % PAGES))


class Page:
    """What all processes have under way for a user."""

    def __init__(self, shared: Shared, user_id: int, fd: int) -> None:
        self._shared = shared
        self._user = str(user_id)
        self._fd = fd
        text = os.pread(fd, os.fstat(fd).st_size, 0).partition(b"\n")[0]
        try:
            self._data: dict[str, Any] = json.loads(text)
        except ValueError:  # new, or the machine has crashed, and with it all who held something
            self._data = {"gone": 0, "processes": {}}

    @property
    def gone(self) -> int:
        """Bytes of all uploads that have ended: by how much it grows, so much is under way no more."""
        return int(self._data["gone"])

    def under_way(self) -> tuple[int, int]:
        """The user's uploads, and their bytes."""
        held = [users.get(self._user, (0, 0)) for users in self._data["processes"].values()]
        return sum(count for count, _ in held), sum(size for _, size in held)

    def forget_dead(self) -> None:
        """Forget processes that live no more."""
        living = self._shared.living()
        self._data["processes"] = {
            name: users for name, users in self._data["processes"].items() if name in living
        }

    def write(self, count: int, size: int, gone: int = 0) -> None:
        """So many uploads, of so many bytes, this process has under way for the user; of `gone` more it has no longer.

        OSError.
        """
        processes = self._data["processes"]
        users = processes.setdefault(self._shared.name, {})
        users[self._user] = count, size
        if not count:
            del users[self._user]
        if not users:
            del processes[self._shared.name]
        self._data["gone"] += gone
        text = json.dumps(self._data).encode() + b"\n"
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try_to_lock(path: str) -> int | None:
    """A descriptor that holds the file's lock until it is closed."""
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return fd


def _locked(path: str) -> Coro[int]:
    while (fd := _try_to_lock(path)) is None:
        yield from coro.sleep(RETRY_TIME)
    return fd
