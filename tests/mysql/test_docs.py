"""The examples in docs/mysql.md do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import coro
from coro import Coro
from coro.mysql import Pool
from tests.mysql.sessions import with_pool
from tests.services import SQLServer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mysql.md"


class Body:
    """Is read as a stream is."""

    def __init__(self) -> None:
        self.rest = [b"a ", b"body"]

    def read(self) -> Coro[bytes]:
        yield from coro.checkpoint()
        return self.rest.pop(0) if self.rest else b""


def test_the_examples_run(sql_server: SQLServer) -> None:
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
        yield from pool.execute("CREATE TABLE bodies (id INT, body LONGBLOB)")
        yield from examples["store"](pool, 1, Body())
        assert (yield from pool.fetch_all("SELECT * FROM bodies")) == [(1, b"a body")]
        assert (yield from examples["load"](pool, [b"9001\ta\n", b"9002\tb\n"])) == 2
        assert (yield from pool.fetch_all("SELECT balance FROM accounts ORDER BY id")) == [(3,), (7,)]

    sql_server.sql("SET GLOBAL local_infile = 1")
    with sql_server.database() as name:
        with_pool(sql_server.url(name) + "?local-infile=true", body)
