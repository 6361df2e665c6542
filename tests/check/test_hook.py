"""A call that is never driven, found at run time: which modules the import hook changes, and which stay as they are."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from textwrap import dedent

import pytest

from coro import undriven

CHECKOUT = Path(__file__).resolve().parent.parent.parent
INSTALL = "import coro.undriven; coro.undriven.install();"
RUN = f"{INSTALL} import sys, coro.cli; sys.exit(coro.cli.main(sys.argv[1:]))"

SAVE = """
import coro

def save(x):
    yield from coro.sleep(0)
"""


def python(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, as a user does, with warnings as errors."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(CHECKOUT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def write(folder: Path, **sources: str) -> None:
    """Source files by the names of their modules."""
    for name, source in sources.items():
        Path(folder, f"{name}.py").write_text(dedent(source))


def mistake(done: subprocess.CompletedProcess[str]) -> str:
    """The error that a program ended with; "" if it ended well."""
    if done.returncode == 0:
        return ""
    return next((line for line in done.stderr.splitlines() if "NotDriven" in line), done.stderr)


def compiled(folder: Path) -> set[str]:
    return {path.name for path in Path(folder, "__pycache__").iterdir()}


# --- The import hook --------------------------------------------------------------------


def test_coro_run_ends_at_the_mistake(tmp_path: Path) -> None:
    write(tmp_path, program=SAVE + "def main():\n    save(1)\n    yield from coro.sleep(0)\n")
    done = python(tmp_path, "-c", RUN, "run", "program")
    assert done.returncode == 1
    frames = [line for line in done.stderr.splitlines() if line.startswith("  File")]
    assert frames[-1] == f'  File "{tmp_path}/program.py", line 7, in main'
    assert "NotDriven: save(...) is called but never driven" in done.stderr


def test_without_the_hook_nothing_is_said(tmp_path: Path) -> None:
    write(tmp_path, program=SAVE + "def main():\n    save(1)\n    yield from coro.sleep(0)\n")
    done = python(tmp_path, "-c", "import program, coro; coro.run(program.main())")
    assert (done.returncode, done.stderr) == (0, "")


def test_both_ways_of_compiling_have_files_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, program=SAVE + "save(1)\n")
    for _ in range(2):
        assert mistake(python(tmp_path, "-c", "import program")) == ""
        assert "NotDriven" in mistake(python(tmp_path, "-c", f"{INSTALL} import program"))
    tag = sys.implementation.cache_tag
    assert compiled(tmp_path) == {f"program.{tag}.pyc", f"program.{tag}.{undriven.TAG}.pyc"}


def test_ordinary_compiled_file_is_not_taken_for_a_rewritten_one(tmp_path: Path) -> None:
    write(tmp_path, program=SAVE + "save(1)\n")
    assert mistake(python(tmp_path, "-c", "import program")) == ""
    assert "NotDriven" in mistake(python(tmp_path, "-c", f"{INSTALL} import program"))


def test_optimized_code_has_files_of_its_own_too(tmp_path: Path) -> None:
    write(tmp_path, program=SAVE + "assert False\nsave(1)\n")
    assert "NotDriven" in mistake(python(tmp_path, "-O", "-c", f"{INSTALL} import program"))
    assert python(tmp_path, "-c", f"{INSTALL} import program").stderr.splitlines()[-1] == "AssertionError"


def test_module_is_compiled_once(tmp_path: Path) -> None:
    write(tmp_path, program="print(1)\n")
    python(tmp_path, "-c", f"{INSTALL} import program")
    [file] = Path(tmp_path, "__pycache__").iterdir()
    before = file.stat()
    assert python(tmp_path, "-c", f"{INSTALL} import program").stdout == "1\n"
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_changed_module_is_compiled_anew(tmp_path: Path) -> None:
    write(tmp_path, program="print(1)\n")
    python(tmp_path, "-c", f"{INSTALL} import program")
    write(tmp_path, program="print(1234)\n")
    assert python(tmp_path, "-c", f"{INSTALL} import program").stdout == "1234\n"


def test_nothing_is_written_where_python_is_told_not_to(tmp_path: Path) -> None:
    write(tmp_path, program="print(1)\n")
    python(tmp_path, "-B", "-c", f"{INSTALL} import program")
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]


def test_compiled_files_follow_the_cache_prefix(tmp_path: Path) -> None:
    Path(tmp_path, "work").mkdir()
    write(tmp_path / "work", program="print(1)\n")
    python(tmp_path / "work", "-c", f"{INSTALL} import program", PYTHONPYCACHEPREFIX=str(tmp_path / "cache"))
    assert [path.name for path in Path(tmp_path, "work").iterdir()] == ["program.py"]
    assert len(list(Path(tmp_path, "cache").rglob(f"program.*.{undriven.TAG}.pyc"))) == 1


def test_modules_of_the_user_are_covered_and_no_others(tmp_path: Path) -> None:
    assert undriven.written_by_user(str(tmp_path / "program.py"))
    assert undriven.written_by_user(str(CHECKOUT / "apps" / "upload" / "app.py"))
    assert not undriven.written_by_user(str(CHECKOUT / "coro" / "loop.py"))
    assert not undriven.written_by_user(ast.__file__)
    assert not undriven.written_by_user(pytest.__file__)
    assert not undriven.written_by_user(str(tmp_path / "lib" / "site-packages" / "program.py"))


def test_installed_packages_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    write(folder, program=SAVE + "save(1)\n")
    code = f"{INSTALL} import sys; sys.path.append('site-packages'); import program"
    assert mistake(python(tmp_path, "-c", code)) == ""


def test_predicate_says_which_files_are_covered(tmp_path: Path) -> None:
    write(tmp_path, one=SAVE + "save(1)\n", two=SAVE + "save(1)\n")
    install = "import coro.undriven; coro.undriven.install(lambda path: path.endswith('two.py'));"
    assert mistake(python(tmp_path, "-c", f"{install} import one")) == ""
    assert "NotDriven" in mistake(python(tmp_path, "-c", f"{install} import two"))


def test_second_install_replaces_the_first(tmp_path: Path) -> None:
    write(tmp_path, program=SAVE + "save(1)\n")
    again = f"{INSTALL} coro.undriven.install(lambda path: False);"
    assert mistake(python(tmp_path, "-c", f"{again} import program")) == ""
    assert mistake(python(tmp_path, "-c", f"{again} coro.undriven.uninstall(); import program")) == ""


def test_uninstall_ends_it(tmp_path: Path) -> None:
    write(tmp_path, program=SAVE + "save(1)\n")
    done = python(tmp_path, "-c", f"{INSTALL} coro.undriven.uninstall(); coro.undriven.uninstall(); import program")
    assert mistake(done) == ""


def test_reloaded_module_is_covered_again(tmp_path: Path) -> None:
    write(tmp_path, program=SAVE + "if 'again' in globals():\n    save(1)\nagain = True\n")
    done = python(tmp_path, "-c", f"{INSTALL} import program, importlib; importlib.reload(program)")
    assert "NotDriven" in mistake(done)


def test_module_that_is_run_by_name_is_covered(tmp_path: Path) -> None:
    write(tmp_path, program=SAVE + "if __name__ == '__main__':\n    save(1)\n")
    done = python(tmp_path, "-c", f"{INSTALL} import runpy; runpy.run_module('program', run_name='__main__')")
    assert "NotDriven" in mistake(done)


def test_import_star_takes_only_the_modules_own_names(tmp_path: Path) -> None:
    write(tmp_path, one="print()\nvalue = 1\n", two="from one import *\n")
    done = python(tmp_path, "-c", f"{INSTALL} import two; print([name for name in vars(two) if name[:2] != '__'])")
    assert done.stdout == "\n['value']\n"


def test_packages_and_their_modules_are_covered(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    write(folder, __init__="from package.part import work\n", part=SAVE + "def work():\n    save(1)\n")
    assert "NotDriven" in mistake(python(tmp_path, "-c", f"{INSTALL} import package; package.work()"))


def test_namespace_packages_stay_what_they_are(tmp_path: Path) -> None:
    for part in ("one", "two"):
        folder = tmp_path / part / "shared"
        folder.mkdir(parents=True)
        write(folder, **{part: SAVE + "def work():\n    save(1)\n"})
    look = "import sys; sys.path += ['one', 'two']; import shared.one, shared.two; print(len(shared.__path__));"
    assert python(tmp_path, "-c", INSTALL + look).stdout == "2\n"
    assert "NotDriven" in mistake(python(tmp_path, "-c", f"{INSTALL} {look} shared.two.work()"))


def test_modules_in_archives_are_left_alone(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("program.py", SAVE + "save(1)\n")
    done = python(
        tmp_path, "-c", f"{INSTALL} import sys; sys.path.append('archive.zip'); import program; print(program.__file__)"
    )
    assert done.stdout == "archive.zip/program.py\n"


def test_finders_of_others_are_asked_as_before(tmp_path: Path) -> None:
    """As editable installs use them: what they find in a source file is covered as well."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    write(folder, program=SAVE + "save(1)\n")
    write(
        tmp_path,
        finder="""
            import importlib.util, sys
            class Finder:
                def find_spec(self, name, path=None, target=None):
                    if name == "program":
                        return importlib.util.spec_from_file_location(name, "elsewhere/program.py")
            sys.meta_path.insert(0, Finder())
        """,
    )
    assert "NotDriven" in mistake(python(tmp_path, "-c", f"import finder; {INSTALL} import program"))
    assert mistake(python(tmp_path, "-c", f"{INSTALL} import finder, program")) == ""  # in front: its own affair


