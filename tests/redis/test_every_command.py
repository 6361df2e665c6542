"""Every typed command on a real server, in RESP3 and in RESP2: it returns what redis-py returns."""

from __future__ import annotations

import ast
import warnings
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

import coro
from coro import Coro
from coro.redis import Redis, ReplyError, parse_url
from coro.redis.commands import Commands
from tests.redis.command_cases import GROUPS, Case
from tests.redis.conftest import OldRedisServer
from tests.services import RedisServer

FAILED = "an error reply"


def parts(case: Case) -> tuple[Any, Any]:
    return case if isinstance(case, tuple) else (case, lambda result: result)


def ours(redis: Redis[Any], group: str) -> Coro[list[Any]]:
    results = []
    for case in GROUPS[group]:
        call, look = parts(case)
        try:
            results.append(look((yield from call(redis))))
        except (ReplyError, UnicodeDecodeError):
            results.append(FAILED)
    return results


def theirs(redis: redis_py.Redis, group: str) -> list[Any]:
    results = []
    for case in GROUPS[group]:
        call, look = parts(case)
        try:
            results.append(look(call(redis)))
        except (redis_py.ResponseError, UnicodeDecodeError):
            results.append(FAILED)
    return results


def plain(value: Any) -> Any:
    """With lists for tuples."""
    if isinstance(value, (list, tuple)):
        return [plain(element) for element in value]
    return value


def differ(mine: Any, other: Any) -> bool:
    """More than docs/redis.md tells of: we say False for None where it means "not done", and True for OK."""
    return plain(mine) != plain(other) and (mine, other) not in ((False, None), (True, b"OK"), (True, "OK"))


@pytest.fixture(scope="session")
def command_servers(servers: Any) -> dict[str, RedisServer]:
    """With files for `config_rewrite` and `acl_save`."""
    started = {}
    for name, kind in ("resp3", RedisServer), ("resp2", OldRedisServer):
        server = kind("--aclfile", "users.acl")
        (server.directory / "users.acl").touch()
        started[name] = servers.enter_context(server)
    return started


@pytest.mark.parametrize("protocol", ["resp3", "resp2"])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("decode", [False, True], ids=["bytes", "text"])
def test_result_is_what_redis_py_returns(
    command_servers: dict[str, RedisServer], group: str, protocol: str, decode: bool
) -> None:
    server = command_servers[protocol]
    server.clear()
    with redis_py.Redis(port=server.port, protocol=2, decode_responses=decode) as other, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of commands that Redis has other forms of by now
        expected = theirs(other, group)
    server.clear()
    got = coro.run(ours(Redis(parse_url(server.url()), decode=decode), group))
    lines = Path(__file__).with_name("command_cases.py").read_text().splitlines()
    differing = [
        f"{lines[parts(case)[0].__code__.co_firstlineno - 1].strip()}\n   ours {mine!r}\n  their {other!r}"
        for case, mine, other in zip(GROUPS[group], got, expected, strict=True)
        if differ(mine, other)
    ]
    assert not differing, "\n".join(["", *differing])


def test_every_command_is_called() -> None:
    tests = [Path(__file__), Path(__file__).with_name("command_cases.py")]
    called = {
        node.attr for path in tests for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
    }
    assert sorted(name for name in dir(Commands) if not name.startswith("_") and name not in called) == []


# --- Where two clients cannot be told the same, or the order is the server's -------------------


def server_of(command_servers: dict[str, RedisServer], protocol: str) -> RedisServer:
    server = command_servers[protocol]
    server.clear()
    return server


