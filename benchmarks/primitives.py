"""What the everyday operations cost, and whether they cost the same among many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from benchmarks.processes import SERVER_CORE, progress, python, run_json
from benchmarks.report import Column, Options, Report

T = TypeVar("T")

OPERATIONS = {
    "spawn": ("Start a task in a group and see its end", 200_000, 0.5),
    "lock": ("Take and release a free lock", 200_000, 1.0),
    "queue": ("Put an item into a queue and get it", 200_000, 1.0),
    "thread": ("A call in a thread and back", 5_000, 1.0),
}
AMONG = {"timers": "A timer set and cancelled among others", "tasks": "A switch while other tasks wait"}
FEW, MANY = 10, 100_000


def measure(options: Options) -> Iterator[Report]:
    for what, (title, count, at_most) in OPERATIONS.items():
        report = Report(title, f"{count:,} times; CPU time, best of several runs.", [Column("CPU ns")])
        for peer in _repeated(options, what, "coro", "asyncio"):
            _keep_best(report, peer, run_json(python("benchmarks.peers.primitives", peer, what, count), SERVER_CORE))
        ratio = report.ratio("coro", "asyncio")
        report.require(f"coro's time is at most {at_most:g} of asyncio's", ratio, at_most=at_most)
        yield report
    for what, title in AMONG.items():
        report = Report(title, "CPU time, best of several runs.", [Column("CPU ns")], baseline=f"{FEW:,} {what}")
        for number in _repeated(options, what, FEW, MANY):
            seconds = run_json(python("benchmarks.peers.primitives", "coro", what, number), SERVER_CORE)
            _keep_best(report, f"{number:,} {what}", seconds)
        growth = report.ratio(f"{MANY:,} {what}", f"{FEW:,} {what}")
        report.require(f"from {FEW:,} to {MANY:,} {what} the cost grows by at most 1.5", growth, at_most=1.5)
        yield report


def _repeated(options: Options, what: str, *variants: T) -> Iterator[T]:
    """The variants in turn, several times: what disturbs the machine meets them alike."""
    for _ in range(options.pick(5, 2)):
        progress(f"primitives: {what}")
        yield from variants


def _keep_best(report: Report, row: str, seconds: float) -> None:
    report.rows[row] = [min(seconds * 1e9, *report.rows.get(row, [seconds * 1e9]))]
