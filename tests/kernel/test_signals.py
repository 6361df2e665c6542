"""Signals: received by tasks, and Ctrl-C (coro/signals.py, coro/loop.py)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

import coro
from coro import Coro, open_signals
from tests.kernel.support import PATIENCE, python, start_python


@pytest.fixture(autouse=True)
def handlers_are_as_before() -> Iterator[None]:
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


# --- open_signals ---------------------------------------------------------------------------------


def test_signals_are_received_in_order() -> Coro[None]:
    with open_signals(signal.SIGTERM, signal.SIGUSR1) as signals:
        for number in signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1:
            send(number)
        for number in signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1:
            assert (yield from signals.wait()) is number


def test_signal_wakes_a_sleeping_loop() -> None:
    def main() -> Coro[signal.Signals]:
        with open_signals(signal.SIGUSR1) as signals:
            thread = threading.Thread(target=signal.pthread_kill, args=(threading.main_thread().ident, signal.SIGUSR1))
            thread.start()
            number = yield from signals.wait()
            thread.join()
            return number

    assert coro.run(main()) is signal.SIGUSR1


def test_handlers_are_restored_when_one_of_the_signals_cannot_be_caught() -> Coro[None]:
    with pytest.raises(OSError), open_signals(signal.SIGTERM, signal.SIGKILL):
        pass
    yield from ()


def test_waiting_tasks_get_signals_in_the_order_in_which_they_came() -> Coro[None]:
    with open_signals(signal.SIGUSR1, signal.SIGUSR2) as signals:

        def first_and_second(group: coro.TaskGroup) -> Coro[list[signal.Signals]]:
            tasks = [group.spawn(signals.wait()), group.spawn(signals.wait())]
            yield from coro.checkpoint()
            send(signal.SIGUSR1)
            send(signal.SIGUSR2)
            yield from coro.checkpoint()
            send(signal.SIGUSR1)
            third = yield from signals.wait()
            return [(yield from tasks[0].join()), (yield from tasks[1].join()), third]

        received = yield from coro.task_group(first_and_second)
    assert received == [signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1]


def test_signal_that_waits_for_a_task_is_not_taken_by_another() -> Coro[None]:
    with open_signals(signal.SIGUSR1) as signals:

        def body(group: coro.TaskGroup) -> Coro[None]:
            first = group.spawn(signals.wait())
            yield from coro.checkpoint()
            send(signal.SIGUSR1)  # arrived, not delivered yet
            with coro.move_on_after(0.01) as scope:
                yield from signals.wait()
            assert scope.cancelled_caught
            assert (yield from first.join()) is signal.SIGUSR1

        yield from coro.task_group(body)


def test_signal_that_was_not_received_has_its_effect_after_the_block() -> Coro[None]:
    outside: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: outside.append(number))
    try:
        with open_signals(signal.SIGUSR1) as signals:
            send(signal.SIGUSR1)
            send(signal.SIGUSR1)
            yield from signals.wait()
            assert outside == []
        assert outside == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_no_signal_to_receive_is_refused() -> Coro[None]:
    with pytest.raises(ValueError, match="name those to receive"), open_signals():
        pass
    yield from ()


def test_sigterm_can_stop_a_program_in_good_order() -> None:
    process = start_python("""
import coro, signal
def main():
    with coro.open_signals(signal.SIGTERM) as signals:
        print("ready")
        number = yield from signals.wait()
    print(f"stopped by {number.name}")
coro.run(main())
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    assert (out, err, process.returncode) == ("stopped by SIGTERM\n", "", 0)


# --- Ctrl-C -----------------------------------------------------------------------------------------------


def test_ctrl_c_cancels_main_which_cleans_up_and_then_raises_keyboard_interrupt() -> None:
    log: list[str] = []

    def child() -> Coro[None]:
        try:
            yield from coro.sleep_forever()
        finally:
            with coro.shield():
                yield from coro.checkpoint()
            log.append("child cleaned up")

    def main() -> Coro[None]:
        def body(group: coro.TaskGroup) -> Coro[None]:
            group.spawn(child())
            yield from coro.checkpoint()
            send(signal.SIGINT)
            log.append("still running")  # it comes at a request, not in between
            yield from coro.sleep_forever()

        yield from coro.task_group(body)

    with pytest.raises(KeyboardInterrupt):
        coro.run(main())
    assert log == ["still running", "child cleaned up"]


def test_ctrl_c_is_not_forgotten_when_main_returns_meanwhile() -> None:
    def main() -> Coro[str]:
        yield from coro.checkpoint()
        send(signal.SIGINT)
        return "result"

    with pytest.raises(KeyboardInterrupt):
        coro.run(main())


def test_error_during_the_cleanup_after_ctrl_c_is_raised() -> None:
    def main() -> Coro[None]:
        try:
            send(signal.SIGINT)
            yield from coro.sleep_forever()
        finally:
            raise LookupError("in cleanup")

    with pytest.raises(LookupError, match="in cleanup"):
        coro.run(main())


def test_second_ctrl_c_interrupts_whatever_runs() -> None:
    process = start_python("""
import coro
def main():
    try:
        print("ready")
        yield from coro.sleep_forever()
    finally:
        print("cleaning up")
        while True:
            pass
coro.run(main())
""")
    assert process.stdout is not None
    for expected in "ready\n", "cleaning up\n":
        assert process.stdout.readline() == expected
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert "KeyboardInterrupt" in err
    assert process.returncode == -signal.SIGINT


def test_second_ctrl_c_ends_a_run_whose_cleanup_waits_for_ever() -> None:
    process = start_python("""
import coro
def main():
    try:
        print("ready")
        yield from coro.sleep_forever()
    finally:
        print("cleaning up")
        with coro.shield():
            yield from coro.sleep_forever()
coro.run(main())
""")
    assert process.stdout is not None
    for expected in "ready\n", "cleaning up\n":
        assert process.stdout.readline() == expected
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT


def test_handler_of_the_users_own_is_left_alone() -> None:
    script = """
import coro, os, signal
signal.signal(signal.SIGINT, lambda number, frame: print("mine"))
def main():
    os.kill(os.getpid(), signal.SIGINT)
    yield from coro.checkpoint()
    return "went on"
print(coro.run(main()))
"""
    assert python(script).stdout == "mine\nwent on\n"


def test_run_in_another_thread_leaves_signals_alone() -> None:
    def main() -> Coro[str]:
        yield from coro.sleep(0)
        return "ran"

    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(coro.run(main())))
    thread.start()
    thread.join()
    assert results == ["ran"]


def test_handler_that_the_program_sets_meanwhile_stays() -> None:
    def handler(number: int, frame: object) -> None:
        pass

    def main() -> Coro[None]:
        yield from coro.checkpoint()
        signal.signal(signal.SIGINT, handler)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        coro.run(main())
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, previous)
