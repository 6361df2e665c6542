"""`coro contrast`: the five ways one after the other, each in a process of its own, in one table.

The clients are in this process, the services in a second one, the program that is measured in a third. All figures of
a program are those of its process, as /proc tells them: they are true also when the machine is busy with other things,
save for the requests per second.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contrast.job import HOST, allow_descriptors
from contrast.services import SESSIONS

PROGRAMS = ("threads", "callbacks", "greenlets", "native", "generators")
NEEDS = {"greenlets": "greenlet"}  # the packages that do not come with coro
HERE = Path(__file__).resolve().parent
BODY = b"x" * 1000
REQUEST = b"POST / HTTP/1.1\r\nHost: contrast\r\nCookie: session=%s\r\nContent-Length: %d\r\n\r\n%s" % (
    next(iter(SESSIONS)), len(BODY), BODY
)  # fmt: skip
REQUESTS = 10_000  # at least so many are measured
ROUNDS = 5  # at least so many on each connection
SILENCE = 60.0  # seconds without any answer, after which a program is given up
OTHER_DESCRIPTORS = 100


class Failed(Exception):
    """A program did not get through; why, for the user."""


@dataclass(frozen=True)
class Figures:
    """What one program cost."""

    requests_per_second: float
    cpu_per_request: float  # seconds
    bytes_per_connection: float
    switches_per_request: float  # context switches of its threads, by the kernel
    lines: int


def compare(connections: int, delay: float, programs: Sequence[str] = PROGRAMS) -> int:
    """Run them with so many connections and `delay` seconds before each answer of a service; print the table.

    The exit code: 0, or 1 when a program failed or the machine allows too few descriptors.
    """
    needed, allowed = 2 * connections + OTHER_DESCRIPTORS, allow_descriptors()
    if needed > allowed:
        _say(f"{connections} connections need {needed} open descriptors and {allowed} are allowed: see ulimit -Hn")
        return 1
    rows: dict[str, Figures] = {}
    missing: dict[str, str] = {}
    failed: dict[str, str] = {}
    for number, program in enumerate(programs, 1):
        package = NEEDS.get(program)
        if package is not None and importlib.util.find_spec(package) is None:
            missing[program] = f"it needs the package {package}, which is not installed"
            continue
        _say(f"{number}/{len(programs)} {program} ...")
        try:
            rows[program] = measure(program, connections, delay)
        except (Failed, OSError) as error:
            failed[program] = str(error)
    print(f"{connections:,} connections, services that answer after {delay * 1000:g} ms, bodies of {len(BODY):,} bytes")
    print(table(rows))
    for program, reason in (missing | failed).items():
        print(f"not measured: {program}: {reason}")
    return 1 if failed else 0


def table(rows: dict[str, Figures]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| program    | requests/s | CPU us/request | bytes/connection | kernel switches/request | lines of code |",
        "|------------|-----------:|---------------:|-----------------:|------------------------:|--------------:|",
    ]
    for program, it in rows.items():
        lines.append(
            f"| {program:10} | {it.requests_per_second:10,.0f} | {it.cpu_per_request * 1e6:14,.0f} "
            f"| {it.bytes_per_connection:16,.0f} | {it.switches_per_request:23,.2f} | {it.lines:13} |"
        )
    return "\n".join(lines)


def measure(program: str, connections: int, delay: float) -> Figures:
    """The figures of one program. `Failed` when it ended early or fell silent."""
    with (
        tempfile.TemporaryDirectory(prefix="coro-contrast-", dir=_scratch()) as folder,
        _started("services", "--delay", str(delay)) as (_, services),
        _started(program, "--folder", folder, "--services", str(services)) as (server, port),
    ):
        with Clients(port, 1) as first:
            first.send(10)  # what is loaded or cached on first use belongs to no connection
        before = resident(server.pid)
        with Clients(port, connections) as clients:
            clients.send(1)
            memory = resident(server.pid) - before
            rounds = max(ROUNDS, REQUESTS // connections)
            began, cpu, switches = time.monotonic(), cpu_seconds(server.pid), kernel_switches(server.pid)
            clients.send(rounds)
            requests, took = rounds * connections, time.monotonic() - began
            cpu = cpu_seconds(server.pid) - cpu
            switches = kernel_switches(server.pid) - switches
    lines = lines_of_code((HERE / f"{program}.py").read_text())
    return Figures(requests / took, cpu / requests, memory / connections, switches / requests, lines)


class Clients:
    """Connections that stay open between requests."""

    def __init__(self, port: int, count: int) -> None:
        self._address, self._count = (HOST, port), count
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Clients:
        for _ in range(self._count):
            self._selector.register(socket.create_connection(self._address), selectors.EVENT_READ)
        return self

    def __exit__(self, *exception: object) -> None:
        for key in tuple(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def send(self, rounds: int) -> None:
        """So many requests on each connection, one after the other; returns when all are answered."""
        left = {}
        for key in self._selector.get_map().values():
            assert isinstance(key.fileobj, socket.socket)
            left[key.fileobj] = rounds
            key.fileobj.sendall(REQUEST)
        while left:
            ready = self._selector.select(SILENCE)
            if not ready:
                raise Failed(f"no answer for {SILENCE:.0f} s")
            for key, _ in ready:
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                answer = sock.recv(4096)  # it is short: it comes in one piece
                if not answer.startswith(b"HTTP/1.1 201 "):
                    raise ConnectionError(answer.decode().partition("\r\n")[0] or "it hung up")
                left[sock] -= 1
                if left[sock]:
                    sock.sendall(REQUEST)
                else:
                    del left[sock]


# --- Processes ------------------------------------------------------------------------


@contextmanager
def _started(module: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A module of this package in a process of its own, and the port that it printed; killed at the end."""
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", f"contrast.{module}", *options],
            cwd=HERE.parent, stdout=subprocess.PIPE, stderr=errors, text=True,
        ) as process,
    ):  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise ConnectionError("it ended at once")
            yield process, int(line)
        except ConnectionError as error:
            errors.seek(0)
            last_words = errors.read().splitlines()[-1:]
            raise Failed(last_words[0] if last_words else str(error)) from None
        finally:
            process.kill()


def _scratch() -> str | None:
    """In memory, where there is such a place: a disk would be measured too."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _say(progress: str) -> None:
    print(f"coro: {progress}", file=sys.stderr)


# --- Figures -----------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far: proc(5), /proc/pid/stat, utime and stime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kernel_switches(pid: int) -> int:
    """Context switches, voluntary and not, of the threads that a process has now."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    lines = [line for thread in threads for line in (thread / "status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def resident(pid: int) -> int:
    """Bytes of memory that are a process's now. What the kernel holds for its sockets and threads is not among them."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def lines_of_code(source: str) -> int:
    """Lines without those that are blank, or only a comment or docstring."""
    tree = ast.parse(source)
    texts = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    code = [line.strip() for number, line in enumerate(source.splitlines(), 1) if number not in texts]
    return sum(line != "" and not line.startswith("#") for line in code)
