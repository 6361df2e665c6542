"""How the cluster client finds nodes and loses them: nodes here say what a test wants."""

from __future__ import annotations

import time

import pytest

import coro
from coro import Coro, TaskGroup
from coro.redis import (
    ClusterDownError,
    RedisCluster,
    RedisConnectionError,
)
from coro.redis.slots import key_slot
from tests.redis.fake import ManualClock, settle
from tests.redis.fake_cluster import (
    A_KEY,
    B_KEY,
    HALF,
    VALUE,
    FakeCluster,
    caught,
    gets,
    range_of,
    run,
)
from tests.services import dead_port


def test_keys_of_these_tests_are_in_the_two_halves() -> None:
    assert key_slot(B_KEY.encode()) < HALF <= key_slot(A_KEY.encode())


# --- Finding nodes -----------------------------------------------------------------------------


def test_map_is_asked_for_once_by_many_tasks() -> None:
    def body(cluster: FakeCluster) -> Coro[None]:
        redis = cluster.client()
        yield from coro.gather(*[redis.get(key) for key in [A_KEY, B_KEY] * 25])
        assert cluster.asked == 1
        assert (gets(cluster.a), gets(cluster.b)) == (25, 25)

    run(body)


def test_seed_that_is_dead_is_passed_over() -> None:
    def body(cluster: FakeCluster) -> Coro[None]:
        redis = RedisCluster.from_url(f"redis://127.0.0.1:{dead_port()},{cluster.b.address}")
        assert (yield from redis.get(A_KEY)) == b"value"

    run(body)


def test_seed_that_is_silent_is_not_waited_for_alone() -> None:
    clock = ManualClock()

    def body(cluster: FakeCluster) -> Coro[None]:
        del cluster.a.answers[b"CLUSTER"]
        redis = cluster.client()

        def use(group: TaskGroup) -> Coro[None]:
            task = group.spawn(redis.get(B_KEY))
            yield from cluster.a.received(1)
            yield from settle()
            assert not cluster.b.commands
            clock.advance(0.5)
            assert (yield from task.join()) == b"value"

        yield from coro.task_group(use)

    run(body, clock)


def test_seeds_that_are_all_dead_are_one_error_that_names_them_and_then_a_pause() -> None:
    ports = [dead_port(number) for number in range(3)]
    redis = RedisCluster.from_url("redis://" + ",".join(f"127.0.0.1:{port}" for port in ports))
    seeds = ", ".join(f"127.0.0.1:{port}" for port in ports)

    def main() -> Coro[None]:
        errors = yield from coro.gather(*[caught(redis.get(str(number))) for number in range(10)])
        text = f"no node of the Redis cluster at {seeds} tells who serves what: Connection refused ({seeds})"
        assert {str(error) for error in errors} == {text}
        assert len({id(error) for error in errors}) == 10
        assert not any(error.sent for error in errors)
        later = yield from caught(redis.get("key"))
        assert str(later).startswith(f"{text} (trying again in 0.")

    coro.run(main(), clock=ManualClock())


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"-ERR This instance has cluster support disabled\r\n", "ERR This instance has cluster support disabled"),
        (b"*0\r\n", "it knows of no node that serves anything"),
        (b"+OK\r\n", "the reply to CLUSTER SLOTS cannot be read"),
    ],
)
def test_nodes_that_can_tell_nothing_are_an_error_that_says_so(reply: bytes, message: str) -> None:
    def body(cluster: FakeCluster) -> Coro[None]:
        cluster.a.answers[b"CLUSTER"] = cluster.b.answers[b"CLUSTER"] = reply
        error = yield from caught(cluster.client().get(A_KEY))
        assert isinstance(error, RedisConnectionError)
        assert message in str(error)
        assert str(error).endswith(f"({cluster.a.address}, {cluster.b.address})")

    run(body)


def test_slot_that_nobody_serves_is_asked_for_again_and_then_an_error() -> None:
    clock = ManualClock()

    def body(cluster: FakeCluster) -> Coro[None]:
        for node in cluster.nodes:
            node.answers[b"CLUSTER"] = b"*1\r\n" + range_of(0, HALF - 1, [cluster.b.listener.port])
        redis = cluster.client()
        yield from redis.get(B_KEY)
        clock.advance(1)
        commands = redis.pipeline(transaction=False)
        for _ in range(20):
            commands.get(A_KEY)
        commands.get(B_KEY)
        *errors, value = yield from commands.execute(raise_on_error=False)
        assert value == b"value"
        for error in errors:
            assert isinstance(error, ClusterDownError)
            assert f"serves slot {key_slot(A_KEY.encode())}" in str(error)
        assert cluster.asked == 2

    run(body, clock)


