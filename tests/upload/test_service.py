"""The app as a process: starting, stopping, several workers, what it costs in memory and descriptors."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

import coro
from apps.upload import server_store
from apps.upload.store import StoreDown
from tests.services import MariaDBServer, RedisServer
from tests.upload.conftest import Start
from tests.upload.harness import (
    PATIENCE,
    App,
    BackEnd,
    SQLiteBackEnd,
    children,
    eventually,
    form,
    has_ended,
    memory,
    run_app,
)

CONTENT = bytes(range(256)) * 64


# --- Starting ------------------------------------------------------------------------------


def test_the_first_start_makes_an_account_and_says_so_once(start: Start) -> None:
    app = start(SQLiteBackEnd())
    assert app.post("/login", invitation=app.invitation(), password="correct horse").json == {"user": "admin"}
    app.stop()
    app.start()
    app.process.terminate()
    assert app.process.stdout is not None
    assert app.process.stdout.read() == ""
    app.wait()
    assert "invitation" not in "".join(app.lines)


def test_options_are_taken_from_the_environment_and_the_command_line_goes_before(directory: Path) -> None:
    done = run_app("--dir", str(directory), "--redis", "redis://127.0.0.1:1", UPLOAD_REDIS="redis://127.0.0.1:2")
    assert "127.0.0.1:1" in done.stderr
    done = run_app("--dir", str(directory), UPLOAD_REDIS="redis://127.0.0.1:2", UPLOAD_MAX_SIZE="5")
    assert "127.0.0.1:2" in done.stderr


def test_options_in_a_file_go_after_the_environment(directory: Path) -> None:
    config = directory / "upload.toml"
    config.write_text('redis = "redis://127.0.0.1:1"\nmax-size = 5\nno-fsync = true\ngrace = 1.5\n')
    options = ("--dir", str(directory), "--config", str(config))
    assert "127.0.0.1:1" in run_app(*options).stderr
    assert "127.0.0.1:2" in run_app(*options, UPLOAD_REDIS="redis://127.0.0.1:2").stderr
    assert "127.0.0.1:3" in run_app(*options, "--redis", "redis://127.0.0.1:3").stderr
    assert "127.0.0.1:1" in run_app(*options[:2], UPLOAD_CONFIG=str(config)).stderr
    assert "127.0.0.1:1" in run_app(*options, "user", "list").stderr


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prot = 80", "{path}: there is no option 'prot'"),
        ("help = true", "{path}: there is no option 'help'"),
        ("port = [80]", "{path}: 'port' must be a string, a number, or true or false"),
        ('workers = "no"', "argument --workers: 'no' is not a number from 1 on"),
        ('no-fsync = "maybe"', "{path}: 'no-fsync' must be 1 or 0, not 'maybe'"),
        ("port 80", "{path}: Expected '=' after a key in a key/value pair (at line 1, column 6)"),
        (None, "cannot read {path}: No such file or directory"),
    ],
)
def test_a_wrong_file_of_options_is_one_line_and_exit_code_2(directory: Path, text: str | None, line: str) -> None:
    config = directory / "upload.toml"
    if text is not None:
        config.write_text(text)
    done = run_app("--dir", str(directory), "--config", str(config))
    assert done.returncode == 2
    assert done.stderr == f"coro: {line.format(path=config)} (see coro run apps.upload --help)\n"


@pytest.mark.parametrize(
    ("options", "variables", "line"),
    [
        (["--prot", "80"], {}, "coro: unrecognized argument --prot"),
        (["--port", "http"], {}, "coro: argument --port: 'http' is not a port number"),
        (["--workers", "0"], {}, "coro: argument --workers: '0' is not a number from 1 on"),
        (["--host", ""], {}, "coro: argument --host: '' is no address; 0.0.0.0 is every address of this machine"),
        (["--dir", ""], {}, "coro: argument --dir: a directory needs a name; `.` is the working directory"),
        (["--max-size", "1G"], {}, "coro: argument --max-size: '1G' is not a number"),
        (["--proxies", "::1,x"], {}, "coro: argument --proxies: 'x' does not appear to be an IPv4 or IPv6 network"),
        ([], {"UPLOAD_GRACE": "soon"}, "coro: argument --grace: 'soon' is not a number of seconds"),
        ([], {"UPLOAD_NO_FSYNC": "maybe"}, "coro: UPLOAD_NO_FSYNC must be 1 or 0, not 'maybe'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    directory: Path, options: list[str], variables: dict[str, str], line: str
) -> None:
    done = run_app("--dir", str(directory), *options, **variables)
    assert done.returncode == 2
    assert done.stderr == f"{line} (see coro run apps.upload --help)\n"


def _fails_with_one_line(*options: str) -> str:
    """Running the app with these options ends with exit code 1 and one line, which is returned."""
    done = run_app(*options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("coro: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_taken_port(directory: Path, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = _fails_with_one_line("--dir", str(directory), "--workers", workers, "--port", port)
    assert line == f"coro: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_a_port_that_others_would_share_is_taken_too(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = str(taken.getsockname()[1])
        assert "already in use" in _fails_with_one_line("--dir", str(directory), "--workers", "2", "--port", port)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_unreachable_redis(directory: Path, workers: str) -> None:
    line = _fails_with_one_line("--dir", str(directory), "--workers", workers, "--redis", "redis://127.0.0.1:1")
    assert "Redis" in line and "127.0.0.1:1" in line and "refused" in line


def test_unreachable_mysql(directory: Path) -> None:
    line = _fails_with_one_line("--dir", str(directory), "--mysql", "mysql://root@127.0.0.1:1/upload")
    assert "MySQL" in line and "127.0.0.1:1" in line and "refused" in line


def test_mysql_without_the_database(directory: Path, mariadb: MariaDBServer) -> None:
    assert "Unknown database" in _fails_with_one_line("--dir", str(directory), "--mysql", mariadb.url("none_of_that"))


def test_redis_with_a_wrong_password(directory: Path, own_redis: Callable[..., RedisServer]) -> None:
    redis = own_redis(password="right")
    line = _fails_with_one_line("--dir", str(directory), "--redis", f"redis://:wrong@127.0.0.1:{redis.port}")
    assert "WRONGPASS" in line and "wrong@" not in line


def test_mysql_with_a_wrong_password(directory: Path, mariadb: MariaDBServer) -> None:
    line = _fails_with_one_line("--dir", str(directory), "--mysql", mariadb.url("upload", password="wrong"))
    assert "Access denied" in line and "wrong" not in line


def test_mysql_with_another_table_of_that_name(directory: Path, mariadb: MariaDBServer) -> None:
    with mariadb.database() as database:
        mariadb.sql("CREATE TABLE uploads(id INT)", database=database)
        line = _fails_with_one_line("--dir", str(directory), "--mysql", mariadb.url(database))
    assert "Unknown column 'user_id'" in line


def test_mysql_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_store, "PATIENCE", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mysql://127.0.0.1:{silent.getsockname()[1]}/upload"
        metadata = server_store.MySQLMetadata(url)
        with pytest.raises(StoreDown, match=f"MySQL: no answer within 0.01 s from {url}"):
            coro.run(metadata.has_users())
        metadata.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_access_log_that_cannot_be_written(directory: Path, workers: str) -> None:
    log = str(directory / "nowhere" / "log")
    line = _fails_with_one_line("--dir", str(directory), "--access-log", log, "--workers", workers)
    assert line == f"coro: cannot write the access log {log}: No such file or directory\n"


@pytest.mark.parametrize(
    "url", ["--redis=http://127.0.0.1", "--redis=", "--mysql=http://127.0.0.1", "--mysql=", "--mysql=mysql://127.0.0.1"]
)
def test_a_url_that_leads_nowhere(directory: Path, url: str) -> None:
    _fails_with_one_line("--dir", str(directory), url)


def test_a_directory_that_cannot_be_made(directory: Path) -> None:
    (directory / "file").touch()
    assert str(directory / "file") in _fails_with_one_line("--dir", str(directory / "file" / "var"))


def test_an_account_needs_a_name_and_a_password(directory: Path) -> None:
    for name, password in (("", "long enough"), ("tab\t", "long enough"), ("n" * 256, "long enough"), ("ok", "")):
        done = run_app("--dir", str(directory), "user", "add", name, stdin=password)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1


def test_redis_alone_holds_the_sessions(start: Start, redis_server: RedisServer) -> None:
    app = start(SQLiteBackEnd(), "--redis", redis_server.url())
    redis_server.command("SET", "session:alone", "7", "EX", 60)
    assert app.put("a", CONTENT, "alone").status == 201
    assert [row["user_id"] for row in app.rows] == [7]


def test_mysql_alone_holds_the_rows(start: Start, mariadb: MariaDBServer) -> None:
    with mariadb.database() as database:
        app = start(SQLiteBackEnd(), "--mysql", mariadb.url(database))
        assert app.put("a", CONTENT, app.log_in(7)).status == 201
        assert mariadb.sql("SELECT user_id FROM uploads", database=database) == [(7,)]


# --- Limits ----------------------------------------------------------------------------------


def test_more_than_max_size_is_refused_before_it_is_sent(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--max-size", "1000")
    session = app.log_in()
    with app.begin_put(session, 1001, b"", "Expect: 100-continue") as exchange:
        assert exchange.socket.makefile("rb").readline().startswith(b"HTTP/1.1 413 ")
    assert app.files == set()
    assert app.put("just", bytes(1000), session).status == 201


def test_more_than_max_size_without_a_length_is_refused_while_it_comes(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--max-size", "100000")
    answer = app.put("chunked", (CONTENT for _ in range(10)), app.log_in())
    assert answer.status == 413
    assert app.files == set()


def test_more_than_max_size_in_a_form_is_refused(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--max-size", "1000")
    session = app.log_in()
    body, kind = form(("small", bytes(1000)), ("large", bytes(1001)))
    assert app.ask("POST", "/upload", body, session=session, Content_Type=kind).status == 413
    assert app.files == set()
    assert app.rows == []


def test_without_digest_the_column_stays_null(start: Start, back_end: BackEnd) -> None:
    app = start(back_end, "--no-digest", "--no-fsync")
    session = app.log_in()
    for size in (100, 3_000_000):
        assert app.put("a", bytes(size), session).status == 201
    assert [row["sha256"] for row in app.rows] == [None, None]


# --- Stopping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_on_sigterm_uploads_in_flight_finish(start: Start, back_end: BackEnd, workers: str) -> None:
    app = start(back_end, "--workers", workers, "--grace", str(PATIENCE))
    session = app.log_in()
    exchanges = [app.begin_put(session, len(CONTENT), CONTENT[:5000]) for _ in range(8)]
    eventually(lambda: len(app.files) == 8)
    app.terminate()
    eventually(lambda: _refuses(app))
    for exchange in exchanges:
        exchange.send(CONTENT[5000:])
        assert exchange.answer().status == 201
    assert app.wait() == 0
    assert len(app.rows) == 8
    assert {row["path"] for row in app.rows} == app.files


def _refuses(app: App) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(app.address) != 0


def test_on_sigterm_uploads_that_outlast_the_grace_leave_nothing(start: Start, back_end: BackEnd) -> None:
    app = start(back_end, "--grace", "0.2")
    with app.begin_put(app.log_in(), len(CONTENT), CONTENT[:5000]):
        eventually(lambda: app.files)
        assert app.stop() == 0
    assert app.files == set()
    assert list((app.directory / "runs").iterdir()) == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_it_at_once_and_quietly(start: Start, workers: str) -> None:
    app = start(SQLiteBackEnd(), "--workers", workers, prefix=["setsid"])
    with app.begin_put(app.log_in(), len(CONTENT), CONTENT[:5000]):
        eventually(lambda: app.files)
        os.killpg(app.process.pid, signal.SIGINT)  # all of its processes at once, as the terminal does
        assert app.wait() == 130
    assert app.files == set()
    assert app.errors == ""


# --- Several workers -----------------------------------------------------------------------------


def test_workers_share_the_port(start: Start, back_end: BackEnd) -> None:
    app = start(back_end, "--workers", "2")
    session = app.log_in()
    with ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(app.begin_put(session, len(CONTENT), CONTENT[:5000]))
        eventually(lambda: len(app.files) == 30)
        assert len({path.split("/")[1] for path in app.files}) == 2  # directories: one for each worker


def test_a_worker_that_dies_is_replaced_and_the_others_go_on(start: Start, back_end: BackEnd) -> None:
    app = start(back_end, "--workers", "2")
    session = app.log_in()
    stored = app.put("before", CONTENT, session).json
    with ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(app.begin_put(session, len(CONTENT), CONTENT[:5000]))
        eventually(lambda: len(app.files) == 31)
        first, second = children(app.process.pid)
        os.kill(first, signal.SIGKILL)
        eventually(lambda: len(set(children(app.process.pid)) - {first, second}) == 1)
        assert second in children(app.process.pid)
        for _ in range(10):
            assert app.ask("GET", stored["url"], session=session).body == CONTENT
    eventually(lambda: app.files == {row["path"] for row in app.rows})  # the dead worker's parts are gone too
    assert "was killed by SIGKILL" in app.errors
    assert app.stop() == 0


def test_workers_do_not_outlive_their_supervisor(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--workers", "2")
    eventually(lambda: len(children(app.process.pid)) == 2)  # the first may serve before there is a second
    workers = children(app.process.pid)
    os.kill(app.process.pid, signal.SIGKILL)
    eventually(lambda: all(has_ended(pid) for pid in workers))


# --- What it costs --------------------------------------------------------------------------------


def test_a_large_upload_takes_constant_memory(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--no-fsync", "--no-digest")
    session = app.log_in()
    assert app.put("warm", bytes(4_000_000), session).status == 201
    before = memory(app.process.pid, "VmHWM")
    piece = bytes(1 << 20)
    upload = app.ask("PUT", "/upload/large", (piece for _ in range(256)), session=session).json
    with app.begin_put(session, 256 << 20) as exchange:
        for _ in range(256):
            exchange.send(piece)
        assert exchange.answer().status == 201
    assert upload["size"] == 256 << 20
    assert memory(app.process.pid, "VmHWM") - before < 8_000_000
    for row in app.rows:
        (app.directory / row["path"]).unlink()


def test_many_slow_uploads_at_once_with_few_descriptors(start: Start) -> None:
    app = start(SQLiteBackEnd(), prefix=["prlimit", "--nofile=512"])
    session = app.log_in()
    exchanges = [app.begin_put(session, len(CONTENT), CONTENT[:1000]) for _ in range(400)]
    eventually(lambda: len(app.files) == 400)
    for exchange in exchanges:
        exchange.send(CONTENT[1000:2000])
    for exchange in exchanges:
        exchange.send(CONTENT[2000:])
        assert exchange.answer().status == 201
    assert all(app.content(row) == CONTENT for row in app.rows)
    assert len(app.rows) == 400


def test_when_descriptors_run_out_503_and_service_goes_on(start: Start) -> None:
    app = start(SQLiteBackEnd(), prefix=["prlimit", "--nofile=100"])
    session = app.log_in()
    exchanges = [app.begin_put(session, len(CONTENT), CONTENT[:1000]) for _ in range(150)]
    statuses = []
    for exchange in exchanges:
        exchange.send(CONTENT[1000:])
        statuses.append(exchange.answer().status)
    assert set(statuses) <= {201, 503}
    assert statuses.count(201) == len(app.rows) > 0
    assert {row["path"] for row in app.rows} == app.files
    assert app.put("after", CONTENT, session).status == 201


def test_the_access_log_is_in_the_combined_format(start: Start, directory: Path) -> None:
    log = directory / "access.log"
    app = start(SQLiteBackEnd(), "--access-log", str(log))
    app.ask("GET", "/uploads?x=1", User_Agent="tester")
    assert app.stop() == 0
    last = log.read_text().splitlines()[-1]
    date = r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\]"
    assert re.match(rf'127\.0\.0\.1 - - {date} "GET /uploads\?x=1 HTTP/1\.1" 401 \d+ "-" "tester"', last)
