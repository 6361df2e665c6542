"""Virtual time, seeded schedules, and the pytest plugin (coro/testing.py). Memory streams are in test_stream.py."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import coro
from coro import Coro, Socket, TaskGroup, to_thread
from coro.testing import Deadlock, memory_streams, run_virtual
from tests.kernel.support import CHECKOUT, PATIENCE, environment

# --- Virtual time -----------------------------------------------------------------------------------


def test_time_jumps_to_the_next_timer_when_all_tasks_wait() -> None:
    def main() -> Coro[float]:
        yield from coro.gather(coro.sleep(3600), coro.sleep(86_400))
        return coro.now()

    assert run_virtual(main()) == 86_400


def test_time_stands_still_while_a_task_can_run() -> None:
    def main() -> Coro[None]:
        with coro.timeout(1e-9):
            for _ in range(1000):
                yield from coro.checkpoint()
        assert coro.now() == 0

    run_virtual(main())


def test_time_far_from_zero_still_moves() -> None:
    def main() -> Coro[None]:
        yield from coro.sleep(1e9)
        for _ in range(100):
            yield from coro.sleep(0.1)
            yield from coro.sleep(1e-12)

    run_virtual(main())


def test_time_does_not_jump_over_a_call_in_a_thread() -> None:
    gate = threading.Event()

    def body(group: TaskGroup) -> Coro[str]:
        with coro.timeout(PATIENCE):
            call = group.spawn(to_thread(gate.wait, PATIENCE))
            opener = threading.Thread(target=gate.set)
            opener.start()
            yield from call.join()
        opener.join()
        return "came in time"

    assert run_virtual(coro.task_group(body)) == "came in time"


def test_time_does_not_jump_while_a_task_waits_for_a_descriptor() -> None:
    near, far = socket.socketpair()

    def main() -> Coro[bytes]:
        loop = coro.current_task().loop

        def send() -> None:
            while not loop._polling or loop.ready:
                time.sleep(0)
            near.send(b"x")

        thread = threading.Thread(target=send)
        with coro.timeout(PATIENCE):
            thread.start()
            data = yield from sock.recv(1)
        thread.join()
        return data

    sock = Socket(far)
    assert run_virtual(main()) == b"x"
    sock.close()
    near.close()


def test_time_passes_at_its_real_pace_while_a_task_waits_for_a_descriptor() -> None:
    near, far = socket.socketpair()

    def body(group: TaskGroup) -> Coro[None]:
        started = time.monotonic()
        with coro.move_on_after(0.05) as scope:
            yield from sock.recv(1)
        assert scope.cancelled_caught
        assert time.monotonic() - started >= 0.05
        yield from coro.sleep(1000)  # nobody waits for the socket any more
        assert coro.now() >= 1000.05

    sock = Socket(far)
    run_virtual(coro.task_group(body))
    sock.close()
    near.close()


def test_connections_in_memory_do_not_hold_up_virtual_time() -> None:
    def main() -> Coro[None]:
        near, _ = memory_streams()
        with pytest.raises(TimeoutError), coro.timeout(3600):
            yield from near.read()

    run_virtual(main())


def test_tasks_that_would_wait_for_ever_are_ended_and_named() -> None:
    log: list[str] = []

    def waiter(event: coro.Event) -> Coro[None]:
        try:
            yield from event.wait()
        finally:
            log.append("cleaned up")

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(waiter(coro.Event()), name="waiter")
        yield from ()

    with pytest.raises(Deadlock, match="<Task 'waiter' waiting for an Event>"):
        run_virtual(coro.task_group(body))
    assert log == ["cleaned up"]


def test_endless_sleep_counts_as_waiting_for_ever() -> None:
    with pytest.raises(Deadlock, match=r"waiting for sleep until \+inf s"):
        run_virtual(coro.sleep(math.inf))


def test_deadlock_in_cleanup_is_reported_too() -> None:
    def main() -> Coro[None]:
        with coro.shield():
            yield from coro.Event().wait()

    with pytest.raises(Deadlock, match=r"<Task '.*main' waiting for an Event>"):
        run_virtual(main())


def test_main_that_cancels_itself_is_no_deadlock() -> None:
    def main() -> Coro[None]:
        coro.current_task().cancel()
        yield from coro.checkpoint()

    with pytest.raises(coro.TaskCancelled):
        run_virtual(main())


# --- Seeded schedules ---------------------------------------------------------------------------------------


def order_of(seed: int | None) -> str:
    order: list[str] = []

    def work(name: str) -> Coro[None]:
        for _ in range(3):
            yield from coro.checkpoint()
            order.append(name)

    run_virtual(coro.gather(*[work(name) for name in "abcd"]), seed=seed)
    return "".join(order)


def test_seed_determines_the_order_in_which_tasks_run() -> None:
    assert [order_of(seed) for seed in range(10)] == [order_of(seed) for seed in range(10)]


def test_seeds_differ_in_the_order_in_which_tasks_run() -> None:
    orders = {order_of(seed) for seed in range(10)}
    assert len(orders) > 5
    assert {"".join(sorted(order)) for order in orders} == {"aaabbbcccddd"}


def test_without_a_seed_tasks_run_in_turn() -> None:
    assert order_of(None) == "abcd" * 3


# --- The plugin: these tests are what it runs -----------------------------------------------------------------


@pytest.fixture
def five() -> int:
    return 5


def test_generator_is_run_in_virtual_time() -> Coro[None]:
    yield from coro.sleep(3600)
    assert coro.now() == 3600


@pytest.mark.parametrize("factor", [1, 2])
def test_fixtures_and_parameters_are_passed(factor: int, five: int) -> Coro[None]:
    yield from coro.sleep(five * factor)
    assert coro.now() == five * factor


class TestInAClass:
    def test_methods_are_run(self, five: int) -> Coro[None]:
        yield from coro.sleep(five)
        assert coro.now() == five


@given(number=st.integers(0, 10))  # type: ignore[arg-type]  # hypothesis knows functions and coroutines only
def test_examples_of_hypothesis_are_run(number: int) -> Coro[None]:
    yield from coro.sleep(number)
    assert coro.now() == number


def test_failures_and_deadlocks_are_reported(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("""
import coro, pytest
from hypothesis import given, strategies

def test_fails():
    yield from coro.checkpoint()
    assert False, "after a checkpoint"

def test_hangs():
    yield from coro.sleep_forever()

@given(strategies.just(1))
def test_example_fails(one):
    yield from coro.checkpoint()
    assert one == 2

@pytest.mark.xfail(strict=True)
def test_is_marked():
    yield from coro.checkpoint()
    assert False

def helper():
    yield 5
""")
    done = run_pytest(tmp_path)
    assert "1 xfailed" in done
    assert "3 failed" in done
    for expected in "AssertionError: after a checkpoint", "Deadlock: every task waits", "assert 1 == 2":
        assert expected in done


def run_pytest(directory: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "coro.testing", "-p", "no:cacheprovider", "-c", os.devnull,
         "--rootdir", str(directory), str(directory)],
        cwd=CHECKOUT, env=environment(), capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    return done.stdout + done.stderr
