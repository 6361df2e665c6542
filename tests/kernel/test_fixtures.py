"""Fixtures that are generator functions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import coro
from coro import Coro, Stream
from coro.testing import fixture, memory_streams, provide
from tests.kernel.support import environment
from tests.kernel.test_testing import run_pytest


@fixture
def answer() -> Coro[int]:
    yield from coro.sleep(40)
    return 42


@pytest.fixture
def word() -> str:
    return "hello"


@fixture
def echo(word: str) -> Coro[None]:
    """A server in memory that answers each line, after a word."""
    ours, theirs = memory_streams()

    def serve() -> Coro[None]:
        while line := (yield from theirs.read(100)):
            yield from theirs.write(word.encode() + b" " + line)

    def body(group: coro.TaskGroup) -> Coro[None]:
        group.spawn(serve())
        yield from provide(ours)
        ours.close()

    yield from coro.task_group(body)


def test_value_that_a_fixture_returns_is_passed(answer: int) -> Coro[None]:
    assert answer == 42
    assert coro.now() == 40  # in the same loop, and its time
    yield from coro.checkpoint()


def test_fixture_serves_beside_the_test_and_uses_ordinary_ones(echo: Stream) -> Coro[None]:
    yield from echo.write(b"world")
    assert (yield from echo.read(100)) == b"hello world"


class TestInAClass:
    @fixture
    def own(self, answer: int) -> Coro[tuple[object, int]]:
        yield from coro.checkpoint()
        return self, answer

    def test_method_can_be_a_fixture(self, own: tuple[object, int]) -> Coro[None]:
        yield from coro.checkpoint()
        assert own == (self, 42)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(number=st.integers(0, 3))  # type: ignore[arg-type]  # hypothesis knows functions and coroutines only
def test_every_example_has_a_fixture_of_its_own(number: int, answer: int) -> Coro[None]:
    assert coro.now() == 40
    yield from coro.sleep(number)


def test_what_is_no_generator_function_is_refused() -> None:
    with pytest.raises(TypeError, match="is no generator function: use pytest's own fixture for it"):
        fixture(len)  # type: ignore[arg-type]


def test_provide_outside_of_a_fixture_is_refused() -> Coro[None]:
    with pytest.raises(RuntimeError, match=r"provide\(\) is for generator functions that"):
        yield from provide(1)


HEAD = """
import coro, pytest
from coro.testing import fixture, provide

@fixture
def store():
    yield from provide("store")
    yield from coro.sleep(1)
    print("the store was closed")
"""


def run_tests(folder: Path, source: str) -> str:
    (folder / "test_it.py").write_text(HEAD + source)
    return run_pytest(folder)


def test_fixtures_are_made_once_for_a_test_and_end_in_the_opposite_order(tmp_path: Path) -> None:
    said = run_tests(tmp_path, """
@fixture(name="inner")
def any_name():
    print("[inner begins", end=", ")
    yield from provide("inner")
    yield from coro.sleep(1)
    print("inner ends]")

@fixture
def outer(inner):
    print("outer begins", end=", ")
    yield from provide(f"outer of {inner}")
    yield from coro.sleep(1)
    print("outer ends", end=", ")

def test_fails_to_show_what_it_printed(inner, outer):
    yield from coro.checkpoint()
    print(f"{inner} and {outer}", end=", ")
    assert False
""")  # fmt: skip
    assert "[inner begins, outer begins, inner and outer of inner, outer ends, inner ends]" in said


def test_fixture_ends_after_a_test_that_fails(tmp_path: Path) -> None:
    said = run_tests(tmp_path, """
def test_fails(store):
    yield from coro.sleep(1)
    assert store == "shop"
""")  # fmt: skip
    assert "1 failed" in said
    assert "AssertionError: assert 'store' == 'shop'" in said
    assert "the store was closed" in said


def test_fixture_ends_after_a_test_that_would_hang(tmp_path: Path) -> None:
    said = run_tests(tmp_path, "def test_hangs(store):\n    yield from coro.sleep_forever()\n")
    assert "Deadlock: every task waits" in said
    assert "the store was closed" in said


@pytest.mark.parametrize("moment", ["before", "after"])
def test_failure_of_a_fixture_is_the_tests_failure(tmp_path: Path, moment: str) -> None:
    provides = '    yield from provide("shop")\n' if moment == "after" else ""
    said = run_tests(tmp_path, f"""
@fixture
def shop(store):
{provides}    yield from coro.sleep(1)
    raise ValueError("the shop is shut")

def test_passes(shop):
    yield from coro.checkpoint()
""")
    assert "1 failed" in said
    assert "ValueError: the shop is shut" in said
    assert "in task 'fixture shop'" in said
    assert "the store was closed" in said


def test_test_that_is_no_generator_function_is_told(tmp_path: Path) -> None:
    said = run_tests(tmp_path, "def test_plain(store): pass\n")
    assert "TypeError: test_plain is no generator function, but uses <fixture 'store'" in said


def test_calls_that_are_never_driven_raise(tmp_path: Path) -> None:
    said = run_tests(tmp_path, "def test_forgets():\n    coro.sleep(1)\n    yield from coro.sleep(1)\n")
    assert "NotDriven: coro.sleep(...) is called but never driven" in said


def test_generator_in_a_unittest_is_told_instead_of_passed_without_being_run(tmp_path: Path) -> None:
    said = run_tests(tmp_path, """
import unittest
class TestOld(unittest.TestCase):
    def test_generator(self):
        yield from coro.sleep(1)
    def test_plain(self):
        pass
""")
    assert "1 passed, 1 error" in said
    assert "TypeError: test_generator is a generator function, which a unittest.TestCase cannot run" in said


def test_fixture_that_waits_but_is_pytests_is_told(tmp_path: Path) -> None:
    said = run_tests(tmp_path, """
@pytest.fixture
def waits():
    yield from coro.sleep(1)

def test_it(waits):
    yield from coro.checkpoint()
""")
    assert "TypeError: fixture 'waits' has to wait: decorate it with coro.testing.fixture, not pytest's" in said


def test_failing_test_with_fixtures_is_named(tmp_path: Path) -> None:
    said = run_tests(tmp_path, "def test_fails(store):\n    yield from coro.sleep(1)\n    assert False\n")
    assert "in task 'test_fails'" in said


def test_conftest_may_import_fixture_and_name_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "from coro.testing import fixture\nimport coro\npytest_plugins = ['coro.testing']\n"
        "@fixture\ndef one():\n    yield from coro.sleep(1)\n    return 1\n"
    )
    (tmp_path / "test_it.py").write_text("def test_one(one):\n    assert one == 1\n    yield from ()\n")
    command = [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "-c", os.devnull]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path)], env=environment(), capture_output=True, text=True
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
