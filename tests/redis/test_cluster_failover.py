"""Nodes of a real cluster that die in mid-load: nothing is done twice, nothing acknowledged is lost, work goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import coro
from coro import Coro
from coro.redis import RedisCluster, RedisConnectionError
from coro.redis.slots import key_slot
from tests.redis.load import KEYS, Counters, run_load, stop
from tests.topologies import ClusterNode
from tests.topologies import RedisCluster as ClusterServers


@pytest.fixture(scope="module")
def hasty_cluster() -> Iterator[ClusterServers]:
    """A cluster that replaces a dead primary within seconds."""
    with ClusterServers() as servers:
        yield servers


@pytest.fixture
def servers(hasty_cluster: ClusterServers) -> Iterator[ClusterServers]:
    """The cluster, emptied; what the test has killed runs again afterwards."""
    hasty_cluster.clear()
    yield hasty_cluster
    for node in hasty_cluster.nodes:
        if not node.is_running:
            node.start()
    hasty_cluster.settle()


def keys_at(servers: ClusterServers, node: ClusterNode) -> list[str]:
    return [key for key in KEYS if servers.owner(key_slot(key.encode())) is node]


def test_primary_killed_in_mid_load(servers: ClusterServers) -> None:
    victim = servers.primaries()[0]
    keys = keys_at(servers, victim)
    others = [key for key in KEYS if key not in keys]

    asked = -asked_for_map(servers)

    def disturb(counters: Counters) -> Coro[None]:
        nonlocal asked
        asked += stat_of(victim)
        yield from stop(victim)
        victim.kill()
        yield from counters.advance(keys, 20)  # at the promoted replica

    counters = run_load(RedisCluster.from_url(servers.url), disturb)
    asked += asked_for_map(servers)
    assert all(counters.lost[key] <= 1 for key in keys)
    assert not any(counters.lost[key] for key in others)
    assert any(counters.lost[key] for key in keys)
    lost = [str(error) for error in counters.errors if isinstance(error, RedisConnectionError) and error.sent]
    assert all(f"127.0.0.1:{victim.port} was lost" in text for text in lost)
    assert asked < len(counters.errors) / 2  # those that fail at once share one answer


def asked_for_map(servers: ClusterServers) -> int:
    return sum(map(stat_of, servers.running))


def stat_of(node: ClusterNode) -> int:
    """How many times a node was asked for the map."""
    return int(node.info("commandstats").get("cmdstat_cluster|slots", {"calls": 0})["calls"])


def test_primary_that_stops_answering_in_mid_load(servers: ClusterServers) -> None:
    victim = servers.primaries()[0]
    keys = keys_at(servers, victim)
    pid = victim.pid

    def disturb(counters: Counters) -> Coro[None]:
        yield from stop(victim)
        yield from counters.advance(keys, 20)

    try:
        counters = run_load(RedisCluster.from_url(servers.url, timeout=5), disturb)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert any("was not answered within 5 s" in str(error) for error in counters.errors)
    assert all(counters.lost[key] <= 1 for key in KEYS)


def test_planned_failover_loses_nothing_and_no_call_fails(servers: ClusterServers) -> None:
    primary = servers.primaries()[0]
    keys = keys_at(servers, primary)
    replica = servers.replica_of(primary)

    def disturb(counters: Counters) -> Coro[None]:
        yield from coro.to_thread(replica.take_over)
        yield from counters.advance(keys, 20)

    counters = run_load(RedisCluster.from_url(servers.url), disturb)
    assert not any(counters.lost.values())


def test_new_client_among_whose_seeds_one_is_dead(servers: ClusterServers) -> None:
    servers.nodes[0].kill()
    servers.settle()
    redis = RedisCluster.from_url(servers.url)

    def main() -> Coro[None]:
        yield from coro.gather(*[redis.set(key, 1) for key in KEYS])

    coro.run(main())


def test_replica_killed_while_it_serves_reads(servers: ClusterServers) -> None:
    redis = RedisCluster.from_url(servers.url, replica_reads=True)
    victims = servers.replicas()

    def main() -> Coro[None]:
        yield from coro.gather(*[redis.set(key, 1) for key in KEYS])
        yield from coro.gather(*[redis.get(key) for key in KEYS])
        for node in victims:
            node.kill()
        for key in KEYS:
            while True:
                try:
                    assert (yield from redis.get(key)) == b"1"
                    break
                except RedisConnectionError as error:
                    assert error.sent

    coro.run(main())


def test_all_nodes_dead_and_alive_again(servers: ClusterServers) -> None:
    redis = RedisCluster.from_url(servers.url)

    def main() -> Coro[None]:
        yield from redis.set("key", "value")
        nodes = yield from redis.primaries()
        for server in servers.nodes:
            server.kill()
        while not all("idle" in repr(node) for node in nodes):
            yield from coro.checkpoint()
        with pytest.raises(RedisConnectionError) as caught:
            yield from redis.get("key")
        assert not caught.value.sent
        assert str(caught.value).startswith("no node of the Redis cluster at 127.0.0.1:")
        assert "\n" not in str(caught.value)
        for server in servers.nodes:
            yield from coro.to_thread(server.start)
        yield from coro.to_thread(servers.settle)
        while True:
            try:
                yield from redis.set("key", "value")
                break
            except RedisConnectionError as error:  # in the pause after the last attempt
                assert "trying again" in str(error)
                yield from coro.sleep(0.05)

    coro.run(main())


def test_everything_that_the_url_says_holds_for_the_nodes_that_are_found() -> None:
    """TLS with verified host names, which the nodes announce; the login; limits of time."""
    options = ["--tls-cluster", "yes", "--tls-replication", "yes"]
    options += ["--cluster-announce-hostname", "localhost", "--cluster-preferred-endpoint-type", "hostname"]
    with ExitStack() as stack:
        servers = stack.enter_context(ClusterServers(*options, password="s3cret"))
        seed = servers.nodes[0]
        url = f"rediss://:s3cret@127.0.0.1:{seed.tls_port}?ca={seed.certificates.authority}&timeout=7"
        redis = RedisCluster.from_url(url)

        def main() -> Coro[None]:
            yield from coro.gather(*[redis.set(key, key) for key in KEYS])
            with servers.migrating(key_slot(KEYS[0].encode())):
                assert (yield from redis.get(KEYS[0])) == KEYS[0].encode()
            assert (yield from redis.get(KEYS[0])) == KEYS[0].encode()
            nodes = yield from redis.primaries()
            assert {node.settings.address for node in nodes} == {
                f"localhost:{server.tls_port}" for server in servers.primaries()
            }
            assert {(node.settings.timeout, node.settings.tls) for node in nodes} == {(7, True)}

        coro.run(main())
        refused = RedisCluster.from_url(url.replace("s3cret", "wrong"))
        with pytest.raises(RedisConnectionError, match="WRONGPASS"):
            coro.run(refused.get("key"))
