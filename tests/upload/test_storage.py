"""How bodies become files: in which order, and what is left when something goes wrong on the way."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import coro
from apps.upload.parts import PIECE_SIZE, StoredFile
from apps.upload.storage import RUNS, Storage
from coro import Coro


class Pieces:
    """A body that comes in the given pieces, an error among them being raised."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = list(pieces)

    def buffered(self) -> bytes | None:
        if not self._pieces:
            return b""
        [piece, *more] = self._pieces
        if more or isinstance(piece, Exception):
            return None
        self._pieces.clear()
        return piece

    def read(self, limit: int = PIECE_SIZE) -> Coro[bytes]:
        yield from coro.checkpoint()
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        if len(piece) > limit:
            self._pieces.insert(0, piece[limit:])
        return piece[:limit]

    def read_into(self, buffer: memoryview) -> Coro[int]:
        data = yield from self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def store(storage: Storage, *pieces: bytes | Exception) -> StoredFile:
    return coro.run(storage.store(Pieces(*pieces)))


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in (root / "files").glob("*/*")}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls of the storage that change something, with the kind of file they concern."""
    made: list[str] = []

    def record(name: str, describe: Callable[..., str]) -> None:
        original = getattr(os, name)

        def recorded(*arguments: object) -> object:
            made.append(f"{name} {describe(*arguments)}")
            return original(*arguments)

        monkeypatch.setattr(os, name, recorded)

    def kind(fd: int) -> str:
        path = os.readlink(f"/proc/self/fd/{fd}")
        return "part" if path.endswith(".part") else "directory" if os.path.isdir(path) else "whole"

    record("pwrite", lambda fd, data, offset: kind(fd))
    record("fsync", kind)
    record("rename", lambda old, new: "part")
    return made


SMALL = [b"x" * 1000]
LARGE = [b"x" * 40_000, b"y" * 40_000, b"z" * 100]


@pytest.mark.parametrize("pieces", [SMALL, LARGE])
def test_a_file_is_whole_on_disk_before_it_has_its_name_and_the_name_before_it_is_told(
    tmp_path: Path, calls: list[str], pieces: list[bytes]
) -> None:
    storage = Storage(tmp_path, "test")
    calls.clear()
    stored = store(storage, *pieces)
    made = calls.copy()
    storage.close()
    assert made == [
        "fsync directory",  # of the new directory's name
        *["pwrite part"] * len(pieces),
        "fsync part",
        "rename part",
        "fsync directory",
    ]
    assert (tmp_path / stored.path).read_bytes() == b"".join(pieces)


@pytest.mark.parametrize("pieces", [SMALL, LARGE])
def test_without_durability_nothing_waits_for_the_disk(tmp_path: Path, calls: list[str], pieces: list[bytes]) -> None:
    storage = Storage(tmp_path, "test", durable=False)
    calls.clear()
    stored = store(storage, *pieces)
    storage.close()
    assert not [call for call in calls if call.startswith("fsync")]
    assert (tmp_path / stored.path).read_bytes() == b"".join(pieces)


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("pieces", [[b""], [b"x"], [b"x" * 100_000, b"y"], [b"a" * 3_000_000, b"b", b"c" * 70_000]])
def test_the_digest_is_that_of_the_content(tmp_path: Path, durable: bool, pieces: list[bytes]) -> None:
    storage = Storage(tmp_path, "test", durable=durable)
    stored = store(storage, *pieces)
    storage.close()
    content = b"".join(pieces)
    assert (stored.size, stored.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (tmp_path / stored.path).read_bytes() == content


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("digest", [True, False])
def test_uploads_at_once_are_not_mixed_up(tmp_path: Path, durable: bool, digest: bool) -> None:
    storage = Storage(tmp_path, "test", durable=durable, digest=digest)
    contents = [[bytes([number]) * size for size in (70_000, 300_000, 1, 500_000)] for number in range(20)]
    stored = coro.run(coro.gather(*(storage.store(Pieces(*pieces)) for pieces in contents)))
    storage.close()
    assert [(tmp_path / file.path).read_bytes() for file in stored] == [b"".join(pieces) for pieces in contents]


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("before", [[], [b"x"], [b"x" * 3_000_000]])
def test_a_body_that_breaks_off_leaves_nothing(tmp_path: Path, durable: bool, before: list[bytes]) -> None:
    storage = Storage(tmp_path, "test", durable=durable)
    with pytest.raises(ConnectionResetError):
        store(storage, *before, ConnectionResetError())
    assert files(tmp_path) == set()
    storage.close()


def test_a_cancelled_upload_leaves_nothing(tmp_path: Path) -> None:
    storage = Storage(tmp_path, "test")

    class Stalled(Pieces):
        def read(self, limit: int = PIECE_SIZE) -> Coro[bytes]:
            if self._pieces:
                return (yield from super().read(limit))
            yield from coro.sleep_forever()
            raise AssertionError

    def body(group: coro.TaskGroup) -> Coro[None]:
        group.spawn(storage.store(Stalled(b"x", b"y", b"z")))
        while not files(tmp_path):
            yield from coro.sleep(0.001)
        group.cancel()

    coro.run(coro.task_group(body))
    assert files(tmp_path) == set()
    storage.close()


@pytest.mark.parametrize("call", ["pwrite", "fsync", "rename"])
@pytest.mark.parametrize("pieces", [SMALL, LARGE])
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, pieces: list[bytes]
) -> None:
    storage = Storage(tmp_path, "test")
    store(storage, b"the directory is there")
    before = files(tmp_path)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, call, full)
        store(storage, *pieces)
    assert files(tmp_path) == before
    storage.close()


def test_small_files_that_are_ready_together_are_synced_together(tmp_path: Path, calls: list[str]) -> None:
    storage = Storage(tmp_path, "test")
    store(storage, b"the directory is there")
    calls.clear()
    stored = coro.run(coro.gather(*(storage.store(Pieces(b"%d" % number)) for number in range(4))))
    made = calls.copy()
    storage.close()
    assert made == ["pwrite part"] * 4 + ["fsync part"] * 4 + ["rename part"] * 4 + ["fsync directory"]
    assert [(tmp_path / file.path).read_bytes() for file in stored] == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("call", ["pwrite", "fsync", "rename"])
def test_of_small_files_that_are_written_together_one_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    storage = Storage(tmp_path, "test")
    store(storage, b"the directory is there")
    before = files(tmp_path)
    original, made = getattr(os, call), 0

    def fail_once(*arguments: object) -> object:
        nonlocal made
        made += 1
        if made == 2:
            raise OSError(errno.EIO, "Input/output error")
        return original(*arguments)

    def attempt(content: bytes) -> Coro[StoredFile | None]:
        try:
            return (yield from storage.store(Pieces(content)))
        except OSError:
            return None

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail_once)
        stored = coro.run(coro.gather(*(attempt(b"%d" % number) for number in range(4))))
    whole = [file and (tmp_path / file.path).read_bytes() for file in stored]
    assert whole == [b"0", None, b"2", b"3"]
    assert files(tmp_path) - before == {file.path for file in stored if file}
    storage.close()


def test_small_file_is_waited_for_when_its_upload_is_cancelled_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(tmp_path, "test")
    original, writing, go_on = os.pwrite, threading.Event(), threading.Event()

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        writing.set()
        assert go_on.wait(100)
        return original(fd, data, offset)

    def body(group: coro.TaskGroup) -> Coro[StoredFile]:
        upload = group.spawn(storage.store(Pieces(b"x")))
        yield from coro.to_thread(writing.wait)
        upload.cancel()
        go_on.set()
        return (yield from upload.join())

    monkeypatch.setattr(os, "pwrite", pwrite)
    stored = coro.run(coro.task_group(body))
    assert (tmp_path / stored.path).read_bytes() == b"x"
    assert files(tmp_path) == {stored.path}
    storage.close()


def test_more_uploads_than_descriptors_may_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path, "test", durable=False)
    monkeypatch.setattr(storage, "_open_limit", 3)
    pieces = [b"1" * 100, b"2" * 100, b"3" * 100]
    most = 0

    class Counting(Pieces):
        def read(self, limit: int = PIECE_SIZE) -> Coro[bytes]:
            nonlocal most
            most = max(most, sum(".part" in path for path in _open_paths()))
            return (yield from super().read(limit))

    stored = coro.run(coro.gather(*(storage.store(Counting(*pieces)) for _ in range(20))))
    storage.close()
    assert 0 < most <= 4
    assert all((tmp_path / file.path).read_bytes() == b"".join(pieces) for file in stored)


def _open_paths() -> Iterator[str]:
    """What the descriptors of this process are open to; threads close some of them meanwhile."""
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            yield os.readlink(f"/proc/self/fd/{fd}")


def test_ids_sort_as_the_uploads_began(tmp_path: Path) -> None:
    storage = Storage(tmp_path, "test", durable=False)
    ids = [store(storage, b"x").id for _ in range(100)]
    storage.close()
    assert ids == sorted(ids)
    assert len(set(ids)) == 100


def test_a_directory_takes_a_bounded_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path, "test", durable=False)
    store(storage, b"x")
    monkeypatch.setattr(storage, "_room", 2)
    directories = [store(storage, b"x").path.split("/")[1] for _ in range(3)]
    storage.close()
    assert directories[0] == directories[1] != directories[2]


def test_a_run_that_ends_in_order_leaves_no_trace_but_its_files(tmp_path: Path) -> None:
    storage = Storage(tmp_path, "test")
    stored = store(storage, b"x")
    storage.close()
    assert list((tmp_path / RUNS).iterdir()) == []
    assert files(tmp_path) == {stored.path}


def test_a_run_with_a_file_of_open_fate_leaves_that_to_the_next_start(tmp_path: Path) -> None:
    storage = Storage(tmp_path, "test")
    storage.undecided = True
    storage.close()
    assert [path.name for path in (tmp_path / RUNS).iterdir()] == [storage.run]
