"""Looking into a program: how long a snapshot of many tasks takes, and how long it holds the loop."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.processes import SERVER_CORE, Failed, progress, python, run_json
from benchmarks.report import Column, Options, Report

TASKS = 10_000


def measure(options: Options) -> Iterator[Report]:
    report = Report(
        "Task tree",
        f"`coro ps` of a program with {TASKS:,} tasks, each a chain of four functions: the whole command, and the part"
        f" of it for which the program's loop is held up. Wall-clock time, best of {options.pick(3, 1)}.",
        [Column("seconds", 2), Column("loop held up, s", 2)],
    )
    progress("inspection: coro ps")
    try:
        runs = [
            run_json(python("benchmarks.peers.inspected", TASKS), SERVER_CORE) for _ in range(options.pick(3, 1))
        ]
        report.rows["coro"] = min(runs)
    except Failed as failure:
        report.absent["coro"] = str(failure)
    report.require(f"{TASKS:,} tasks are shown within a second", report.figure("coro"), at_most=1.0)
    yield report
