"""The client against Python's own HTTP server, and against coro's; and with a proxy between that breaks connections."""

from __future__ import annotations

import gzip
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import coro
from coro import Coro, TaskGroup
from coro.http import (
    BytesPart,
    Client,
    ClientError,
    ClientLimits,
    ConnectError,
    ConnectionLost,
    FileBody,
    MultipartBody,
    MultipartReader,
    Request,
    Response,
    Router,
    Server,
    StreamBody,
    StreamedResponse,
    StreamResponse,
)
from coro.http.client.request import Write
from tests.proxy import Proxy, through_proxy
from tests.services import dead_port

T = TypeVar("T")

# --- Python's server --------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with what was asked: method, target, body."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        if "Content-Length" in self.headers:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        else:
            body = b""
            while size := int(self.rfile.readline(), 16) if "Transfer-Encoding" in self.headers else 0:
                body += self.rfile.read(size)
                self.rfile.readline()
            if "Transfer-Encoding" in self.headers:
                self.rfile.readline()
        said = f"{self.command} {self.path} ".encode() + body
        self.send_response(200)
        if self.path == "/gzip":
            said = gzip.compress(said)
            self.send_header("Content-Encoding", "gzip")
        if self.path == "/chunked" and self.protocol_version == "HTTP/1.1":
            self.send_header("Transfer-Encoding", "chunked")
            said = b"".join(b"1\r\n%c\r\n" % byte for byte in said) + b"0\r\n\r\n"
        elif self.path == "/close":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


class OldHandler(Handler):
    protocol_version = "HTTP/1.0"


@pytest.fixture(params=[Handler, OldHandler], ids=["HTTP/1.1", "HTTP/1.0"])
def python_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of Python's server, in HTTP/1.1 and HTTP/1.0."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), request.param) as server:
        server.daemon_threads = False  # its end waits for them
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def letters(write: Write) -> Coro[None]:
    for letter in b"abc":
        yield from write(bytes([letter]))


@pytest.mark.parametrize("path", ["/length", "/chunked", "/close", "/gzip"])
def test_python_server(python_server: str, path: str) -> Coro[None]:
    bodies: list[Any] = [b"abc", StreamBody(letters), StreamBody(letters, length=3)]
    with Client(limits=ClientLimits(continue_time=0.01)) as client:  # HTTP/1.0 knows nothing of it
        for _ in range(2):
            assert (yield from client.get(python_server + path)).body == f"GET {path} ".encode()
            assert (yield from client.head(python_server + path)).status == 200
            for body in bodies if path == "/length" else bodies[:1]:
                response = yield from client.post(python_server + path, body=body, expect_continue=path == "/length")
                assert response.body == f"POST {path} abc".encode()


# --- Our server -------------------------------------------------------------------------------


def numbers(request: Request) -> Coro[StreamResponse]:
    def write_body(write: Callable[[bytes], Coro[None]]) -> Coro[None]:
        for number in range(1000):
            yield from write(b"%d " % number)

    yield from ()
    return StreamResponse(write_body)


def echo(request: Request) -> Coro[Response]:
    return Response(200, (yield from request.body.read_all(1 << 24)), [("X-Length", str(request.content_length))])


def form(request: Request) -> Coro[Response]:
    reader = MultipartReader(request)
    seen = []
    while part := (yield from reader.next_part()):
        size = 0
        while data := (yield from part.read()):
            size += len(data)
        seen.append([part.name, part.filename, part.content_type, size])
    return Response.json(seen)


def refuse(request: Request) -> Coro[Response]:
    yield from ()
    return Response(413, b"too large")


def with_our_server(body: Callable[[str], Coro[T]], listener: coro.Listener | None = None) -> Coro[T]:
    """`body(url)` while our server serves."""
    listening = listener or coro.listen("127.0.0.1", 0)
    router = Router()
    router.add("GET", "/numbers", numbers)
    router.add("POST", "/echo", echo)
    router.add("POST", "/form", form)
    router.add("PUT", "/refuse", refuse)

    def both(group: TaskGroup) -> Coro[T]:
        group.spawn(Server(router.handle).serve(listening))
        try:
            return (yield from body("http://a" if listener else f"http://127.0.0.1:{listening.port}"))
        finally:
            group.cancel()

    return coro.task_group(both)


def test_our_server(tmp_path: Path) -> Coro[None]:
    data = bytes(range(256)) * 5000
    (tmp_path / "a.txt").write_bytes(data)

    def pieces(write: Write) -> Coro[None]:
        for start in range(0, len(data), 7777):
            yield from write(data[start : start + 7777])

    def talk(url: str) -> Coro[None]:
        with Client() as client:
            for body in data, StreamBody(pieces), StreamBody(pieces, length=len(data)), FileBody(tmp_path / "a.txt"):
                assert (yield from client.post(f"{url}/echo", body=body)).body == data
            assert len((yield from client.get(f"{url}/numbers")).text.split()) == 1000
            refused = yield from client.put(f"{url}/refuse", body=bytes(1 << 24))
            assert (refused.status, refused.body) == (413, b"too large")
            parts = MultipartBody(
                {"title": "ä", "file": FileBody(tmp_path / "a.txt"), "b": BytesPart(b"123", filename="x")}
            )
            assert (yield from client.post(f"{url}/form", body=parts)).json() == [
                ["title", None, None, 2], ["file", "a.txt", "text/plain", len(data)],
                ["b", "x", "application/octet-stream", 3],
            ]  # fmt: skip

    yield from with_our_server(talk)


