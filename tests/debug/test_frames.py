"""`coro run --task-frames`: what profilers see."""

from __future__ import annotations

import subprocess
import sys

from tests.debug.support import PATIENCE, Place


def profiled(place: Place, *options: str) -> str:
    command = [sys.executable, "-m", "cProfile", "-m", "coro", "run", *options, "known:named"]
    done = subprocess.run(
        command, cwd=place.path, env=place.environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_cprofile_shows_tasks_by_their_names(place: Place) -> None:
    lines = [line.split(maxsplit=5) for line in profiled(place, "--task-frames").splitlines()]
    calls = {words[5].partition("(")[2][:-1]: words[0] for words in lines if len(words) == 6}
    assert calls["task one"] == calls["task two"] == "4"  # steps


def test_without_the_option_there_are_no_such_frames(place: Place) -> None:
    assert "task one" not in profiled(place)