def test_loaders_of_others_stay(tmp_path: Path) -> None:
    write(tmp_path, program=SAVE + "save(1)\n")
    write(
        tmp_path,
        finder="""
            import importlib.machinery, importlib.util, sys
            class Loader(importlib.machinery.SourceFileLoader): pass
            class Finder:
                def find_spec(self, name, path=None, target=None):
                    if name == "program":
                        return importlib.util.spec_from_file_location(name, loader=Loader(name, "program.py"))
            sys.meta_path.insert(0, Finder())
        """,
    )
    done = python(tmp_path, "-c", f"import finder; {INSTALL} import program; print(type(program.__loader__).__name__)")
    assert done.stdout == "Loader\n"


def test_syntax_errors_are_told_as_without_it(tmp_path: Path) -> None:
    write(tmp_path, program="def work(:\n    pass\n")
    plain = python(tmp_path, "-c", "import program").stderr.splitlines()
    hooked = python(tmp_path, "-c", f"{INSTALL} import program").stderr.splitlines()
    assert len(plain) >= 4
    assert hooked[-4:] == plain[-4:]
    assert "ast.py" not in "\n".join(hooked)
    assert "During handling" not in "\n".join(hooked)


def test_mistakes_that_only_the_compiler_sees_are_told_as_without_it(tmp_path: Path) -> None:
    write(tmp_path, program="print(1)\nreturn\n")
    plain = python(tmp_path, "-c", "import program").stderr.splitlines()
    assert python(tmp_path, "-c", f"{INSTALL} import program").stderr.splitlines()[-3:] == plain[-3:]
    assert "'return' outside function" in plain[-1]


