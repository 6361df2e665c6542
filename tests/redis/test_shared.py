"""The connection that all tasks share: one send a round, each caller its own reply, and no more than is allowed."""

from __future__ import annotations

import itertools
import random

import pytest

import coro
import coro.io
from coro import Coro, TaskCancelled, TaskGroup
from coro.redis import Redis
from coro.redis.connection import SEND_SIZE, joined
from coro.redis.resp import LARGE
from tests.proxy import Proxy, through_proxy
from tests.redis.fake import FakeRedis, settle, with_fake
from tests.services import RedisServer

NOTHING_WAITS = "0 unsent, 0 unanswered"
OK = b"+OK\r\n"


def client_of(proxy: Proxy) -> Redis:
    return Redis.from_url(f"redis://127.0.0.1:{proxy.port}")


# --- Pipelining --------------------------------------------------------------------------


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was sent, an item for each send."""
    made: list[bytes] = []
    send_all = coro.io.Socket.send_all

    def noted(self: coro.io.Socket, data: bytes) -> Coro[None]:
        made.append(data)
        yield from send_all(self, data)

    monkeypatch.setattr(coro.io.Socket, "send_all", noted)
    return made


def test_commands_of_one_round_leave_in_one_send(redis_database: str, sends: list[bytes]) -> None:
    redis = Redis.from_url(redis_database)

    def main() -> Coro[None]:
        yield from redis.ping()
        sends.clear()
        yield from coro.gather(*[redis.incr("key", number) for number in range(200)])
        assert len(sends) == 1
        assert sends[0].count(b"INCRBY") == 200
        assert (yield from redis.get("key")) == b"19900"

    coro.run(main())


def test_commands_of_the_round_that_connects_leave_in_one_send(redis_database: str, sends: list[bytes]) -> None:
    redis = Redis.from_url(redis_database)
    coro.run(coro.gather(*[redis.incr("key") for _ in range(200)]))
    assert [data.count(b"INCRBY") for data in sends] == [0, 0, 200]  # the login before


def test_all_tasks_use_one_connection(redis_server: RedisServer) -> None:
    def body(proxy: Proxy) -> Coro[None]:
        redis = client_of(proxy)
        for _ in range(3):
            yield from coro.gather(*[redis.ping() for _ in range(20)])
        assert proxy.connections == 1

    coro.run(through_proxy(redis_server.port, body))


def test_loop_of_another_thread_is_refused_and_harms_nobody(redis_database: str) -> None:
    redis = Redis.from_url(redis_database)

    def main() -> Coro[None]:
        yield from redis.ping()
        with pytest.raises(RuntimeError, match="in use by another loop"):
            yield from coro.to_thread(lambda: coro.run(redis.ping()))
        assert (yield from redis.ping())

    coro.run(main())
    assert coro.run(redis.ping())


def test_everybody_gets_the_own_reply_whatever_its_size(redis_database: str) -> None:
    redis = Redis.from_url(redis_database)
    numbers = random.Random(7)

    def use(name: str) -> Coro[None]:
        for size in [numbers.choice([0, 1, 100, 70_000]) for _ in range(20)]:
            value = name.encode() * size
            yield from redis.set(name, value)
            assert (yield from redis.get(name)) == value

    coro.run(coro.gather(*[use(f"key{number}") for number in range(30)]))
    assert NOTHING_WAITS in repr(redis)


def test_replies_that_come_byte_by_byte() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url)

        def use(group: TaskGroup) -> Coro[None]:
            tasks = [group.spawn(redis.get(name)) for name in "abc"]
            yield from fake.received(3)
            for byte in b"$1\r\nA\r\n$-1\r\n$1\r\nC\r\n":
                yield from fake.say(bytes([byte]))
                yield from settle()
            assert [task.result() for task in tasks] == [b"A", None, b"C"]

        yield from coro.task_group(use)

    coro.run(with_fake({}, body))


def test_what_the_server_says_out_of_band_is_nobodys_reply() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        assert (yield from Redis.from_url(fake.url).get("key")) == b"A"

    push, attributes = b">2\r\n+invalidate\r\n*1\r\n$3\r\nkey\r\n", b"|1\r\n+ttl\r\n:3600\r\n"
    coro.run(with_fake({b"GET": push + attributes + b"$1\r\nA\r\n"}, body))


def test_request_says_what_is_waited_for() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        def use(group: TaskGroup) -> Coro[None]:
            task = group.spawn(Redis.from_url(fake.url).get("key"))
            yield from fake.received(1)
            assert repr(task.request) == f"reply to GET from Redis at {fake.address}"
            group.cancel()

        yield from coro.task_group(use)

    coro.run(with_fake({}, body))


# --- Joining ---------------------------------------------------------------------------------


def test_small_parts_are_joined_into_one() -> None:
    assert list(joined([b"a", b"b" * 1000, b"c"])) == [b"a" + b"b" * 1000 + b"c"]


def test_nothing_is_joined_into_nothing() -> None:
    assert list(joined([])) == []


def test_large_parts_are_not_copied() -> None:
    large = b"x" * SEND_SIZE
    first, second, third = joined([b"head", large, b"tail"])
    assert (first, third) == (b"head", b"tail")
    assert second is large


def test_what_is_joined_is_bounded() -> None:
    parts = [bytes([number]) * (LARGE - 1) for number in range(20)]
    sent = list(joined(parts))
    assert b"".join(sent) == b"".join(parts)
    assert max(map(len, sent)) <= SEND_SIZE
    assert len(sent) < len(parts)


# --- Cancellation ------------------------------------------------------------------------------


def test_reply_of_a_cancelled_caller_is_dropped(redis_server: RedisServer) -> None:
    def body(proxy: Proxy) -> Coro[None]:
        redis = client_of(proxy)
        yield from redis.mset({"a": "value of a", "b": "value of b"})
        for _ in range(100):
            proxy.hold_replies()
            with coro.move_on_after(0.001):
                yield from redis.get("a")
            proxy.release_replies()
            assert (yield from redis.get("b")) == b"value of b"
        assert NOTHING_WAITS in repr(redis)
        assert proxy.connections == 1

    coro.run(through_proxy(redis_server.port, body))


@pytest.mark.parametrize("connected", [True, False])
def test_caller_cancelled_at_any_step_leaves_no_reply_to_another(redis_database: str, connected: bool) -> None:
    """GET a, cancel after so many turns of the loop, GET b: always b's value."""
    used = Redis.from_url(redis_database)

    def is_cancelled(group: TaskGroup, redis: Redis, turns: int) -> Coro[bool]:
        task = group.spawn(redis.get("a"))
        for _ in range(turns):
            yield from coro.checkpoint()
        task.cancel()
        assert (yield from redis.get("b")) == b"value of b"
        assert NOTHING_WAITS in repr(redis)
        try:
            assert (yield from task.join()) == b"value of a"
        except TaskCancelled:
            return True
        return False

    def body(group: TaskGroup) -> Coro[None]:
        yield from used.mset({"a": "value of a", "b": "value of b"})
        for _ in range(50 if connected else 5):
            for turns in itertools.count():
                redis = used if connected else Redis.from_url(redis_database)
                cancelled = yield from is_cancelled(group, redis, turns)
                if not connected:
                    redis.close()
                if not cancelled:  # so many turns are enough for the reply
                    break

    coro.run(coro.task_group(body))


