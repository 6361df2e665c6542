"""Files, in threads of their own."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import coro
from coro import Coro
from coro.files import DISK_THREADS


def test_bytes_are_written_and_read_back(tmp_path: Path) -> Coro[None]:
    path = tmp_path / "file"
    with (yield from coro.open_file(path, "wb")) as file:
        yield from file.write(b"first\n")
        yield from file.write(memoryview(b"second"))
    with (yield from coro.open_file(path)) as file:
        assert (yield from file.read(3)) == b"fir"
        assert (yield from file.read_line()) == b"st\n"
        assert (yield from file.read()) == b"second"
        assert (yield from file.read(10)) == b""


def test_text_is_utf_8_unless_said_otherwise(tmp_path: Path) -> Coro[None]:
    path = tmp_path / "file"
    with (yield from coro.open_file(path, "w")) as file:
        yield from file.write("größe")
    assert path.read_bytes() == "größe".encode()
    path.write_bytes("größe".encode("latin-1"))
    with (yield from coro.open_file(path, "r", encoding="latin-1")) as file:
        assert (yield from file.read_line(3)) == "grö"


def test_place_and_size_can_be_changed(tmp_path: Path) -> Coro[None]:
    with (yield from coro.open_file(tmp_path / "file", "w+b")) as file:
        yield from file.write(b"0123456789")
        assert (yield from file.tell()) == 10
        assert (yield from file.seek(-4, os.SEEK_END)) == 6
        assert (yield from file.read()) == b"6789"
        yield from file.truncate(3)
        assert (yield from file.seek(0)) == 0
        assert (yield from file.read()) == b"012"


@pytest.mark.parametrize("hand_over", [coro.File.flush, coro.File.sync], ids=["flush", "sync"])
def test_what_was_written_is_in_the_file_after(
    tmp_path: Path, hand_over: Callable[[coro.File[bytes]], Coro[None]]
) -> Coro[None]:
    path = tmp_path / "file"
    with (yield from coro.open_file(path, "wb")) as file:
        yield from file.write(b"data")
        assert path.read_bytes() == b""
        yield from hand_over(file)
        assert path.read_bytes() == b"data"


def test_sync_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Coro[None]:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with (yield from coro.open_file(tmp_path / "file", "wb")) as file:
        yield from file.sync()
        assert synced == [file.fileno()]


def test_operations_run_in_other_threads(tmp_path: Path) -> Coro[None]:
    thread = yield from coro.on_disk(threading.get_ident)
    assert thread != threading.get_ident()


def test_file_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> Coro[None]:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        yield from coro.open_file(tmp_path / "nowhere")


def test_full_disk_is_an_error_of_the_write_or_the_flush() -> Coro[None]:
    file = yield from coro.open_file("/dev/full", "wb")
    with pytest.raises(OSError) as caught:
        yield from file.write(b"data")
        yield from file.flush()
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError):
        file.close()
    assert repr(file) == "<File '/dev/full', closed>"


def test_block_closes_the_file_whatever_happens(tmp_path: Path) -> Coro[None]:
    with pytest.raises(ZeroDivisionError):
        with (yield from coro.open_file(tmp_path / "file", "wb")) as file:
            raise ZeroDivisionError
    with pytest.raises(coro.ClosedError, match="the file was closed"):
        yield from file.read()
    file.close()


def test_disk_that_hangs_keeps_neither_look_ups_nor_other_calls_from_running() -> Coro[None]:
    hangs = threading.Event()

    def body(group: coro.TaskGroup) -> Coro[None]:
        for _ in range(2 * DISK_THREADS):
            group.spawn(coro.on_disk(hangs.wait))
        yield from coro.checkpoint()
        try:
            assert (yield from coro.to_thread(int, "42")) == 42
            with pytest.raises(ConnectionRefusedError):  # after the look-up
                yield from coro.connect("localhost", 1)
        finally:
            hangs.set()

    yield from coro.task_group(body)
