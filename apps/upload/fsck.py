"""`coro run apps.upload fsck`: does the disk have what the table says, and nothing else?

A start settles what a crash left behind (reconcile.py), by looking at what the crashed process did. This looks at
everything: for when files or rows were lost, or restored, behind the app's back. It may run while the app does: files
in the directories of processes that live, or whose crash is yet to be settled, may have their rows to come, and are
left alone. Nothing is ever deleted but rows without their files: files without a row are moved to DIR/stray.
"""

from __future__ import annotations

import hashlib
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

import coro
from apps.upload.contents import Contents
from apps.upload.opening import in_one_line, open_stores
from apps.upload.storage import FILES, RUNS, make_directories
from apps.upload.store import Metadata, Upload
from coro import Coro
from coro.cli import CommandError

PAGE = 1000  # rows fetched, and looked for on the disk, at once
STRAY = "stray"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--mend", action="store_true", help=f"remove rows without their files, move files without rows to {STRAY}/"
    )
    parser.add_argument("--digests", action="store_true", help="read all files, and compare their SHA-256 as well")
    parser.set_defaults(command=fsck)


def fsck(options: Namespace) -> Coro[None]:
    """Report the differences, and mend them if that is wanted. Suspends. `CommandError` if there are any left."""
    with open_stores(options) as (_, metadata), in_one_line(options.dir):
        make_directories(options.dir)
        yield from metadata.prepare()
        unsettled = set((yield from coro.on_disk(os.listdir, options.dir / RUNS)))  # before any row is read
        known: set[str] = set()  # paths: about 150 bytes a row
        lost, damaged = yield from _check_rows(options, metadata, known)
        strays = yield from coro.on_disk(_strays, options.dir, known, unsettled)
        for path in strays:
            print(f"{path} belongs to no upload")
            if options.mend:
                yield from coro.on_disk(_put_aside, options.dir, path)
        contents = Contents(options.dir, sharing=False)
        for path in (yield from coro.on_disk(list, contents.unused())):
            print(f"{path} is kept to be shared, but no upload has that content")
        if options.mend:
            yield from contents.sweep()
    found = f"{len(known)} uploads: {lost} lost, {damaged} damaged, {len(strays)} files without a row"
    if damaged or ((lost or strays) and not options.mend):
        raise CommandError(found if options.mend else f"{found}; --mend removes the rows, and puts the files aside")
    print(f"{found}; mended" if lost or strays else found)


def _check_rows(options: Namespace, metadata: Metadata, known: set[str]) -> Coro[tuple[int, int]]:
    """How many uploads lack their whole file, and how many have another content."""
    lost = damaged = 0
    after = ""
    while rows := (yield from metadata.scan_uploads(after, PAGE)):
        after = rows[-1].id
        known.update(upload.path for upload in rows)
        for upload, fault in (yield from coro.on_disk(_faults, options.dir, rows, options.digests)):
            if (yield from metadata.find_upload(upload.id)) is None:
                continue  # deleted meanwhile
            print(f"upload {upload.id} ({upload.name!r}, {upload.size} bytes): {upload.path} {fault}")
            if fault.startswith("has the SHA-256"):
                damaged += 1
                continue
            lost += 1
            if options.mend:
                yield from metadata.delete_upload(upload.id)
                known.discard(upload.path)  # what there is of the file has no row any more
    return lost, damaged


def _faults(root: Path, rows: list[Upload], digests: bool) -> list[tuple[Upload, str]]:
    return [(upload, fault) for upload in rows if (fault := _fault(root, upload, digests))]


def _fault(root: Path, upload: Upload, digests: bool) -> str:
    path = root / upload.path
    try:
        size = path.stat().st_size
        if size != upload.size:
            return f"has {size} bytes"
        if digests and upload.sha256 is not None:
            with open(path, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return "" if sha256 == upload.sha256 else f"has the SHA-256 {sha256}"
    except FileNotFoundError:
        return "is missing"
    return ""


def _strays(root: Path, known: set[str], unsettled: set[str]) -> list[str]:
    return [
        path
        for directory in sorted(os.listdir(root / FILES))
        if directory.rpartition("-")[0] not in unsettled
        for name in sorted(os.listdir(root / FILES / directory))
        if (path := f"{FILES}/{directory}/{name}") not in known
    ]


def _put_aside(root: Path, path: str) -> None:
    (root / STRAY).mkdir(mode=0o700, exist_ok=True)
    os.rename(root / path, root / STRAY / path.removeprefix(f"{FILES}/").replace("/", "-"))