def test_callers_cancelled_at_random_among_others(redis_database: str) -> None:
    redis = Redis.from_url(redis_database)
    numbers = random.Random(11)
    cut_short = 0

    def use(key: str) -> Coro[None]:
        nonlocal cut_short
        for _ in range(100):
            with coro.move_on_after(numbers.choice([0, 0.0001, 0.001, 1])) as scope:
                assert (yield from redis.get(key)) == key.encode()
            cut_short += scope.cancelled_caught

    def main() -> Coro[None]:
        keys = [f"key{number}" for number in range(64)]
        yield from redis.mset({key: key for key in keys})
        yield from coro.gather(*map(use, keys))
        yield from redis.ping()  # the replies before this one have been read
        assert NOTHING_WAITS in repr(redis)

    coro.run(main())
    assert 0 < cut_short < 6400


def test_command_of_a_caller_cancelled_before_the_send_is_not_sent() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url)

        def use(group: TaskGroup) -> Coro[None]:
            tasks = [group.spawn(redis.incr(key)) for key in "abc"]
            yield from coro.checkpoint()  # they have issued their commands; nothing is connected yet
            tasks[1].cancel()
            yield from tasks[2].join()
            yield from settle()
            assert [command[1] for command in fake.commands] == [b"a", b"c"]

        yield from coro.task_group(use)
        assert NOTHING_WAITS in repr(redis)

    coro.run(with_fake({b"INCRBY": b":1\r\n"}, body))


def test_a_caller_in_a_cancelled_scope_sends_nothing() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url)
        with coro.move_on_after(0):
            yield from redis.incr("key")
        yield from redis.ping()
        assert fake.commands == [[b"PING"]]

    coro.run(with_fake({b"PING": b"+PONG\r\n"}, body))


def test_cancelled_first_caller_does_not_spoil_the_attempt_to_connect(redis_database: str) -> None:
    redis = Redis.from_url(redis_database)

    def body(group: TaskGroup) -> Coro[None]:
        first, second = group.spawn(redis.ping()), group.spawn(redis.ping())
        yield from coro.checkpoint()
        first.cancel()
        assert (yield from second.join())

    coro.run(coro.task_group(body))


# --- Backpressure ------------------------------------------------------------------------------


def test_no_more_commands_are_under_way_than_allowed() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url, max_unanswered=4)

        def use(group: TaskGroup) -> Coro[None]:
            tasks = [group.spawn(redis.get(str(number))) for number in range(10)]
            for answered in range(10):
                yield from fake.received(min(answered + 4, 10))
                yield from settle()
                assert len(fake.commands) == min(answered + 4, 10)
                yield from fake.say(b"$1\r\n%d\r\n" % answered)
                assert (yield from tasks[answered].join()) == b"%d" % answered

        yield from coro.task_group(use)
        assert [command[1] for command in fake.commands] == [b"%d" % number for number in range(10)]
        assert NOTHING_WAITS in repr(redis)

    coro.run(with_fake({}, body))


def test_bound_of_one_serves_everybody(redis_database: str) -> None:
    redis = Redis.from_url(redis_database, max_unanswered=1)

    def count() -> Coro[None]:
        for _ in range(20):
            yield from redis.incr("key")

    def main() -> Coro[None]:
        yield from coro.gather(*[count() for _ in range(20)])
        assert (yield from redis.get("key")) == b"400"

    coro.run(main())


def test_commands_wait_while_the_server_does_not_read() -> None:
    """More than the kernel's buffers hold: the writer is stopped by the socket, and goes on with it."""
    value = b"v" * 1_000_000

    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url)
        yield from coro.gather(*[redis.set(str(number), value) for number in range(20)])
        assert [command[:2] for command in fake.commands] == [[b"SET", b"%d" % number] for number in range(20)]
        assert all(command[2] == value for command in fake.commands)

    coro.run(with_fake({b"SET": OK}, body))
