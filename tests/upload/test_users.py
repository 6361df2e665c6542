"""Accounts on the command line, and tables of other versions of the program."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from apps.upload import server_store, sqlite_store
from tests.upload.conftest import Start
from tests.upload.harness import App, BackEnd, SQLiteBackEnd, run_app, session_of

PASSWORD = "correct horse"


def _user(app: App, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return run_app("--dir", str(app.directory), *app.back_end.options, "user", *words, stdin=stdin)


def _refused(app: App, *words: str, stdin: str = "") -> str:
    """The one line that it says."""
    done = _user(app, *words, stdin=stdin)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("coro: ") and done.stderr.count("\n") == 1
    return done.stderr.removeprefix("coro: ").rstrip()


def test_list_tells_what_is_stored(start: Start, back_end: BackEnd) -> None:
    app = start(back_end)
    session = session_of(app.post("/login", invitation=app.invitation(), password=PASSWORD))
    for size in (700, 534):
        assert app.put("a", bytes(size), session).status == 201
    assert _user(app, "add", "zoë", stdin=PASSWORD).returncode == 0
    done = _user(app, "list")
    assert (done.returncode, done.stderr) == (0, "")
    admin, other = (line.split() for line in done.stdout.splitlines())
    assert (admin[0], admin[3:]) == ("admin", ["2", "uploads", "1,234", "bytes"])
    assert (other[0], other[3:]) == ("zoë", ["0", "uploads", "0", "bytes"])


def test_password_is_changed_and_sessions_end(app: App, account: tuple[str, str]) -> None:
    session = session_of(app.post("/login", user=account[0], password=account[1]))
    assert "8 to 1024 bytes" in _refused(app, "password", account[0], stdin="short\n")
    assert app.ask("GET", "/uploads", session=session).status == 200
    assert _user(app, "password", account[0], stdin=PASSWORD).returncode == 0
    assert app.ask("GET", "/uploads", session=session).status == 401
    assert app.post("/login", user=account[0], password=PASSWORD).status == 200


def test_account_without_uploads_is_removed(app: App, account: tuple[str, str]) -> None:
    session = session_of(app.post("/login", user=account[0], password=account[1]))
    token = app.post("/tokens", session, name="script").json["token"]
    assert _user(app, "remove", account[0]).returncode == 0
    assert app.ask("GET", "/uploads", session=session).status == 401
    assert app.ask("GET", "/uploads", Authorization=f"Bearer {token}").status == 401
    assert app.post("/login", user=account[0], password=account[1]).status == 401


def test_account_with_uploads_is_removed_on_request_only(app: App, account: tuple[str, str]) -> None:
    session = session_of(app.post("/login", user=account[0], password=account[1]))
    upload = app.put("mine", b"x", session).json
    [path] = [row["path"] for row in app.rows if row["id"] == upload["id"]]
    assert _refused(app, "remove", account[0]) == f"{account[0]} has 1 upload: --with-uploads removes it too"
    assert app.ask("GET", upload["url"], session=session).body == b"x"
    assert _user(app, "remove", account[0], "--with-uploads").returncode == 0
    assert path not in app.files
    assert upload["id"] not in [row["id"] for row in app.rows]


@pytest.mark.parametrize("action", ["password", "remove"])
def test_a_user_who_is_not_there(app: App, action: str) -> None:
    assert _refused(app, action, "nobody", stdin=PASSWORD) == "there is no user 'nobody'"


def test_an_account_cannot_be_added_twice(app: App, account: tuple[str, str]) -> None:
    assert _refused(app, "add", account[0], stdin=PASSWORD) == f"there is a user '{account[0]}' already"


# --- Tables of other versions --------------------------------------------------------------------


def _make_version_1(app: App) -> None:
    """Turn the tables into those of the first version, with a user in them."""
    for table in ("tokens", "invitations"):
        app.back_end.ask(app, f"DROP TABLE {table}")
    if isinstance(app.back_end, SQLiteBackEnd):
        app.back_end.ask(app, "PRAGMA user_version = 0")
    else:
        app.back_end.ask(app, "DROP TABLE upload_schema")


def _set_version(app: App, version: int) -> None:
    if isinstance(app.back_end, SQLiteBackEnd):
        app.back_end.ask(app, f"PRAGMA user_version = {version}")
    else:
        app.back_end.ask(app, f"INSERT INTO upload_schema VALUES ({version})")


def _version(app: App) -> int:
    sqlite = isinstance(app.back_end, SQLiteBackEnd)
    sql = "PRAGMA user_version" if sqlite else "SELECT MAX(version) FROM upload_schema"
    version: int = app.back_end.ask(app, sql)[0][0]
    return version


def test_tables_of_the_first_version_are_brought_up_to_date(start: Start, back_end: BackEnd) -> None:
    app = start(back_end)
    session = session_of(app.post("/login", invitation=app.invitation(), password=PASSWORD))
    upload = app.put("kept", b"x", session).json
    app.stop()
    _make_version_1(app)
    app.start()
    session = session_of(app.post("/login", user="admin", password=PASSWORD))
    assert app.ask("GET", upload["url"], session=session).body == b"x"
    assert app.post("/tokens", session, name="new").status == 201
    assert _version(app) == len(sqlite_store.MIGRATIONS) == len(server_store.MIGRATIONS)


def test_tables_of_a_newer_version_are_left_alone(start: Start, back_end: BackEnd) -> None:
    app = start(back_end)
    app.stop()
    _set_version(app, 99)
    assert "newer version of this program" in _refused(app, "list")
    assert _version(app) == 99


def test_processes_that_find_old_tables_at_once(start: Start, back_end: BackEnd) -> None:
    app = start(back_end)
    app.stop()
    _make_version_1(app)

    def listed(number: int) -> subprocess.CompletedProcess[str]:
        """Who has waited too long for another to be done with the tables is told so, and tries again."""
        done = _user(app, "list")
        waited = "has been changing its tables" in done.stderr or "database is locked" in done.stderr
        return listed(number) if waited else done

    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(listed, range(4)))
    assert [(each.returncode, each.stderr) for each in done] == [(0, "")] * 4
    assert len({each.stdout for each in done}) == 1
    assert back_end.ask(app, "SELECT COUNT(*) FROM tokens") == [(0,)]
