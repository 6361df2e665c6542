"""A cancelled statement: the server is told, when that is asked for, and nothing innocent is hit."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import pytest

import coro
from coro import Coro, TaskGroup
from coro.mysql import Connection, Pool
from coro.mysql import pool as pool_module
from tests.mysql.sessions import is_gone, through, until, with_pool
from tests.proxy import Proxy
from tests.services import MariaDBServer, SQLServer

SESSION = "SELECT CONNECTION_ID()"
KILL = b"KILL QUERY"


def is_asleep(server: SQLServer, session: int) -> bool:
    """Whether the session is in the middle of a `DO SLEEP`."""
    asleep = "SELECT 1 FROM information_schema.processlist WHERE info LIKE 'DO SLEEP(%%' AND id = %s"
    return bool(server.sql(asleep, session))


def is_awake(server: SQLServer, session: int) -> bool:
    """Whether it is not, or has ended."""
    return not is_asleep(server, session)


@pytest.mark.parametrize("parameters", [(), (1000,)], ids=["text", "prepared"])
def test_a_cancelled_statement_is_killed_and_its_slot_is_free_at_once(
    sql_server: SQLServer, parameters: tuple[int, ...]
) -> None:
    def body(pool: Pool) -> Coro[None]:
        def group(group: TaskGroup) -> Coro[None]:
            session = yield from pool.fetch_value(SESSION)
            task = group.spawn(pool.execute("DO SLEEP(?)" if parameters else "DO SLEEP(1000)", *parameters))
            yield from until(functools.partial(is_asleep, sql_server, session))
            task.cancel()
            assert (yield from pool.fetch_value("SELECT 7")) == 7
            yield from until(functools.partial(is_awake, sql_server, session))

        yield from coro.task_group(group)
        assert "0 of 1 connections lent" in repr(pool)

    with_pool(sql_server.url(), body, size=1, kill_cancelled=True)


def test_a_statement_that_takes_too_long_inside_a_transaction_is_killed(sql_server: SQLServer) -> None:
    def work(connection: Connection) -> Coro[None]:
        yield from connection.execute("INSERT INTO t VALUES (1)")
        with coro.timeout(0.2):
            yield from connection.execute("DO SLEEP(1000)")

    def body(pool: Pool) -> Coro[None]:
        session = yield from pool.fetch_value(SESSION)
        with pytest.raises(TimeoutError):
            yield from pool.transaction(work)
        yield from until(functools.partial(is_awake, sql_server, session))
        yield from pool.execute("INSERT INTO t VALUES (2)")
        assert (yield from pool.fetch_all("SELECT a FROM t")) == [(2,)]

    with sql_server.database() as name:
        sql_server.sql("CREATE TABLE t (a INT PRIMARY KEY)", database=name)
        with_pool(sql_server.url(name), body, size=1, kill_cancelled=True)


def test_nothing_is_killed_unless_that_is_asked_for(mariadb: SQLServer) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        session = yield from pool.fetch_value(SESSION)
        with coro.move_on_after(0.05):
            yield from pool.execute("DO SLEEP(0.2)")
        yield from pool.execute("DO 1")
        yield from until(functools.partial(is_awake, mariadb, session))
        assert KILL not in proxy.requests

    through(mariadb, body)


def test_what_is_cancelled_after_its_answer_has_come_is_not_killed(mariadb: SQLServer) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        def group(group: TaskGroup) -> Coro[None]:
            task = group.spawn(pool.fetch_value("SELECT 'mine'"))
            while not proxy.kept:  # the answer has come as far as the proxy
                yield from coro.checkpoint()
            task.cancel()
            with pytest.raises(coro.TaskCancelled):
                yield from task.join()
            proxy.release_replies()

        yield from pool.execute("DO 1")
        proxy.hold_replies(old=True)
        yield from coro.task_group(group)
        yield from pool.execute("DO SLEEP(0.05)")
        assert proxy.connections == 3  # one of them came to kill, and saw that it was over
        assert KILL not in proxy.requests

    through(mariadb, body, kill_cancelled=True)


def test_a_session_that_ended_meanwhile_is_not_killed_as_its_number_may_be_anothers(
    own_mariadb: Callable[..., MariaDBServer],
) -> None:
    server = own_mariadb()
    server.sql("CREATE DATABASE d")

    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        def group(group: TaskGroup) -> Coro[None]:
            session = yield from pool.fetch_value(SESSION)
            task = group.spawn(pool.execute("DO SLEEP(1000)"))
            yield from until(functools.partial(is_asleep, server, session))
            proxy.cut()
            task.cancel()
            yield from pool.execute("DO SLEEP(0.05)")

        yield from coro.task_group(group)
        assert KILL not in proxy.requests

    through(server, body, kill_cancelled=True)


def test_a_kill_that_gets_no_answer_blocks_nobody_and_is_given_up(
    mariadb: SQLServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool_module, "KILL_TIMEOUT", 0.1)

    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        session = yield from pool.fetch_value(SESSION)
        proxy.hold_replies()
        with coro.move_on_after(0.05):
            yield from pool.execute("DO SLEEP(0.01)")
        assert "0 of 1 connections lent, 0 idle" in repr(pool)
        while not caplog.records:
            yield from coro.sleep(0.01)
        proxy.release_replies()
        assert (yield from pool.fetch_value("SELECT 7")) == 7
        yield from until(functools.partial(is_gone, mariadb, session))
        assert f"cannot kill the statement of session {session}" in caplog.text

    with caplog.at_level(logging.WARNING, "coro.mysql"):
        through(mariadb, body, kill_cancelled=True)
