"""Calls in worker processes (coro/processes.py, coro/worker.py)."""

from __future__ import annotations

import math
import os
import pickle
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import coro
from coro import Cancelled, Coro, CoroError, Process, ProcessError, ProcessLimiter, TaskCancelled, TaskGroup, to_process
from coro.processes import _Pool, _pool, _popen_uninterrupted
from coro.worker import LENGTH
from tests.kernel import process_calls as calls
from tests.kernel.programs import is_gone, leaves_no_descriptor_behind  # noqa: F401 (fixture)
from tests.kernel.support import PATIENCE, environment, run_tidy


def written(file: Path) -> Coro[int]:
    """Wait until a call has written the number of a process into `file`; it."""
    while not file.exists() or not file.read_text():
        yield from coro.sleep(0.001)
    return int(file.read_text())


# --- Results and errors -----------------------------------------------------------------------------------


def test_call_runs_in_another_process_and_its_result_comes_back() -> None:
    def main() -> Coro[None]:
        pid, args, kwargs = yield from to_process(calls.in_process, 1, "two", three=[3])
        assert pid != os.getpid()
        assert (args, kwargs) == ((1, "two"), {"three": [3]})

    run_tidy(main())


def test_result_may_be_none() -> Coro[None]:
    assert (yield from to_process(calls.gives_back, None)) is None


def test_big_arguments_and_results_pass() -> Coro[None]:
    data = bytes(5_000_000)
    _, (returned,), _ = yield from to_process(calls.in_process, data)
    assert returned == data


def test_error_of_the_call_is_raised_with_the_workers_traceback_as_a_note() -> Coro[None]:
    with pytest.raises(LookupError, match="in the worker") as caught:
        yield from to_process(calls.fails)
    note = caught.value.__notes__[0]
    assert note.startswith("in a worker process:\nTraceback (most recent call last):\n")
    assert 'process_calls.py", line' in note
    assert 'worker.py", line' not in note  # its own frames tell nothing


def test_error_that_cannot_be_sent_is_described() -> Coro[None]:
    with pytest.raises(CoroError, match=r"the call raised Unsendable\('unsendable'\), which cannot be sent") as caught:
        yield from to_process(calls.fails_unsendably)
    assert "fails_unsendably" in caught.value.__notes__[0]


def test_result_that_cannot_be_pickled_is_an_error_of_the_call() -> Coro[None]:
    with pytest.raises(TypeError, match="cannot pickle"):
        yield from to_process(calls.returns_unsendable)


def test_call_that_cannot_be_pickled_is_refused_before_a_process_starts() -> Coro[None]:
    with pytest.raises(Exception, match="lambda") as caught:
        yield from to_process(lambda: None)
    assert "they must be picklable" in caught.value.__notes__[0]
    assert _Pool not in coro.current_task().loop.locals


# --- Workers ------------------------------------------------------------------------------------------------


def test_idle_worker_takes_the_next_call_also_after_an_error() -> Coro[None]:
    pid = yield from to_process(os.getpid)
    with pytest.raises(LookupError):
        yield from to_process(calls.fails)
    with pytest.raises(SystemExit):
        yield from to_process(sys.exit, 1)
    assert (yield from to_process(os.getpid)) == pid


def test_workers_end_with_the_run_and_are_waited_for() -> None:
    def main() -> Coro[list[int]]:
        return (yield from coro.gather(*(to_process(os.getpid) for _ in range(2))))

    pids = run_tidy(main())
    assert all(is_gone(pid) for pid in pids)


def test_call_after_the_end_of_main_leaves_no_worker_behind() -> None:
    pids: list[int] = []

    def cleans_up() -> Coro[None]:
        try:
            yield from coro.sleep_forever()
        finally:
            with coro.shield():
                yield from coro.checkpoint()
                yield from coro.checkpoint()  # the idle workers are being ended
                pids.append((yield from to_process(os.getpid)))

    def main() -> Coro[None]:
        pids.append((yield from to_process(os.getpid)))
        coro.background(cleans_up())
        yield from coro.checkpoint()

    run_tidy(main())
    assert len(pids) == 2 and all(is_gone(pid) for pid in pids)


def test_idle_worker_that_somebody_killed_is_replaced() -> Coro[None]:
    pid = yield from to_process(os.getpid)
    worker = _pool()._idle[0]
    os.kill(pid, signal.SIGKILL)
    yield from worker.wait()
    assert (yield from to_process(os.getpid)) != pid
    assert worker._socket.fd < 0


