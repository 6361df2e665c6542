"""Parked tasks: what a task costs in memory while it waits."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.processes import SERVER_CORE, Failed, Peer, progress, python, run_json
from benchmarks.report import Column, Options, Report

TASKS = 100_000
QUICK_TASKS = 20_000
THREADS = 2_000  # more than this many a system may refuse

PEERS = [
    Peer("coro", "coro"),
    Peer("asyncio", "asyncio"),
    Peer("uvloop", "uvloop", ("uvloop",)),
    Peer("trio", "trio", ("trio",)),
    Peer("curio", "curio", ("curio",)),
    Peer("tinyio", "tinyio", ("tinyio",)),
    Peer("gevent", "gevent", ("gevent",)),
    Peer("threads", "threads"),
]


def measure(options: Options) -> Iterator[Report]:
    tasks = options.pick(TASKS, QUICK_TASKS)
    report = Report(
        "Memory of a parked task",
        f"{tasks:,} tasks ({THREADS:,} threads), each a function that waits for one and the same event:"
        " two frames."
        " Resident: growth of the process's resident set, without kernel memory. Traced: what Python's"
        " allocators gave out.",
        [Column("resident bytes"), Column("traced bytes")],
    )
    for peer in PEERS:
        progress(f"memory: {peer.name}")
        count = THREADS if peer.program == "threads" else tasks
        try:
            peer.check()
            report.rows[peer.name] = [
                run_json(python("benchmarks.peers.parking", peer.program, count, kind), SERVER_CORE)
                for kind in ("resident", "traced")
            ]
        except Failed as failure:
            report.absent[peer.name] = str(failure)
    most = max(report.rows["coro"]) if "coro" in report.rows else float("nan")
    report.require("coro's task takes at most 900 bytes, resident and traced", most, at_most=900)
    yield report
