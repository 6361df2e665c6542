"""Each request of the app and its answers, over loopback, on every kind of stores."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import struct
from contextlib import closing

import pytest

from tests.upload.harness import PATIENCE, App, Exchange, eventually, form

CONTENT = bytes(range(256)) * 64


@pytest.fixture
def session(app: App) -> str:
    """A session of a user who has no uploads."""
    return app.log_in()


@pytest.fixture
def other_session(app: App) -> str:
    return app.log_in()


# --- PUT /upload/NAME ---------------------------------------------------------------------


def test_put_answers_with_the_upload(app: App, session: str) -> None:
    answer = app.put("a.bin", CONTENT, session)
    assert answer.status == 201
    assert set(answer.json) == {"id", "name", "size", "url"}
    assert answer.json["name"] == "a.bin"
    assert answer.json["size"] == len(CONTENT)
    assert answer.json["url"] == f"/uploads/{answer.json['id']}" == answer.headers["Location"]


def test_put_leaves_a_row_and_a_whole_file(app: App) -> None:
    session = app.log_in(4711)
    upload = app.put("a.bin", CONTENT, session).json
    [row] = [row for row in app.rows if row["id"] == upload["id"]]
    assert (row["user_id"], row["name"], row["size"]) == (4711, "a.bin", len(CONTENT))
    assert row["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert app.content(row) == CONTENT


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_000])
def test_put_takes_any_size(app: App, session: str, size: int) -> None:
    content = (CONTENT * (size // len(CONTENT) + 1))[:size]
    upload = app.put("sized", content, session).json
    assert upload["size"] == size
    assert app.ask("GET", upload["url"], session=session).body == content


def test_put_without_a_length_is_411_and_stores_nothing(app: App, session: str) -> None:
    with Exchange(app.address) as exchange:
        exchange.send(f"PUT /upload/a HTTP/1.1\r\nHost: a\r\nCookie: session={session}\r\n\r\n".encode())
        answer = exchange.answer()
    assert answer.status == 411
    assert "Content-Length" in answer.json["error"]
    assert app.ask("GET", "/uploads", session=session).json["uploads"] == []


def test_put_takes_a_chunked_body(app: App, session: str) -> None:
    upload = app.put("chunked", (CONTENT for _ in range(10)), session).json
    assert app.ask("GET", upload["url"], session=session).body == CONTENT * 10


def test_put_takes_a_body_that_comes_in_small_pieces(app: App, session: str) -> None:
    exchange = app.begin_put(session, 3)
    for piece in (b"a", b"b", b"c"):
        exchange.send(piece)
    upload = exchange.answer().json
    assert app.ask("GET", upload["url"], session=session).body == b"abc"


def test_put_keeps_the_name_as_given(app: App, session: str) -> None:
    upload = app.put("..%2F%E2%82%AC%20%22q%22.txt", b"x", session).json
    assert upload["name"] == '../€ "q".txt'
    download = app.ask("GET", upload["url"], session=session)
    assert download.headers["Content-Disposition"] == (
        "attachment; filename=\"../_ _q_.txt\"; filename*=UTF-8''..%2F%E2%82%AC%20%22q%22.txt"
    )


def test_same_name_twice_makes_two_uploads(app: App, session: str) -> None:
    first, second = (app.put("twin", content, session).json for content in (b"1", b"2"))
    assert [app.ask("GET", upload["url"], session=session).body for upload in (first, second)] == [b"1", b"2"]


@pytest.mark.parametrize("name", ["a%00b", "%FF", "n" * 256])
def test_put_refuses_a_name_that_is_none(app: App, session: str, name: str) -> None:
    assert app.put(name, b"x", session).status == 400


# --- POST /upload -------------------------------------------------------------------------


def test_post_takes_several_files(app: App, session: str) -> None:
    body, kind = form(("one", b"1"), ("zwei ü", CONTENT * 20), ("leer", b""))
    answer = app.ask("POST", "/upload", body, session=session, Content_Type=kind)
    assert answer.status == 201
    uploads = answer.json["uploads"]
    assert [(upload["name"], upload["size"]) for upload in uploads] == [
        ("one", 1), ("zwei ü", len(CONTENT) * 20), ("leer", 0),
    ]  # fmt: skip
    assert app.ask("GET", uploads[1]["url"], session=session).body == CONTENT * 20


def test_post_without_a_file_is_refused(app: App, session: str) -> None:
    body, kind = form()
    assert app.ask("POST", "/upload", body, session=session, Content_Type=kind).status == 400


def test_post_of_something_else_than_a_form_is_refused(app: App, session: str) -> None:
    assert app.ask("POST", "/upload", b"x", session=session, Content_Type="text/plain").status == 415


def test_post_that_breaks_off_stores_none_of_its_files(app: App, session: str) -> None:
    body, kind = form(("one", b"1"), ("two", b"2"))
    answer = app.ask("POST", "/upload", body[:-20], session=session, Content_Type=kind)
    assert answer.status == 400
    assert app.ask("GET", "/uploads", session=session).json == {"uploads": []}


# --- GET /uploads -------------------------------------------------------------------------


def test_list_shows_the_callers_uploads_newest_first(app: App, session: str, other_session: str) -> None:
    assert app.ask("GET", "/uploads", session=session).json == {"uploads": []}
    first, second = (app.put(name, name, session).json for name in ("first", "second"))
    app.put("of somebody else".replace(" ", "-"), b"x", other_session)
    listed = app.ask("GET", "/uploads", session=session).json["uploads"]
    assert [upload["id"] for upload in listed] == [second["id"], first["id"]]
    assert set(listed[0]) == {"id", "name", "size", "url", "sha256", "created_at"}
    assert listed[0]["sha256"] == hashlib.sha256(b"second").hexdigest()
    assert listed[0]["created_at"].endswith("Z")


# --- GET and DELETE /uploads/ID -----------------------------------------------------------


def test_download_gives_the_file(app: App, session: str) -> None:
    upload = app.put("a.html", CONTENT, session).json
    answer = app.ask("GET", upload["url"], session=session)
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.headers["Content-Disposition"].startswith("attachment;")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_download_of_a_range(app: App, session: str) -> None:
    upload = app.put("a", CONTENT, session).json
    answer = app.ask("GET", upload["url"], session=session, Range="bytes=100-199")
    assert (answer.status, answer.body) == (206, CONTENT[100:200])
    assert answer.headers["Content-Range"] == f"bytes 100-199/{len(CONTENT)}"


def test_download_of_a_range_beyond_the_end(app: App, session: str) -> None:
    upload = app.put("a", b"short", session).json
    assert app.ask("GET", upload["url"], session=session, Range="bytes=5-").status == 416


def test_head_tells_the_size(app: App, session: str) -> None:
    upload = app.put("a", CONTENT, session).json
    answer = app.ask("HEAD", upload["url"], session=session)
    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, str(len(CONTENT)), b"")


def test_delete_removes_file_and_row(app: App, session: str) -> None:
    upload = app.put("a", CONTENT, session).json
    [path] = [row["path"] for row in app.rows if row["id"] == upload["id"]]
    assert app.ask("DELETE", upload["url"], session=session).status == 204
    assert app.ask("GET", upload["url"], session=session).status == 404
    assert path not in app.files
    assert upload["id"] not in [row["id"] for row in app.rows]


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_uploads_of_others_do_not_exist(app: App, session: str, other_session: str, method: str) -> None:
    upload = app.put("a", CONTENT, session).json
    assert app.ask(method, upload["url"], session=other_session).status == 404
    assert app.ask("GET", upload["url"], session=session).status == 200


# --- Sessions -----------------------------------------------------------------------------

PROTECTED = [
    ("PUT", "/upload/a"), ("POST", "/upload"), ("GET", "/uploads"), ("GET", "/uploads/1"), ("DELETE", "/uploads/1"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), PROTECTED)
@pytest.mark.parametrize("session", [None, "nobodys", "x" * 1000])
def test_without_a_session_everything_is_refused(app: App, method: str, path: str, session: str | None) -> None:
    assert app.ask(method, path, b"x", session=session).status == 401


def test_without_a_session_no_body_is_asked_for_and_nothing_is_stored(app: App) -> None:
    before = app.files
    exchange = app.begin_put("nobodys", 1 << 30, b"", "Expect: 100-continue")
    first_line = exchange.socket.makefile("rb").readline()
    assert first_line.startswith(b"HTTP/1.1 401 ")
    assert app.files == before
    exchange.close()


def test_with_a_session_the_body_is_asked_for(app: App, session: str) -> None:
    exchange = app.begin_put(session, 3, b"", "Expect: 100-continue")
    reader = exchange.socket.makefile("rb")
    assert reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    assert reader.readline() == b"\r\n"
    exchange.send(b"abc")
    assert exchange.answer().status == 201


@pytest.mark.parametrize("id", ["0", "%F0%9F%A6%86", "%ff", "%00", "a%27b", "i" * 1000])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_an_id_that_is_none_is_404(app: App, session: str, method: str, id: str) -> None:
    assert app.ask(method, f"/uploads/{id}", session=session).status == 404


# --- Requests that another site's page makes a browser send ---------------------------------


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://[::1"])
def test_a_change_from_another_sites_page_is_refused(app: App, session: str, origin: str) -> None:
    assert app.ask("PUT", "/upload/a", b"x", session=session, Origin=origin).status == 403
    assert app.ask("POST", "/login", b"{}", Origin=origin).status == 403


def test_a_change_from_the_apps_own_page_is_accepted(app: App, session: str) -> None:
    own = f"http://127.0.0.1:{app.address[1]}"
    assert app.ask("PUT", "/upload/a", b"x", session=session, Origin=own).status == 201


# --- Clients that go away ---------------------------------------------------------------------


@pytest.mark.parametrize("sent", [0, 1000, 3_000_000])
def test_a_client_that_goes_away_in_mid_body_leaves_nothing(app: App, session: str, sent: int) -> None:
    before = app.files
    exchange = app.begin_put(session, 10_000_000, b"x" * sent)
    if sent:
        eventually(lambda: app.files != before)
    exchange.close()
    eventually(lambda: app.files == before)
    assert app.ask("GET", "/uploads", session=session).json == {"uploads": []}


def test_a_client_that_resets_its_connection_leaves_nothing(app: App, session: str) -> None:
    before = app.files
    exchange = app.begin_put(session, 10_000, b"x" * 5000)
    eventually(lambda: app.files != before)
    exchange.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.close()
    eventually(lambda: app.files == before)


# --- The page and the rest --------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/"])
def test_no_other_file_is_served(app: App, path: str) -> None:
    assert app.ask("GET", path).status == 404


def test_health(app: App) -> None:
    assert app.ask("GET", "/health").json == {"status": "ok"}


def test_stats_are_for_who_is_logged_in_and_only_when_something_is_measured(app: App) -> None:
    assert app.ask("GET", "/stats").status == 401
    answer = app.ask("GET", "/stats", session=app.log_in())
    assert (answer.status, "coro run --stats" in answer.json["error"]) == (404, True)


def test_errors_are_json(app: App) -> None:
    answer = app.ask("GET", "/nowhere")
    assert (answer.status, list(answer.json)) == (404, ["error"])


def test_requests_share_a_connection(app: App, session: str) -> None:
    with closing(http.client.HTTPConnection(*app.address, timeout=PATIENCE)) as connection:
        for number in range(3):
            connection.request("PUT", f"/upload/{number}", CONTENT, {"Cookie": f"session={session}"})
            assert connection.getresponse().read()
        connection.request("GET", "/uploads", headers={"Cookie": f"session={session}"})
        assert len(json.loads(connection.getresponse().read())["uploads"]) == 3


def test_pipelined_uploads_are_answered_in_order(app: App, session: str) -> None:
    exchange = Exchange(app.address)
    for body in (b"one", b"three"):
        head = f"PUT /upload/x HTTP/1.1\r\nHost: a\r\nCookie: session={session}\r\nContent-Length: {len(body)}\r\n\r\n"
        exchange.send(head.encode() + body)
    sizes = []
    with exchange.socket.makefile("rb") as reader:
        for _ in range(2):
            while (line := reader.readline()) != b"\r\n":
                if line.startswith(b"Content-Length"):
                    length = int(line.split()[1])
            sizes.append(json.loads(reader.read(length))["size"])
    exchange.close()
    assert sizes == [3, 5]
