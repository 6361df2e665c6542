"""Calls that the tests of `to_process` make in worker processes. Importing this is cheap: it imports no test tools."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn


class Unsendable(Exception):
    """Can be pickled, but not made again from its pickle."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__("unsendable")


def in_process(*args: Any, **kwargs: Any) -> tuple[int, tuple[Any, ...], dict[str, Any]]:
    return os.getpid(), args, kwargs


def gives_back(value: Any) -> Any:
    return value


def fails() -> NoReturn:
    raise LookupError("in the worker")


def fails_unsendably() -> NoReturn:
    raise Unsendable(1, 2)


def returns_unsendable() -> object:
    return sys.stdout


def spins(begun: Path) -> NoReturn:
    """Computes for ever, after it has said so, and does not care to be asked to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    begun.write_text(str(os.getpid()))
    while True:
        pass


def ends_and_leaves_a_fork(pid_file: Path, until_ended: int) -> NoReturn:
    """A fork has copies of all descriptors. This one outlives the worker, but not the process `until_ended`."""
    pid = os.fork()
    if not pid:
        while os.path.exists(f"/proc/{until_ended}"):
            time.sleep(0.1)
        os._exit(0)
    pid_file.write_text(str(pid))
    os._exit(3)


def closes_all_descriptors() -> NoReturn:
    os.closerange(3, 1000)
    while True:
        pass


def reads_stdin() -> str:
    return sys.stdin.read()


def options_and_arguments() -> tuple[int, list[str]]:
    return sys.flags.optimize, sys.argv


def inheritable_descriptors() -> list[int]:
    return [fd for fd in range(3, 100) if os.path.exists(f"/proc/self/fd/{fd}") and os.get_inheritable(fd)]
