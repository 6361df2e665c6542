"""Subscriptions whose connection is lost, refused or silent: they come back, and what is missing is told."""

from __future__ import annotations

import logging

import pytest

import coro
from coro import Coro, TaskGroup
from coro.redis import Gap, Message, PubSub, Redis, RedisConnectionError, RedisError
from tests.proxy import Proxy, through_proxy
from tests.redis.fake import FakeRedis, ManualClock, settle, with_fake
from tests.redis.test_pubsub import arrived, taken
from tests.services import RedisServer, dead_port


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


def test_connection_whose_pong_came_while_the_program_was_held_up_is_kept() -> None:
    clock = ManualClock()
    confirmed = b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
    message = b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n"

    def body(fake: FakeRedis) -> Coro[None]:
        pubsub = Redis.from_url(fake.url, timeout=5, health_check_interval=30).pubsub()
        yield from pubsub.subscribe("a")
        yield from pass_interval(clock)
        clock.advance(30)
        yield from fake.received(2)
        assert fake.stream is not None
        fake.stream.socket.sock.sendall(b"+PONG\r\n" + message)
        clock.advance(60)
        assert (yield from pubsub.get_message()) == Message(b"a", b"m")
        yield from settle()
        assert fake.connections == 1 and "0 waiting" in repr(pubsub)
        pubsub.close()

    coro.run(with_fake({b"SUBSCRIBE": confirmed}, body), clock=clock)


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
        b"*1\r\n*0\r\n",
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
    redis = Redis.from_url(f"redis://127.0.0.1:{dead_port()}")

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
                yield from pubsub.subscribe("cut", "aside")
            except RedisConnectionError:
                continue
            break
        yield from pubsub.unsubscribe("aside")
        while (yield from publisher.pubsub_numsub("aside")) != [(b"aside", 0)]:
            pass  # on the connection that was lost it ends a little later
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
