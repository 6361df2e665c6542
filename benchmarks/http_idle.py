"""Connections that have had an answer and wait for the next request: what each keeps in memory."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import golang
from benchmarks.peers.hello import BODY
from benchmarks.peers.slow_uploads import connect
from benchmarks.processes import Failed, Peer, free_port, progress, python, resident_bytes, serving, wait_until_idle
from benchmarks.report import Column, Options, Report

CONNECTIONS = 10_000
QUICK_CONNECTIONS = 2000
FIRST = 500  # connections before the first look: what is allocated once is not counted
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost:%d\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n"
)
PEERS = [
    Peer("coro", "coro"),
    Peer("uvicorn, uvloop", "uvicorn", ("uvicorn", "uvloop", "httptools")),
    Peer("aiohttp, uvloop", "aiohttp", ("aiohttp", "uvloop")),
    Peer("Go net/http", "go", programs=("go",)),
]


def measure(options: Options) -> Iterator[Report]:
    count = options.pick(CONNECTIONS, QUICK_CONNECTIONS)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    report = Report(
        "Idle keep-alive connections",
        f"{count:,} connections, each answered once. Growth of the server's resident set per connection, without kernel"
        " memory.",
        [Column("resident bytes")],
    )
    for peer in PEERS:
        progress(f"http_idle: {peer.name}")
        try:
            peer.check()
            report.rows[peer.name] = [_measure_peer(peer, count)]
        except Failed as failure:
            report.absent[peer.name] = str(failure)
    report.require("a connection of coro's takes at most 3,000 bytes", report.figure("coro"), at_most=3000)
    yield report


def _measure_peer(peer: Peer, count: int) -> float:
    port = free_port()
    if peer.program == "go":
        command = [golang.build("hello"), str(port)]
    else:
        command = python("benchmarks.peers.hello", peer.program, port)
    connections: list[socket.socket] = []
    try:
        with TemporaryDirectory(prefix="coro-") as scratch, serving(command, port, Path(scratch, "log")) as pid:
            for number in range(FIRST):
                connections.append(_answered(port, number))
            wait_until_idle(pid)
            before = resident_bytes(pid)
            for number in range(FIRST, FIRST + count):
                connections.append(_answered(port, number))
            wait_until_idle(pid)
            return (resident_bytes(pid) - before) / count
    except OSError as error:
        raise Failed(f"the client: {error}") from None
    finally:
        for connection in connections:
            connection.close()


def _answered(port: int, number: int) -> socket.socket:
    connection = connect(port, number)
    connection.sendall(REQUEST % port)
    answer = b""
    while not answer.endswith(BODY):
        data = connection.recv(4096)
        if not data:
            raise Failed("closed the connection")
        answer += data
    return connection
