"""What a power cut leaves of an upload: a disk that has nothing but what was waited for.

SIGKILL cannot tell: what a process has written survives it, synced or not. So the calls of the app are noted
(nursery.py), and a disk is kept in mind on which data are there only after `fsync` of the file, and a name only after
`fsync` of its directory, from the app's directory down. Before its row is written, and before any acknowledgement, an
upload must be on that disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.upload.harness import BackEnd, ServersBackEnd, eventually, form
from tests.upload.nursery import MortalApp, Nursery
from tests.upload.tus import Client

SMALL, LARGE = bytes(1000), bytes(range(256)) * 600
WRITES = ("write", "pwrite", "pwrite64", "copy_file_range", "ftruncate", "ftruncate64")


class Inode:
    """A file or a directory."""

    def __init__(self) -> None:
        self.synced = True  # it is empty


class Disk:
    """What there is under `root`, and what of it would survive."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: dict[Path, Inode] = {}
        self.durable: dict[Path, Inode] = {}  # the names that the disk has

    def apply(self, name: str, *arguments: str) -> None:
        """A call, as crash.c notes it."""
        path = Path(arguments[0])
        if name in WRITES and path in self.names:
            self.names[path].synced = False
        elif name == "synced":
            if path in self.names:
                self.names[path].synced = True
            self.durable = {known: inode for known, inode in self.durable.items() if known.parent != path}
            self.durable |= {known: inode for known, inode in self.names.items() if known.parent == path}
        elif name in ("open", "open64", "mkdir"):
            self.names.setdefault(path, Inode())
        elif name == "rename":
            self.names[Path(arguments[1])] = self.names.pop(path)
        elif name == "link":
            self.names[Path(arguments[1])] = self.names[path]
        elif name in ("unlink", "unlinkat", "rmdir"):
            self.names.pop(path, None)

    def has(self, path: Path) -> bool:
        """Would it be found, with its content?"""
        parents = [parent for parent in path.parents if parent.is_relative_to(self.root)]
        found = all(known in self.names and self.durable.get(known) is self.names[known] for known in (path, *parents))
        return found and self.names[path].synced


@pytest.fixture
def app(nursery: Nursery, directory: Path, back_end: BackEnd) -> Iterator[MortalApp]:
    """Watched from its start on; its directory is yet to be made."""
    nursery.watch()
    app = MortalApp(nursery, directory / "made", back_end)
    yield app
    app.close()


def commit_point(app: MortalApp, calls: list[list[str]]) -> int:
    """Where the last row was sent to the database, or was begun to be written."""
    if isinstance(app.back_end, ServersBackEnd):
        row = ["send", str(app.back_end.sql.port)]
        return max(number for number, call in enumerate(calls) if call == row)
    log = str(app.directory / "upload.sqlite3-wal")
    *_, previous, _ = (number for number, call in enumerate(calls) if call == ["synced", log])
    return next(number for number in range(previous, len(calls)) if calls[number] == ["pwrite64", log])


def assert_durable(app: MortalApp, *files: str, before_commit: bool = False) -> None:
    """Would these files, by their paths in the app's directory, survive a power cut now, or before the last commit?"""
    calls = app.nursery.noted()
    disk = Disk(app.directory)
    for call in calls[: commit_point(app, calls)] if before_commit else calls:
        disk.apply(*call)
    for file in files:
        assert disk.has(app.directory / file), f"{file} would be lost after {calls}"


@pytest.mark.parametrize("content", [SMALL, LARGE])
def test_put(app: MortalApp, content: bytes) -> None:
    assert app.put("a", content, app.log_in()).status == 201
    assert_durable(app, *(row["path"] for row in app.rows), before_commit=True)


def test_what_the_next_start_needs_to_settle_a_crash(app: MortalApp) -> None:
    [run] = (app.directory / "runs").iterdir()
    assert_durable(app, f"runs/{run.name}", *([] if app.back_end.options else ["upload.sqlite3"]))


