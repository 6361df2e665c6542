"""Connections of their own: commands that block, sessions, transactions; and the pool that they come from."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

import coro
from coro import BusyError, ClosedError, Coro, TaskGroup
from coro.redis import (
    OwnConnectionError,
    Redis,
    RedisConnectionError,
    ReplyError,
    Session,
    Transaction,
    UnblockedError,
)
from coro.redis.pool import IDLE_TIME
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


@pytest.mark.parametrize("words", [("BLPOP", "queue", 0), ("WAIT", 1, 0)])
def test_command_that_blocks_in_a_session_has_the_time_that_it_takes(words: tuple[str | int, ...]) -> None:
    clock = ManualClock()

    def body(fake: FakeRedis) -> Coro[None]:
        def wait(session: Session) -> Coro[None]:
            assert (yield from session.execute_command(*words)) == 7

        def use(group: TaskGroup) -> Coro[None]:
            task = group.spawn(Redis.from_url(fake.url, timeout=2).session(wait))
            yield from fake.received(1)
            clock.advance(1000)
            yield from settle()
            assert not task.done
            yield from fake.say(b":7\r\n")
            yield from task.join()

        yield from coro.task_group(use)

    coro.run(with_fake({}, body), clock=clock)


@pytest.mark.parametrize("words", [("SUBSCRIBE", "a"), ("MONITOR",), ("CLIENT", "REPLY", "OFF")])
def test_session_refuses_what_is_not_answered_by_one_reply(redis_database: str, words: tuple[str, ...]) -> None:
    def use(session: Session) -> Coro[None]:
        with pytest.raises(OwnConnectionError, match="not answered by one reply"):
            yield from session.execute_command(*words)
        assert (yield from session.ping())

    coro.run(Redis.from_url(redis_database).session(use))


def test_session_is_for_one_task_at_a_time(database: str) -> None:
    """Two at once could get each other's replies: the second is refused, the first has its own."""
    redis = Redis.from_url(database)

    def waits(session: Session, group: TaskGroup) -> Coro[None]:
        first = group.spawn(session.blpop("queue"))
        yield from blocked(redis)
        with pytest.raises(BusyError, match="it is for one task at a time"):
            yield from session.get("a")
        yield from redis.rpush("queue", 1)
        assert (yield from first.join()) == (b"queue", b"1")
        assert (yield from session.echo("in step")) == b"in step"

    def in_transaction(transaction: Transaction, group: TaskGroup) -> Coro[None]:
        yield from waits(transaction, group)
        transaction.multi()
        transaction.echo("queued")

    def body(group: TaskGroup) -> Coro[None]:
        yield from redis.session(lambda session: waits(session, group))
        assert (yield from redis.transaction(lambda one: in_transaction(one, group))) == [b"queued"]

    coro.run(coro.task_group(body))


def test_loop_of_another_thread_is_refused_also_while_connections_are_only_kept(redis_database: str) -> None:
    redis = Redis.from_url(redis_database)

    def refused(work: Callable[[], Coro[object]]) -> Coro[None]:
        with pytest.raises(RuntimeError, match="in use by another loop: make one for each thread"):
            yield from coro.to_thread(lambda: coro.run(work()))

    def use(session: Session) -> Coro[None]:
        yield from refused(lambda: redis.blpop("queue", 1))
        assert (yield from session.ping())

    def main() -> Coro[None]:
        yield from redis.session(use)  # its connection is closed afterwards
        assert (yield from redis.transaction(ping)) == []
        assert repr(redis.pool) == f"{ALL_IS_BACK}, 1 idle"
        yield from refused(lambda: redis.transaction(ping))
        assert (yield from redis.transaction(ping)) == []

    def ping(transaction: Transaction) -> Coro[None]:
        yield from transaction.ping()

    coro.run(main())
    coro.run(redis.transaction(ping))


def test_session_cannot_be_used_when_it_has_ended(redis_database: str) -> None:
    redis = Redis.from_url(redis_database)
    kept: list[Session] = []

    def keep(session: Session) -> Coro[None]:
        kept.append(session)
        yield from session.ping()

    def main() -> Coro[None]:
        yield from redis.session(keep)
        yield from redis.transaction(keep)
        for session in kept:
            with pytest.raises(RuntimeError, match="has ended"):
                yield from session.get("a")

    coro.run(main())
