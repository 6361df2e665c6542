"""A connection to a real server: results, statements, errors, transactions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

import coro
from coro import BusyError, Coro, Stream, TaskGroup
from coro.mysql import (
    Connection,
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    OperationalError,
    Parameter,
    ProgrammingError,
    ProtocolError,
    connect,
)
from coro.mysql.channel import Channel
from coro.mysql.connection import STATEMENT_CACHE_SIZE
from coro.mysql.handshake import Login, Session, parse_greeting
from coro.task import CancelScope
from tests.mysql.sessions import until, with_connection
from tests.mysql.wire import AUTOCOMMIT, MODERN, err, greeting, packet
from tests.proxy import Proxy, through_proxy
from tests.services import SQLServer

# --- Results ------------------------------------------------------------------------------------------------


def test_fetching_gives_all_rows_the_first_row_or_the_first_value(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        union = "SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, 'y'"
        assert (yield from connection.fetch_all(union)) == [(1, "x"), (2, "y")]
        assert (yield from connection.fetch_one(union)) == (1, "x")
        assert (yield from connection.fetch_value(union)) == 1

    with_connection(sql_database, body)


def test_where_there_is_no_row_there_is_none(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        nothing = "SELECT 1 FROM (SELECT 1 AS a) AS t WHERE a = ?"
        assert (yield from connection.fetch_all(nothing, 2)) == []
        assert (yield from connection.fetch_one(nothing, 2)) is None
        assert (yield from connection.fetch_value(nothing, 2)) is None

    with_connection(sql_database, body)


def test_a_result_names_its_columns(sql_database: str) -> None:
    result = with_connection(sql_database, lambda connection: connection.execute("SELECT 1 AS a, 'x' AS `ä b`"))
    assert [column.name for column in result.columns] == ["a", "ä b"]


def test_execute_tells_affected_rows_and_the_insert_id(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT)")
        first = yield from connection.execute("INSERT INTO t (a) VALUES (?)", 1)
        second = yield from connection.execute("INSERT INTO t (a) VALUES (5), (6)")
        changed = yield from connection.execute("UPDATE t SET a = a + ?", 1)
        assert (first.affected_rows, first.last_insert_id) == (1, 1)
        assert (second.affected_rows, second.last_insert_id) == (2, 2)
        assert changed.affected_rows == 3

    with_connection(sql_database, body)


def test_all_results_of_a_procedure_are_read(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute(
            "CREATE PROCEDURE p(n INT) BEGIN SELECT n; SELECT n + 1, 'x'; DELETE FROM t; END"
        )
        yield from connection.execute("CREATE TABLE t (a INT)")
        for results in (yield from connection.results("CALL p(1)")), (yield from connection.results("CALL p(?)", 1)):
            assert [result.rows for result in results] == [[(1,)], [(2, "x")], []]
        assert (yield from connection.fetch_value("SELECT 7")) == 7

    with_connection(sql_database, body)


def test_many_rows_come_in_their_order(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT PRIMARY KEY, b TEXT)")
        rows = [(number, f"row {number}" if number % 7 else None) for number in range(20_000)]
        result = yield from connection.execute_many("INSERT INTO t VALUES (?, ?)", rows)
        assert result.affected_rows == len(rows)
        assert (yield from connection.fetch_all("SELECT * FROM t ORDER BY a")) == rows
        assert (yield from connection.fetch_all("SELECT * FROM t WHERE a >= ? ORDER BY a", 0)) == rows

    with_connection(sql_database, body)


# --- Statements ---------------------------------------------------------------------------------------------


def counter(connection: Connection, name: str) -> Coro[int]:
    row = yield from connection.fetch_one(f"SHOW SESSION STATUS LIKE '{name}'")
    assert row is not None
    return int(row[1])


def test_a_statement_is_prepared_once(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        assert (yield from connection.fetch_value("SELECT ?", "first")) == "first"
        prepared = yield from counter(connection, "Com_stmt_prepare")
        assert (yield from connection.fetch_value("SELECT ?", "second")) == "second"
        assert (yield from counter(connection, "Com_stmt_prepare")) == prepared > 0
        assert (yield from counter(connection, "Com_stmt_execute")) == 2

    with_connection(sql_database, body)


def test_the_least_recently_used_statement_makes_room(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.fetch_value("SELECT ?", "used again and again")
        for number in range(STATEMENT_CACHE_SIZE + 1):
            yield from connection.fetch_value(f"SELECT {number}, ?", "used once")
            prepared = yield from counter(connection, "Com_stmt_prepare")
            yield from connection.fetch_value("SELECT ?", "used again and again")
            assert (yield from counter(connection, "Com_stmt_prepare")) == prepared
        assert (yield from counter(connection, "Com_stmt_close")) == 2

    with_connection(sql_database, body)


def test_a_statement_follows_a_table_that_changes(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT)")
        yield from connection.execute("INSERT INTO t VALUES (1)")
        assert (yield from connection.fetch_all("SELECT * FROM t WHERE ? = 1", 1)) == [(1,)]
        yield from connection.execute("ALTER TABLE t MODIFY a VARCHAR(10), ADD b DATE DEFAULT '2026-01-31'")
        assert (yield from connection.fetch_all("SELECT * FROM t WHERE ? = 1", 1)) == [("1", date(2026, 1, 31))]

    with_connection(sql_database, body)


# --- Errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "parameters", "kind", "code"),
    [
        ("SELEC 1", (), ProgrammingError, 1064),
        ("SELEC ?", (1,), ProgrammingError, 1064),
        ("SELECT * FROM nowhere", (), ProgrammingError, 1146),
        ("SELECT nothing FROM t", (), ProgrammingError, 1054),
        ("INSERT INTO t VALUES (1, 1)", (), IntegrityError, 1062),
        ("INSERT INTO t VALUES (?, 1)", (1,), IntegrityError, 1062),
        ("INSERT INTO t VALUES (2, ?)", (None,), IntegrityError, 1048),
        ("INSERT INTO t VALUES (2, ?)", (300,), DataError, 1264),
        ("INSERT INTO t VALUES (2, ?)", ("x",), DataError, 1366),
        ("SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 30001", (), OperationalError, 30001),
    ],
)
def test_an_error_has_its_class_and_number_and_the_connection_goes_on(
    sql_database: str, sql: str, parameters: tuple[Parameter, ...], kind: type[Error], code: int
) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (id INT PRIMARY KEY, a TINYINT NOT NULL)")
        yield from connection.execute("INSERT INTO t VALUES (1, 1)")
        with pytest.raises(kind) as caught:
            yield from connection.execute(sql, *parameters)
        assert (caught.value.code, caught.value.peer) == (code, connection.peer)
        assert (yield from connection.fetch_all("SELECT * FROM t WHERE id = ?", 1)) == [(1, 1)]

    with_connection(sql_database, body)


def test_an_error_in_the_middle_of_the_rows_leaves_the_connection_in_step(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT)")
        yield from connection.execute_many("INSERT INTO t VALUES (?)", [(n,) for n in range(2000)])
        sql = "SELECT a, REPEAT('x', 1000), (SELECT b.a FROM t AS b WHERE b.a = t.a OR t.a = 1999) FROM t"
        with pytest.raises(DatabaseError) as caught:
            yield from connection.fetch_all(sql)
        assert caught.value.code == 1242  # the subquery returns more than one row
        assert (yield from connection.fetch_value("SELECT 7")) == 7

    with_connection(sql_database, body)


def test_a_parameter_that_cannot_be_sent_leaves_the_connection_open(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        with pytest.raises(DataError, match="parameter 1"):
            yield from connection.fetch_value("SELECT ?", 2**64)
        with pytest.raises(ProgrammingError, match="1 parameters are due, and 2 were given"):
            yield from connection.fetch_value("SELECT ?", 1, 2)
        assert (yield from connection.fetch_value("SELECT ?", 7)) == 7

    with_connection(sql_database, body)


def test_two_tasks_cannot_use_a_connection_at_once(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        def both(group: coro.TaskGroup) -> Coro[None]:
            group.spawn(connection.fetch_value("SELECT SLEEP(60)"))
            yield from coro.checkpoint()
            with pytest.raises(BusyError, match="two tasks"):
                yield from connection.fetch_value("SELECT 1")
            group.cancel()

        yield from coro.task_group(both)

    with_connection(sql_database, body)


def with_fake(serve: Callable[[Stream], Coro[None]], body: Callable[[Connection], Coro[None]]) -> None:
    """Runs `body` with a connection, past its login, to a server that does what `serve(stream)` says."""

    def both(group: TaskGroup) -> Coro[None]:
        listener = coro.listen("127.0.0.1", 0)
        channel = Channel((yield from coro.connect("127.0.0.1", listener.port)), "fake:3306")
        session = Session(parse_greeting(greeting()), Login("anna"), MODERN, encrypted=False, status=AUTOCOMMIT)
        connection = Connection(channel, session)
        stream = yield from listener.accept()
        group.spawn(serve(stream))
        yield from body(connection)
        connection.close()
        listener.close()

    coro.run(coro.task_group(both))


def test_the_server_is_told_when_a_session_ends() -> None:
    heard: list[bytes] = []

    def serve(stream: Stream) -> Coro[None]:
        while data := (yield from stream.read()):
            heard.append(data)
        stream.close()

    with_fake(serve, lambda connection: coro.sleep(0))
    assert heard == [b"\x01\0\0\0\x01"]


def test_the_last_words_of_a_server_that_ends_the_session_are_the_error() -> None:
    def serve(stream: Stream) -> Coro[None]:
        yield from stream.read()
        yield from stream.write(packet(err(4031, "disconnected because of inactivity"), 0))
        stream.close()

    def body(connection: Connection) -> Coro[None]:
        with pytest.raises(OperationalError, match="fake:3306: disconnected because of inactivity") as caught:
            yield from connection.ping()
        assert caught.value.code == 4031
        assert connection.closed

    with_fake(serve, body)


def test_an_answer_out_of_protocol_closes_the_connection() -> None:
    def serve(stream: Stream) -> Coro[None]:
        yield from stream.read()
        yield from stream.write(packet(b"wild", 1))
        stream.close()

    def body(connection: Connection) -> Coro[None]:
        with pytest.raises(ProtocolError, match="fake:3306"):
            yield from connection.ping()
        assert connection.closed

    with_fake(serve, body)


def test_a_closed_connection_says_so(sql_database: str) -> None:
    def main() -> Coro[None]:
        connection = yield from connect(sql_database)
        connection.close()
        connection.close()
        with pytest.raises(InterfaceError, match="closed"):
            yield from connection.ping()
        assert "closed" in repr(connection)

    coro.run(main())


def test_no_local_file_is_sent(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a TEXT)")
        with pytest.raises(DatabaseError):
            yield from connection.execute("LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE t")
        assert (yield from connection.fetch_value("SELECT COUNT(*) FROM t")) == 0

    with_connection(sql_database, body)


# --- Transactions -------------------------------------------------------------------------------------------


def numbers(connection: Connection) -> Coro[list[int]]:
    return [row[0] for row in (yield from connection.fetch_all("SELECT a FROM t ORDER BY a"))]


def test_a_transaction_commits_when_its_body_returns(sql_server: SQLServer) -> None:
    with sql_server.database() as name:

        def body(connection: Connection) -> Coro[str]:
            yield from connection.execute("INSERT INTO t VALUES (?)", 1)
            assert connection.in_transaction
            assert sql_server.sql(f"SELECT * FROM {name}.t") == []
            return "done"

        sql_server.sql(f"CREATE TABLE {name}.t (a INT)")
        assert with_connection(sql_server.url(name), lambda connection: connection.transaction(body)) == "done"
        assert sql_server.sql(f"SELECT * FROM {name}.t") == [(1,)]


def test_a_transaction_rolls_back_when_its_body_raises(sql_database: str) -> None:
    def fails(connection: Connection) -> Coro[None]:
        yield from connection.execute("INSERT INTO t VALUES (1)")
        raise ValueError("the program's own")

    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT)")
        with pytest.raises(ValueError, match="the program's own"):
            yield from connection.transaction(fails)
        assert not connection.in_transaction
        assert (yield from numbers(connection)) == []

    with_connection(sql_database, body)


def test_a_transaction_whose_body_raises_beside_an_open_stream_raises_that(sql_database: str) -> None:
    def fails(connection: Connection) -> Coro[None]:
        yield from connection.execute("INSERT INTO t VALUES (1)")
        yield from connection.stream("SELECT * FROM information_schema.columns")
        raise ValueError("the program's own")

    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT)")
        with pytest.raises(ValueError, match="the program's own"):
            yield from connection.transaction(fails)
        assert connection.closed

    with_connection(sql_database, body)


def test_a_transaction_inside_a_transaction_is_refused(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        with pytest.raises(ProgrammingError, match="open already"):
            yield from connection.transaction(lambda inner: inner.transaction(lambda innermost: innermost.ping()))
        assert not connection.in_transaction

    with_connection(sql_database, body)


def test_a_cancelled_transaction_is_rolled_back_by_closing_its_connection(sql_server: SQLServer) -> None:
    scope = CancelScope()
    with sql_server.database() as name:
        sql_server.sql(f"CREATE TABLE {name}.t (a INT)")

        def stops(connection: Connection) -> Coro[None]:
            yield from connection.execute("INSERT INTO t VALUES (1)")
            scope.cancel()
            yield from coro.sleep_forever()

        def body(connection: Connection) -> Coro[None]:
            with scope:
                yield from connection.transaction(stops)
            assert scope.cancelled_caught
            assert connection.closed
            session = "SELECT 1 FROM information_schema.processlist WHERE id = %s"
            yield from until(lambda: not sql_server.sql(session, connection.id))

        with_connection(sql_server.url(name), body)
        assert sql_server.sql(f"SELECT * FROM {name}.t") == []


def test_one_of_two_in_a_deadlock_gets_the_error_and_the_other_goes_on(sql_database: str) -> None:
    met: list[coro.Event] = []

    def update(connection: Connection, mine: int, other: int) -> Coro[None]:
        def body(connection: Connection) -> Coro[None]:
            yield from connection.execute("UPDATE t SET b = b + 1 WHERE a = ?", mine)
            met[mine].set()
            yield from met[other].wait()
            yield from connection.execute("UPDATE t SET b = b + 1 WHERE a = ?", other)

        yield from connection.transaction(body)

    def outcome(mine: int, other: int) -> Coro[Error | None]:
        connection = yield from connect(sql_database)
        try:
            yield from update(connection, mine, other)
        except OperationalError as error:
            assert not connection.in_transaction
            return error
        finally:
            connection.close()
        return None

    def body(connection: Connection) -> Coro[list[Error | None]]:
        met.extend((coro.Event(), coro.Event()))
        yield from connection.execute("CREATE TABLE t (a INT PRIMARY KEY, b INT) ENGINE = InnoDB")
        yield from connection.execute("INSERT INTO t VALUES (0, 0), (1, 0)")
        outcomes = yield from coro.gather(outcome(0, 1), outcome(1, 0))
        assert (yield from connection.fetch_all("SELECT b FROM t")) == [(1,), (1,)]
        return outcomes

    errors = [error for error in with_connection(sql_database, body) if error is not None]
    assert [(error.code, error.sqlstate) for error in errors] == [(1213, "40001")]


def test_a_commit_whose_answer_is_lost_is_reported_as_unknown(sql_server: SQLServer) -> None:
    with sql_server.database() as name:
        sql_server.sql(f"CREATE TABLE {name}.t (a INT PRIMARY KEY)")

        def through(proxy: Proxy) -> Coro[None]:
            def inserts(connection: Connection) -> Coro[None]:
                yield from connection.execute("INSERT INTO t VALUES (1)")
                proxy.cut_after = len(proxy.replies)

            connection = yield from connect(f"mysql://root@127.0.0.1:{proxy.port}/{name}?tls=disabled")
            with pytest.raises(OperationalError, match="during COMMIT: whether the transaction took place is unknown"):
                yield from connection.transaction(inserts)
            assert connection.closed
            assert proxy.requests.count(b"COMMIT") == 1

        coro.run(through_proxy(sql_server.port, through))
