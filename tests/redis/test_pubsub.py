"""Messages: what is subscribed to arrives, in order, once; and what is missed is told."""

from __future__ import annotations

import logging

import pytest

import coro
from coro import ClosedError, Coro, TaskGroup
from coro.redis import Gap, Message, NoPermissionError, PubSub, Redis, RedisConnectionError, RedisError
from tests.proxy import Proxy, through_proxy
from tests.redis.fake import FakeRedis, ManualClock, settle, with_fake
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


# --- Losing the connection ------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_lost_connection_is_replaced_and_a_gap_stands_where_messages_may_miss(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    def body(proxy: Proxy) -> Coro[None]:
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")
        pubsub = redis.pubsub()
        yield from pubsub.subscribe("a", "b")
        yield from pubsub.psubscribe("p*")
        for end in proxy.cut, proxy.half_close:
            yield from redis.publish("a", "before")
            yield from arrived(pubsub, 1)
            end()
            assert (yield from pubsub.get_message()) == Message(b"a", b"before")
            gap = yield from pubsub.get_message()
            assert isinstance(gap, Gap) and gap.dropped == 0
            assert f"the connection to Redis at 127.0.0.1:{proxy.port} was lost" in gap.reason
            redis_server.command("PUBLISH", "b", "after")
            redis_server.command("PUBLISH", "px", "after")
            assert (yield from pubsub.get_message()) == Message(b"b", b"after")
            assert (yield from pubsub.get_message()) == Message(b"px", b"after", b"p*")
        assert "3 subscribed, 0 waiting" in repr(pubsub)
        redis.close()

    with caplog.at_level(logging.WARNING, "coro.redis"):
        coro.run(through_proxy(redis_server.port, body))
    assert "was lost" in caplog.text and "subscribing again" in caplog.text


def test_half_open_connection_is_found_by_ping() -> None:
    clock = ManualClock()
    confirmed = b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"

    def body(fake: FakeRedis) -> Coro[None]:
        pubsub = Redis.from_url(fake.url, timeout=5, health_check_interval=30).pubsub()
        yield from pubsub.subscribe("a")
        yield from pass_interval(clock)  # in which the confirmation came
        for pings in 1, 2:  # answered
            clock.advance(30)
            yield from fake.received(1 + pings)
            yield from settle()
            clock.advance(5)
            yield from settle()
            yield from settle()
        assert fake.connections == 1
        del fake.answers[b"PING"]
        clock.advance(30)
        yield from fake.received(4)
        clock.advance(5)
        gap = yield from pubsub.get_message()
        assert isinstance(gap, Gap) and "PING was not answered within 5 s" in gap.reason
        assert fake.connections == 2
        pubsub.close()

    coro.run(with_fake({b"SUBSCRIBE": confirmed, b"PING": b"+PONG\r\n"}, body), clock=clock)


def pass_interval(clock: ManualClock) -> Coro[None]:
    clock.advance(30)
    yield from settle()


def test_gap_is_told_before_all_that_comes_after_the_loss() -> None:
    """Messages of channels that are subscribed again before the others are, belong to what is missing."""
    ok = b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
    pattern_ok = b">3\r\n$10\r\npsubscribe\r\n$2\r\np*\r\n:2\r\n"
    message = b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$%d\r\n%s\r\n"

    def body(fake: FakeRedis) -> Coro[None]:
        pubsub = Redis.from_url(fake.url).pubsub()
        yield from pubsub.subscribe("a")
        yield from pubsub.psubscribe("p*")
        fake.answers = {**fake.answers, b"SUBSCRIBE": b"", b"PSUBSCRIBE": b""}
        assert fake.stream is not None
        fake.stream.close()
        yield from fake.received(4)
        yield from fake.say(ok + message % (5, b"early") + pattern_ok + message % (4, b"late"))
        gap = yield from pubsub.get_message()
        assert isinstance(gap, Gap) and "was lost" in gap.reason
        assert (yield from pubsub.get_message()) == Message(b"a", b"late")
        pubsub.close()

    coro.run(with_fake({b"SUBSCRIBE": ok, b"PSUBSCRIBE": pattern_ok}, body))


@pytest.mark.parametrize(
    "nonsense",
    [
        b">2\r\n+message\r\n+a\r\n",
        b">3\r\n+message\r\n+a\r\n:1\r\n",
        b">2\r\n+pmessage\r\n+a\r\n",
        b">1\r\n+subscribe\r\n",
        b"+OK\r\n",
        b"-ERR unasked\r\n",
        b"?\r\n",
    ],
)
def test_nonsense_ends_the_connection_and_not_the_program(nonsense: bytes) -> None:
    ok = b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"

    def body(fake: FakeRedis) -> Coro[None]:
        pubsub = Redis.from_url(fake.url).pubsub()
        yield from pubsub.subscribe("a")
        yield from fake.say(nonsense)
        gap = yield from pubsub.get_message()
        assert isinstance(gap, Gap) and "was lost" in gap.reason
        assert fake.connections == 2
        pubsub.close()

    coro.run(with_fake({b"SUBSCRIBE": ok}, body))


