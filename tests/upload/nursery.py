"""Apps that start in an instant and end at a chosen point: forks of a process that has imported everything.

A sweep over all points at which a crash can happen starts the app hundreds of times. What is forked runs the real
command line, `coro.cli.main`; and crash.c, loaded before the C library, counts its calls and kills it (SIGKILL) at the
one that it was told.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from tests.services import CHECKOUT, scratch
from tests.upload.harness import PATIENCE, App, Process, environment

CALLS = 1 << 20  # bytes of the notes of calls, as in `struct control`
HEAD = struct.Struct("=ii")
LENGTH = struct.Struct("=i")
NOTING = struct.Struct("=i")


class Nursery:
    """The process that is forked. One child at a time."""

    def __init__(self) -> None:
        directory = scratch().directory("nursery")
        library = directory / "crash.so"
        source = Path(__file__).with_name("crash.c")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        with open(directory / "control", "w+b") as file:
            file.truncate(HEAD.size + CALLS + LENGTH.size + NOTING.size)
            self._control = mmap.mmap(file.fileno(), 0)
        self._stop_counting = ctypes.CDLL(str(library)).stop_counting
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        variables = {"LD_PRELOAD": str(library), "CRASH_CONTROL": str(directory / "control")}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.upload.nursery", str(theirs.fileno())],
                cwd=CHECKOUT, env=environment(**variables), pass_fds=[theirs.fileno()],
            )  # fmt: skip
        self._socket = ours
        ours.settimeout(PATIENCE)

    def fork(self, arguments: list[str], log: str) -> Child:
        read, write = os.pipe()
        with open(log, "ab") as errors:
            socket.send_fds(self._socket, [json.dumps(arguments).encode()], [write, errors.fileno()])
        os.close(write)
        return Child(int(self._socket.recv(100)), open(read), self._socket)

    def die_at(self, number: int, *, torn: bool = False) -> None:
        """The child dies before its call of that number from now on; if `torn`, in the midst of the write to a file."""
        LENGTH.pack_into(self._control, HEAD.size + CALLS, 0)
        HEAD.pack_into(self._control, 0, number, torn)

    def watch(self) -> None:
        """Note calls from now on, and let the child live."""
        self.die_at(1 << 30)

    def noted(self) -> list[list[str]]:
        """The calls since then with their paths or ports; `synced` when the disk has what it was to have."""
        [length] = LENGTH.unpack_from(self._control, HEAD.size + CALLS)
        assert length <= CALLS
        return [line.split() for line in self._control[HEAD.size : HEAD.size + length].decode().splitlines()]

    def has_died(self) -> bool:
        """Has the child come to the call that it was told? If not, it lives: nothing is counted any more."""
        return not self._stop_counting(ctypes.byref(ctypes.c_char.from_buffer(self._control)))

    def counted(self) -> list[str]:
        """The names of the calls since then."""
        return [name for name, *_ in self.noted() if name != "synced"]

    def close(self) -> None:
        self._socket.close()  # which ends it, and its child
        self._process.wait(PATIENCE)
        self._control.close()


class Child:
    """What is used of `subprocess.Popen`."""

    def __init__(self, pid: int, stdout: TextIO, status: socket.socket) -> None:
        self.pid = pid
        self.stdout = stdout
        self._status = status
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None and select.select([self._status], [], [], 0)[0]:
            self.wait()
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        if self._code is None:
            self._code = int(self._status.recv(100))
        return self._code

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class MortalApp(App):
    """An app that the nursery starts, and that dies at a chosen point."""

    def __init__(self, nursery: Nursery, *arguments: Any) -> None:
        self.nursery = nursery
        super().__init__(*arguments)

    def launch(self) -> Process:
        return self.nursery.fork(self.command[3:], self.log)  # without `python -m coro`

    def fsck(self) -> int:
        """Compare disk and table, digests too; the exit code. The app must have ended."""
        child = self.nursery.fork([*self.command[3:], "fsck", "--digests"], self.log)
        code = child.wait()
        child.stdout.close()
        return code


def _serve(orders: socket.socket) -> None:
    """Start what is asked for, and tell how each ends."""
    import gc

    import apps.upload.app
    from coro.cli import main

    assert apps.upload.app
    gc.freeze()
    while True:
        order, fds, _, _ = socket.recv_fds(orders, 1 << 16, 2)
        if not order:
            return
        pid = os.fork()
        if not pid:
            orders.close()
            for number, fd in enumerate(fds, 1):
                os.dup2(fd, number)
                os.close(fd)
            sys.exit(main(json.loads(order)))
        for fd in fds:
            os.close(fd)
        orders.send(str(pid).encode())
        _wait_for(pid, orders)


def _wait_for(pid: int, orders: socket.socket) -> None:
    ended = os.pidfd_open(pid)
    if ended not in select.select([ended, orders.fileno()], [], [])[0]:
        os.kill(pid, signal.SIGKILL)  # the tests have ended
    os.close(ended)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(OSError):
        orders.send(str(code).encode())


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        _serve(orders)
