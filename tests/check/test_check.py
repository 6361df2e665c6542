"""`coro check`: what it reports, what it leaves alone, and what it tells when it cannot know.

A line of an example that is to be reported ends with `#!` and the mend, every other line must not be. All examples
are checked in one run of the real thing; each test looks at its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from coro import check
from tests.check.examples import EXAMPLES

CHECKOUT = Path(__file__).resolve().parent.parent.parent
CHECK = "import sys; from coro.check import main; sys.exit(main(sys.argv[1:]))"

PROLOGUE = """\
from __future__ import annotations
import coro
from collections.abc import Callable, Generator, Iterator
from typing import Any, NoReturn
from coro import Coro

def save(x: object = 0) -> Coro[None]:
    yield from coro.sleep(1)

def load(x: object = 0) -> Coro[bool]:
    yield from coro.sleep(1)
    return True

def plain(x: object = 0) -> int:
    return 1

"""


def path_of(example: str) -> str:
    return example.replace(" ", "_").replace("/", "_").replace(":", "") + ".py"


def run(folder: Path, *paths: str) -> subprocess.CompletedProcess[str]:
    """Check as a user does, from the folder."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MYPY"))}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", CHECK, *paths],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(CHECKOUT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def write(folder: Path, **sources: str) -> None:
    for name, source in sources.items():
        Path(folder, f"{name}.py").write_text(PROLOGUE + dedent(source))


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What is printed of all examples."""
    folder = tmp_path_factory.mktemp("examples")
    for example, source in EXAMPLES.items():
        Path(folder, path_of(example)).write_text(PROLOGUE + dedent(source))
    done = run(folder, ".")
    assert done.stderr == f"coro: {len(EXAMPLES)} checked, {len(done.stdout.splitlines())} found\n"
    return done.stdout.splitlines()


@pytest.mark.parametrize("example", EXAMPLES)
def test_reports_exactly_these_lines_with_their_mends(example: str, reported: list[str]) -> None:
    lines = (PROLOGUE + dedent(EXAMPLES[example])).split("\n")
    wanted = [(n, line.partition("#! ")[2]) for n, line in enumerate(lines, 1) if "#! " in line]
    found = []
    for line in reported:
        path, number, message = line.split(":", 2)
        if path == path_of(example):
            mend = re.search("write `(.*)`$", message)
            assert mend is not None, line
            found.append((int(number), mend[1]))
    assert found == wanted


def test_says_where_what_is_wrong_and_how_to_mend_it(tmp_path: Path) -> None:
    write(tmp_path, program="def work() -> None:\n    save(1)\n")
    line = (PROLOGUE + "def work() -> None:\n    save(1)").count("\n") + 1
    wrong = "save(...) is called but never driven, so nothing of it runs"
    assert run(tmp_path, "program.py").stdout == f"program.py:{line}: {wrong}: write `yield from save(...)`\n"


def test_exit_code_tells_whether_something_was_found(tmp_path: Path) -> None:
    write(tmp_path, good="def work() -> Coro[None]:\n    yield from save(1)\n", bad="save(1)\n")
    assert run(tmp_path, "bad.py").returncode == 1
    done = run(tmp_path, "good.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "coro: 1 checked, nothing found\n")


def test_second_run_answers_from_the_cache_alike(tmp_path: Path) -> None:
    write(tmp_path, one="save(1)\n", two="if load():\n    save(2)\n")
    first = run(tmp_path, ".")
    assert len(first.stdout.splitlines()) == 3
    assert run(tmp_path, ".").stdout == first.stdout


def test_mend_is_seen_at_the_next_run(tmp_path: Path) -> None:
    write(tmp_path, program="def work() -> Coro[None]:\n    save(1)\n    yield from save(1)\n")
    assert run(tmp_path, ".").returncode == 1
    write(tmp_path, program="def work() -> Coro[None]:\n    yield from save(1)\n    yield from save(1)\n")
    assert run(tmp_path, ".").returncode == 0


def test_sees_into_modules_that_are_not_checked_but_does_not_report_them(tmp_path: Path) -> None:
    write(tmp_path, store="save(1)\nif load(): pass\n")
    Path(tmp_path, "program.py").write_text("import store\n\nstore.save(1)\n")
    assert [line.partition(": ")[0] for line in run(tmp_path, "program.py").stdout.splitlines()] == ["program.py:3"]


def test_packages_and_folders_are_walked_but_not_environments_and_hidden_ones(tmp_path: Path) -> None:
    for name in ("package/inner", "venv/lib", ".hidden"):
        Path(tmp_path, name).mkdir(parents=True)
        write(tmp_path / name, program="save(1)\n")
    Path(tmp_path, "venv", "pyvenv.cfg").touch()
    Path(tmp_path, "package", "__init__.py").touch()
    Path(tmp_path, "package", "inner", "__init__.py").touch()
    done = run(tmp_path, ".", "package", "package/inner/program.py")
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["package/inner/program.py"]


def test_paths_are_shown_as_they_were_given(tmp_path: Path) -> None:
    write(tmp_path, program="save(1)\nif load(): pass\n")
    done = run(tmp_path, str(tmp_path))
    assert {line.partition(":")[0] for line in done.stdout.splitlines()} == {str(tmp_path / "program.py")}
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8-sig"])
def test_source_files_have_the_encoding_they_declare(tmp_path: Path, encoding: str) -> None:
    head = "# -*- coding: latin-1 -*-\n" if encoding == "latin-1" else ""
    text = f"{head}{PROLOGUE}größe = 'äöü'; save(größe)\n"
    Path(tmp_path, "program.py").write_text(text, encoding=encoding)
    assert run(tmp_path, ".").stdout.startswith(f"program.py:{text.count(chr(10))}: save(...)")


def test_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    Path(tmp_path, "program.py").write_bytes((PROLOGUE + "save(\n 1)\n").replace("\n", "\r\n").encode())
    assert run(tmp_path, ".").stdout.startswith(f"program.py:{PROLOGUE.count(chr(10)) + 1}: save(...)")


def test_configuration_of_mypy_holds(tmp_path: Path) -> None:
    Path(tmp_path, "src").mkdir()
    write(tmp_path / "src", store="")
    Path(tmp_path, "mypy.ini").write_text("[mypy]\nmypy_path = src\npretty = true\nshow_absolute_path = true\n")
    Path(tmp_path, "program.py").write_text("import store\n\nstore.save(1)\n")
    assert run(tmp_path, "program.py").stdout.startswith("program.py:3: store.save(...) is called")


def test_cache_of_ordinary_runs_of_mypy_is_not_touched(tmp_path: Path) -> None:
    write(tmp_path, program="save(1)\n")
    run(tmp_path, ".")
    assert [path.name for path in Path(tmp_path, ".mypy_cache").iterdir()] == ["coro-check"]


def test_coro_is_found_wherever_python_found_it(tmp_path: Path) -> None:
    """As in an editable install, where no list of folders leads to it."""
    write(tmp_path, program="save(1)\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MYPY"))}
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({str(CHECKOUT)!r}); {CHECK}", "program.py"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "coro: 1 checked, 1 found\n")


def test_modules_of_the_working_directory_do_not_disturb_mypy(tmp_path: Path) -> None:
    write(tmp_path, program="save(1)\n")
    Path(tmp_path, "json.py").write_text("raise AssertionError\n")
    Path(tmp_path, "json").mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MYPY"))}
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHECK, "program.py"],
        cwd=tmp_path,
        env={**clean, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "coro: 1 checked, 1 found\n")


# --- What cannot be known ---------------------------------------------------------------


def test_module_that_mypy_does_not_find_is_told(tmp_path: Path) -> None:
    Path(tmp_path, "program.py").write_text("import nowhere\n\nnowhere.save(1)\n")
    done = run(tmp_path, ".")
    assert done.returncode == 0
    assert done.stderr.startswith("coro: program.py:1: calls into this module are not judged: ")
    assert '"nowhere"' in done.stderr


def test_file_that_mypy_is_told_to_ignore_is_told(tmp_path: Path) -> None:
    write(tmp_path, program="save(1)\n")
    Path(tmp_path, "mypy.ini").write_text("[mypy]\n[mypy-program]\nignore_errors = true\n")
    done = run(tmp_path, ".")
    assert done.returncode == 0
    assert done.stderr.startswith("coro: program.py: not judged: mypy says nothing of this file")


def test_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    done = run(tmp_path, "nowhere.py")
    assert (done.returncode, done.stderr) == (2, "coro: there is no file or folder 'nowhere.py'\n")


def test_file_with_a_syntax_error_is_an_error(tmp_path: Path) -> None:
    Path(tmp_path, "program.py").write_text("x = 1\ndef work(:\n")
    done = run(tmp_path, ".")
    assert (done.returncode, done.stderr) == (2, "coro: program.py:2: invalid syntax\n")


def test_file_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    Path(tmp_path, "program.py").write_bytes(b"x = 1\nx = '\xff'\n")
    done = run(tmp_path, ".")
    assert done.returncode == 2
    assert done.stderr.startswith("coro: program.py cannot be read: ")
    assert done.stderr.count("\n") == 1


def test_mypy_that_gives_up_is_an_error_with_its_reason(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Path(tmp_path, name).mkdir()
        write(tmp_path / name, program="save(1)\n")
    done = run(tmp_path, ".")
    assert done.returncode == 2
    assert done.stderr.startswith("coro: mypy gave up: ")
    assert 'Duplicate module named "program"' in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_mypy_one_line_tells_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mypy", None)
    assert check.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "coro: `coro check` needs mypy: install it next to coro, with `python -m pip install mypy`\n"
    )


def test_nothing_to_check_is_fine(tmp_path: Path) -> None:
    done = run(tmp_path, ".")
    assert (done.returncode, done.stderr) == (0, "coro: 0 checked, nothing found\n")
