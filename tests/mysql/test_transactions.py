"""Transactions over a pool: which are run again, on which terms they run, and what is known when they fail."""

from __future__ import annotations

import functools

import pytest

import coro
from coro import Coro, TaskGroup
from coro.mysql import Connection, DatabaseError, Isolation, OperationalError, Pool, ProgrammingError
from tests.mysql.sessions import is_gone, through, until, with_pool
from tests.proxy import Proxy
from tests.services import SQLServer

DEADLOCK = "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'made up'"


# --- Again ----------------------------------------------------------------------------------------------------


def test_both_sides_of_a_deadlock_get_through_when_they_may_try_again(sql_database: str) -> None:
    runs: list[str] = []

    def move(first: int, second: int, meet: coro.Event, other: coro.Event, pool: Pool) -> Coro[None]:
        def body(connection: Connection) -> Coro[None]:
            runs.append("run")
            yield from connection.execute("UPDATE t SET b = b + 1 WHERE a = ?", first)
            meet.set()
            yield from other.wait()
            yield from connection.execute("UPDATE t SET b = b + 1 WHERE a = ?", second)

        yield from pool.transaction(body, attempts=5)

    def body(pool: Pool) -> Coro[None]:
        yield from pool.execute("CREATE TABLE t (a INT PRIMARY KEY, b INT)")
        yield from pool.execute("INSERT INTO t VALUES (0, 0), (1, 0)")
        one, two = coro.Event(), coro.Event()
        yield from coro.gather(move(0, 1, one, two, pool), move(1, 0, two, one, pool))
        assert (yield from pool.fetch_all("SELECT b FROM t")) == [(2,), (2,)]
        assert len(runs) == 3

    with_pool(sql_database, body)


@pytest.mark.parametrize(("attempts", "runs"), [(1, 1), (3, 3)])
def test_a_transaction_is_run_so_many_times_and_no_more(sql_server: SQLServer, attempts: int, runs: int) -> None:
    def body(pool: Pool) -> Coro[None]:
        count = 0

        def work(connection: Connection) -> Coro[None]:
            nonlocal count
            count += 1
            yield from connection.execute("INSERT INTO t VALUES (1)")
            yield from connection.execute("CALL fail()")

        with pytest.raises(OperationalError, match="made up"):
            yield from pool.transaction(work, attempts=attempts)
        assert count == runs
        assert (yield from pool.fetch_all("SELECT * FROM t")) == []

    with sql_server.database() as name:
        sql_server.sql("CREATE TABLE t (a INT PRIMARY KEY)", database=name)
        sql_server.sql(f"CREATE PROCEDURE fail() BEGIN {DEADLOCK}; END", database=name)
        with_pool(sql_server.url(name), body)


def test_what_is_no_deadlock_is_not_tried_again(sql_database: str) -> None:
    def body(pool: Pool) -> Coro[None]:
        count = 0

        def work(connection: Connection) -> Coro[None]:
            nonlocal count
            count += 1
            yield from connection.execute("SELECT nonsense")

        with pytest.raises(ProgrammingError):
            yield from pool.transaction(work, attempts=5)
        assert count == 1

    with_pool(sql_database, body)


# --- Terms ----------------------------------------------------------------------------------------------------


def test_a_transaction_has_the_isolation_it_was_asked_for_and_the_next_has_the_usual_one(sql_database: str) -> None:
    """Whether a row that others add in between is seen."""

    def seen(pool: Pool, isolation: Isolation | None) -> Coro[int]:
        def work(connection: Connection) -> Coro[int]:
            before = yield from connection.fetch_value("SELECT COUNT(*) FROM t")
            yield from pool.execute("INSERT INTO t VALUES (1)")
            return int((yield from connection.fetch_value("SELECT COUNT(*) FROM t")) - before)

        return (yield from pool.transaction(work, isolation=isolation))

    def body(pool: Pool) -> Coro[None]:
        yield from pool.execute("CREATE TABLE t (a INT)")
        assert (yield from seen(pool, Isolation.READ_COMMITTED)) == 1
        assert (yield from seen(pool, Isolation.REPEATABLE_READ)) == 0
        assert (yield from seen(pool, None)) == 0

    with_pool(sql_database, body, size=2)


