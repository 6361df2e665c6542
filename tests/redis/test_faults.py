"""A connection cut anywhere, a server killed under load: an error for what was under way, and nothing done twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count

import pytest

import coro
from coro import Coro, TaskGroup
from coro.redis import Gap, LoadingError, Redis, RedisConnectionError, TransactionAbortedError
from tests.proxy import Proxy, through_proxy
from tests.redis.fake import settle
from tests.services import RedisServer

KEYS = ["a", "b", "c"]
LOGIN = 200  # bytes of replies, about


def get_each(redis: Redis) -> Coro[list[bytes | None]]:
    """What GET says of each key, all asked for at once; None where the connection was lost."""

    def get(key: str) -> Coro[bytes | None]:
        try:
            return (yield from redis.get(key))
        except RedisConnectionError:
            return None

    return (yield from coro.gather(*map(get, KEYS)))


def test_connection_cut_at_any_byte_of_the_replies(redis_server: RedisServer) -> None:
    expected = [key.encode() * 20 for key in KEYS]

    def whole(proxy: Proxy) -> Coro[int]:
        """How many bytes the server says, from the login on, when nothing is cut."""
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")
        yield from redis.mset(dict(zip(KEYS, expected, strict=True)))
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")
        before = len(proxy.replies)
        assert (yield from get_each(redis)) == expected
        return len(proxy.replies) - before

    def cut(position: int, proxy: Proxy) -> Coro[list[bytes | None]]:
        proxy.cut_after = position
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")
        values = yield from get_each(redis)
        proxy.cut_after = None
        yield from settle()  # cut after the last reply, the client may not have noticed
        if values[0] is not None:  # the login had passed: the next call connects again
            assert (yield from get_each(redis)) == expected
        redis.close()
        assert "0 unsent, 0 unanswered" in repr(redis)
        return values

    total = coro.run(through_proxy(redis_server.port, whole))
    seen = set()
    for position in range(total + 10):  # the login's reply holds the client's number, which grows
        values = coro.run(through_proxy(redis_server.port, partial(cut, position)))
        answered = [value for value in values if value is not None]
        assert answered == expected[: len(answered)]  # in order, and each its own
        seen.add(len(answered))
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("kind", ["pipeline", "blpop"])
def test_pipeline_or_blocking_command_cut_at_any_byte(redis_server: RedisServer, kind: str) -> None:
    """It fails, or has its own result; what comes after it is right; nothing is sent twice."""

    def ask(redis: Redis, number: int) -> Coro[object]:
        if kind == "blpop":
            return redis.blpop(f"queue {number}", 1)
        pipeline = redis.pipeline(transaction=False)
        pipeline.rpop(f"queue {number}")
        pipeline.echo(number)
        pipeline.rpush("done", number)
        return pipeline.execute()

    def own(number: int, outcome: object) -> bool:
        if kind == "blpop":
            return outcome == (b"queue %d" % number, b"of %d" % number)
        return isinstance(outcome, list) and outcome[:2] == [b"of %d" % number, b"%d" % number]

    def cut(proxy: Proxy, position: int | None) -> Coro[tuple[bool, int]]:
        yield from to.mset({"a": 1})
        for number in 1, 2:
            yield from to.rpush(f"queue {number}", f"of {number}")
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")
        proxy.cut_after = position
        try:
            first = own(1, (yield from ask(redis, 1)))
            assert first
        except RedisConnectionError:
            first = False
        proxy.cut_after = None
        length = len(proxy.replies)
        yield from settle()
        while True:
            try:
                assert own(2, (yield from ask(redis, 2)))
                break
            except RedisConnectionError as error:  # in the pause after a login that was cut
                assert not error.sent
                yield from coro.sleep(0.01)
        assert proxy.requests.count(b"queue 1") <= 1
        redis.close()
        yield from to.delete("queue 1", "queue 2")
        return first, length

    to = Redis.from_url(redis_server.url())
    _, total = coro.run(through_proxy(redis_server.port, lambda proxy: cut(proxy, None)))
    outcomes = {
        coro.run(through_proxy(redis_server.port, partial(cut, position=position)))[0]
        for position in [*range(0, LOGIN, 20), *range(LOGIN, total + 10)]
    }
    assert outcomes == {True, False}


def test_connection_cut_while_large_values_are_sent(redis_server: RedisServer) -> None:
    def body(proxy: Proxy) -> Coro[None]:
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")
        yield from redis.ping()
        proxy.hold_replies()
        lost = 0

        def store(number: int) -> Coro[None]:
            nonlocal lost
            try:
                yield from redis.set(f"large {number}", b"v" * 10_000_000)
            except RedisConnectionError:
                lost += 1

        def use(group: TaskGroup) -> Coro[None]:
            for number in range(5):
                group.spawn(store(number))
            while len(proxy.requests) < 10_000_000:
                yield from coro.checkpoint()
            proxy.cut()

        yield from coro.task_group(use)
        assert lost == 5
        assert "0 unsent, 0 unanswered" in repr(redis)

    coro.run(through_proxy(redis_server.port, body))


class Load:
    """Tasks that each INCR keys of their own, a new one each time."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self.stopped = False

    def use(self, name: str) -> Coro[None]:
        for number in count():
            key = f"{name}:{number}"
            if self.stopped:
                return
            try:
                assert (yield from self.redis.incr(key)) == 1
            except (RedisConnectionError, LoadingError):  # it answers before it has read its file
                self.failed.add(key)
                yield from coro.sleep(0.001)
            else:
                self.done.add(key)

    def more(self, outcomes: set[str], number: int) -> Coro[None]:
        """Return when so many more have got there."""
        goal = len(outcomes) + number
        while len(outcomes) < goal:
            yield from coro.sleep(0.001)