def test_ctrl_c_in_the_terminal_is_not_for_the_workers() -> Coro[None]:
    pid = yield from to_process(os.getpid)
    os.kill(pid, signal.SIGINT)
    yield from to_process(signal.raise_signal, signal.SIGINT)
    assert (yield from to_process(os.getpid)) == pid


def test_ctrl_c_does_not_hurt_a_worker_that_is_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def popen(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, **options)
        process.send_signal(signal.SIGINT)
        return process

    def main() -> Coro[None]:
        monkeypatch.setattr("coro.processes.Popen", popen)
        assert (yield from to_process(math.factorial, 5)) == 120

    run_tidy(main())


def test_thread_that_started_a_worker_blocks_no_signal_afterwards() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert _popen_uninterrupted(["true"], theirs.fileno()).wait() == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_call_inherits_nothing_that_it_could_pass_on() -> Coro[None]:
    assert (yield from to_process(calls.inheritable_descriptors)) == []


def test_worker_ends_in_good_order_although_another_process_has_its_socket_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coro.processes.GRACE", PATIENCE)

    def main() -> Coro[tuple[Process, int]]:
        yield from to_process(os.getpid)
        worker = _pool()._idle[0]
        return worker, os.dup(worker._socket.fd)  # as a fork has

    worker, copy = run_tidy(main())
    os.close(copy)
    assert worker.returncode == 0


def test_call_finds_no_signal_blocked_and_none_ignored_that_was_not() -> Coro[None]:
    assert (yield from to_process(signal.pthread_sigmask, signal.SIG_BLOCK, [])) == set()
    assert callable((yield from to_process(signal.getsignal, signal.SIGTERM))) is False


# --- Limits ------------------------------------------------------------------------------------------------------


def test_no_more_workers_run_at_once_than_the_limiter_allows() -> None:
    def main() -> Coro[None]:
        limiter = ProcessLimiter(2)
        pids = yield from coro.gather(*(limiter.run(os.getpid) for _ in range(6)))
        assert len(set(pids)) <= 2
        assert limiter.free == 2

    run_tidy(main())


def test_run_has_a_limiter_with_a_permit_for_each_processor() -> Coro[None]:
    yield from to_process(os.getpid)
    assert coro.current_task().loop.locals[ProcessLimiter].free == os.cpu_count()


def test_limiter_of_ones_own_is_used_instead_of_the_runs(tmp_path: Path) -> None:
    limiter = ProcessLimiter(1)

    def body(group: TaskGroup) -> Coro[None]:
        busy = group.spawn(limiter.run(calls.spins, tmp_path / "begun"))
        yield from written(tmp_path / "begun")
        assert limiter.free == 0
        assert (yield from to_process(math.factorial, 5)) == 120
        assert ProcessLimiter() is not limiter
        busy.cancel()

    run_tidy(coro.task_group(body))


# --- Cancellation and death ----------------------------------------------------------------------------------------


def test_cancelled_callers_worker_is_killed_and_the_permit_comes_back_when_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coro.processes.GRACE", 3600)  # it gets none
    limiter = ProcessLimiter(1)

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(limiter.run(calls.spins, tmp_path / "begun"))
        waiting = group.spawn(limiter.run(os.getpid))
        pid = yield from written(tmp_path / "begun")
        task.cancel()
        while not task.done:
            assert limiter.free == 0 and not waiting.done
            yield from coro.checkpoint()
        with pytest.raises(TaskCancelled):
            yield from task.join()
        assert is_gone(pid)
        assert (yield from waiting.join()) != pid
        assert limiter.free == 1

    run_tidy(coro.task_group(body))


def test_caller_that_is_cancelled_while_it_waits_for_a_worker_calls_nothing(tmp_path: Path) -> None:
    limiter = ProcessLimiter(1)

    def body(group: TaskGroup) -> Coro[None]:
        busy = group.spawn(limiter.run(calls.spins, tmp_path / "begun"))
        yield from written(tmp_path / "begun")
        waiting = group.spawn(limiter.run(calls.spins, tmp_path / "never"))
        yield from coro.checkpoint()
        yield from coro.checkpoint()
        waiting.cancel()
        busy.cancel()

    def main() -> Coro[None]:
        yield from coro.task_group(body)
        assert limiter.free == 1
        assert not (tmp_path / "never").exists()

    run_tidy(main())


