"""Calls that are due at a time: cheap to set, cheap to cancel, however many there are.

Most timers are time limits: set some seconds ahead and cancelled long before. Those due within a second or so are in
a heap, where a cancelled one stays until it is due or swept out. All others are in one dict for each second, where
setting and cancelling are single dict operations that leave nothing behind; when its second is near, what is left of a
dict moves to the heap.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import TypeAlias

Action: TypeAlias = Callable[[], object]


class Timer:
    """A call that is due at `when`, on the loop's clock."""

    __slots__ = ("_queue", "action", "when")

    def __init__(self, when: float, action: Action, queue: TimerQueue) -> None:
        self.when = when
        self.action: Action | None = action  # None: called, or cancelled
        self._queue = queue

    def cancel(self) -> None:
        """Forget the call, if it was not made yet."""
        if self.action is not None:
            self.action = None
            self._queue.forget(self)


class TimerQueue:
    """Timers in the order in which they are due, and within that in the order in which they were set."""

    __slots__ = ("_cancelled", "_far", "_ids", "_near", "_near_end", "_seconds")

    def __init__(self) -> None:
        self._near: list[tuple[float, int, Timer]] = []  # a heap: all that are due before _near_end
        self._near_end = -math.inf
        self._cancelled = 0  # of those in the heap
        self._far: dict[int, dict[Timer, None]] = {}  # the others, by the second in which they are due
        self._seconds: list[int] = []  # a heap of the keys of _far
        self._ids = itertools.count()

    def add(self, when: float, action: Action) -> Timer:
        """Have `action` called when the clock shows `when`, in seconds."""
        timer = Timer(when, action, self)
        if when < self._near_end:
            heapq.heappush(self._near, (when, next(self._ids), timer))
        elif when < math.inf:  # else it is never due
            second = math.floor(when)
            timers = self._far.get(second)
            if timers is None:
                timers = self._far[second] = {}
                heapq.heappush(self._seconds, second)
            timers[timer] = None
        return timer

    def forget(self, timer: Timer) -> None:
        """A timer was cancelled."""
        if timer.when >= self._near_end:
            if timer.when < math.inf:
                del self._far[math.floor(timer.when)][timer]
            return
        self._cancelled += 1
        if self._cancelled > 100 and self._cancelled * 2 > len(self._near):
            self._near = [entry for entry in self._near if entry[2].action is not None]
            heapq.heapify(self._near)
            self._cancelled = 0

    def next_due(self) -> float:
        """When to call `pop_due` again: not later than the next timer is due; infinity when there is none."""
        near, seconds = self._near, self._seconds
        while near and near[0][2].action is None:
            heapq.heappop(near)
            self._cancelled -= 1
        if near:
            return near[0][0]
        while seconds and not self._far[seconds[0]]:
            del self._far[heapq.heappop(seconds)]
        return seconds[0] if seconds else math.inf

    def pop_due(self, now: float) -> Action | None:
        """Take out the next call that is due by now, if there is one."""
        if now >= self._near_end - 1:
            self._advance(math.floor(now) + 2)
        near = self._near
        while near and near[0][0] <= now:
            timer = heapq.heappop(near)[2]
            if timer.action is None:
                self._cancelled -= 1
            else:
                action, timer.action = timer.action, None
                return action
        return None

    def _advance(self, near_end: int) -> None:
        """Move what is due before `near_end` to the heap."""
        self._near_end = near_end
        while self._seconds and self._seconds[0] < near_end:
            for timer in self._far.pop(heapq.heappop(self._seconds)):
                heapq.heappush(self._near, (timer.when, next(self._ids), timer))

    @property
    def kept(self) -> int:
        """How many timers are in memory, cancelled ones included."""
        return len(self._near) + sum(map(len, self._far.values()))

    def __len__(self) -> int:
        """How many calls are to be made."""
        return self.kept - self._cancelled
