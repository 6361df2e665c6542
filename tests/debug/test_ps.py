"""`coro ps`, SIGUSR1, and who may attach, on the real command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

import coro
from coro import Coro
from coro.debug import attach
from coro.debug.client import _connect as connect
from tests.debug.support import PATIENCE, Place, line_of
from tests.services import MariaDBServer

# The interpreter itself may be where only root can look.
AS_NOBODY = """
import os, sys
import coro.cli
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
"""


def test_the_tree_of_a_known_program(place: Place) -> None:
    with place.running("known:tree") as program:
        port = program.printed[0]
        shown = place.coro("ps", program.pid)
    text = shown.stdout
    assert (shown.returncode, shown.stderr) == (0, "")
    assert text.startswith(f"process {program.pid}: 6 tasks, 0 ready, ")
    lines = [line.strip() for line in text.splitlines()]
    heads = [line.partition(",")[0] for line in lines if line.startswith(("task ", "group "))]
    assert heads == [
        "task 1 'tree'", "group 'all'", "task 2 'family'", "group 'kin'", "task 3 'the holder'", "task 4 'waiter'",
        "task 5 'reads'", "task 6 'opens'",
    ]  # fmt: skip
    assert f":{port}\n" in text and "waiting for readable fd " in text
    assert "waiting for thread: open fifo" in text
    assert "waiting for sleep until +9" in text
    assert "waiting for a Lock held by task 3" in text
    for name in "holder", "waiter", "reads", "tree":
        assert line_of(name) in text


def test_the_same_as_json(place: Place) -> None:
    with place.running("known:tree") as program:
        tasks = json.loads(place.coro("ps", program.pid, "--json").stdout)["tasks"]
    waiter = next(task for task in tasks if task["name"] == "waiter")
    assert [tasks[number - 1]["name"] for number in waiter["held_by"]] == ["the holder"]


def test_two_tasks_that_lock_each_other_out(place: Place) -> None:
    with place.running("known:locked_while_others_go_on") as program:
        text = place.coro("ps", program.pid).stdout
    circle = text[text.index("deadlock: task 2 -> task 3 -> task 2") :]
    assert "a Lock held by task 3" in circle and line_of("first") in circle
    assert "a Lock held by task 2" in circle and line_of("second") in circle


def test_a_loop_that_is_held_up_is_said_to_be_and_by_what(place: Place) -> None:
    with place.running("known:blocks") as program:
        shown = place.coro("ps", program.pid)
    assert shown.returncode == 1
    assert shown.stderr.startswith(f"coro: process {program.pid}: the loop is held up by one step of task 'blocks'")
    assert line_of("blocks") in shown.stderr
    assert "use `yield from coro.sleep(seconds)`" in shown.stderr


def test_a_signal_has_the_tree_on_stderr(place: Place) -> None:
    with place.running("known:locked") as program:
        os.kill(program.pid, signal.SIGUSR1)
        text = program.read_errors(end=line_of("second"))
    assert text.startswith(f"process {program.pid}: ")


def test_a_signal_that_comes_late_does_not_end_the_process(place: Place) -> None:
    program = "import os, signal\nfrom coro.debug.attach import attachable\n"
    program += "with attachable('it'): pass\nos.kill(os.getpid(), signal.SIGUSR1)\n"
    assert subprocess.run([sys.executable, "-c", program], env=place.environment, timeout=PATIENCE).returncode == 0


def test_a_snapshot_that_fails_does_not_reach_the_program(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def main() -> Coro[str]:
        yield from coro.checkpoint()
        attach._on_signal(signal.SIGUSR1, None)
        return "went on"

    monkeypatch.setattr(attach, "snapshot", {}.__getitem__)  # KeyError
    assert coro.run(main()) == "went on"
    assert "the snapshot failed: KeyError" in capfd.readouterr().err


def test_without_a_number_it_lists_what_can_be_attached_to(place: Place) -> None:
    nothing = place.coro("ps")
    assert (nothing.returncode, nothing.stdout) == (1, "")
    with place.running("known:locked") as program:
        assert place.coro("ps").stdout == f"{program.pid}  coro run known:locked\n"
        (only,) = json.loads(place.coro("ps", "--json").stdout)
        assert (only["pid"], only["name"], only["worker"]) == (program.pid, "coro run known:locked", -1)


def test_a_process_without_descriptors_is_said_to_be_one_and_how_to_see_it(place: Place) -> None:
    with place.running("known:without_descriptors") as program:
        shown = place.coro("ps", program.pid)
        assert shown.stderr == (
            f"coro: process {program.pid} has no descriptor left to let anybody in, of the 64 that it may have:"
            f" `kill -USR1 {program.pid}` has it write its tasks to its stderr\n"
        )
        os.kill(program.pid, signal.SIGUSR1)
        assert "without_descriptors" in program.read_errors(end=line_of("full"))
        assert not list((place.runtime / "coro").glob("*.request"))


def test_a_process_that_could_not_let_one_in_lets_in_the_next(place: Place) -> None:
    with place.running("known:one_descriptor") as program:
        assert place.coro("ps", program.pid).returncode == 1
        assert "Too many open files; kill -USR1" in program.read_errors(end="cannot let coro ps")
        os.kill(program.pid, signal.SIGUSR2)
        assert program.stdout.readline() == "there are some again\n"
        assert place.coro("ps", program.pid).returncode == 0


def test_looking_changes_nothing_and_nothing_is_left(place: Place) -> None:
    with place.running("known:signalled") as program:
        runtime = place.runtime / "coro"
        assert [path.suffix for path in runtime.iterdir()] == [".marker"]  # nothing listens
        for _ in range(3):
            assert place.coro("ps", program.pid).returncode == 0
        os.kill(program.pid, signal.SIGTERM)
        assert program.process.wait(PATIENCE) == 0
        assert list(runtime.iterdir()) == []
        assert program.stderr.read() == ""


def test_a_process_without_a_marker_is_not_sent_the_signal(place: Place) -> None:
    sleeper = [sys.executable, "-c", "print('on', flush=True); input()"]
    with subprocess.Popen(sleeper, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        refused = place.coro("ps", process.pid)
        process.communicate(b"\n")
    assert process.returncode == 0  # it was not ended
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "cannot be attached to: it was not started with `coro run`" in refused.stderr


def test_a_marker_that_another_process_left_is_not_believed(place: Place) -> None:
    runtime = place.runtime / "coro"
    runtime.mkdir(mode=0o700)
    sleeper = [sys.executable, "-c", "print('on', flush=True); input()"]
    with subprocess.Popen(sleeper, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        marker = runtime / f"{process.pid}.marker"
        marker.write_text(json.dumps([process.pid, 1, "another", 0, -1]))  # of an older process with that number
        assert "cannot be attached to" in place.coro("ps", process.pid).stderr
        assert place.coro("ps").returncode == 1
        assert not marker.exists()  # it was cleared away
        process.communicate(b"\n")
    assert process.returncode == 0


def test_no_such_process(place: Place) -> None:
    number = 1 << 23  # the kernel gives none above 1 << 22
    assert place.coro("ps", number).stderr == f"coro: there is no process {number}\n"


def test_a_directory_that_others_may_enter_is_not_used(place: Place) -> None:
    runtime = place.runtime / "coro"
    runtime.mkdir(mode=0o755)
    runtime.chmod(0o755)
    with place.running("known:locked") as program:
        program.read_errors(end=f"{runtime} is not a directory that only you can enter: remove it")
        assert list(runtime.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused(place: Place) -> None:
    with place.running("known:locked") as program:
        refused = subprocess.run(
            [sys.executable, "-c", AS_NOBODY + "sys.exit(coro.cli.main(sys.argv[1:]))", "ps", str(program.pid)],
            cwd=place.path, env=place.environment, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert refused.returncode == 1
        assert f"process {program.pid} is another user's: only that user can attach" in refused.stderr
        assert program.process.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_by_the_socket_itself(place: Place) -> None:
    """Even if the directory, which keeps others out, were opened."""
    client = """