def test_our_server_on_a_unix_socket(tmp_path: Path) -> Coro[None]:
    path = str(tmp_path / "socket")

    def talk(url: str) -> Coro[None]:
        with Client(unix_socket=path) as client:
            assert (yield from client.post(f"{url}/echo", body=b"abc")).body == b"abc"

    yield from with_our_server(talk, coro.listen_unix(path))


def test_service_that_calls_another() -> Coro[None]:
    """A handler of a server streams what it gets from another server."""
    def talk(url: str) -> Coro[None]:
        client = Client()

        def forward(request: Request) -> Coro[Response]:
            def use(response: StreamedResponse) -> Coro[bytes]:
                return response.read_all(1 << 20)

            return Response(200, (yield from client.stream("GET", f"{url}/numbers", use)))

        def ask(group: TaskGroup) -> Coro[None]:
            listener = coro.listen("127.0.0.1", 0)
            group.spawn(Server(forward).serve(listener))
            with client, Client() as other:
                direct = yield from other.get(f"{url}/numbers")
                assert (yield from other.get(f"http://127.0.0.1:{listener.port}/")).body == direct.body
            group.cancel()

        yield from coro.task_group(ask)

    yield from with_our_server(talk)


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> Coro[None]:
    for name in "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY":
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    def talk(url: str) -> Coro[None]:
        with Client() as client:
            assert (yield from client.post(f"{url}/echo", body=b"abc")).body == b"abc"

    yield from with_our_server(talk)


# --- Connections that break -------------------------------------------------------------------


def proxied(body: Callable[[Proxy, str], Coro[T]]) -> Coro[T]:
    """`body(proxy, url)` with a proxy in front of our server."""
    return with_our_server(
        lambda url: through_proxy(int(url.rpartition(":")[2]), lambda p: body(p, f"http://127.0.0.1:{p.port}"))
    )


def test_real_response_that_is_cut_at_any_byte_is_never_taken_for_whole() -> Coro[None]:
    def cut(proxy: Proxy, url: str) -> Coro[None]:
        with Client() as client:
            yield from client.post(f"{url}/echo", body=b"x" * 20)
            size = len(proxy.replies)
        for place in range(1, size):
            proxy.replies.clear()
            proxy.cut_after = place
            with Client() as client:
                with pytest.raises(ConnectionLost, match="may have been carried out"):
                    yield from client.post(f"{url}/echo", body=b"x" * 20)
                assert (yield from client.post(f"{url}/echo", body=b"y")).body == b"y"

    yield from proxied(cut)


def test_connection_that_is_cut_while_idle_is_replaced() -> Coro[None]:
    def cut(proxy: Proxy, url: str) -> Coro[None]:
        with Client() as client:
            for number in range(5):
                response = yield from client.post(f"{url}/echo", body=b"%d" % number)
                assert response.body == b"%d" % number
                (proxy.cut if number % 2 else proxy.half_close)()
        assert proxy.connections == 5

    yield from proxied(cut)


def test_connection_that_is_cut_while_waiting_for_the_answer() -> Coro[None]:
    def cut(proxy: Proxy, url: str) -> Coro[None]:
        def ask(group: TaskGroup) -> Coro[None]:
            with Client() as client:
                yield from client.post(f"{url}/echo")
                for method, answered in ("GET", True), ("POST", False):
                    before = len(proxy.requests)
                    proxy.hold_replies()
                    task = group.spawn(outcome(client.request(method, f"{url}/numbers")))
                    while len(proxy.requests) == before:
                        yield from coro.sleep(0.001)
                    proxy.cut()
                    proxy.release_replies()
                    assert (yield from task.join()) is answered

        yield from coro.task_group(ask)

    yield from proxied(cut)


def outcome(request: Coro[Any]) -> Coro[bool]:
    """Was it answered?"""
    try:
        yield from request
    except ClientError:
        return False
    return True


# --- Nobody there -----------------------------------------------------------------------------


def test_connection_that_is_refused_names_the_request_and_the_host() -> Coro[None]:
    port = dead_port()
    expected = rf"^GET http://127\.0\.0\.1:{port}: cannot connect to 127\.0\.0\.1:{port}: Connection refused"
    with Client() as client, pytest.raises(ConnectError, match=expected) as raised:
        yield from client.get(f"http://127.0.0.1:{port}/")
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)


def test_host_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> Coro[None]:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with Client() as client, pytest.raises(ConnectError, match="GET http://nowhere: cannot find host 'nowhere'"):
        yield from client.get("http://nowhere/")


def test_unix_socket_that_is_not_there_is_named(tmp_path: Path) -> Coro[None]:
    client = Client(unix_socket=str(tmp_path / "nothing"))
    with pytest.raises(ConnectError, match=r"GET http://a: cannot connect to .*/nothing: No such file"):
        yield from client.get("http://a/")


def test_ipv6_address() -> Coro[None]:
    listener = coro.listen("::1", 0)

    def talk(url: str) -> Coro[None]:
        with Client() as client:
            response = yield from client.post(f"http://[::1]:{listener.port}/echo", body=b"six")
            assert (response.body, response.url) == (b"six", f"http://[::1]:{listener.port}/echo")

    yield from with_our_server(talk, listener)