def test_what_python_can_compile_can_be_imported_however_deeply_it_is_nested(tmp_path: Path) -> None:
    write(tmp_path, program="print(1)\nvalue = " + "+".join(["1"] * 1500) + "\n")
    done = python(tmp_path, "-c", f"{INSTALL} import program; print(program.value)")
    assert done.stdout == "1\n1500\n"


def test_warnings_of_the_compiler_come_once(tmp_path: Path) -> None:
    write(tmp_path, program="1 is 1\nprint('\\d')\n")
    code = f"import warnings; warnings.simplefilter('always'); {INSTALL} import program"
    done = python(tmp_path, "-W", "always", "-c", code)
    assert done.stderr.count("Warning:") == 2


def test_source_is_shown_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path, program="def work():\n    print(1)  # so\n")
    done = python(tmp_path, "-c", f"{INSTALL} import program, inspect; print(inspect.getsource(program.work))")
    assert done.stdout == "def work():\n    print(1)  # so\n\n"


# --- pytest and doctest -----------------------------------------------------------------

TEST = (
    SAVE
    + """
def test_undriven():
    save(1)

def test_assertion():
    value = [1, 2]
    assert value == [1, 3]
"""
)


def run_pytest(folder: Path, *arguments: str, hook: bool = True) -> subprocess.CompletedProcess[str]:
    write(folder, plugin=INSTALL)
    Path(folder, "pytest.ini").write_text("[pytest]\n")
    plugin = ["-p", "plugin"] if hook else []
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{folder}"}
    return python(folder, "-m", "pytest", *plugin, "-p", "no:cacheprovider", *arguments, **environment)


