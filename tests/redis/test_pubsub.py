"""Messages: what is subscribed to arrives, in order, once; and what is missed is told."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import coro
from coro import ClosedError, Coro, TaskCancelled, TaskGroup
from coro.redis import Gap, Message, NoPermissionError, PubSub, Redis, RedisError
from tests.redis.fake import settle
from tests.services import RedisServer

ALL_IS_BACK = "0 of 50 own connections lent"


def arrived(pubsub: PubSub, count: int) -> Coro[None]:
    """Return when so many messages wait to be taken."""
    while f"{count} waiting" not in repr(pubsub):
        yield from coro.checkpoint()


def taken(pubsub: PubSub, count: int) -> Coro[list[Message | Gap]]:
    """So many messages, with the gaps among them."""
    items: list[Message | Gap] = []
    while len(items) < count:
        items.append((yield from pubsub.get_message()))
    return items


# --- Subscribing and receiving -----------------------------------------------------------------


def test_messages_of_channels_patterns_and_sharded_channels(database: str) -> None:
    redis = Redis.from_url(database)

    def main() -> Coro[None]:
        pubsub = redis.pubsub()
        yield from pubsub.subscribe("news", b"other")
        yield from pubsub.psubscribe("new*")
        yield from pubsub.ssubscribe("shard")
        assert (yield from redis.publish("news", b"\xff\r\n")) == 2
        assert (yield from redis.spublish("shard", "text")) == 1
        assert (yield from redis.publish("newer", "text")) == 1
        expected = {
            Message(b"news", b"\xff\r\n"),
            Message(b"news", b"\xff\r\n", b"new*"),
            Message(b"shard", b"text"),
            Message(b"newer", b"text", b"new*"),
        }
        got = set()
        for _ in range(4):
            message = yield from pubsub.get_message()
            assert isinstance(message, Message)
            got.add(message)
        assert got == expected
        pubsub.close()
        yield from settle()
        assert ALL_IS_BACK in repr(redis.pool)

    coro.run(main())


def test_messages_are_text_where_the_client_decodes(database: str) -> None:
    redis, binary = Redis.from_url(database, decode=True), Redis.from_url(database)

    def main() -> Coro[None]:
        pubsub = redis.pubsub()
        yield from pubsub.psubscribe("n*")
        yield from binary.publish("news", b"\xff")
        yield from redis.publish("news", "ä")
        with pytest.raises(UnicodeDecodeError):
            yield from pubsub.get_message()
        assert (yield from pubsub.get_message()) == Message("news", "ä", "n*")
        pubsub.close()

    coro.run(main())


def test_unsubscribed_channels_bring_nothing_more(database: str) -> None:
    redis = Redis.from_url(database)

    def main() -> Coro[None]:
        pubsub = redis.pubsub()
        yield from pubsub.subscribe("a", "b", "c")
        yield from pubsub.subscribe("a")  # is already
        yield from pubsub.psubscribe("x*")
        yield from pubsub.ssubscribe("s")
        yield from pubsub.unsubscribe("a", "never")
        assert (yield from redis.pubsub_numsub("a", "b")) == [(b"a", 0), (b"b", 1)]
        yield from pubsub.unsubscribe()
        yield from pubsub.sunsubscribe()
        assert (yield from redis.pubsub_channels()) == []
        assert (yield from redis.publish("xy", 1)) == 1
        yield from pubsub.punsubscribe("x*")
        assert (yield from redis.publish("xy", 1)) == 0
        assert (yield from pubsub.get_message()) == Message(b"xy", b"1", b"x*")
        with pytest.raises(RedisError, match="nothing is subscribed"):
            yield from pubsub.get_message()
        yield from pubsub.subscribe("a")
        yield from redis.publish("a", 2)
        assert (yield from pubsub.get_message()) == Message(b"a", b"2")
        pubsub.close()

    coro.run(main())


def test_each_message_goes_to_one_of_several_tasks(database: str) -> None:
    redis = Redis.from_url(database)

    def main() -> Coro[None]:
        pubsub = redis.pubsub()
        yield from pubsub.subscribe("a")

        def publish() -> Coro[Message | Gap]:
            for number in range(20):
                yield from redis.publish("a", number)
            return Message(b"", b"")

        messages = yield from coro.gather(publish(), *[pubsub.get_message() for _ in range(20)])
        numbers = [int(message.data) for message in messages[1:] if isinstance(message, Message)]
        assert sorted(numbers) == list(range(20))
        pubsub.close()

    coro.run(main())


def test_task_that_waits_is_told_when_nothing_is_subscribed_any_more(redis_database: str) -> None:
    redis = Redis.from_url(redis_database)

    def wait(pubsub: PubSub) -> Coro[None]:
        with pytest.raises(RedisError, match="nothing is subscribed"):
            yield from pubsub.get_message()

    def main() -> Coro[None]:
        pubsub = redis.pubsub()
        yield from coro.gather(pubsub.subscribe("a"), pubsub.subscribe("a", "b"))
        assert (yield from redis.pubsub_numsub("a", "b")) == [(b"a", 1), (b"b", 1)]
        yield from coro.gather(wait(pubsub), pubsub.unsubscribe())
        pubsub.close()

    coro.run(main())


def test_subscription_that_is_refused_leaves_the_others(redis_server: RedisServer) -> None:
    redis_server.command("ACL", "SETUSER", "listener", "on", ">secret", "+@all", "resetchannels", "&open*")
    redis = Redis.from_url(redis_server.url(user="listener", password="secret"))

    def main() -> Coro[None]:
        pubsub = redis.pubsub()
        yield from pubsub.subscribe("open")
        with pytest.raises(NoPermissionError):
            yield from pubsub.subscribe("closed")
        assert "1 subscribed" in repr(pubsub)
        yield from redis.publish("open", 1)
        assert (yield from pubsub.get_message()) == Message(b"open", b"1")
        pubsub.close()

    coro.run(main())


def test_message_is_not_lost_by_a_cancelled_task(database: str) -> None:
    redis = Redis.from_url(database)

    def main() -> Coro[None]:
        pubsub = redis.pubsub()
        yield from pubsub.subscribe("a")
        got: list[int] = []

        def take() -> Coro[None]:
            message = yield from pubsub.get_message()
            assert isinstance(message, Message)
            got.append(int(message.data))

        def cancelled_after(group: TaskGroup, turns: int) -> Coro[None]:
            task = group.spawn(take())
            for _ in range(turns):
                yield from coro.checkpoint()
            task.cancel()
            yield from coro.checkpoint()

        def body(group: TaskGroup) -> Coro[None]:
            for number in range(200):
                publishing = group.spawn(redis.publish("a", number))
                yield from cancelled_after(group, number % 20)
                yield from publishing.join()

        yield from coro.task_group(body)
        while len(got) < 200:
            yield from take()
        assert got == list(range(200))
        pubsub.close()

    coro.run(main())


def test_subscribing_cancelled_at_any_step_is_no_half_subscription(database: str) -> None:
    redis = Redis.from_url(database)

    def body(group: TaskGroup) -> Coro[None]:
        for turns in range(60):
            pubsub = redis.pubsub()
            task = group.spawn(pubsub.subscribe("a", "b"))
            for _ in range(turns):
                yield from coro.checkpoint()
            task.cancel()
            for channel in "b", "c":
                yield from pubsub.subscribe(channel)
                assert (yield from redis.publish(channel, turns)) == 1
                assert (yield from pubsub.get_message()) == Message(channel.encode(), b"%d" % turns)
            pubsub.close()
            while (yield from redis.pubsub_numsub("b"))[0][1]:
                yield from coro.checkpoint()
        assert ALL_IS_BACK in repr(redis.pool)

    coro.run(coro.task_group(body))


def test_loop_of_another_thread_is_refused_and_harms_no_subscription(redis_database: str) -> None:
    redis = Redis.from_url(redis_database)
    ways: list[Callable[[PubSub], Coro[object]]] = [
        lambda pubsub: pubsub.subscribe("b"),
        lambda pubsub: pubsub.unsubscribe(),
        lambda pubsub: pubsub.get_message(),
        lambda pubsub: redis.pubsub().subscribe("a"),
    ]

    def run(way: Callable[[PubSub], Coro[object]], pubsub: PubSub) -> None:
        coro.run(way(pubsub))

    def main() -> Coro[None]:
        pubsub = redis.pubsub()
        yield from pubsub.subscribe("a")
        for way in ways:
            with pytest.raises(RuntimeError, match="in use by another loop: make one for each thread"):
                yield from coro.to_thread(partial(run, way, pubsub))
        yield from redis.publish("a", 1)
        assert (yield from pubsub.get_message()) == Message(b"a", b"1")
        pubsub.close()

    coro.run(main())


def test_message_goes_to_the_next_task_if_the_first_is_cancelled(redis_database: str) -> None:
    redis = Redis.from_url(redis_database)

    def body(group: TaskGroup) -> Coro[None]:
        pubsub = redis.pubsub()
        yield from pubsub.subscribe("a")
        first, second = group.spawn(pubsub.get_message()), group.spawn(pubsub.get_message())
        group.spawn(redis.publish("a", 1))
        yield from arrived(pubsub, 1)
        first.cancel()  # it was woken, and has not taken the message
        with pytest.raises(TaskCancelled):
            yield from first.join()
        assert (yield from second.join()) == Message(b"a", b"1")
        pubsub.close()

    coro.run(coro.task_group(body))


@pytest.mark.parametrize("name", [None, ["a"], "\ud800"])
def test_what_is_no_name_of_a_channel_is_refused_and_harms_nobody(redis_database: str, name: Any) -> None:
    def main() -> Coro[None]:
        redis = Redis.from_url(redis_database)
        pubsub = redis.pubsub()
        yield from pubsub.subscribe("a")
        with pytest.raises((TypeError, UnicodeEncodeError)):
            yield from pubsub.subscribe("b", name)
        with pytest.raises((TypeError, UnicodeEncodeError)):
            yield from pubsub.unsubscribe(name)
        yield from redis.publish("a", 1)
        assert (yield from pubsub.get_message()) == Message(b"a", b"1")
        assert "1 subscribed" in repr(pubsub)
        pubsub.close()

    coro.run(main())


# --- Too many messages ---------------------------------------------------------------------------


def test_what_does_not_fit_is_dropped_and_a_gap_says_so(redis_database: str) -> None:
    redis = Redis.from_url(redis_database)

    def main() -> Coro[None]:
        pubsub = redis.pubsub(max_messages=3)
        yield from pubsub.subscribe("a")
        for number in range(10):
            yield from redis.publish("a", number)
        yield from arrived(pubsub, 4)
        while (yield from redis.pubsub_numsub("a")) != [(b"a", 1)]:
            pass
        yield from settle()
        items = yield from taken(pubsub, 4)
        assert items[:3] == [Message(b"a", b"%d" % number) for number in range(3)]
        assert items[3] == Gap("messages came faster than they were taken", 7)
        yield from redis.publish("a", "next")
        assert (yield from pubsub.get_message()) == Message(b"a", b"next")
        pubsub.close()

    coro.run(main())


def test_bytes_that_wait_are_bounded(redis_database: str) -> None:
    redis = Redis.from_url(redis_database)

    def main() -> Coro[None]:
        pubsub = redis.pubsub(max_bytes=1000)
        yield from pubsub.subscribe("a")
        for size in 600, 600, 400, 1:
            yield from redis.publish("a", b"x" * size)
        yield from redis.publish("a", "")
        yield from arrived(pubsub, 5)
        items = yield from taken(pubsub, 5)
        assert [item.dropped if isinstance(item, Gap) else len(item.data) for item in items] == [600, 1, 400, 1, 0]
        yield from redis.publish("a", "x" * 1000)  # there is room again
        assert (yield from pubsub.get_message()) == Message(b"a", b"x" * 1000)
        pubsub.close()

    coro.run(main())


# --- The end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [PubSub.close, lambda pubsub: pubsub._pool.close()], ids=["its own", "the client's"])
def test_close_ends_the_wait_for_messages(database: str, end: object) -> None:
    redis = Redis.from_url(database)

    def expect_closed(pubsub: PubSub) -> Coro[None]:
        with pytest.raises(ClosedError):
            yield from pubsub.get_message()

    def body(group: TaskGroup) -> Coro[None]:
        pubsub = redis.pubsub()
        yield from pubsub.subscribe("a")
        task = group.spawn(expect_closed(pubsub))
        yield from coro.checkpoint()
        assert callable(end)
        end(pubsub)
        yield from task.join()
        yield from expect_closed(pubsub)
        with pytest.raises(ClosedError):
            yield from pubsub.subscribe("b")
        yield from settle()
        assert ALL_IS_BACK in repr(redis.pool)

    coro.run(coro.task_group(body))


def test_subscriptions_end_with_the_run(redis_database: str) -> None:
    redis = Redis.from_url(redis_database)
    pubsub = redis.pubsub()
    coro.run(pubsub.subscribe("a"))
    assert "0 subscribed" in repr(pubsub) and ALL_IS_BACK in repr(redis.pool)

    def main() -> Coro[None]:
        yield from pubsub.subscribe("a")
        yield from redis.publish("a", 1)
        assert (yield from pubsub.get_message()) == Message(b"a", b"1")

    coro.run(main())


@pytest.mark.parametrize("limits", [{"max_messages": 0}, {"max_bytes": 0}])
def test_queue_without_room(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="has room for at least one message"):
        Redis.from_url("redis://localhost").pubsub(**limits)
