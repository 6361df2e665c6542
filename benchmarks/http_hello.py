"""HTTP hello: what a small keep-alive request costs the server."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import golang, load
from benchmarks.peers.hello import BODY
from benchmarks.processes import (
    Failed,
    Peer,
    cpu_seconds,
    find_program,
    free_port,
    progress,
    python,
    serving,
)
from benchmarks.report import Column, Options, Report

CONNECTIONS = 64

PEERS = [
    Peer("coro", "coro"),
    Peer("coro, no two heads alike", "coro"),
    Peer("uvicorn, uvloop", "uvicorn", ("uvicorn", "uvloop", "httptools")),
    Peer("uvicorn, no two heads alike", "uvicorn", ("uvicorn", "uvloop", "httptools")),
    Peer("aiohttp, uvloop", "aiohttp", ("aiohttp", "uvloop")),
    Peer("Go net/http", "go", programs=("go",)),
    Peer("nginx", "nginx", programs=("nginx",)),
]

NGINX = """
daemon off;
worker_processes 1;
pid {scratch}/pid;
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path {scratch}/body;
    proxy_temp_path {scratch}/proxy;
    fastcgi_temp_path {scratch}/fastcgi;
    uwsgi_temp_path {scratch}/uwsgi;
    scgi_temp_path {scratch}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ default_type text/plain; return 200 "{body}"; }}
    }}
}}
"""


def measure(options: Options) -> Iterator[Report]:
    repeats, seconds = options.pick(3, 1), options.pick(3, 1)
    report = Report(
        "HTTP hello",
        f"{CONNECTIONS} keep-alive connections from wrk, one request at a time on each; server and wrk on a core"
        f" of their own. Best of {repeats} runs of {seconds} s. The same request comes again and again, except where"
        " no two heads are alike.",
        [Column("requests per CPU-second"), Column("requests/s"), Column("p99 ms", 2)],
        more_is_better=True,
    )
    for repeat in range(repeats):
        for peer in PEERS:
            progress(f"http_hello: run {repeat + 1} of {repeats}, {peer.name}")
            try:
                load.check()
                peer.check()
                figures = _measure_peer(peer, seconds)
            except Failed as failure:
                report.absent[peer.name] = str(failure)
            else:
                if figures[0] > report.rows.get(peer.name, [0.0])[0]:
                    report.rows[peer.name] = figures
    for other, factor in ("uvicorn, uvloop", 2.0), ("Go net/http", 0.9):
        report.require(
            f"coro answers at least {factor:g} times as many requests per CPU-second as {other}",
            report.ratio("coro", other),
            at_least=factor,
        )
    yield report


def _measure_peer(peer: Peer, seconds: int) -> list[float]:
    with TemporaryDirectory(prefix="coro-") as scratch:
        port = free_port()
        command = _command(peer, port, scratch)
        with serving(command, port, Path(scratch, "log"), golang.ONE_CORE) as pid:
            _check_answer(port)
            url = f"http://127.0.0.1:{port}/"
            kind = ["different"] if "alike" in peer.name else []
            load.run(url, CONNECTIONS, 1, *kind)  # warm-up
            before = cpu_seconds(pid)
            result = load.run(url, CONNECTIONS, seconds, *kind)
            used = cpu_seconds(pid) - before
    if result.errors:
        raise Failed(f"{result.errors} of {result.answers} requests failed")
    return [result.answers / used, result.answers / result.seconds, result.p99_ms]


def _command(peer: Peer, port: int, scratch: str) -> list[str]:
    if peer.program == "go":
        return [golang.build("hello"), str(port)]
    if peer.program == "nginx":
        configuration = Path(scratch, "nginx.conf")
        configuration.write_text(NGINX.format(port=port, scratch=scratch, body=BODY.decode()))
        return [find_program("nginx") or "nginx", "-p", scratch, "-c", str(configuration)]
    return python("benchmarks.peers.hello", peer.program, port)


def _check_answer(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/")
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != 200 or body != BODY:
        raise Failed(f"answers {answer.status} {body[:80]!r}")
