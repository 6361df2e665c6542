"""After a crash: make disk and table agree again.

A run that ended in order has removed its file from DIR/runs. One whose file is there and not locked has crashed. Its
part files are rubbish. So are its whole files without a row: nobody was told that they were accepted. A deletion that
it had begun is completed if it got as far as the row. A row of that
run without its whole file can come only of a crash of the operating system while `--no-fsync` was on; such an upload
is lost, and its row is removed and reported. Runs that live, and files of runs that are settled, are not looked at,
so this takes time for what the crashed run did only, and any number of processes may do it at once.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import coro
from apps.upload.parts import PART, sync_directory
from apps.upload.storage import DELETED, FILES, RUNS
from apps.upload.store import Metadata
from coro import Coro

PAGE = 1000  # rows fetched at once


def reconcile(root: Path, metadata: Metadata, report: Callable[[str], None]) -> Coro[None]:
    """Settle every crashed run; `report` gets a line for what a person should know. Suspends. StoreDown, OSError."""
    for run in sorted(os.listdir(root / RUNS)):
        lock = yield from coro.on_disk(_lock_if_over, root / RUNS / run)
        if lock is None:
            continue
        try:
            database = os.pread(lock, 4096, 0).decode()
            if database in ("", metadata.identity):
                yield from _settle(root, run, metadata, report)
                os.unlink(root / RUNS / run)
            else:
                report(f"files of a crashed run wait until {database} is used again: {root / RUNS / run}")
        finally:
            os.close(lock)
    yield from coro.on_disk(_remove_empty_directories, root)


def _settle(root: Path, run: str, metadata: Metadata, report: Callable[[str], None]) -> Coro[None]:
    sizes, parts, notes = yield from coro.on_disk(_files_of, root, run)
    for note in notes:
        upload_id = os.path.basename(note).removesuffix(DELETED)
        if (yield from metadata.find_upload(upload_id)) is None:
            yield from coro.on_disk(_remove, root / os.readlink(root / note))
        os.unlink(root / note)
    after = run[:12]  # ids of the run's uploads begin with a time that is not before its own
    while rows := (yield from metadata.scan_uploads(after, PAGE)):
        after = rows[-1].id
        for row in rows:
            if not row.path.startswith(f"{FILES}/{run}-"):
                continue
            size = sizes.pop(row.path, None)
            if size != row.size:
                found = "is missing" if size is None else f"has {size} bytes"
                report(f"upload {row.id} ({row.name!r}, {row.size} bytes) is lost: its file {found}")
                yield from metadata.delete_upload(row.id)
                if size is not None:
                    parts.append(row.path)
    for path in tuple(sizes):
        upload = yield from metadata.bar_upload(os.path.basename(path), path)
        if upload is not None and upload.path == path:  # begun in an earlier run, or its INSERT arrived just now
            del sizes[path]
    for path in (*parts, *sizes):
        yield from coro.on_disk(_remove, root / path)
    for directory in {os.path.dirname(path) for path in (*parts, *sizes)}:  # before it is forgotten where to look
        yield from coro.on_disk(sync_directory, str(root / directory))
    if parts or sizes:
        report(f"removed {len(parts) + len(sizes)} files that a crash left behind, of uploads that were not accepted")


def _lock_if_over(path: Path) -> int | None:
    """The descriptor of a run's file, locked, if its process is gone; None if it lives or somebody was faster."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    if not os.fstat(fd).st_nlink:
        os.close(fd)
        return None
    return fd


def _directories_of(root: Path, run: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(root / FILES) as entries:
        yield from (entry for entry in entries if entry.name.startswith(f"{run}-"))


def _files_of(root: Path, run: str) -> tuple[dict[str, int], list[str], list[str]]:
    """The run's whole files with their sizes, its part files, its notes of deletions; paths relative to the root."""
    sizes: dict[str, int] = {}
    parts: list[str] = []
    notes: list[str] = []
    for directory in _directories_of(root, run):
        with os.scandir(directory) as entries:
            for entry in entries:
                path = f"{FILES}/{directory.name}/{entry.name}"
                if path.endswith(PART):
                    parts.append(path)
                elif path.endswith(DELETED):
                    notes.append(path)
                else:
                    sizes[path] = entry.stat().st_size
    return sizes, parts, notes


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _remove_empty_directories(root: Path) -> None:
    """Remove what is empty of the directories of runs that are over."""
    names = os.listdir(root / FILES)  # first: a run has its file before it has a directory
    living = set(os.listdir(root / RUNS))
    for name in names:
        if name.rpartition("-")[0] not in living:
            with suppress(OSError):  # there are files in it
                os.rmdir(root / FILES / name)