@pytest.mark.parametrize("killed", [True, False])
def test_rubbish_is_gone_for_good_before_it_is_forgotten_where_to_look(app: MortalApp, killed: bool) -> None:
    session = app.log_in()
    app.put("kept", SMALL, session)
    [run] = (app.directory / "runs").iterdir()
    with app.begin_put(session, len(LARGE), LARGE[:-1]):
        eventually(lambda: any(path.endswith(".part") for path in app.files))
        if killed:
            app.kill()
    if killed:
        app.start()
    else:
        eventually(lambda: not any(path.endswith(".part") for path in app.files))
        app.stop()
    calls = app.nursery.noted()
    [forgotten] = [number for number, call in enumerate(calls) if call == ["unlink", str(run)]]
    removed, path = [
        (number, Path(call[1])) for number, call in enumerate(calls)
        if call[0] == "unlink" and call[1].endswith(".part") and call[1].startswith(str(app.directory / "files"))
    ][-1]  # fmt: skip
    assert ["synced", str(path.parent)] in calls[removed:forgotten]


def test_form(app: MortalApp) -> None:
    body, kind = form(("a", SMALL), ("b", LARGE))
    assert app.ask("POST", "/upload", body, session=app.log_in(), Content_Type=kind).status == 201
    assert_durable(app, *(row["path"] for row in app.rows), before_commit=True)


def test_resumable_upload(app: MortalApp) -> None:
    client = Client(app)
    url = client.create(len(LARGE))
    about, data = f"resumable/{url[7:]}/about.json", f"resumable/{url[7:]}/data"
    assert_durable(app, about, data)
    client.patch(url, 0, LARGE[:70_000])
    assert_durable(app, about, data)
    client.patch(url, 70_000, LARGE[70_000:])
    assert_durable(app, *(row["path"] for row in app.rows), before_commit=True)


def test_what_a_crashed_process_had_not_synced_is_synced_before_it_is_told(app: MortalApp) -> None:
    client = Client(app)
    url = client.create(len(LARGE))
    with client.begin_patch(url, 0, len(LARGE), LARGE[:1000]):
        eventually(lambda: client.received(url) == 1000)
        app.kill()
    app.start()
    assert client.offset(url) == 1000
    assert_durable(app, f"resumable/{url[7:]}/data")


def test_cut_of_what_was_not_checked(app: MortalApp) -> None:
    client = Client(app)
    url = client.create(len(LARGE))
    fields: dict[str, Any] = {"Upload_Checksum": "md5 AAAAAAAAAAAAAAAAAAAAAA=="}
    assert client.patch(url, 0, LARGE[:70_000], **fields).status == 460
    assert_durable(app, f"resumable/{url[7:]}/data", f"resumable/{url[7:]}/about.json")


def test_concatenation(app: MortalApp) -> None:
    client = Client(app)
    urls = [client.create(len(SMALL), Upload_Concat="partial") for _ in range(2)]
    for url in urls:
        client.patch(url, 0, SMALL)
    assert client.ask("POST", "/files/", b"", Upload_Concat=f"final;{' '.join(urls)}").status == 201
    assert_durable(app, *(row["path"] for row in app.rows), before_commit=True)


def test_note_of_a_deletion(app: MortalApp) -> None:
    """The row goes before the file; the note that brings the file after it is there before."""
    url = app.put("a", SMALL, session := app.log_in()).json["url"]
    assert app.ask("DELETE", url, session=session).status == 204
    calls = app.nursery.noted()
    [note] = [call[2] for call in calls if call[0] == "symlink"]
    assert ["synced", str(Path(note).parent)] in calls[: commit_point(app, calls)]
    removed = [number for number, call in enumerate(calls) if call[0] == "unlink" and note.startswith(call[1])]
    assert commit_point(app, calls) < min(removed)
