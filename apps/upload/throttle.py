"""How often something may be tried: so many times at once, then at a steady rate; for all processes of an app together.

For each key one number is kept: the time at which all that was tried would have been tried at the steady rate (the
generic cell rate algorithm, ITU-T I.371). The numbers lie in a file, each at a place that a hash of its key tells. It
is sparse and does not grow; two keys share a place, and their attempts, once in a million.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b

from apps.upload.store import FULL

PLACES = 1 << 20
DUE = struct.Struct("=d")  # seconds on the clock; 0 where nothing was tried


class Throttle:
    """`burst` attempts at once for each key, and one more every `interval` seconds. Calls block briefly. OSError."""

    def __init__(self, path: str, burst: int, interval: float, clock: Callable[[], float]) -> None:
        """The clock is the same in all processes that use the file; it may begin anew, as that of a machine does."""
        self._path = path
        self._tolerance = (burst - 1) * interval
        self._interval = interval
        self._clock = clock

    def attempt(self, key: str) -> float:
        """Count an attempt and return 0; or the seconds until one is allowed, which is then not counted."""
        now = self._clock()
        with self._place(key) as (fd, place, found):
            # Beyond a full measure is what was written by another clock.
            due = found if now < found <= now + self._tolerance + self._interval else now
            if due - now > self._tolerance:
                return due - now - self._tolerance
            _write(fd, due + self._interval, place)
            return 0

    def forgive(self, key: str) -> None:
        """An attempt is not to count after all."""
        with self._place(key) as (fd, place, due):
            if due:
                _write(fd, due - self._interval, place)

    @contextmanager
    def _place(self, key: str) -> Iterator[tuple[int, int, float]]:
        """The file, locked; where in it the key's number is, and the number."""
        digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        place = int.from_bytes(digest, "big") % PLACES * DUE.size
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # for microseconds
            data = os.pread(fd, DUE.size, place)
            yield fd, place, DUE.unpack(data)[0] if data else 0.0
        finally:
            os.close(fd)


def _write(fd: int, due: float, place: int) -> None:
    try:
        os.pwrite(fd, DUE.pack(due), place)
    except OSError as error:
        if error.errno not in FULL:  # on a full disk it does not count: who is to make room has to get in
            raise
