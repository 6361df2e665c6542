"""The watchdog: what holds the loop up, and deadlocks, on the real command line; and what it advises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.debug.support import PATIENCE, Place, line_of
from tests.services import CHECKOUT


def test_a_blocking_call_is_named_while_it_blocks(place: Place) -> None:
    with place.running("--watchdog", "0.1", "known:blocks") as program:
        text = program.read_errors(end="blocks every task")
    assert "task 'blocks' has held up the loop for " in text
    assert line_of("blocks") in text
    assert "time.sleep blocks every task: use `yield from coro.sleep(seconds)`" in text


def test_a_call_that_lets_no_other_thread_run_is_named_when_it_ends(place: Place) -> None:
    """Each is the whole of its step, so that it was not seen before the call."""
    with place.running("--watchdog", "0.02", "known:keeps_the_interpreter") as program:
        text = program.read_errors(end="builtins.sum keeps every other task from running")
    assert "task 'keeps_the_interpreter' has held up the loop for " in text
    assert "s, in a call that let no other thread run, and ends now:" in text
    assert line_of("keeps") in text


def test_each_culprit_is_named_once(place: Place) -> None:
    with place.running("--watchdog", "0.05", "known:blocks_often") as program:
        assert program.process.wait(PATIENCE) == 0
        text = program.stderr.read()
    assert text.count("blocks every task") == 2
    assert line_of("once") in text and line_of("again") in text


def test_a_circle_is_told_when_nothing_can_wake_it(place: Place) -> None:
    with place.running("--watchdog", "1", "known:locked") as program:
        text = program.read_errors(end=line_of("second"))
    assert "deadlock: every task waits, and nothing can wake any of them" in text
    assert "deadlock: task 2 -> task 3 -> task 2" in text
    assert line_of("first") in text


def test_a_wake_up_that_was_lost_is_told_with_who_waits_for_it(place: Place) -> None:
    with place.running("--watchdog", "1", "known:lost_wake_up") as program:
        text = program.read_errors(end=line_of("lost_wake_up"))
        assert "waiting for an Event" in text
        os.kill(program.pid, signal.SIGINT)
        program.process.wait(PATIENCE)
        assert program.stderr.read() == ""  # told once


def test_waiting_for_a_signal_is_no_deadlock(place: Place) -> None:
    with place.running("--watchdog", "1", "known:signalled") as program:
        os.kill(program.pid, signal.SIGTERM)
        assert program.process.wait(PATIENCE) == 0
        assert program.stderr.read() == ""


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("sleeps", "time.sleep blocks every task: use `yield from coro.sleep"),
        ("sleeps_by_another_name", "time.sleep blocks every task"),
        ("receives", "`coro.connect` or `coro.listen`"),
        ("hashes", "`yield from coro.to_thread(function, ...)`"),
        ("runs", "coro.run_process"),
    ],
)
def test_advice(function: str, says: str) -> None:
    """In a process of its own, which does not wait for what blocks."""
    program = [sys.executable, "-m", "tests.debug.blocked", function]
    with subprocess.Popen(program, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for said in process.stdout:
            if says in said:
                break
            assert "keeps every other task" in said  # the thread had not come to the call yet
        process.kill()
    assert says in said
