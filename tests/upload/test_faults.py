"""What breaks around the app: stores that go away, replies that are lost, disks that are full, crashes.

The rule that every test here comes back to: an upload that was answered with 201 has its row and its whole file;
one that was not leaves nothing, or what the next start removes.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services import MariaDBServer, RedisServer
from tests.upload.conftest import Start
from tests.upload.harness import (
    PATIENCE,
    App,
    BackEnd,
    Exchange,
    ServersBackEnd,
    SQLiteBackEnd,
    app_command,
    environment,
    eventually,
    form,
)

CONTENT = bytes(range(256)) * 64
SIX_MB = 6_000_000


def assert_rows_and_files_agree(app: App) -> None:
    """Each row has its whole file, and there are no other files."""
    rows = app.rows
    assert {row["path"] for row in rows} == app.files
    for row in rows:
        assert len(app.content(row)) == row["size"]


# --- Stores that go away and come back -----------------------------------------------------


def test_without_redis_503_and_full_service_when_it_is_back(
    start: Start, own_redis: Callable[..., RedisServer], mariadb: MariaDBServer, mariadb_database: str
) -> None:
    redis = own_redis("--appendonly", "yes", "--appendfsync", "always")
    database = mariadb_database.rpartition("/")[2]
    app = start(ServersBackEnd(redis, mariadb, database))
    session = app.log_in()
    assert app.put("before", CONTENT, session).status == 201
    redis.stop()
    answer = app.put("meanwhile", CONTENT, session)
    assert answer.status == 503
    assert answer.json == {"error": "Redis does not answer; try again later"}
    assert app.ask("GET", "/health").status == 200
    redis.start()
    eventually(lambda: app.put("after", CONTENT, session).status == 201)
    assert {row["name"] for row in app.rows} == {"before", "after"}
    assert_rows_and_files_agree(app)


def test_without_mysql_503_and_full_service_when_it_is_back(
    start: Start, redis_server: RedisServer, own_mariadb: Callable[..., MariaDBServer]
) -> None:
    sql = own_mariadb()
    sql.sql("CREATE DATABASE upload")
    app = start(ServersBackEnd(redis_server, sql, "upload"))
    session = app.log_in()
    assert app.put("before", CONTENT, session).status == 201
    sql.stop()
    answer = app.put("meanwhile", CONTENT, session)
    assert answer.status == 503
    assert answer.json == {"error": "MySQL does not answer; try again later"}
    body, kind = form(("one", b"1"), ("two", b"2"))
    assert app.ask("POST", "/upload", body, session=session, Content_Type=kind).status == 503
    assert app.ask("GET", "/uploads", session=session).status == 503
    sql.start()
    eventually(lambda: app.put("after", CONTENT, session).status == 201)
    assert {row["name"] for row in app.rows} == {"before", "after"}
    app.kill()
    app.start()
    assert_rows_and_files_agree(app)


def test_a_store_that_is_down_is_reported_once_not_for_each_request(
    start: Start, own_redis: Callable[..., RedisServer], mariadb: MariaDBServer, mariadb_database: str
) -> None:
    redis = own_redis()
    app = start(ServersBackEnd(redis, mariadb, mariadb_database.rpartition("/")[2]))
    session = app.log_in()
    redis.stop()
    for _ in range(10):
        assert app.ask("GET", "/uploads", session=session).status == 503
    reports = [line for line in app.errors.splitlines() if "Redis" in line]
    assert len(reports) == 1
    assert str(redis.port) in reports[0]


# --- Disks that are full -----------------------------------------------------------------------


@pytest.fixture
def redis_and_mariadb(redis_server: RedisServer, mariadb: MariaDBServer, mariadb_database: str) -> ServersBackEnd:
    return ServersBackEnd(redis_server, mariadb, mariadb_database.rpartition("/")[2])


def test_on_a_full_disk_507_nothing_is_left_and_room_can_be_made(
    start: Start, small_disk: list[str], redis_and_mariadb: ServersBackEnd
) -> None:
    app = start(redis_and_mariadb, prefix=small_disk)
    session = app.log_in()
    first = app.put("first", bytes(6_000_000), session)
    assert first.status == 201
    files = app.files
    answer = app.put("second", bytes(6_000_000), session)
    assert (answer.status, answer.json) == (507, {"error": "the disk is full"})
    body, kind = form(("small", b"x"), ("third", bytes(6_000_000)))
    assert app.ask("POST", "/upload", body, session=session, Content_Type=kind).status == 507
    assert app.files == files
    assert app.ask("DELETE", first.json["url"], session=session).status == 204
    assert app.put("second", bytes(6_000_000), session).status == 201


def _begin_put(app: App, session: str) -> Exchange:
    return app.begin_put(session, SIX_MB, b"", "Expect: 100-continue")


def _begin_form(app: App, session: str) -> Exchange:
    fields = f"Cookie: session={session}\r\nContent-Type: multipart/form-data; boundary=limit"
    return _begin(app, f"POST /upload HTTP/1.1\r\n{fields}\r\nContent-Length: {SIX_MB}\r\nExpect: 100-continue")


def _begin_tus(app: App, session: str) -> Exchange:
    """Already the creation of what can never be whole is refused."""
    fields = f"Cookie: session={session}\r\nTus-Resumable: 1.0.0"
    return _begin(app, f"POST /files/ HTTP/1.1\r\n{fields}\r\nContent-Length: 0\r\nUpload-Length: {SIX_MB}")


def _begin(app: App, head: str) -> Exchange:
    exchange = Exchange(app.address)
    exchange.send(f"{head}\r\nHost: test\r\n\r\n".encode())
    return exchange


@pytest.mark.parametrize("workers", ["1", "4"])
def test_of_three_uploads_that_together_are_too_large_for_the_disk_the_first_is_taken(
    start: Start, small_disk: list[str], redis_and_mariadb: ServersBackEnd, workers: str
) -> None:
    app = start(redis_and_mariadb, "--workers", workers, prefix=small_disk)
    session = app.log_in()
    with _begin_put(app, session) as first:
        assert first.socket.recv(1000).startswith(b"HTTP/1.1 100 ")
        for begin in _begin_put, _begin_put, _begin_form, _begin_tus:
            with begin(app, session) as other:
                assert other.answer().status == 507  # of the body, no byte was sent or asked for
        first.send(bytes(SIX_MB))
        stored = first.answer()
    assert stored.status == 201
    assert app.files == {row["path"] for row in app.rows}
    assert app.ask("DELETE", stored.json["url"], session=session).status == 204
    with _begin_put(app, session) as broken_off:
        assert broken_off.socket.recv(1000).startswith(b"HTTP/1.1 100 ")
        broken_off.send(bytes(SIX_MB - 1))
    eventually(lambda: not app.files)
    assert app.put("again", bytes(SIX_MB), session).status == 201


@pytest.mark.parametrize("command", [[], ["--workers", "2"], ["user", "add", "name"]])
def test_a_start_on_a_full_disk_is_one_line_and_exit_code_1(
    directory: Path, small_disk: list[str], command: list[str]
) -> None:
    filled = ["sh", "-c", f'head -c 11m /dev/zero 2>/dev/null >{directory}/rest; exec "$@"', "sh"]
    done = subprocess.run(
        [*small_disk, *filled, *app_command("--dir", str(directory), *command)],
        env=environment(), input="password", capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"coro: no room left to write {directory}/upload.sqlite3\n"


def test_a_file_size_limit_of_the_system_is_a_full_disk_too(start: Start, back_end: BackEnd) -> None:
    app = start(back_end, prefix=["prlimit", "--fsize=2000000"])
    session = app.log_in()
    assert app.put("a", bytes(3_000_000), session).status == 507
    assert app.files == set()
    assert app.put("a", bytes(1_000_000), session).status == 201


# --- Crashes -------------------------------------------------------------------------------------


def _upload_until_it_dies(app: App, session: str, number: int, done: Callable[[str, bytes], None]) -> None:
    for turn in range(1000):
        content = f"{number} {turn} ".encode() * 3000
        try:
            with app.begin_put(session, len(content), content[:5000]) as exchange:
                exchange.send(content[5000:])
                answer = exchange.answer()
        except (OSError, http.client.HTTPException):
            return
        assert answer.status == 201
        done(answer.json["id"], content)
    raise AssertionError("it did not die")


def test_after_a_crash_under_load_each_accepted_upload_is_whole_and_nothing_else_is_there(
    start: Start, back_end: BackEnd
) -> None:
    app = start(back_end)
    sessions = [app.log_in() for _ in range(50)]
    accepted: dict[str, bytes] = {}
    threads = [
        threading.Thread(target=_upload_until_it_dies, args=(app, session, number, accepted.__setitem__))
        for number, session in enumerate(sessions)
    ]
    waiting = [app.begin_put(session, 1 << 20, CONTENT) for session in sessions[:5]]
    eventually(lambda: len(app.files) == 5)
    for thread in threads:
        thread.start()
    eventually(lambda: len(accepted) >= 50)
    app.kill()
    for thread in threads:
        thread.join()
    for exchange in waiting:
        exchange.close()
    assert any(path.endswith(".part") for path in app.files)
    app.start()
    assert_rows_and_files_agree(app)
    contents = {row["id"]: app.content(row) for row in app.rows}
    assert accepted.items() <= contents.items()


def test_a_living_process_is_not_disturbed_by_the_start_of_another(
    start: Start, back_end: BackEnd
) -> None:
    app = start(back_end)
    session = app.log_in()
    exchange = app.begin_put(session, len(CONTENT), CONTENT[:5000])
    eventually(lambda: app.files)
    other = start(back_end)
    assert other.put("of-the-other", b"x", session).status == 201
    exchange.send(CONTENT[5000:])
    assert exchange.answer().status == 201
    assert other.stop() == 0
    assert app.stop() == 0
    app.start()
    assert_rows_and_files_agree(app)


def test_files_of_a_crash_wait_for_the_database_that_knows_them(
    start: Start, redis_server: RedisServer, mariadb: MariaDBServer, redis_and_mariadb: ServersBackEnd
) -> None:
    app = start(redis_and_mariadb)
    upload = app.put("a", CONTENT, app.log_in()).json
    app.kill()
    with mariadb.database() as other:
        app.back_end = ServersBackEnd(redis_server, mariadb, other)
        app.start()
        assert "a crashed run wait" in app.errors
        app.kill()
    app.back_end = redis_and_mariadb
    app.start()
    assert [row["id"] for row in app.rows] == [upload["id"]]
    assert_rows_and_files_agree(app)


def test_a_row_whose_file_a_crash_of_the_system_cut_short_is_removed_and_reported(
    start: Start, back_end: BackEnd
) -> None:
    app = start(back_end, "--no-fsync")
    session = app.log_in()
    cut, gone, kept = (app.put(name, CONTENT, session).json["id"] for name in ("cut", "gone", "kept"))
    paths = {row["id"]: app.directory / row["path"] for row in app.rows}
    app.kill()
    os.truncate(paths[cut], 100)
    paths[gone].unlink()
    app.start()
    assert [row["id"] for row in app.rows] == [kept]
    assert_rows_and_files_agree(app)
    assert f"upload {cut} ('cut', 16384 bytes) is lost: its file has 100 bytes" in app.errors
    assert f"upload {gone} ('gone', 16384 bytes) is lost: its file is missing" in app.errors


def test_without_a_crash_nothing_is_left_but_what_was_uploaded(start: Start) -> None:
    app = start(SQLiteBackEnd())
    assert app.stop() == 0
    assert list((app.directory / "runs").iterdir()) == []
    assert list((app.directory / "files").iterdir()) == []


