"""Behaviours that docs/design/trio-and-curio.md lists and that have no better place."""

from __future__ import annotations

import signal

import pytest

import coro
from coro import Coro


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
