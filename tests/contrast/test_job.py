"""The five ways of contrast/ do the same job: each test runs against each of them, as a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from contrast.compare import PROGRAMS
from contrast.job import HOST, MAX_BODY, MAX_HEAD
from contrast.services import StandIn

CHECKOUT = Path(__file__).resolve().parents[2]
PATIENCE = 100.0  # seconds after which a test that hangs fails; nothing waits for them to pass
TOKEN = "alice-s-token"


@dataclass
class Server:
    port: int
    folder: Path
    services: StandIn
    process: subprocess.Popen[str]

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def connect(self) -> socket.socket:
        return socket.create_connection((HOST, self.port), timeout=PATIENCE)


@pytest.fixture(params=PROGRAMS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    services = StandIn(delay=0.0)
    services.start()
    folder = tmp_path / "files"
    folder.mkdir()
    command = [sys.executable, "-m", f"contrast.{request.param}", "--folder", str(folder), "--services"]
    with subprocess.Popen(
        [*command, str(services.port)], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            yield Server(int(process.stdout.readline()), folder, services, process)
            assert process.poll() is None
        finally:
            process.kill()
            services.stop()
        assert process.stderr.read() == ""


def eventually(condition: Callable[[], object]) -> None:
    """Wait until it holds, in another process."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def head(size: int, token: str = TOKEN) -> bytes:
    return f"POST / HTTP/1.1\r\nHost: x\r\nCookie: session={token}\r\nContent-Length: {size}\r\n\r\n".encode()


def answer(client: socket.socket) -> tuple[int, str]:
    """The status and text of the next answer."""
    received = b""
    while received.count(b"\n") < 4:
        data = client.recv(1)
        assert data, f"the server hung up after {received!r}"
        received += data
    return int(received.split()[1]), received.splitlines()[-1].decode()


def put(client: socket.socket, body: bytes, token: str = TOKEN) -> tuple[int, str]:
    client.sendall(head(len(body), token) + body)
    return answer(client)


def hung_up(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:  # what we sent last was not read
        return True


@pytest.mark.parametrize("size", [0, 1, 1000, 3_000_000])
def test_stores_the_bytes_and_the_row(server: Server, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with server.connect() as client:
        status, name = put(client, body)
    assert status == 201
    assert server.files() == {name: body}
    assert server.services.rows == [(name, "alice", size)]


def test_serves_one_upload_after_another_on_a_connection(server: Server) -> None:
    with server.connect() as client:
        client.sendall(head(3) + b"one" + head(3) + b"two")  # the second request comes with the first
        names = [answer(client)[1], answer(client)[1], put(client, b"three")[1]]
    assert [server.files()[name] for name in names] == [b"one", b"two", b"three"]
    assert [row[0] for row in server.services.rows] == names


def test_takes_a_request_that_comes_byte_by_byte(server: Server) -> None:
    with server.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head(5) + b"hello":
            client.send(bytes([byte]))
        status, name = answer(client)
    assert (status, server.files()) == (201, {name: b"hello"})


def test_serves_others_while_a_body_is_slow(server: Server) -> None:
    with server.connect() as slow, server.connect() as quick:
        slow.sendall(head(10) + b"half ")
        eventually(server.files)
        assert put(quick, b"whole")[0] == 201
        slow.sendall(b"a day")
        assert answer(slow)[0] == 201
    assert sorted(server.files().values()) == [b"half a day", b"whole"]


@pytest.mark.parametrize("size", [4, 3_000_000])
def test_who_has_no_session_gets_401_and_leaves_nothing(server: Server, size: int) -> None:
    with server.connect() as client:
        assert put(client, b"x" * size, token="stolen") == (401, "Unauthorized")
        assert (server.files(), server.services.rows) == ({}, [])
        assert put(client, b"mine")[0] == 201  # the refused body is out of the way


def test_a_client_gone_in_mid_body_leaves_nothing(server: Server) -> None:
    with server.connect() as client:
        client.sendall(head(1000) + b"x" * 500)
        eventually(lambda: b"x" * 500 in server.files().values())
    eventually(lambda: not any(server.folder.iterdir()))
    with server.connect() as client:
        status, name = put(client, b"next")
    assert (status, server.files()) == (201, {name: b"next"})
    assert server.services.rows == [(name, "alice", 4)]


def test_services_that_are_down_mean_503_and_nothing_left(server: Server) -> None:
    with server.connect() as connected, server.connect() as late:
        name = put(connected, b"before")[1]
        server.services.stop()
        for _ in range(2):
            assert put(connected, b"after") == (503, "Service Unavailable")
            assert put(late, b"after") == (503, "Service Unavailable")
    assert server.files() == {name: b"before"}


def test_services_that_go_down_before_the_row_mean_503_and_nothing_left(server: Server) -> None:
    server.services.drops_rows = True
    with server.connect() as client:
        assert put(client, b"no row") == (503, "Service Unavailable")
        assert (server.files(), server.services.rows) == ({}, [])
        server.services.drops_rows = False
        assert put(client, b"row")[0] == 201  # over a new connection to them


@pytest.mark.parametrize(
    "request_sent",
    [
        b"x" * (2 * MAX_HEAD),
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1),
    ],
    ids=["endless head", "no body", "too large"],
)
def test_what_is_no_upload_ends_the_connection(server: Server, request_sent: bytes) -> None:
    with server.connect() as client:
        with suppress(ConnectionError):  # it may hang up before all of it is sent
            client.sendall(request_sent)
        assert hung_up(client)
    with server.connect() as client:
        assert put(client, b"next")[0] == 201


