"""Where the keys stand in commands: what the table says is what a real server says."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from coro.redis.keys import CONTAINERS, ONE_KEY, ONE_KEY_READS, RULES, command_name, keys_of, rule_for, told_rule
from tests.services import RedisServer

# Commands whose keys are not at fixed places, and forms in which the others are at the edge of what they take.
EXAMPLES = """
EVAL script 2 a b arg
EVAL script 0 arg
EVALSHA sha 1 a
EVAL_RO script 1 a
EVALSHA_RO sha 1 a
FCALL function 2 a b c
FCALL_RO function 1 a
ZUNIONSTORE to 2 a b WEIGHTS 1 2
ZINTERSTORE to 1 a
ZDIFFSTORE to 2 a b
ZUNION 2 a b WITHSCORES
ZINTER 1 a
ZDIFF 2 a b
ZINTERCARD 2 a b LIMIT 1
SINTERCARD 2 a b LIMIT 1
LMPOP 2 a b LEFT
ZMPOP 1 a MIN
BLMPOP 0 2 a b LEFT
BZMPOP 0 1 a MIN
XREAD COUNT 1 STREAMS a b 0 0
XREAD BLOCK 0 STREAMS a $
XREADGROUP GROUP streams me NOACK STREAMS a b > >
SORT a BY nosort LIMIT 0 1
SORT a STORE to
SORT a ALPHA STORE to STORE other
GEORADIUS a 1 1 1 km
GEORADIUS a 1 1 1 km STORE to
GEORADIUSBYMEMBER a m 1 km STOREDIST to
MIGRATE host 6379 a 0 100
MIGRATE host 6379  0 100 COPY KEYS a b
MSET a 1 b 2
MSETNX a 1
MGET a b c
DEL a
BITOP AND to a b
BLPOP a b 0
BZPOPMIN a 0
BLMOVE a b LEFT RIGHT 0
OBJECT ENCODING a
MEMORY USAGE a SAMPLES 5
XGROUP CREATE a group $
XINFO STREAM a FULL
LCS a b LEN
COPY a b REPLACE
RENAME a b
PFCOUNT a b
PFMERGE to a b
WATCH a b
RESTORE a 0 value
BITFIELD a GET u8 0
SMOVE a b member
XAUTOCLAIM a group me 0 0
GEOSEARCHSTORE to a FROMMEMBER m BYBOX 1 1 km
ZRANGESTORE to a 0 1
RPOPLPUSH a b
""".strip().splitlines()


def ours(words: list[str]) -> list[bytes]:
    rule = rule_for(command_name(words))
    assert rule is not None
    return keys_of(words, rule)


@pytest.mark.parametrize("example", EXAMPLES)
def test_keys_are_where_the_server_finds_them(redis_server: RedisServer, example: str) -> None:
    words = example.split(" ")
    try:
        theirs = redis_server.command("COMMAND GETKEYS", *words)
    except redis.ResponseError as error:
        assert "no key arguments" in str(error)
        theirs = []
    assert sorted(ours(words)) == sorted(key.encode() for key in theirs)


def told_by(server: RedisServer) -> dict[bytes, list[Any]]:
    """What COMMAND tells about every command and subcommand, by its name."""
    told: dict[bytes, list[Any]] = {}
    with redis.Redis(unix_socket_path=server.socket) as client:
        client.set_response_callback("COMMAND", lambda reply: reply)  # redis-py's own leaves half of it out
        for command in client.execute_command("COMMAND"):
            told[command[0].upper()] = command
            told |= {sub[0].upper().replace(b"|", b" "): sub for sub in command[9]}
    return told


def test_table_has_every_command_of_the_server_and_agrees_about_it(redis_server: RedisServer) -> None:
    told = told_by(redis_server)
    assert len(told) > 300
    places = [[b"_"] * length for length in (2, 3, 4, 7)]
    for name, info in told.items():
        rule, server_rule = rule_for(name), told_rule(info)
        assert rule is not None, name
        assert rule.reads == (b"readonly" in info[2] and bool(info[8])), name  # keyless ones: see `cluster`
        if server_rule is None:
            continue
        for args in places:
            if len(args) >= abs(info[1]):
                assert list(rule.find(args)) == list(server_rule.find(args)), name


def test_containers_are_the_commands_with_subcommands(redis_server: RedisServer) -> None:
    assert {name for name, info in told_by(redis_server).items() if info[9]} == CONTAINERS


def test_reads_have_one_key_too() -> None:
    assert ONE_KEY_READS < ONE_KEY
    assert all(list(RULES[name].find([name, b"key", b"value"])) == [1] for name in ONE_KEY)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["get", "key"], b"GET"),
        ([b"GET", "key"], b"GET"),
        ([bytearray(b"Script"), b"load", "text"], b"SCRIPT LOAD"),
        (["OBJECT"], b"OBJECT"),
        ([5], b""),
        (["caf\ud800"], b"CAF?"),
    ],
)
def test_name_of_a_command(words: list[Any], name: bytes) -> None:
    assert command_name(words) == name


@pytest.mark.parametrize("words", [["SPUBLISH", "a", "message"], ["SSUBSCRIBE", "a"], ["SUNSUBSCRIBE", "a"]])
def test_channels_of_a_shard_count_as_keys(words: list[str]) -> None:
    """The server does not call them keys, but sends them to their slots all the same."""
    assert ours(words) == [b"a"]


def test_subcommand_that_is_not_known_has_no_keys() -> None:
    assert ours(["OBJECT", "SHAPE", "key"]) == []


def test_commands_of_modules_are_not_in_the_table() -> None:
    assert rule_for(b"JSON.GET") is None


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["EVAL", "script"], []),
        (["EVAL", "script", "many"], []),
        (["EVAL", "script", "9", "a"], [b"a"]),
        (["EVAL", "script", "-1", "a"], []),
        (["ZUNIONSTORE", "to", "x"], [b"to"]),
        (["GET"], []),
        (["RENAME", "a"], [b"a"]),
        (["XREAD", "COUNT", "1"], []),
        (["MIGRATE", "host"], []),
        (["SORT"], []),
        (["MGET", 1, 2.5, memoryview(b"c")], [b"1", b"2.5", b"c"]),
    ],
)
def test_command_that_is_not_whole_has_the_keys_it_has(words: list[Any], keys: list[bytes]) -> None:
    assert ours(words) == keys
