"""The pool: bounded, fair, and whole again after every kind of interruption."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

import pytest

import coro
from coro import ClosedError, Coro, TaskGroup
from coro.mysql import Connection, DatabaseError, IntegrityError, InterfaceError, OperationalError, Pool
from tests.mysql.sessions import is_gone, through, until, with_pool
from tests.proxy import Proxy
from tests.services import MariaDBServer, SQLServer


def is_whole(pool: Pool) -> bool:
    return "0 of" in repr(pool)


# --- Lending ------------------------------------------------------------------------------------------------


def test_a_pool_opens_no_connection_before_it_is_asked_something(mariadb: SQLServer) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        assert proxy.connections == 0
        yield from pool.execute("DO 1")
        assert proxy.connections == 1

    through(mariadb, body, size=16)


def test_one_after_the_other_uses_one_connection(mariadb: SQLServer) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        for number in range(10):
            assert (yield from pool.fetch_value("SELECT ?", number)) == number
        assert proxy.connections == 1

    through(mariadb, body, size=16)


def test_no_more_connections_are_open_than_allowed(mariadb: SQLServer) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        values = yield from coro.gather(*[pool.fetch_value("SELECT ?", number) for number in range(50)])
        assert values == list(range(50))
        assert proxy.connections == 3

    through(mariadb, body, size=3)


def test_who_waits_longest_is_served_first(mariadb_database: str) -> None:
    served: list[int] = []

    def ask(pool: Pool, number: int) -> Coro[None]:
        yield from pool.fetch_value("SELECT ?", number)
        served.append(number)

    with_pool(mariadb_database, lambda pool: coro.gather(*[ask(pool, number) for number in range(30)]), size=1)
    assert served == list(range(30))


def test_nobody_gets_in_between_a_release_and_the_next_in_the_queue(mariadb_database: str) -> None:
    served: list[str] = []

    def greedy(pool: Pool) -> Coro[None]:
        for _ in range(3):
            yield from pool.execute("DO 1")
            served.append("greedy")

    def patient(pool: Pool) -> Coro[None]:
        yield from pool.execute("DO 1")
        served.append("patient")

    with_pool(mariadb_database, lambda pool: coro.gather(greedy(pool), patient(pool)), size=1)
    assert served == ["greedy", "patient", "greedy", "greedy"]


def test_a_pool_of_no_connections_is_refused() -> None:
    with pytest.raises(ValueError, match="0 connections"):
        Pool("mysql://root@db1/", size=0)


def test_a_bad_url_is_refused_at_once() -> None:
    with pytest.raises(InterfaceError, match="bad MySQL URL"):
        Pool("redis://db1/")


# --- Giving back ---------------------------------------------------------------------------------------------


def test_an_error_of_the_server_gives_the_connection_back(sql_server: SQLServer) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        for _ in range(5):
            with pytest.raises(DatabaseError):
                yield from pool.execute("SELECT * FROM nowhere.t")
        assert (yield from pool.fetch_value("SELECT 7")) == 7
        assert proxy.connections == 1
        assert is_whole(pool)

    through(sql_server, body)


def test_a_transaction_left_open_is_rolled_back(sql_database: str) -> None:
    def body(pool: Pool) -> Coro[None]:
        yield from pool.execute("CREATE TABLE t (a INT)")
        first = yield from pool.fetch_value("SELECT CONNECTION_ID()")
        yield from pool.execute("START TRANSACTION READ WRITE")
        yield from pool.execute("INSERT INTO t VALUES (1)")
        yield from pool.execute("ROLLBACK")
        assert (yield from pool.fetch_value("SELECT COUNT(*) FROM t")) == 1  # the INSERT was in no transaction
        assert (yield from pool.fetch_value("SELECT CONNECTION_ID()")) == first

    with_pool(sql_database, body, size=1)


def test_a_statement_that_fails_in_a_transaction_left_open_closes_the_connection(sql_database: str) -> None:
    def body(pool: Pool) -> Coro[None]:
        yield from pool.execute("CREATE TABLE t (a INT PRIMARY KEY)")
        first = yield from pool.fetch_value("SELECT CONNECTION_ID()")
        yield from pool.execute(
            "CREATE PROCEDURE p() BEGIN"
            " START TRANSACTION; INSERT INTO t VALUES (1); SELECT 1; INSERT INTO t VALUES (1); END"
        )
        with pytest.raises(IntegrityError):
            yield from pool.execute("CALL p()")
        yield from pool.execute("COMMIT")
        assert (yield from pool.fetch_value("SELECT COUNT(*) FROM t")) == 0
        assert (yield from pool.fetch_value("SELECT CONNECTION_ID()")) != first

    with_pool(sql_database, body, size=1)


def test_a_transaction_holds_one_connection_for_its_body(sql_database: str) -> None:
    def move(connection: Connection) -> Coro[int]:
        yield from connection.execute("UPDATE t SET b = b - ? WHERE a = ?", 5, 1)
        yield from connection.execute("UPDATE t SET b = b + ? WHERE a = ?", 5, 2)
        return int((yield from connection.fetch_value("SELECT SUM(b) FROM t")))

    def fail(connection: Connection) -> Coro[None]:
        yield from move(connection)
        raise ValueError("the program's own")

    def body(pool: Pool) -> Coro[None]:
        yield from pool.execute("CREATE TABLE t (a INT PRIMARY KEY, b INT)")
        yield from pool.execute_many("INSERT INTO t VALUES (?, ?)", [(1, 10), (2, 10)])
        assert (yield from pool.transaction(move)) == 20
        with pytest.raises(ValueError, match="the program's own"):
            yield from pool.transaction(fail)
        assert (yield from pool.fetch_all("SELECT b FROM t ORDER BY a")) == [(5,), (15,)]
        assert is_whole(pool)

    with_pool(sql_database, body)


# --- Closing ------------------------------------------------------------------------------------------------


def test_a_closed_pool_ends_its_sessions(sql_server: SQLServer) -> None:
    def body(pool: Pool) -> Coro[None]:
        session = yield from pool.fetch_value("SELECT CONNECTION_ID()")
        pool.close()
        pool.close()
        yield from until(functools.partial(is_gone, sql_server, session))
        with pytest.raises(ClosedError, match="closed"):
            yield from pool.execute("DO 1")

    with_pool(sql_server.url(), body)


def test_a_query_in_flight_is_finished_when_its_pool_is_closed_and_who_waits_is_told(mariadb: SQLServer) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        def both(group: TaskGroup) -> Coro[None]:
            in_flight = group.spawn(pool.fetch_value("SELECT CONNECTION_ID()"))
            waiting = group.spawn(failure(pool.execute("DO 1"), ClosedError))
            yield from coro.checkpoint()
            pool.close()
            session = yield from in_flight.join()
            yield from waiting.join()
            yield from until(functools.partial(is_gone, mariadb, session))

        yield from pool.execute("DO 1")
        yield from coro.task_group(both)

    through(mariadb, body)


def failure(generator: Coro[object], kind: type[Exception]) -> Coro[None]:
    with pytest.raises(kind):
        yield from generator


# --- Interruptions -------------------------------------------------------------------------------------------


def test_a_cancelled_query_leaves_its_answer_to_nobody(mariadb: SQLServer) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        def group(group: TaskGroup) -> Coro[None]:
            task = group.spawn(pool.fetch_value("SELECT ?", "first"))
            while b"first" not in proxy.requests:
                yield from coro.checkpoint()
            task.cancel()
            proxy.release_replies()
            assert (yield from pool.fetch_value("SELECT ?", "second")) == "second"

        assert (yield from pool.fetch_value("SELECT ?", "warm")) == "warm"
        proxy.hold_replies()
        yield from coro.task_group(group)
        assert proxy.connections == 2
        assert is_whole(pool)

    through(mariadb, body)


def test_a_query_that_takes_too_long_leaves_its_answer_to_nobody(mariadb: SQLServer) -> None:
    def body(pool: Pool) -> Coro[None]:
        with pytest.raises(TimeoutError), coro.timeout(0.05):
            yield from pool.fetch_value("SELECT SLEEP(60)")
        assert (yield from pool.fetch_value("SELECT ?", "second")) == "second"
        assert is_whole(pool)

    with_pool(mariadb.url(), body, size=1)


@pytest.mark.parametrize("cold", [True, False], ids=["connecting", "connected"])
def test_cancelled_after_any_number_of_turns_the_next_query_gets_its_own_answer(
    mariadb_database: str, cold: bool
) -> None:
    def one(turns: int) -> Callable[[Pool], Coro[None]]:
        def body(pool: Pool) -> Coro[None]:
            def group(group: TaskGroup) -> Coro[None]:
                task = group.spawn(pool.fetch_value("SELECT ?", f"cancelled {turns}"))
                for _ in range(turns):
                    yield from coro.checkpoint()
                task.cancel()
                assert (yield from pool.fetch_value("SELECT ?", f"asked {turns}")) == f"asked {turns}"

            if not cold:
                yield from pool.execute("DO 1")
            yield from coro.task_group(group)
            assert is_whole(pool)

        return body

    for turns in range(40):
        with_pool(mariadb_database, one(turns), size=1)


def test_no_connection_is_lost_in_many_cancellations(mariadb_database: str) -> None:
    dice = random.Random(0)

    def ask(pool: Pool, number: int) -> Coro[None]:
        assert (yield from pool.fetch_value("SELECT ?", number)) == number

    def body(pool: Pool) -> Coro[None]:
        for _ in range(40):

            def group(group: TaskGroup) -> Coro[None]:
                tasks = [group.spawn(ask(pool, number)) for number in range(8)]
                for _ in range(dice.randrange(12)):
                    yield from coro.checkpoint()
                for task in dice.sample(tasks, 4):
                    task.cancel()

            yield from coro.task_group(group)
            assert is_whole(pool)

    with_pool(mariadb_database, body, size=3)


def test_a_connection_cut_at_any_byte_is_an_error_and_the_next_query_gets_its_own_answer(mariadb: SQLServer) -> None:
    cuts: list[int] = []

    def measure(proxy: Proxy, pool: Pool) -> Coro[None]:
        yield from pool.fetch_value("SELECT ?", "cut")
        cuts.extend(range(len(proxy.replies) - 1))

    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        for cut in cuts:
            proxy.cut_after = len(proxy.replies) + cut
            try:
                yield from pool.fetch_value("SELECT ?", "cut")
            except OperationalError as error:
                assert error.code == 2013
                assert f"127.0.0.1:{proxy.port}" in str(error)
            else:
                raise AssertionError(f"cut after {cut} bytes of replies, and no error")
            assert (yield from pool.fetch_value("SELECT ?", "asked")) == "asked"
            proxy.cut()  # every round starts with a new connection
            assert is_whole(pool)

    through(mariadb, measure)
    through(mariadb, body)


# --- Dead connections ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["disabled", "required"])
def test_a_session_that_was_killed_while_idle_is_replaced_before_it_is_used(sql_server: SQLServer, mode: str) -> None:
    def body(pool: Pool) -> Coro[None]:
        session = yield from pool.fetch_value("SELECT CONNECTION_ID()")
        sql_server.sql(f"KILL {session}")
        yield from until(functools.partial(is_gone, sql_server, session))
        assert (yield from pool.fetch_value("SELECT CONNECTION_ID()")) != session

    with_pool(f"{sql_server.url()}?tls={mode}", body, size=1)


def test_a_session_killed_in_the_middle_of_a_query_says_so(sql_server: SQLServer) -> None:
    def body(pool: Pool) -> Coro[None]:
        def kill(group: TaskGroup) -> Coro[None]:
            session = yield from pool.fetch_value("SELECT CONNECTION_ID()")
            task = group.spawn(failure(pool.fetch_value(slow), OperationalError))
            yield from until(lambda: bool(sql_server.sql(sleeping, session)))
            sql_server.sql(f"KILL {session}")
            yield from task.join()

        # A SLEEP that is all there is to select just returns 1 when it is killed
        slow = "SELECT n FROM (SELECT 1 AS n UNION SELECT 2) AS t WHERE SLEEP(60) = 0"
        sleeping = "SELECT 1 FROM information_schema.processlist WHERE info LIKE 'SELECT n FROM%%' AND id = %s"
        yield from coro.task_group(kill)
        assert (yield from pool.fetch_value("SELECT 7")) == 7
        assert is_whole(pool)

    with_pool(sql_server.url(), body, size=1)


def test_a_server_that_is_killed_and_comes_back_is_used_again(own_mariadb: Callable[..., MariaDBServer]) -> None:
    server = own_mariadb()

    def body(pool: Pool) -> Coro[None]:
        yield from coro.gather(*[pool.fetch_value("SELECT ?", number) for number in range(4)])
        server.kill()
        for _ in range(6):
            with pytest.raises(OperationalError, match=f"127.0.0.1:{server.port}: cannot connect") as caught:
                yield from pool.fetch_value("SELECT ?", 1)
            assert caught.value.code == 2003
        server.start()
        assert (yield from coro.gather(*[pool.fetch_value("SELECT ?", number) for number in range(4)])) == [0, 1, 2, 3]
        assert is_whole(pool)

    with_pool(f"mysql://root@127.0.0.1:{server.port}/", body, size=4)


def test_a_server_that_is_killed_in_the_middle_of_a_query_is_a_lost_connection(
    own_mariadb: Callable[..., MariaDBServer],
) -> None:
    server = own_mariadb()
    sleeping = "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(60)%%'"

    def ask(pool: Pool) -> Coro[None]:
        with pytest.raises(OperationalError, match="lost the connection") as caught:
            yield from pool.fetch_value("SELECT SLEEP(60)")
        assert caught.value.code == 2013

    def body(pool: Pool) -> Coro[None]:
        def group(group: TaskGroup) -> Coro[None]:
            group.spawn(ask(pool))
            yield from until(lambda: bool(server.sql(sleeping)))
            server.kill()

        yield from coro.task_group(group)
        server.start()
        assert (yield from pool.fetch_value("SELECT 7")) == 7

    for query in ("?tls=disabled", "?tls=required"):
        with_pool(server.url() + query, body, size=1)


def test_nothing_is_sent_twice(mariadb_database: str, mariadb: SQLServer) -> None:
    """A connection that is cut between the INSERT and its answer: an error, and one row."""
    name = mariadb_database.rpartition("/")[2]
    mariadb.sql(f"CREATE TABLE {name}.t (a INT)")

    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        yield from pool.execute("DO 1")
        proxy.cut_after = len(proxy.replies)
        with pytest.raises(OperationalError, match="lost the connection"):
            yield from pool.execute(f"INSERT INTO {name}.t VALUES (1)")
        assert mariadb.sql(f"SELECT COUNT(*) FROM {name}.t") == [(1,)]
        assert proxy.requests.count(b"INSERT") == 1

    through(mariadb, body)