def test_subscription_that_is_refused_after_a_loss_is_told() -> None:
    ok = b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"

    def body(fake: FakeRedis) -> Coro[None]:
        pubsub = Redis.from_url(fake.url).pubsub()
        yield from pubsub.subscribe("a")
        fake.answers[b"SUBSCRIBE"] = b"-NOPERM not any more\r\n"
        assert fake.stream is not None
        fake.stream.close()
        refused, lost = yield from taken(pubsub, 2)
        assert isinstance(refused, Gap) and refused.reason == "SUBSCRIBE is refused now: NOPERM not any more"
        assert isinstance(lost, Gap) and "was lost" in lost.reason
        with pytest.raises(RedisError, match="nothing is subscribed"):
            yield from pubsub.get_message()
        pubsub.close()

    coro.run(with_fake({b"SUBSCRIBE": ok}, body))


@pytest.mark.parametrize("pong", [b"*2\r\n$4\r\npong\r\n$0\r\n\r\n", b"+PONG\r\n"])
def test_pong_of_either_protocol_is_no_message(pong: bytes) -> None:
    clock = ManualClock()
    confirmed = b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"

    def body(fake: FakeRedis) -> Coro[None]:
        pubsub = Redis.from_url(fake.url).pubsub()
        yield from pubsub.subscribe("a")
        yield from pass_interval(clock)
        clock.advance(30)
        yield from fake.received(2)
        yield from fake.say(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n")
        assert (yield from pubsub.get_message()) == Message(b"a", b"m")
        assert fake.connections == 1
        pubsub.close()

    coro.run(with_fake({b"SUBSCRIBE": confirmed, b"PING": pong}, body), clock=clock)


def test_subscribing_where_nobody_listens_is_an_error() -> None:
    listener = coro.listen("127.0.0.1", 0)
    listener.close()
    redis = Redis.from_url(f"redis://127.0.0.1:{listener.port}")

    def main() -> Coro[None]:
        pubsub = redis.pubsub()
        with pytest.raises(RedisConnectionError, match="Connection refused"):
            yield from pubsub.subscribe("a")
        with pytest.raises(RedisError, match="nothing is subscribed"):
            yield from pubsub.get_message()
        assert "0 subscribed" in repr(pubsub)

    coro.run(main())


def test_subscription_that_is_never_confirmed_is_an_error() -> None:
    clock = ManualClock()

    def body(fake: FakeRedis) -> Coro[None]:
        pubsub = Redis.from_url(fake.url, timeout=2, connect_timeout=3).pubsub()

        def use(group: TaskGroup) -> Coro[None]:
            task = group.spawn(expect_unconfirmed(pubsub))
            yield from fake.received(1)
            clock.advance(5)
            yield from task.join()

        yield from coro.task_group(use)
        pubsub.close()

    def expect_unconfirmed(pubsub: PubSub) -> Coro[None]:
        with pytest.raises(RedisConnectionError, match="SUBSCRIBE was not confirmed within 5 s"):
            yield from pubsub.subscribe("a")

    coro.run(with_fake({}, body), clock=clock)


def test_connection_cut_at_any_byte_while_subscribing_and_receiving(redis_server: RedisServer) -> None:
    """Wherever it is cut: each message arrives, or stands behind a gap that says it may not have."""

    def listen(proxy: Proxy, position: int | None) -> Coro[int]:
        redis, publisher = Redis.from_url(f"redis://127.0.0.1:{proxy.port}"), Redis.from_url(redis_server.url())
        pubsub = redis.pubsub()
        proxy.cut_after = position
        while True:
            try:
                yield from pubsub.subscribe("cut")
            except RedisConnectionError:
                continue
            break
        for number in range(3):
            yield from publisher.publish("cut", number)
        received = len(proxy.replies)
        items: list[Message | Gap] = []
        while not (items and isinstance(items[-1], Message) and items[-1].data == b"last"):
            if (items and isinstance(items[-1], Gap)) or len(items) >= 3:
                yield from publisher.publish("cut", "last")
            items.append((yield from pubsub.get_message()))
        expected = 0
        for number, item in enumerate(items):
            if isinstance(item, Message):
                value = 3 if item.data == b"last" else int(item.data)
                assert value == expected or (value > expected and isinstance(items[number - 1], Gap))
                expected = value + 1
        redis.close()
        yield from settle()
        return received

    total = coro.run(through_proxy(redis_server.port, lambda proxy: listen(proxy, None)))
    login = 200  # bytes, about; what is cut there is told of in test_faults.py
    for position in [*range(0, login, 20), *range(login, total + 50)]:
        coro.run(through_proxy(redis_server.port, lambda proxy, cut=position: listen(proxy, cut)))  # type: ignore[misc]


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
