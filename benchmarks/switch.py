"""Task switch: how long from one task's giving way until another one runs."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.processes import SERVER_CORE, Failed, Peer, progress, python, run_json
from benchmarks.report import Column, Options, Report

TASKS = 1000
ROUNDS = 300
THREAD_ROUNDS = 20  # a thread's turn takes much longer

PEERS = [
    Peer("coro", "coro"),
    Peer("asyncio", "asyncio"),
    Peer("uvloop", "uvloop", ("uvloop",)),
    Peer("trio", "trio", ("trio",)),
    Peer("curio", "curio", ("curio",)),
    Peer("tinyio", "tinyio", ("tinyio",)),
    Peer("gevent", "gevent", ("gevent",)),
    Peer("greenlet, no loop", "greenlet", ("greenlet",)),
    Peer("generator, no loop", "generator"),
    Peer("threads", "threads"),
]


def measure(options: Options) -> Iterator[Report]:
    repeats = options.pick(5, 2)
    report = Report(
        "Task switch",
        f"{TASKS:,} tasks give way in turn; CPU time, best of {repeats} runs, each a process of its own.",
        [Column("CPU ns per switch")],
    )
    for repeat in range(repeats):  # all peers, then all again: what disturbs the machine meets them alike
        progress(f"switch: run {repeat + 1} of {repeats}")
        for peer in PEERS:
            rounds = THREAD_ROUNDS if peer.program == "threads" else ROUNDS
            try:
                peer.check()
                command = python("benchmarks.peers.switching", peer.program, TASKS, rounds)
                nanoseconds = run_json(command, SERVER_CORE) * 1e9
            except Failed as failure:
                report.absent[peer.name] = str(failure)
            else:
                report.rows[peer.name] = [min(nanoseconds, *report.rows.get(peer.name, [nanoseconds]))]
    report.require("coro's time is at most 1/3 of uvloop's", report.ratio("coro", "uvloop"), at_most=1 / 3)
    report.require("coro's time is at most 1/6 of asyncio's", report.ratio("coro", "asyncio"), at_most=1 / 6)
    yield report
