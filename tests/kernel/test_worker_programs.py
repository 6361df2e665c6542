"""Whole programs that call worker processes, and how they end (coro/processes.py, coro/worker.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.programs import is_gone, leaves_no_descriptor_behind  # noqa: F401 (fixture)
from tests.kernel.support import CHECKOUT, PATIENCE, environment, python, start_python


def run_program(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=environment(), capture_output=True, text=True, timeout=PATIENCE, cwd=CHECKOUT
    )  # fmt: skip


# --- Whole programs --------------------------------------------------------------------------------------------------

GUARDED = """
import coro, enum, os, sys
class Colour(enum.Enum):
    RED = 1
def mix(colour):
    return colour, os.getpid()
def main():
    colour, pid = yield from coro.to_process(mix, Colour.RED)
    assert pid != os.getpid()
    print(colour is Colour.RED, sys.argv[1:])
if __name__ == "__main__":
    coro.run(main())
"""


def test_call_may_be_defined_in_the_main_program(tmp_path: Path) -> None:
    (tmp_path / "program").write_text(GUARDED)
    done = run_program(str(tmp_path / "program"), "argument")
    assert (done.stdout, done.stderr) == ("True ['argument']\n", "")
    assert os.listdir(tmp_path) == ["program"]


def test_call_may_be_defined_in_a_module_that_is_run(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(GUARDED)
    done = subprocess.run(
        [sys.executable, "-m", "package", "argument"], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("True ['argument']\n", "")


def test_main_program_without_a_guard_is_told_of_it(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(GUARDED.replace('if __name__ == "__main__":', "if True:"))
    done = run_program(str(tmp_path / "program.py"))
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("in task 'main'")
    assert "start the program's work below `if __name__ == '__main__':`" in done.stderr


def test_call_that_is_defined_in_no_file_is_an_error_that_says_so() -> None:
    done = python(GUARDED)
    assert "'mix' is defined in no file: move it to a module, to be imported" in done.stderr


def test_main_program_is_loaded_once_by_a_worker(tmp_path: Path) -> None:
    program = GUARDED.replace("print(", "yield from coro.to_process(mix, colour)\n    print(") + "print(__name__)"
    (tmp_path / "program.py").write_text(program)
    assert run_program(str(tmp_path / "program.py")).stdout == "__mp_main__\nTrue []\n__main__\n"


def test_call_of_the_main_program_may_use_processes_itself(tmp_path: Path) -> None:
    program = GUARDED.replace("return colour, os.getpid()", "return colour, coro.run(coro.to_process(os.getpid))")
    (tmp_path / "program.py").write_text(program)
    done = run_program(str(tmp_path / "program.py"))
    assert (done.stdout, done.stderr) == ("True []\n", "")


def test_main_program_is_not_run_for_calls_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("""
import coro, math
print("run")
if __name__ == "__main__":
    print(coro.run(coro.to_process(math.factorial, 5)))
""")
    assert run_program(str(tmp_path / "program.py")).stdout == "run\n120\n"


def test_workers_have_the_options_and_arguments_of_the_program() -> None:
    script = """
import coro
from tests.kernel.process_calls import options_and_arguments
print(coro.run(coro.to_process(options_and_arguments)))
"""
    done = run_program("-OO", "-W", "error", "-X", "dev", "-c", script, "argument")
    assert (done.stdout, done.stderr) == ("(2, ['-c', 'argument'])\n", "")


def test_call_has_no_input() -> None:
    script = """
import coro
from tests.kernel.process_calls import reads_stdin
print(repr(coro.run(coro.to_process(reads_stdin))), input())
"""
    assert python(script, input="the program's").stdout == "'' the program's\n"


def test_what_a_call_prints_appears_although_its_worker_is_killed() -> None:
    script = """
import coro, os, time
os.environ.pop("PYTHONUNBUFFERED", None)
def main():
    yield from coro.to_process(print, "printed")
    with coro.move_on_after(0.05):
        yield from coro.to_process(time.sleep, 3600)
coro.run(main())
"""
    done = python(script)
    assert (done.stdout, done.stderr, done.returncode) == ("printed\n", "", 0)


def test_program_that_fails_while_a_call_computes_ends_and_so_does_the_worker() -> None:
    script = """
import coro
def main():
    coro.background(coro.to_process(pow, 3, 10**10))
    yield from coro.sleep(0.2)
    raise LookupError
coro.run(main())
"""
    done = python(script)  # returns when the worker, too, has closed its end of the output
    assert (done.returncode, done.stderr.splitlines()[-2:]) == (1, ["LookupError", "in task 'main'"])


@pytest.mark.parametrize("call", ["pow, 3, 10**10", "input"])
def test_worker_does_not_outlive_a_program_that_is_killed(call: str) -> None:
    script = f"""
import coro, os, signal
def main():
    yield from coro.to_process(len, "started")
    if {call!r} != "input":
        coro.background(coro.to_process({call}))
        yield from coro.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)
coro.run(main())
"""
    assert python(script).returncode == -signal.SIGKILL  # returns when the worker, too, has closed its output


def test_second_ctrl_c_ends_a_program_whose_call_is_stuck_and_its_worker() -> None:
    process = start_python("""
import coro
def main():
    try:
        print("ready")
        yield from coro.sleep_forever()
    finally:
        with coro.shield():
            yield from coro.to_process(exec, "print('computing', flush=True)\\nwhile True: pass")
coro.run(main())
""")
    assert process.stdout is not None
    for expected in "ready\n", "computing\n":
        assert process.stdout.readline() == expected
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)  # returns when the worker, too, has closed its output
    assert process.returncode == -signal.SIGINT
