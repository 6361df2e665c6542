"""The examples in docs/mysql.md do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from coro import Coro
from coro.mysql import Pool
from tests.mysql.sessions import with_pool

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mysql.md"


def test_the_examples_run(sql_database: str) -> None:
    examples: dict[str, Any] = {}
    exec("\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)), examples)

    def body(pool: Pool) -> Coro[None]:
        for table in ("files", "copies"):
            yield from pool.execute(f"CREATE TABLE {table} (id INT PRIMARY KEY, name TEXT, size BIGINT)")
        yield from pool.execute("CREATE TABLE accounts (id INT PRIMARY KEY, balance INT) SELECT 1 AS id, 10 AS balance")
        yield from pool.execute("INSERT INTO accounts VALUES (2, 0)")
        assert (yield from examples["insert"](pool, 1))
        assert (yield from examples["rename"](pool, 1, "a")) == "a, 0"
        assert (yield from examples["rename"](pool, 2, "b")) is None
        yield from pool.execute_many("INSERT INTO files VALUES (?, ?, ?)", [(n, "f", n) for n in range(2, 3000)])
        assert (yield from examples["copy"](pool)) == 2999
        yield from examples["pay"](pool, 1, 2, 7)
        assert (yield from pool.fetch_all("SELECT balance FROM accounts ORDER BY id")) == [(3,), (7,)]

    with_pool(sql_database, body)