import socket
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    print(connection.makefile().readline())
"""
    with place.running("known:locked") as program:
        runtime = place.runtime / "coro"
        path = runtime / f"{program.pid}.socket"
        with connect(runtime, program.pid):  # meanwhile the process listens
            assert path.stat().st_mode & 0o777 == 0o600
            for opened in place.path, place.runtime, runtime, path:
                opened.chmod(0o777)
            answer = subprocess.run(
                [sys.executable, "-c", AS_NOBODY + client, path],
                cwd=place.path, env=place.environment, capture_output=True, text=True, timeout=PATIENCE,
            )  # fmt: skip
    assert answer.stderr == ""
    assert json.loads(answer.stdout) == {"error": "this process belongs to another user"}


def test_of_several_workers_each_is_reached_by_its_own_number(place: Place) -> None:
    with place.running("known:service", "--workers", "2", "--port", "0") as program:
        assert program.stdout.readline() == "on\n"  # of the second worker
        listed = place.coro("ps").stdout.splitlines()
        workers = [line.partition(" ")[0] for line in listed if f"of process {program.pid}" in line]
        told = place.coro("ps", program.pid)
        assert told.returncode == 1
        assert told.stderr.endswith(f"it supervises workers. Ask one of them: {', '.join(workers)}\n")
        trees = [place.coro("ps", worker).stdout for worker in workers]
        while list((place.runtime / "coro").glob("*.request")):  # of who asked twice, as it took long
            assert program.process.poll() is None
        os.kill(program.pid, signal.SIGUSR1)  # is passed on
        dumps = [program.read_errors(end="until_orphaned.<locals>.watch") for _ in range(2)]
        os.kill(program.pid, signal.SIGTERM)
        assert program.process.wait(PATIENCE) == 0
    assert len(trees) == 2 and all(line_of("service") in text for text in trees)
    assert {text.partition(":")[0] for text in dumps} == {f"process {worker}" for worker in workers}
    assert list((place.runtime / "coro").iterdir()) == []


def test_leaked_tasks_are_all_shown_with_the_line_they_wait_in(place: Place) -> None:
    with place.running("known:leaks") as program:
        text = place.coro("ps", program.pid).stdout
    assert text.count("'forgotten'") == 10_000
    assert text.count(line_of("forgotten")) == 10_000


def test_who_waits_for_a_connection_of_a_pool_is_told_whose_queries_have_them(
    place: Place, mariadb: MariaDBServer
) -> None:
    place.environment["KNOWN_MYSQL"] = mariadb.url("mysql")
    with place.running("known:slow_query") as program:
        text = place.coro("ps", program.pid).stdout
    assert "task 4 'lookup'" in text and "waiting for a Semaphore held by tasks 2, 3" in text
    assert line_of("lookup") in text and text.count(line_of("report")) == 2
    assert f"-> 127.0.0.1:{mariadb.port}" in text
