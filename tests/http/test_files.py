"""Files as answers: whole, by ranges, to clients that go away."""

from __future__ import annotations

import email
import logging
import os
from email.utils import formatdate
from pathlib import Path

import pytest

from coro.http import FileResponse, HTTPError, Limits, Request
from coro.task import Coro
from tests.http.conftest import Serve
from tests.http.serving import Service, get
from tests.kernel.programs import descriptors

CONTENT = b"0123456789"
MODIFIED = 1_700_000_000
DATE = formatdate(MODIFIED, usegmt=True)
ETAG = '"v1"'
MIB = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    os.utime(path, (MODIFIED, MODIFIED))
    return path


@pytest.fixture
def service(serve: Serve, tmp_path: Path) -> Service:
    """Serves the files of the test's directory."""

    def handle(request: Request) -> Coro[FileResponse]:
        path = str(tmp_path / request.path[1:])
        try:
            return (yield from FileResponse.open(request, path, [("X-A", "b")], "text/css", ETAG))
        except FileNotFoundError:
            raise HTTPError(404, "no such file") from None

    return serve(handle)


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """However the answer ended."""

    def check() -> None:
        assert not [path for _, path in descriptors() if path.startswith(str(tmp_path))]

    request.addfinalizer(check)


def test_whole_file(service: Service, file: Path) -> None:
    answer = service.ask(get("/file"))
    assert (answer.status, answer.body, answer["content-length"]) == (200, CONTENT, "10")
    assert (answer["content-type"], answer["x-a"], answer["accept-ranges"]) == ("text/css", "b", "bytes")
    assert (answer["last-modified"], answer["etag"]) == (DATE, ETAG)


def test_connection_is_used_again(service: Service, file: Path) -> None:
    client = service.client()
    client.send(get("/file") + get("/file", "Range: bytes=1-2\r\n") + get("/file"))
    assert [client.answer().body for _ in range(3)] == [CONTENT, b"12", CONTENT]


def test_head(service: Service, file: Path) -> None:
    client = service.client()
    answer = client.ask(get("/file", method="HEAD"))
    assert (answer.status, answer["content-length"]) == (200, "10")
    assert client.ask(get("/file")).body == CONTENT


