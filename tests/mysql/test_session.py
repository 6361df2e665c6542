"""What a session holds, and how it is made new or another user's."""

from __future__ import annotations

import pytest

from coro import Coro
from coro.mysql import Connection, ProgrammingError
from tests.mysql.sessions import with_connection


def test_reset_undoes_what_a_session_has_set_and_left_open(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT)")
        yield from connection.execute("SET @a = 1, sql_mode = ''")
        yield from connection.execute("CREATE TEMPORARY TABLE temporary (a INT)")
        assert (yield from connection.fetch_value("SELECT GET_LOCK(?, 0)", sql_database)) == 1
        yield from connection.execute("START TRANSACTION")
        yield from connection.execute("INSERT INTO t VALUES (?)", 1)
        yield from connection.reset()
        assert not connection.in_transaction
        assert (yield from connection.fetch_value("SELECT COUNT(*) FROM t")) == 0
        assert (yield from connection.fetch_value("SELECT @a")) is None
        assert (yield from connection.fetch_value("SELECT @@sql_mode")) != ""
        assert (yield from connection.fetch_value("SELECT IS_FREE_LOCK(?)", sql_database)) == 1
        with pytest.raises(ProgrammingError, match="temporary"):
            yield from connection.execute("SELECT * FROM temporary")
        names = "SELECT @@character_set_client, @@character_set_results, @@autocommit"
        assert (yield from connection.fetch_one(names)) == ("utf8mb4", "utf8mb4", 1)

    with_connection(sql_database, body)


def test_a_statement_can_be_used_again_after_reset(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        assert (yield from connection.fetch_value("SELECT ?", 1)) == 1
        yield from connection.reset()
        assert (yield from connection.fetch_value("SELECT ?", 2)) == 2

    with_connection(sql_database, body)


@pytest.mark.parametrize(
    ("sql", "changes"),
    [
        ("SELECT 1", False),
        ("INSERT INTO t VALUES (1)", False),
        ("SET @a = 1", True),
        ("SET sql_mode = ''", True),
        ("USE mysql", True),
        ("CREATE TEMPORARY TABLE temporary (a INT)", True),
    ],
)
def test_a_connection_knows_whether_reset_has_something_to_undo(sql_database: str, sql: str, changes: bool) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT)")
        assert (yield from connection.fetch_value("SELECT ?", 1)) == 1
        assert not connection.session_changed
        yield from connection.execute(sql)
        assert connection.session_changed == changes
        assert (yield from connection.fetch_value("SELECT ?", 1)) == 1
        assert connection.session_changed == changes
        yield from connection.reset()
        assert not connection.session_changed

    with_connection(sql_database, body)
