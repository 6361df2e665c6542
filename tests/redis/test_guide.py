"""docs/redis.md: its examples run, and its list of commands is right."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

import coro
from coro import Coro
from coro.redis import Gap, Lock, Redis, Session, Transaction
from coro.redis.commands import Commands

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "redis.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
NAMES: dict[str, Any] = {
    "coro": coro,
    "Coro": Coro,
    "Redis": Redis,
    "Session": Session,
    "Transaction": Transaction,
    "Lock": Lock,
    "Gap": Gap,
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: re.findall(r"def (\w+)", example)[0])
def test_example_runs(redis_database: str, example: str) -> None:
    defined: dict[str, Any] = {}
    exec(compile("from __future__ import annotations\n" + example, str(GUIDE), "exec"), NAMES, defined)
    (function,) = [value for value in defined.values() if inspect.isgeneratorfunction(value)]
    coro.run(function(Redis.from_url(redis_database)))


def test_commands_that_the_guide_lists_are_those_that_there_are() -> None:
    listed, _, missing = GUIDE.read_text().partition("## Commands that have a method")[2].partition("\nNot there")
    table = "".join(line for line in listed.splitlines() if line.startswith("|"))
    there = {name for name in dir(Commands) if not name.startswith("_")}
    assert set(re.findall(r"`(\w+)`", table)) == there
    absent = set(re.findall(r"`([a-z_0-9]+)`", missing)) - {"execute", "session"}
    assert not absent & there
    assert absent <= set(dir(redis_py.Redis))
    assert there <= set(dir(redis_py.Redis))
