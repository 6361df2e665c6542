"""Files shown in the browser, links for people without an account, several files as an archive."""

from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path

import pytest

from apps.upload import downloads
from apps.upload.downloads import _archive_names, _load_key
from apps.upload.store import Upload
from tests.upload.conftest import Start
from tests.upload.harness import App, SQLiteBackEnd, memory

CONTENT = bytes(range(256)) * 64


@pytest.fixture
def session(app: App) -> str:
    return app.log_in()


# --- Shown in the browser -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.PNG", "image/png"), ("a.txt", "text/plain; charset=utf-8"), ("a.html", None), ("a.svg", None), ("png", None)],
)
def test_only_what_is_harmless_is_shown(app: App, session: str, name: str, kind: str | None) -> None:
    url = app.put(name, CONTENT, session).json["url"]
    answer = app.ask("GET", f"{url}?inline=1", session=session)
    assert answer.body == CONTENT
    assert answer.headers["Content-Type"] == (kind or "application/octet-stream")
    assert answer.headers["Content-Disposition"].startswith("inline;" if kind else "attachment;")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert app.ask("GET", url, session=session).headers["Content-Disposition"].startswith("attachment;")


# --- Links -------------------------------------------------------------------------------------------


def _link(app: App, url: str, session: str, seconds: int = 60) -> str:
    answer = app.ask("POST", f"{url}/link", f'{{"seconds": {seconds}}}', session=session)
    assert answer.status == 201
    assert abs(answer.json["expires"] - time.time() - seconds) < 3600
    link: str = answer.json["url"]
    return link


def test_link_gives_its_file_to_anybody_until_the_file_goes(app: App, session: str) -> None:
    url = app.put("a.txt", CONTENT, session).json["url"]
    link = _link(app, url, session)
    assert app.ask("GET", link).body == CONTENT
    assert app.ask("GET", link, Range="bytes=1-3").body == CONTENT[1:4]
    assert app.ask("DELETE", url, session=session).status == 204
    assert app.ask("GET", link).status == 410


def test_link_that_was_changed_is_none(app: App, session: str) -> None:
    link = _link(app, app.put("a", CONTENT, session).json["url"], session)
    other = app.put("b", b"other", session).json["id"]
    user, upload_id, expires, signature = link.removeprefix("/shared/").split("-")
    for changed in (
        f"{user}-{other}-{expires}-{signature}", f"{user}-{upload_id}-{int(expires) + 1}-{signature}",
        f"{user}-{upload_id}-{expires}-{signature[:-1]}", f"{user}-{upload_id}-{expires}", "x", "%F0%9F%A6%86",
    ):  # fmt: skip
        assert app.ask("GET", f"/shared/{changed}").status == 404


def test_link_expires(app: App, session: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = app.put("a", CONTENT, session).json
    [row] = [row for row in app.rows if row["id"] == upload["id"]]
    text = f"{row['user_id']}-{upload['id']}-1000000000"
    signing = object.__new__(downloads.DownloadHandlers)
    signing._key = _load_key(app.directory)
    assert app.ask("GET", f"/shared/{text}-{signing._signature(text)}").status == 410


def test_link_can_be_made_by_the_owner_only(app: App, session: str) -> None:
    url = app.put("a", CONTENT, session).json["url"]
    assert app.ask("POST", f"{url}/link", session=app.log_in()).status == 404
    assert app.ask("POST", f"{url}/link").status == 401
    assert app.ask("POST", f"{url}/link", session=session).status == 201
    for seconds in ("0", "-1", "1e9", "99999999999", '"x"'):
        assert app.ask("POST", f"{url}/link", f'{{"seconds": {seconds}}}', session=session).status == 400


def test_links_outlive_a_restart_and_work_at_every_worker(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--workers", "2")
    session = app.log_in()
    link = _link(app, app.put("a", CONTENT, session).json["url"], session)
    app.stop()
    app.start()
    assert [app.ask("GET", link).status for _ in range(10)] == [200] * 10
    assert (app.directory / "key").stat().st_mode & 0o777 == 0o600


def test_the_key_is_made_once(tmp_path: Path) -> None:
    assert _load_key(tmp_path) == _load_key(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


# --- Several at once ------------------------------------------------------------------------------------


def test_archive_holds_the_files(app: App, session: str) -> None:
    content = {"a.txt": b"", "../b": CONTENT, "large": CONTENT * 200}
    ids = [app.put(name.replace("/", "%2F"), data, session).json["id"] for name, data in content.items()]
    answer = app.ask("GET", f"/archive?ids={','.join(ids)}", session=session)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a.txt", "_b", "large"]
        assert [archive.read(name) for name in archive.namelist()] == list(content.values())


def test_archive_of_what_is_not_the_callers(app: App, session: str) -> None:
    own, others = (app.put("a", b"x", owner).json["id"] for owner in (session, app.log_in()))
    assert app.ask("GET", f"/archive?ids={own},{others}", session=session).status == 404
    assert app.ask("GET", f"/archive?ids={own}").status == 401
    assert app.ask("GET", "/archive", session=session).status == 400


def test_archive_takes_constant_memory(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--no-fsync", "--no-digest")
    session = app.log_in()
    small = app.put("small", b"x", session).json["id"]
    app.ask("GET", f"/archive?ids={small}", session=session)
    large = app.put("large", (bytes(1 << 20) for _ in range(64)), session).json["id"]
    before = memory(app.process.pid, "VmHWM")
    assert len(app.ask("GET", f"/archive?ids={large}", session=session).body) > 64 << 20
    assert memory(app.process.pid, "VmHWM") - before < 8_000_000


def test_names_in_an_archive_are_harmless_and_different() -> None:
    names = ["a.txt", "A.txt", "a.txt", "..", "../../x", "c:\\d", "n\0l", ".a", ".a"]
    uploads = [Upload(str(number), 1, name, "", 0, None) for number, name in enumerate(names)]
    assert list(_archive_names(uploads)) == [
        "a.txt", "A (2).txt", "a (3).txt", "upload", "_.._x", "c__d", "n_l", "a", "a (2)",
    ]  # fmt: skip
