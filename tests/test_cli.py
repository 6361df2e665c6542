"""`coro run` with programs that are plain generator functions (for services, see tests/upload/test_service.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import coro
from tests.services import CHECKOUT, PATIENCE

PROGRAM = '''
import coro

def main():
    """Says hello."""
    yield from coro.sleep(0)
    print("hello")

def fails():
    yield from coro.sleep(0)
    raise ValueError("a bug")

def waits():
    print("waiting", flush=True)
    try:
        yield from coro.sleep_forever()
    finally:
        print("cleaned up", flush=True)

def plain():
    print("not a generator")
'''


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """`python -m coro`, to be run where there are modules `hello` and `broken`."""
    (tmp_path / "hello.py").write_text(PROGRAM)
    (tmp_path / "broken.py").write_text("import no_such_module")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "inner.py").write_text(PROGRAM)
    return [sys.executable, "-m", "coro"]


def run(command: list[str], tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(
        [*command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.mark.parametrize("target", ["hello", "hello:main", "package.inner"])
def test_a_generator_function_is_run(command: list[str], tmp_path: Path, target: str) -> None:
    done = run(command, tmp_path, "run", target)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")


def test_its_help_is_its_docstring(command: list[str], tmp_path: Path) -> None:
    done = run(command, tmp_path, "run", "hello", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: coro run hello")
    assert "Says hello." in done.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run"], "coro: the following arguments are required: MODULE[:NAME]"),
        (["run", "nowhere"], "coro: there is no module 'nowhere', neither in {here} nor installed"),
        (["run", "hello.deeper"], "coro: there is no module 'hello.deeper', neither in {here} nor installed"),
        (["run", "hello:nothing"], "coro: module 'hello' has no 'nothing'"),
        (["run", "hello:plain"], "coro: hello:plain is neither a generator function nor a coro.cli.Service"),
        (["run", "../hello"], "coro: '../hello' is not the name of a module"),
    ],
)
def test_a_wrong_target_is_one_line_and_exit_code_2(
    command: list[str], tmp_path: Path, arguments: list[str], line: str
) -> None:
    done = run(command, tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr == f"{line.format(here=tmp_path)} (see coro run --help)\n"


def test_an_option_that_it_does_not_have_is_refused(command: list[str], tmp_path: Path) -> None:
    done = run(command, tmp_path, "run", "hello", "--port", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_a_bug_shows_its_traceback(command: list[str], tmp_path: Path) -> None:
    done = run(command, tmp_path, "run", "hello:fails")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "ValueError: a bug" in done.stderr


def test_a_module_that_the_program_lacks_shows_where_it_is_imported(command: list[str], tmp_path: Path) -> None:
    done = run(command, tmp_path, "run", "broken")
    assert done.returncode == 1
    assert "broken.py" in done.stderr and "no_such_module" in done.stderr


def test_ctrl_c_ends_it_cleaned_up_and_quietly(command: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(
        [*command, "run", "hello:waits"], cwd=tmp_path, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, rest, errors) == (130, "cleaned up\n", "")


def test_version(command: list[str], tmp_path: Path) -> None:
    assert run(command, tmp_path, "--version").stdout == f"coro {coro.__version__}\n"


# --- A service that is stopped before it serves --------------------------------------------------

SERVICE = """
import os, signal
import coro
from coro.cli import Service

def prepare(options):
    yield from ()
    for number in signal.SIGTERM, signal.SIGINT:  # as if it had ended before the signal is passed on
        signal.signal(number, signal.SIG_IGN)
    os.kill(os.getppid(), int(os.environ["STOP_BY"]))

def serve(options, listener):
    print("serves", flush=True)
    yield from coro.sleep_forever()

main = Service(prepare=prepare, serve=serve, prefix="SERVICE", port=0)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_the_very_end_of_the_preparation_is_not_lost(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    monkeypatch.setenv("STOP_BY", str(int(number)))
    done = run(command, tmp_path, "run", "service", "--workers", "2")
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")
