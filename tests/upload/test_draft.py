"""Resumable uploads by the IETF's draft, request by request; sent by curl, and by hand where 104 is to be seen."""

from __future__ import annotations

import hashlib
import re
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.services import scratch
from tests.upload.conftest import Start
from tests.upload.harness import PATIENCE, Answer, App, BackEnd, Exchange, SQLiteBackEnd, eventually
from tests.upload.tus import Client as TusClient

PIECE = "application/partial-upload"
DATA = bytes(range(256)) * 40
PROBLEMS = "https://iana.org/assignments/http-problem-types#"


def sha256_field(data: bytes) -> str:
    return f"sha-256=:{b64encode(hashlib.sha256(data).digest()).decode()}:"


class Client:
    """One user's requests."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.session = app.log_in()

    def ask(self, method: str, path: str, body: Any = None, **fields: Any) -> Answer:
        headers = {name: str(value) for name, value in fields.items()}
        return self.app.ask(method, path, body, session=self.session, **headers)

    def create(self, body: bytes = b"", **fields: Any) -> str:
        """A new upload, of which more is to come; its path."""
        answer = self.ask("PUT", "/upload/a.bin", body, Upload_Complete="?0", **fields)
        assert (answer.status, answer.headers["Upload-Complete"]) == (201, "?0"), answer
        return urlsplit(answer.headers["Location"]).path

    def patch(self, path: str, offset: int, data: Any, complete: str = "?0", **fields: Any) -> Answer:
        told = {"Content_Type": PIECE, "Upload_Offset": offset, "Upload_Complete": complete, **fields}
        return self.ask("PATCH", path, data, **told)

    def offset(self, path: str) -> int:
        answer = self.ask("HEAD", path)
        assert answer.status == 204, answer
        return int(answer.headers["Upload-Offset"])

    def begin(self, method: str, path: str, size: int, data: bytes, *fields: str) -> Exchange:
        """Send the head of a request of `size` bytes, and the first of them."""
        exchange = Exchange(self.app.address)
        lines = [
            f"{method} {path} HTTP/1.1", "Host: test", f"Cookie: session={self.session}", f"Content-Length: {size}",
            "Upload-Draft-Interop-Version: 8", *fields,
        ]  # fmt: skip
        exchange.send("\r\n".join([*lines, "", ""]).encode() + data)
        return exchange

    def received(self, path: str) -> int:
        """How much is on the disk: unlike `offset`, this takes the upload from nobody."""
        return (self.app.directory / "resumable" / path.removeprefix("/resumable/") / "data").stat().st_size

    def finished(self) -> list[dict[str, Any]]:
        """The uploads in the list."""
        uploads: list[dict[str, Any]] = self.ask("GET", "/uploads").json["uploads"]
        return uploads


def interim(exchange: Exchange) -> dict[str, str]:
    """The fields of the next answer, which must be 104."""
    with exchange.socket.makefile("rb", buffering=0) as file:
        assert file.readline().startswith(b"HTTP/1.1 104 ")
        lines = iter(lambda: file.readline().decode().strip(), "")
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


@pytest.fixture(scope="module")
def draft_app() -> Iterator[App]:
    app = App(scratch().directory("upload"), SQLiteBackEnd(), "--resumable-draft", "--max-size", "100000000")
    yield app
    app.close()


@pytest.fixture
def client(draft_app: App) -> Client:
    return Client(draft_app)


# --- Creation ---------------------------------------------------------------------------------------


def test_options_tell_what_is_supported(client: Client) -> None:
    answer = client.ask("OPTIONS", "/upload/a")
    assert (answer.status, answer.headers["Accept-Patch"]) == (204, PIECE)
    assert answer.headers["Upload-Limit"] == "max-size=100000000"


def test_curl_gets_104_ahead_of_the_answer_to_its_put(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(DATA)
    host, port = client.app.address
    fields = ["Upload-Complete: ?1", "Upload-Draft-Interop-Version: 8", f"Cookie: session={client.session}"]
    headers = [word for field in fields for word in ("-H", field)]
    command = ["curl", "-sS", "-i", *headers, "-T", str(tmp_path / "a.bin"), f"http://{host}:{port}/upload/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stderr == ""
    first, *more = done.stdout.split("\n\n")
    assert re.match(r"HTTP/1\.1 104 ", first)
    assert re.search(rf"^Location: http://{host}:{port}/resumable/[0-9a-f]{{32}}$", first, re.MULTILINE)
    assert "Upload-Draft-Interop-Version: 8" in first
    assert re.search(r"^Upload-Limit: max-size=100000000, max-age=\d+$", first, re.MULTILINE)
    assert more[-2].startswith("HTTP/1.1 201 ") and "Upload-Complete: ?1" in more[-2]
    [upload] = client.finished()
    assert (upload["name"], upload["sha256"]) == ("a.bin", hashlib.sha256(DATA).hexdigest())


@pytest.mark.parametrize("fields", [{}, {"Upload_Draft_Interop_Version": "7"}])
def test_client_of_no_or_another_version_gets_no_104(client: Client, fields: dict[str, str]) -> None:
    answer = client.ask("PUT", "/upload/a", DATA, Upload_Complete="?1", **fields)
    assert (answer.status, answer.headers["Upload-Complete"]) == (201, "?1")


@pytest.mark.parametrize("value", ["true", "1", "?2", '"?1"', ""])
def test_field_with_another_value_is_ignored(client: Client, value: str) -> None:
    answer = client.ask("PUT", "/upload/a", DATA, Upload_Complete=value)
    assert (answer.status, answer.headers["Upload-Complete"]) == (201, None)
    assert [upload["size"] for upload in client.finished()] == [len(DATA)]


def test_without_the_switch_it_is_a_put_like_any_other(app: App) -> None:
    client = Client(app)
    with client.begin("PUT", "/upload/a", 3, b"abc", "Upload-Complete: ?1") as exchange:
        answer = exchange.answer()
    assert (answer.status, answer.headers["Upload-Complete"]) == (201, None)
    assert client.ask("HEAD", "/resumable/" + "0" * 32).status == 404


def test_length_may_be_told_once_only(client: Client) -> None:
    for complete, size in ("?1", len(DATA) + 1), ("?1", len(DATA) - 1), ("?0", len(DATA) - 1):
        answer = client.ask("PUT", "/upload/a", DATA, Upload_Complete=complete, Upload_Length=size)
        assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")
        assert answer.json["type"] == f"{PROBLEMS}inconsistent-upload-length"
    assert client.finished() == []


def test_more_than_the_limit_is_refused_with_the_limit(client: Client) -> None:
    answer = client.ask("PUT", "/upload/a", b"", Upload_Complete="?0", Upload_Length=100_000_001)
    assert (answer.status, answer.headers["Upload-Limit"]) == (413, "max-size=100000000")


# --- Going on -----------------------------------------------------------------------------------------


def test_put_that_broke_off_goes_on(client: Client) -> None:
    with client.begin("PUT", "/upload/a.bin", len(DATA), DATA[:4000], "Upload-Complete: ?1") as exchange:
        path = urlsplit(interim(exchange)["location"]).path
        eventually(lambda: client.received(path) == 4000)
    head = client.ask("HEAD", path)
    assert (head.status, head.headers["Upload-Offset"], head.headers["Upload-Complete"]) == (204, "4000", "?0")
    assert (head.headers["Upload-Length"], head.headers["Cache-Control"]) == (str(len(DATA)), "no-store")
    assert head.headers["Upload-Limit"].startswith("max-size=100000000, max-age=")
    answer = client.patch(path, 4000, DATA[4000:], "?1")
    [upload] = client.finished()
    assert (answer.status, answer.headers["Upload-Complete"]) == (201, "?1")
    assert answer.json == {name: upload[name] for name in ("id", "name", "size", "url")}
    assert (upload["name"], upload["sha256"]) == ("a.bin", hashlib.sha256(DATA).hexdigest())
    assert client.ask("HEAD", path).headers["Upload-Complete"] == "?1"


def test_upload_in_parts_is_complete_when_the_client_says_so(client: Client) -> None:
    path = client.create(DATA[:10], Upload_Length=30)
    for offset in 10, 20:
        answer = client.patch(path, offset, DATA[offset : offset + 10])
        assert (answer.status, answer.headers["Upload-Complete"]) == (204, "?0")
        assert answer.headers["Upload-Offset"] == str(offset + 10)
    assert client.finished() == []
    assert client.patch(path, 30, b"", "?1").status == 201
    assert client.ask("GET", client.finished()[0]["url"]).body == DATA[:30]


def test_upload_of_unknown_length_in_chunks(client: Client) -> None:
    path = client.create()
    assert client.ask("HEAD", path).headers["Upload-Length"] is None
    assert client.patch(path, 0, iter([DATA[:5], DATA[5:7]])).status == 204
    assert client.patch(path, 7, iter([DATA[7:20]]), "?1").status == 201
    assert [upload["size"] for upload in client.finished()] == [20]


def test_empty_upload(client: Client) -> None:
    assert client.ask("PUT", "/upload/a", b"", Upload_Complete="?1").status == 201
    assert client.patch(client.create(), 0, b"", "?1").status == 201
    assert [upload["size"] for upload in client.finished()] == [0, 0]


def test_client_is_told_how_much_is_on_the_disk_while_it_sends(client: Client) -> None:
    path, size = client.create(), 40 << 20
    fields = ["Upload-Complete: ?1", "Upload-Offset: 0", f"Content-Type: {PIECE}"]
    with client.begin("PATCH", path, size, bytes(20 << 20), *fields) as exchange:
        told = interim(exchange)
        assert 16 << 20 <= int(told["upload-offset"]) <= client.received(path)
        assert (told["upload-draft-interop-version"], "location" in told) == ("8", False)
        exchange.send(bytes(20 << 20))
        assert int(interim(exchange)["upload-offset"]) >= 32 << 20
        assert exchange.answer().status == 201


def test_upload_is_taken_over_from_another_worker(start: Start, back_end: BackEnd) -> None:
    client = Client(start(back_end, "--resumable-draft", "--workers", "2"))
    for _ in range(6):  # so that some are taken over from the other process
        with client.begin("PUT", "/upload/a", len(DATA), DATA[:3000], "Upload-Complete: ?1") as dead:
            path = urlsplit(interim(dead)["location"]).path
            eventually(lambda: client.received(path) == 3000)  # noqa: B023
            assert client.offset(path) == 3000
            dead.send(DATA[3000:])  # what is still on its way is not written any more
            assert client.patch(path, 3000, DATA[3000:], "?1").status == 201
    assert {upload["sha256"] for upload in client.finished()} == {hashlib.sha256(DATA).hexdigest()}
    assert len(client.finished()) == 6


def test_upload_goes_on_after_a_crash(start: Start, back_end: BackEnd) -> None:
    app = start(back_end, "--resumable-draft")
    client = Client(app)
    path = client.create(DATA[:2000])
    app.kill()
    app.start()
    assert client.offset(path) == 2000
    assert client.patch(path, 2000, DATA[2000:], "?1").status == 201
    assert client.finished()[0]["sha256"] == hashlib.sha256(DATA).hexdigest()


# --- What is refused -----------------------------------------------------------------------------------


def test_piece_for_another_offset(client: Client) -> None:
    path = client.create(b"12345")
    answer = client.patch(path, 3, b"456")
    assert (answer.status, answer.headers["Upload-Offset"]) == (409, "5")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["type"] == f"{PROBLEMS}mismatching-upload-offset"
    assert (answer.json["expected-offset"], answer.json["provided-offset"]) == (5, 3)


def test_complete_upload_takes_no_more(client: Client) -> None:
    path = client.create(b"12345")
    assert client.patch(path, 5, b"", "?1").status == 201
    kinds = [client.patch(path, 5, data, "?1").json["type"] for data in (b"", b"6", iter([b"6"]))]
    assert kinds == [f"{PROBLEMS}completed-upload", *[f"{PROBLEMS}inconsistent-upload-length"] * 2]
    assert [upload["size"] for upload in client.finished()] == [5]


def test_piece_that_does_not_fit_the_length(client: Client) -> None:
    path = client.create(b"12345", Upload_Length=10)
    assert client.patch(path, 5, b"6", "?1").json["type"] == f"{PROBLEMS}inconsistent-upload-length"
    assert client.patch(path, 5, b"6", Upload_Length=11).json["type"] == f"{PROBLEMS}inconsistent-upload-length"
    assert client.patch(path, 5, b"6789012").json["type"] == f"{PROBLEMS}inconsistent-upload-length"
    assert client.patch(path, 5, iter([b"6"]), "?1").status == 400
    assert client.offset(path) == 6
    assert client.patch(path, 6, iter([b"789012"])).status == 413
    assert client.ask("HEAD", path).status == 404  # as the draft wants it


def test_piece_that_lacks_something(client: Client) -> None:
    path = client.create()
    wrong = client.patch(path, 0, b"1", Content_Type="application/octet-stream")
    assert (wrong.status, wrong.headers["Accept-Patch"]) == (415, PIECE)
    assert client.patch(path, 0, b"1", "yes").status == 400
    assert client.ask("PATCH", path, b"1", Content_Type=PIECE, Upload_Complete="?0").status == 400
    assert client.offset(path) == 0


def test_digests_are_checked(client: Client) -> None:
    path = client.create(Repr_Digest=sha256_field(b"123456"))
    assert client.patch(path, 0, b"123", Content_Digest=sha256_field(b"124")).status == 400
    assert client.offset(path) == 0
    assert client.patch(path, 0, b"123", Content_Digest=sha256_field(b"123")).status == 204
    assert client.patch(path, 3, b"45X", "?1").status == 400
    assert client.ask("HEAD", path).status == 404
    right = client.ask("PUT", "/upload/a", b"123", Upload_Complete="?1", Repr_Digest=sha256_field(b"123"))
    assert (right.status, len(client.finished())) == (201, 1)


def test_cancelled_upload_is_gone(client: Client) -> None:
    path = client.create(b"12345")
    assert client.ask("DELETE", path).status == 204
    assert client.ask("HEAD", path).status == 404
    path = client.create(b"12345")
    assert client.patch(path, 5, b"", "?1").status == 201
    assert client.ask("DELETE", path).status == 204
    assert [upload["size"] for upload in client.finished()] == [5]  # which is an upload by now


def test_upload_of_another_user_or_of_another_protocol_is_404(client: Client) -> None:
    path, other = client.create(b"12345"), Client(client.app)
    assert [other.ask("HEAD", path).status, other.patch(path, 5, b"6").status] == [404, 404]
    assert other.ask("DELETE", path).status == 404
    tus = TusClient(client.app)
    tus.session = client.session
    assert tus.head(path.replace("resumable", "files")).status == 404
    assert client.ask("HEAD", tus.create(5).replace("files", "resumable")).status == 404
    assert client.app.ask("PUT", "/upload/a", b"", Upload_Complete="?1").status == 401
    assert client.offset(path) == 5
