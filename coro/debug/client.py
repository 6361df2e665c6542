"""The commands' side of attaching: find the process, ask to be let in, ask."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from coro.debug.attach import AttachError, Marker, check_private, directories, started

PATIENCE = 10.0  # seconds for the process to react to the signal
LOOK = 0.01  # seconds between looks whether it has; they are counted, lest a pause of the whole machine counts
ASK_AGAIN = 0.5  # seconds after which the signal is sent anew
ANSWER_PATIENCE = 30.0  # seconds for an answer
STUCK = (
    "process {pid} does not react: it is stopped, or in one long call that is no Python code."
    " See where with `py-spy dump --pid {pid}`, or end it with the stacks on its stderr: `kill -QUIT {pid}`"
)
FULL = (
    "process {pid} has no descriptor left to let anybody in, of the {limit} that it may have:"
    " `kill -USR1 {pid}` has it write its tasks to its stderr"
)


def show_processes(as_json: bool) -> int:
    """`coro ps`: a line for each process that can be attached to."""
    found = sorted(markers(), key=lambda marker: (marker.supervisor or marker.pid, marker.pid))
    if as_json:
        print(json.dumps([asdict(marker) for marker in found], indent=2))
        return 0
    for marker in found:
        worker = f", worker {marker.worker} of process {marker.supervisor}" if marker.supervisor else ""
        print(f"{marker.pid}  {marker.name}{worker}")
    if not found:
        print("coro: no process of yours can be attached to: start one with `coro run`", file=sys.stderr)
    return 0 if found else 1


def show_tree(pid: int, as_json: bool) -> int:
    """`coro ps PID`: its task tree."""
    check_runs_tasks(pid)
    with attached(pid) as stream:
        send(stream, {"ask": "tree", "json": as_json})
        text = answer(stream, pid)["text"]
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def check_runs_tasks(pid: int) -> None:
    """`AttachError`, with the workers' numbers, for a supervisor."""
    workers = sorted((marker for marker in markers() if marker.supervisor == pid), key=lambda marker: marker.worker)
    if workers:
        pids = ", ".join(str(marker.pid) for marker in workers)
        raise AttachError(f"process {pid} runs no tasks, it supervises workers. Ask one of them: {pids}")


def send(stream: IO[str], question: dict[str, Any]) -> None:
    """Put a question. That nobody is there any more is told by the `answer`."""
    with suppress(BrokenPipeError, ConnectionResetError):
        print(json.dumps(question), file=stream, flush=True)


def answer(stream: IO[str], pid: int) -> dict[str, Any]:
    """The next answer. `AttachError` when it is an error, or there is none."""
    found = _read_line(stream, pid)
    if found is None:
        raise AttachError(f"process {pid} has ended, or has closed the connection")
    return found


def _read_line(stream: IO[str], pid: int) -> dict[str, Any] | None:
    """The next line; None at the end of the connection."""
    line = ""
    try:
        with suppress(ConnectionResetError):
            line = stream.readline()
    except TimeoutError:
        raise AttachError(STUCK.format(pid=pid)) from None
    if not line.endswith("\n"):  # half a line is of a process that was killed
        return None
    found: dict[str, Any] = json.loads(line)
    if "error" in found:
        raise AttachError(f"process {pid}: {found['error']}")
    return found


def markers() -> Iterator[Marker]:
    """Of this user's processes that live; what others have left behind is removed."""
    for directory in directories():
        with suppress(FileNotFoundError):
            check_private(directory)
            for path in directory.glob("*.marker"):
                with suppress(FileNotFoundError):
                    marker = _read(path)
                    if marker is None:
                        for left in directory.glob(f"{path.stem}.*"):
                            left.unlink(missing_ok=True)
                    else:
                        yield marker


def _read(path: Path) -> Marker | None:
    """The marker, if its process lives and is the one that wrote it."""
    with suppress(ValueError, TypeError, OSError):
        marker = Marker(*json.loads(path.read_text()))
        if marker.pid == int(path.stem) and marker.started == started(marker.pid):
            return marker
    return None


@contextmanager
def attached(pid: int) -> Iterator[IO[str]]:
    """A conversation with a process, as a stream of lines. `AttachError`."""
    stream = _connect(_directory_of(pid), pid)
    try:
        yield stream
    finally:
        with suppress(BrokenPipeError, ConnectionResetError):  # what could not be sent
            stream.close()


def _directory_of(pid: int) -> Path:
    """Where the marker of the process is. `AttachError`, with the reason, if there is none."""
    for directory in directories():
        path = directory / f"{pid}.marker"
        with suppress(FileNotFoundError, PermissionError):
            check_private(directory)
            if _read(path) is not None:
                return directory
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except FileNotFoundError:
        raise AttachError(f"there is no process {pid}") from None
    if owner != os.geteuid():
        raise AttachError(f"process {pid} is another user's: only that user can attach to it (sudo -u '#{owner}')")
    raise AttachError(
        f"process {pid} cannot be attached to: it was not started with `coro run`, and is not"
        " `coro.debug.attach.attachable` (`coro ps` without a number lists those that are)"
    )


def _connect(directory: Path, pid: int) -> IO[str]:
    """A conversation with the process, which is asked to open its socket. `AttachError`."""
    request = directory / f"{pid}.request"
    asked = -math.inf
    for _ in range(round(PATIENCE / LOOK)):
        stream = _come_in(str(directory / f"{pid}.socket"), pid)
        if stream is not None:
            return stream
        if asked > 0 and not request.exists():  # it has taken it
            _check_descriptors(pid)
        if time.monotonic() - asked >= ASK_AGAIN:  # it may have closed the socket again
            asked = time.monotonic()
            _ring(directory, pid)
        time.sleep(LOOK)
    request.unlink(missing_ok=True)
    raise AttachError(STUCK.format(pid=pid))


def _come_in(path: str, pid: int) -> IO[str] | None:
    """A conversation that the process has begun with its greeting; None if it does not listen, or is closing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_PATIENCE)
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):  # the last: many want to come in
            return None
        stream = connection.makefile("rw", encoding="utf-8")  # keeps the connection open
    greeting = None
    try:
        greeting = _read_line(stream, pid)
    finally:
        if greeting is None:
            stream.close()
    return stream if greeting else None


def _check_descriptors(pid: int) -> None:
    """`AttachError` unless the process has those that it takes to let anybody in: a socket's and a connection's."""
    with suppress(OSError, StopIteration):
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        limit = next(line.split()[3] for line in limits if line.startswith("Max open files"))
        if len(os.listdir(f"/proc/{pid}/fd")) + 2 > float(limit.replace("unlimited", "inf")):
            raise AttachError(FULL.format(pid=pid, limit=limit))


def _ring(directory: Path, pid: int) -> None:
    """Have the process open its socket."""
    request = directory / f"{pid}.request"
    os.close(os.open(request, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    if _read(directory / f"{pid}.marker") is None:  # without its handler the signal would end it
        request.unlink(missing_ok=True)
        raise AttachError(f"process {pid} has just ended")
    os.kill(pid, signal.SIGUSR1)
