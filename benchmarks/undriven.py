"""Calls that are never driven: what it costs to look for them at run time, in each call statement and at import.

python -m benchmarks.undriven statement|import WHICH REPEATS prints one figure of one program as JSON.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, process_time
from types import GeneratorType
from typing import Any

from benchmarks.processes import CHECKOUT, SERVER_CORE, Failed, progress, python, run_json
from benchmarks.report import Column, Options, Report
from coro import undriven

STATEMENTS = 1_000_000
OTHERS = {
    "without the check": "plain",
    "checked by a function": "function",  # the way not taken: `check(work())`
}
VALUES = ("None", "True")  # what the called function returns


def measure(options: Options) -> Iterator[Report]:
    yield statements(options.pick(7, 3))
    yield imports(options.pick(5, 2))


def statements(repeats: int) -> Report:
    report = Report(
        "A call statement",
        f"{STATEMENTS:,} call statements in a loop, with the function that they call; best of {repeats} processes.",
        [Column("ns, drops None", 1), Column("ns, drops another value", 1)],
    )
    for repeat in range(repeats):
        progress(f"undriven, statements: run {repeat + 1} of {repeats}")
        for name, which in {"coro": "coro", **OTHERS}.items():
            best = report.rows.get(name, [float("inf")] * len(VALUES))
            try:
                figures = run_json(python("benchmarks.undriven", "statement", which, 5), SERVER_CORE)
                report.rows[name] = [min(pair) for pair in zip(best, figures, strict=True)]
            except Failed as failure:
                report.absent[name] = str(failure)
    return report


def imports(repeats: int) -> Report:
    sources = sum(len(path.read_text().splitlines()) for path in source_files())
    report = Report(
        "Loading a module",
        f"From source file to code object, {len(source_files())} modules of {sources:,} lines; best of {repeats}"
        " processes. CPU time.",
        [Column("ms per 1,000 lines, compiled before", 2), Column("ms per 1,000 lines, first time", 2)],
    )
    for repeat in range(repeats):
        progress(f"undriven, imports: run {repeat + 1} of {repeats}")
        for name, which in {"coro": "coro", "without the check": "plain"}.items():
            best = report.rows.get(name, [float("inf")] * 2)
            try:
                figures = run_json(python("benchmarks.undriven", "import", which, 5), SERVER_CORE)
                report.rows[name] = [min(pair) for pair in zip(best, figures, strict=True)]
            except Failed as failure:
                report.absent[name] = str(failure)
    return report


def source_files() -> list[Path]:
    return [path for top in ("coro", "apps") for path in sorted((CHECKOUT / top).rglob("*.py"))]


# --- The measured programs ----------------------------------------------------------


def time_statements(which: str, repeats: int) -> list[float]:
    """Nanoseconds for each call statement, by what it drops."""
    return [_best(_loop(which, value), repeats) / STATEMENTS * 1e9 for value in VALUES]


def _loop(which: str, value: str) -> Callable[[range], None]:
    statement = "check(work())" if which == "function" else "work()"
    tree = ast.parse(f"def work(): return {value}\ndef loop(times, work=work):\n for _ in times:\n  {statement}")
    if which == "coro":
        undriven.rewrite(tree)
    names: dict[str, Any] = {"check": check}
    exec(compile(tree, "<loop>", "exec"), names)
    loop: Callable[[range], None] = names["loop"]
    return loop


def check(value: object) -> None:
    if type(value) is GeneratorType:
        raise undriven.NotDriven


def _best(loop: Callable[[range], None], repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = perf_counter()
        loop(range(STATEMENTS))
        best = min(best, perf_counter() - start)
    return best


def time_imports(which: str, repeats: int) -> list[float]:
    """Milliseconds for 1,000 lines: with the compiled files there, and without."""
    sys.dont_write_bytecode = False
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        sys.path.insert(0, folder)
        lines = 0
        names = []
        for n, path in enumerate(source_files()):
            text = path.read_text()
            Path(folder, f"measured_{n}.py").write_text(text)
            names.append(f"measured_{n}")
            lines += len(text.splitlines())
        if which == "coro":
            undriven.install(lambda path: path.startswith(folder))
        first = _load(names)
        again = min(_load(names) for _ in range(repeats))
    return [again / lines * 1e6, first / lines * 1e6]


def _load(names: list[str]) -> float:
    start = process_time()
    for name in names:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        loader: Any = spec.loader
        loader.get_code(name)
    return process_time() - start


if __name__ == "__main__":
    kind, which, repeats = sys.argv[1:]
    measured = {"statement": time_statements, "import": time_imports}[kind]
    print(json.dumps(measured(which, int(repeats))))
