"""Rows a few at a time: answers read as they come, and cursors of the server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

import coro
from coro import BusyError, Coro
from coro.mysql import Connection, DatabaseError, InterfaceError, ProgrammingError, RowStream
from coro.mysql import constants as c
from coro.mysql.commands import CommandPhase, Statement
from coro.mysql.errors import ProtocolError
from coro.mysql.packets import Framer
from tests.mysql.sessions import with_connection
from tests.mysql.wire import (
    AUTOCOMMIT,
    MODERN,
    OLD,
    binary_row,
    column,
    eof,
    err,
    ok,
    packets,
    play,
    result_set,
    rows_end,
    text_row,
)
from tests.services import SQLServer

Open = Callable[[Connection, str], Coro[RowStream]]
COUNT = 5000


def by_query(connection: Connection, sql: str) -> Coro[RowStream]:
    return (yield from connection.stream(sql))


def by_statement(connection: Connection, sql: str) -> Coro[RowStream]:
    return (yield from connection.stream(sql + " HAVING a >= ?", -1))


def by_cursor(connection: Connection, sql: str) -> Coro[RowStream]:
    return (yield from connection.cursor(sql + " HAVING a >= ?", -1, fetch_size=300))


every_way = pytest.mark.parametrize("open_stream", [by_query, by_statement, by_cursor])
every_answer = pytest.mark.parametrize("open_stream", [by_query, by_statement])


def all_rows(stream: RowStream) -> Coro[list[Any]]:
    found = []
    while rows := (yield from stream.read()):
        found += rows
    return found


def fill(connection: Connection, count: int = COUNT) -> Coro[list[tuple[int, str]]]:
    yield from connection.execute("CREATE TABLE t (a INT PRIMARY KEY, b TEXT)")
    rows = [(number, hashlib.sha256(b"%d" % number).hexdigest() * 2) for number in range(count)]
    yield from connection.execute_many("INSERT INTO t VALUES (?, ?)", rows)
    return rows


@every_way
def test_all_rows_come_in_their_order_and_the_connection_goes_on(sql_database: str, open_stream: Open) -> None:
    def body(connection: Connection) -> Coro[None]:
        rows = yield from fill(connection)
        with (yield from open_stream(connection, "SELECT a, b FROM t")) as stream:
            assert [column.name for column in stream.columns] == ["a", "b"]
            first = yield from stream.read()
            assert 0 < len(first) < len(rows)
            assert first + (yield from all_rows(stream)) == rows
            assert stream.ended
            assert (yield from stream.read()) == []
        assert (yield from connection.fetch_value("SELECT ?", 7)) == 7

    with_connection(sql_database, body)


@every_way
def test_no_rows_are_an_end_at_once(sql_database: str, open_stream: Open) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from fill(connection, 0)
        with (yield from open_stream(connection, "SELECT a, b FROM t")) as stream:
            assert (yield from stream.read()) == []
            assert [column.name for column in stream.columns] == ["a", "b"]
        assert (yield from connection.fetch_value("SELECT 7")) == 7

    with_connection(sql_database, body)


@every_answer
def test_nothing_else_can_be_asked_while_an_answer_is_read(sql_database: str, open_stream: Open) -> None:
    def body(connection: Connection) -> Coro[None]:
        rows = yield from fill(connection)
        with (yield from open_stream(connection, "SELECT a, b FROM t")) as stream:
            with pytest.raises(BusyError, match="is taken until this has ended: <AnswerRows of"):
                yield from connection.fetch_value("SELECT 7")
            assert (yield from all_rows(stream)) == rows
        assert (yield from connection.fetch_value("SELECT 7")) == 7

    with_connection(sql_database, body)


@every_answer
def test_to_leave_in_the_middle_of_an_answer_closes_the_connection(sql_database: str, open_stream: Open) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from fill(connection)
        with (yield from open_stream(connection, "SELECT a, b FROM t")) as stream:
            yield from stream.read()
        assert connection.closed
        assert stream.ended
        with pytest.raises(InterfaceError, match="closed"):
            yield from connection.ping()

    with_connection(sql_database, body)


@every_answer
def test_an_answer_is_not_read_ahead(sql_server: SQLServer, open_stream: Open) -> None:
    """64 MB, far more than the sockets hold: the server cannot have sent all of it while nobody reads."""

    def body(connection: Connection) -> Coro[None]:
        sql = "SELECT t.a, REPEAT('x', 64000) FROM (SELECT 1 AS a" + " UNION ALL SELECT 1" * 999 + ") AS t"
        with (yield from open_stream(connection, sql)) as stream:
            count = len((yield from stream.read()))
            state = "SELECT command FROM information_schema.processlist WHERE id = %s"
            assert sql_server.sql(state, connection.id) in ([("Query",)], [("Execute",)])
            while rows := (yield from stream.read()):
                assert len(rows) < 10
                count += len(rows)
        assert count == 1000

    with_connection(sql_server.url(), body)


def test_a_cursor_leaves_the_connection_free(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        rows = yield from fill(connection)
        yield from connection.ping()
        before = yield from counted(connection, "Com_stmt_close")
        with (yield from by_cursor(connection, "SELECT a, b FROM t")) as stream:
            with (yield from by_cursor(connection, "SELECT b, a FROM t")) as other:
                found = yield from stream.read()
                assert len(found) == 300
                assert (yield from other.read())[0] == rows[0][::-1]
                assert (yield from connection.fetch_value("SELECT ?", 7)) == 7
                assert found + (yield from all_rows(stream)) == rows
        assert not connection.closed
        assert (yield from counted(connection, "Com_stmt_close")) == before + 2

    with_connection(sql_database, body)


def counted(connection: Connection, name: str) -> Coro[int]:
    row = yield from connection.fetch_one(f"SHOW SESSION STATUS LIKE '{name}'")
    assert row is not None
    return int(row[1])


@pytest.mark.parametrize("count", [299, 300, 301])
def test_a_cursor_ends_wherever_the_last_fetch_does(sql_database: str, count: int) -> None:
    def body(connection: Connection) -> Coro[None]:
        rows = yield from fill(connection, count)
        with (yield from by_cursor(connection, "SELECT a, b FROM t")) as stream:
            assert (yield from all_rows(stream)) == rows
        assert (yield from connection.fetch_value("SELECT 7")) == 7

    with_connection(sql_database, body)


def test_a_statement_without_a_cursor_is_read_as_it_comes(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        with (yield from connection.cursor("SHOW TABLES", fetch_size=1)) as stream:
            assert (yield from all_rows(stream)) == []
        yield from fill(connection, 3)
        with (yield from connection.cursor("SHOW TABLES", fetch_size=1)) as stream:
            assert (yield from all_rows(stream)) == [("t",)]
        with (yield from connection.cursor("INSERT INTO t VALUES (?, '')", 99)) as stream:
            assert stream.columns == ()
            assert (yield from stream.read()) == []
        assert (yield from connection.fetch_value("SELECT COUNT(*) FROM t")) == 4

    with_connection(sql_database, body)


@every_answer
def test_further_results_are_passed_over(sql_database: str, open_stream: Open) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from fill(connection)
        yield from connection.execute("CREATE PROCEDURE p(n INT) BEGIN SELECT n; SELECT * FROM t; SELECT 1 / 0; END")
        call = ("CALL p(1)",) if open_stream is by_query else ("CALL p(?)", 1)
        with (yield from connection.stream(*call)) as stream:
            assert (yield from all_rows(stream)) == [(1,)]
        assert (yield from connection.fetch_value("SELECT 7")) == 7

    with_connection(sql_database, body)


@every_answer
def test_an_error_among_the_rows_ends_the_stream_and_the_connection_goes_on(
    sql_database: str, open_stream: Open
) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from fill(connection, 2000)
        sql = "SELECT a, REPEAT('x', 1000), (SELECT b.a FROM t AS b WHERE b.a = t.a OR t.a = 1999) FROM t"
        with (yield from open_stream(connection, sql)) as stream:
            with pytest.raises(DatabaseError) as caught:
                yield from all_rows(stream)
            assert caught.value.code == 1242  # the subquery returns more than one row
            assert stream.ended
        assert (yield from connection.fetch_value("SELECT 7")) == 7

    with_connection(sql_database, body)


@every_way
def test_a_cancelled_read_closes_the_connection(sql_database: str, open_stream: Open) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from fill(connection)
        with (yield from open_stream(connection, "SELECT a, b FROM t")) as stream:
            with coro.move_on_after(0) as scope:
                yield from all_rows(stream)
            assert scope.cancelled_caught
            assert connection.closed

    with_connection(sql_database, body)


@every_way
def test_an_error_at_the_start_leaves_the_connection_open(sql_database: str, open_stream: Open) -> None:
    def body(connection: Connection) -> Coro[None]:
        with pytest.raises(ProgrammingError):
            yield from open_stream(connection, "SELECT a FROM nowhere")
        assert (yield from connection.fetch_value("SELECT 7")) == 7

    with_connection(sql_database, body)


def test_a_cursor_fetches_at_least_one_row() -> None:
    with pytest.raises(ValueError, match="0 rows"):
        next(Connection.cursor(None, "SELECT 1", fetch_size=0))  # type: ignore[arg-type]


# --- Byte by byte -------------------------------------------------------------------------------------------

ID = column("id", c.MYSQL_TYPE_LONG)
MORE = AUTOCOMMIT | c.SERVER_MORE_RESULTS_EXISTS
CURSOR = AUTOCOMMIT | c.SERVER_STATUS_CURSOR_EXISTS
LAST = CURSOR | c.SERVER_STATUS_LAST_ROW_SENT


def one(number: int) -> bytes:
    return binary_row(number.to_bytes(4, "little"))


def batches(phase: CommandPhase, pieces: list[bytes]) -> list[list[Any]]:
    """What `begin_query` and then `more` give, until the end."""
    framer, remaining = phase.framer, iter(pieces)

    def run() -> Any:
        answer = yield from phase.begin_query("SELECT 1")
        found = []
        while not answer.ended:
            found.append((yield from phase.more(answer)))
        return found

    found: list[list[Any]] = play(run(), framer, remaining)[0]
    assert framer.unread == 0
    return found


def test_rows_are_given_as_soon_as_they_have_come() -> None:
    head, first, rest = packets(b"\x01", ID), packets(text_row(b"1"), first=3), packets(text_row(b"2"), first=4)
    end = packets(rows_end(), first=5)
    phase = CommandPhase(Framer(), MODERN, 0)
    assert batches(phase, [head, first, rest[:3], rest[3:] + end]) == [[(1,)], [(2,)], []]
    phase = CommandPhase(Framer(), MODERN, 0)
    assert batches(phase, [head + first + rest, end]) == [[(1,), (2,)], []]


def test_an_error_in_a_later_result_ends_the_answer() -> None:
    phase = CommandPhase(Framer(), MODERN, 0)
    answer = packets(*result_set([ID], [text_row(b"1")], MORE), err(1054, "Unknown column", "42S22"))
    with pytest.raises(ProgrammingError):
        batches(phase, [answer])
    play(phase.ping(), phase.framer, [packets(ok())])


@pytest.mark.parametrize(
    ("capabilities", "answer"), [(MODERN, [b"\x01", ID, rows_end(CURSOR)]), (OLD, [b"\x01", ID, eof(CURSOR)])]
)
def test_a_cursor_is_known_by_its_flag(capabilities: int, answer: list[bytes]) -> None:
    phase = CommandPhase(Framer(), capabilities, 0)
    opened, sent = play(phase.open_cursor(Statement("", 7, 0), ()), phase.framer, [packets(*answer)])
    assert sent == [b"\x0a\0\0\0\x17\x07\0\0\0\x01\x01\0\0\0"]
    assert opened.has_cursor
    assert not opened.ended


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_rows_that_come_without_a_cursor_are_kept(rows: int) -> None:
    phase = CommandPhase(Framer(), MODERN, CURSOR)
    pieces = [packets(*result_set([ID], [one(number) for number in range(rows)]))]
    opened, _ = play(phase.open_cursor(Statement("", 7, 0), ()), phase.framer, pieces)
    assert not opened.has_cursor
    assert opened.rows == [(number,) for number in range(rows)]
    assert opened.ended == (not rows)


def test_a_fetch_names_the_statement_and_the_number_of_rows() -> None:
    phase = CommandPhase(Framer(), MODERN, 0)
    answer, _ = play(
        phase.open_cursor(Statement("", 7, 0), ()), phase.framer, [packets(b"\x01", ID, rows_end(CURSOR))]
    )
    rows, sent = play(phase.fetch(answer, 2), phase.framer, [packets(one(1), one(2), rows_end(CURSOR))])
    assert sent == [b"\x09\0\0\0\x1c\x07\0\0\0\x02\0\0\0"]
    assert (rows, answer.ended) == ([(1,), (2,)], False)
    rows, _ = play(phase.fetch(answer, 2), phase.framer, [packets(one(3), rows_end(LAST))])
    assert (rows, answer.ended) == ([(3,)], True)


@pytest.mark.parametrize("rest", [b"", packets(rows_end(LAST), first=4)])
def test_a_fetch_that_gives_more_than_was_asked_for_is_refused(rest: bytes) -> None:
    phase = CommandPhase(Framer(), MODERN, 0)
    answer, _ = play(
        phase.open_cursor(Statement("", 7, 0), ()), phase.framer, [packets(b"\x01", ID, rows_end(CURSOR))]
    )
    with pytest.raises(ProtocolError, match="more than the 2 rows"):
        play(phase.fetch(answer, 2), phase.framer, [packets(one(1), one(2), one(3)) + rest])


def test_a_fetch_that_gives_nothing_and_does_not_end_is_refused() -> None:
    phase = CommandPhase(Framer(), MODERN, 0)
    answer, _ = play(
        phase.open_cursor(Statement("", 7, 0), ()), phase.framer, [packets(b"\x01", ID, rows_end(CURSOR))]
    )
    with pytest.raises(ProtocolError, match="no rows"):
        play(phase.fetch(answer, 2), phase.framer, [packets(rows_end(CURSOR))])
