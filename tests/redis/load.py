"""Load on counters, of which it is known afterwards what they may and may not be."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import coro
from coro import Coro
from coro.redis import RedisConnectionError, RedisError
from tests.redis.fake import settle
from tests.services import RedisServer

KEYS = [f"counter{number}" for number in range(64)]


class Counters:
    """Tasks that count up, each a key of its own, and note what they were told."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.acknowledged = dict.fromkeys(KEYS, 0)
        self.lost = dict.fromkeys(KEYS, 0)  # sent, and not answered
        self.errors: list[RedisError] = []
        self.going_on = True

    def count(self, key: str) -> Coro[None]:
        while self.going_on:
            try:
                yield from self.redis.incr(key)
                self.acknowledged[key] += 1
            except RedisError as error:
                self.errors.append(error)
                self.lost[key] += isinstance(error, RedisConnectionError) and error.sent
                yield from coro.sleep(0.005)

    def advance(self, keys: list[str], by: int) -> Coro[None]:
        """Return when each of the keys has been counted up so many times more."""
        goals = {key: self.acknowledged[key] + by for key in keys}
        while any(self.acknowledged[key] < goal for key, goal in goals.items()):
            yield from coro.sleep(0.005)

    def check(self) -> Coro[None]:
        """Every counter is what it was said to be, or more by some of those of which nobody was told."""
        for key in KEYS:
            value = int((yield from self.redis.get(key)) or 0)
            assert self.acknowledged[key] <= value <= self.acknowledged[key] + self.lost[key]


def run_load(redis: Any, disturb: Callable[[Counters], Coro[None]]) -> Counters:
    """Count with all keys at once while `disturb(counters)` runs; then check the counters."""
    counters = Counters(redis)

    def stop_after() -> Coro[None]:
        yield from counters.advance(KEYS, 20)
        yield from disturb(counters)
        counters.going_on = False

    def main() -> Coro[None]:
        yield from coro.gather(stop_after(), *map(counters.count, KEYS))
        yield from counters.check()

    coro.run(main())
    return counters


def stop(victim: RedisServer) -> Coro[None]:
    """Stop a server; return when commands that it does not answer have been sent to it."""
    os.kill(victim.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, victim.pid, os.WSTOPPED)
    yield from settle()  # what it had answered has been read, and the next was sent
