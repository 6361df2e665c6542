"""Uploads that arrive in several requests, and outlive connections, workers and crashes in between.

    DIR/resumable/ID/data          what has arrived
    DIR/resumable/ID/about.json    whose it is, and what else is known of it (`About`)
    DIR/wanted/ID                  another process waits for the right to it

The offset at which an upload goes on is the size of its file, so nothing has to be written besides the data. One
request at a time has the right to an upload, by a lock (flock) on its directory. Another request for the same upload
means that the client has given the first one up, whether or not its connection knows: so it takes the right over. The
holder stops receiving at once, syncs what it has, and writes nothing more.

What is whole gets a second name in `DIR/files` (storage.py), then its row, and only then loses the one here. So after a
crash at any point the client goes on, or finds that all is done.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import coro
from apps.upload.parts import Hash, Part, sync_directory
from apps.upload.storage import Storage, make_directory
from coro import Coro, CoroError

RESUMABLE, WANTED, DATA, ABOUT = "resumable", "wanted", "data", "about.json"
ID = re.compile(r"[0-9a-f]{32}")  # what `Storage.new_id` makes; nothing else is ever used as a path

TAKE_OVER_TIME = 10.0  # seconds in which a holder must have stopped
RETRY_TIME = 0.05  # seconds between two attempts to get a lock that another process holds
WATCH_TIME = 0.2  # seconds between two looks at what other processes want
KEPT_DIGESTS = 1000  # of uploads that wait for their next request
READ_SIZE = 1 << 20  # bytes read at once to compute digests
UNKNOWN = -1  # how much the disk has
COPY_SIZE = 64 << 20  # bytes copied from file to file in one system call


class NotThere(CoroError):
    """There is no such upload, or not for this user."""


class StillHeld(CoroError):
    """Another request has the upload and does not let go of it."""


@dataclass(frozen=True)
class About:
    """What is known of an upload besides its data."""

    id: str
    user_id: int
    name: str
    length: int | None  # bytes of the whole; None while the client has not told
    metadata: str = ""  # as the client sent it
    concat: str = ""  # "partial" if it is to be a part of another, "final;..." if it was made of such
    joined: str = ""  # of the first of several that are joined: the id of the whole, then those of all its parts
    checked: int | None = None  # up to where the data are right, while a piece with a checksum arrives
    draft: bool = False  # it is of the IETF's protocol, in which the client says when all is there:
    complete: bool = False  # it has said so
    digest: str = ""  # the Repr-Digest that the whole has to have
    finished: bool = False  # it has its row, and its data have gone to `DIR/files`


class Resumables:
    """The resumable uploads of one app, as one of its processes serves them."""

    def __init__(self, storage: Storage, keep: float) -> None:
        """An upload is kept for `keep` seconds after its last request. Blocks briefly. OSError."""
        self.storage = storage
        self.keep = keep
        self.root = os.path.join(storage.directory, RESUMABLE)
        self.wanted = os.path.join(storage.directory, WANTED)
        for directory in self.root, self.wanted:
            make_directory(Path(directory))
        self.digests: OrderedDict[str, tuple[int, Hash]] = OrderedDict()  # SHA-256 of so many bytes
        self._held: dict[str, Resumable] = {}
        self._watching = False

    def create(self, about: About) -> Coro[None]:
        """Make a new upload, without data. Suspends. OSError."""
        yield from coro.on_disk(self._create, about)

    def _create(self, about: About) -> None:
        directory = self._directory(about.id)
        os.mkdir(directory, mode=0o700)
        try:
            os.close(os.open(os.path.join(directory, DATA), os.O_CREAT | os.O_CLOEXEC, 0o600))
            self.write_about(about)
            if self.storage.durable:
                sync_directory(self.root)
        except BaseException:
            shutil.rmtree(directory)
            raise

    def take(self, upload_id: str, user_id: int, draft: bool = False) -> Coro[Resumable]:
        """The right to an upload of one protocol or the other, taken from whoever has it. Suspends.

        `NotThere`, `StillHeld`, OSError. Release it, whatever happens.
        """
        if not ID.fullmatch(upload_id):
            raise NotThere("there is no such upload")
        about = yield from coro.on_disk(self._about, upload_id, user_id)
        if about.draft != draft:  # nobody takes from others what is not theirs
            raise NotThere("there is no such upload")
        deadline = coro.now() + TAKE_OVER_TIME
        wanted = os.path.join(self.wanted, upload_id)
        asked = False
        try:
            while (lock := (yield from coro.on_disk(self._try_lock, upload_id))) is None:
                holder = self._held.get(upload_id)
                if holder is not None:
                    holder.give_up()
                else:  # each time: who gets it removes the file
                    asked = True
                    yield from coro.on_disk(_touch, wanted)
                if coro.now() > deadline:
                    raise StillHeld("another request works on this upload and does not end")
                with coro.move_on_after(RETRY_TIME):
                    yield from (holder.released.wait() if holder is not None else coro.sleep(RETRY_TIME))
        except BaseException:
            if asked:
                with suppress(FileNotFoundError):
                    os.unlink(wanted)
            raise
        try:
            upload = yield from coro.on_disk(self._open, upload_id, user_id, lock)
        except BaseException:
            os.close(lock)
            raise
        self._held[upload_id] = upload
        if not self._watching:
            self._watching = True
            coro.background(self._watch(), name="watch for uploads that are wanted")
        return upload

    def _try_lock(self, upload_id: str) -> int | None:
        """A descriptor that holds the lock; None if another one does. `NotThere`."""
        try:
            fd = os.open(self._directory(upload_id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotThere("there is no such upload") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def _about(self, upload_id: str, user_id: int) -> About:
        """What is known of a user's upload. `NotThere`."""
        try:
            with open(os.path.join(self._directory(upload_id), ABOUT), encoding="utf-8") as file:
                about = About(**json.load(file))
        except FileNotFoundError:  # there is none, it was removed meanwhile, or its creation was broken off
            raise NotThere("there is no such upload") from None
        if about.user_id != user_id:
            raise NotThere("there is no such upload")
        return about

    def _open(self, upload_id: str, user_id: int, lock: int) -> Resumable:
        """An upload whose lock is held. `NotThere`."""
        with suppress(FileNotFoundError):  # our own wish, or that of a process that crashed
            os.unlink(os.path.join(self.wanted, upload_id))
        about = self._about(upload_id, user_id)
        if about.finished:
            return Resumable(self, about, lock, -1, about.length or 0)
        fd = os.open(os.path.join(self._directory(upload_id), DATA), os.O_RDWR | os.O_CLOEXEC)
        if about.checked is not None:  # the process ended while unchecked data arrived
            os.ftruncate(fd, about.checked)
            if self.storage.durable:
                os.fsync(fd)  # before it is forgotten that the rest was not checked
            about = replace(about, checked=None)
            self.write_about(about)
        upload = Resumable(self, about, lock, fd, os.fstat(fd).st_size)
        upload.touched = os.fstat(fd).st_mtime
        return upload

    def released(self, upload: Resumable) -> None:
        self._held.pop(upload.about.id, None)
        while len(self.digests) > KEPT_DIGESTS:
            self.digests.popitem(last=False)

    def _watch(self) -> Coro[None]:
        """Give up what other processes want, as long as there is anything that they could want."""
        try:
            while self._held:
                with suppress(OSError):  # out of descriptors: they wait a little longer
                    for upload_id in (yield from coro.on_disk(os.listdir, self.wanted)):
                        if upload_id in self._held:
                            self._held[upload_id].give_up()
                yield from coro.sleep(WATCH_TIME)
        finally:
            self._watching = False

    def sweep(self) -> Coro[int]:
        """Remove the uploads whose time is over; how many they were. Suspends. OSError."""
        return (yield from coro.on_disk(self._sweep, time.time() - self.keep))

    def _sweep(self, before: float) -> int:
        return sum(self._remove_unused(upload_id, before) for upload_id in os.listdir(self.root))

    def _remove_unused(self, upload_id: str, before: float) -> bool:
        directory = self._directory(upload_id)
        try:
            if _last_use(directory) >= before or (lock := self._try_lock(upload_id)) is None:
                return False
        except NotThere:
            return False
        try:
            unused = _last_use(directory) < before  # still, now that nobody can use it
            if unused:
                _remove(directory)
            return unused
        finally:
            os.close(lock)

    def write_about(self, about: About) -> None:
        """Blocks."""
        path = os.path.join(self._directory(about.id), ABOUT)
        with open(path + "~", "w", encoding="utf-8") as file:
            json.dump(asdict(about), file)
            file.flush()
            if self.storage.durable:
                os.fsync(file.fileno())
        os.rename(path + "~", path)
        if self.storage.durable:
            sync_directory(os.path.dirname(path))

    def _directory(self, upload_id: str) -> str:
        return f"{self.root}/{upload_id}"