def test_map_is_asked_for_again_once_in_a_while() -> None:
    clock = ManualClock()

    def body(cluster: FakeCluster) -> Coro[None]:
        redis = cluster.client()
        yield from redis.get(A_KEY)
        cluster.tell(low=[cluster.a.listener.port], high=[cluster.a.listener.port])
        clock.advance(59)
        yield from settle()
        assert cluster.asked == 1
        clock.advance(1)
        while cluster.asked < 2:
            yield from coro.checkpoint()
        yield from settle()
        yield from redis.get(B_KEY)
        assert (gets(cluster.a), gets(cluster.b)) == (2, 0)
        assert "1 nodes known" in repr(redis)

    run(body, clock)


def test_node_that_left_is_let_go_when_it_has_answered() -> None:
    clock = ManualClock()

    def body(cluster: FakeCluster) -> Coro[None]:
        redis = cluster.client()
        yield from redis.get(A_KEY)
        del cluster.b.answers[b"GET"]

        def use(group: TaskGroup) -> Coro[None]:
            task = group.spawn(redis.get(B_KEY))
            while not gets(cluster.b):
                yield from coro.checkpoint()
            cluster.tell(low=[cluster.a.listener.port], high=[cluster.a.listener.port])
            told = cluster.b.answers.pop(b"CLUSTER")
            redis._map.refresh()
            while [command[0] for command in cluster.a.commands].count(b"CLUSTER") < 2:
                clock.advance(0.1)
                yield from settle()
            assert not task.done
            yield from cluster.b.say(VALUE)
            if cluster.b.commands[-1][0] == b"CLUSTER":
                yield from cluster.b.say(told)
            assert (yield from task.join()) == b"value"
            yield from settle()
            assert cluster.b.stream is not None and cluster.b.stream.closed

        yield from coro.task_group(use)

    run(body, clock)


# --- Losing nodes ------------------------------------------------------------------------------


def test_dead_node_is_asked_about_once_by_many_tasks_and_then_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coro.redis.nodes.PATIENCE", 100.0)  # no second node is asked because the first is slow

    def body(cluster: FakeCluster) -> Coro[None]:
        dead = dead_port()
        cluster.tell(low=[dead], high=[cluster.a.listener.port])
        redis = cluster.client()
        yield from redis.get(A_KEY)
        errors = yield from coro.gather(*[caught(redis.get(B_KEY)) for _ in range(50)])
        assert {str(error) for error in errors} == {f"no connection to Redis at 127.0.0.1:{dead}: Connection refused"}
        assert cluster.asked == 2

    run(body, time.monotonic)


def test_command_that_was_not_sent_goes_to_whom_a_new_map_names() -> None:
    def body(cluster: FakeCluster) -> Coro[None]:
        cluster.tell(low=[dead_port()], high=[cluster.a.listener.port])
        redis = cluster.client()
        yield from redis.get(A_KEY)
        cluster.tell(low=[cluster.b.listener.port], high=[cluster.a.listener.port])
        results = yield from coro.gather(*[redis.get(B_KEY) for _ in range(50)])
        assert results == [b"value"] * 50
        assert gets(cluster.b) == 50
        pipeline = redis.pipeline(transaction=False)
        pipeline.get(B_KEY)
        assert (yield from pipeline.execute()) == [b"value"]

    run(body, time.monotonic)


def test_command_for_any_node_goes_to_one_that_lives() -> None:
    def body(cluster: FakeCluster) -> Coro[None]:
        cluster.tell(low=[dead_port()], high=[cluster.a.listener.port])
        cluster.a.answers[b"TIME"] = b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n"
        redis = cluster.client()
        for _ in range(10):
            assert (yield from redis.time()) == (1, 2)

    run(body, time.monotonic)


