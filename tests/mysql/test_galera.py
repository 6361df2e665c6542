"""A pool on a Galera cluster: nodes that die or refuse to work, and writers that get into each other's way.

The cluster takes seconds to start and has all its nodes until the last test.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import coro
from coro import Coro, TaskGroup
from coro.mysql import Connection, DatabaseError, OperationalError, Pool
from tests.galera import GaleraCluster, GaleraNode
from tests.mysql.sessions import until, with_pool
from tests.services import MissingServer

PORT = "SELECT @@port"


@pytest.fixture(scope="module")
def cluster() -> Iterator[GaleraCluster]:
    try:
        with GaleraCluster() as cluster:
            cluster.nodes[0].sql("CREATE DATABASE d")
            cluster.nodes[0].sql("CREATE TABLE d.t (a INT PRIMARY KEY, b INT NOT NULL DEFAULT 0)")
            yield cluster
    except MissingServer as missing:
        pytest.fail(str(missing), pytrace=False)


def test_a_transaction_that_fails_certification_is_a_deadlock_and_can_be_run_again(cluster: GaleraCluster) -> None:
    here, there, _ = cluster.nodes
    runs: list[str] = []

    def work(connection: Connection) -> Coro[None]:
        runs.append("run")
        yield from connection.execute("UPDATE t SET b = b + 1 WHERE a = -1")
        if len(runs) <= 2:  # another node commits a change of the same row
            yield from coro.to_thread(there.sql, "UPDATE d.t SET b = b + 10 WHERE a = -1")
            yield from until(lambda: here.sql("SELECT b FROM d.t WHERE a = -1")[0][0] >= 10 * len(runs))

    def body(pool: Pool) -> Coro[None]:
        yield from pool.execute("INSERT INTO t VALUES (-1, 0)")
        yield from until(lambda: bool(there.sql("SELECT * FROM d.t WHERE a = -1")))
        with pytest.raises(OperationalError) as caught:
            yield from pool.transaction(work)
        assert (caught.value.code, caught.value.sqlstate) == (1213, "40001")
        yield from pool.transaction(work, attempts=5)
        assert len(runs) == 3
        assert (yield from pool.fetch_value("SELECT b FROM t WHERE a = -1")) == 21

    with_pool(cluster.url("d", [here]), body)


def test_a_node_that_is_not_synced_is_passed_over(cluster: GaleraCluster) -> None:
    first, second, _ = cluster.nodes

    def body(pool: Pool) -> Coro[None]:
        assert (yield from pool.fetch_value(PORT)) == first.port
        isolate(first, True)
        yield from until(lambda: not first.is_synced())
        with pytest.raises(DatabaseError) as caught:  # on the connection that is there already
            yield from pool.fetch_all("SELECT * FROM t")
        assert caught.value.code == 1047
        assert (yield from pool.fetch_value(PORT)) == second.port  # and one that is new
        isolate(first, False)
        yield from until(first.is_synced)

    with_pool(cluster.url("d"), body)


def isolate(node: GaleraNode, cut_off: bool) -> None:
    """Cut a node off from the others, or let it back."""
    node.sql(f"SET GLOBAL wsrep_provider_options = 'gmcast.isolate={int(cut_off)}'")


def test_a_node_is_killed_in_the_middle_of_the_load_and_no_acknowledged_row_is_lost(cluster: GaleraCluster) -> None:
    acknowledged: set[int] = set()
    under_way: set[int] = set()  # and, at the end, those whose outcome is unknown
    ports: set[int] = set()
    numbers = iter(range(1, 1_000_000))
    first, second, third = cluster.nodes

    def writer(pool: Pool) -> Coro[None]:
        while True:
            number = next(numbers)
            under_way.add(number)

            def work(connection: Connection, number: int = number) -> Coro[int]:
                yield from connection.execute("INSERT INTO t (a) VALUES (?)", number)
                return int((yield from connection.fetch_value(PORT)))

            try:
                ports.add((yield from pool.transaction(work, attempts=10)))
                acknowledged.add(number)
                under_way.remove(number)
            except DatabaseError as error:
                if not error.outcome_unknown:
                    under_way.remove(number)

    def body(pool: Pool) -> Coro[None]:
        def group(group: TaskGroup) -> Coro[None]:
            for _ in range(8):
                group.spawn(writer(pool))
            while len(acknowledged) < 200:
                yield from coro.sleep(0.01)
            assert ports == {first.port}
            first.kill()
            before = len(acknowledged)
            while len(acknowledged) < before + 200:
                yield from coro.sleep(0.01)
            group.cancel()

        with coro.timeout(100):
            yield from coro.task_group(group)
        assert ports == {first.port, second.port}

    with_pool(cluster.url("d"), body, size=4)
    for node in (second, third):
        caught_up = "SET STATEMENT wsrep_sync_wait = 1 FOR "  # with the other node
        rows = {a for (a,) in node.sql(caught_up + "SELECT a FROM d.t WHERE a > 0")}
        assert acknowledged <= rows
        assert rows <= acknowledged | under_way
