"""Processes under measurement: which core they run on, what they cost in CPU and memory. Linux only (/proc).

The process that is measured has one core to itself; whatever feeds it (load generators, Redis, MariaDB and
this program) runs on another. User plus system time of the whole process tree is the figure that stays steady
on a noisy machine; wall-clock rates are shown beside it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PATIENCE = 30.0  # seconds for a server to start or to end


class Failed(Exception):
    """A peer could not be measured; the message says why, in one line where that is possible."""


@dataclass(frozen=True)
class Peer:
    """What is measured: its name in the tables, its program in `peers`, what must be installed for it."""

    name: str
    program: str
    modules: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    def check(self) -> None:
        """`Failed` when something that the peer needs is not installed."""
        missing = [name for name in self.modules if importlib.util.find_spec(name) is None]
        missing += [name for name in self.programs if find_program(name) is None]
        if missing:
            raise Failed(f"not installed: {', '.join(missing)}")


def find_program(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def progress(text: str) -> None:
    """Tell a waiting person what is going on. On stderr: stdout has the tables only."""
    print(text, file=sys.stderr, flush=True)


# --- Cost of a process tree ---------------------------------------------------------


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on, see proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(root: int) -> list[int]:
    """`root` and its living descendants, parents first."""
    pids = [root]
    for pid in pids:
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                children = Path(f"/proc/{pid}/task/{thread}/children").read_text()
                pids += map(int, children.split())
    return pids


def cpu_seconds(root: int) -> float:
    """User plus system time of the tree so far, in seconds, ended children that were waited for included."""
    ticks = 0
    for pid in tree(root):
        with suppress(OSError):
            ticks += sum(map(int, _stat(pid)[11:15]))  # utime, stime, cutime, cstime
    return ticks / TICKS


def resident_bytes(root: int) -> int:
    """Resident memory of the tree."""
    pages = 0
    for pid in tree(root):
        with suppress(OSError):
            pages += int(_stat(pid)[21])
    return pages * PAGE


def wait_until_idle(root: int, quiet: float = 0.5) -> None:
    """Return when the tree has used hardly any CPU for `quiet` seconds. `Failed` when that never happens."""
    deadline = time.monotonic() + PATIENCE
    before = cpu_seconds(root)
    while time.monotonic() < deadline:
        time.sleep(quiet)
        now = cpu_seconds(root)
        if now - before <= 0.03 * quiet:
            return
        before = now
    raise Failed("the server did not become idle")


# --- Running ------------------------------------------------------------------------


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started inside the block runs on this core."""
    previous = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, previous)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """For child processes: the checkout is importable, and nothing else of Python's settings leaks in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "PYTHONPATH": str(CHECKOUT), **(extra or {})}


def python(module: str, *arguments: object) -> list[str]:
    """The command line of one of our modules."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def run_json(command: Sequence[str], core: int) -> Any:
    """Run a program to its end on one core; what it printed, as JSON. `Failed` with its last words."""
    with pinned(core):
        done = subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise Failed(last_line(done.stderr) or f"exit code {done.returncode}")
    return json.loads(done.stdout)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def stop(process: subprocess.Popen[Any]) -> None:
    """End one process that we started, and wait for it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def serving(command: Sequence[str], port: int, log: Path, extra: Mapping[str, str] | None = None) -> Iterator[int]:
    """Run a server on its core for the block; its process id, as soon as it accepts connections on `port`.

    `Failed` when it does not come up, or has ended by itself when the block ends.
    """
    with log.open("wb") as output, pinned(SERVER_CORE):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(extra),
            cwd=log.parent,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not _accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"did not start: {last_line(log.read_text(errors='replace'))}")
            time.sleep(0.02)
        yield process.pid
        if process.poll() is not None:
            raise Failed(f"ended by itself: {last_line(log.read_text(errors='replace'))}")
    finally:
        stop(process)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else ""
