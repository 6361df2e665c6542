"""A pool lends sessions that are alive, not too old, and as good as new."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import coro
from coro import Coro
from coro.mysql import Connection, DatabaseError, OperationalError, Pool, ProgrammingError
from coro.mysql import pool as pool_module
from tests.mysql.sessions import create_user, is_gone, through, until, with_pool
from tests.proxy import Proxy
from tests.services import SQLServer

SESSION = "SELECT CONNECTION_ID()"
PING = b"\x01\0\0\0\x0e"  # COM_PING


# --- Age and idleness ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limits", "opened"), [({}, 1), ({"max_age": 0.0}, 3), ({"max_idle": 0.0}, 3)], ids=str)
def test_a_connection_that_is_too_old_or_was_idle_for_too_long_is_replaced(
    mariadb: SQLServer, limits: dict[str, Any], opened: int
) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        for _ in range(3):
            yield from pool.execute("DO 1")
        assert proxy.connections == opened

    through(mariadb, body, **limits)


def test_idle_connections_are_closed_when_their_time_is_up_though_nobody_asks(sql_server: SQLServer) -> None:
    def body(pool: Pool) -> Coro[None]:
        def pause(connection: Connection) -> Coro[int]:
            yield from connection.execute("DO SLEEP(0.05)")
            return int((yield from connection.fetch_value(SESSION)))

        sessions = yield from coro.gather(*[pool.lend(pause) for _ in range(3)])
        assert len(set(sessions)) == 3
        for session in sessions:
            yield from until(functools.partial(is_gone, sql_server, session))
        assert "0 idle" in repr(pool)
        assert (yield from pool.fetch_value("SELECT 7")) == 7

    with_pool(sql_server.url(), body, max_idle=0.05)


# --- Dead ones ----------------------------------------------------------------------------------------------


def test_a_session_that_the_server_ended_for_being_idle_is_replaced_before_it_is_used(
    own_sql_server: Callable[..., SQLServer],
) -> None:
    """MySQL says 4031 ahead of its end, MariaDB only ends."""
    server = own_sql_server("--init-connect=SET wait_timeout = 2")  # which is not for root
    user = create_user(server, "secret")

    def begin(pool: Pool) -> Coro[int]:
        """The number of a session which the server has not ended before its first statement came."""
        while True:
            with suppress(OperationalError):
                return int((yield from pool.fetch_value(SESSION)))

    def body(pool: Pool) -> Coro[None]:
        session = yield from begin(pool)
        server.sql("SET GLOBAL init_connect = ''")  # for the next
        yield from until(functools.partial(is_gone, server, session))
        assert (yield from pool.fetch_value(SESSION)) != session

    with_pool(server.url(user=user, password="secret"), body, size=1)


def test_a_server_that_vanished_is_asked_for_a_sign_of_life_after_long_idleness(
    mariadb: SQLServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "PING_TIMEOUT", 0.05)

    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        yield from coro.gather(*[pool.execute("DO SLEEP(0.05)") for _ in range(3)])
        assert proxy.connections == 3
        proxy.hold_replies(old=True)
        monkeypatch.setattr(pool_module, "PING_AFTER", 0.0)
        assert (yield from pool.fetch_value("SELECT 7")) == 7
        assert proxy.connections == 4
        assert proxy.requests.count(PING) == 1  # in vain; with the other two connections it was not even tried
        assert "1 idle" in repr(pool)

    through(mariadb, body, size=3)


def test_a_server_that_answers_the_ping_is_used_again(mariadb: SQLServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "PING_AFTER", 0.0)

    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        for _ in range(3):
            yield from pool.execute("DO 1")
        assert proxy.connections == 1
        assert proxy.requests.count(PING) == 2

    through(mariadb, body)


# --- As good as new ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leave", "look", "clean"),
    [
        ("SET @a = 1", "SELECT @a", None),
        ("SELECT @a := 1", "SELECT @a", None),
        ("SELECT 1 INTO @a", "SELECT @a", None),
        ("SELECT 1 INTO /* a */\n @a", "SELECT @a", None),
        ("SET SESSION lock_wait_timeout = 7", "SELECT @@lock_wait_timeout = 7", 0),
        ("SET NAMES latin1", "SELECT @@character_set_client", "utf8mb4"),
        ("SET autocommit = 0", "SELECT @@autocommit", 1),
        ("USE information_schema", "SELECT DATABASE() = 'information_schema'", 0),
        ("SELECT GET_LOCK('l', 0)", "SELECT IS_USED_LOCK('l')", None),
        ("LOCK  TABLES t READ", "INSERT INTO t VALUES (1)", None),
        ("SET  TRANSACTION READ ONLY", "INSERT INTO t VALUES (1)", None),
        ("CALL p()", "SELECT @a", None),
        ("SELECT f()", "SELECT @a", None),
        ("START TRANSACTION", "SELECT COUNT(*) FROM t", 0),
    ],
)
def test_what_one_user_leaves_in_the_session_the_next_does_not_find(
    sql_server: SQLServer, leave: str, look: str, clean: object
) -> None:
    def make_a_mess(connection: Connection) -> Coro[None]:
        yield from connection.execute(leave)
        if leave == "START TRANSACTION":
            yield from connection.execute("INSERT INTO t VALUES (1)")

    def body(pool: Pool) -> Coro[None]:
        session = yield from pool.fetch_value(SESSION)
        yield from pool.lend(make_a_mess)
        assert (yield from pool.fetch_value(look)) == clean
        if not leave.startswith("USE"):  # which a reset does not undo
            assert (yield from pool.fetch_value(SESSION)) == session

    with sql_server.database() as name:
        sql_server.sql("SET GLOBAL log_bin_trust_function_creators = 1")
        sql_server.sql("CREATE TABLE t (a INT)", database=name)
        sql_server.sql("CREATE PROCEDURE p() BEGIN SET @a = 1; END", database=name)
        sql_server.sql("CREATE FUNCTION f() RETURNS INT BEGIN SET @a = 1; RETURN 1; END", database=name)
        with_pool(sql_server.url(name), body, size=1)


def test_a_session_that_was_changed_and_whose_user_failed_is_not_lent_again(sql_server: SQLServer) -> None:
    def fail(connection: Connection) -> Coro[None]:
        yield from connection.execute("SET @a = 1")
        raise ValueError("the program's own")

    def body(pool: Pool) -> Coro[None]:
        with pytest.raises(ValueError, match="the program's own"):
            yield from pool.lend(fail)
        assert (yield from pool.fetch_value("SELECT @a")) is None

    with_pool(sql_server.url(), body, size=1)


def test_a_session_that_became_another_users_is_not_lent_again(sql_server: SQLServer) -> None:
    user = create_user(sql_server, "secret")

    def become(connection: Connection) -> Coro[None]:
        yield from connection.change_user(user, "secret")

    def body(pool: Pool) -> Coro[None]:
        yield from pool.lend(become)
        assert str((yield from pool.fetch_value("SELECT CURRENT_USER()"))).startswith("root@")

    with_pool(sql_server.url(), body, size=1)


def test_a_session_with_a_role_of_its_users_choice_is_not_lent_again(sql_server: SQLServer) -> None:
    def body(pool: Pool) -> Coro[None]:
        role = yield from pool.fetch_value("SELECT CURRENT_ROLE()")
        yield from pool.execute("SET ROLE reader")
        assert (yield from pool.fetch_value("SELECT CURRENT_ROLE()")) == role  # which a reset does not undo

    sql_server.sql("CREATE ROLE IF NOT EXISTS reader")
    sql_server.sql("GRANT reader TO root@'%'")
    with_pool(sql_server.url(), body, size=1)


def test_a_session_that_nothing_was_left_in_is_not_reset_and_keeps_its_statements(sql_server: SQLServer) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        for _ in range(3):
            yield from pool.execute(f"INSERT INTO {name}.t VALUES (?)", 1)
            yield from pool.transaction(work)
            yield from pool.fetch_all(f"SELECT * FROM {name}.t WHERE a = ?", 1)
        assert proxy.requests.count(b"\x01\0\0\0\x1f") == 0  # COM_RESET_CONNECTION
        assert proxy.requests.count(b"\x16INSERT") + proxy.requests.count(b"\x16SELECT") == 2  # COM_STMT_PREPARE
        yield from pool.execute("SET @a = 1")
        assert proxy.requests.count(b"\x01\0\0\0\x1f") == 1

    def work(connection: Connection) -> Coro[None]:
        yield from connection.execute(f"INSERT INTO {name}.t VALUES (?)", 1)

    with sql_server.database() as name:
        sql_server.sql("CREATE TABLE t (a INT)", database=name)
        through(sql_server, body)


def test_a_reset_that_fails_costs_the_connection_and_not_the_result(mariadb: SQLServer) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        yield from pool.execute("DO 1")

        def use(connection: Connection) -> Coro[int]:
            yield from connection.execute("SET @a = 1")
            proxy.cut_after = len(proxy.replies)
            return 5

        assert (yield from pool.lend(use)) == 5
        assert (yield from pool.fetch_value("SELECT 7")) == 7
        assert proxy.connections == 2

    through(mariadb, body)


# --- Streams ------------------------------------------------------------------------------------------------


NUMBERS = "WITH RECURSIVE n AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM n WHERE a < 1000) SELECT a FROM n"


@pytest.mark.parametrize("how", ["stream", "cursor"])
def test_a_stream_holds_its_connection_until_it_is_closed(sql_server: SQLServer, how: str) -> None:
    def body(pool: Pool) -> Coro[None]:
        session = yield from pool.fetch_value(SESSION)
        numbers: list[int] = []
        with (yield from getattr(pool, how)(NUMBERS)) as stream:
            assert stream.columns[0].name == "a"
            assert "1 of 1 connections lent" in repr(pool)
            while rows := (yield from stream.read()):
                numbers += [number for (number,) in rows]
        assert numbers == list(range(1, 1001))
        assert "0 of 1 connections lent, 1 idle" in repr(pool)
        stream.close()
        assert "0 of 1 connections lent, 1 idle" in repr(pool)
        assert (yield from pool.fetch_value(SESSION)) == session

    with_pool(sql_server.url(), body, size=1)


@pytest.mark.parametrize(("how", "idle"), [("stream", 0), ("cursor", 1)])
def test_a_stream_left_in_the_middle_takes_no_slot_with_it(sql_server: SQLServer, how: str, idle: int) -> None:
    def body(pool: Pool) -> Coro[None]:
        for _ in range(3):
            options = {"fetch_size": 10} if how == "cursor" else {}
            stream = yield from getattr(pool, how)(f"SELECT a.a FROM ({NUMBERS}) a CROSS JOIN ({NUMBERS}) b", **options)
            with pytest.raises(ValueError), stream:
                assert (yield from stream.read())
                raise ValueError
            assert f"0 of 1 connections lent, {idle} idle" in repr(pool)
            assert (yield from pool.fetch_value("SELECT 7")) == 7

    with_pool(sql_server.url(), body, size=1)


def test_a_stream_that_its_user_forgets_does_not_reach_the_next(sql_server: SQLServer) -> None:
    def body(pool: Pool) -> Coro[None]:
        stream = yield from pool.lend(lambda connection: connection.stream(f"SELECT a.a FROM ({NUMBERS}) a"))
        assert not stream.ended
        assert (yield from pool.fetch_value("SELECT 7")) == 7

    with_pool(sql_server.url(), body, size=1)


@pytest.mark.parametrize("how", ["stream", "cursor"])
def test_a_stream_that_cannot_begin_takes_no_slot_with_it(sql_server: SQLServer, how: str) -> None:
    def body(pool: Pool) -> Coro[None]:
        for _ in range(3):
            with pytest.raises(DatabaseError):
                yield from getattr(pool, how)("SELECT nonsense FROM nowhere.t")
            assert "0 of 1 connections lent, 1 idle" in repr(pool)

    with_pool(sql_server.url(), body, size=1)


# --- Rows as dicts ------------------------------------------------------------------------------------------


def test_rows_can_be_had_as_dicts(sql_server: SQLServer) -> None:
    def body(pool: Pool) -> Coro[None]:
        rows = yield from pool.fetch_dicts("SELECT 1 AS a, 'x' AS b UNION SELECT 2, ?", "y")
        assert rows == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
        with pytest.raises(ProgrammingError, match="two columns are called 'a'"):
            yield from pool.fetch_dicts("SELECT 1 AS a, 2 AS a")
        assert (yield from pool.fetch_all("SELECT 1 AS a, 2 AS a")) == [(1, 2)]

    with_pool(sql_server.url(), body)