class Resumable(Part):
    """An upload, and the right to it. Made by `Resumables.take`."""

    __slots__ = ("_lock", "_owner", "_sha256", "_synced", "about", "released", "scope", "touched")

    def __init__(self, owner: Resumables, about: About, lock: int, fd: int, size: int) -> None:
        super().__init__(owner.storage, fd, size)
        self.about = about
        self.touched = time.time()  # when data came last
        self.scope = coro.CancelScope()  # around what the holder does for as long as it may
        self.released = coro.Event()
        self._owner = owner
        self._lock = lock
        self._synced = 0  # of the rest it is not known whether the process that wrote it lived to sync it
        kept_size, kept = owner.digests.pop(about.id, (0, hashlib.sha256()))
        self._sha256: Hash | None = kept if kept_size == size and self.storage.digest else None
        self._choose_digests()

    @property
    def whole(self) -> bool:
        return self.size == self.about.length and (self.about.complete or not self.about.draft)

    @property
    def path(self) -> str:
        """Of its data."""
        return f"{self._owner.root}/{self.about.id}/{DATA}"

    @property
    def expires(self) -> float:
        """When it is removed if nothing more comes, in seconds since the epoch."""
        return self.touched + self._owner.keep

    def give_up(self) -> None:
        """Another request wants it."""
        self.scope.cancel()

    def change(self, **changes: object) -> Coro[None]:
        """Change what is known of it, durably. Suspends. OSError."""
        self.about = replace(self.about, **changes)  # type: ignore[arg-type]
        yield from coro.on_disk(self._owner.write_about, self.about)

    @contextmanager
    def verified_by(self, *digests: Hash) -> Iterator[None]:
        """Of what is written in the block, these are computed as well."""
        self.digests.extend(digests)
        try:
            yield
        finally:
            for digest in digests:
                self.digests.remove(digest)

    def cut(self, size: int) -> Coro[None]:
        """Forget what came after the first `size` bytes. Suspends. OSError."""
        if size < self.size:
            yield from coro.on_disk(os.ftruncate, self.fd, size)
            self.size = size
            self._synced = UNKNOWN
            self._sha256 = hashlib.sha256() if size == 0 and self.storage.digest else None
            self._choose_digests()

    def copy(self, other: Resumable) -> Coro[None]:
        """Append the data of another upload. Suspends. OSError."""
        offset = 0
        self._sha256 = None
        self._choose_digests()
        while offset < other.size:
            count = min(COPY_SIZE, other.size - offset)
            copied = yield from coro.on_disk(os.copy_file_range, other.fd, self.fd, count, offset, self.size)
            if not copied:
                raise OSError(f"{other.path} has {offset} bytes instead of {other.size}")
            offset += copied
            self.size += copied

    def sha256(self) -> Coro[str | None]:
        """Of all that has arrived, in hexadecimal digits; None if digests are not wanted. Suspends. OSError."""
        if not self.storage.digest:
            return None
        if self._sha256 is None:  # it came through several processes
            self._sha256 = yield from coro.on_disk(_sha256_of, self.path)
        return self._sha256.hexdigest()

    def read_through(self, hashes: Sequence[Hash]) -> None:
        """Update the hashes with all that has arrived. Blocks."""
        with open(self.path, "rb") as file:
            while data := file.read(READ_SIZE):
                for hashing in hashes:
                    hashing.update(data)

    def sync(self) -> Coro[None]:
        """See that the disk has it, if durability is wanted. Suspends. OSError."""
        if self.storage.durable and self._synced != self.size and self.fd >= 0:
            yield from coro.on_disk(os.fsync, self.fd)
            self._synced = self.size

    def finish(self) -> Coro[None]:
        """It has its row: forget the data here, remember that it is done. Suspends. OSError."""
        yield from self.change(finished=True)
        yield from coro.on_disk(os.unlink, self.path)

    def remove(self) -> Coro[None]:
        """Forget it, if that has not happened. Suspends. OSError."""
        self._synced = self.size  # what is removed need not be
        with suppress(FileNotFoundError):
            yield from coro.on_disk(_remove, os.path.dirname(self.path))

    def release(self) -> Coro[None]:
        """Let others have it, when the disk has what has arrived. Suspends. OSError."""
        try:
            with coro.shield():
                yield from self.sync()
        finally:
            if self._sha256 is not None and self.size and not self.about.finished:
                self._owner.digests[self.about.id] = self.size, self._sha256
            self._owner.released(self)
            if self.fd >= 0:
                os.close(self.fd)
            os.close(self._lock)
            self.released.set()

    def _choose_digests(self) -> None:
        self.digests = [] if self._sha256 is None else [self._sha256]


def _sha256_of(path: str) -> Hash:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256")


def _remove(directory: str) -> None:
    """Remove an upload's directory. After a crash in between it is no upload any more."""
    with suppress(FileNotFoundError):  # its creation was broken off
        os.unlink(os.path.join(directory, ABOUT))
    shutil.rmtree(directory)


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o600))


def _last_use(directory: str) -> float:
    """When something was written last, in seconds since the epoch. `NotThere`."""
    for name in DATA, ABOUT, "":
        with suppress(FileNotFoundError):
            return os.stat(os.path.join(directory, name)).st_mtime
    raise NotThere("removed meanwhile")
