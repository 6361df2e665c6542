"""The same content of a user, stored once when `--dedupe` is on."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import coro
from apps.upload.contents import Contents
from apps.upload.store import Upload
from tests.services import MariaDBServer, RedisServer
from tests.upload.conftest import Start
from tests.upload.harness import App, BackEnd, ServersBackEnd, SQLiteBackEnd, below, eventually, run_app
from tests.upload.test_policy import Send, every_way

CONTENT = bytes(range(256)) * 64
NONE: set[str] = set()


def contents(directory: Path) -> set[str]:
    return below(directory, "contents")


def inodes(app: App) -> set[int]:
    return {(app.directory / row["path"]).stat().st_ino for row in app.rows}


# --- As users see it -------------------------------------------------------------------------------


@every_way
def test_same_content_of_a_user_is_stored_once_and_kept_until_its_last_name_is_gone(
    start: Start, back_end: BackEnd, send: Send
) -> None:
    app = start(back_end, "--dedupe")
    session, other = app.log_in(), app.log_in()
    assert [send(app, data, session).status for data in (CONTENT, CONTENT, b"another")] == [201, 201, 201]
    assert app.put("b", CONTENT, session).status == 201
    assert send(app, CONTENT, other).status == 201
    assert (len(app.rows), len(app.files), len(inodes(app)), len(contents(app.directory))) == (5, 5, 3, 3)
    assert sum(app.content(row) == CONTENT for row in app.rows) == 4
    uploads = app.ask("GET", "/uploads", session=session).json["uploads"]
    for number, upload in enumerate(uploads, 1):
        assert app.ask("GET", upload["url"], session=session).status == 200
        assert app.ask("DELETE", upload["url"], session=session).status == 204
        assert len(app.files) == 5 - number
    assert len(contents(app.directory)) == 1
    assert app.stop() == 0
    assert [app.content(row) for row in app.rows] == [CONTENT]


def test_same_content_that_comes_at_once_is_stored_once(start: Start, back_end: BackEnd) -> None:
    app = start(back_end, "--dedupe", "--workers", "2")
    session = app.log_in()
    exchanges = [app.begin_put(session, len(CONTENT), CONTENT[:-1]) for _ in range(12)]
    eventually(lambda: len(app.files) == 12)
    threads = [threading.Thread(target=exchange.send, args=(CONTENT[-1:],)) for exchange in exchanges]
    for thread in threads:
        thread.start()
    for thread, exchange in zip(threads, exchanges, strict=True):
        thread.join()
        assert exchange.answer().status == 201
    assert (len(app.rows), len(inodes(app)), len(contents(app.directory))) == (12, 1, 1)
    assert {app.content(row) for row in app.rows} == {CONTENT}


def test_quota_counts_every_name(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--dedupe", "--quota", str(2 * len(CONTENT)))
    session = app.log_in()
    assert [app.put("a", CONTENT, session).status for _ in range(3)] == [201, 201, 413]


def test_what_is_shared_is_freed_after_the_option_is_gone(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--dedupe")
    session = app.log_in()
    urls = [app.put("a", CONTENT, session).json["url"] for _ in range(2)]
    assert app.stop() == 0
    app.options = ()
    app.start()
    urls.append(app.put("a", CONTENT, session).json["url"])
    assert len(inodes(app)) == 2
    for url, left in zip(urls, (1, 0, 0), strict=True):
        assert app.ask("DELETE", url, session=session).status == 204
        assert len(contents(app.directory)) == left
    assert app.files == NONE


def test_without_digests_nothing_can_be_found(directory: Path) -> None:
    done = run_app("--dir", str(directory), "--dedupe", "--no-digest")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "coro: --dedupe finds the same content by the digests that --no-digest leaves out\n"


# --- What goes wrong ---------------------------------------------------------------------------------


def test_upload_without_a_row_leaves_no_content(
    start: Start, own_mariadb: Callable[..., MariaDBServer], redis_server: RedisServer
) -> None:
    sql = own_mariadb()
    sql.sql("CREATE DATABASE upload")
    app = start(ServersBackEnd(redis_server, sql, "upload"), "--dedupe")
    session = app.log_in()
    sql.stop()
    assert app.put("a", CONTENT, session).status == 503
    assert (app.files, contents(app.directory)) == (NONE, NONE)


def test_content_of_an_upload_that_a_crash_cut_off_is_freed(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--dedupe")
    session = app.log_in()
    with closing(sqlite3.connect(app.directory / "upload.sqlite3", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")  # so that its row cannot be written yet
        with app.begin_put(session, len(CONTENT), CONTENT):
            eventually(lambda: contents(app.directory))
            app.kill()
    app.start()
    assert app.files == NONE
    eventually(lambda: contents(app.directory) == NONE)


def test_fsck_tells_of_content_that_no_upload_has(start: Start, back_end: BackEnd) -> None:
    app = start(back_end, "--dedupe")
    session = app.log_in()
    assert [app.put("a", CONTENT, session).status for _ in range(2)] == [201, 201]
    assert app.stop() == 0
    command = ("--dir", str(app.directory), *app.back_end.options, "fsck", "--digests")
    [content] = contents(app.directory)
    done = run_app(*command)
    assert (done.returncode, done.stdout) == (0, "2 uploads: 0 lost, 0 damaged, 0 files without a row\n")
    for row in app.rows:
        (app.directory / row["path"]).unlink()
    assert f"{content} is kept to be shared, but no upload has that content\n" in run_app(*command).stdout
    assert run_app(*command, "--mend").returncode == 0
    assert (contents(app.directory), app.rows) == (NONE, [])


# --- File by file ------------------------------------------------------------------------------------


class Directory:
    """Uploads of user 1, without an app."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.contents = Contents(root, sharing=True)

    def store(self, name: str, data: bytes) -> Upload:
        (self.root / name).write_bytes(data)
        upload = Upload(name, 1, name, name, len(data), "digest")
        coro.run(self.contents.share([upload]))
        return upload

    def inode(self, name: str) -> int:
        return (self.root / name).stat().st_ino

    def delete(self, upload: Upload) -> None:
        (self.root / upload.path).unlink()
        coro.run(self.contents.release([upload]))


