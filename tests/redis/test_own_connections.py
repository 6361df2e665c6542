"""Connections of their own: commands that block, sessions, transactions; and the pool that they come from."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

import coro
from coro import ClosedError, Coro, TaskGroup
from coro.redis import (
    OwnConnectionError,
    Redis,
    RedisConnectionError,
    ReplyError,
    Session,
    Transaction,
    UnblockedError,
    WatchError,
)
from coro.redis.pool import IDLE_TIME
from coro.redis.resp import encode
from tests.proxy import Proxy, through_proxy
from tests.redis.fake import FakeRedis, ManualClock, settle, with_fake
from tests.services import RedisServer

ALL_IS_BACK = "0 of 50 own connections lent"


def blocked(redis: Redis, count: int = 1) -> Coro[None]:
    """Return when so many clients of the server wait in a command that blocks."""
    while (yield from redis.info("clients"))["blocked_clients"] != count:
        yield from coro.checkpoint()


# --- Commands that block ---------------------------------------------------------------------


def test_command_that_blocks_holds_up_nobody(database: str) -> None:
    redis = Redis.from_url(database)

    def body(group: TaskGroup) -> Coro[None]:
        tasks = [group.spawn(redis.blpop(f"queue {number}")) for number in range(5)]
        yield from blocked(redis, 5)
        assert (yield from redis.ping())
        for number, task in enumerate(tasks):
            yield from redis.rpush(f"queue {number}", number)
            assert (yield from task.join()) == (b"queue %d" % number, b"%d" % number)
        assert repr(redis.pool) == f"{ALL_IS_BACK}, 5 idle"

    coro.run(coro.task_group(body))


def test_execute_sends_a_command_that_blocks_on_a_connection_of_its_own(database: str) -> None:
    redis = Redis.from_url(database)

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(redis.execute("blpop", "queue", 0))
        yield from blocked(redis)
        yield from redis.rpush("queue", 1)
        assert (yield from task.join()) == [b"queue", b"1"]

    coro.run(coro.task_group(body))


def test_server_that_does_not_keep_to_the_timeout_loses_the_connection() -> None:
    clock = ManualClock()

    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url, timeout=2)

        def use(group: TaskGroup) -> Coro[None]:
            task = group.spawn(expect_lost(redis, "BLPOP was not answered within 12 s; BLPOP had been sent"))
            yield from fake.received(1)
            clock.advance(11.9)
            yield from settle()
            assert not task.done
            clock.advance(0.1)
            yield from task.join()

        yield from coro.task_group(use)
        assert repr(redis.pool) == f"{ALL_IS_BACK}, 0 idle"

    coro.run(with_fake({}, body), clock=clock)


def expect_lost(redis: Redis, message: str) -> Coro[None]:
    with pytest.raises(RedisConnectionError, match=message):
        yield from redis.blpop("queue", 10)


def test_error_reply_to_a_command_that_blocks(database: str) -> None:
    redis = Redis.from_url(database)

    def body(group: TaskGroup) -> Coro[None]:
        yield from redis.set("text", 1)
        with pytest.raises(ReplyError, match="WRONGTYPE"):
            yield from redis.blpop("text", 1)
        assert repr(redis.pool) == f"{ALL_IS_BACK}, 1 idle"
        task = group.spawn(expect_unblocked(redis))
        yield from blocked(redis)
        (waiting,) = [one for one in (yield from redis.client_list()) if one["cmd"] == "blpop"]
        assert (yield from redis.client_unblock(int(waiting["id"]), error=True))
        yield from task.join()

    coro.run(coro.task_group(body))


def expect_unblocked(redis: Redis) -> Coro[None]:
    with pytest.raises(UnblockedError):
        yield from redis.blpop("queue")


def test_command_that_blocks_cancelled_at_any_step_leaves_no_reply_to_another(database: str) -> None:
    """BLPOP a, cancel after so many turns, BLPOP b: always b's element, and no connection is left with a's."""
    redis = Redis.from_url(database)

    def is_cancelled(group: TaskGroup, turns: int) -> Coro[bool]:
        yield from redis.delete("a", "b")
        yield from redis.rpush("a", "of a")
        yield from redis.rpush("b", "of b")
        task = group.spawn(redis.blpop("a"))
        for _ in range(turns):
            yield from coro.checkpoint()
        task.cancel()
        assert (yield from redis.blpop("b")) == (b"b", b"of b")
        try:
            assert (yield from task.join()) == (b"a", b"of a")
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


# --- The pool ----------------------------------------------------------------------------------


def test_no_more_connections_than_allowed_and_whose_turn_it_is_comes(redis_database: str) -> None:
    redis = Redis.from_url(redis_database, max_connections=2)

    def body(group: TaskGroup) -> Coro[None]:
        tasks = [group.spawn(redis.blpop("queue")) for _ in range(6)]
        for _ in range(6):
            yield from redis.rpush("queue", 1)
        for task in tasks:
            yield from task.join()
        assert repr(redis.pool) == "0 of 2 own connections lent, 2 idle"
        assert len((yield from redis.client_list())) == 3

    coro.run(coro.task_group(body))


def test_wait_for_a_connection_has_a_limit(redis_database: str) -> None:
    clock = ManualClock()
    redis = Redis.from_url(redis_database, max_connections=1, connect_timeout=3)

    def too_many() -> Coro[None]:
        with pytest.raises(RedisConnectionError, match=r"all 1 \(max_connections\) were in use for 3 s") as caught:
            yield from redis.blpop("queue")
        assert not caught.value.sent

    def body(group: TaskGroup) -> Coro[None]:
        first = group.spawn(redis.blpop("queue"))
        yield from blocked(redis)
        second = group.spawn(too_many())
        yield from settle()
        clock.advance(3)
        yield from second.join()
        yield from redis.rpush("queue", 1)
        yield from first.join()

    coro.run(coro.task_group(body), clock=clock)


def test_connection_that_the_server_closed_is_not_used_again(redis_server: RedisServer) -> None:
    def body(proxy: Proxy) -> Coro[None]:
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")
        for number in range(1, 4):
            assert (yield from redis.pipeline().execute()) == []
            pipeline = redis.pipeline()
            pipeline.ping()
            assert (yield from pipeline.execute()) == [True]
            assert proxy.connections == number
            proxy.half_close()
            yield from settle()

    coro.run(through_proxy(redis_server.port, body))


def test_connections_that_nobody_uses_are_closed(redis_database: str) -> None:
    clock = ManualClock()
    redis = Redis.from_url(redis_database)

    def main() -> Coro[None]:
        yield from redis.transaction(lambda transaction: transaction.get("a"), "a")
        assert repr(redis.pool) == f"{ALL_IS_BACK}, 1 idle"
        for _ in range(3):
            clock.advance(IDLE_TIME / 2)
            yield from settle()
        assert repr(redis.pool) == f"{ALL_IS_BACK}, 0 idle"

    coro.run(main(), clock=clock)


def test_connections_end_with_the_run_and_another_run_opens_its_own(redis_database: str) -> None:
    redis = Redis.from_url(redis_database)
    for _ in range(2):
        coro.run(redis.transaction(lambda transaction: transaction.get("a"), "a"))
        assert repr(redis.pool) == f"{ALL_IS_BACK}, 0 idle"
    gc.collect()  # a socket left open would be reported


def test_close_ends_what_waits_on_a_connection_of_its_own(redis_database: str) -> None:
    redis, other = Redis.from_url(redis_database), Redis.from_url(redis_database)

    def expect_closed() -> Coro[None]:
        with pytest.raises(ClosedError):
            yield from redis.blpop("queue")

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(expect_closed())
        yield from blocked(other)
        redis.close()
        yield from task.join()
        yield from expect_closed()

    coro.run(coro.task_group(body))


# --- Sessions ------------------------------------------------------------------------------------


def test_session_may_change_its_connection_which_is_closed_then(database: str) -> None:
    redis = Redis.from_url(database)

    def body(session: Session) -> Coro[bytes | None]:
        yield from session.execute_command("SELECT", 1)
        yield from session.set("a", "in database 1")
        assert (yield from session.execute_command("WAIT", 0, 1)) == 0
        assert (yield from session.blpop("queue", 0.001)) is None
        with pytest.raises(ReplyError):
            yield from session.execute_command("LPUSH", "a", 1)
        return (yield from session.get("a"))

    def main() -> Coro[None]:
        assert (yield from redis.session(body)) == b"in database 1"
        assert (yield from redis.get("a")) is None
        assert repr(redis.pool) == f"{ALL_IS_BACK}, 0 idle"

    coro.run(main())


# --- Transactions --------------------------------------------------------------------------------


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
    "command", ["SELECT 1", "MULTI", "EXEC", "SUBSCRIBE a", "CLIENT REPLY OFF", "AUTH x", "WATCH a"]
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

    redis_server.command("FLUSHALL")
    total = coro.run(through_proxy(redis_server.port, whole))
    outcomes = [coro.run(through_proxy(redis_server.port, cut(position))) for position in range(total + 40)]
    sold = int(redis_server.command("GET", "sold"))
    assert sum(outcomes) + 1 <= sold <= len(outcomes) + 1
    assert not outcomes[0] and outcomes[-1]