def test_empty_file(service: Service, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    answer = service.ask(get("/empty"))
    assert (answer.status, answer.body, answer["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize(
    ("wanted", "content", "range"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-5", b"2345", "bytes 2-5/10"),
        ("bytes=9-9", b"9", "bytes 9-9/10"),
        ("bytes=4-", b"456789", "bytes 4-9/10"),
        ("bytes=0-", CONTENT, "bytes 0-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-10", CONTENT, "bytes 0-9/10"),
        ("bytes=-99", CONTENT, "bytes 0-9/10"),
        ("bytes=5-99", b"56789", "bytes 5-9/10"),
        ("BYTES=0-1", b"01", "bytes 0-1/10"),
        ("bytes=0000000000000000-1", b"01", "bytes 0-1/10"),
    ],
)
def test_range(service: Service, file: Path, wanted: str, content: bytes, range: str) -> None:
    answer = service.ask(get("/file", f"Range: {wanted}\r\n"))
    assert (answer.status, answer.body, answer["content-range"]) == (206, content, range)
    assert (answer["content-length"], answer["etag"]) == (str(len(content)), ETAG)


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=10-20", "bytes=99-", "bytes=-0"])
def test_range_beyond_the_end_is_416(service: Service, file: Path, wanted: str) -> None:
    client = service.client()
    answer = client.ask(get("/file", f"Range: {wanted}\r\n"))
    assert (answer.status, answer["content-range"]) == (416, "bytes */10")
    assert client.ask(get("/file")).body == CONTENT


def test_any_range_of_an_empty_file_is_416(service: Service, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert service.ask(get("/empty", "Range: bytes=0-\r\n")).status == 416


@pytest.mark.parametrize(
    "wanted",
    ["bytes=-", "bytes=", "bytes=5-2", "bytes=a-b", "bytes=1", "lines=1-2", "bytes 1-2", "bytes=+1-2", "bytes=--1",
     "bytes=0-99999999999999999999999", "x", "bytes=0-1;3-4", "bytes=0-1,x", "bytes=0-4,4-5",
     "bytes=5-,0-", "bytes=" + ",".join(["0-0"] * 2), "bytes=" + ",".join(f"{n}-{n}" for n in range(17))],
)  # fmt: skip
def test_what_is_no_range_or_too_much_of_them_is_ignored(service: Service, file: Path, wanted: str) -> None:
    answer = service.ask(get("/file", f"Range: {wanted}\r\n"))
    assert (answer.status, answer.body, answer["content-range"]) == (200, CONTENT, "")


def test_several_ranges(service: Service, file: Path) -> None:
    client = service.client()
    answer = client.ask(get("/file", "Range: bytes=0-1, 8-, 20-30,4-4\r\n"))
    kind, _, boundary = answer["content-type"].partition("; boundary=")
    assert (answer.status, kind, answer["content-range"]) == (206, "multipart/byteranges", "")
    part = b"\r\n--%b\r\nContent-Type: text/css\r\nContent-Range: bytes %b/10\r\n\r\n%b"
    name = boundary.encode()
    parts = [part % (name, *piece) for piece in ((b"0-1", b"01"), (b"8-9", b"89"), (b"4-4", b"4"))]
    assert answer.body == b"".join(parts) + b"\r\n--%b--\r\n" % name
    assert client.ask(get("/file")).body == CONTENT


def test_several_ranges_as_another_program_reads_them(service: Service, file: Path) -> None:
    answer = service.ask(get("/file", "Range: bytes=1-2,-3\r\n"))
    message = email.message_from_bytes(f"Content-Type: {answer['content-type']}\r\n\r\n".encode() + answer.body)
    assert [part.get_payload(decode=True) for part in message.get_payload()] == [b"12", b"789"]  # type: ignore[union-attr]


def test_one_of_several_ranges_that_is_there_comes_by_itself(service: Service, file: Path) -> None:
    answer = service.ask(get("/file", "Range: bytes=2-3,99-\r\n"))
    assert (answer.status, answer.body, answer["content-range"]) == (206, b"23", "bytes 2-3/10")


def test_file_has_a_tag_unless_it_is_given_one(serve: Serve, file: Path) -> None:
    def handle(request: Request) -> Coro[FileResponse]:
        return (yield from FileResponse.open(request, str(file)))

    service = serve(handle)
    tag = service.ask(get())["etag"]
    assert service.ask(get(fields=f"If-None-Match: {tag}\r\n")).status == 304
    file.write_bytes(CONTENT)
    assert service.ask(get())["etag"] != tag


@pytest.mark.parametrize("field", [f"If-None-Match: {ETAG}", f"If-Modified-Since: {DATE}"])
def test_file_that_the_client_has_is_not_sent_again(service: Service, file: Path, field: str) -> None:
    client = service.client()
    answer = client.ask(get("/file", f"{field}\r\nRange: bytes=0-1\r\n"))
    assert (answer.status, answer["etag"], answer["last-modified"]) == (304, ETAG, DATE)
    assert (answer["content-type"], answer["content-length"], answer["x-a"]) == ("", "", "b")
    assert client.ask(get("/file")).body == CONTENT


def test_file_that_has_changed_is_412_for_who_requires_that_it_has_not(service: Service, file: Path) -> None:
    assert service.ask(get("/file", 'If-Match: "v2"\r\n')).status == 412
    assert service.ask(get("/file", f"If-Match: {ETAG}\r\n")).status == 200


def test_range_of_head_is_ignored(service: Service, file: Path) -> None:
    """RFC 9110, section 14.2: it has a meaning for GET alone."""
    answer = service.ask(get("/file", "Range: bytes=0-1\r\n", "HEAD"))
    assert (answer.status, answer["content-length"]) == (200, "10")


@pytest.mark.parametrize(
    ("validator", "status"),
    [(ETAG, 206), (DATE, 206), ('"v2"', 200), (formatdate(MODIFIED - 1, usegmt=True), 200),
     (formatdate(MODIFIED + 1, usegmt=True), 200), ("*", 200), (f"W/{ETAG}", 200)],
)  # fmt: skip
def test_if_range(service: Service, file: Path, validator: str, status: int) -> None:
    answer = service.ask(get("/file", f"Range: bytes=0-1\r\nIf-Range: {validator}\r\n"))
    assert answer.status == status
    assert answer.body == (b"01" if status == 206 else CONTENT)


def test_if_range_with_a_weak_validator_is_never_fulfilled(serve: Serve, file: Path) -> None:
    def handle(request: Request) -> Coro[FileResponse]:
        return (yield from FileResponse.open(request, str(file), etag='W/"v1"'))

    answer = serve(handle).ask(get("/file", 'Range: bytes=0-1\r\nIf-Range: W/"v1"\r\n'))
    assert answer.status == 200


def test_missing_file(service: Service) -> None:
    assert service.ask(get("/missing")).status == 404


def test_what_is_no_regular_file_is_an_error(
    service: Service, tmp_path: Path, logged: list[logging.LogRecord]
) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name in ("directory", "fifo"):
        assert service.ask(get(f"/{name}")).status == 500
        info = logged.pop().exc_info
        assert info and isinstance(info[1], OSError)


def test_large_file(service: Service, tmp_path: Path) -> None:
    """Larger than the kernel's buffers, and than what is sent at once."""
    content = os.urandom(MIB) * 20 + b"end"
    (tmp_path / "large").write_bytes(content)
    client = service.client(receive_buffer=65536)
    assert client.ask(get("/large")).body == content
    assert client.ask(get("/large", "Range: bytes=1048570-3145737\r\n")).body == content[1048570:3145738]


def test_client_that_went_away_is_no_error(service: Service, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 32 * MIB)
    client = service.client(receive_buffer=4096)
    client.send(get("/large"))
    client.head()
    client.vanish()
    service.until_no_connection()


def test_client_that_takes_nothing_is_cut_off(service: Service, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 32 * MIB)
    client = service.client(receive_buffer=4096)
    client.send(get("/large"))
    service.until_deadline()
    service.advance(Limits().body_idle_time + 1)
    service.until_no_connection()
    assert len(client.rest()) < 32 * MIB


def test_client_that_takes_it_slowly_receives_it(service: Service, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 16 * MIB)
    client = service.client(receive_buffer=65536)
    client.send(get("/large"))
    client.head()
    connection = service.until_deadline()
    received = 0
    for _ in range(4):
        before = service.call(lambda: connection.deadline)
        service.advance(Limits().body_idle_time - 2)
        while service.call(lambda: connection.deadline) == before:
            received += len(client.read(65536))
    client.read(16 * MIB - received)


def test_file_that_becomes_shorter_ends_the_connection(
    service: Service, tmp_path: Path, logged: list[logging.LogRecord]
) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * 32 * MIB)
    client = service.client(receive_buffer=4096)
    client.send(get("/large") + get("/large"))
    client.head()
    service.until_deadline()
    os.truncate(path, 0)
    assert len(client.rest()) < 32 * MIB
    assert logged.pop().getMessage() == "GET /large failed"


@pytest.mark.parametrize("error", [HTTPError(403), OSError("the store is down")], ids=repr)
def test_file_of_an_answer_that_is_not_sent_is_closed(
    error: Exception, serve: Serve, file: Path, logged: list[logging.LogRecord]
) -> None:
    def handle(request: Request) -> Coro[FileResponse]:
        yield from FileResponse.open(request, str(file))
        raise error

    assert serve(handle).ask(get("/file")).status in (403, 500)
    logged.clear()
