"""Ten thousand uploads at once that all stop half-way: what each costs in memory, and that all arrive."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Iterator

from benchmarks import stores, uploads
from benchmarks.peers.slow_uploads import body_of
from benchmarks.processes import (
    LOAD_CORE,
    Failed,
    cpu_seconds,
    environment,
    pinned,
    progress,
    python,
    resident_bytes,
    stop,
    wait_until_idle,
)
from benchmarks.report import Column, Options, Report
from benchmarks.stores import DATABASE, Stores
from benchmarks.uploads import Server

CONNECTIONS = 10_000
QUICK_CONNECTIONS = 1000
SIZE = 16 * 1024
USER = 7
PEERS = [uploads.CORO, uploads.RAW_ASGI, uploads.GO]


def measure(options: Options) -> Iterator[Report]:
    count = options.pick(CONNECTIONS, QUICK_CONNECTIONS)
    limit = _raise_descriptor_limit()
    report = Report(
        f"{count:,} open connections",
        f"{count:,} PUTs of {SIZE // 1024} KiB, all stopped after half of the body, then all finished."
        " Resident: growth of the server's resident set per connection when all stood still, without kernel"
        " memory. Every file and row was compared with what had been sent. A process may open"
        f" {limit:,} descriptors here.",
        [Column("resident bytes per connection"), Column("server CPU us per upload")],
    )
    try:
        with stores.running() as running:
            for peer in PEERS:
                progress(f"connections: {peer.name}")
                try:
                    with uploads.server(peer, running) as server:
                        report.rows[peer.name] = _measure_server(server, running, count)
                except Failed as failure:
                    report.absent[peer.name] = str(failure)
    except Failed as failure:
        report.absent["everything"] = str(failure)
    report.require(
        f"all {count:,} uploads to coro arrive, and a waiting one takes at most 8 KiB (8,192 bytes)",
        report.figure("coro"),
        at_most=8192,
    )
    yield report


def _raise_descriptor_limit() -> int:
    """As far as the system lets us; servers and clients inherit it. The limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _measure_server(server: Server, running: Stores, count: int) -> list[float]:
    uploads.check_answers(server, running)
    uploads.clear(server, running)
    wait_until_idle(server.pid)
    resident, used = resident_bytes(server.pid), cpu_seconds(server.pid)
    command = python("benchmarks.peers.slow_uploads", server.port, running.tokens[USER], count, SIZE)
    with pinned(LOAD_CORE):
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True)
    try:
        assert client.stdin is not None and client.stdout is not None
        if not client.stdout.readline():
            raise Failed(f"the client could not open {count} connections: see its error above")
        wait_until_idle(server.pid)
        resident = resident_bytes(server.pid) - resident
        open_descriptors = len(os.listdir(f"/proc/{server.pid}/fd"))
        if open_descriptors < count:
            raise Failed(f"the server has only {open_descriptors} descriptors open for {count} connections")
        client.stdin.write("\n")
        client.stdin.flush()
        statuses = json.loads(client.stdout.readline() or "{}")
    finally:
        stop(client)
    if statuses != {"201": count}:
        told = ", ".join(f"{number} x {status}" for status, number in statuses.items())
        raise Failed(f"of {count} uploads not all were answered 201 (0: broken connection): {told}")
    wait_until_idle(server.pid)
    used = cpu_seconds(server.pid) - used
    _verify(server, running, count)
    return [resident / count, used / count * 1e6]


def _verify(server: Server, running: Stores, count: int) -> None:
    """Each upload has its row and its file, with the right bytes, and nothing else was left behind."""
    rows = running.sql(f"SELECT name, path FROM {DATABASE}.uploads WHERE user_id = {USER} AND size = {SIZE}")
    if {name for name, _ in rows} != {f"slow-{number}" for number in range(count)} or len(rows) != count:
        raise Failed(f"{len(rows)} rows, or wrong ones, for {count} uploads")
    for name, path in rows:
        if (server.directory / path).read_bytes() != body_of(int(name.removeprefix("slow-")), SIZE):
            raise Failed(f"the file of {name} has wrong bytes")
    files = len(uploads.stored_files(server))
    if files != count:
        raise Failed(f"{files} files for {count} uploads")
