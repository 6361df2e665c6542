"""How the cluster client sends on what nodes refuse, reads from replicas, is cancelled: nodes say what a test wants."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import coro
from coro import Coro, TaskGroup
from coro.redis import (
    ClusterDownError,
    MovedError,
    RedisCluster,
)
from coro.redis.dispatch import ATTEMPTS
from tests.redis.fake import settle
from tests.redis.fake_cluster import (
    A_KEY,
    B_KEY,
    VALUE,
    FakeCluster,
    caught,
    gets,
    run,
)
from tests.services import dead_port

# --- Redirections ------------------------------------------------------------------------------


def test_redirection_without_a_host_is_to_the_host_that_answered() -> None:
    def body(cluster: FakeCluster) -> Coro[None]:
        cluster.b.answers[b"GET"] = b"-MOVED 3300 :%d\r\n" % cluster.a.listener.port
        redis = cluster.client()
        assert (yield from redis.get(B_KEY)) == b"value"
        assert (yield from redis.get(B_KEY)) == b"value"
        assert (gets(cluster.a), gets(cluster.b)) == (2, 1)

    run(body)


def test_redirection_to_a_node_that_the_map_does_not_know() -> None:
    def body(cluster: FakeCluster) -> Coro[None]:
        cluster.tell(low=[cluster.a.listener.port], high=[cluster.a.listener.port])
        redis = RedisCluster.from_url(cluster.a.url)
        cluster.a.answers[b"GET"] = b"-ASK 3300 %s\r\n" % cluster.b.address.encode()
        assert (yield from redis.get(B_KEY)) == b"value"
        assert cluster.b.commands == [[b"ASKING"], [b"GET", b"b"]]

    run(body)


def test_asking_and_its_command_stay_together_among_others() -> None:
    def body(cluster: FakeCluster) -> Coro[None]:
        cluster.b.answers[b"GET"] = b"-ASK 3300 %s\r\n" % cluster.a.address.encode()
        redis = cluster.client()
        yield from coro.gather(*[redis.get(key) for key in [A_KEY, B_KEY] * 20])
        commands = [command for command in cluster.a.commands if command[0] != b"CLUSTER"]
        assert commands.count([b"ASKING"]) == commands.count([b"GET", b"b"]) == 20
        for number, command in enumerate(commands):
            assert (command == [b"ASKING"]) == (commands[number + 1 : number + 2] == [[b"GET", b"b"]])
        assert gets(cluster.b) == 20  # ASK does not change the map

    run(body)


def test_nodes_that_send_a_command_in_circles_are_an_error_in_the_end() -> None:
    def body(cluster: FakeCluster) -> Coro[None]:
        for here, there in ((cluster.a, cluster.b), (cluster.b, cluster.a)):
            here.answers[b"GET"] = b"-MOVED 3300 %s\r\n" % there.address.encode()
        error = yield from caught(cluster.client().get(B_KEY))
        assert isinstance(error, MovedError)
        assert ATTEMPTS <= gets(cluster.a) + gets(cluster.b) <= ATTEMPTS + 1

    run(body)


def test_cluster_that_is_down_is_tried_again_after_longer_and_longer_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def noted(seconds: float) -> Coro[None]:
        pauses.append(seconds)
        yield from coro.checkpoint()

    def body(cluster: FakeCluster) -> Coro[None]:
        redis = cluster.client()
        yield from redis.get(A_KEY)
        cluster.a.answers[b"GET"] = b"-CLUSTERDOWN The cluster is down\r\n"
        assert isinstance((yield from caught(redis.get(A_KEY))), ClusterDownError)
        cluster.a.answers[b"GET"] = VALUE
        assert (yield from redis.get(A_KEY)) == b"value"

    monkeypatch.setattr("coro.redis.dispatch.sleep", noted)
    run(body)
    assert len(pauses) == ATTEMPTS
    for number, pause in enumerate(pauses):
        assert 0.01 * 2**number <= pause <= 0.02 * 2**number


# --- Replicas --------------------------------------------------------------------------------


def test_connections_are_set_to_serve_reads_if_replicas_are_to() -> None:
    def body(cluster: FakeCluster) -> Coro[None]:
        shard = [cluster.a.listener.port, cluster.b.listener.port]
        cluster.tell(low=shard, high=shard)
        redis = cluster.client(replica_reads=True)
        assert (yield from redis.get(B_KEY)) == b"value"
        assert cluster.b.commands == [[b"READONLY"], [b"GET", b"b"]]

    run(body)


@pytest.mark.parametrize(
    "answer", [b"-LOADING reading\r\n", b"-MASTERDOWN link is down\r\n", b"-CLUSTERDOWN is down\r\n", None]
)
def test_replica_that_cannot_serve_is_passed_over(answer: bytes | None) -> None:
    """None: it cannot be reached."""

    def body(cluster: FakeCluster) -> Coro[None]:
        shard = [cluster.a.listener.port, cluster.b.listener.port if answer else dead_port()]
        cluster.tell(low=shard, high=shard)
        if answer:
            cluster.b.answers[b"GET"] = answer
        redis = cluster.client(replica_reads=True)
        assert (yield from redis.get(B_KEY)) == b"value"
        assert (gets(cluster.a), gets(cluster.b)) == (1, 1 if answer else 0)

    run(body)


# --- Cancellation ------------------------------------------------------------------------------


def one_command(redis: RedisCluster) -> Coro[Any]:
    return redis.get(B_KEY)


def pipeline(redis: RedisCluster) -> Coro[Any]:
    commands = redis.pipeline(transaction=False)
    for key in (A_KEY, B_KEY, A_KEY, B_KEY):
        commands.get(key)
    return commands.execute()


@pytest.mark.parametrize("call", [one_command, pipeline])
def test_caller_cancelled_at_any_step_leaves_nothing_behind(
    call: Callable[[RedisCluster], Coro[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command whose way is long: a node that is dead, a new map, a node that redirects, one that answers."""
    monkeypatch.setattr("coro.redis.nodes.PAUSE", 0.0)

    def once(cluster: FakeCluster, turns: int) -> Coro[bool]:
        cluster.tell(low=[dead_port()], high=[cluster.a.listener.port])
        redis = cluster.client()
        yield from redis.get(A_KEY)
        cluster.tell(low=[cluster.b.listener.port], high=[cluster.a.listener.port])
        cluster.b.answers[b"GET"] = b"-ASK 3300 %s\r\n" % cluster.a.address.encode()

        def use(group: TaskGroup) -> Coro[bool]:
            task = group.spawn(call(redis))
            for _ in range(turns):
                yield from coro.checkpoint()
            task.cancel()
            assert (yield from redis.get(A_KEY)) == b"value"
            yield from settle()
            for node in redis._map._nodes.values():
                assert "0 unsent, 0 unanswered" in repr(node)
            assert not redis._map._waiters
            return task.exception is not None

        cancelled = yield from coro.task_group(use)
        redis.close()
        return cancelled

    def body(cluster: FakeCluster) -> Coro[None]:
        turns = 0
        while (yield from once(cluster, turns)):
            turns += 1
        assert turns > 10

    run(body, time.monotonic)