def test_a_read_only_transaction_writes_nothing(sql_database: str) -> None:
    def work(connection: Connection) -> Coro[None]:
        yield from connection.execute("INSERT INTO t VALUES (1)")

    def body(pool: Pool) -> Coro[None]:
        yield from pool.execute("CREATE TABLE t (a INT)")
        with pytest.raises(DatabaseError) as caught:
            yield from pool.transaction(work, read_only=True)
        assert caught.value.code == 1792  # ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
        yield from pool.transaction(work)

    with_pool(sql_database, body)


# --- What is known ----------------------------------------------------------------------------------------------


def test_a_commit_whose_answer_is_lost_is_unknown_and_not_tried_again(sql_server: SQLServer) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        count = 0

        def work(connection: Connection) -> Coro[None]:
            nonlocal count
            count += 1
            yield from connection.execute(f"INSERT INTO {name}.t VALUES (1)")
            proxy.cut_after = len(proxy.replies)

        with pytest.raises(OperationalError, match="whether the transaction took place is unknown") as caught:
            yield from pool.transaction(work, attempts=5)
        assert caught.value.outcome_unknown
        assert (count, proxy.requests.count(b"COMMIT")) == (1, 1)

    with sql_server.database() as name:
        sql_server.sql(f"CREATE TABLE {name}.t (a INT PRIMARY KEY)")
        through(sql_server, body)


def test_a_statement_whose_session_is_killed_is_unknown(sql_server: SQLServer) -> None:
    def body(pool: Pool) -> Coro[None]:
        def group(group: TaskGroup) -> Coro[None]:
            session = yield from pool.fetch_value("SELECT CONNECTION_ID()")
            task = group.spawn(unanswered(pool))
            yield from until(lambda: bool(sql_server.sql(asleep, session)))
            sql_server.sql(f"KILL {session}")
            yield from task.join()
            yield from until(functools.partial(is_gone, sql_server, session))

        yield from coro.task_group(group)
        assert (yield from pool.fetch_value("SELECT 7")) == 7

    def unanswered(pool: Pool) -> Coro[None]:
        with pytest.raises(OperationalError) as caught:
            yield from pool.execute("DO SLEEP(1000)")
        assert caught.value.outcome_unknown

    asleep = "SELECT id FROM information_schema.processlist WHERE info = 'DO SLEEP(1000)' AND id = %s"
    with_pool(sql_server.url(), body, size=1)


def test_what_the_server_refused_and_what_was_never_sent_is_known(sql_server: SQLServer) -> None:
    def body(pool: Pool) -> Coro[None]:
        for statement, parameters in (("SELECT nonsense", ()), ("SELECT ?", (1 << 64,))):
            with pytest.raises(DatabaseError) as caught:
                yield from pool.execute(statement, *parameters)
            assert not caught.value.outcome_unknown
        server_is_away = Pool("mysql://root@127.0.0.1:1/")
        with pytest.raises(OperationalError) as caught:
            yield from server_is_away.execute("DO 1")
        assert not caught.value.outcome_unknown

    with_pool(sql_server.url(), body)


def test_a_connection_lost_during_login_leaves_nothing_unknown(mariadb: SQLServer) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        yield from pool.execute("DO 1")
        greeting = 4 + int.from_bytes(proxy.replies[:3], "little")
        proxy.cut_after = len(proxy.replies) + greeting + 1  # in the middle of the server's verdict
        with pytest.raises(OperationalError, match="lost the connection") as caught:
            yield from pool.execute("DO 1")
        assert not caught.value.outcome_unknown
        assert proxy.requests.count(b"_client_name") == 2

    through(mariadb, body, max_age=0.0)
