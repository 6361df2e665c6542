"""Limits, and digests that clients tell: decided the same way for every way in, before a body is taken."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from tests.upload.conftest import Start
from tests.upload.harness import Answer, App, BackEnd, SQLiteBackEnd, eventually, form

CONTENT = bytes(range(256)) * 64
Send = Callable[..., Answer]


def _put(app: App, data: bytes, session: str, **fields: str) -> Answer:
    return app.ask("PUT", "/upload/a", data, session=session, **fields)


def _post(app: App, data: bytes, session: str) -> Answer:
    body, kind = form(("a", data))
    return app.ask("POST", "/upload", body, session=session, Content_Type=kind)


def _tus(app: App, data: bytes, session: str, **fields: str) -> Answer:
    return app.ask(
        "POST", "/files/", data, session=session, Tus_Resumable="1.0.0", Upload_Length=str(len(data)),
        Content_Type="application/offset+octet-stream", **fields,
    )  # fmt: skip


every_way = pytest.mark.parametrize("send", [_put, _post, _tus])


def _created(app: App, session: str, **fields: str) -> str:
    """The path of a new upload by tus."""
    answer = app.ask("POST", "/files/", b"", session=session, Tus_Resumable="1.0.0", **fields)
    assert answer.status == 201, answer
    return urlsplit(answer.headers["Location"]).path


def _piece(app: App, session: str, path: str, offset: int, data: bytes, **fields: str) -> Answer:
    return app.ask(
        "PATCH", path, data, session=session, Tus_Resumable="1.0.0", Upload_Offset=str(offset),
        Content_Type="application/offset+octet-stream", **fields,
    )  # fmt: skip


def _refused_before_its_body(app: App, session: str, size: int) -> int:
    """The status of an answer that comes instead of 100 Continue."""
    with app.begin_put(session, size, b"", "Expect: 100-continue") as exchange:
        return int(exchange.socket.makefile("rb").readline().split()[1])


# --- Quota -------------------------------------------------------------------------------------


@every_way
def test_quota_counts_what_is_stored(start: Start, back_end: BackEnd, send: Send) -> None:
    app = start(back_end, "--quota", str(2 * len(CONTENT)))
    session, other = app.log_in(), app.log_in()
    assert [send(app, CONTENT, session).status for _ in range(3)] == [201, 201, 413]
    assert send(app, CONTENT, other).status == 201
    first = app.ask("GET", "/uploads", session=session).json["uploads"][0]
    assert app.ask("DELETE", first["url"], session=session).status == 204
    assert send(app, CONTENT, session).status == 201
    assert len(app.files) == len(app.rows) == 3


def test_quota_counts_what_is_under_way(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--quota", "20000")
    session = app.log_in()
    with app.begin_put(session, 15000, CONTENT[:5000]):
        eventually(lambda: app.files)
        assert _refused_before_its_body(app, session, 5001) == 413
        assert app.put("small", bytes(5000), session).status == 201
    eventually(lambda: len(app.files) == 1)
    eventually(lambda: app.put("b", bytes(15000), session).status == 201)


def test_quota_ends_an_upload_that_does_not_tell_its_length(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--quota", "100000")
    session = app.log_in()
    assert app.put("chunked", (CONTENT for _ in range(5)), session).status == 201
    assert app.put("chunked", (CONTENT for _ in range(5)), session).status == 413
    assert len(app.files) == 1


# --- Uploads at once -------------------------------------------------------------------------------


def test_more_uploads_at_once_than_a_user_may_have(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--parallel", "2")
    session, other = app.log_in(), app.log_in()
    exchanges = [app.begin_put(session, len(CONTENT), CONTENT[:5000]) for _ in range(2)]
    eventually(lambda: len(app.files) == 2)
    assert _refused_before_its_body(app, session, 5) == 429
    assert _tus(app, b"x", session).headers["Retry-After"] == "1"
    assert app.put("a", b"x", other).status == 201
    for exchange in exchanges:
        exchange.send(CONTENT[5000:])
        assert exchange.answer().status == 201
    assert app.put("a", b"x", session).status == 201


# --- Room on the disk ----------------------------------------------------------------------------------


def test_more_than_the_disk_has_is_refused_before_it_is_sent(app: App) -> None:
    session = app.log_in()
    assert _refused_before_its_body(app, session, 1 << 60) == 507
    told = {"Tus_Resumable": "1.0.0", "Upload_Length": str(1 << 59)}
    assert app.ask("POST", "/files/", b"", session=session, **told).status == 507


# --- Digests (RFC 9530) ----------------------------------------------------------------------------------


def _digest(name: str, data: bytes) -> str:
    return f"{name}=:{b64encode(hashlib.new(name.replace('-', ''), data).digest()).decode()}:"


@pytest.mark.parametrize("size", [100, 3_000_000])
@pytest.mark.parametrize("name", ["sha-256", "sha-512"])
@pytest.mark.parametrize("field", ["Content_Digest", "Repr_Digest"])
def test_put_is_checked_by_the_digest_that_it_tells(app: App, field: str, name: str, size: int) -> None:
    session, data = app.log_in(), bytes(size)
    assert _put(app, data, session, **{field: f"crc32c=:AAAAAA==:, {_digest(name, data)}"}).status == 201
    files = app.files
    answer = _put(app, data, session, **{field: _digest(name, data + b"x")})
    assert answer.status == 400
    assert f"another {name} than {field.replace('_', '-').lower()}" in answer.json["error"]
    assert app.files == files
    assert len(app.ask("GET", "/uploads", session=session).json["uploads"]) == 1


@pytest.mark.parametrize("field", ["Content_Digest", "Repr_Digest"])
def test_form_is_checked_by_the_digest_that_it_tells(app: App, field: str) -> None:
    session, files = app.log_in(), app.files
    body, kind = form(("a", CONTENT), ("b", b"b"))
    body += b"what follows the last boundary"
    told = {field: _digest("sha-256", body)}
    for sent, status in (body[:-1] + b".", 400), (body.replace(b'"b"', b'"c"'), 400), (body, 201):
        answer = app.ask("POST", "/upload", sent, session=session, Content_Type=kind, **told)
        assert (answer.status, len(app.files - files)) == (status, 2 if status == 201 else 0)


def test_piece_by_tus_is_checked_by_the_digest_that_it_tells(app: App) -> None:
    session = app.log_in()
    assert _tus(app, CONTENT, session, Content_Digest=_digest("sha-256", CONTENT)).status == 201
    told = {"Tus_Resumable": "1.0.0", "Upload_Length": "6"}
    url = app.ask("POST", "/files/", b"", session=session, **told).headers["Location"].partition("/files/")[2]
    piece = {"Tus_Resumable": "1.0.0", "Content_Type": "application/offset+octet-stream", "Upload_Offset": "0"}
    wrong = app.ask("PATCH", f"/files/{url}", b"abc", session=session, Content_Digest=_digest("sha-256", b""), **piece)
    assert wrong.status == 400
    head = app.ask("HEAD", f"/files/{url}", session=session, Tus_Resumable="1.0.0")
    assert head.headers["Upload-Offset"] == "0"
    right = _digest("sha-512", b"abcdef")
    assert app.ask("PATCH", f"/files/{url}", b"abcdef", session=session, Content_Digest=right, **piece).status == 204


@pytest.mark.parametrize("value", ["sha-256", "sha-256=abc", "sha-256=:AAAA:", "sha-256=:A:", "=:AAAA:"])
def test_malformed_digest_is_refused(app: App, value: str) -> None:
    assert _put(app, b"x", app.log_in(), Content_Digest=value).status == 400


@pytest.mark.parametrize("name", ["sha-256", "sha-512"])
@pytest.mark.parametrize("digests", [True, False])
def test_whole_upload_by_tus_is_checked_by_the_digest_told_when_it_was_made(
    app: App, start: Start, name: str, digests: bool
) -> None:
    if not digests:
        app = start(SQLiteBackEnd(), "--no-digest")
    session = app.log_in()
    for data, statuses in (b"abcdef", [204, 204, 200]), (b"abcdeX", [204, 400, 404]):
        files = app.files
        url = _created(app, session, Upload_Length="6", Repr_Digest=_digest(name, b"abcdef"))
        found = [_piece(app, session, url, 0, data[:2]).status, _piece(app, session, url, 2, data[2:]).status]
        found.append(app.ask("HEAD", url, session=session, Tus_Resumable="1.0.0").status)
        assert found == statuses
        assert len(app.files - files) == (statuses[1] == 204)
    assert [upload["size"] for upload in app.ask("GET", "/uploads", session=session).json["uploads"]] == [6]


def test_joined_parts_are_checked_by_the_digest_told_for_the_whole(app: App) -> None:
    session = app.log_in()
    parts = [_created(app, session, Upload_Length="3", Upload_Concat="partial") for _ in range(2)]
    for part, data in zip(parts, (b"abc", b"def"), strict=True):
        assert _piece(app, session, part, 0, data).status == 204
    final = {"Tus_Resumable": "1.0.0", "Upload_Concat": f"final;{parts[0]} {parts[1]}"}
    wrong = app.ask("POST", "/files/", b"", session=session, Repr_Digest=_digest("sha-256", b"fedcba"), **final)
    assert wrong.status == 400
    right = app.ask("POST", "/files/", b"", session=session, Repr_Digest=_digest("sha-256", b"abcdef"), **final)
    assert right.status == 201


def test_creation_by_tus_with_a_digest_that_is_none_or_wrong(app: App) -> None:
    session = app.log_in()
    told = {"Tus_Resumable": "1.0.0", "Upload_Length": "0"}
    assert app.ask("POST", "/files/", b"", session=session, Repr_Digest="sha-256=abc", **told).status == 400
    assert app.ask("POST", "/files/", b"", session=session, Content_Digest="sha-256=abc", **told).status == 400
    assert app.ask("POST", "/files/", b"", session=session, Repr_Digest=_digest("sha-256", b"x"), **told).status == 400
    assert app.ask("POST", "/files/", b"", session=session, Repr_Digest=_digest("sha-256", b""), **told).status == 201
