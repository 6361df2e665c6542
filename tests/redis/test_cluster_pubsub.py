"""Subscriptions and watched transactions on a real cluster, whose slots move."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

import coro
from coro import ClosedError, Coro
from coro.redis import CrossSlotError, Gap, Message, PubSub, RedisCluster, Transaction, WatchError
from coro.redis.slots import key_slot
from tests.topologies import RedisCluster as ClusterServers

TAGS = itertools.count()


@pytest.fixture
def tag() -> str:
    """The beginning of names that no other test has: nodes pass messages on, which may arrive in the next test."""
    return f"channel{next(TAGS)}"


def run(servers: ClusterServers, body: Callable[[RedisCluster[str]], Coro[Any]]) -> None:
    coro.run(body(RedisCluster.from_url(servers.url, decode=True)))


# --- Messages ------------------------------------------------------------------------------------


def test_message_published_at_any_node_comes_to_a_subscriber_at_any_other(
    redis_cluster: ClusterServers, tag: str
) -> None:
    news, weather, pattern = f"{tag}news", f"{tag}weather", f"{tag}w*"

    def body(redis: RedisCluster[str]) -> Coro[None]:
        pubsub = redis.pubsub()
        yield from pubsub.subscribe(news)
        yield from pubsub.psubscribe(pattern)
        for number in range(10):  # by a node chosen anew each time
            yield from redis.publish(news, number)
            assert (yield from pubsub.get_message()) == Message(news, str(number))
            yield from redis.publish(weather, number)
            assert (yield from pubsub.get_message()) == Message(weather, str(number), pattern)
        assert (yield from redis.pubsub_channels()) == [news]
        assert (yield from redis.pubsub_numsub(news, "nothing")) == [(news, 1), ("nothing", 0)]
        assert (yield from redis.pubsub_numpat()) == 1
        pubsub.close()

    run(redis_cluster, body)


def test_loop_of_another_thread_is_refused_and_harms_no_subscription(
    redis_cluster: ClusterServers, tag: str
) -> None:
    def body(redis: RedisCluster[str]) -> Coro[None]:
        pubsub = redis.pubsub()
        yield from pubsub.subscribe(tag)
        for another in pubsub, redis.pubsub():
            with pytest.raises(RuntimeError, match="is in use by another loop"):
                yield from coro.to_thread(run_in_thread, another)
        yield from redis.publish(tag, 1)
        assert (yield from pubsub.get_message()) == Message(tag, "1")
        pubsub.close()

    def run_in_thread(pubsub: PubSub[str]) -> None:
        coro.run(pubsub.subscribe(tag, "more"))

    run(redis_cluster, body)


def test_sharded_channels_are_at_the_nodes_of_their_slots(redis_cluster: ClusterServers, tag: str) -> None:
    names = [tag + letter for letter in "abcdef"]

    def body(redis: RedisCluster[str]) -> Coro[None]:
        subscriptions = {}
        for name in names:
            subscriptions[name] = redis.pubsub()
            yield from subscriptions[name].ssubscribe(name, f"{{{name}}}more")
            yield from subscriptions[name].subscribe(tag)
        for name, pubsub in subscriptions.items():
            yield from redis.spublish(name, f"to {name}")
            yield from redis.spublish(f"{{{name}}}more", "more")
            assert (yield from pubsub.get_message()) == Message(name, f"to {name}")
            assert (yield from pubsub.get_message()) == Message(f"{{{name}}}more", "more")
        assert sorted((yield from redis.pubsub_shardchannels(f"{tag}?"))) == names
        yield from redis.publish(tag, "hello")
        for pubsub in subscriptions.values():
            assert (yield from pubsub.get_message()) == Message(tag, "hello")
            pubsub.close()

    run(redis_cluster, body)


def test_sharded_channels_of_several_slots_take_several_subscriptions(redis_cluster: ClusterServers) -> None:
    def body(redis: RedisCluster[str]) -> Coro[None]:
        pubsub = redis.pubsub()
        with pytest.raises(CrossSlotError, match="SSUBSCRIBE was given keys of different slots"):
            yield from pubsub.ssubscribe("a", "b")
        yield from pubsub.ssubscribe("a")
        with pytest.raises(CrossSlotError, match="make another one"):
            yield from pubsub.ssubscribe("b")
        pubsub.close()

    run(redis_cluster, body)


def test_subscription_moves_to_the_node_of_its_first_sharded_channel(redis_cluster: ClusterServers, tag: str) -> None:
    def body(redis: RedisCluster[str]) -> Coro[None]:
        for name in [tag + letter for letter in "abcdef"]:
            pubsub = redis.pubsub()
            yield from pubsub.subscribe(tag)  # at any node
            yield from pubsub.ssubscribe(name)
            yield from redis.spublish(name, "x")
            message = yield from pubsub.get_message()
            if isinstance(message, Gap):
                message = yield from pubsub.get_message()
            assert message == Message(name, "x")
            pubsub.close()

    run(redis_cluster, body)


def test_sharded_channel_whose_slot_moves_is_subscribed_again_where_it_went(
    redis_cluster: ClusterServers, tag: str
) -> None:
    def body(redis: RedisCluster[str]) -> Coro[None]:
        pubsub = redis.pubsub()
        yield from pubsub.ssubscribe(tag)
        for number in range(2):
            redis_cluster.move(key_slot(tag.encode()))
            assert isinstance((yield from pubsub.get_message()), Gap)
            yield from redis.spublish(tag, number)
            assert (yield from pubsub.get_message()) == Message(tag, str(number))
        pubsub.close()

    run(redis_cluster, body)


def test_sharded_channel_of_a_slot_that_has_moved_is_found(redis_cluster: ClusterServers, tag: str) -> None:
    def body(redis: RedisCluster[str]) -> Coro[None]:
        yield from redis.dbsize()
        redis_cluster.move(key_slot(tag.encode()))
        pubsub = redis.pubsub()
        yield from pubsub.ssubscribe(tag)
        yield from redis.spublish(tag, "x")
        messages = [(yield from pubsub.get_message())]
        if isinstance(messages[0], Gap):
            messages = [(yield from pubsub.get_message())]
        assert messages == [Message(tag, "x")]
        pubsub.close()

    run(redis_cluster, body)


def test_subscription_ends_with_its_client(redis_cluster: ClusterServers) -> None:
    def body(redis: RedisCluster[str]) -> Coro[None]:
        pubsub = redis.pubsub()
        yield from pubsub.subscribe("news")
        redis.close()
        with pytest.raises(ClosedError):
            yield from pubsub.get_message()
        with pytest.raises(ClosedError):
            yield from redis.pubsub().subscribe("news")

    run(redis_cluster, body)


# --- Transactions with WATCH -----------------------------------------------------------------------


def test_watched_transactions_of_many_tasks_lose_no_update(redis_cluster: ClusterServers) -> None:
    keys = [f"watched{number}" for number in range(5)]

    def body(redis: RedisCluster[str]) -> Coro[None]:
        def add(key: str) -> Coro[None]:
            def once(transaction: Transaction[Any]) -> Coro[None]:
                value = int((yield from transaction.get(key)) or 0)
                transaction.multi()
                transaction.set(key, value + 1)

            yield from redis.transaction(once, key)

        yield from coro.gather(*[add(key) for key in keys * 6])
        assert (yield from redis.mget(keys)) == ["6"] * 5

    run(redis_cluster, body)


def test_watched_key_of_a_slot_that_has_moved(redis_cluster: ClusterServers, tag: str) -> None:
    runs = []

    def once(transaction: Transaction[Any]) -> Coro[None]:
        runs.append((yield from transaction.get(tag)))
        transaction.multi()
        transaction.incr(tag)

    def body(redis: RedisCluster[str]) -> Coro[None]:
        yield from redis.set(tag, 1)
        redis_cluster.move(key_slot(tag.encode()))
        assert (yield from redis.transaction(once, tag)) == [2]
        assert runs == ["1"]  # the refused WATCH comes before
        redis_cluster.move(key_slot(tag.encode()))
        assert (yield from redis.transaction(once)) == [3]  # whose keys nobody knew

    run(redis_cluster, body)


def test_watched_keys_of_several_slots(redis_cluster: ClusterServers) -> None:
    def once(transaction: Transaction[Any]) -> Coro[None]:
        yield from ()

    def body(redis: RedisCluster[str]) -> Coro[None]:
        with pytest.raises(CrossSlotError):
            yield from redis.transaction(once, "a", "b")

    run(redis_cluster, body)


def test_key_that_changes_each_time(redis_cluster: ClusterServers) -> None:
    def body(redis: RedisCluster[str]) -> Coro[None]:
        def once(transaction: Transaction[Any]) -> Coro[None]:
            yield from redis.incr("key")
            transaction.multi()
            transaction.get("key")

        with pytest.raises(WatchError, match="in each of 3 attempts"):
            yield from redis.transaction(once, "key", attempts=3)
        assert (yield from redis.get("key")) == "3"

    run(redis_cluster, body)


def test_lock_in_a_cluster(redis_cluster: ClusterServers) -> None:
    def body(redis: RedisCluster[str]) -> Coro[None]:
        for name in "abc":
            lock, other = redis.lock(name, 30), redis.lock(name, 30)
            assert (yield from lock.acquire())
            assert not (yield from other.acquire(blocking_timeout=0))
            yield from lock.release()
            assert (yield from other.acquire())
            assert other.fence > lock.fence
            yield from other.release()

    run(redis_cluster, body)
