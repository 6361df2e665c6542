"""What the tests of programs share: fixtures that watch descriptors and vary the way of waiting, small helpers."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

import coro
from coro import Coro, Process
from tests.kernel.support import PATIENCE

IGNORES_SIGTERM = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); "
BIG = bytes(range(256)) * 4096  # 1 MiB: more than a pipe holds


@pytest.fixture(autouse=True)
def leaves_no_descriptor_behind() -> Iterator[None]:
    before = descriptors()
    yield
    for thread in threading.enumerate():
        if thread.name == "coro-process-end":
            thread.join(PATIENCE)
    assert descriptors() <= before  # a thread that an earlier test has left may have closed one meanwhile


def descriptors() -> set[tuple[str, str]]:
    """The numbers of those that are open, and what each is open to."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that this list was read from
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


@pytest.fixture(params=["pidfd", "thread"])
def waiting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With each of the ways to wait for a process."""

    def unknown(pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if request.param == "thread":
        monkeypatch.setattr(os, "pidfd_open", unknown)


in_both_ways = pytest.mark.usefixtures("waiting")


def python_program(script: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", script]


def is_gone(pid: int) -> bool:
    """Has it ended, and been waited for?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def sleeping(process: Process) -> Coro[None]:
    yield from coro.sleep_forever()
