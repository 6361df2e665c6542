"""Operating-system signals as values that a task waits for.

    with coro.open_signals(signal.SIGTERM) as signals:
        number = yield from signals.wait()

The handler does nothing but post to the loop; what is to happen is written in the task that waits.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from coro.sync import WaitQueue
from coro.task import Coro, current_task


class Arrivals(WaitQueue):
    """Wait for a signal, which comes from outside the program."""

    __slots__ = ()


class Signals:
    """Signals that have arrived since `open_signals`."""

    def __init__(self) -> None:
        self._arrived: deque[signal.Signals] = deque()
        self._waiters = Arrivals("a signal")

    def wait(self) -> Coro[signal.Signals]:
        """The next signal, in order of arrival. Suspends."""
        if self._arrived and not self._waiters:
            return self._arrived.popleft()
        number: signal.Signals = yield self._waiters
        return number

    def _deliver(self) -> None:
        if self._arrived and self._waiters:
            self._waiters.hand_one(self._arrived.popleft(), self._put_back)

    def _put_back(self, number: signal.Signals) -> None:
        self._arrived.appendleft(number)
        self._deliver()

    def _raise_again(self) -> None:
        while self._arrived:
            signal.raise_signal(self._arrived.popleft())


@contextmanager
def open_signals(*numbers: signal.Signals) -> Iterator[Signals]:
    """Receive these signals, instead of their default action, inside the block. Main thread only. ValueError for none.

    A signal that came, but was not received by the end of the block, then has the effect that it had outside.
    """
    if not numbers:
        raise ValueError("open_signals() without a signal: name those to receive, as in open_signals(signal.SIGTERM)")
    loop = current_task().loop
    signals = Signals()

    def handler(number: int, frame: FrameType | None) -> None:
        signals._arrived.append(signal.Signals(number))
        loop.post(signals._deliver)

    with ExitStack() as stack:
        stack.callback(signals._raise_again)  # the last thing, when the handlers are those from outside
        for number in numbers:
            previous = signal.signal(number, handler)
            stack.callback(signal.signal, number, signal.SIG_DFL if previous is None else previous)
        yield signals
