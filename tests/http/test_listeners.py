"""One server on several listeners at once."""

from __future__ import annotations

from pathlib import Path

import coro
from coro import Coro, Listener, TaskGroup
from coro.http import Server
from tests.http.serving import get, hello


def ask(stream: coro.Stream) -> Coro[bytes]:
    yield from stream.write(get("/x", "Connection: close\r\n"))
    answer = b""
    while data := (yield from stream.read()):
        answer += data
    stream.close()
    return answer.rpartition(b"\r\n\r\n")[2]


def serving(listeners: list[Listener], path: str) -> Coro[list[bytes]]:
    def body(group: TaskGroup) -> Coro[list[bytes]]:
        server = Server(hello)
        group.spawn(server.serve(listeners))
        answers = []
        for listener in listeners:
            if listener.address == path:
                answers.append((yield from ask((yield from coro.connect_unix(path)))))
            else:
                answers.append((yield from ask((yield from coro.connect("127.0.0.1", listener.port)))))
        server.stop(grace=10)
        return answers

    return (yield from coro.task_group(body))


def test_tcp_and_unix_listeners_are_served_and_stopped_together(tmp_path: Path) -> Coro[None]:
    path = str(tmp_path / "socket")
    listeners = [coro.listen("127.0.0.1", 0), coro.listen("127.0.0.1", 0), coro.listen_unix(path)]
    assert (yield from serving(listeners, path)) == [b"GET /x"] * 3
    assert [listener.socket.fd for listener in listeners] == [-1] * 3


def test_servers_share_a_port(tmp_path: Path) -> Coro[None]:
    """SO_REUSEPORT: whichever of the two gets the connection."""
    first = coro.listen("127.0.0.1", 0, reuse_port=True)
    second = coro.listen("127.0.0.1", first.port, reuse_port=True)

    def body(group: TaskGroup) -> Coro[None]:
        servers = [Server(hello), Server(hello)]
        for server, listener in zip(servers, (first, second), strict=True):
            group.spawn(server.serve(listener))
        for _ in range(20):
            assert (yield from ask((yield from coro.connect("127.0.0.1", first.port)))) == b"GET /x"
        for server in servers:
            server.stop(grace=10)

    yield from coro.task_group(body)
