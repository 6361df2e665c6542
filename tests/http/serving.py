"""A server on a loopback port, in a thread of its own, and a client that shows every byte.

The server's clock stands still until the test moves it (`advance`), so no time limit can be hit by accident and
each can be reached at once. A test waits for what the server has come to see (`until`), never for time to pass.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import coro
from coro.http import AccessLog, Handler, Limits, Request, Response, Server
from coro.http.connection import Connection
from coro.net import listen, listen_unix
from coro.task import Coro, current_task

T = TypeVar("T")
PATIENCE = 100.0  # seconds after which a test that hangs fails; nothing waits for them to pass


class Ended(Exception):
    """The server is no more."""


class Clock:
    """Time, as the test tells it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Answer:
    """What a client has received."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        """The only field of that name; "" when there is none."""
        values = [value for known, value in self.headers if known.lower() == name]
        assert len(values) <= 1, f"{name} comes {len(values)} times"
        return values[0] if values else ""


class Client:
    """One connection, blocking, with what was sent and received in plain sight."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self.file: BinaryIO = sock.makefile("rb")

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.sock.sendall(piece)

    def send_until_stopped(self, data: bytes, most: int) -> int:
        """Send over and over what the other side takes, at most that many bytes; how many it took."""
        self.sock.setblocking(False)
        sent = 0
        with suppress(BlockingIOError):
            while sent < most:
                sent += self.sock.send(data)
        self.sock.settimeout(PATIENCE)
        return sent

    def ask(self, *pieces: bytes) -> Answer:
        self.send(*pieces)
        return self.answer(head=pieces[0].startswith(b"HEAD "))

    def head(self) -> tuple[int, list[tuple[str, str]]]:
        """Status and fields of the next answer, interim ones too."""
        start = self.file.readline()
        assert start.startswith(b"HTTP/1.1 ") and start.endswith(b"\r\n"), start
        headers = []
        while (line := self.file.readline()) != b"\r\n":
            assert line.endswith(b"\r\n"), line
            name, colon, value = line[:-2].decode("latin-1").partition(": ")
            assert colon, line
            headers.append((name, value))
        return int(start[9:12]), headers

    def answer(self, head: bool = False) -> Answer:
        """The next answer, which is not an interim one; `head` when the request was HEAD."""
        status, headers = self.head()
        assert status >= 200, "an interim answer"
        answer = Answer(status, headers, b"")
        if not head and status not in (204, 304):
            answer.body = b"".join(self._body(answer))
        return answer

    def _body(self, answer: Answer) -> Iterator[bytes]:
        if answer["transfer-encoding"] == "chunked":
            assert not answer["content-length"]
            while size := int(self.file.readline(), 16):
                yield self.read(size)
                assert self.file.readline() == b"\r\n"
            assert self.file.readline() == b"\r\n"
        elif answer["content-length"]:
            yield self.read(int(answer["content-length"]))
        else:
            assert answer["connection"] == "close"
            yield self.file.read()

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        assert len(data) == size, f"the connection ended after {data!r}"
        return data

    def rest(self) -> bytes:
        """All that comes until the server closes the connection, which it must do without a reset."""
        return self.file.read()

    def vanish(self) -> None:
        """Reset the connection."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def close(self) -> None:
        self.file.close()
        self.sock.close()


class Service:
    """A running server. Its attributes are the server's; touch them through `call` and `until` only."""

    def __init__(
        self, handler: Handler, limits: Limits | None = None, access_log: AccessLog | None = None,
        path: str | None = None, tls: ssl.SSLContext | None = None, **options: Any,
    ) -> None:  # fmt: skip
        """`options`: of the `Server`."""
        self.server = Server(handler, limits=limits, access_log=access_log, **options)
        self._clock = Clock()
        self._path = path
        self._tls = tls
        self._clients: list[Client] = []
        self._started: Future[None] = Future()
        self._ended: Future[Any] = Future()
        self._thread = threading.Thread(target=self._run, name="server")
        self._thread.start()
        self._started.result(PATIENCE)

    def _run(self) -> None:
        try:
            coro.run(self._serve(), clock=self._clock)
            self._ended.set_result(None)
        except BaseException as error:
            if not self._started.done():
                self._started.set_exception(error)
            self._ended.set_exception(error)

    def _serve(self) -> Coro[None]:
        self._loop = current_task().loop
        self.listener = listen("127.0.0.1", 0, tls=self._tls) if self._path is None else listen_unix(self._path)
        self.port = self.listener.port if self._path is None else 0
        self._started.set_result(None)
        yield from self.server.serve(self.listener)

    # --- From the test's thread --------------------------------------------------

    def client(self, receive_buffer: int | None = None) -> Client:
        """A new connection; with a small buffer, a slow reader's."""
        sock = socket.socket(socket.AF_INET if self._path is None else socket.AF_UNIX)
        if self._path is None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what a test sends is there at once
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client = Client(sock)
        self._clients.append(client)
        sock.connect(("127.0.0.1", self.port) if self._path is None else self._path)
        return client

    def ask(self, data: bytes) -> Answer:
        """The answer to one request on a connection of its own."""
        return self.client().ask(data)

    def call(self, function: Callable[[], T]) -> T:
        """`function()` in the server's thread, between two steps of tasks; its result."""
        future: Future[Any] = Future()

        def perform() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._loop.post(perform)
        wait((future, self._ended), PATIENCE, FIRST_COMPLETED)
        if not future.done():
            raise Ended if self.ended() else TimeoutError("the server hangs")
        result: T = future.result()
        return result

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until the server's state is so."""
        end = time.monotonic() + PATIENCE
        while not self.call(condition):
            assert time.monotonic() < end, "the server did not come to that state"
            time.sleep(0.0005)

    def connection(self) -> Connection:
        """The server's side of the only connection there is."""
        self.until(lambda: len(self.server.connections) == 1)
        (connection,) = self.call(lambda: tuple(self.server.connections))
        return connection

    def until_deadline(self) -> Connection:
        """Wait until the only connection waits for its client, with a time limit."""
        connection = self.connection()
        self.until(lambda: connection.busy and connection.deadline < float("inf"))
        return connection

    def until_no_connection(self) -> None:
        self.until(lambda: not self.server.connections)

    def advance(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""

        def move() -> None:
            self._clock.seconds += seconds

        self.call(move)
        with suppress(Ended):
            self.settle()

    def settle(self) -> None:
        """Let the server do what there is to do, for a few turns of its loop."""
        for _ in range(3):
            self.call(lambda: None)

    def small_send_buffers(self) -> None:
        """Have connections that are made from now on block early when their client does not read."""
        self.call(lambda: self.listener.socket.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096))

    def stop(self, grace: float = 0.0) -> None:
        """Stop the server. When this returns, the grace has begun."""
        self.call(lambda: self.server.stop(grace))
        with suppress(Ended):
            self.settle()

    def ended(self) -> bool:
        return self._ended.done()

    def wait_ended(self) -> None:
        self._ended.result(PATIENCE)
        self._thread.join(PATIENCE)

    def close(self) -> None:
        """End the server, whatever it is doing."""

        def end() -> None:
            self.server.stop(0.0)
            self._clock.seconds += 1e6  # a grace that was given before is over

        self._loop.post(end)
        for client in self._clients:
            client.close()
        self.wait_ended()


def get(target: str = "/", fields: str = "", method: str = "GET", version: str = "1.1") -> bytes:
    return f"{method} {target} HTTP/{version}\r\nHost: a\r\n{fields}\r\n".encode("latin-1")


def put(body: bytes = b"", fields: str = "", length: int | None = None, target: str = "/") -> bytes:
    """A request with a body, or with the beginning of one of `length` bytes."""
    length = len(body) if length is None else length
    return get(target, f"Content-Length: {length}\r\n{fields}", "PUT") + body


def put_chunked(body: bytes, fields: str = "", target: str = "/") -> bytes:
    return get(target, f"Transfer-Encoding: chunked\r\n{fields}", "PUT") + body


def hello(request: Request) -> Coro[Response]:
    """Answers with the method and the path, without reading a body."""
    yield from ()
    return Response(200, f"{request.method} {request.path}")


def echo(request: Request) -> Coro[Response]:
    """Answers with the body."""
    return Response(200, (yield from request.body.read_all(1 << 24)))
