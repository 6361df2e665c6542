"""The typed commands, each on a real server in RESP3 and in RESP2; and what a shared connection refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

import coro
from coro import Coro
from coro.redis import OwnConnectionError, Redis, ReplyError, WrongTypeError
from coro.redis.resp import Argument
from coro.redis.routes import BLOCKS, why_not_shared

T = TypeVar("T")


@pytest.fixture
def run(database: str) -> Callable[[Callable[[Redis], Coro[T]]], T]:
    """Runs a generator function with a client."""
    return lambda body: coro.run(body(Redis.from_url(database)))


Run = Callable[[Callable[[Redis], Coro[T]]], T]


def test_ping(run: Run[bool]) -> None:
    assert run(Redis.ping) is True


def test_get_returns_what_was_set(run: Run[bytes | None]) -> None:
    def body(redis: Redis) -> Coro[bytes | None]:
        assert (yield from redis.set("key", "value")) is True
        return (yield from redis.get("key"))

    assert run(body) == b"value"


def test_get_of_a_missing_key_is_none(run: Run[bytes | None]) -> None:
    assert run(lambda redis: redis.get("key")) is None


def test_values_are_binary_safe(run: Run[bytes | None]) -> None:
    binary = bytes(range(256)) * 1000

    def body(redis: Redis) -> Coro[bytes | None]:
        yield from redis.set(b"\r\n$-1", binary)
        return (yield from redis.get(b"\r\n$-1"))

    assert run(body) == binary


@pytest.mark.parametrize(("ex", "px"), [(100, None), (None, 100_000)])
def test_set_with_expiry(run: Run[int], ex: int | None, px: int | None) -> None:
    def body(redis: Redis) -> Coro[int]:
        yield from redis.set("key", 1, ex, px)
        return (yield from redis.pttl("key"))

    assert 50_000 < run(body) <= 100_000


def test_set_nx_sets_only_what_does_not_exist(run: Run[list[object]]) -> None:
    def body(redis: Redis) -> Coro[list[object]]:
        first = yield from redis.set("key", "first", nx=True)
        second = yield from redis.set("key", "second", nx=True)
        return [first, second, (yield from redis.get("key"))]

    assert run(body) == [True, False, b"first"]


def test_set_xx_sets_only_what_exists(run: Run[list[object]]) -> None:
    def body(redis: Redis) -> Coro[list[object]]:
        missing = yield from redis.set("key", "first", xx=True)
        yield from redis.set("key", "second")
        existing = yield from redis.set("key", "third", xx=True)
        return [missing, existing, (yield from redis.get("key"))]

    assert run(body) == [False, True, b"third"]


def test_set_keepttl_keeps_the_expiry(run: Run[list[int]]) -> None:
    def body(redis: Redis) -> Coro[list[int]]:
        yield from redis.set("key", "value", ex=100)
        yield from redis.set("key", "value", keepttl=True)
        kept = yield from redis.ttl("key")
        yield from redis.set("key", "value")
        return [kept, (yield from redis.ttl("key"))]

    kept, lost = run(body)
    assert 0 < kept <= 100
    assert lost == -1


def test_getdel(run: Run[list[object]]) -> None:
    def body(redis: Redis) -> Coro[list[object]]:
        yield from redis.set("key", "value")
        taken = yield from redis.getdel("key")
        return [taken, (yield from redis.getdel("key"))]

    assert run(body) == [b"value", None]


def test_mset_and_mget(run: Run[list[list[bytes | None]]]) -> None:
    def body(redis: Redis) -> Coro[list[list[bytes | None]]]:
        yield from redis.mset({"a": 1, b"b": "two"})
        of_list = yield from redis.mget(["a", "c", "b"])
        return [of_list, (yield from redis.mget("a", b"b"))]

    assert run(body) == [[b"1", None, b"two"], [b"1", b"two"]]


def test_incr_and_decr(run: Run[list[int]]) -> None:
    def body(redis: Redis) -> Coro[list[int]]:
        numbers = [(yield from redis.incr("key")), (yield from redis.incr("key", 10))]
        return [*numbers, (yield from redis.decr("key")), (yield from redis.decr("key", 5))]

    assert run(body) == [1, 11, 10, 5]


def test_delete_and_exists_count(run: Run[list[int]]) -> None:
    def body(redis: Redis) -> Coro[list[int]]:
        yield from redis.mset({"a": 1, "b": 2})
        exist = yield from redis.exists("a", "b", "c", "a")
        return [exist, (yield from redis.delete("a", "b", "c")), (yield from redis.exists("a", "b"))]

    assert run(body) == [3, 2, 0]


def test_expire_ttl_and_persist(run: Run[list[object]]) -> None:
    def body(redis: Redis) -> Coro[list[object]]:
        yield from redis.set("key", "value")
        before = [(yield from redis.ttl("key")), (yield from redis.pttl("missing"))]
        done = [(yield from redis.expire("key", 100)), 0 < (yield from redis.ttl("key")) <= 100]
        done += [(yield from redis.pexpire("key", 100_000)), 0 < (yield from redis.pttl("key")) <= 100_000]
        done += [(yield from redis.persist("key")), (yield from redis.ttl("key")) == -1]
        absent = [(yield from redis.expire("missing", 1)), (yield from redis.pexpire("missing", 1))]
        return [*before, *done, *absent, (yield from redis.persist("key"))]

    assert run(body) == [-1, -2, True, True, True, True, True, True, False, False, False]


def test_execute_takes_any_command(run: Run[list[object]]) -> None:
    def body(redis: Redis) -> Coro[list[object]]:
        pushed = yield from redis.execute("rpush", "list", "a", 2, 1.5, b"\xff")
        return [pushed, (yield from redis.execute("LRANGE", "list", 0, -1))]

    assert run(body) == [4, [b"a", b"2", b"1.5", b"\xff"]]


def test_error_reply_is_raised_as_the_class_of_its_prefix(run: Run[None]) -> None:
    def body(redis: Redis) -> Coro[None]:
        yield from redis.execute("RPUSH", "key", 1)
        with pytest.raises(WrongTypeError, match="WRONGTYPE"):
            yield from redis.get("key")
        with pytest.raises(ReplyError, match="unknown command"):
            yield from redis.execute("NOSUCHCOMMAND")
        assert (yield from redis.exists("key")) == 1  # the connection is in step

    run(body)


def test_error_inside_a_reply_is_a_value(run: Run[list[object]]) -> None:
    """In an array, as EVAL can make one, other elements are good."""

    def body(redis: Redis) -> Coro[list[object]]:
        reply: list[object] = yield from redis.execute("EVAL", "return {1, redis.error_reply('OOPS no')}", 0)
        return reply

    one, error = run(body)
    assert one == 1
    assert isinstance(error, ReplyError) and str(error).startswith("OOPS no")


@pytest.mark.parametrize("args", [(None,), ("SET", "key", None), ("SET", "key", True), ()])
def test_what_cannot_be_sent_is_refused_and_harms_nobody(run: Run[None], args: tuple[Argument, ...]) -> None:
    def body(redis: Redis) -> Coro[None]:
        yield from redis.set("key", "value")
        with pytest.raises((TypeError, ValueError)):
            yield from redis.execute(*args)
        assert (yield from redis.get("key")) == b"value"

    run(body)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda redis: redis.mset(["key", 1]), "where a dict is to be"),
        (lambda redis: redis.hset("key", mapping=["field", 1]), "where a dict is to be"),
        (lambda redis: redis.xadd("key", None), "where a dict is to be"),
        (lambda redis: redis.zadd("key", ["member", 1]), "where a dict is to be"),
        (lambda redis: redis.delete(["key"]), "cannot be sent to Redis"),
        (lambda redis: redis.lock(None, 1), "the name of a lock is a str"),
        (lambda redis: redis.lock("key", None), "a number of seconds, not for None"),
    ],
)
def test_arguments_of_the_wrong_type_are_told(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        coro.run(call(Redis.from_url("redis://localhost:1")))


def test_key_expires_at_one_time() -> None:
    redis = Redis.from_url("redis://localhost:1")
    with pytest.raises(ValueError, match="give one of them"):
        redis.set("key", "value", ex=1, px=1)
    with pytest.raises(ValueError, match="give one of them"):
        redis.getex("key", px=1, pxat=1)


# --- What cannot be shared ---------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "BLPOP key 0",
        "blpop key 0",
        "BlPop key 0",
        "BRPOPLPUSH a b 0",
        "BZMPOP 0 1 key MIN",
        "XREAD COUNT 1 BLOCK 0 STREAMS key 0",
        "XREADGROUP GROUP group me block 0 STREAMS key >",
    ],
)
def test_commands_that_block_are_known(command: str) -> None:
    assert why_not_shared(command.split()) == BLOCKS
    assert why_not_shared([word.encode() for word in command.split()]) == BLOCKS


STATEFUL = [
    "WAIT 1 0",
    "MULTI",
    "EXEC",
    "WATCH key",
    "SELECT 1",
    "AUTH secret",
    "HELLO 2",
    "RESET",
    "QUIT",
    "SUBSCRIBE channel",
    "SSUBSCRIBE channel",
    "PUNSUBSCRIBE",
    "MONITOR",
    "CLIENT REPLY OFF",
    "client tracking on",
    "SCRIPT DEBUG YES",
]


@pytest.mark.parametrize("command", STATEFUL)
def test_commands_that_change_the_connection_are_refused(command: str) -> None:
    redis = Redis.from_url("redis://localhost")
    name = command.split()[0].upper()
    with pytest.raises(OwnConnectionError, match=f"^{name} needs a connection of its own"):
        coro.run(redis.execute(*command.split()))
    with pytest.raises(OwnConnectionError, match=f"^{name} needs a connection of its own"):
        coro.run(redis.execute(*[word.encode() for word in command.split()]))
    with pytest.raises(OwnConnectionError, match=f"^{name} needs a connection of its own"):
        _ = redis.pipeline(transaction=False).execute_command(*command.split())
    assert "idle" in repr(redis)  # not even connected


@pytest.mark.parametrize(
    "command",
    ["GET BLPOP", "LPOP key", "CLIENT ID", "SCRIPT LOAD code", "XREAD COUNT 1 STREAMS block 0", "PUBLISH channel x"],
)
def test_other_commands_can_be_shared(command: str) -> None:
    assert why_not_shared(command.split()) is None
