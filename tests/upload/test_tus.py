"""Resumable uploads by tus 1.0.0, request by request."""

from __future__ import annotations

import hashlib
import os
import signal
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.services import MariaDBServer, RedisServer
from tests.upload.conftest import Start
from tests.upload.harness import App, BackEnd, Exchange, ServersBackEnd, eventually
from tests.upload.tus import PIECE, Client, metadata

DATA = bytes(range(256)) * 40


@pytest.fixture
def client(app: App) -> Client:
    return Client(app)


# --- Core -----------------------------------------------------------------------------------------


def test_options_tell_what_is_supported_without_a_session(app: App) -> None:
    answer = app.ask("OPTIONS", "/files/")
    assert (answer.status, answer.headers["Tus-Version"]) == (204, "1.0.0")
    assert set(answer.headers["Tus-Extension"].split(",")) == {
        "creation", "creation-with-upload", "creation-defer-length", "checksum", "expiration", "termination",
        "concatenation",
    }  # fmt: skip
    assert set(answer.headers["Tus-Checksum-Algorithm"].split(",")) == {"sha1", "sha256", "md5"}


def test_upload_in_pieces_becomes_an_upload_like_any_other(client: Client) -> None:
    url = client.create(len(DATA), Upload_Metadata=metadata(filename="größe.bin", filetype="a/b"))
    assert client.offset(url) == 0
    answer = client.patch(url, 0, DATA[:1000])
    assert (answer.status, answer.headers["Upload-Offset"]) == (204, "1000")
    assert client.finished() == []
    assert client.patch(url, 1000, DATA[1000:]).headers["Upload-Offset"] == str(len(DATA))
    [upload] = client.finished()
    assert (upload["name"], upload["size"]) == ("größe.bin", len(DATA))
    assert upload["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert client.app.ask("GET", upload["url"], session=client.session).body == DATA
    assert client.offset(url) == len(DATA)  # for a client that did not get the last answer


def test_head_tells_what_is_known_of_an_upload(client: Client) -> None:
    told = metadata(filename="a")
    url = client.create(10, Upload_Metadata=told)
    client.patch(url, 0, b"12345")
    answer = client.head(url)
    assert (answer.status, answer.headers["Tus-Resumable"]) == (200, "1.0.0")
    assert answer.headers["Cache-Control"] == "no-store"
    assert (answer.headers["Upload-Offset"], answer.headers["Upload-Length"]) == ("5", "10")
    assert answer.headers["Upload-Metadata"] == told


def test_piece_for_another_offset_is_refused(client: Client) -> None:
    url = client.create(10)
    client.patch(url, 0, b"12345")
    for offset in 0, 4, 6:
        assert client.patch(url, offset, b"67890").status == 409
    assert client.offset(url) == 5


def test_more_than_the_length_is_refused_before_it_is_read_and_leaves_the_upload_as_it_was(client: Client) -> None:
    url = client.create(10)
    with client.begin_patch(url, 0, 11, b"") as exchange:
        assert exchange.answer().status == 413
    assert client.patch(url, 0, b"1234567890").status == 204


def test_more_than_the_length_in_chunks_is_cut_back(client: Client) -> None:
    url = client.create(10)
    client.patch(url, 0, b"123")
    assert client.ask("PATCH", url, iter([b"45", b"67890abc"]), Content_Type=PIECE, Upload_Offset=3).status == 413  # type: ignore[arg-type]
    assert client.offset(url) == 3


@pytest.mark.parametrize("method", ["POST", "HEAD", "PATCH", "DELETE"])
def test_other_versions_of_the_protocol_are_refused(client: Client, method: str) -> None:
    answer = client.ask(method, client.create(10) if method != "POST" else "/files/", Tus_Resumable="0.2.2")
    assert (answer.status, answer.headers["Tus-Version"], answer.headers["Tus-Resumable"]) == (412, "1.0.0", "1.0.0")


def test_piece_needs_its_content_type(client: Client) -> None:
    url = client.create(10)
    assert client.ask("PATCH", url, b"12345", Content_Type="text/plain", Upload_Offset=0).status == 415


@pytest.mark.parametrize("upload_id", ["0" * 32, "1", "..%2F..%2Fetc", "A" * 32])
def test_upload_that_does_not_exist_is_404(client: Client, upload_id: str) -> None:
    answer = client.head(f"/files/{upload_id}")
    assert (answer.status, answer.headers["Tus-Resumable"]) == (404, "1.0.0")


def test_method_can_be_overridden(client: Client) -> None:
    url = client.create(5)
    fields = {"X_HTTP_Method_Override": "PATCH", "Content_Type": PIECE, "Upload_Offset": 0}
    assert client.ask("POST", url, b"12345", **fields).status == 204
    assert client.ask("POST", url, X_HTTP_Method_Override="HEAD").headers["Upload-Offset"] == "5"
    assert client.ask("POST", url, X_HTTP_Method_Override="GET").status == 405


# --- Whose it is ------------------------------------------------------------------------------------


def test_every_request_needs_a_session(app: App) -> None:
    url = Client(app).create(10)
    for method, path in ("POST", "/files/"), ("HEAD", url), ("PATCH", url), ("DELETE", url):
        fields = {"Tus_Resumable": "1.0.0", "Content_Type": PIECE, "Upload_Offset": "0", "Upload_Length": "1"}
        assert app.ask(method, path, b"", session="none", **fields).status == 401


def test_upload_of_another_user_is_404(client: Client, app: App) -> None:
    url = client.create(10)
    stranger = Client(app)
    assert [stranger.head(url).status, stranger.patch(url, 0, b"1").status] == [404, 404]
    assert stranger.ask("DELETE", url).status == 404
    assert client.offset(url) == 0


def test_upload_is_not_taken_from_another_user(client: Client, app: App) -> None:
    url = client.create(6)
    with client.begin_patch(url, 0, 6, b"123") as exchange:
        eventually(lambda: client.received(url) == 3)
        assert Client(app).head(url).status == 404
        exchange.send(b"456")
        assert exchange.answer().status == 204


# --- Creation ---------------------------------------------------------------------------------------


def test_location_has_the_scheme_of_the_page(client: Client) -> None:
    host, port = client.app.address
    answer = client.ask("POST", "/files/", b"", Upload_Length=1, Origin=f"https://{host}:{port}")
    assert answer.headers["Location"].startswith(f"https://{host}:{port}/files/")


def test_empty_file_is_complete_at_once(client: Client) -> None:
    client.create(0, Upload_Metadata=metadata(filename="empty"))
    assert [(upload["name"], upload["size"]) for upload in client.finished()] == [("empty", 0)]


def test_first_piece_can_come_with_the_creation(client: Client) -> None:
    answer = client.ask("POST", "/files/", b"12345", Upload_Length=10, Content_Type=PIECE)
    assert (answer.status, answer.headers["Upload-Offset"]) == (201, "5")
    assert client.patch(urlsplit(answer.headers["Location"]).path, 5, b"67890").status == 204
    assert [upload["size"] for upload in client.finished()] == [10]


def test_length_can_be_told_later(client: Client) -> None:
    url = client.create(None)
    client.patch(url, 0, b"12345")
    assert client.head(url).headers["Upload-Defer-Length"] == "1"
    assert client.patch(url, 5, b"", Upload_Length=4).status == 400
    assert client.patch(url, 5, b"678", Upload_Length=8).status == 204
    assert [upload["size"] for upload in client.finished()] == [8]


@pytest.mark.parametrize("fields", [
    {}, {"Upload_Length": "-1"}, {"Upload_Length": "1e3"}, {"Upload_Defer_Length": "2"}, {"Upload_Length": "9" * 30},
    {"Upload_Length": 1, "Upload_Metadata": "filename %%%"}, {"Upload_Length": 1, "Upload_Concat": "whole"},
    {"Upload_Length": 1, "Upload_Metadata": metadata(filename="x" * 256)},
])  # fmt: skip
def test_creation_that_makes_no_sense_is_400(client: Client, fields: dict[str, Any]) -> None:
    assert client.ask("POST", "/files/", b"", **fields).status == 400


@pytest.mark.parametrize("told", ["", "filename", metadata(name="a"), "is_confidential,filename YQ=="])
def test_metadata_may_be_empty_or_lack_a_name(client: Client, told: str) -> None:
    assert client.ask("POST", "/files/", b"", Upload_Length=0, Upload_Metadata=told).status == 201


def test_name_that_is_not_utf_8_is_refused(client: Client) -> None:
    told = "filename " + b64encode(b"\xff").decode()
    assert client.ask("POST", "/files/", b"", Upload_Length=0, Upload_Metadata=told).status == 400


# --- Checksum, termination, expiration, concatenation -------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
def test_piece_with_a_wrong_checksum_is_forgotten(client: Client, algorithm: str) -> None:
    url = client.create(10)
    client.patch(url, 0, b"123")
    right = b64encode(hashlib.new(algorithm, b"4567890").digest()).decode()
    answer = client.patch(url, 3, b"456789X", Upload_Checksum=f"{algorithm} {right}")
    assert answer.status == 460
    assert client.offset(url) == 3
    assert client.patch(url, 3, b"4567890", Upload_Checksum=f"{algorithm} {right}").status == 204
    [upload] = client.finished()
    assert upload["sha256"] == hashlib.sha256(b"1234567890").hexdigest()


@pytest.mark.parametrize("checksum", ["sha1", "sha1 AAAA", "crc32 AAAA", "sha1 %", ""])
def test_checksum_that_is_none_is_400(client: Client, checksum: str) -> None:
    assert client.patch(client.create(10), 0, b"1", Upload_Checksum=checksum).status == 400


def test_terminated_upload_is_gone(client: Client) -> None:
    url = client.create(10)
    client.patch(url, 0, b"123")
    assert client.ask("DELETE", url).status == 204
    assert client.head(url).status == 404


def test_complete_upload_is_deleted_elsewhere(client: Client) -> None:
    url = client.create(1)
    client.patch(url, 0, b"1")
    answer = client.ask("DELETE", url)
    assert (answer.status, answer.json["error"]) == (403, f"the upload is complete: delete /uploads/{url[7:]}")


def test_parts_are_joined(client: Client) -> None:
    parts = [client.create(4, Upload_Concat="partial"), client.create(6, Upload_Concat="partial")]
    client.patch(parts[1], 0, b"567890")
    final = f"final;{parts[0]} http://example.org{parts[1]}"
    assert client.ask("POST", "/files/", b"", Upload_Concat=final).status == 409  # the first is not whole yet
    client.patch(parts[0], 0, b"1234")
    assert client.finished() == []
    answer = client.ask("POST", "/files/", b"", Upload_Concat=final, Upload_Metadata=metadata(filename="joined"))
    assert answer.status == 201
    [upload] = client.finished()
    assert (upload["name"], upload["sha256"]) == ("joined", hashlib.sha256(b"1234567890").hexdigest())
    assert client.head(urlsplit(answer.headers["Location"]).path).headers["Upload-Concat"] == final
    assert [client.head(part).status for part in parts] == [404, 404]


def test_parts_of_others_cannot_be_joined(client: Client, app: App) -> None:
    part = client.create(1, Upload_Concat="partial")
    client.patch(part, 0, b"1")
    assert Client(app).ask("POST", "/files/", b"", Upload_Concat=f"final;{part}").status == 404
    assert client.ask("POST", "/files/", b"", Upload_Concat=f"final;{part} {part}").status == 400
    assert client.ask("POST", "/files/", b"", Upload_Concat="final;").status == 400


def test_unfinished_uploads_expire(back_end: BackEnd, start: Start) -> None:
    app = start(back_end)
    client = Client(app)
    url = client.create(10)
    assert "GMT" in client.head(url).headers["Upload-Expires"]
    app.stop()
    app.options = ("--expire", "0.5")
    app.start()
    eventually(lambda: not os.listdir(app.directory / "resumable"))
    assert client.head(url).status == 404


# --- What goes wrong -----------------------------------------------------------------------------------


def test_what_came_before_the_connection_broke_counts(client: Client) -> None:
    url = client.create(len(DATA))
    with client.begin_patch(url, 0, len(DATA), DATA[:3000]):
        eventually(lambda: client.received(url) == 3000)
    assert client.offset(url) == 3000
    assert client.patch(url, 3000, DATA[3000:]).status == 204
    assert client.finished()[0]["sha256"] == hashlib.sha256(DATA).hexdigest()


def test_upload_is_taken_over_from_a_connection_that_does_not_know_it_is_dead(client: Client) -> None:
    url = client.create(len(DATA))
    with client.begin_patch(url, 0, len(DATA), DATA[:3000]) as dead:
        eventually(lambda: client.received(url) == 3000)
        assert client.offset(url) == 3000
        dead.send(DATA[3000:])  # what is still on its way is not written any more
        assert client.patch(url, 3000, DATA[3000:5000]).headers["Upload-Offset"] == "5000"
        assert client.offset(url) == 5000
    assert client.patch(url, 5000, DATA[5000:]).status == 204
    assert client.finished()[0]["sha256"] == hashlib.sha256(DATA).hexdigest()


def test_upload_is_taken_over_from_another_worker(back_end: BackEnd, start: Start) -> None:
    client = Client(start(back_end, "--workers", "3"))
    urls = [client.create(len(DATA)) for _ in range(8)]  # so that some are taken over from other processes
    held = [client.begin_patch(url, 0, len(DATA), DATA[:3000]) for url in urls]
    for url in urls:
        eventually(lambda url=url: client.received(url) == 3000)  # type: ignore[misc]
        assert client.offset(url) == 3000
        assert client.patch(url, 3000, DATA[3000:]).status == 204
    for exchange in held:
        exchange.close()
    assert {upload["sha256"] for upload in client.finished()} == {hashlib.sha256(DATA).hexdigest()}
    assert len(client.finished()) == 8


def test_upload_goes_on_after_a_crash(back_end: BackEnd, start: Start) -> None:
    app = start(back_end)
    client = Client(app)
    url = client.create(len(DATA))
    client.patch(url, 0, DATA[:2000])
    with client.begin_patch(url, 2000, len(DATA) - 2000, DATA[2000:3000]):
        eventually(lambda: client.received(url) == 3000)
        app.kill()
    app.start()
    assert client.offset(url) == 3000
    assert client.patch(url, 3000, DATA[3000:]).status == 204
    assert client.finished()[0]["sha256"] == hashlib.sha256(DATA).hexdigest()


def test_piece_that_was_to_be_checked_is_forgotten_after_a_crash(back_end: BackEnd, start: Start) -> None:
    app = start(back_end)
    client = Client(app)
    url = client.create(len(DATA))
    client.patch(url, 0, DATA[:2000])
    size = len(DATA) - 2000
    head = (
        f"PATCH {url} HTTP/1.1\r\nHost: test\r\nCookie: session={client.session}\r\nTus-Resumable: 1.0.0\r\n"
        f"Content-Type: {PIECE}\r\nUpload-Offset: 2000\r\nContent-Length: {size}\r\n"
        f"Upload-Checksum: md5 {b64encode(bytes(16)).decode()}\r\n\r\n"
    )
    with Exchange(app.address) as exchange:
        exchange.send(head.encode() + DATA[2000:3000])
        eventually(lambda: client.received(url) == 3000)
        app.kill()
    app.start()
    assert client.offset(url) == 2000
    client.patch(url, 2000, DATA[2000:4000])
    app.kill()
    app.start()
    assert client.offset(url) == 4000


def test_upload_that_is_whole_gets_its_row_when_the_database_is_back(
    start: Start, own_mariadb: Callable[..., MariaDBServer], redis_server: RedisServer
) -> None:
    mariadb = own_mariadb()
    with mariadb.database() as name:
        app = start(ServersBackEnd(redis_server, mariadb, name))
        client = Client(app)
        url = client.create(len(DATA))
        client.patch(url, 0, DATA[:-1])
        os.kill(mariadb.pid, signal.SIGSTOP)
        try:
            assert client.patch(url, len(DATA) - 1, DATA[-1:]).status == 503
        finally:
            os.kill(mariadb.pid, signal.SIGCONT)
        eventually(lambda: client.head(url).status == 200)
        assert client.offset(url) == len(DATA)
        assert [row["size"] for row in app.rows] == [len(DATA)]
        app.terminate()
        app.wait()
