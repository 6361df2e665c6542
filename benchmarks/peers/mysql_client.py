"""python -m benchmarks.peers.mysql_client PEER WHAT PORT COUNT: seconds per operation, {"cpu": ..., "wall": ...}.

WHAT is `point` (one row by its key: from 32 tasks over a pool of 16, or one after the other where a client has no
tasks), `fetch` (all rows of a table of 5 columns at once; per row) or `insert` (rows by execute_many; per row). The
server on 127.0.0.1:PORT lets root in without a password and has the tables that `benchmarks.mysql_client` makes.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from datetime import datetime, timedelta
from time import perf_counter, process_time
from typing import Any

import coro
from coro import Coro
from coro.mysql import Pool

TASKS = 32
POOL = 16
TABLE_ROWS = 100_000
POINT = "SELECT name, size FROM bench.rows5 WHERE id = "
FETCH = "SELECT id, name, size, ratio, created FROM bench.rows5"
INSERT = "INSERT INTO bench.inserts (id, name, size, ratio, created) VALUES "
START = datetime(2026, 1, 1)
Row = tuple[int, str, int, float, datetime]


def rows(count: int) -> list[Row]:
    """What the tables hold, and what is inserted."""
    return [(n, f"file-{n}.bin", n * 1024, n / 7, START + timedelta(seconds=n % 60)) for n in range(count)]


class Clock:
    """CPU and wall time since it was made, for so many operations."""

    def __init__(self) -> None:
        self._wall, self._cpu = perf_counter(), process_time()

    def per_operation(self, count: int) -> dict[str, float]:
        cpu, wall = process_time() - self._cpu, perf_counter() - self._wall
        return {"cpu": cpu / count, "wall": wall / count}


# --- coro ---------------------------------------------------------------------------


def coro_peer(what: str, port: int, count: int) -> dict[str, float]:
    url = f"mysql://root@127.0.0.1:{port}/?tls=disabled"

    def main() -> Coro[dict[str, float]]:
        pool = Pool(url, size=POOL)
        yield from coro.gather(*[pool.execute("DO SLEEP(0.1)") for _ in range(POOL)])  # all connections are open
        result = yield from {"point": point, "fetch": fetch, "insert": insert}[what](pool)
        pool.close()
        return result

    def point(pool: Pool) -> Coro[dict[str, float]]:
        def ask(task: int) -> Coro[None]:
            for number in range(task * each, (task + 1) * each):
                row = yield from pool.fetch_one(POINT + "?", number)
                assert row is not None and row[1] == number * 1024

        each = count // TASKS
        clock = Clock()
        yield from coro.gather(*[ask(task) for task in range(TASKS)])
        return clock.per_operation(each * TASKS)

    def fetch(pool: Pool) -> Coro[dict[str, float]]:
        clock = Clock()
        fetched = yield from pool.fetch_all(FETCH)
        result = clock.per_operation(TABLE_ROWS)
        assert len(fetched) == TABLE_ROWS
        return result

    def insert(pool: Pool) -> Coro[dict[str, float]]:
        given = rows(count)
        clock = Clock()
        yield from pool.execute_many(INSERT + "(?, ?, ?, ?, ?)", given)
        return clock.per_operation(count)

    return coro.run(main())


# --- Clients that block ----------------------------------------------------------------


def blocking_peer(module: str, what: str, port: int, count: int) -> dict[str, float]:
    connection = importlib.import_module(module).connect(host="127.0.0.1", port=port, user="root", autocommit=True)
    cursor = connection.cursor()
    if what == "point":
        clock = Clock()
        for number in range(count):
            cursor.execute(POINT + "%s", (number,))
            assert cursor.fetchall()[0][1] == number * 1024
        return clock.per_operation(count)
    if what == "fetch":
        clock = Clock()
        cursor.execute(FETCH)
        fetched = cursor.fetchall()
        result = clock.per_operation(TABLE_ROWS)
        assert len(fetched) == TABLE_ROWS
        return result
    given = rows(count)
    clock = Clock()
    cursor.executemany(INSERT + "(%s, %s, %s, %s, %s)", given)
    return clock.per_operation(count)


# --- Clients on asyncio ----------------------------------------------------------------


async def asyncio_peer(module: str, what: str, port: int, count: int) -> dict[str, float]:
    client = importlib.import_module(module)
    pool = await client.create_pool(
        host="127.0.0.1", port=port, user="root", minsize=POOL, maxsize=POOL, autocommit=True
    )

    async def ask(task: int) -> None:
        for number in range(task * each, (task + 1) * each):
            async with pool.acquire() as connection:
                async with connection.cursor() as cursor:
                    await cursor.execute(POINT + "%s", (number,))
                    assert (await cursor.fetchall())[0][1] == number * 1024

    each = count // TASKS
    if what == "point":
        clock = Clock()
        await asyncio.gather(*[ask(task) for task in range(TASKS)])
        result = clock.per_operation(each * TASKS)
    else:
        async with pool.acquire() as connection, connection.cursor() as cursor:
            result = await (asyncio_fetch(cursor) if what == "fetch" else asyncio_insert(cursor, count))
    pool.close()
    await pool.wait_closed()
    return result


async def asyncio_fetch(cursor: Any) -> dict[str, float]:
    clock = Clock()
    await cursor.execute(FETCH)
    fetched = await cursor.fetchall()
    result = clock.per_operation(TABLE_ROWS)
    assert len(fetched) == TABLE_ROWS
    return result


async def asyncio_insert(cursor: Any, count: int) -> dict[str, float]:
    given = rows(count)
    clock = Clock()
    await cursor.executemany(INSERT + "(%s, %s, %s, %s, %s)", given)
    return clock.per_operation(count)


def main() -> None:
    peer, what, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if peer == "coro":
        result = coro_peer(what, port, count)
    elif peer in ("pymysql", "MySQLdb"):
        result = blocking_peer(peer, what, port, count)
    else:
        result = asyncio.run(asyncio_peer(peer, what, port, count))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