def test_command_that_was_sent_is_not_sent_again_and_the_map_is_asked_for() -> None:
    def body(cluster: FakeCluster) -> Coro[None]:
        del cluster.b.answers[b"GET"]
        redis = cluster.client()

        def use(group: TaskGroup) -> Coro[None]:
            task = group.spawn(caught(redis.get(B_KEY)))
            while not gets(cluster.b):
                yield from coro.checkpoint()
            cluster.tell(low=[cluster.a.listener.port], high=[cluster.a.listener.port])
            assert cluster.b.stream is not None
            cluster.b.stream.write_eof()
            error = yield from task.join()
            assert isinstance(error, RedisConnectionError) and error.sent
            assert cluster.b.address in str(error)
            while cluster.asked < 2:
                yield from coro.checkpoint()
            yield from settle()
            assert (yield from redis.get(B_KEY)) == b"value"
            assert (gets(cluster.a), gets(cluster.b)) == (1, 1)

        yield from coro.task_group(use)

    run(body, time.monotonic)


def test_command_declared_idempotent_is_sent_again_where_a_new_map_says() -> None:
    def body(cluster: FakeCluster) -> Coro[None]:
        del cluster.b.answers[b"GET"]
        redis = cluster.client()

        def use(group: TaskGroup) -> Coro[None]:
            task = group.spawn(redis.execute("GET", B_KEY, idempotent=True))
            while not gets(cluster.b):
                yield from coro.checkpoint()
            cluster.tell(low=[cluster.a.listener.port], high=[cluster.a.listener.port])
            assert cluster.b.stream is not None
            cluster.b.stream.write_eof()
            cluster.b.listener.close()
            assert (yield from task.join()) == b"value"
            assert (gets(cluster.a), gets(cluster.b)) == (1, 1)

        yield from coro.task_group(use)

    run(body, time.monotonic)


def test_pipeline_of_which_one_node_dies_has_the_results_of_the_others() -> None:
    def body(cluster: FakeCluster) -> Coro[None]:
        del cluster.b.answers[b"GET"]
        redis = cluster.client()

        def use(group: TaskGroup) -> Coro[None]:
            pipeline = redis.pipeline(transaction=False)
            for key in (A_KEY, B_KEY, A_KEY, B_KEY):
                pipeline.get(key)
            task = group.spawn(pipeline.execute(raise_on_error=False))
            while gets(cluster.b) < 2:
                yield from coro.checkpoint()
            assert cluster.b.stream is not None
            cluster.b.stream.write_eof()
            first, lost, third, lost_too = yield from task.join()
            assert (first, third) == (b"value", b"value")
            for error in lost, lost_too:
                assert isinstance(error, RedisConnectionError) and error.sent
                assert f"{cluster.b.address} was lost" in str(error)
            assert lost is not lost_too

        yield from coro.task_group(use)

    run(body, time.monotonic)


def test_what_waits_for_a_node_that_serves_nothing_any_more_goes_elsewhere() -> None:
    """The node has accepted the connection and is silent: its deadline is far away."""
    clock = ManualClock()

    def body(cluster: FakeCluster) -> Coro[None]:
        del cluster.b.answers[b"HELLO"]
        redis = cluster.client()
        yield from redis.get(A_KEY)

        def use(group: TaskGroup) -> Coro[None]:
            task = group.spawn(redis.get(B_KEY))
            while not cluster.b.hellos:
                yield from coro.checkpoint()
            cluster.tell(low=[cluster.a.listener.port], high=[cluster.a.listener.port])
            redis._map.refresh()
            started = clock.time
            while not task.done:
                clock.advance(0.1)
                yield from settle()
            assert (yield from task.join()) == b"value"
            assert clock.time - started < 1

        yield from coro.task_group(use)

    run(body, clock)


def test_map_is_asked_for_until_a_node_that_cannot_be_reached_is_out_of_it() -> None:
    clock = ManualClock()

    def body(cluster: FakeCluster) -> Coro[None]:
        cluster.tell(low=[dead_port()], high=[cluster.a.listener.port])
        redis = cluster.client()
        yield from redis.get(A_KEY)
        clock.advance(1)
        yield from caught(redis.get(B_KEY))
        asked = cluster.asked
        for seconds in (1, 2, 4):
            yield from settle()
            assert cluster.asked == asked
            clock.advance(seconds)
            asked += 1
            while cluster.asked < asked:
                yield from coro.checkpoint()
        yield from settle()
        cluster.tell(low=[cluster.a.listener.port], high=[cluster.a.listener.port])
        clock.advance(8)
        while cluster.asked == asked:
            yield from coro.checkpoint()
        yield from settle()
        clock.advance(50)
        yield from settle()
        assert cluster.asked == asked + 1

    run(body, clock)
