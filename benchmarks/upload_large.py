"""One upload of 1 GiB, against the least that receiving and storing it can cost."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import stores, uploads
from benchmarks.peers.send_large import BLOCK, BLOCK_SIZE
from benchmarks.processes import (
    LOAD_CORE,
    Failed,
    Peer,
    cpu_seconds,
    free_port,
    progress,
    python,
    resident_bytes,
    run_json,
    serving,
    wait_until_idle,
)
from benchmarks.report import Column, Options, Report
from benchmarks.stores import DATABASE, Stores
from benchmarks.uploads import Server

GIB = 1 << 30
USER = 7
BARE = Peer("bare loop", "bare")
COLUMNS = [Column("server CPU s per GiB", 2), Column("GiB/s", 2), Column("resident MiB")]


def measure(options: Options) -> Iterator[Report]:
    repeats, blocks = options.pick(3, 1), options.pick(GIB, GIB // 4) // BLOCK_SIZE
    plain = Report(
        "Large upload",
        f"One PUT of {blocks} MiB to a file in memory, best of {repeats}; server and client on a core of their"
        " own. The bare loop is `recv_into` and `write` of a 1 MiB buffer on a blocking socket. CPU of the whole"
        " server process. Every file was compared with what had been sent.",
        COLUMNS,
    )
    digest = Report(
        "Large upload with SHA-256",
        "The same, with the digest of the body: in coro's row in the table, in the bare loop's answer.",
        COLUMNS,
    )
    try:
        with stores.running() as running:
            for repeat in range(repeats):
                progress(f"upload_large: run {repeat + 1} of {repeats}")
                for peer in BARE, uploads.CORO, uploads.RAW_ASGI, uploads.GO:
                    _measure_into(plain, peer, running, blocks, with_digest=False)
                for peer in BARE, uploads.CORO:
                    _measure_into(digest, peer, running, blocks, with_digest=True)
    except Failed as failure:
        plain.absent["everything"] = digest.absent["everything"] = str(failure)
    for report in plain, digest:
        report.require("coro's CPU is at most 1.4 times the bare loop's", report.ratio("coro", BARE.name), at_most=1.4)
        yield report


def _measure_into(report: Report, peer: Peer, running: Stores, blocks: int, with_digest: bool) -> None:
    try:
        figures = _measure_peer(peer, running, blocks, with_digest)
    except Failed as failure:
        report.absent[peer.name] = str(failure)
    else:
        if figures[0] < report.rows.get(peer.name, [math.inf])[0]:
            report.rows[peer.name] = figures


def _measure_peer(peer: Peer, running: Stores, blocks: int, with_digest: bool) -> list[float]:
    options = ["--no-fsync"] if with_digest else ["--no-fsync", "--no-digest"]
    with _bare(running, with_digest) if peer is BARE else uploads.server(peer, running, options) as server:
        if peer is not BARE:
            uploads.check_answers(server, running)
            uploads.clear(server, running)
        wait_until_idle(server.pid)
        before = cpu_seconds(server.pid)
        send = python("benchmarks.peers.send_large", server.port, running.tokens[USER], blocks)
        sent = run_json(send, LOAD_CORE)
        used = cpu_seconds(server.pid) - before
        resident = resident_bytes(server.pid)
        if sent["status"] != 201:
            raise Failed(f"answers {sent['status']} {sent['answer'][:200]!r}")
        if peer is BARE:
            _check(server.directory / "body", sent["answer"] or None, blocks)
        else:
            [(path, sha256)] = running.sql(f"SELECT path, sha256 FROM {DATABASE}.uploads WHERE user_id = {USER}")
            if with_digest and not sha256:
                raise Failed("the row has no digest")
            _check(server.directory / path, sha256, blocks)
    share = blocks * BLOCK_SIZE / GIB
    return [used / share, share / sent["seconds"], resident / 2**20]


@contextmanager
def _bare(running: Stores, with_digest: bool) -> Iterator[Server]:
    port = free_port()
    with running.emptied(with_table=False) as directory:
        command = python("benchmarks.peers.bare_put", port, directory / "body", *["digest"] * with_digest)
        with serving(command, port, running.scratch / "bare.log") as pid:
            yield Server(pid, port, directory)


def _check(file: Path, sha256: str | None, blocks: int) -> None:
    """The stored file is what was sent, and its digest, if there is one, is right."""
    expected = hashlib.sha256()
    with file.open("rb") as stored:
        for _ in range(blocks):
            if stored.read(BLOCK_SIZE) != BLOCK:
                raise Failed(f"{file} differs from what was sent")
            if sha256:
                expected.update(BLOCK)
        if stored.read(1):
            raise Failed(f"{file} is longer than what was sent")
    if sha256 and sha256 != expected.hexdigest():
        raise Failed(f"the digest of {file} is wrong")
