"""Slow attackers: thousands of connections that do as little as they can, an honest slow upload, a health probe."""

from __future__ import annotations

import json
import resource
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.processes import (
    LOAD_CORE,
    Failed,
    environment,
    free_port,
    pinned,
    progress,
    python,
    resident_bytes,
    serving,
    stop,
    wait_until_idle,
)
from benchmarks.report import Column, Options, Report

EACH, QUICK_EACH = 2000, 200
HONEST_SECONDS = 90  # longer than any attacker may hold out
KINDS = ("heads", "stalled", "dripping", "extensions")
DUE = {"heads": "408", "stalled": "408", "dripping": "408", "extensions": "400"}


def measure(options: Options) -> Iterator[Report]:
    each = options.pick(EACH, QUICK_EACH)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    report = Report(
        "Slow attackers",
        f"{each:,} connections of each kind at once: heads of a byte a second, bodies that stall, bodies of a byte a"
        " second, chunk extensions of 1,000 bytes a second; the limits are the built-in ones. All of them were cut off"
        " with the status that is due, and an upload at 50 KB/s that went on beside them arrived whole. The probe is"
        " a GET every 20 ms; attackers, upload and probe share a core.",
        [
            Column("probe p99 ms", 1),
            Column("probe p50 ms", 2),
            Column("longest turn of the server, CPU ms", 1),
            Column("resident bytes per attacker"),
            *(Column(f"last of {kind} cut after s") for kind in KINDS),
        ],
    )
    try:
        report.rows["coro"] = _measure(each)
    except Failed as failure:
        report.absent["coro"] = str(failure)
    report.require("the probe's p99 is below 100 ms", report.figure("coro"), at_most=100)
    yield report


def _start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        python("benchmarks.peers.slow_attack", *arguments),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True,
    )  # fmt: skip


def _measure(each: int) -> list[float]:
    port = free_port()
    progress(f"slow_clients: {each} attackers of each kind")
    with (
        TemporaryDirectory(prefix="coro-") as scratch,
        serving(python("benchmarks.peers.guarded", port), port, Path(scratch, "log")) as pid,
    ):
        wait_until_idle(pid)
        before = resident_bytes(pid)
        with pinned(LOAD_CORE):
            probe, honest, attack = _start(port, "probe"), _start(port, "honest", HONEST_SECONDS), _start(port, each)
        try:
            assert attack.stdout is not None
            if not attack.stdout.readline():
                raise Failed("the attackers could not connect: see their error above")
            resident = resident_bytes(pid) - before
            cut = json.loads(attack.stdout.readline() or "{}")
            resident = max(resident, resident_bytes(pid) - before)
            _check_cut(cut, each)
            arrived = _told(honest)
            if arrived != {"status": 201, "whole": True}:
                raise Failed(f"the honest upload was answered {arrived}")
            latencies = _told(probe)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/longest", timeout=10) as answer:
                longest = float(answer.read())
        finally:
            for process in probe, honest, attack:
                stop(process)
    seconds = [cut[kind][1] for kind in KINDS]
    return [latencies["p99"], latencies["p50"], longest, resident / (each * len(KINDS)), *seconds]


def _told(process: subprocess.Popen[str]) -> Any:
    told, _ = process.communicate("")
    return json.loads(told or "null")


def _check_cut(cut: dict[str, Any], each: int) -> None:
    for kind in KINDS:
        statuses, _, held = cut[kind]
        if held or statuses != {DUE[kind]: each}:
            raise Failed(f"of {each} {kind}, {held} were not cut off, the others with {statuses}")
