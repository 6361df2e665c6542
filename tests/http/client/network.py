"""Servers in memory, for a client under test: every byte in plain sight, and no time passes but when all wait.

    def test_something(network: Network) -> Coro[None]:
        network.serve(answer(OK_ABC))
        response = yield from network.client.get("http://a/")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import coro
from coro import ClosedError, Coro, EndOfStream, Stream
from coro.http import Client, ClientLimits
from coro.http.client.request import Outgoing
from coro.testing import memory_streams

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"


class Wire:
    """The server's end of one connection."""

    def __init__(self, stream: Stream, origin: str, number: int) -> None:
        self.stream = stream
        self.origin = origin
        self.number = number  # of the connections of the network, from 0
        self.requests: list[bytes] = []  # heads

    def head(self) -> Coro[bytes]:
        """The head of the next request."""
        head = yield from self.stream.read_until(b"\r\n\r\n")
        self.requests.append(head)
        return head

    def request(self) -> Coro[tuple[bytes, bytes]]:
        """The next request: its head, and its body, without chunks."""
        head = yield from self.head()
        return head, (yield from self.body(head))

    def body(self, head: bytes) -> Coro[bytes]:
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        if b"Content-Length" in fields:
            return (yield from self.stream.read_exactly(int(fields[b"Content-Length"])))
        body = b""
        if b"Transfer-Encoding" in fields:
            while size := int((yield from self.stream.read_until(b"\r\n")), 16):
                body += yield from self.stream.read_exactly(size)
                assert (yield from self.stream.read_exactly(2)) == b"\r\n"
            assert (yield from self.stream.read_exactly(2)) == b"\r\n"
        return body

    def send(self, *pieces: bytes) -> Coro[None]:
        """Send the pieces one by one, so that the client sees them one by one."""
        for piece in pieces:
            yield from self.stream.write(piece)
            if len(pieces) > 1:
                for _ in range(3):
                    yield from coro.checkpoint()

    def until_closed(self) -> Coro[bytes]:
        """What comes until the client closes the connection."""
        data = b""
        while piece := (yield from self.stream.read()):
            data += piece
        return data


Handler = Callable[[Wire], Coro[None]]


class Network:
    """What the client under test connects to. Its handler runs for each connection."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wires: list[Wire] = []
        self.ends: list[Stream] = []  # the client's
        self.capacity = 65536  # bytes that a connection holds each way
        self.most_open = 0
        self._handler: Handler
        self._client: Client | None = None

        def connect(client: Client, request: Outgoing) -> Coro[Stream]:
            return self.connect(str(request.url.origin))

        monkeypatch.setattr(Client, "_connect", connect)

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = Client()
        return self._client

    def limit(self, **limits: Any) -> Client:
        """Have a client with other limits."""
        assert self._client is None
        self._client = Client(limits=ClientLimits(**limits))
        return self._client

    def serve(self, handler: Handler) -> None:
        self._handler = handler

    def connect(self, origin: str) -> Coro[Stream]:
        yield from coro.checkpoint()
        ours, theirs = memory_streams(self.capacity)
        wire = Wire(theirs, origin, len(self.wires))
        self.wires.append(wire)
        self.ends.append(ours)
        self.most_open = max(self.most_open, sum(self.open))
        coro.background(self._run(wire))
        return ours

    def _run(self, wire: Wire) -> Coro[None]:
        try:
            yield from self._handler(wire)
        except (EndOfStream, OSError, ClosedError):
            pass
        finally:
            wire.stream.close()

    @property
    def open(self) -> list[bool]:
        """Of each connection: is the client's end open?"""
        return [not end.closed for end in self.ends]

    @property
    def requests(self) -> list[bytes]:
        """The first lines of all requests, without the version, connection by connection."""
        return [head.split(b" HTTP/1.1")[0] for wire in self.wires for head in wire.requests]


def answer(*answers: bytes, close: bool = False) -> Handler:
    """Answers the requests of each connection, the last answer over and over; or closes it then."""
    def handler(wire: Wire) -> Coro[None]:
        for data in answers:
            yield from wire.request()
            yield from wire.send(data)
        while not close:
            yield from wire.request()
            yield from wire.send(answers[-1])

    return handler


def echo_target(wire: Wire) -> Coro[None]:
    """Answers each request with what it asks for."""
    while True:
        head, _ = yield from wire.request()
        target = head.split(b" ")[1]
        yield from wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(target) + target)
