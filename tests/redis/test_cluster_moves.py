"""Slots that move from node to node while the client uses their keys, on a real cluster."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

import coro
from coro import Coro
from coro.redis import RedisCluster, TryAgainError
from coro.redis.slots import key_slot
from tests.topologies import ClusterNode
from tests.topologies import RedisCluster as ClusterServers

TAGS = itertools.count()  # each test has a slot of its own, wherever that is by now


@pytest.fixture
def tag() -> str:
    return f"tag{next(TAGS)}"


def refusals(node: ClusterNode, command: str) -> int:
    """How often a node has answered a command with an error before carrying it out: MOVED, ASK, TRYAGAIN."""
    told = node.info("commandstats").get(f"cmdstat_{command}", {"rejected_calls": 0})
    return int(told["rejected_calls"])


def errors(node: ClusterNode, prefix: str) -> int:
    """How often a node has answered with an error of this kind."""
    told = node.info("errorstats").get(f"errorstat_{prefix}", {"count": 0})
    return int(told["count"])


def run_warm(servers: ClusterServers, body: Callable[[RedisCluster], Coro[Any]]) -> Any:
    """Run `body` with a client that knows the cluster already."""
    redis = RedisCluster.from_url(servers.url)

    def main() -> Coro[Any]:
        yield from redis.dbsize()
        return (yield from body(redis))

    return coro.run(main())


def test_slot_that_has_moved_is_followed_at_the_cost_of_one_redirection(
    redis_cluster: ClusterServers, tag: str
) -> None:
    slot = key_slot(tag.encode())

    def body(redis: RedisCluster) -> Coro[None]:
        yield from redis.set(tag, "before")
        redis_cluster.move(slot)
        assert (yield from redis.get(tag)) == b"before"
        for number in range(20):
            yield from redis.set(tag, number)
        assert (yield from redis.get(tag)) == b"19"

    run_warm(redis_cluster, body)
    assert sum(errors(node, "MOVED") for node in redis_cluster.nodes) == 1


def test_key_of_a_moving_slot_is_asked_for_where_it_is(redis_cluster: ClusterServers, tag: str) -> None:
    slot = key_slot(tag.encode())
    keys = [f"{{{tag}}}{number}" for number in range(20)]

    def body(redis: RedisCluster) -> Coro[None]:
        for key in keys:
            yield from redis.set(key, key)
        with redis_cluster.migrating(slot) as (source, target):
            redis_cluster.move_keys(source, target, *keys[:10])
            for key in keys:
                assert (yield from redis.get(key)) == key.encode()
                assert (yield from redis.append(key, "!")) == len(key) + 1
            assert (yield from redis.get(f"{{{tag}}}new")) is None
            yield from redis.set(f"{{{tag}}}new", "made where the slot goes")
            assert target.command("CLUSTER", "COUNTKEYSINSLOT", slot) == 11
            assert (yield from redis.blpop(f"{{{tag}}}list", 0.01)) is None
            assert errors(source, "ASK") == 23
        assert (yield from redis.mget(keys)) == [f"{key}!".encode() for key in keys]

    run_warm(redis_cluster, body)


def test_pipeline_over_a_moving_slot_has_every_result_in_its_place(redis_cluster: ClusterServers, tag: str) -> None:
    slot = key_slot(tag.encode())
    keys = [f"{{{tag}}}{number}" for number in range(30)]

    def body(redis: RedisCluster) -> Coro[None]:
        for key in keys:
            yield from redis.set(key, 0)
        with redis_cluster.migrating(slot) as (source, target):
            redis_cluster.move_keys(source, target, *keys[::3])
            results = yield from in_pipeline(redis)
            assert results == [result for key in keys for result in (1, True, 11, b"0")]
        results = yield from in_pipeline(redis)  # and now it has moved
        assert results == [result for key in keys for result in (12, False, 22, b"0")]

    def in_pipeline(redis: RedisCluster) -> Coro[list[Any]]:
        pipeline = redis.pipeline(transaction=False)
        for number, key in enumerate(keys):
            pipeline.incr(key)
            pipeline.setnx(f"{{{tag}}}new{number}", 1)
            pipeline.incr(key, 10)
            pipeline.getrange("{elsewhere}" + key, 0, 0)
        return (yield from pipeline.execute())

    def prepared(redis: RedisCluster) -> Coro[None]:
        for key in keys:
            yield from redis.set("{elsewhere}" + key, "0123")
        yield from body(redis)

    run_warm(redis_cluster, prepared)


def test_keys_in_two_places_are_tried_again_until_they_are_in_one(redis_cluster: ClusterServers, tag: str) -> None:
    slot = key_slot(tag.encode())
    a, b = f"{{{tag}}}a", f"{{{tag}}}b"

    def body(redis: RedisCluster) -> Coro[None]:
        yield from redis.mset({a: 1, b: 2})
        with redis_cluster.migrating(slot) as (source, target):
            redis_cluster.move_keys(source, target, a)

            def finish() -> Coro[None]:
                while not errors(source, "TRYAGAIN"):
                    yield from coro.checkpoint()
                redis_cluster.move_keys(source, target, b)

            values, _ = yield from coro.gather(redis.mget(a, b), finish())
            assert values == [b"1", b"2"]

    run_warm(redis_cluster, body)


def test_keys_that_stay_in_two_places_are_an_error_in_the_end(
    redis_cluster: ClusterServers, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coro.redis.dispatch.FIRST_WAIT", 0.001)
    slot = key_slot(tag.encode())
    a, b = f"{{{tag}}}a", f"{{{tag}}}b"

    def body(redis: RedisCluster) -> Coro[None]:
        yield from redis.mset({a: 1, b: 2})
        with redis_cluster.migrating(slot) as (source, target):
            redis_cluster.move_keys(source, target, a)
            with pytest.raises(TryAgainError):
                yield from redis.mget(a, b)
            assert errors(source, "TRYAGAIN") == 6

    run_warm(redis_cluster, body)


def test_transaction_waits_for_a_slot_that_moves_and_follows_one_that_has_moved(
    redis_cluster: ClusterServers, tag: str
) -> None:
    slot = key_slot(tag.encode())
    key = f"{{{tag}}}key"

    def transaction(redis: RedisCluster) -> Coro[list[Any]]:
        pipeline = redis.pipeline()
        pipeline.incr(key)
        pipeline.incr(key)
        return (yield from pipeline.execute())

    def body(redis: RedisCluster) -> Coro[None]:
        assert (yield from transaction(redis)) == [1, 2]
        redis_cluster.move(slot)
        assert (yield from transaction(redis)) == [3, 4]
        migration = redis_cluster.migrating(slot)
        source, target = migration.__enter__()
        try:
            redis_cluster.move_keys(source, target, key)

            def finish() -> Coro[None]:
                while not errors(source, "ASK"):
                    yield from coro.checkpoint()
                migration.__exit__(None, None, None)

            results, _ = yield from coro.gather(transaction(redis), finish())
            assert results == [5, 6]
        except BaseException:
            migration.__exit__(None, None, None)
            raise

    run_warm(redis_cluster, body)


def test_counters_of_a_slot_that_moves_to_and_fro_under_load_lose_nothing(
    redis_cluster: ClusterServers, tag: str
) -> None:
    slot = key_slot(tag.encode())
    keys = [f"{{{tag}}}{number}" for number in range(50)]
    rounds = 5

    def body(redis: RedisCluster) -> Coro[None]:
        counts = dict.fromkeys(keys, 0)
        moving = True

        def use(key: str) -> Coro[None]:
            while moving:
                counts[key] += 1
                assert (yield from redis.incr(key)) == counts[key]

        def move() -> Coro[None]:
            nonlocal moving
            for _ in range(rounds):
                with redis_cluster.migrating(slot) as (source, target):
                    for key in keys:
                        redis_cluster.move_keys(source, target, key)
                        yield from coro.checkpoint()
                        yield from redis.ping()
            moving = False

        yield from coro.gather(move(), *map(use, keys))
        assert [int(value or 0) for value in (yield from redis.mget(keys))] == [*counts.values()]
        assert min(counts.values()) > rounds

    run_warm(redis_cluster, body)
