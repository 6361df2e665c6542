"""How programs end, by themselves or asked to (coro/processes.py)."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

import coro
from coro import Coro, Process, TaskCancelled, TaskGroup, open_process, run_process
from coro.processes import _wait_and_close
from tests.kernel.programs import (  # noqa: F401 (fixtures)
    IGNORES_SIGTERM,
    in_both_ways,
    is_gone,
    leaves_no_descriptor_behind,
    python_program,
    sleeping,
    waiting,
)
from tests.kernel.support import PATIENCE, BrokenOff, run_tidy

# --- open_process: the end ---------------------------------------------------------------------------------------


@in_both_ways
def test_any_number_of_tasks_wait_for_the_end() -> None:
    def body(process: Process) -> Coro[list[int]]:
        def work(group: TaskGroup) -> Coro[list[int]]:
            waits = [group.spawn(process.wait()) for _ in range(3)]
            while not all(task.request for task in waits):
                yield from coro.checkpoint()
            waits[0].cancel()  # who watches for all of them
            with pytest.raises(TaskCancelled):
                yield from waits[0].join()
            process.stdin.close()
            codes = []
            for task in waits[1:]:
                codes.append((yield from task.join()))
            return codes

        return coro.task_group(work)

    def main() -> Coro[None]:
        assert (yield from open_process(["sh", "-c", "cat; exit 3"], body)) == [3, 3]

    run_tidy(main())


@in_both_ways
def test_cancelled_body_terminates_the_program_which_may_clean_up(tmp_path: Path) -> None:
    started: list[Process] = []
    code = f"trap 'echo cleaned up >{tmp_path}/log; exit 0' TERM; echo ready; while :; do sleep 0.01; done"

    def body(process: Process) -> Coro[None]:
        started.append(process)
        yield from process.stdout.read_until(b"ready\n")
        coro.current_task().cancel()
        yield from coro.sleep_forever()

    def main() -> Coro[None]:
        def work(group: TaskGroup) -> Coro[None]:
            with pytest.raises(TaskCancelled):
                yield from group.spawn(open_process(["sh", "-c", code], body, grace=PATIENCE)).join()

        yield from coro.task_group(work)
        assert (tmp_path / "log").read_text() == "cleaned up\n"
        assert started[0].returncode == 0
        assert is_gone(started[0].pid)

    run_tidy(main())


@in_both_ways
def test_program_that_does_not_end_when_asked_is_killed_after_the_grace() -> None:
    started: list[Process] = []

    def body(process: Process) -> Coro[None]:
        started.append(process)
        yield from process.stdout.read_until(b"ready\n")
        raise LookupError

    def main() -> Coro[None]:
        before = coro.now()
        with pytest.raises(LookupError):
            program = python_program(IGNORES_SIGTERM + "signal.pause()")
            yield from open_process(program, body, grace=0.05)
        assert coro.now() >= before + 0.05
        assert started[0].returncode == -signal.SIGKILL
        assert is_gone(started[0].pid)

    run_tidy(main())


def test_program_that_may_not_be_ended_gets_its_grace_and_is_then_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Process] = []
    asked: list[int] = []

    def forbidden(popen: object, number: int) -> NoReturn:
        asked.append(number)
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    def body(process: Process) -> Coro[None]:
        started.append(process)
        yield from ()
        raise LookupError

    def main() -> Coro[None]:
        with monkeypatch.context() as patch, pytest.raises(PermissionError) as caught:
            patch.setattr(subprocess.Popen, "send_signal", forbidden)
            yield from open_process(["sleep", "3600"], body, grace=0.01)
        assert isinstance(caught.value.__context__, LookupError)
        assert asked == [signal.SIGTERM, signal.SIGKILL]
        started[0].kill()
        started[0]._popen.wait()

    run_tidy(main())


def test_run_process_that_is_cancelled_ends_its_program() -> Coro[None]:
    with coro.move_on_after(0.05) as scope:
        yield from run_process(["sleep", "3600"])
    assert scope.cancelled_caught


def test_waiting_can_have_a_time_limit_and_the_program_goes_on() -> Coro[None]:
    def body(process: Process) -> Coro[int | None]:
        with pytest.raises(TimeoutError), coro.timeout(0.01):
            yield from process.wait()
        assert process.returncode is None
        process.send_signal(signal.SIGUSR1)
        return (yield from process.wait())

    assert (yield from open_process(["sleep", "3600"], body)) == -signal.SIGUSR1


def test_program_is_ended_when_the_wait_after_the_body_is_cancelled() -> Coro[None]:
    started: list[Process] = []

    def body(process: Process) -> Coro[None]:
        started.append(process)
        coro.call_later(0.05, scope.cancel)
        yield from ()

    with coro.CancelScope() as scope:
        yield from open_process(["sleep", "3600"], body)
    assert scope.cancelled_caught
    assert started[0].returncode == -signal.SIGTERM


def test_caller_that_is_cancelled_while_the_program_starts_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def main() -> Coro[None]:
        def popen(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
            started.append(subprocess.Popen(command, **options))
            task.loop.post(task.cancel)
            return started[0]

        task = coro.current_task()
        monkeypatch.setattr("coro.processes.Popen", popen)
        with pytest.raises(coro.Cancelled):
            yield from open_process(["sleep", "3600"], sleeping)
        assert started[0].returncode == -signal.SIGTERM

    run_tidy(main())


def test_program_is_ended_when_there_are_no_descriptors_left_to_watch_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def out_of_descriptors(pid: int = 0) -> NoReturn:
        started.append(pid)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def main() -> Coro[None]:
        popen = subprocess.Popen(["sleep", "3600"], stdin=subprocess.PIPE)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="Too many open files"):
            patch.setattr(os, "pidfd_open", out_of_descriptors)
            patch.setattr(os, "pipe", out_of_descriptors)
            Process(["sleep"], popen)
        assert started[0] == popen.pid
        assert popen.returncode == -signal.SIGKILL
        yield from ()

    run_tidy(main())


def test_signal_to_a_program_that_has_ended_does_nothing() -> Coro[None]:
    def body(process: Process) -> Coro[None]:
        yield from process.wait()
        process.terminate()

    yield from open_process(["true"], body)


def test_repr_shows_the_state() -> Coro[None]:
    def body(process: Process) -> Coro[Process]:
        assert repr(process) == f"<Process {process.pid} `sh -c 'cat; exit 3'` running>"
        assert repr(process.stdin).startswith("<WriteStream pipe, fd ")
        yield from ()
        return process

    process = yield from open_process(["sh", "-c", "cat; exit 3"], body)
    assert repr(process).endswith(" ended with exit code 3>")
    assert repr(process.stdin) == "<WriteStream pipe, closed descriptor>"


def test_thread_that_waits_for_a_process_which_has_been_reaped_reports_its_end() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    reader, writer = os.pipe()
    _wait_and_close(process.pid, writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_run_that_is_broken_off_kills_its_program() -> None:
    started: list[Process] = []

    def break_off() -> None:
        raise BrokenOff

    def body(process: Process) -> Coro[None]:
        started.append(process)
        loop.post(break_off)
        yield from coro.sleep_forever()

    loop = coro.Loop()
    main = open_process(["sleep", "3600"], body)
    with pytest.raises(BrokenOff):
        loop.run(main)
    main.close()  # as the garbage collector will
    process = started[0]
    assert process._popen.wait(PATIENCE) == -signal.SIGKILL
    coro.run(process.reap(0))
