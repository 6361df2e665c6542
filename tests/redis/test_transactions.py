"""Transactions with WATCH: nothing is lost among many, nothing is done by halves, no connection is left changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import coro
from coro import Coro, TaskGroup
from coro.redis import OwnConnectionError, Redis, RedisConnectionError, ReplyError, Transaction, WatchError
from coro.redis.resp import encode
from tests.proxy import Proxy, through_proxy
from tests.services import RedisServer

ALL_IS_BACK = "0 of 50 own connections lent"


def take_one(transaction: Transaction) -> Coro[None]:
    left = yield from transaction.get("stock")
    transaction.multi()
    transaction.set("stock", int(left or 0) - 1)
    transaction.incr("sold")


def test_transactions_of_many_tasks_lose_nothing(database: str) -> None:
    redis = Redis.from_url(database)

    def main() -> Coro[None]:
        yield from redis.set("stock", 100)
        yield from coro.gather(*[redis.transaction(take_one, "stock", attempts=1000) for _ in range(50)], limit=10)
        assert (yield from redis.mget("stock", "sold")) == [b"50", b"50"]
        assert ALL_IS_BACK in repr(redis.pool)

    coro.run(main())


def test_transaction_is_begun_again_when_a_watched_key_changed(database: str) -> None:
    redis = Redis.from_url(database)
    runs = 0

    def main() -> Coro[None]:
        def body(transaction: Transaction) -> Coro[None]:
            nonlocal runs
            runs += 1
            yield from transaction.get("a")
            if runs < 3:
                yield from redis.incr("a")  # as another client would
            transaction.multi()
            transaction.set("b", runs)

        assert (yield from redis.transaction(body, "a")) == [True]
        assert (yield from redis.get("b")) == b"3"

    coro.run(main())


def test_body_of_a_transaction_that_is_no_generator_function(redis_database: str) -> None:
    redis = Redis.from_url(redis_database)

    def body(transaction: Transaction) -> Any:
        transaction.multi()
        transaction.set("key", 1)

    def main() -> Coro[None]:
        with pytest.raises(TypeError, match="is to be a generator function"):
            yield from redis.transaction(body, "key")
        assert not (yield from redis.exists("key"))

    coro.run(main())


def test_attempts_at_a_transaction_are_bounded(database: str) -> None:
    redis = Redis.from_url(database)

    def body(transaction: Transaction) -> Coro[None]:
        yield from redis.incr("a")
        transaction.multi()
        transaction.set("b", 1)

    def main() -> Coro[None]:
        with pytest.raises(WatchError, match="changed by others in each of 5 attempts"):
            yield from redis.transaction(body, "a", attempts=5)
        assert (yield from redis.mget("a", "b")) == [b"5", None]

    coro.run(main())


def test_error_in_a_transaction_leaves_no_key_watched(database: str) -> None:
    redis = Redis.from_url(database)

    def failing(transaction: Transaction) -> Coro[None]:
        transaction.multi()
        transaction.set("b", 1)
        yield from ()
        raise KeyError("ours")

    def main() -> Coro[None]:
        with pytest.raises(KeyError, match="ours"):
            yield from redis.transaction(failing, "a")
        yield from redis.incr("a")
        assert (yield from redis.transaction(take_one, attempts=1)) == [True, 1]  # on the same connection
        assert repr(redis.pool) == f"{ALL_IS_BACK}, 1 idle"

    coro.run(main())


def test_error_of_a_body_is_raised_also_when_the_connection_is_lost_meanwhile(redis_server: RedisServer) -> None:
    def body(proxy: Proxy) -> Coro[None]:
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")

        def failing(transaction: Transaction) -> Coro[None]:
            yield from transaction.get("a")
            proxy.cut()
            raise KeyError("ours")

        with pytest.raises(KeyError, match="ours"):
            yield from redis.transaction(failing, "a")
        assert repr(redis.pool) == f"{ALL_IS_BACK}, 0 idle"

    coro.run(through_proxy(redis_server.port, body))


def test_result_of_a_command_in_a_transaction(database: str) -> None:
    redis = Redis.from_url(database, decode=True)

    def main() -> Coro[None]:
        def body(transaction: Transaction[str]) -> Coro[None]:
            yield from transaction.watch("a")
            transaction.multi()
            transaction.set("a", "text")
            results.append(transaction.get("a"))
            with pytest.raises(RuntimeError, match="multi"):
                transaction.multi()
            with pytest.raises(RuntimeError, match=r"watch\(\) after multi\(\)"):
                yield from transaction.watch("b")

        results: list[Coro[str | None]] = []
        assert (yield from redis.transaction(body)) == [True, "text"]
        assert (yield from results[0]) == "text"

    coro.run(main())


@pytest.mark.parametrize(
    "command", ["SELECT 1", "MULTI", "EXEC", "SUBSCRIBE a", "CLIENT REPLY OFF", "AUTH x", "WATCH a", "WAIT 0 1"]
)
def test_command_that_would_change_the_connection_for_the_next_one_is_refused(
    redis_database: str, command: str
) -> None:
    redis = Redis.from_url(redis_database)

    def body(transaction: Transaction) -> Coro[None]:
        with pytest.raises(OwnConnectionError):
            yield from transaction.execute_command(*command.split())
        transaction.multi()
        with pytest.raises(OwnConnectionError):
            transaction.execute_command(*command.split())

    coro.run(redis.transaction(body))
    with pytest.raises(OwnConnectionError):
        _ = redis.pipeline().execute_command(*command.split())


def test_command_that_blocks_does_not_in_a_transaction(database: str) -> None:
    redis = Redis.from_url(database)

    def body(transaction: Transaction) -> Coro[None]:
        assert (yield from transaction.blpop("empty", 0.001)) is None
        transaction.multi()
        transaction.blpop("empty", 0)

    def main() -> Coro[None]:
        assert (yield from redis.transaction(body)) == [None]
        pipeline = redis.pipeline()
        pipeline.blpop("empty")
        assert (yield from pipeline.execute()) == [None]

    coro.run(main())


def test_failing_command_of_a_transaction_raises_when_all_are_carried_out(database: str) -> None:
    redis = Redis.from_url(database)

    def body(transaction: Transaction) -> Coro[None]:
        transaction.multi()
        transaction.set("a", "text")
        transaction.lpush("a", 1)
        transaction.set("b", 1)
        yield from ()

    def main() -> Coro[None]:
        with pytest.raises(ReplyError, match="WRONGTYPE"):
            yield from redis.transaction(body)
        assert (yield from redis.get("b")) == b"1"

    coro.run(main())


def test_transaction_cancelled_at_any_step_is_carried_out_whole_or_not_at_all(database: str) -> None:
    redis = Redis.from_url(database)

    def is_cancelled(group: TaskGroup, turns: int) -> Coro[bool]:
        yield from redis.delete("stock", "sold")
        task = group.spawn(redis.transaction(take_one, "stock"))
        for _ in range(turns):
            yield from coro.checkpoint()
        task.cancel()
        pipeline = redis.pipeline()
        pipeline.set("other", "value")
        pipeline.get("other")
        assert (yield from pipeline.execute()) == [True, b"value"]
        assert (yield from redis.mget("stock", "sold")) in ([None, None], [b"-1", b"1"])
        try:
            yield from task.join()
        except coro.TaskCancelled:
            return True
        return False

    def body(group: TaskGroup) -> Coro[None]:
        for _ in range(20):
            turns = 0
            while (yield from is_cancelled(group, turns)):
                turns += 1
        assert ALL_IS_BACK in repr(redis.pool)

    coro.run(coro.task_group(body))


def test_transaction_whose_connection_is_cut_at_any_byte(redis_server: RedisServer) -> None:
    """It fails, or succeeds whole; nothing is sent twice, and the next one works."""

    def whole(proxy: Proxy) -> Coro[int]:
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")
        yield from redis.transaction(take_one, "stock")
        return len(proxy.replies)

    def cut(position: int) -> Callable[[Proxy], Coro[bool]]:
        def body(proxy: Proxy) -> Coro[bool]:
            redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")
            proxy.cut_after = position
            succeeded = True
            try:
                yield from redis.transaction(take_one, "stock")
            except RedisConnectionError:
                succeeded = False
            proxy.cut_after = None
            assert ALL_IS_BACK in repr(redis.pool)
            assert proxy.requests.count(encode(["EXEC"])) <= 1
            return succeeded

        return body

    total = coro.run(through_proxy(redis_server.port, whole))
    outcomes = [coro.run(through_proxy(redis_server.port, cut(position))) for position in range(total + 40)]
    sold = int(redis_server.command("GET", "sold"))
    assert sum(outcomes) + 1 <= sold <= len(outcomes) + 1
    assert not outcomes[0] and outcomes[-1]
