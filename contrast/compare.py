"""`coro contrast`: the five ways one after the other, each in a process of its own, in one table, or in a picture."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contrast.job import allow_descriptors
from contrast.measure import BODY, HERE, Failed, Figures, Load, count_switches, lines_of_code, measure
from contrast.plot import Point, svg
from contrast.switching import switch_cost

PROGRAMS = ("threads", "callbacks", "greenlets", "native", "generators")
NEEDS = {"greenlets": "greenlet"}  # the packages that do not come with coro
SIZES = (10, 30, 100, 300, 1000, 3000, 10_000)  # connections, in the picture
LONGEST = 20.0  # seconds that a row of the table may take, about
LONGEST_POINT = 3.0  # and a point of the picture


@dataclass(frozen=True)
class Row:
    """One program in the table."""

    figures: Figures
    switches: float  # a request
    switch_cost: float  # seconds
    lines: int


def compare(connections: int, delay: float, programs: Sequence[str] = PROGRAMS) -> int:
    """Run them with so many connections and `delay` seconds before each answer of a service; print the table.

    The exit code: 0, or 1 when a program failed or the machine allows too few descriptors.
    """
    try:
        load = Load.within(allow_descriptors(), connections, delay, LONGEST)
    except Failed as error:
        _say(str(error))
        return 1
    rows: dict[str, Row] = {}
    failed: dict[str, str] = {}
    runnable, missing = _runnable(programs)
    for number, program in enumerate(runnable, 1):
        _say(f"{number}/{len(runnable)} {program} ...")
        try:
            rows[program] = _row(program, load)
        except (Failed, OSError) as error:
            failed[program] = str(error)
    print(_described(load))
    print(table(rows))
    for program, reason in (missing | failed).items():
        print(f"not measured: {program}: {reason}")
    return 1 if failed else 0


def plot(file: Path, delay: float, programs: Sequence[str] = PROGRAMS) -> int:
    """Run them with 10 to 10,000 connections and draw what that took; what did not get through is said in the picture.

    The exit code: 0, or 1 when the file cannot be written, or a program failed at the lowest number.
    """
    try:
        file.open("a").close()  # before minutes of work
    except OSError as error:
        _say(f"cannot write {file}: {error.strerror}")
        return 1
    runnable, missing = _runnable(programs)
    series: dict[str, list[Point]] = {program: [] for program in runnable}
    notes = [f"{program}: {reason}" for program, reason in missing.items()]
    steps = [(size, program) for size in SIZES for program in runnable]
    ended: set[str] = set()
    for number, (size, program) in enumerate(steps, 1):
        if program in ended:
            continue
        _say(f"{number}/{len(steps)} {program}, {size:,} connections ...")
        try:
            figures = measure(program, Load.within(allow_descriptors(), size, delay, LONGEST_POINT))
        except (Failed, OSError) as error:
            ended.add(program)
            notes.append(f"{program}, {size:,} connections: {error}")
        else:
            series[program].append(Point(size, figures.resident, figures.requests_per_second))
    file.write_text(svg({program: points for program, points in series.items() if points}, delay, notes))
    for note in notes:
        print(f"not measured: {note}")
    print(f"written: {file}")
    return 0 if all(series.values()) else 1


def _runnable(programs: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Those that this machine can run, and why it cannot run the others."""
    absent = {program: NEEDS[program] for program in programs if program in NEEDS}
    missing = {
        program: f"it needs the package {package}, which is not installed"
        for program, package in absent.items()
        if importlib.util.find_spec(package) is None
    }
    return [program for program in programs if program not in missing], missing


def _row(program: str, load: Load) -> Row:
    figures = measure(program, load)
    # A thread's switches are those of the kernel, which counts them.
    switches = figures.kernel_switches if program == "threads" else count_switches(program)
    lines = lines_of_code((HERE / f"{program}.py").read_text())
    return Row(figures, switches, switch_cost(program), lines)


def _described(load: Load) -> str:
    at_once = "" if load.at_once == load.connections else f" ({load.at_once:,} with a request at a time)"
    return (
        f"{load.connections:,} connections{at_once}, services that answer after {load.delay * 1000:g} ms, "
        f"bodies of {len(BODY):,} bytes"
    )


def table(rows: dict[str, Row]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| program    | requests/s | CPU us/request | bytes/connection | switches/request | ns/switch "
        "| kernel switches/request | lines of code |",
        "|------------|-----------:|---------------:|-----------------:|-----------------:|----------:"
        "|------------------------:|--------------:|",
    ]
    for program, row in rows.items():
        it = row.figures
        lines.append(
            f"| {program:10} | {it.requests_per_second:10,.0f} | {it.cpu_per_request * 1e6:14,.0f} "
            f"| {it.bytes_per_connection:16,.0f} | {row.switches:16,.2f} | {row.switch_cost * 1e9:9,.0f} "
            f"| {it.kernel_switches:23,.2f} | {row.lines:13} |"
        )
    return "\n".join(lines)


def _say(progress: str) -> None:
    print(f"coro: {progress}", file=sys.stderr)
