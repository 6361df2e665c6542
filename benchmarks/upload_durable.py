"""Uploads that are synced before they are answered, against a loop that only writes and syncs the same files.

All files stay until the end: ext4 does not use an inode again within a minute of its deletion, and looks at each such
inode when a file is made, so whoever comes after a deletion pays for it.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import load, stores, uploads
from benchmarks.processes import CHECKOUT, SERVER_CORE, Failed, cpu_seconds, progress, python, run_json
from benchmarks.report import Column, Options, Report
from benchmarks.stores import Stores

KIB = 1024
LOADS = ((16 * KIB, 64), (1024 * KIB, 16))  # bytes of a body, connections
BARE = "bare loop"
COLUMNS = [Column("files/s"), Column("server CPU us")]


def measure(options: Options) -> Iterator[Report]:
    repeats, seconds = options.pick(3, 1), options.pick(3, 2)
    reports = {each: _report(*each, repeats, seconds) for each in LOADS}
    try:
        load.check()
        with stores.running() as running, _disk() as disk:
            for repeat in range(repeats):
                for size, connections in LOADS:
                    progress(f"upload_durable: {connections} connections, run {repeat + 1} of {repeats}")
                    report = reports[size, connections]
                    _keep_best(report, BARE, [_bare(disk, size, connections, seconds), math.nan])
                    _keep_best(report, "coro", _coro(running, disk, size, connections, seconds))
    except Failed as failure:
        for report in reports.values():
            report.absent["everything"] = str(failure)
    for report in reports.values():
        report.require("coro stores at least 0.8 of the bare loop's files", report.ratio("coro", BARE), at_least=0.8)
        yield report


def _report(size: int, connections: int, repeats: int, seconds: int) -> Report:
    return Report(
        f"Durable uploads, {size // KIB:,} KiB, {connections} connections",
        f"The upload job without `--no-fsync`, on the disk of this checkout, best of {repeats} runs of {seconds} s; the"
        f" server on one core. The bare loop is {connections} threads on that core which write a file, sync it, rename"
        " it and sync the directory.",
        COLUMNS,
    )


def _keep_best(report: Report, peer: str, figures: list[float]) -> None:
    if figures[0] > report.rows.get(peer, [0.0])[0]:
        report.rows[peer] = figures


@contextmanager
def _disk() -> Iterator[Path]:
    """A directory that is not in memory."""
    parent = CHECKOUT / ".cache" / "benchmarks"
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _bare(disk: Path, size: int, threads: int, seconds: int) -> float:
    directory = tempfile.mkdtemp(dir=disk)
    files: float = run_json(python("benchmarks.peers.sync_files", directory, size, threads, seconds), SERVER_CORE)
    return files


def _coro(running: Stores, disk: Path, size: int, connections: int, seconds: int) -> list[float]:
    directory = Path(tempfile.mkdtemp(dir=disk))
    options = ["--no-digest", "--access-log", "off", "--dir", str(directory)]
    with uploads.server(uploads.CORO, running, options) as server:
        server = replace(server, directory=directory)
        uploads.check_answers(server, running)
        uploads.clear(server, running)
        before = cpu_seconds(server.pid)
        result = load.run(f"http://127.0.0.1:{server.port}", connections, seconds, running.tokens_file, size)
        used = cpu_seconds(server.pid) - before
        if result.errors or result.answers != result.created:
            raise Failed(f"{result.answers - result.created} answers other than 201, {result.errors} errors")
        return [result.created / result.seconds, used / result.created * 1e6]
