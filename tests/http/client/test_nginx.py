"""The client against a real nginx."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

import coro
from coro import Coro
from coro.http import Client, ClientLimits, FileBody, StreamBody, StreamedResponse
from coro.http.client.request import Write
from tests.nginx import NginxServer

HELLO = b"Hello, world!\n" * 100


def test_requests_of_a_task_share_a_connection(nginx: NginxServer) -> Coro[None]:
    with Client() as client:
        seen = []
        for _ in range(5):
            connection, number, protocol = (yield from client.get(nginx.url("/connection"))).text.split()
            seen.append((connection, int(number), protocol))
    assert [number for _, number, _ in seen] == [1, 2, 3, 4, 5]
    assert {(connection, protocol) for connection, _, protocol in seen} == {(seen[0][0], "HTTP/1.1")}


def test_tasks_side_by_side_share_as_many_as_are_allowed(nginx: NginxServer) -> Coro[None]:
    with Client(limits=ClientLimits(connections_per_origin=4)) as client:
        answers = yield from coro.gather(*[client.get(nginx.url("/connection")) for _ in range(100)])
    assert len({answer.text.split()[0] for answer in answers}) <= 4


def test_compressed_file(nginx: NginxServer) -> Coro[None]:
    with Client() as client:
        response = yield from client.get(nginx.url("/hello.txt"))
        assert (response.headers["content-encoding"], response.body) == ("gzip", HELLO)
        plain = yield from client.get(nginx.url("/hello.txt"), headers={"Accept-Encoding": "identity"})
        assert (plain.headers["content-length"], plain.body) == (str(len(HELLO)), HELLO)


def test_head_ranges_and_conditions(nginx: NginxServer) -> Coro[None]:
    url = nginx.url("/hello.txt")
    with Client() as client:
        head = yield from client.head(url, headers={"Accept-Encoding": "identity"})
        assert (head.status, head.headers["content-length"], head.body) == (200, str(len(HELLO)), b"")
        part = yield from client.get(url, headers={"Range": "bytes=7-11"})
        assert (part.status, part.body) == (206, b"world")
        same = yield from client.get(url, headers={"If-None-Match": head.headers["etag"]})
        assert (same.status, same.body) == (304, b"")
        empty = yield from client.get(nginx.url("/empty"))
        assert (empty.status, empty.body) == (204, b"")
        after = yield from client.get(nginx.url("/connection"))
        assert after.text.split()[1] == "5"


def test_chunks(nginx: NginxServer) -> Coro[None]:
    with Client() as client:
        response = yield from client.get(nginx.url("/chunked/hello.txt"))
        assert (response.headers["transfer-encoding"], response.body) == ("chunked", HELLO)


def test_redirects(nginx: NginxServer) -> Coro[None]:
    with Client() as client:
        response = yield from client.get(nginx.url("/moved"))
        assert (response.url, response.body) == (nginx.url("/hello.txt"), HELLO)
        response = yield from client.post(nginx.url("/seen"), body=b"abc", headers={"X": "y"})
        assert response.text == "GET /echo y"


def test_login(nginx: NginxServer) -> Coro[None]:
    with Client() as client:
        assert (yield from client.get(nginx.url("/private/secret.txt"))).status == 401
        response = yield from client.get(nginx.url("/private/secret.txt"), auth=("user", "pass word"))
        assert response.text == "secret"


def test_large_file_is_streamed(nginx: NginxServer) -> Coro[None]:
    def digest(response: StreamedResponse) -> Coro[tuple[int, str]]:
        sha, size = hashlib.sha256(), 0
        while data := (yield from response.read()):
            sha.update(data)
            size += len(data)
        return size, sha.hexdigest()

    with Client() as client:
        found = yield from client.stream("GET", nginx.url("/zeros"), digest)
    assert found == (1 << 22, hashlib.sha256(bytes(1 << 22)).hexdigest())


def numbers(write: Write) -> Coro[None]:
    for number in range(5_000):
        yield from write(b"%d\n" % number)


NUMBERS = b"".join(b"%d\n" % number for number in range(5_000))


@pytest.mark.parametrize("expect_continue", [False, True])
def test_uploads(nginx: NginxServer, tmp_path: Path, expect_continue: bool) -> Coro[None]:
    (tmp_path / "a").write_bytes(NUMBERS)
    with Client() as client:
        for body in NUMBERS, FileBody(tmp_path / "a"), StreamBody(numbers), StreamBody(numbers, length=len(NUMBERS)):
            response = yield from client.put(nginx.url("/put/x"), body=body, expect_continue=expect_continue)
            assert response.ok, response
            assert nginx.file("put/x").read_bytes() == NUMBERS
            assert (yield from client.delete(nginx.url("/put/x"))).status == 204


def test_upload_that_is_too_large_is_refused(nginx: NginxServer) -> Coro[None]:
    with Client() as client:
        for body in bytes(1 << 23), StreamBody(numbers):
            response = yield from client.put(nginx.url("/small/x"), body=body)
            assert response.status == 413
        response = yield from client.put(nginx.url("/small/x"), body=bytes(1 << 23), expect_continue=True)
        assert response.status == 413
        assert (yield from client.get(nginx.url("/empty"))).status == 204


def test_tls_with_a_server_that_would_rather_speak_http_2(nginx: NginxServer) -> Coro[None]:
    trust = ssl.create_default_context(cafile=nginx.certificates.authority)
    with Client(tls=trust) as client:
        for number in "1", "2":
            response = yield from client.get(nginx.url("/connection", tls=True))
            assert response.text.split()[1:] == [number, "HTTP/1.1"]
        assert (yield from client.get(nginx.url("/zeros", tls=True))).body == bytes(1 << 22)
        response = yield from client.put(nginx.url("/put/y", tls=True), body=NUMBERS)
        assert response.ok and nginx.file("put/y").read_bytes() == NUMBERS


def test_unix_socket(nginx: NginxServer) -> Coro[None]:
    with Client(unix_socket=nginx.socket) as client:
        response = yield from client.get("http://whatever.example/echo?a", headers={"X": "y"})
        assert response.text == "GET /echo?a y"


@pytest.mark.parametrize("tls", [False, True])
def test_server_that_closes_kept_connections_is_no_trouble(
    own_nginx: Callable[..., NginxServer], tls: bool
) -> Coro[None]:
    server = own_nginx(3)
    trust = ssl.create_default_context(cafile=server.certificates.authority)
    with Client(tls=trust) as client:
        seen = []
        for _ in range(10):
            seen.append((yield from client.post(server.url("/echo", tls=tls), body=b"x")).status)
        assert seen == [200] * 10
        server.restart()
        assert (yield from client.post(server.url("/echo", tls=tls), body=b"x")).status == 200
