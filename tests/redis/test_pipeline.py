"""Explicit pipelines: sent in one piece, each result its own, errors one by one."""

from __future__ import annotations

import pytest

import coro
from coro import Coro, TaskGroup
from coro.redis import OwnConnectionError, Redis, RedisConnectionError, TransactionAbortedError, WrongTypeError
from tests.proxy import Proxy, through_proxy
from tests.redis.fake import FakeRedis, settle, with_fake
from tests.services import RedisServer

NOTHING_WAITS = "0 unsent, 0 unanswered"
kinds = pytest.mark.parametrize("transaction", [True, False], ids=["transaction", "plain"])


@kinds
def test_results_come_in_a_list_and_one_by_one(database: str, transaction: bool) -> None:
    def main() -> Coro[None]:
        pipeline = Redis.from_url(database).pipeline(transaction)
        pipeline.set("a", "1")
        number = pipeline.incr("a", 4)
        value = pipeline.get("a")
        missing = pipeline.get("b")
        assert len(pipeline) == 4
        assert (yield from pipeline.execute()) == [True, 5, b"5", None]
        assert (yield from number) == 5
        assert (yield from value) == b"5"
        assert (yield from missing) is None
        assert len(pipeline) == 0
        assert (yield from pipeline.execute()) == []

    coro.run(main())


@kinds
def test_strings_are_text_where_the_client_decodes(database: str, transaction: bool) -> None:
    def main() -> Coro[None]:
        pipeline = Redis.from_url(database, decode=True).pipeline(transaction)
        pipeline.set("a", "ä")
        text = pipeline.get("a")
        yield from pipeline.execute()
        assert (yield from text) == "ä"

    coro.run(main())


@kinds
def test_first_error_is_raised_when_all_are_carried_out(database: str, transaction: bool) -> None:
    redis = Redis.from_url(database)

    def main() -> Coro[None]:
        pipeline = redis.pipeline(transaction)
        pipeline.set("a", "text")
        failing = pipeline.execute_command("LPUSH", "a", 1)
        number = pipeline.incr("b")
        with pytest.raises(WrongTypeError) as caught:
            yield from pipeline.execute()
        assert caught.value.__notes__[0] == "command 2 of 3 in a pipeline: <Queued LPUSH>"
        assert (yield from number) == 1
        with pytest.raises(WrongTypeError):
            yield from failing
        assert (yield from redis.get("b")) == b"1"

    coro.run(main())


@kinds
def test_errors_stand_among_the_results_if_wanted(database: str, transaction: bool) -> None:
    def main() -> Coro[None]:
        pipeline = Redis.from_url(database).pipeline(transaction)
        pipeline.set("a", "text")
        pipeline.execute_command("LPUSH", "a", 1)
        pipeline.get("a")
        done, error, value = yield from pipeline.execute(raise_on_error=False)
        assert (done, value) == (True, b"text")
        assert isinstance(error, WrongTypeError)

    coro.run(main())


def test_result_before_it_is_there(database: str) -> None:
    def main() -> Coro[None]:
        queued = Redis.from_url(database).pipeline().get("a")
        with pytest.raises(RuntimeError, match="<Queued GET> has no result"):
            yield from queued

    coro.run(main())


def test_transaction_with_a_refused_command_does_nothing(database: str) -> None:
    redis = Redis.from_url(database)

    def main() -> Coro[None]:
        pipeline = redis.pipeline()
        pipeline.set("a", "1")
        pipeline.execute_command("NOSUCHCOMMAND")
        with pytest.raises(TransactionAbortedError, match=r"EXECABORT.* The first was: ERR unknown command"):
            yield from pipeline.execute()
        assert (yield from redis.get("a")) is None
        assert "0 of 50 own connections lent, 1 idle" in repr(redis.pool)

    coro.run(main())


def test_transaction_is_not_interleaved_with_others(database: str) -> None:
    redis = Redis.from_url(database)

    def use() -> Coro[None]:
        for _ in range(20):
            pipeline = redis.pipeline()
            for _ in range(5):
                pipeline.incr("n")
            results = yield from pipeline.execute()
            assert results == list(range(results[0], results[0] + 5))

    def main() -> Coro[None]:
        yield from coro.gather(*[use() for _ in range(10)])
        assert (yield from redis.get("n")) == b"1000"

    coro.run(main())