SAVING = ("rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
each_protocol = pytest.mark.parametrize("protocol", ["resp3", "resp2"])


@each_protocol
def test_what_the_server_tells_of_itself(command_servers: dict[str, RedisServer], protocol: str) -> None:
    server = server_of(command_servers, protocol)
    redis = Redis.from_url(server.url(), client_name="tester")

    def main() -> Coro[None]:
        yield from redis.set("a", 1)
        told = yield from redis.info()
        assert told["process_id"] == server.pid
        assert told["db0"] == {"keys": 1, "expires": 0, "avg_ttl": 0}
        assert isinstance(told["redis_version"], str) and isinstance(told["used_cpu_sys"], float)
        assert set((yield from redis.info("keyspace"))) == {"db0"}
        assert "server_time_usec" in (yield from redis.info("server", "clients"))
        seconds, microseconds = yield from redis.time()
        assert seconds > 1_700_000_000 and 0 <= microseconds < 1_000_000
        assert (yield from redis.memory_stats())["keys.count"] == 1
        assert (yield from redis.memory_stats())["db.0"]["overhead.hashtable.main"] > 0
        assert (yield from redis.bgsave()) is True
        assert (yield from redis.bgrewriteaof()) is True
        while any(map((yield from redis.info("persistence")).get, SAVING)):  # in which another test's SAVE is refused
            yield from coro.checkpoint()

    coro.run(main())


@each_protocol
def test_clients(command_servers: dict[str, RedisServer], protocol: str) -> None:
    redis = Redis.from_url(server_of(command_servers, protocol).url(), client_name="tester")

    def main() -> Coro[None]:
        number = yield from redis.client_id()
        mine = yield from redis.client_info()
        assert (mine["id"], mine["name"]) == (str(number), "tester")
        assert (yield from redis.client_getname()) == b"tester"
        (listed,) = yield from redis.client_list(client_id=[number])
        assert listed["addr"] == mine["addr"]
        assert number in {int(one["id"]) for one in (yield from redis.client_list(_type="normal"))}

    coro.run(main())


@each_protocol
def test_all_about_a_stream(command_servers: dict[str, RedisServer], protocol: str) -> None:
    redis = Redis.from_url(server_of(command_servers, protocol).url())

    def main() -> Coro[None]:
        yield from redis.xadd("s", {"a": 1}, id="1-1")
        yield from redis.xgroup_create("s", "g", id="0")
        yield from redis.xreadgroup("g", "me", {"s": ">"})
        told = yield from redis.xinfo_stream("s", full=True)
        assert told["entries"] == [(b"1-1", {b"a": b"1"})]
        (group,) = told["groups"]
        assert (group["name"], group["pel-count"], group["consumers"][0]["name"]) == (b"g", 1, b"me")

    coro.run(main())


@each_protocol
def test_slow_log(command_servers: dict[str, RedisServer], protocol: str) -> None:
    redis = Redis.from_url(server_of(command_servers, protocol).url(), client_name="tester")

    def main() -> Coro[None]:
        yield from redis.config_set("slowlog-log-slower-than", 0)
        yield from redis.slowlog_reset()
        yield from redis.get("a key")
        yield from redis.config_set("slowlog-log-slower-than", 10_000)
        slow = [entry for entry in (yield from redis.slowlog_get(10)) if entry["command"] == b"GET a key"]
        assert slow[0]["client_name"] == b"tester" and slow[0]["duration"] >= 0
        assert (yield from redis.slowlog_len()) >= 2
        assert len((yield from redis.slowlog_get())) >= 2

    coro.run(main())


@each_protocol
def test_users(command_servers: dict[str, RedisServer], protocol: str) -> None:
    redis = Redis.from_url(server_of(command_servers, protocol).url())

    def main() -> Coro[None]:
        assert (yield from redis.acl_setuser("app", "on", ">secret", "~app:*", "+get"))
        told = yield from redis.acl_getuser("app")
        assert told is not None and "on" in told["flags"] and told["keys"] == "~app:*"
        assert (yield from redis.acl_deluser("app")) == 1

    coro.run(main())


@each_protocol
def test_libraries_of_functions(command_servers: dict[str, RedisServer], protocol: str) -> None:
    redis = Redis.from_url(server_of(command_servers, protocol).url(), decode=True)

    def main() -> Coro[None]:
        yield from redis.function_flush()
        code = "#!lua name=lib\nredis.register_function('f', function(keys, args) return args[1] end)"
        assert (yield from redis.function_load(code)) == "lib"
        (library,) = yield from redis.function_list(withcode=True)
        assert (library["library_name"], library["library_code"]) == ("lib", code)
        assert library["functions"][0]["name"] == "f"
        dump = yield from redis.function_dump()
        assert (yield from redis.function_restore(dump, "FLUSH"))
        assert (yield from redis.function_stats())["engines"]["LUA"]["libraries_count"] == 1
        assert (yield from redis.fcall("f", 0, "x")) == "x"

    coro.run(main())


@each_protocol
def test_dump_and_restore(command_servers: dict[str, RedisServer], protocol: str) -> None:
    redis = Redis.from_url(server_of(command_servers, protocol).url(), decode=True)

    def main() -> Coro[None]:
        yield from redis.set("a", "text")
        dump = yield from redis.dump("a")
        assert isinstance(dump, bytes)
        assert (yield from redis.restore("b", 0, dump, idletime=5))
        assert (yield from redis.restore("b", 100_000, dump, replace=True))
        assert 0 < (yield from redis.ttl("b")) <= 100
        assert (yield from redis.get("b")) == "text"

    coro.run(main())


@each_protocol
def test_scores_of_members_are_pairs_everywhere(command_servers: dict[str, RedisServer], protocol: str) -> None:
    redis = Redis.from_url(server_of(command_servers, protocol).url())

    def main() -> Coro[None]:
        yield from redis.zadd("z", {"a": 1.5, "b": 2})
        both = [(b"a", 1.5), (b"b", 2.0)]
        assert (yield from redis.zdiff(["z", "missing"], withscores=True)) == both
        assert sorted((yield from redis.zrandmember("z", 2, withscores=True))) == both
        assert (yield from redis.zmpop(1, ["z"], min=True, count=2)) == (b"z", both)
        yield from redis.zadd("z", {"a": 1.5})
        assert (yield from redis.bzmpop(1, 1, ["z"], max=True)) == (b"z", [(b"a", 1.5)])

    coro.run(main())


# --- Going through collections, and scripts ------------------------------------------------------


@each_protocol
def test_scan_iterators_see_everything(command_servers: dict[str, RedisServer], protocol: str) -> None:
    redis = Redis.from_url(server_of(command_servers, protocol).url(), decode=True)
    names = {f"name {number}" for number in range(1000)}

    def main() -> Coro[None]:
        yield from redis.mset(dict.fromkeys(names, 1))
        yield from redis.sadd("set", *names)
        yield from redis.hset("hash", mapping=dict.fromkeys(names, 1))
        yield from redis.zadd("zset", dict.fromkeys(names, 1.5))
        keys: set[str] = set()
        scan = redis.scan_iter(match="name*", count=50, _type="string")
        while batch := (yield from scan.next()):
            keys.update(batch)
        assert keys == names
        assert (yield from scan.next()) is None
        members: set[str] = set()
        of_set = redis.sscan_iter("set", count=50)
        while batch := (yield from of_set.next()):
            members.update(batch)
        assert members == names
        fields: dict[str, str] = {}
        of_hash = redis.hscan_iter("hash", match="name 1*")
        while part := (yield from of_hash.next()):
            fields.update(part)
        assert fields == {name: "1" for name in names if name.startswith("name 1")}
        scores: dict[str, float] = {}
        of_zset = redis.zscan_iter("zset")
        while pairs := (yield from of_zset.next()):
            scores.update(pairs)
        assert scores == dict.fromkeys(names, 1.5)

    coro.run(main())


@each_protocol
def test_script_is_sent_when_the_server_does_not_know_it(
    command_servers: dict[str, RedisServer], protocol: str
) -> None:
    redis = Redis.from_url(server_of(command_servers, protocol).url())

    def main() -> Coro[None]:
        add = redis.script("return redis.call('incrby', KEYS[1], ARGV[1])")
        assert (yield from redis.script_exists(add.sha)) == [False]
        for total in 5, 10:
            assert (yield from add(keys=["n"], args=[5])) == total
            assert (yield from redis.script_exists(add.sha)) == [True]
        yield from redis.script_flush()
        assert (yield from add(["n"], [1])) == 11
        failing = redis.register_script("return redis.error_reply('OOPS no')")
        with pytest.raises(ReplyError, match="OOPS no"):
            yield from failing()
        assert repr(add) == f"<Script {add.sha}>"

    coro.run(main())
