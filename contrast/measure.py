"""Measuring one of the five: the clients in this process, the services in a second one, the program in a third.

All figures of a program are those of its process, as /proc tells them: they are true also when the machine is busy with
other things, save for the requests per second.
"""

from __future__ import annotations

import ast
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from contrast.job import HOST
from contrast.services import SESSIONS

HERE = Path(__file__).resolve().parent
BODY = b"x" * 1000
REQUEST = b"POST / HTTP/1.1\r\nHost: contrast\r\nCookie: session=%s\r\nContent-Length: %d\r\n\r\n%s" % (
    next(iter(SESSIONS)), len(BODY), BODY
)  # fmt: skip
REQUESTS = 10_000  # so many are measured
ROUNDS = 5  # and so many on each connection, if they don't take too long
COUNTED = 20  # requests whose switches are counted
SILENCE = 60.0  # seconds without any answer, after which a program is given up
OTHER_DESCRIPTORS = 100  # that a process has open besides its connections


class Failed(Exception):
    """A program did not get through; why, for the user."""


@dataclass(frozen=True)
class Load:
    """So many clients; `at_once` of them have a request under way, the others wait for their turn."""

    connections: int
    at_once: int
    delay: float  # seconds before each answer of a service
    longest: float  # seconds that measuring may take, about

    @classmethod
    def within(cls, descriptors: int, connections: int, delay: float, longest: float) -> Load:
        """What fits: a program has a descriptor for each connection, and one to the services for each request."""
        at_once = min(connections, descriptors - OTHER_DESCRIPTORS - connections)
        if at_once < 1:
            needed = connections + OTHER_DESCRIPTORS + 1
            raise Failed(
                f"{connections} connections need at least {needed} open descriptors and {descriptors} are allowed: "
                "see ulimit -Hn"
            )
        return cls(connections, at_once, delay, longest)


@dataclass(frozen=True)
class Figures:
    """What one program cost."""

    requests_per_second: float
    cpu_per_request: float  # seconds
    resident: int  # bytes, the whole process
    bytes_per_connection: float
    kernel_switches: float  # of all its threads, a request


def measure(program: str, load: Load) -> Figures:
    """The figures of one program. `Failed` when it ended early or fell silent."""
    with running(program, load.delay) as (process, port):
        pid = process.pid
        with Clients(port, 1, 1) as first:
            first.send(10)  # what is loaded or cached on first use belongs to no connection
        before = resident(pid)
        with Clients(port, load.connections, load.at_once) as clients:
            began = time.monotonic()
            clients.send(1)
            possible = int(load.longest / (time.monotonic() - began))
            memory = resident(pid)
            rounds = max(1, min(possible, max(ROUNDS, REQUESTS // load.connections)))
            began, cpu, switches = time.monotonic(), cpu_seconds(pid), kernel_switches(pid)
            clients.send(rounds)
            requests, took = rounds * load.connections, time.monotonic() - began
            cpu = cpu_seconds(pid) - cpu
            # Of those that are there still: one of an earlier client may have been ending.
            kernel = sum(count - switches.get(thread, 0) for thread, count in kernel_switches(pid).items())
    per_connection = (memory - before) / load.connections
    return Figures(requests / took, cpu / requests, memory, per_connection, kernel / requests)


def count_switches(program: str) -> float:
    """How often the program goes on with a connection that waited, for each request: contrast/counted.py counts."""
    with running("counted", 0.0, program) as (process, port), Clients(port, 1, 1) as client:
        client.send(1)
        before = _counted(process)
        client.send(COUNTED)
        return (_counted(process) - before) / COUNTED


def _counted(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    process.send_signal(signal.SIGUSR1)
    return int(process.stdout.readline())


class Clients:
    """Connections that stay open between requests."""

    def __init__(self, port: int, count: int, at_once: int) -> None:
        self._address, self._count, self._at_once = (HOST, port), count, at_once
        self._sockets: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Clients:
        try:
            for _ in range(self._count):
                sock = socket.create_connection(self._address)
                self._sockets.append(sock)
                self._selector.register(sock, selectors.EVENT_READ)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for sock in self._sockets:
            sock.close()
        self._selector.close()

    def send(self, rounds: int) -> None:
        """So many requests on each connection, one after the other; returns when all are answered."""
        left = dict.fromkeys(self._sockets, rounds)
        waiting = deque(self._sockets)
        for _ in range(self._at_once):
            waiting.popleft().sendall(REQUEST)
        under_way = self._at_once
        while under_way:
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
                    waiting.append(sock)
                if waiting:
                    waiting.popleft().sendall(REQUEST)
                else:
                    under_way -= 1


# --- Processes ------------------------------------------------------------------------


@contextmanager
def running(program: str, delay: float, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The program in a process of its own, with services in another; and its port."""
    with (
        tempfile.TemporaryDirectory(prefix="coro-contrast-", dir=_scratch()) as folder,
        _started("services", "--delay", str(delay)) as (_, services),
        _started(program, "--folder", folder, "--services", str(services), *arguments) as (process, port),
    ):
        yield process, port


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


# --- Figures -----------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far: proc(5), /proc/pid/stat, utime and stime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kernel_switches(pid: int) -> dict[str, int]:
    """Context switches so far, voluntary and not, of each thread that a process has now."""
    counts = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            lines = (thread / "status").read_text().splitlines()
            counts[thread.name] = sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return counts


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
