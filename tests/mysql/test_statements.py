"""What a connection does when the server has forgotten a prepared statement, has no room for another, or takes a
parameter for what it was before."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from coro import Coro
from coro.mysql import Connection, DatabaseError, LongData, Pool, ProgrammingError
from coro.mysql.bulk import MAX_ROWS
from coro.mysql.commands import CommandPhase, Statement
from coro.mysql.parameters import Parameter
from coro.mysql.rows import Row
from tests.mysql.sessions import through, with_connection
from tests.proxy import Proxy
from tests.services import SQLServer


def forget(connection: Connection) -> Coro[None]:
    """The server drops all prepared statements of the session, and the connection does not notice."""
    yield from connection._perform(connection._phase.reset())


def ask(connection: Connection) -> Coro[int]:
    value = yield from connection.fetch_value("SELECT ? + 1", 1)
    return int(value)


def stream(connection: Connection) -> Coro[int]:
    with (yield from connection.stream("SELECT ? + 1", 1)) as rows:
        [(value,)] = yield from rows.read()
        assert (yield from rows.read()) == []
    return int(value)


@pytest.mark.parametrize("run", [ask, stream])
def test_a_statement_that_the_server_has_forgotten_is_prepared_again(
    sql_database: str, run: Callable[[Connection], Coro[int]]
) -> None:
    def body(connection: Connection) -> Coro[None]:
        for _ in range(3):
            assert (yield from run(connection)) == 2
            yield from forget(connection)
        assert (yield from run(connection)) == 2

    with_connection(sql_database, body)


def test_a_procedure_is_not_called_again(sql_database: str) -> None:
    """The error could have come out of its middle."""

    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT)")
        yield from connection.execute("CREATE PROCEDURE p(n INT) INSERT INTO t VALUES (n)")
        yield from connection.execute("CALL p(?)", 1)
        yield from forget(connection)
        with pytest.raises(DatabaseError) as caught:
            yield from connection.execute("CALL p(?)", 2)
        assert caught.value.code == 1243
        yield from connection.execute("CALL p(?)", 3)
        assert (yield from connection.fetch_all("SELECT a FROM t ORDER BY a")) == [(1,), (3,)]

    with_connection(sql_database, body)


def test_long_data_are_not_sent_again(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        assert (yield from connection.fetch_value("SELECT LENGTH(?)", LongData(b"xy"))) == 2
        yield from forget(connection)
        with pytest.raises(ProgrammingError) as caught:
            yield from connection.fetch_value("SELECT LENGTH(?)", LongData(b"xyz"))
        assert caught.value.code == 1243
        assert (yield from connection.fetch_value("SELECT LENGTH(?)", LongData(b"xyz"))) == 3

    with_connection(sql_database, body)


def test_a_statement_is_prepared_again_once(sql_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = CommandPhase.prepare
    seen: list[str] = []

    def and_forget(phase: CommandPhase, sql: str) -> Coro[Statement]:
        statement = yield from prepare(phase, sql)  # type: ignore[misc]
        seen.append(sql)
        yield phase.close_statement(statement)  # type: ignore[misc]
        return statement

    monkeypatch.setattr(CommandPhase, "prepare", and_forget)

    def body(connection: Connection) -> Coro[None]:
        with pytest.raises(ProgrammingError) as caught:
            yield from connection.fetch_value("SELECT ?", 1)
        assert caught.value.code == 1243
        yield from connection.ping()

    with_connection(sql_database, body)
    assert seen == ["SELECT ?"] * 2


def test_a_connection_makes_room_for_a_statement(own_sql_server: Callable[..., SQLServer]) -> None:
    server = own_sql_server("--max-prepared-stmt-count=10")

    def body(connection: Connection) -> Coro[None]:
        for number in [*range(25), *range(25)]:
            assert (yield from connection.fetch_value(f"SELECT {number} + ?", 1)) == number + 1
        kept = yield from connection.fetch_one("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'")
        assert kept is not None
        assert 0 < int(kept[1]) <= 10

    with_connection(server.url(), body)


def test_a_server_without_any_room_says_so(own_sql_server: Callable[..., SQLServer]) -> None:
    server = own_sql_server("--max-prepared-stmt-count=0")

    def body(connection: Connection) -> Coro[None]:
        with pytest.raises(DatabaseError, match="max_prepared_stmt_count") as caught:
            yield from connection.fetch_value("SELECT ?", 1)
        assert caught.value.code == 1461
        assert (yield from connection.fetch_value("SELECT 7")) == 7

    with_connection(server.url(), body)


def test_a_cursor_that_cannot_be_opened_leaves_no_statement_behind(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        with pytest.raises(ProgrammingError, match="parameters are due"):
            yield from connection.cursor("SELECT ?", 1, 2)
        for name, expected in ("Com_stmt_prepare", 1), ("Com_stmt_close", 1):
            row = yield from connection.fetch_one(f"SHOW SESSION STATUS LIKE '{name}'")
            assert row is not None
            assert int(row[1]) == expected

    with_connection(sql_database, body)


def test_results_of_a_procedure_and_its_parameters_are_all_read(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute(
            "CREATE PROCEDURE p(n INT, OUT m INT, INOUT k INT) BEGIN SELECT n; SET m = n + 1; SET k = k * 2; END"
        )
        yield from connection.execute("SET @k = 21")
        assert [result.rows for result in (yield from connection.results("CALL p(1, @m, @k)"))] == [[(1,)], []]
        assert (yield from connection.fetch_one("SELECT @m, @k")) == (2, 42)
        assert [result.rows for result in (yield from connection.results("CALL p(?, @m, @k)", 5))] == [[(5,)], []]
        assert (yield from connection.fetch_one("SELECT @m, @k")) == (6, 84)
        results = yield from connection.results("CALL p(?, ?, ?)", 1, None, 3)
        assert [result.rows for result in results] == [[(1,)], [(2, 6)], []]
        assert (yield from connection.fetch_value("SELECT 7")) == 7

    with_connection(sql_database, body)


def test_an_error_in_the_middle_of_a_procedure_leaves_the_connection_in_step(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute(
            "CREATE PROCEDURE p(n INT)"
            " BEGIN SELECT n; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'enough'; SELECT 2; END"
        )
        for call in ("CALL p(1)",), ("CALL p(?)", 1):
            with pytest.raises(DatabaseError, match="enough"):
                yield from connection.results(*call)
            assert (yield from connection.fetch_value("SELECT ?", 7)) == 7

    with_connection(sql_database, body)


FIND = "SELECT name FROM t WHERE name = ?"


OTHERS = [5, 1.5, Decimal("1.5"), True]


@pytest.mark.parametrize("first", OTHERS, ids=lambda value: type(value).__name__)
def test_a_parameter_is_not_taken_for_what_it_was_before(sql_database: str, first: Parameter) -> None:
    """MySQL would take 'anna' for the number 0, and every name too, once the parameter was a number."""

    def streamed(connection: Connection, value: Parameter) -> Coro[list[Row]]:
        with (yield from connection.stream(FIND, value)) as stream:
            found = yield from stream.read()
            assert not found or not (yield from stream.read())
            return found

    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (name VARCHAR(20))")
        yield from connection.execute("INSERT INTO t VALUES ('anna'), ('otto')")
        for value in (None, first, None, "anna", first):
            yield from connection.fetch_all(FIND, value)
        assert (yield from connection.fetch_all(FIND, "anna")) == [("anna",)]
        yield from connection.fetch_all(FIND, first)
        assert (yield from streamed(connection, "anna")) == [("anna",)]
        yield from streamed(connection, first)
        assert (yield from connection.fetch_all(FIND, "anna")) == [("anna",)]
        with pytest.raises(ProgrammingError, match="1 parameters are due"):
            yield from connection.fetch_all(FIND, first, first)
        yield from connection.fetch_all(FIND, first)
        assert (yield from connection.fetch_all(FIND, "anna")) == [("anna",)]

    with_connection(sql_database, body)


def test_the_rows_of_execute_many_are_taken_for_what_they_are(sql_database: str) -> None:
    sql = "INSERT INTO t VALUES (NULLIF(?, ?))"  # to numbers, 'anna' and 'otto' are both 0

    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (name VARCHAR(20))")
        rows: list[tuple[Parameter, ...]] = [*[(5, 6)] * MAX_ROWS, *[("anna", "otto")] * MAX_ROWS]
        yield from connection.execute_many(sql, rows)
        assert (yield from connection.fetch_value("SELECT COUNT(*) FROM t WHERE name = 'anna'")) == MAX_ROWS

    with_connection(sql_database, body)


def test_null_is_of_any_type_and_costs_no_statement(sql_server: SQLServer) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        for values in [(None, 1), (2, None), (None, None), (3, 4)]:
            assert (yield from pool.fetch_one("SELECT ? + 1, ? + 1", *values)) is not None
        assert proxy.requests.count(b"\x16SELECT") == 1  # COM_STMT_PREPARE

    through(sql_server, body)
