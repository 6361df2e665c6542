"""docs/redis-cluster.md: its examples run, and its table is the client's."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import coro
from coro import Coro
from coro.redis import RedisCluster
from coro.redis.everywhere import APART, EVERYWHERE
from tests.topologies import RedisCluster as ClusterServers

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "redis-cluster.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: re.findall(r"def (\w+)", example)[0])
def test_example_runs(redis_cluster: ClusterServers, example: str) -> None:
    defined: dict[str, Any] = {}
    names = {"coro": coro, "Coro": Coro, "RedisCluster": RedisCluster}
    exec(compile("from __future__ import annotations\n" + example, "redis-cluster.md", "exec"), names, defined)
    (function,) = [value for value in defined.values() if inspect.isgeneratorfunction(value)]
    coro.run(function(RedisCluster.from_url(redis_cluster.url)))


def names_in(row: str) -> set[bytes]:
    """`SCRIPT LOAD/EXISTS` is two commands."""
    names = set()
    for text in re.findall(r"`([A-Z/ ]+)`", row):
        container, _, subcommands = text.rpartition(" ")
        names |= {f"{container} {name}".strip().encode() for name in subcommands.split("/")}
    return names


def test_table_says_what_goes_to_which_nodes() -> None:
    apart, primaries, nodes = GUIDE.split("\n| ")[3:6]
    assert names_in(apart.split(" | ")[0]) == APART
    assert names_in(primaries) == {name for name, rule in EVERYWHERE.items() if not rule.replicas}
    listed = names_in(nodes)
    whole = {name for name in listed if b" " not in name}  # all that a container has in the table
    expected = {name for name, rule in EVERYWHERE.items() if rule.replicas}
    assert {name for name in expected if name.split(b" ")[0] not in whole} == listed - whole
    assert whole == {b"SLOWLOG", b"PUBSUB"}