def test_content_that_was_damaged_is_not_shared_any_more(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.store("first", CONTENT)
    for damaged in CONTENT[:-1], CONTENT + b"x", CONTENT[:-1] + b"x":
        (tmp_path / "contents" / "1" / "digest").write_bytes(damaged)
        directory.store("next", CONTENT)
        directory.store("last", CONTENT)
        assert directory.inode("next") == directory.inode("last") != directory.inode("first")
        assert (tmp_path / "last").read_bytes() == CONTENT
        os.rename(tmp_path / "last", tmp_path / "first")
        os.unlink(tmp_path / "next")


def test_file_with_all_the_names_that_it_can_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, link = Directory(tmp_path), os.link
    directory.store("first", CONTENT)

    def refuse(source: str, target: str) -> None:
        if os.stat(source).st_nlink == 3:
            raise OSError(errno.EMLINK, "Too many links")
        link(source, target)

    monkeypatch.setattr(os, "link", refuse)
    inodes = [directory.store(str(number), CONTENT) and directory.inode(str(number)) for number in range(4)]
    assert inodes[0] == directory.inode("first")
    assert inodes[1] == inodes[2] != inodes[0]
    assert inodes[3] not in inodes[:3]
    assert (tmp_path / "3").read_bytes() == CONTENT


def test_upload_that_is_committed_again_keeps_its_file(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    upload = directory.store("a", CONTENT)
    coro.run(directory.contents.share([upload]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "contents"]
    directory.delete(upload)
    assert contents(tmp_path) == NONE


def test_sweep_removes_contents_without_another_name_and_no_others(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.store("a", CONTENT)
    assert coro.run(directory.contents.sweep()) == 0
    (tmp_path / "a").unlink()
    assert coro.run(directory.contents.sweep()) == 1
    assert contents(tmp_path) == NONE
    assert coro.run(Contents(tmp_path / "elsewhere", sharing=False).sweep()) == 0
