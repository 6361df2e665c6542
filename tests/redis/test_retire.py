"""Connections to a server that is not the right one any more: what was sent is answered, the rest goes elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import coro
from coro import Coro, TaskGroup
from coro.redis import ReadOnlyError, Redis, RedisConnectionError, TransactionAbortedError
from coro.redis.connection import Connector
from tests.redis.fake import FakeRedis, ManualClock, settle, with_fake
from tests.services import RedisServer, dead_port

READONLY = b"-READONLY You can't write against a read only replica.\r\n"
OK = b"+OK\r\n"


def test_connection_on_which_a_write_is_refused_as_on_a_replica_is_replaced() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url)
        for _ in range(3):
            with pytest.raises(ReadOnlyError):
                yield from redis.set("key", "value")
        yield from redis.ping()
        yield from redis.ping()
        assert fake.connections == 4

    coro.run(with_fake({b"SET": READONLY, b"PING": b"+PONG\r\n"}, body))


def test_what_was_sent_is_answered_before_the_connection_is_replaced() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url)

        def use(group: TaskGroup) -> Coro[None]:
            refused, sent = group.spawn(expect_read_only(redis)), group.spawn(redis.get("sent"))
            yield from fake.received(2)
            yield from fake.say(READONLY)
            yield from refused.join()
            later = group.spawn(redis.get("later"))
            yield from settle()
            assert (fake.connections, len(fake.commands)) == (1, 2)
            fake.answers[b"GET"] = b"$3\r\nnew\r\n"
            yield from fake.say(b"$3\r\nold\r\n")
            assert (yield from sent.join()) == b"old"
            assert (yield from later.join()) == b"new"
            assert fake.connections == 2

        yield from coro.task_group(use)

    coro.run(with_fake({}, body))


def expect_read_only(redis: Redis) -> Coro[None]:
    with pytest.raises(ReadOnlyError):
        yield from redis.set("key", "value")


def test_server_that_is_silent_after_a_refusal_has_its_deadline_and_what_waits_was_not_sent() -> None:
    clock = ManualClock()

    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url, timeout=5)

        def use(group: TaskGroup) -> Coro[None]:
            refused, sent = group.spawn(expect_read_only(redis)), group.spawn(sent_or_not(redis))
            yield from fake.received(2)
            yield from fake.say(READONLY)
            yield from refused.join()
            waiting = group.spawn(sent_or_not(redis))
            yield from settle()
            clock.advance(5)
            assert (yield from sent.join())
            assert not (yield from waiting.join())

        yield from coro.task_group(use)

    coro.run(with_fake({}, body), clock=clock)


def sent_or_not(redis: Redis) -> Coro[bool]:
    """What the error of a lost connection says about a command."""
    with pytest.raises(RedisConnectionError) as caught:
        yield from redis.get("key")
    return caught.value.sent


def test_command_that_met_a_dead_server_was_not_sent() -> None:
    redis = Redis.from_url(f"redis://127.0.0.1:{dead_port()}")

    def main() -> Coro[None]:
        for _ in range(2):  # in the second round, no attempt is made
            assert not (yield from sent_or_not(redis))
        with pytest.raises(RedisConnectionError) as caught:
            yield from redis.execute("BLPOP", "key", 0)
        assert not caught.value.sent

    coro.run(main(), clock=ManualClock())


def test_retiring_an_idle_connection_closes_it_and_a_client_without_one_does_nothing() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url)
        redis._shared.retire()
        yield from redis.ping()
        redis._shared.retire()
        while "idle" not in repr(redis):
            yield from coro.checkpoint()
        yield from redis.ping()
        assert fake.connections == 2

    coro.run(with_fake({b"PING": b"+PONG\r\n"}, body))


def test_own_connection_that_leads_to_a_replica_is_not_used_again(own_redis: Callable[..., RedisServer]) -> None:
    redis = Redis.from_url(own_redis("--replicaof", "127.0.0.1 1").url())

    def main() -> Coro[None]:
        pipeline = redis.pipeline()
        pipeline.set("key", "value")
        with pytest.raises(TransactionAbortedError, match="READONLY"):
            yield from pipeline.execute()
        assert "0 idle" in repr(redis.pool)
        pipeline.ping()
        yield from pipeline.execute()
        assert "1 idle" in repr(redis.pool)
        redis.pool.retire()
        assert "0 idle" in repr(redis.pool)

    coro.run(main())


def test_every_connection_is_set_up(redis_server: RedisServer) -> None:
    settings = Redis.from_url(redis_server.url()).settings
    redis = Redis(settings, connector=Connector(settings, [("CLIENT", "SETNAME", "ready")]))

    def main() -> Coro[None]:
        assert (yield from redis.execute("CLIENT", "GETNAME")) == b"ready"
        pipeline = redis.pipeline()
        name = pipeline.execute_command("CLIENT", "GETNAME")
        yield from pipeline.execute()
        assert (yield from name) == b"ready"

    coro.run(main())


def test_setup_that_is_refused_is_no_connection(redis_server: RedisServer) -> None:
    settings = Redis.from_url(redis_server.url()).settings
    redis = Redis(settings, connector=Connector(settings, [("READONLY",)]))
    with pytest.raises(RedisConnectionError, match="cluster support disabled"):
        coro.run(redis.ping())
