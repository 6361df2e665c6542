"""wrk as the load generator, with the script `load.lua`; it runs on the load generator's core."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import LOAD_CORE, Failed, find_program, last_line, pinned

SCRIPT = Path(__file__).resolve().parent / "load.lua"
ANSWER_LIMIT = 20  # seconds after which wrk counts a request as failed


@dataclass(frozen=True)
class Load:
    """What wrk saw. Latencies are in milliseconds, errors are of all kinds together."""

    answers: int
    created: int  # answers with status 201
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int


def check() -> None:
    """`Failed` when there is no wrk."""
    if find_program("wrk") is None:
        raise Failed("not installed: wrk (Debian, Ubuntu: apt-get install wrk)")


def run(url: str, connections: int, seconds: int, *kind: object) -> Load:
    """Load `url` over that many keep-alive connections for that many seconds; `kind`: see load.lua."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={ANSWER_LIMIT}s"]
    command += ["-s", str(SCRIPT), url, "--", *map(str, kind)]
    with pinned(LOAD_CORE):
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 2 * ANSWER_LIMIT)
    lines = [line for line in done.stdout.splitlines() if line.startswith("JSON ")]
    if done.returncode or not lines:
        raise Failed(f"wrk: {last_line(done.stderr or done.stdout)}")
    return Load(**json.loads(lines[0].removeprefix("JSON ")))
