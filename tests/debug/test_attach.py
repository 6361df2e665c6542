"""What `coro ps` and `coro top` say of a process is true also when one of the two is slow, or ends meanwhile."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from coro.debug import attach, client
from coro.debug.attach import AttachError, HeldUpError
from tests.debug.support import PATIENCE, Place

SLEEPER = [sys.executable, "-c", "print('on', flush=True); input()"]


def run_program(place: Place, program: str) -> str:
    """What it prints, when all went well."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=place.path, env=place.environment, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_who_comes_just_as_the_socket_is_closed_is_let_in(place: Place) -> None:
    done = place.coro("run", "known:comes_as_the_socket_is_closed")
    assert (done.returncode, done.stderr) == (0, "")
    assert "'comes_as_the_socket_is_closed'" in done.stdout


def test_a_process_that_has_just_ended_is_not_sent_the_signal(tmp_path: Path) -> None:
    """Its marker was there a moment ago; now another process may have its number."""
    with subprocess.Popen(SLEEPER, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(AttachError, match=f"process {process.pid} has just ended"):
            client._connect(tmp_path, process.pid)
        process.communicate(b"\n")
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_marker_that_is_being_written_is_not_cleared_away(place: Place) -> None:
    program = """
import os
from coro.debug import attach, client

def look_and_open(path, flags):
    fd = os.open(path, flags, 0o600)
    assert list(client.markers()) == []
    return fd

attach._private = look_and_open
with attach.attachable("it"):
    print([marker.name for marker in client.markers()])
"""
    assert run_program(place, program) == "['it']\n"
    assert list((place.runtime / "coro").iterdir()) == []


def test_the_last_descriptor_is_not_taken_to_listen_for_whom_there_would_be_none(place: Place) -> None:
    program = """
import known, os
from coro.debug import attach
known.use_up_descriptors(but=1)
try:
    attach._listen("socket")
except OSError as error:
    print(error.strerror, os.path.exists("socket"))
os.close(os.dup(0))  # it is there still
"""
    assert run_program(place, program) == "Too many open files False\n"


def test_half_an_answer_is_of_a_process_that_has_ended() -> None:
    with pytest.raises(AttachError, match="process 1 has ended, or has closed the connection"):
        client.answer(io.StringIO('{"text": "proc'), 1)


def test_who_reads_tables_may_go(place: Place) -> None:
    with place.running("known:busy") as program:
        with place.top(program.pid) as (top, out, errors):
            out.readline()
            out.close()
            assert (top.wait(PATIENCE), errors.read()) == (0, "")
        assert program.process.poll() is None


# --- A loop that does not answer at once -----------------------------------------------------


class SlowLoop:
    """Does what is posted when it has been looked at for so many times. `steps` are what is seen then."""

    current = None
    selector = SimpleNamespace(get_map=dict)

    def __init__(self, monkeypatch: pytest.MonkeyPatch, looks: int, steps: list[tuple[object, object]]) -> None:
        self._looks, self._steps = looks, steps
        self._seen = 0
        self._posted: list[Callable[[], None]] = []
        monkeypatch.setattr(attach, "LOOK", 0.0)
        monkeypatch.setattr(attach, "step_of", self._look)
        monkeypatch.setattr(attach._desk, "loop", self)

    def post(self, action: Callable[[], None]) -> None:
        self._posted.append(action)

    def _look(self, frame: object) -> tuple[object, object]:
        self._seen += 1
        if self._seen == self._looks:
            self._posted.pop()()
        return self._steps[self._seen % len(self._steps)]


BATCH, ONE, OTHER = object(), object(), object()


@pytest.mark.parametrize(
    "steps",
    [[(None, None)], [(BATCH, ONE), (BATCH, OTHER)], [(BATCH, ONE), (None, None)]],
    ids=["waits for the processor", "makes one step after another", "makes a step a turn"],
)
def test_a_loop_that_is_only_slow_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[object, object]]
) -> None:
    SlowLoop(monkeypatch, attach.MOST_LOOKS - 1, steps)
    assert attach._desk.in_loop(lambda loop: "answers") == "answers"


@pytest.mark.parametrize(("steps", "looks"), [([(BATCH, ONE)], attach.SAME_LOOKS), ([(None, None)], attach.MOST_LOOKS)])
def test_a_loop_that_stays_where_it_is_is_held_up(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[object, object]], looks: int
) -> None:
    SlowLoop(monkeypatch, looks + 2, steps)
    with pytest.raises(HeldUpError, match="the loop is held up"):
        attach._desk.in_loop(lambda loop: "answers")


def test_a_loop_that_takes_long_over_its_answer_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the tree of very many tasks."""
    loop = SlowLoop(monkeypatch, 0, [(BATCH, ONE)])
    begun = threading.Event()
    threads: list[threading.Thread] = []

    def post(action: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=action))
        threads[0].start()
        begun.wait()

    def slow(loop: object) -> str:
        begun.set()
        time.sleep(0.05)  # it is looked at very often meanwhile
        return "answers"

    monkeypatch.setattr(loop, "post", post)
    assert attach._desk.in_loop(slow) == "answers"
    threads[0].join()
