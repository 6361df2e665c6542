"""Callers that are cancelled, thousands of them: nobody ever gets the reply to another's command, and nothing leaks."""

from __future__ import annotations

import math
import random
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

import coro
from coro import Coro, Task, TaskCancelled, TaskGroup
from coro.redis import Redis, Transaction
from tests.proxy import Proxy, through_proxy
from tests.services import RedisServer

ROUNDS = 10_000
SHARES = {"a command": 1, "a pipeline": 1, "a transaction": 2, "a watched key": 4}  # tests that they are shared among
STEPS = {"a command": 16, "a pipeline": 24, "a transaction": 32, "a watched key": 100}  # turns of the loop, about
NOTHING_WAITS = "0 unsent, 0 unanswered"
ALL_IS_BACK = "0 of 50 own connections lent"
SHARED = ("a command", "a pipeline")  # that use the connection of all tasks
NAMES = [f"name {number}" for number in range(64)]


def get_by(redis: Redis, kind: str, name: str) -> Coro[object]:
    """GET by one of the ways; but for a command, its value stands in a list."""
    if kind == "a command":
        return redis.get(name)
    if kind == "a watched key":
        return redis.transaction(partial(watched_get, name), name)
    pipeline = redis.pipeline(kind == "a transaction")
    pipeline.get(name)
    return pipeline.execute()


def watched_get(name: str, transaction: Transaction) -> Coro[None]:
    yield from transaction.get(name)
    transaction.multi()
    transaction.get(name)


def values(name: str) -> tuple[object, ...]:
    """What GET of this name says: by a command, and by the others."""
    value = f"value of {name}".encode()
    return value, [value]


def ended(task: Task[Any]) -> Coro[None]:
    with suppress(TaskCancelled):
        yield from task.join()


@pytest.mark.parametrize(("kind", "share"), [(kind, share) for kind in STEPS for share in range(SHARES[kind])])
def test_thousands_of_callers_cancelled_at_every_step(redis_server: RedisServer, kind: str, share: int) -> None:
    """GET a, cancel after 0, 1, 2, ... turns of the loop, GET b: always b's value. Sixteen pairs do so at once."""
    steps = STEPS[kind]
    rounds = ROUNDS // 16 // SHARES[kind]  # of each pair
    cancelled = 0

    def body(proxy: Proxy) -> Coro[None]:
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")
        yield from redis.mset({name: f"value of {name}" for name in NAMES})

        def check(group: TaskGroup, a: str, b: str) -> Coro[None]:
            nonlocal cancelled
            for number in range(share * rounds, (share + 1) * rounds):
                task = group.spawn(get_by(redis, kind, a))
                for _ in range(number % steps):
                    yield from coro.checkpoint()
                if number % steps < steps - 1:  # the last is not cut short
                    task.cancel()
                if number // steps % 2:  # b may have the connection that a had
                    yield from ended(task)
                assert (yield from get_by(redis, kind, b)) in values(b)
                try:
                    assert (yield from task.join()) in values(a)
                except TaskCancelled:
                    cancelled += 1

        pairs = zip(NAMES[:16], NAMES[16:32], strict=True)
        yield from coro.gather(*[coro.task_group(partial(check, a=a, b=b)) for a, b in pairs])
        assert 0 < cancelled < 16 * rounds
        assert NOTHING_WAITS in repr(redis) and ALL_IS_BACK in repr(redis.pool)

    coro.run(through_proxy(redis_server.port, body))


def test_callers_that_do_not_wait_for_replies_that_come_late(redis_server: RedisServer) -> None:
    """Every reply comes 100 ms late; callers give up before, while and after it comes."""
    numbers = random.Random(3)

    def body(proxy: Proxy) -> Coro[None]:
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")
        yield from redis.mset({name: f"value of {name}" for name in NAMES})
        proxy.delay = 0.1
        late = 0

        def plain(name: str) -> Coro[None]:
            assert (yield from redis.get(name)) == f"value of {name}".encode()

        def pipelined(name: str) -> Coro[None]:
            pipeline = redis.pipeline(transaction=numbers.random() < 0.1)
            pipeline.get(name)
            pipeline.echo(name)
            assert (yield from pipeline.execute()) == [f"value of {name}".encode(), name.encode()]

        def watched(name: str) -> Coro[None]:
            assert (yield from get_by(redis, "a watched key", name)) == [f"value of {name}".encode()]

        def use(name: str) -> Coro[None]:
            nonlocal late
            for number in range(10):
                patience = numbers.uniform(0, 0.2) if number % 5 else math.inf  # on a slow machine all others are late
                with coro.move_on_after(patience) as scope:
                    yield from numbers.choice([plain, plain, pipelined, pipelined, watched])(name)
                late += scope.cancelled_caught

        yield from coro.gather(*map(use, NAMES))
        proxy.delay = 0
        yield from coro.gather(*map(plain, NAMES))
        assert late
        assert NOTHING_WAITS in repr(redis) and ALL_IS_BACK in repr(redis.pool)

    coro.run(through_proxy(redis_server.port, body))


@pytest.mark.parametrize("kind", STEPS)
def test_half_closed_connections_at_any_time(redis_server: RedisServer, kind: str) -> None:
    """The server says that it has finished, now and then: calls fail or succeed, and get their own reply."""

    def body(proxy: Proxy) -> Coro[None]:
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")
        yield from redis.mset({name: f"value of {name}" for name in NAMES})
        failed = succeeded = 0
        ended = False

        def use(name: str) -> Coro[None]:
            nonlocal failed, succeeded
            while not ended:
                try:
                    assert (yield from get_by(redis, kind, name)) in values(name)
                    succeeded += 1
                except ConnectionError:
                    failed += 1
                    yield from coro.sleep(0.001)

        def end() -> Coro[None]:
            nonlocal ended
            for number in range(50):
                goal = succeeded + 100 + number
                while succeeded < goal:
                    yield from coro.checkpoint()
                proxy.half_close()
            ended = True

        yield from coro.gather(end(), *map(use, NAMES if kind in SHARED else NAMES[:16]))
        assert failed
        assert NOTHING_WAITS in repr(redis) and ALL_IS_BACK in repr(redis.pool)

    coro.run(through_proxy(redis_server.port, body))
