"""What a task is given when it goes on, where that is more than a value.

Between the moment at which something is handed to a task and the task's next step, the task may be cancelled. What it
was handed then goes to the next waiter: nothing is given to somebody who cannot use it any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coro.errors import BusyError


class Delivery:
    """The value of a task that is ready, before the task takes it."""

    __slots__ = ()

    def accept(self, generator: Any) -> Any:
        """The task's generator is about to go on: the value that it gets. An error raised here ends the task."""
        raise NotImplementedError

    def refuse(self) -> bool:
        """The task was cancelled before it could go on: take back what it was given. False if it goes on anyway."""
        raise NotImplementedError


class Handed(Delivery):
    """An item, a permit: something that only one task can have."""

    __slots__ = ("_give_back", "_value")

    def __init__(self, value: Any, give_back: Callable[[Any], object]) -> None:
        """`give_back(value)` gives it to the next waiter, or puts it back where it came from."""
        self._value = value
        self._give_back = give_back

    def accept(self, generator: Any) -> Any:
        return self._value

    def refuse(self) -> bool:
        self._give_back(self._value)
        return True


class Start(Delivery):
    """What a task has that has not run yet. Cancelled, it runs up to its first request all the same."""

    __slots__ = ()

    def accept(self, generator: Any) -> None:
        if generator.gi_suspended:
            raise BusyError(taken(generator))

    def refuse(self) -> bool:
        return False


START = Start()


def taken(generator: Any) -> str:
    """What is said of a generator that was given to two tasks."""
    return f"{generator.__qualname__} is driven by another task already: make a new generator"
