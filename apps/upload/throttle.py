"""How often something may be tried: so many times at once, then at a steady rate.

For each key one number is kept: the time at which all that was tried would have been tried at the steady rate (the
generic cell rate algorithm, ITU-T I.371). The number of keys is bounded; those not used for longest are forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

KEYS = 10_000


class Throttle:
    """`burst` attempts at once for each key, and one more every `interval` seconds. For one process."""

    def __init__(self, burst: int, interval: float, clock: Callable[[], float]) -> None:
        self._tolerance = (burst - 1) * interval
        self._interval = interval
        self._clock = clock
        self._due: OrderedDict[Hashable, float] = OrderedDict()

    def attempt(self, key: Hashable) -> float:
        """Count an attempt and return 0; or the seconds until one is allowed, which is then not counted."""
        now = self._clock()
        due = max(self._due.get(key, now), now)
        if due - now > self._tolerance:
            return due - now - self._tolerance
        self._due[key] = due + self._interval
        self._due.move_to_end(key)
        if len(self._due) > KEYS:
            self._due.popitem(last=False)
        return 0

    def forgive(self, key: Hashable) -> None:
        """An attempt is not to count after all."""
        if key in self._due:
            self._due[key] -= self._interval