def test_server_killed_and_restarted_under_load(own_redis: Callable[..., RedisServer]) -> None:
    """What was in flight fails, later calls succeed, no INCR runs twice, and no acknowledged one is lost."""
    server = own_redis("--appendonly", "yes", "--appendfsync", "always")
    redis = Redis.from_url(server.url())
    load = Load(redis)

    def body(group: TaskGroup) -> Coro[None]:
        for number in range(64):
            group.spawn(load.use(f"task {number}"))
        for _ in range(3):
            yield from load.more(load.done, 500)
            yield from coro.to_thread(server.kill)
            yield from load.more(load.failed, 1)
            yield from coro.to_thread(server.start)
        yield from load.more(load.done, 500)
        load.stopped = True

    def main() -> Coro[list[bytes | None]]:
        yield from coro.task_group(body)
        assert "0 unsent, 0 unanswered" in repr(redis)
        return (yield from redis.mget([*load.done, *load.failed]))

    counts = coro.run(main())
    assert set(counts[: len(load.done)]) == {b"1"}
    assert set(counts[len(load.done) :]) <= {b"1", None}


def test_pipelines_and_queues_on_a_server_that_is_killed_under_load(own_redis: Callable[..., RedisServer]) -> None:
    """Pipelines are carried out once at most, transactions whole; consumers and listeners go on afterwards."""
    server = own_redis("--appendonly", "yes", "--appendfsync", "always")
    redis = Redis.from_url(server.url())
    taken: list[bytes] = []
    gaps = messages = pushed = 0
    stopped = False

    def pipelined(name: str) -> Coro[None]:
        for number in count():
            if stopped:
                return
            pipeline = redis.pipeline(transaction=number % 2 == 0)
            for part in "left", "right":
                pipeline.incr(f"{name}:{number}:{part}")
            try:
                assert (yield from pipeline.execute()) == [1, 1]
            except (RedisConnectionError, LoadingError):
                yield from coro.sleep(0.001)
            except TransactionAbortedError as error:
                assert isinstance(error.__cause__, LoadingError)

    def consume() -> Coro[None]:
        while not stopped:
            try:
                item = yield from redis.blpop("queue", 0.2)
            except (RedisConnectionError, LoadingError):
                yield from coro.sleep(0.001)
            else:
                taken.extend([item[1]] if item else [])

    def produce() -> Coro[None]:
        nonlocal pushed
        while not stopped:
            try:
                pushed += 1
                yield from redis.rpush("queue", pushed)
                yield from redis.publish("news", pushed)
            except (RedisConnectionError, LoadingError):
                pass
            yield from coro.sleep(0.001)

    def listen() -> Coro[None]:
        nonlocal gaps, messages
        pubsub = redis.pubsub()
        yield from pubsub.subscribe("news")
        while True:
            message = yield from pubsub.get_message()
            gaps += isinstance(message, Gap)
            messages += 1

    def body(group: TaskGroup) -> Coro[None]:
        nonlocal stopped
        listening = group.spawn(listen())
        workers = [group.spawn(pipelined(f"task {number}")) for number in range(16)]
        workers += [group.spawn(consume()) for _ in range(4)] + [group.spawn(produce())]
        for kills in 1, 2:
            goal = messages + 20, len(taken) + 20
            while messages < goal[0] or len(taken) < goal[1]:
                yield from coro.sleep(0.001)
            yield from coro.to_thread(server.kill)
            yield from coro.to_thread(server.start)
            while gaps < kills:
                yield from coro.sleep(0.001)
        goal = messages + 20, len(taken) + 20
        while messages < goal[0] or len(taken) < goal[1]:
            yield from coro.sleep(0.001)
        stopped = True
        for worker in workers:
            yield from worker.join()
        listening.cancel()

    def main() -> Coro[None]:
        yield from coro.task_group(body)
        assert "0 unsent, 0 unanswered" in repr(redis)
        keys: list[bytes] = []
        scan = redis.scan_iter(match="task*", count=1000)
        while batch := (yield from scan.next()):
            keys += batch
        values = yield from redis.mget(keys)
        assert set(values) == {b"1"}
        halves = {key.rpartition(b":")[0] for key in keys if int(key.split(b":")[1]) % 2 == 0}
        assert {half + end for half in halves for end in (b":left", b":right")} <= set(keys)

    coro.run(main())
    assert len(taken) == len(set(taken))  # each item to one consumer
