"""HTTP client: what a small request on a kept connection costs the client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers.http_clients import TASKS
from benchmarks.processes import LOAD_CORE, Failed, Peer, free_port, progress, python, run_json, serving
from benchmarks.report import Column, Options, Report

PEERS = [
    Peer("coro", "coro"),
    Peer("aiohttp", "aiohttp", ("aiohttp",)),
    Peer("aiohttp, uvloop", "aiohttp-uvloop", ("aiohttp", "uvloop")),
    Peer("httpx", "httpx", ("httpx",)),
    Peer("urllib3, one at a time", "urllib3", ("urllib3",)),
    Peer("http.client, one at a time", "http.client"),
]


def measure(options: Options) -> Iterator[Report]:
    repeats, seconds = options.pick(3, 1), options.pick(3, 1)
    report = Report(
        "HTTP client",
        f"{TASKS} tasks that GET 13 bytes over and over, each on a kept connection, from one server (coro's) on another"
        f" core than the client's. CPU time of the client's process. Best of {repeats} runs of {seconds} s.",
        [Column("requests per CPU-second"), Column("requests/s")],
        more_is_better=True,
    )
    with TemporaryDirectory(prefix="coro-") as scratch:
        port = free_port()
        with serving(python("benchmarks.peers.hello", "coro", port), port, Path(scratch, "log")):
            for repeat in range(repeats):
                for peer in PEERS:
                    progress(f"http_client: run {repeat + 1} of {repeats}, {peer.name}")
                    _measure_peer(report, peer, port, seconds)
    report.require(
        "coro's client sends at least twice as many requests per CPU-second as aiohttp's",
        report.ratio("coro", "aiohttp"),
        at_least=2,
    )
    yield report


def _measure_peer(report: Report, peer: Peer, port: int, seconds: int) -> None:
    try:
        peer.check()
        requests, cpu, wall = run_json(python("benchmarks.peers.http_clients", peer.program, port, seconds), LOAD_CORE)
    except Failed as failure:
        report.absent[peer.name] = str(failure)
    else:
        if requests / cpu > report.rows.get(peer.name, [0.0])[0]:
            report.rows[peer.name] = [requests / cpu, requests / wall]
