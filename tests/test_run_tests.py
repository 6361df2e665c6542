"""scripts/run-tests: what fails beside all others is run again, by itself; what fails again has failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "run-tests"
PROGRAM = """
import os, pathlib, pytest

@pytest.mark.parametrize("number", range({steady}))
def test_steady(number):
    assert False

@pytest.mark.parametrize("number", range({flaky}))
def test_flaky(number):
    been = pathlib.Path(f"been-{{number}}")
    if not been.exists():
        been.touch()
        assert os.environ.get("CRASH") and os._exit(1)

def test_right():
    pass
"""


def run(directory: Path, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [str(SCRIPT), sys.executable, "-q", *options]
    return subprocess.run(
        command, cwd=directory, env={**clean, **environ}, capture_output=True, text=True, timeout=100
    )


def write(directory: Path, *, steady: int = 0, flaky: int = 0) -> None:
    (directory / "test_it.py").write_text(PROGRAM.format(steady=steady, flaky=flaky))


def passed_again(directory: Path) -> list[str]:
    file = directory / ".cache" / "passed-again"
    return sorted(line.partition(": ")[2] for line in file.read_text().splitlines()) if file.exists() else []


def test_all_right(tmp_path: Path) -> None:
    write(tmp_path)
    done = run(tmp_path)
    assert (done.returncode, passed_again(tmp_path)) == (0, [])
    assert "again" not in done.stdout


def test_what_passes_when_run_again_is_named(tmp_path: Path) -> None:
    write(tmp_path, flaky=3)
    done = run(tmp_path)
    assert done.returncode == 0
    assert "PASSED ONLY WHEN RUN AGAIN" in done.stdout
    assert passed_again(tmp_path) == [f"test_it.py::test_flaky[{number}]" for number in range(3)]


def test_what_ends_a_worker_is_run_again_as_well(tmp_path: Path) -> None:
    write(tmp_path, flaky=1)
    assert run(tmp_path, CRASH="1").returncode == 0
    assert passed_again(tmp_path) == ["test_it.py::test_flaky[0]"]


@pytest.mark.parametrize(("steady", "flaky"), [(1, 0), (1, 1), (0, 4)])
def test_what_fails_again_or_is_too_much_has_failed(tmp_path: Path, steady: int, flaky: int) -> None:
    write(tmp_path, steady=steady, flaky=flaky)
    assert run(tmp_path).returncode == 1
    assert passed_again(tmp_path) == []


def test_other_errors_are_passed_on(tmp_path: Path) -> None:
    assert run(tmp_path, "--no-such-option").returncode == 4
    write(tmp_path)
    assert run(tmp_path, "-k", "nothing").returncode == 5