def test_commands_that_block_are_refused_in_a_plain_pipeline() -> None:
    with pytest.raises(OwnConnectionError, match=r"^BLPOP needs a connection of its own, because it blocks"):
        _ = Redis.from_url("redis://localhost").pipeline(transaction=False).execute_command("BLPOP", "a", 0)


def test_plain_pipeline_shares_the_connection_and_is_one_piece(redis_server: RedisServer) -> None:
    def body(proxy: Proxy) -> Coro[None]:
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")

        def use(name: str) -> Coro[None]:
            for number in range(20):
                pipeline = redis.pipeline(transaction=False)
                pipeline.set(name, number)
                pipeline.get(name)
                assert (yield from pipeline.execute()) == [True, b"%d" % number]
                assert (yield from redis.get(name)) == b"%d" % number

        yield from coro.gather(*[use(f"name {number}") for number in range(20)])
        assert proxy.connections == 1
        assert NOTHING_WAITS in repr(redis)

    coro.run(through_proxy(redis_server.port, body))


def test_pipeline_larger_than_what_may_be_under_way(redis_database: str) -> None:
    redis = Redis.from_url(redis_database, max_unanswered=10)

    def main() -> Coro[None]:
        pipeline = redis.pipeline(transaction=False)
        for _ in range(1000):
            pipeline.incr("n")
        results = coro.gather(redis.ping(), pipeline.execute(), redis.ping())
        assert (yield from results) == [True, list(range(1, 1001)), True]
        assert NOTHING_WAITS in repr(redis)

    coro.run(main())


def test_commands_of_a_pipeline_count_as_under_way() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url, max_unanswered=4)

        def use(group: TaskGroup) -> Coro[None]:
            pipeline = redis.pipeline(transaction=False)
            for name in "abcd":
                pipeline.get(name)
            running, behind = group.spawn(pipeline.execute()), group.spawn(redis.get("e"))
            yield from fake.received(4)
            yield from settle()
            assert len(fake.commands) == 4
            yield from fake.say(b"$1\r\nA\r\n")
            yield from fake.received(5)
            yield from fake.say(b"_\r\n" * 4)
            assert (yield from running.join()) == [b"A", None, None, None]
            assert (yield from behind.join()) is None

        yield from coro.task_group(use)

    coro.run(with_fake({}, body))


def test_lost_connection_fails_a_pipeline_once_and_its_neighbours() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url)

        def lose(group: TaskGroup) -> Coro[None]:
            pipeline = redis.pipeline(transaction=False)
            first, _, _ = pipeline.get("a"), pipeline.get("b"), pipeline.get("b")
            running = group.spawn(expect(pipeline.execute(), "a pipeline of 3 commands had been sent"))
            after = group.spawn(expect(redis.get("c"), "GET had been sent"))
            yield from fake.received(4)
            yield from fake.say(b"$1\r\nA\r\n")
            yield from settle()
            assert fake.stream is not None
            fake.stream.close()
            yield from running.join()
            yield from after.join()
            with pytest.raises(RuntimeError, match="no result"):
                yield from first

        yield from coro.task_group(lose)
        assert NOTHING_WAITS in repr(redis)

    def expect(call: Coro[object], message: str) -> Coro[None]:
        with pytest.raises(RedisConnectionError, match=message):
            yield from call

    coro.run(with_fake({}, body))


@kinds
def test_pipeline_cancelled_at_any_step_leaves_no_reply_to_another(database: str, transaction: bool) -> None:
    redis = Redis.from_url(database)

    def is_cancelled(group: TaskGroup, turns: int) -> Coro[bool]:
        pipeline = redis.pipeline(transaction)
        for name in "aaaa":
            pipeline.get(name)
        task = group.spawn(pipeline.execute())
        for _ in range(turns):
            yield from coro.checkpoint()
        task.cancel()
        other = redis.pipeline(transaction)
        other.get("b")
        other.get("c")
        assert (yield from other.execute()) == [b"value of b", b"value of c"]
        assert NOTHING_WAITS in repr(redis)
        try:
            assert (yield from task.join()) == [b"value of a"] * 4
        except coro.TaskCancelled:
            return True
        return False

    def body(group: TaskGroup) -> Coro[None]:
        yield from redis.mset({name: f"value of {name}" for name in "abc"})
        for _ in range(30):
            turns = 0
            while (yield from is_cancelled(group, turns)):
                turns += 1
        assert "0 of 50 own connections lent" in repr(redis.pool)

    coro.run(coro.task_group(body))