@pytest.mark.parametrize("mode", ["prepend", "importlib"])
def test_test_modules_are_covered_and_their_assertions_explained(tmp_path: Path, mode: str) -> None:
    write(tmp_path, test_program=TEST)
    said = run_pytest(tmp_path, f"--import-mode={mode}").stdout
    assert "2 failed" in said
    assert "NotDriven: save(...) is called but never driven" in said
    assert "At index 1 diff: 2 != 3" in said


def test_report_points_at_the_statement_and_at_nothing_of_coro(tmp_path: Path) -> None:
    write(tmp_path, test_program=TEST)
    said = run_pytest(tmp_path, "-k", "undriven").stdout
    assert ">       save(1)" in said
    assert "test_program.py:8: NotDriven" in said
    assert "undriven.py" not in said


def test_modules_under_test_and_conftest_are_covered(tmp_path: Path) -> None:
    write(
        tmp_path,
        program=SAVE + "def work():\n    save(1)\n",
        conftest=SAVE + "import pytest\n\n@pytest.fixture\ndef value():\n    save(2)\n",
        test_program="import program\ndef test_work(): program.work()\ndef test_fixture(value): pass\n",
    )
    said = run_pytest(tmp_path).stdout
    assert "1 failed, 1 error" in said
    assert "program.py:7: NotDriven" in said
    assert "conftest.py:10: NotDriven" in said


def test_installed_plugins_of_pytest_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    write(folder, installed=SAVE + "save(1)\n")
    write(tmp_path, conftest="import sys\nsys.path.append('site-packages')\npytest_plugins = ['installed']\n")
    write(tmp_path, test_program="import installed\ndef test_it(): assert 'pytest' in repr(installed.__loader__)\n")
    assert "1 passed" in run_pytest(tmp_path).stdout


def test_what_pytest_compiles_without_it_stays_apart(tmp_path: Path) -> None:
    write(tmp_path, test_program=TEST)
    for _ in range(2):
        assert "1 failed, 1 passed" in run_pytest(tmp_path, hook=False).stdout
        assert "2 failed" in run_pytest(tmp_path).stdout


def test_plain_assertions_are_no_obstacle(tmp_path: Path) -> None:
    write(tmp_path, test_program=TEST)
    said = run_pytest(tmp_path, "--assert=plain").stdout
    assert "NotDriven: save(...) is called but never driven" in said
    assert "2 failed" in said


def test_unknown_pytest_is_told(tmp_path: Path) -> None:
    write(tmp_path, program=SAVE + "save(1)\n")
    strange = "import sys, types; sys.modules['_pytest.assertion.rewrite'] = types.ModuleType('rewrite');"
    done = python(tmp_path, "-W", "always", "-c", f"{strange} {INSTALL} import program")
    assert "this version of pytest is new to coro: test modules are not checked" in done.stderr
    assert "NotDriven" in mistake(done)


def test_doctests_run_as_before(tmp_path: Path) -> None:
    write(
        tmp_path,
        program='''
            def work():
                """
                >>> work()
                1
                """
                print(1)
        ''',
    )
    assert "1 passed" in run_pytest(tmp_path, "--doctest-modules", "program.py").stdout
    code = f"{INSTALL} import doctest, program; print(doctest.testmod(program))"
    assert python(tmp_path, "-c", code).stdout == "TestResults(failed=0, attempted=1)\n"
