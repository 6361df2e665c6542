"""The cluster client on a real cluster: each command goes where its keys are, and results are those of redis-py."""

from __future__ import annotations

import random
from typing import Any

import pytest
import redis as redis_py

import coro
from coro import ClosedError, Coro, TaskGroup
from coro.redis import CrossSlotError, RedisCluster, RedisError, ReplyError, WrongTypeError
from coro.redis.keys import RULES
from coro.redis.slots import key_slot
from tests.topologies import RedisCluster as ClusterServers

KEYS = [f"key{number}" for number in range(300)]


def client(servers: ClusterServers, **options: Any) -> RedisCluster:
    return RedisCluster.from_url(servers.url, **options)


def test_every_key_is_at_the_node_that_serves_its_slot(redis_cluster: ClusterServers) -> None:
    redis = client(redis_cluster)

    def main() -> Coro[None]:
        yield from coro.gather(*[redis.set(key, key[::-1]) for key in KEYS])
        assert (yield from coro.gather(*[redis.get(key) for key in KEYS])) == [key[::-1].encode() for key in KEYS]

    coro.run(main())
    owners = {key.encode(): redis_cluster.owner(key_slot(key.encode())) for key in KEYS}
    for node in redis_cluster.primaries():
        assert calls(node, "get") == calls(node, "set") == node.command("DBSIZE")
        assert set(node.command("KEYS", "*")) == {key for key in owners if owners[key] is node}
    assert not any("cmdstat_get" in node.info("commandstats") for node in redis_cluster.replicas())


def calls(node: Any, command: str) -> int:
    """How many times a node has carried out a command; those that it refused (MOVED, ...) do not count."""
    told = node.info("commandstats").get(f"cmdstat_{command}", {"calls": 0, "failed_calls": 0})
    return int(told["calls"]) - int(told["failed_calls"])


def test_all_tasks_share_one_connection_to_each_node(redis_cluster: ClusterServers) -> None:
    redis = client(redis_cluster)

    def main() -> Coro[None]:
        for _ in range(3):
            yield from coro.gather(*[redis.set(key, 1) for key in KEYS])
        for node in (yield from redis.primaries()):
            clients = yield from node.client_list()
            assert len([line for line in clients if line["cmd"] in ("set", "client|list")]) == 1

    coro.run(main())


# --- The same as another client ------------------------------------------------------------


COMMANDS: list[list[Any]] = [
    ["SET", "a", "1"],
    ["INCRBY", "a", 5],
    ["GET", "a"],
    ["RPUSH", "list", "x", "y", "z"],
    ["LRANGE", "list", 0, -1],
    ["SADD", "{t}set1", "x", "y"],
    ["SADD", "{t}set2", "y", "z"],
    ["SINTERSTORE", "{t}both", "{t}set1", "{t}set2"],
    ["SMEMBERS", "{t}both"],
    ["ZADD", "zset", 1, "one", 2, "two"],
    ["ZRANGE", "zset", 0, -1],
    ["HSET", "hash", "field", "value"],
    ["HGET", "hash", "field"],
    ["EVAL", "return redis.call('incr', KEYS[1]) + ARGV[1]", 1, "a", 10],
    ["XADD", "stream", "1-1", "field", "value"],
    ["XLEN", "stream"],
    ["OBJECT", "ENCODING", "a"],
    ["SORT", "list", "ALPHA", "DESC"],
    ["EXISTS", "{t}set1", "{t}set2", "{t}nothing"],
    ["PING"],
    ["DEL", "{t}set1", "{t}set2", "{t}nothing"],
    ["UNLINK", "hash"],
    ["BITOP", "OR", "{t}to", "{t}from"],
    ["GETEX", "nothing"],
    ["ZUNIONSTORE", "{z}to", 1, "{z}from"],
]


