"""Callers that are cancelled, thousands of them: nobody ever gets the reply to another's command, and nothing leaks."""

from __future__ import annotations

import random

import pytest

import coro
from coro import Coro, TaskCancelled, TaskGroup
from coro.redis import Redis
from tests.proxy import Proxy, through_proxy
from tests.services import RedisServer

ROUNDS = 10_000
STEPS = 16  # a GET takes fewer turns of the loop, so some of the calls are not cut short
NOTHING_WAITS = "0 unsent, 0 unanswered"
ALL_IS_BACK = "0 of 50 own connections lent"
NAMES = [f"name {number}" for number in range(64)]


@pytest.mark.parametrize(
    ("kind", "rounds"), [("a command", ROUNDS), ("a pipeline", ROUNDS), ("a transaction", ROUNDS // 10)]
)
def test_thousands_of_callers_cancelled_at_every_step(redis_database: str, kind: str, rounds: int) -> None:
    """GET a, cancel after 0, 1, 2, ... turns of the loop, GET b: always b's value."""
    redis = Redis.from_url(redis_database)
    cancelled = 0

    def get(name: str) -> Coro[object]:
        if kind == "a command":
            return redis.get(name)
        pipeline = redis.pipeline(kind == "a transaction")
        pipeline.get(name)
        return pipeline.execute()

    def body(group: TaskGroup) -> Coro[None]:
        nonlocal cancelled
        yield from redis.mset({"a": "value of a", "b": "value of b"})
        of_a, of_b = (yield from get("a")), (yield from get("b"))
        assert of_a in (b"value of a", [b"value of a"]) and of_a != of_b
        for number in range(rounds):
            task = group.spawn(get("a"))
            for _ in range(number % STEPS):
                yield from coro.checkpoint()
            task.cancel()
            assert (yield from get("b")) == of_b
            try:
                assert (yield from task.join()) == of_a
            except TaskCancelled:
                cancelled += 1

    coro.run(coro.task_group(body))
    assert 0 < cancelled < rounds
    assert NOTHING_WAITS in repr(redis) and ALL_IS_BACK in repr(redis.pool)


def test_callers_that_do_not_wait_for_replies_that_come_late(redis_server: RedisServer) -> None:
    """Every reply comes 100 ms late; callers give up before, while and after it comes."""
    numbers = random.Random(3)
    redis_server.command("FLUSHALL")

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

        def use(name: str) -> Coro[None]:
            nonlocal late
            for _ in range(10):
                with coro.move_on_after(numbers.uniform(0, 0.2)) as scope:
                    yield from numbers.choice([plain, pipelined])(name)
                late += scope.cancelled_caught

        yield from coro.gather(*map(use, NAMES))
        proxy.delay = 0
        yield from coro.gather(*map(plain, NAMES))
        assert 0 < late < 640
        assert NOTHING_WAITS in repr(redis) and ALL_IS_BACK in repr(redis.pool)

    coro.run(through_proxy(redis_server.port, body))


def test_half_closed_connections_at_any_time(redis_server: RedisServer) -> None:
    """The server says that it has finished, now and then: calls fail or succeed, and get their own reply."""
    redis_server.command("FLUSHALL")

    def body(proxy: Proxy) -> Coro[None]:
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")
        yield from redis.mset({name: f"value of {name}" for name in NAMES})
        failed = succeeded = 0
        ended = False

        def use(name: str) -> Coro[None]:
            nonlocal failed, succeeded
            while not ended:
                try:
                    assert (yield from redis.get(name)) == f"value of {name}".encode()
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

        yield from coro.gather(end(), *map(use, NAMES))
        assert failed
        assert NOTHING_WAITS in repr(redis)

    coro.run(through_proxy(redis_server.port, body))
