"""Ten minutes of everything at once, with connections cut all the time: memory and descriptors stay as they were.

`make soak` runs it. `CORO_SOAK_SECONDS` makes it shorter.
"""

from __future__ import annotations

import gc
import logging
import os
import random
from contextlib import suppress
from itertools import count

import pytest

import coro
from coro import Coro, TaskGroup
from coro.redis import Gap, Lock, LockLostError, Redis, RedisConnectionError, RedisError, Transaction
from tests.proxy import Proxy, through_proxy
from tests.redis.fake import settle
from tests.services import RedisServer

SECONDS = float(os.environ.get("CORO_SOAK_SECONDS", "600"))
SAMPLES = 20
GROWTH = 2 * 1024 * 1024  # bytes more than at a fifth of the time, at most: the allocator takes steps of 1 MiB
TASKS = 8  # of each kind


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Soak:
    """One client, and the tasks that use it."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.numbers = random.Random(5)
        self.commands = self.failures = self.gaps = self.messages = 0

    def forever(self, name: str) -> Coro[None]:
        """Do one kind of thing again and again; some of it is cancelled, some fails with its connection."""
        for number in count():
            try:
                with coro.move_on_after(self.numbers.choice([0.0005, 0.002, 5.0])):
                    yield from getattr(self, name)(f"{name} {number % 50}")
                self.commands += 1
            except (RedisConnectionError, LockLostError):
                self.failures += 1
            yield from coro.sleep(self.numbers.random() * 0.1)

    def plain(self, key: str) -> Coro[None]:
        yield from self.redis.set(key, key * self.numbers.choice([1, 10, 10_000]), ex=10)
        value = yield from self.redis.get(key)
        assert value is None or value.startswith(key.encode())

    def pipelined(self, key: str) -> Coro[None]:
        pipeline = self.redis.pipeline(transaction=self.numbers.random() < 0.5)
        for _ in range(20):
            pipeline.incr(key)
        results = yield from pipeline.execute()
        assert len(results) == 20

    def watched(self, key: str) -> Coro[None]:
        def body(transaction: Transaction) -> Coro[None]:
            value = yield from transaction.get(key)
            transaction.multi()
            transaction.set(key, int(value or 0) + 1)

        yield from self.redis.transaction(body, key)

    def blocking(self, key: str) -> Coro[None]:
        if self.numbers.random() < 0.5:
            yield from self.redis.rpush("queue", key)
        yield from self.redis.blpop("queue", 0.05)

    def locked(self, key: str) -> Coro[None]:
        def body(lock: Lock) -> Coro[None]:
            yield from self.redis.ping()

        yield from self.redis.lock("lock", 1).hold(body, blocking_timeout=0.1)

    def listen(self) -> Coro[None]:
        while True:
            pubsub = self.redis.pubsub(max_messages=100)
            with suppress(RedisError):
                yield from pubsub.subscribe("a", "b")
                for _ in range(1000):
                    message = yield from pubsub.get_message()
                    self.gaps += isinstance(message, Gap)
                    self.messages += 1
            pubsub.close()
            yield from coro.sleep(0.01)

    def publish(self) -> Coro[None]:
        while True:
            with suppress(RedisError):
                yield from self.redis.publish(self.numbers.choice("ab"), "x" * self.numbers.choice([1, 2000]))
            yield from coro.sleep(0.005)


@pytest.mark.soak
def test_ten_minutes_leave_memory_as_it_was(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)  # what is logged would be kept
    samples: list[int] = []

    def body(proxy: Proxy) -> Coro[None]:
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")
        soak = Soak(redis)

        def run(group: TaskGroup) -> Coro[None]:
            for name in "plain", "pipelined", "watched", "blocking", "locked":
                for _ in range(TASKS):
                    group.spawn(soak.forever(name))
            group.spawn(soak.listen())
            group.spawn(soak.publish())
            for _ in range(SAMPLES):
                readings: list[int] = []
                end = coro.now() + SECONDS / SAMPLES
                while coro.now() < end:
                    yield from coro.sleep(min(1.0, end - coro.now()))
                    proxy.cut()
                    proxy.requests.clear()
                    proxy.replies.clear()
                    gc.collect()
                    readings.append(resident())
                samples.append(min(readings))  # what is under way comes and goes; what stays is in the least
            group.cancel()

        with coro.move_on_after(SECONDS * 2):
            yield from coro.task_group(run)
        redis.close()
        yield from settle()
        assert "0 unsent, 0 unanswered" in repr(redis)
        assert repr(redis.pool) == "0 of 50 own connections lent, 0 idle"
        print(
            f"\n{soak.commands} calls done, {soak.failures} failed with their connection, {soak.messages} messages,"
            f" {soak.gaps} gaps, {proxy.connections} connections"
        )
        assert soak.commands > 100 and soak.failures > 10 and soak.gaps > 1

    before = descriptors()
    with suppress(coro.TaskCancelled):
        coro.run(through_proxy(redis_server.port, body))
    assert descriptors() == before
    megabytes = ", ".join(f"{size / 1e6:.1f}" for size in samples)
    print(f"resident megabytes: {megabytes}")
    steady = samples[SAMPLES // 5 :]
    assert min(steady[-4:]) - min(steady[:4]) < GROWTH, megabytes
