"""The same content of a user stored once (`--dedupe`): its files are names of one file.

    DIR/contents/USER/SHA256     one more name (hard link) of the file that has that content

Each upload has its row and its file in DIR/files as ever; the file system counts the names and keeps the content until
the last is gone. A name in DIR/contents is there to be found by the next upload of the same, and goes when it has
become the only one: with the deletion of the last upload or, after a crash in between, by `sweep`. To lose such a name
at any moment costs no more than one content stored twice, so nothing here has to be atomic with the database.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import coro
from apps.upload.parts import PART
from apps.upload.store import Upload
from coro import Coro

CONTENTS = "contents"
PIECE_SIZE = 1 << 20  # bytes compared at once


class Contents:
    """The contents of one app. `sharing` tells whether new uploads are to share theirs; old ones go on doing so."""

    def __init__(self, root: Path, *, sharing: bool) -> None:
        """Blocks briefly. OSError."""
        self.sharing = sharing
        self._root = str(root)
        self._directory = os.path.join(root, CONTENTS)
        if sharing:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
        self._there = sharing or os.path.isdir(self._directory)

    def share(self, uploads: Sequence[Upload]) -> Coro[None]:
        """Make whole files, whose rows are to come, names of what is there already. Suspends. OSError."""
        for upload in uploads:
            yield from coro.on_disk(self._share, os.path.join(self._root, upload.path), self._name(upload))

    def release(self, uploads: Sequence[Upload]) -> Coro[None]:
        """The files of these uploads are gone: remove contents that nothing else needs. Suspends, even when cancelled.

        OSError.
        """
        if self._there:
            with coro.shield():
                for upload in uploads:
                    yield from coro.on_disk(_remove_last_name, self._name(upload))

    def sweep(self) -> Coro[int]:
        """Remove the contents that no upload has; how many. Suspends. OSError."""
        return (yield from coro.on_disk(self._sweep)) if self._there else 0

    def unused(self) -> Iterator[str]:
        """Paths, relative to the app's directory, of contents that no upload has. Blocks. OSError."""
        users = os.listdir(self._directory) if self._there else ()
        for user in users:
            with os.scandir(os.path.join(self._directory, user)) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        if entry.stat().st_nlink == 1:
                            yield f"{CONTENTS}/{user}/{entry.name}"

    def _sweep(self) -> int:
        lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return sum(_remove_last_name(os.path.join(self._root, path)) for path in self.unused())
        except BlockingIOError:
            return 0  # another process is at it
        finally:
            os.close(lock)

    def _name(self, upload: Upload) -> str:
        return f"{self._directory}/{upload.user_id}/{upload.sha256}"

    def _share(self, own: str, content: str) -> None:
        os.makedirs(os.path.dirname(content), mode=0o700, exist_ok=True)
        while True:
            with suppress(FileExistsError):
                os.link(own, content)
                return  # the first of its content
            try:
                if os.path.samefile(own, content):
                    return  # shared before, when its row could not be written
                if _is_same(own, content):
                    os.link(content, own + PART)
                    os.rename(own + PART, own)
                    return
            except FileNotFoundError:
                continue  # its last upload has just been deleted
            except OSError as error:
                if error.errno != errno.EMLINK:
                    raise
            with suppress(FileNotFoundError):
                os.unlink(content)  # it is damaged, or has all the names that a file can have: ours is the next


def _is_same(one: str, other: str) -> bool:
    """Have the files the same bytes? The digest says so, but what was stored long ago may have been damaged since."""
    with open(one, "rb") as file, open(other, "rb") as second:
        while data := file.read(PIECE_SIZE):
            if second.read(PIECE_SIZE) != data:
                return False
        return not second.read(1)


def _remove_last_name(content: str) -> bool:
    """Remove it if it is the only name of its file. Who links it meanwhile has the file under the new name."""
    with suppress(FileNotFoundError):
        if os.stat(content).st_nlink == 1:
            os.unlink(content)
            return True
    return False
