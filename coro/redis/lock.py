"""A lock among all clients of a server: `SET NX PX` with a token of its holder's.

    def report(lock: Lock) -> Coro[None]:
        yield from write_report(fence=lock.fence)

    yield from redis.lock("report", timeout=30).hold(report)

A lock is a lease: it ends by itself after `timeout` seconds, or it would stay for ever when its holder dies. Only who
has the token can extend it or give it up, by a script that compares and acts as one. `hold` extends it all the time,
and cancels its body when that fails; but no clock can exclude that a holder is stopped, its lease ends, somebody else
takes the lock, and then the first goes on for a moment. Where that matters, what the lock guards has to compare
`fence`: a number that is higher with each holder.

Specification: https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from coro import TaskCancelled, TaskGroup, now, shield, sleep, task_group, timeout
from coro.redis.commands.script import Script
from coro.redis.errors import LockLostError, RedisConnectionError, RedisError
from coro.task import Coro

T = TypeVar("T")

# The number of the holder is counted in a key beside the lock's, in the same slot of a cluster.
ACQUIRE = """
if redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return redis.call('incr', KEYS[2]) end
return false
"""
EXTEND = """
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end
return 0
"""
RELEASE = """
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
return 0
"""
LONGEST_PAUSE = 0.25  # seconds between two attempts to take a lock that somebody else holds
CLEAN_UP_TIME = 5.0  # seconds


class Lock:
    """Made by `Redis.lock`. One object is one holder: give each task its own."""

    def __init__(self, script: Callable[[str], Script], name: str, timeout: float) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a lock is a str, not {name!r}")
        if not isinstance(timeout, (int, float)):
            raise TypeError(f"a lock is held for a number of seconds, not for {timeout!r}")
        if not 0.001 <= timeout < math.inf:
            raise ValueError(f"a lock is held for a number of seconds, not for {timeout!r}")
        self.name = name
        self.timeout = timeout
        self.fence = 0  # higher than that of every holder before
        self._token = ""
        self._ends = -math.inf  # when the lease has ended at the latest, by our clock
        self._acquire, self._extend, self._release = script(ACQUIRE), script(EXTEND), script(RELEASE)
        # A key's slot is that of the part in braces.
        self._keys = (name, f"{name}:fence" if "{" in name else f"{{{name}}}:fence")

    def acquire(self, blocking_timeout: float | None = None) -> Coro[bool]:
        """Take the lock; False if that was not possible within `blocking_timeout` seconds (None: any time). Suspends.

        `RedisError`; after a `RedisConnectionError` the lock may be taken, until its time is up.
        """
        if self.remaining() > 0:
            raise RuntimeError(f"the lock {self.name!r} is held by this object already: give each task its own")
        token = secrets.token_hex(16)
        deadline = math.inf if blocking_timeout is None else now() + blocking_timeout
        pause = 0.01
        while True:
            started = now()
            fence = yield from self._attempt(token)
            if fence is not None:
                self._token, self.fence, self._ends = token, fence, started + self.timeout
                return True
            left = deadline - now()
            if left <= 0:
                return False
            yield from sleep(min(left, pause * random.uniform(0.5, 1)))
            pause = min(pause * 2, LONGEST_PAUSE)

    def release(self) -> Coro[None]:
        """Give the lock up. Suspends. `LockLostError` if it was not held any more, `RedisError`."""
        self._ends = -math.inf
        if not (yield from self._release(self._keys[:1], (self._token,))):
            raise self._lost()

    def extend(self) -> Coro[None]:
        """Hold the lock for `timeout` seconds from now on. Suspends. `LockLostError` if it is lost, `RedisError`."""
        started = now()
        if not (yield from self._extend(self._keys[:1], (self._token, self._milliseconds))):
            self._ends = -math.inf
            raise self._lost()
        self._ends = started + self.timeout

    def remaining(self) -> float:
        """For how many seconds the lock is held yet, by our clock; 0 if it is not. Does not suspend."""
        return max(0.0, self._ends - now())

    def hold(self, body: Callable[[Lock], Coro[T]], blocking_timeout: float | None = None) -> Coro[T]:
        """Take the lock, run `body(lock)` while it is extended again and again, and give it up; the result. Suspends.

        `LockLostError` when it could not be taken in time, or was lost: `body` is cancelled then. What `body` raises,
        also when the lock is lost meanwhile. `RedisError`.
        """
        if not (yield from self.acquire(blocking_timeout)):
            raise LockLostError(f"the lock {self.name!r} was held by others for {blocking_timeout:g} s")
        failure: RedisError | None = None

        def keep(group: TaskGroup) -> Coro[None]:
            nonlocal failure
            try:
                yield from self._keep()
            except RedisError as error:
                failure = error
                group.cancel()

        def run(group: TaskGroup) -> Coro[T]:
            keeping = group.spawn(keep(group), name=f"lock {self.name!r}")
            try:
                return (yield from body(self))
            finally:
                keeping.cancel()

        try:
            return (yield from task_group(run))
        except TaskCancelled:
            if failure is None:
                raise
            raise failure from None
        finally:
            if self.remaining() > 0:
                yield from self._clean_up(self._token)

    def _keep(self) -> Coro[None]:
        """Extend the lock all the time; `LockLostError` when that does not succeed before it ends."""
        while True:
            yield from sleep(self.remaining() - self.timeout * 2 / 3)
            try:
                with timeout(self.remaining()):
                    yield from self.extend()
            except TimeoutError:
                raise self._lost() from None
            except RedisConnectionError as error:
                if self.remaining() <= 0:
                    raise self._lost() from error
                yield from sleep(self.timeout / 100)

    def _attempt(self, token: str) -> Coro[int | None]:
        try:
            fence: int | None = yield from self._acquire(self._keys, (token, self._milliseconds))
            return fence
        except GeneratorExit:
            raise
        except BaseException:
            yield from self._clean_up(token)  # it may have been taken, for nobody
            raise

    def _clean_up(self, token: str) -> Coro[None]:
        with shield(), suppress(RedisError, TimeoutError), timeout(CLEAN_UP_TIME):
            self._ends = -math.inf
            yield from self._release(self._keys[:1], (token,))

    @property
    def _milliseconds(self) -> int:
        return int(self.timeout * 1000)

    def _lost(self) -> LockLostError:
        return LockLostError(f"the lock {self.name!r} was lost: it had not been extended for {self.timeout:g} s")

    def __repr__(self) -> str:
        return f"<Lock {self.name!r}>"