def test_results_are_those_of_redis_py(redis_cluster: ClusterServers) -> None:
    host, port = "127.0.0.1", redis_cluster.nodes[0].port

    def ours() -> Coro[list[Any]]:
        redis = client(redis_cluster)
        results = []
        for command in COMMANDS:
            results.append((yield from redis.execute(*command)))
        return results

    with redis_py.RedisCluster(host=host, port=port) as peer:
        theirs = [peer.execute_command(*command) for command in COMMANDS]
        redis_cluster.clear()
    assert [plain(result) for result in coro.run(ours())] == [plain(result) for result in theirs]


def plain(result: Any) -> Any:
    """redis-py turns some replies into something more to the point; ours are as they came."""
    if isinstance(result, (set, list)):
        return sorted(map(plain, result), key=str) if isinstance(result, set) else [plain(item) for item in result]
    if result in (b"OK", b"PONG"):
        return True
    return result.encode() if isinstance(result, str) else result


def test_pipeline_results_are_in_order_and_those_of_redis_py(redis_cluster: ClusterServers) -> None:
    numbers = random.Random(5)
    commands = [
        numbers.choice([["INCR", key], ["APPEND", key, "0"], ["GET", key], ["LPUSH", key, "x"], ["STRLEN", key]])
        for key in (f"key{numbers.randrange(50)}" for _ in range(500))
    ]

    def ours() -> Coro[list[Any]]:
        pipeline = client(redis_cluster).pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return (yield from pipeline.execute(raise_on_error=False))

    with redis_py.RedisCluster(host="127.0.0.1", port=redis_cluster.nodes[0].port) as peer:
        theirs = peer.pipeline()
        for command in commands:
            theirs.execute_command(*command)
        expected = theirs.execute(raise_on_error=False)
        redis_cluster.clear()
    results = coro.run(ours())
    for result, peers in zip(results, expected, strict=True):
        if isinstance(result, ReplyError):  # redis-py puts words of its own around the server's
            assert str(result).partition(" ")[2] in str(peers)
        else:
            assert result == peers
    assert any(isinstance(result, WrongTypeError) for result in results)


# --- Several keys --------------------------------------------------------------------------


def test_commands_on_each_key_by_itself_are_taken_apart(redis_cluster: ClusterServers) -> None:
    redis = client(redis_cluster)

    def main() -> Coro[None]:
        for key in KEYS:
            yield from redis.set(key, key)
        wanted = [*KEYS[::3], "nothing", *KEYS[1::3], KEYS[0]]
        assert (yield from redis.mget(wanted)) == [None if key == "nothing" else key.encode() for key in wanted]
        assert (yield from redis.exists(*wanted)) == len(wanted) - 1
        assert (yield from redis.delete(*KEYS[:10], "nothing")) == 10
        assert (yield from redis.execute(b"unlink", *KEYS[:20])) == 10
        assert (yield from redis.dbsize()) == len(KEYS) - 20

    coro.run(main())


@pytest.mark.parametrize(
    "command",
    [
        ["RENAME", "a", "b"],
        ["MSET", "a", "1", "b", "2"],
        ["MSETNX", "a", "1", "b", "2"],
        ["SUNION", "a", "b"],
        ["EVAL", "return 1", 2, "a", "b"],
        ["BLPOP", "a", "b", 1],
    ],
)
def test_keys_of_several_slots_in_a_command_that_is_one_are_an_error(
    redis_cluster: ClusterServers, command: list[Any]
) -> None:
    message = f"CROSSSLOT {command[0]} was given keys of different slots: b'a' is in slot 15495, b'b' in 3300"
    with pytest.raises(CrossSlotError, match=message):
        coro.run(client(redis_cluster).execute(*command))
    assert not any(calls(node, command[0].lower()) for node in redis_cluster.nodes)


