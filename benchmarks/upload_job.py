"""The upload job: server CPU for session check, file, committed row and answer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from benchmarks import load, stores, uploads
from benchmarks.processes import Failed, Peer, cpu_seconds, progress, resident_bytes, wait_until_idle
from benchmarks.report import Column, Options, Report
from benchmarks.stores import Stores

KIB = 1024
FEW, MANY, LARGE = (16 * KIB, 64), (16 * KIB, 1000), (1024 * KIB, 16)  # bytes of a body, connections
LOADS = (FEW, MANY, LARGE)
COLUMNS = [
    Column("server CPU us"),
    Column("uploads/s"),
    Column("p50 ms", 1),
    Column("p99 ms", 1),
    Column("MariaDB CPU us"),
    Column("resident MiB"),
]


def measure(options: Options) -> Iterator[Report]:
    repeats, seconds = options.pick(2, 1), options.pick(4, 2)
    reports = {each: _report(*each, repeats, seconds) for each in LOADS}
    try:
        load.check()
        with stores.running() as running:
            for (size, connections), repeat, peer in itertools.product(LOADS, range(repeats), uploads.PEERS):
                progress(f"upload_job: {connections} connections, run {repeat + 1} of {repeats}, {peer.name}")
                _measure_into(reports[size, connections], peer, running, size, connections, seconds)
    except Failed as failure:
        for report in reports.values():
            report.absent["everything"] = str(failure)
    for report in reports.values():
        asgi, go = (report.ratio("coro", peer.name) for peer in (uploads.RAW_ASGI, uploads.GO))
        report.require("coro's CPU per upload is at most 0.6 of that of raw ASGI on uvicorn", asgi, at_most=0.6)
        report.require("it is at most that of Go", go, at_most=1.0)
    few, many = (reports[load].rows.get("coro", [math.nan])[0] for load in (FEW, MANY))
    reports[MANY].require("it is at most 1.15 times that at 64 connections", many / few, at_most=1.15)
    yield from reports.values()


def _report(size: int, connections: int, repeats: int, seconds: int) -> Report:
    return Report(
        f"Upload job, {size // KIB} KiB, {connections:,} connections",
        f"PUTs of {size // KIB} KiB: session from Redis, body to a file in memory, committed row in MariaDB,"
        " 201. Server on one core; Redis, MariaDB and wrk on another. CPU of the whole server process per"
        f" upload; best of {repeats} runs of {seconds} s. Every file and row was compared with what had been sent.",
        COLUMNS,
    )


def _measure_into(report: Report, peer: Peer, running: Stores, size: int, connections: int, seconds: int) -> None:
    try:
        figures = _measure_peer(peer, running, size, connections, seconds)
    except Failed as failure:
        report.absent[peer.name] = str(failure)
    else:
        if figures[0] < report.rows.get(peer.name, [math.inf])[0]:
            report.rows[peer.name] = figures


def _measure_peer(peer: Peer, running: Stores, size: int, connections: int, seconds: int) -> list[float]:
    with uploads.server(peer, running) as server:
        uploads.check_answers(server, running)
        url = f"http://127.0.0.1:{server.port}"
        load.run(url, connections, 1, running.tokens_file, size)  # warm-up
        wait_until_idle(server.pid)
        uploads.clear(server, running)

        before, database_before = cpu_seconds(server.pid), cpu_seconds(running.mysql_pid)
        result = load.run(url, connections, seconds, running.tokens_file, size)
        resident = resident_bytes(server.pid)
        wait_until_idle(server.pid)  # what was in flight when wrk stopped is counted on both sides
        used, database_used = (
            cpu_seconds(server.pid) - before,
            cpu_seconds(running.mysql_pid) - database_before,
        )

        count = uploads.verify(server, running, size)
        if result.errors or result.answers != result.created:
            raise Failed(f"{result.answers - result.created} answers other than 201, {result.errors} errors")
        if not result.created <= count <= result.created + connections:
            raise Failed(f"{count} rows for {result.created} answers 201")
        return [
            used / count * 1e6,
            result.created / result.seconds,
            result.p50_ms,
            result.p99_ms,
            database_used / count * 1e6,
            resident / 2**20,
        ]
