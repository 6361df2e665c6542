"""Operating-system signals as values that a task waits for.

    with coro.open_signals(signal.SIGTERM) as signals:
        number = yield from signals.wait()

The handler does nothing but post to the loop; what is to happen is written in the task that waits.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from coro.sync import Queue
from coro.task import Coro, current_task


class Signals:
    """Signals that have arrived since `open_signals`."""

    def __init__(self) -> None:
        self._queue: Queue[signal.Signals] = Queue()

    def wait(self) -> Coro[signal.Signals]:
        """The next signal, in order of arrival. Suspends."""
        return (yield from self._queue.get())


@contextmanager
def open_signals(*numbers: signal.Signals) -> Iterator[Signals]:
    """Receive these signals, instead of their default action, inside the block. Main thread only."""
    loop = current_task().loop
    signals = Signals()

    def handler(number: int, frame: FrameType | None) -> None:
        loop.post(lambda: signals._queue.put_nowait(signal.Signals(number)))

    with ExitStack() as stack:
        for number in numbers:
            previous = signal.signal(number, handler)
            stack.callback(signal.signal, number, signal.SIG_DFL if previous is None else previous)
        yield signals