def test_command_without_the_arguments_it_needs_is_the_servers_to_refuse(redis_cluster: ClusterServers) -> None:
    redis = client(redis_cluster)
    for command in (["MGET"], [b"GET"], ["get"], ["EVAL", "x"], ["NOSUCHCOMMAND", "a"], ["OBJECT", "NOSUCH", "a"]):
        with pytest.raises(ReplyError, match=r"wrong number|unknown (sub)?command"):
            coro.run(redis.execute(*command))
    with pytest.raises(ValueError, match="needs at least its name"):
        coro.run(redis.execute())


@pytest.mark.parametrize("name", [b"GETDEL", b"SINTERCARD"])
def test_keys_of_a_command_that_is_not_in_the_table_are_asked_for(
    redis_cluster: ClusterServers, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    """GETDEL has its key in a fixed place, SINTERCARD has not."""
    monkeypatch.delitem(RULES, name)
    monkeypatch.setattr("coro.redis.cluster.ONE_KEY", frozenset({b"SADD", b"SET"}))
    redis = client(redis_cluster)

    def main() -> Coro[None]:
        for key in KEYS[:20]:
            if name == b"GETDEL":
                yield from redis.set(key, 5)
                assert (yield from redis.execute(name, key)) == b"5"
            else:
                yield from redis.sadd(f"{{{key}}}1", 1, 2)
                yield from redis.sadd(f"{{{key}}}2", 2, 3)
                assert (yield from redis.execute(name, 2, f"{{{key}}}1", f"{{{key}}}2")) == 1

    coro.run(main())
    asked = sum(calls(node, "command|info") for node in redis_cluster.nodes)
    assert asked == 1  # about the command, once; for the keys, each time
    assert not any(moved(node, name) for node in redis_cluster.nodes)


def moved(node: Any, name: bytes) -> int:
    """How many times a node has sent a command elsewhere."""
    told = node.info("commandstats").get(f"cmdstat_{name.decode().lower()}", {"rejected_calls": 0})
    return int(told["rejected_calls"])


# --- All nodes -------------------------------------------------------------------------------


def test_commands_for_all_nodes(redis_cluster: ClusterServers) -> None:
    redis = client(redis_cluster)

    def main() -> Coro[None]:
        for key in KEYS:
            yield from redis.set(key, key)
        assert (yield from redis.dbsize()) == len(KEYS)
        assert sorted((yield from redis.keys("key1?"))) == sorted(key.encode() for key in KEYS[10:20])
        assert (yield from redis.randomkey()) in [key.encode() for key in KEYS]
        sha = yield from redis.script_load("return 5")
        for key in "abcdef":
            assert (yield from redis.evalsha(sha, 1, key)) == 5
        assert (yield from redis.script_exists(sha, "0" * 40)) == [True, False]
        yield from redis.config_set("maxmemory-samples", 7)
        yield from redis.flushall()
        assert (yield from redis.dbsize()) == 0
        assert (yield from redis.randomkey()) is None
        yield from redis.config_set("maxmemory-samples", 5)
        with pytest.raises(ReplyError, match="NOTBUSY") as caught:
            yield from redis.execute("SCRIPT", "KILL")
        assert caught.value.prefix == "NOTBUSY"

    coro.run(main())
    for node in redis_cluster.nodes:
        assert calls(node, "config|set") == 2
    for node in redis_cluster.replicas():
        assert not calls(node, "dbsize")


def test_error_of_one_of_all_nodes_says_whose_it_is(redis_cluster: ClusterServers) -> None:
    with pytest.raises(ReplyError) as caught:
        coro.run(client(redis_cluster).execute("CONFIG", "SET", "nothing", "1"))
    ports = [node.port for node in redis_cluster.nodes]
    assert caught.value.__notes__[0] in [f"answered by Redis at 127.0.0.1:{port}" for port in ports]


def test_going_through_all_keys(redis_cluster: ClusterServers) -> None:
    for options in ({}, {"decode": True}):
        redis = client(redis_cluster, **options)

        def main(redis: RedisCluster = redis) -> Coro[list[Any]]:
            yield from coro.gather(*[redis.set(key, key) for key in KEYS])
            found = []
            scan = redis.scan_iter(match="key*", count=20)
            while batch := (yield from scan.next()):
                found += batch
            return found

        assert sorted(map(plain, coro.run(main()))) == sorted(key.encode() for key in KEYS)
    with pytest.raises(RedisError, match="use scan_iter"):
        coro.run(client(redis_cluster).scan())


# --- Kinds of commands -----------------------------------------------------------------------


def test_blocking_command_waits_at_the_node_of_its_key_while_others_go_on(redis_cluster: ClusterServers) -> None:
    redis = client(redis_cluster)

    def feed(key: str) -> Coro[None]:
        for _ in range(20):
            yield from redis.ping()
        yield from redis.rpush(key, key)

    def main() -> Coro[None]:
        waits: list[Coro[Any]] = [redis.blpop(key, 100) for key in KEYS[:6]]
        results = yield from coro.gather(*waits, *[feed(key) for key in KEYS[:6]])
        assert results[:6] == [(key.encode(), key.encode()) for key in KEYS[:6]]
        with pytest.raises(WrongTypeError):
            yield from redis.set("text", "x")
            yield from redis.blpop("text", 1)

    coro.run(main())


def test_transaction_in_one_slot(redis_cluster: ClusterServers) -> None:
    redis = client(redis_cluster)

    def main() -> Coro[None]:
        for key in KEYS[:9]:
            pipeline = redis.pipeline()
            pipeline.set(f"{{{key}}}a", 1)
            pipeline.incr(f"{{{key}}}b", 2)
            pipeline.mget(f"{{{key}}}a", f"{{{key}}}b")
            assert (yield from pipeline.execute()) == [True, 2, [b"1", b"2"]]
        pipeline.set("a", 1)
        pipeline.set("b", 1)
        with pytest.raises(CrossSlotError, match="a transaction was given keys of different slots"):
            yield from pipeline.execute()

    coro.run(main())
    assert sum(calls(node, "exec") for node in redis_cluster.primaries()) == 9


def test_pipeline_of_all_kinds_of_commands(redis_cluster: ClusterServers) -> None:
    redis = client(redis_cluster, decode=True)

    def main() -> Coro[None]:
        pipeline = redis.pipeline(transaction=False)
        for key in "abc":
            pipeline.set(key, key.upper())
        pipeline.mget("c", "a", "nothing", "b")
        pipeline.execute_command("RENAME", "a", "b")
        pipeline.ping()
        pipeline.delete("a", "b", "c")
        pipeline.lpush("a", "x")
        pipeline.incr("a")
        results = yield from pipeline.execute(raise_on_error=False)
        assert results[:4] == [True, True, True, ["C", "A", None, "B"]]
        assert isinstance(results[4], CrossSlotError)
        assert results[5] is True
        assert isinstance(results[8], WrongTypeError)
        pipeline.get("nothing")
        assert (yield from pipeline.execute()) == [None]

    coro.run(main())


def test_argument_that_cannot_be_sent_has_nothing_of_its_pipeline_sent(redis_cluster: ClusterServers) -> None:
    redis = client(redis_cluster)
    bad: Any = object()

    def main() -> Coro[None]:
        pipeline = redis.pipeline(transaction=False)
        for key in KEYS[:20]:
            pipeline.set(key, 1)
        pipeline.set("bad", bad)
        with pytest.raises(TypeError, match="cannot be sent to Redis"):
            yield from pipeline.execute()
        with pytest.raises(TypeError, match="cannot be sent to Redis"):
            yield from redis.set("bad", bad)
        with pytest.raises(TypeError, match="cannot be sent to Redis"):
            yield from redis.get(bad)
        assert (yield from redis.dbsize()) == 0

    coro.run(main())


def test_script_is_known_at_each_node_after_its_first_use_there(redis_cluster: ClusterServers) -> None:
    redis = client(redis_cluster)

    def main() -> Coro[None]:
        yield from redis.script_flush()
        add = redis.script("return redis.call('incrby', KEYS[1], ARGV[1])")
        for key in KEYS[:30]:
            assert (yield from add(keys=[key], args=[2])) == 2

    coro.run(main())
    assert sum(calls(node, "eval") for node in redis_cluster.nodes) == 3


# --- Replicas --------------------------------------------------------------------------------


def test_reads_go_to_replicas_if_that_is_wanted(redis_cluster: ClusterServers) -> None:
    redis = client(redis_cluster, replica_reads=True)

    def main() -> Coro[None]:
        yield from coro.gather(*[redis.set(key, key) for key in KEYS])
        for node in redis_cluster.primaries():
            assert node.command("WAIT", 1, 100_000) == 1
        for key in KEYS:
            assert (yield from redis.get(key)) == key.encode()
        assert (yield from redis.mget(KEYS)) == [key.encode() for key in KEYS]
        pipeline = redis.pipeline(transaction=False)
        for key in KEYS:
            pipeline.strlen(key)
        assert (yield from pipeline.execute()) == [len(key) for key in KEYS]

    coro.run(main())
    assert sum(calls(node, "get") for node in redis_cluster.replicas()) == len(KEYS)
    assert sum(calls(node, "mget") for node in redis_cluster.replicas()) >= 3
    assert sum(calls(node, "strlen") for node in redis_cluster.primaries()) == len(KEYS)
    assert not any(calls(node, name) for node in redis_cluster.primaries() for name in ("get", "mget"))
    assert not any(calls(node, "strlen") for node in redis_cluster.replicas())


# --- The client itself -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://host/3", "database 0 only"),
        ("unix:///run/redis.sock", "reached by TCP"),
        ("redis://a:1,b:x", "cannot be read"),
        ("http://a:1,b:2", "no scheme"),
        ("redis://a:1,b:2?nothing=1", "nothing in a Redis URL"),
    ],
)
def test_url_that_names_no_cluster(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RedisCluster.from_url(url)


def test_cluster_needs_a_seed() -> None:
    with pytest.raises(ValueError, match="a node to begin with"):
        RedisCluster([])


def test_url_names_several_nodes_that_are_logged_in_to_alike() -> None:
    redis = RedisCluster.from_url("rediss://me:p%2Cw@a:1,[::1]:2,c?timeout=7", connect_timeout=2)
    assert repr(redis) == "<RedisCluster the Redis cluster at a:1, [::1]:2, c:6379, 0 nodes known>"
    settings = redis.settings
    assert (settings.username, settings.password, settings.tls) == ("me", "p,w", True)
    assert (settings.timeout, settings.connect_timeout) == (7, 2)


def test_closed_client_refuses_commands(redis_cluster: ClusterServers) -> None:
    redis = client(redis_cluster)

    def wait() -> Coro[None]:
        with pytest.raises(ClosedError):
            yield from redis.blpop("nothing", 0)

    def main(group: TaskGroup) -> Coro[None]:
        waiting = group.spawn(wait())
        yield from redis.set("a", 1)
        while "1 of 50 own connections lent" not in repr((yield from node_of(redis, "nothing")).pool):
            yield from coro.checkpoint()
        redis.close()
        redis.close()
        yield from waiting.join()
        for command in (["GET", "a"], ["PING"], ["BLPOP", "a", 0]):
            with pytest.raises(ClosedError):
                yield from redis.execute(*command)

    coro.run(coro.task_group(main))


def node_of(redis: RedisCluster, key: str) -> Coro[Any]:
    return (yield from redis._map.owner(key_slot(key.encode())))


def test_client_serves_one_run_after_another(redis_cluster: ClusterServers) -> None:
    redis = client(redis_cluster)
    assert coro.run(redis.set("a", 1))
    assert "0 nodes known" in repr(redis)
    assert coro.run(redis.get("a")) == b"1"
