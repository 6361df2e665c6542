"""The tools on the real command line, against the programs in known.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.services import CHECKOUT

KNOWN = CHECKOUT / "tests" / "debug" / "known.py"
CORO = [sys.executable, "-m", "coro"]
PATIENCE = 100.0  # seconds after which a test that hangs fails; nothing waits for them to pass


def line_of(name: str) -> str:
    """`known.py:N` of a marked line."""
    lines = KNOWN.read_text().splitlines()
    return f"known.py:{next(n for n, line in enumerate(lines, 1) if line.endswith(f'# line: {name}'))}"


class Place:
    """A directory to run programs in, and their user's runtime directory. With short paths, for Unix sockets."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="c-"))
        self.runtime = self.path / "r"
        self.runtime.mkdir(mode=0o700)
        self.environment = {
            **os.environ, "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{KNOWN.parent}",
            "XDG_RUNTIME_DIR": str(self.runtime), "TMPDIR": str(self.path),  # both are looked through
        }  # fmt: skip

    def coro(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        command = [*CORO, *map(str, arguments)]
        return subprocess.run(
            command, cwd=self.path, env=self.environment, capture_output=True, text=True, timeout=PATIENCE
        )

    @contextmanager
    def running(self, *arguments: object) -> Iterator[Running]:
        """`coro run ...` in the background, from when it is "on"; ended with the block."""
        with subprocess.Popen(
            [*CORO, "run", *map(str, arguments)], cwd=self.path, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=1,
        ) as process:  # fmt: skip
            try:
                yield Running(process)
            finally:
                process.kill()

    @contextmanager
    def top(self, pid: int) -> Iterator[tuple[subprocess.Popen[str], IO[str], IO[str]]]:
        """`coro top` in the background, with its stdout and stderr; it is to have ended with the block."""
        with subprocess.Popen(
            [*CORO, "top", str(pid)], cwd=self.path, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout is not None and process.stderr is not None
            yield process, process.stdout, process.stderr

    def close(self) -> None:
        shutil.rmtree(self.path)


class Running:
    """A program that is "on"."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None and process.stderr is not None
        self.process = process
        self.pid = process.pid
        self.stdout, self.stderr = process.stdout, process.stderr
        self.printed: list[str] = []  # before that
        for line in self.stdout:
            if line == "on\n":
                return
            self.printed.append(line.rstrip())
        raise AssertionError(f"the program ended: {self.stderr.read()}")

    def read_errors(self, end: str) -> str:
        """What it writes to stderr, up to the line that contains `end`."""
        text = ""
        for line in self.stderr:
            text += line
            if end in line:
                return text
        raise AssertionError(f"no {end!r} in {text}")
