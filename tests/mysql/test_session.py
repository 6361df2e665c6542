"""What a session holds, and how it is made new or another user's."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

import coro
from coro import Coro
from coro.mysql import Connection, OperationalError, ProgrammingError
from tests.mysql.sessions import create_user, with_connection
from tests.services import SQLServer


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
        ("SELECT ':', 'user at @home', 'BLOCK TABLES', 'the role of a transaction'", False),
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


# --- Another user -------------------------------------------------------------------------------------------

PLUGINS = [
    ("mariadb", "VIA mysql_native_password USING PASSWORD('pw')"),
    ("mariadb", "VIA ed25519 USING PASSWORD('pw')"),
    pytest.param("mysql9", "WITH caching_sha2_password BY 'pw'", marks=pytest.mark.mysql9),
    pytest.param("mysql9", "WITH sha256_password BY 'pw'", marks=pytest.mark.mysql9),
    pytest.param("mariadb11", "VIA parsec USING PASSWORD('pw')", marks=pytest.mark.mariadb11),
]


@pytest.mark.parametrize(("name", "how"), PLUGINS)
def test_a_session_can_become_another_users(request: pytest.FixtureRequest, name: str, how: str) -> None:
    server: SQLServer = request.getfixturevalue(name)
    user = create_user(server, "pw", how)
    start = "SELECT CURRENT_USER(), DATABASE(), @a, @@character_set_client, @@autocommit"

    def body(connection: Connection) -> Coro[None]:
        before = connection.id
        yield from connection.execute("SET @a = 1")
        assert (yield from connection.fetch_value("SELECT ?", 1)) == 1
        for _ in range(2):
            yield from connection.change_user(user, "pw")
            assert (yield from connection.fetch_one(start)) == (f"{user}@%", None, None, "utf8mb4", 1)
            assert (yield from connection.fetch_value("SELECT ?", 2)) == 2
        yield from connection.change_user("root", database="mysql")
        row = yield from connection.fetch_one(start)
        assert row is not None
        assert row[1] == "mysql"
        assert not connection.session_changed
        assert (yield from connection.fetch_value("SELECT CONNECTION_ID()")) == connection.id == before

    with_connection(server.url("mysql"), body)


def test_a_user_who_is_refused_ends_the_session(sql_server: SQLServer) -> None:
    user = create_user(sql_server, "right")

    def body(connection: Connection) -> Coro[None]:
        with pytest.raises(OperationalError, match="Access denied") as caught:
            yield from connection.change_user(user, "wrong")
        assert caught.value.code == 1045
        assert connection.closed

    with_connection(sql_server.url(), body)


def test_a_server_knows_what_program_is_connected(own_sql_server: Callable[..., SQLServer]) -> None:
    server = own_sql_server("--performance-schema=ON")
    sql = "SELECT attr_name, attr_value FROM performance_schema.session_connect_attrs"
    sql += " WHERE processlist_id = CONNECTION_ID()"
    found = with_connection(server.url(), lambda connection: connection.fetch_all(sql))
    attributes: dict[str, str] = dict(found)
    assert attributes["_client_name"] == "coro"
    assert attributes["_client_version"] == coro.__version__
    assert attributes["_pid"] == str(os.getpid())
    assert attributes["program_name"] == os.path.basename(sys.argv[0])
