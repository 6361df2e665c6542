"""Behaviours that docs/design/trio-and-curio.md lists and that have no better place."""

from __future__ import annotations

import gc
import signal
import weakref

import pytest

import coro
from coro import Coro
from tests.kernel.support import run_tidy


class Canary:
    """Something that can be seen to be gone."""


def test_locals_of_a_cancelled_task_are_destroyed_without_the_garbage_collector() -> None:
    canaries: list[weakref.ref[Canary]] = []

    def work() -> Coro[None]:
        canary = Canary()
        canaries.append(weakref.ref(canary))
        yield from coro.sleep_forever()

    def body(group: coro.TaskGroup) -> Coro[None]:
        task = group.spawn(work())
        yield from coro.sleep(1)
        assert canaries[0]() is not None
        task.cancel()
        del task
        yield from coro.sleep(1)
        assert canaries[0]() is None

    gc.disable()
    try:
        run_tidy(coro.task_group(body))
    finally:
        gc.enable()


def test_one_task_may_use_a_lock_again_after_its_own_release() -> Coro[None]:
    lock = coro.Lock()
    for _ in range(2):
        with (yield from lock.acquire()):
            assert lock.locked()
    assert not lock.locked()


def test_signals_in_another_thread_than_the_main_one_are_refused() -> None:
    def main() -> Coro[None]:
        with coro.open_signals(signal.SIGUSR1):
            yield from coro.checkpoint()

    def runner() -> Coro[None]:
        with pytest.raises(ValueError, match="main thread"):
            yield from coro.to_thread(coro.run, main())

    before = signal.getsignal(signal.SIGUSR1)
    coro.run(runner())
    assert signal.getsignal(signal.SIGUSR1) == before


def test_handler_comes_back_also_when_a_signal_is_named_twice() -> Coro[None]:
    before = signal.getsignal(signal.SIGUSR1)
    with coro.open_signals(signal.SIGUSR1, signal.SIGUSR1):
        assert signal.getsignal(signal.SIGUSR1) != before
        yield from coro.checkpoint()
    assert signal.getsignal(signal.SIGUSR1) == before