def test_caller_that_is_cancelled_before_its_call_begins_starts_no_process() -> Coro[None]:
    with coro.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(Cancelled):
            yield from to_process(os.getpid)
    assert _Pool not in coro.current_task().loop.locals


@pytest.mark.parametrize(
    ("function", "argument", "end"),
    [(os._exit, 3, "ended with exit code 3"), (signal.raise_signal, signal.SIGKILL, "was killed by SIGKILL")],
)
def test_death_of_the_worker_is_an_error_that_says_how(function: object, argument: int, end: str) -> None:
    def main() -> Coro[None]:
        with pytest.raises(ProcessError, match=rf"the worker process \d+, in a call of \w+, {end}") as caught:
            yield from to_process(function, argument)  # type: ignore[arg-type]
        assert caught.value.returncode in (3, -signal.SIGKILL)
        assert (yield from to_process(math.factorial, 5)) == 120  # in another one

    run_tidy(main())


def test_death_is_seen_although_a_fork_of_the_worker_lives_on(tmp_path: Path) -> Coro[None]:
    try:
        with pytest.raises(ProcessError, match="ended with exit code 3"):
            yield from to_process(calls.ends_and_leaves_a_fork, tmp_path / "pid", os.getpid())
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_worker_whose_call_closed_its_socket_is_killed() -> Coro[None]:
    with pytest.raises(ProcessError, match="was killed by SIGKILL"):
        yield from to_process(calls.closes_all_descriptors)


def test_worker_that_dies_before_it_has_taken_its_call_is_an_error_too() -> Coro[None]:
    pid = yield from to_process(os.getpid)
    os.kill(pid, signal.SIGSTOP)

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(to_process(calls.in_process, bytes(5_000_000)))  # more than the socket holds
        while not isinstance(task.request, coro.Writable):
            yield from coro.checkpoint()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ProcessError, match=f"worker process {pid}, in a call of in_process, was killed by SIGKILL"):
            yield from task.join()

    with pytest.raises(ProcessError):
        yield from coro.task_group(body)


def test_worker_that_cannot_be_started_is_an_error_and_the_permit_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def main() -> Coro[None]:
        with monkeypatch.context() as patch, pytest.raises(FileNotFoundError, match="/no/such/python"):
            patch.setattr(sys, "executable", "/no/such/python")
            yield from to_process(os.getpid)
        assert coro.current_task().loop.locals[ProcessLimiter].free == os.cpu_count()
        assert (yield from to_process(math.factorial, 5)) == 120

    run_tidy(main())


# --- A worker by itself ----------------------------------------------------------------------------------------------


def start_worker(*sent: object, stays: bool = True) -> tuple[socket.socket, subprocess.Popen[str]]:
    """A worker, and our end of its socket, into which calls have been sent; unless it `stays`, closed before."""
    ours, theirs = socket.socketpair()
    for call in sent:
        data = pickle.dumps(call)
        ours.sendall(LENGTH.pack(len(data)) + data)
    if not stays:
        ours.close()
    code = f"from coro.worker import Main, serve; serve({theirs.fileno()}, Main(None, None))"
    with theirs:
        worker = subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=[theirs.fileno()], env=environment(), text=True,
            stderr=subprocess.PIPE,
        )  # fmt: skip
    return ours, worker


def ending(worker: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and what it has complained of."""
    try:
        error = worker.communicate(timeout=PATIENCE)[1]
    finally:
        worker.kill()
    return worker.returncode, error


def test_worker_ends_at_the_end_of_its_calls() -> None:
    ours, worker = start_worker()
    ours.close()
    assert ending(worker) == (0, "")


def test_worker_whose_answer_was_not_read_ends_quietly() -> None:
    ours, worker = start_worker((len, ("text",), {}))
    with ours:
        assert ours.recv(1, socket.MSG_PEEK)  # closing a socket with bytes left in it resets the connection
    assert ending(worker) == (0, "")


def test_worker_makes_no_call_for_a_caller_that_is_gone(tmp_path: Path) -> None:
    _, worker = start_worker((calls.spins, (tmp_path / "begun",), {}), stays=False)
    assert ending(worker) == (-signal.SIGIO, "")
    assert not (tmp_path / "begun").exists()
