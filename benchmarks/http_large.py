"""A body of 1 GiB through the HTTP server, in and out, against the least that it can cost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers.send_large import BLOCK, BLOCK_SIZE
from benchmarks.processes import (
    LOAD_CORE,
    Failed,
    Peer,
    cpu_seconds,
    free_port,
    progress,
    python,
    run_json,
    serving,
    wait_until_idle,
)
from benchmarks.report import Column, Options, Report

GIB = 1 << 30
MEMORY = "/dev/shm"
PEERS = [Peer("coro", "coro"), Peer("bare loop", "bare")]
METHODS = {"PUT": "`recv_into` and `write` of 1 MiB", "GET": "`sendfile` of 1 MiB"}


def measure(options: Options) -> Iterator[Report]:
    repeats, blocks = options.pick(5, 1), options.pick(GIB, GIB // 4) // BLOCK_SIZE
    for method, calls in METHODS.items():
        report = Report(
            f"{method} of 1 GiB",
            f"{blocks} MiB, a file in memory, best of {repeats}; server and client on a core of their own. The bare"
            f" loop is {calls} on a blocking socket.",
            [Column("server CPU s per GiB", 3), Column("GiB/s", 2)],
        )
        for repeat in range(repeats):
            for peer in PEERS:
                progress(f"http_large: {method}, run {repeat + 1} of {repeats}, {peer.name}")
                try:
                    figures = _measure_peer(peer, method, blocks)
                except Failed as failure:
                    report.absent[peer.name] = str(failure)
                else:
                    if figures[0] < report.rows.get(peer.name, [math.inf])[0]:
                        report.rows[peer.name] = figures
        ratio = report.ratio("coro", "bare loop")
        report.require("coro's CPU is at most 1.2 times the bare loop's", ratio, at_most=1.2)
        yield report


def _measure_peer(peer: Peer, method: str, blocks: int) -> list[float]:
    with TemporaryDirectory(prefix="coro-", dir=MEMORY) as directory:
        if method == "GET":
            with Path(directory, "out").open("wb") as file:
                for _ in range(blocks):
                    file.write(BLOCK)
        port = free_port()
        command = python("benchmarks.peers.large", peer.program, port, directory)
        with serving(command, port, Path(directory, "log")) as pid:
            wait_until_idle(pid)
            before = cpu_seconds(pid)
            done = run_json(python("benchmarks.peers.transfer_large", method, port, blocks), LOAD_CORE)
            used = cpu_seconds(pid) - before
        if done["status"] not in (200, 201) or not done["whole"]:
            raise Failed(f"answers {done['status']}, or not with what was due")
        if method == "PUT" and Path(directory, "in").stat().st_size != blocks * BLOCK_SIZE:
            raise Failed("did not store what was sent")
    share = blocks * BLOCK_SIZE / GIB
    return [used / share, share / done["seconds"]]
