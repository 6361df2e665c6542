"""What the kernel's tests share: the selectors, a loop that shows what is left at its end, other processes."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

import pytest

from coro import Coro, Loop
from coro.testing import VirtualLoop

T = TypeVar("T")

PATIENCE = 100.0  # seconds after which a test that hangs fails; nothing waits for them to pass
CHECKOUT = Path(__file__).resolve().parents[2]
SELECTORS = (selectors.EpollSelector, selectors.PollSelector, selectors.SelectSelector)

on_every_selector = pytest.mark.parametrize("selector", SELECTORS, ids=lambda kind: kind.__name__)


def run_on(selector: type[selectors.BaseSelector], main: Coro[T]) -> T:
    """Run `main` in real time, on a selector of this kind."""
    return Loop(selector()).run(main)


class BrokenOff(BaseException):
    """What ends a run without any clean-up, as a second Ctrl-C does."""


class TidyLoop(VirtualLoop):
    """Fails if, at its end, a timer is armed, a call is under way or a descriptor is registered."""

    def _close(self) -> None:
        timers = len(self.timers)
        registered = [key for key in self.selector.get_map().values() if key.fileobj is not self._wake_receiver]
        calls = self.calls
        super()._close()
        assert (timers, registered, calls, self.ready) == (0, [], 0, [])


def run_tidy(main: Coro[T], *, seed: int | None = None) -> T:
    """Run `main` in virtual time, and see that it leaves nothing behind in the loop."""
    return TidyLoop(seed).run(main)


def python(script: str, *, input: str = "") -> subprocess.CompletedProcess[str]:
    """Run a script in a Python process of its own, to its end."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", script], cwd=CHECKOUT, env=environment(), input=input,
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip


def start_python(script: str) -> subprocess.Popen[str]:
    """Start a script in a Python process of its own, with pipes to it."""
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-u", "-c", script], cwd=CHECKOUT, env=environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CHECKOUT)}
