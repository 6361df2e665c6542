"""A pool interrupted wherever it can be: cancelled at every step, out of time at every stage, cut at every byte."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

import pytest

import coro
from coro import Coro, TaskGroup
from coro.mysql import Connection, OperationalError, Pool
from coro.task import CancelScope
from tests.mysql.sessions import through, with_pool
from tests.proxy import Proxy
from tests.services import SQLServer

Operation = Callable[[Pool], Coro[object]]


def interrupted(generator: Coro[Any], step: int, interrupt: Callable[[], object]) -> Coro[Any]:
    """Runs `generator`, and calls `interrupt` when it waits for the `step`th time (counted from 1)."""
    advance: Callable[[], Any] = functools.partial(next, generator)
    while True:
        try:
            request = advance()
        except StopIteration as stop:
            return stop.value
        step -= 1
        if step == 0:
            interrupt()
        try:
            value = yield request
        except BaseException as error:
            advance = functools.partial(generator.throw, error)
        else:
            advance = functools.partial(generator.send, value)


def is_whole(pool: Pool) -> bool:
    return "0 of" in repr(pool)


# --- Cancelled ------------------------------------------------------------------------------------------------


def text(pool: Pool) -> Coro[object]:
    return pool.fetch_value("SELECT 'cancelled'")


def prepared(pool: Pool) -> Coro[object]:
    return pool.fetch_value("SELECT ?", "cancelled")


def many(pool: Pool) -> Coro[object]:
    return pool.execute_many("UPDATE t SET b = ? WHERE a = ?", [(1, 1), (2, 2)])


def changing(pool: Pool) -> Coro[object]:
    return pool.execute("SET @a = 1")


def transaction(pool: Pool) -> Coro[object]:
    def work(connection: Connection) -> Coro[None]:
        yield from connection.execute("UPDATE t SET b = b + 1 WHERE a = ?", 1)
        yield from connection.fetch_all("SELECT * FROM t WHERE a = ?", 1)

    return pool.transaction(work, attempts=3)


def streaming(pool: Pool) -> Coro[None]:
    with (yield from pool.stream("SELECT 1 UNION ALL SELECT 2")) as stream:
        while (yield from stream.read()):
            pass


def through_a_cursor(pool: Pool) -> Coro[None]:
    with (yield from pool.cursor("SELECT 1 UNION ALL SELECT 2", fetch_size=1)) as stream:
        while (yield from stream.read()):
            pass


@pytest.mark.parametrize("kill", [False, True], ids=["", "kill"])
@pytest.mark.parametrize("operation", [text, prepared, many, changing, transaction, streaming, through_a_cursor])
def test_cancelled_at_any_step_the_next_query_gets_its_own_answer(
    sql_server: SQLServer, operation: Operation, kill: bool
) -> None:
    def body(pool: Pool) -> Coro[None]:
        for step in range(1, 1000):
            with CancelScope() as scope:
                yield from interrupted(operation(pool), step, scope.cancel)
            assert is_whole(pool)
            assert (yield from pool.fetch_value("SELECT ?", f"asked {step}")) == f"asked {step}"
            assert is_whole(pool)
            if not scope.cancelled_caught and step > 10:
                return

    with sql_server.database() as name:
        sql_server.sql("CREATE TABLE t (a INT PRIMARY KEY, b INT)", database=name)
        with_pool(sql_server.url(name), body, size=1, kill_cancelled=kill)


@pytest.mark.parametrize("operation", [text, prepared, changing])
def test_abandoned_at_any_step_the_next_query_gets_its_own_answer(mariadb_database: str, operation: Operation) -> None:
    """The generator is closed, as by a caller that drives it by hand and loses interest."""

    def abandon(generator: Generator[Any, Any, object], step: int) -> Coro[bool]:
        for _ in range(step):
            try:
                request = next(generator)
            except StopIteration:
                return False
            yield request
        generator.close()
        return True

    def body(pool: Pool) -> Coro[None]:
        for step in range(1, 1000):
            gave_up = yield from abandon(operation(pool), step)
            assert is_whole(pool)
            assert (yield from pool.fetch_value("SELECT ?", f"asked {step}")) == f"asked {step}"
            if not gave_up:
                return

    with_pool(mariadb_database, body, size=1, kill_cancelled=True)


def sleeping_lend(pool: Pool) -> Coro[object]:
    return pool.lend(lambda connection: coro.sleep_forever())


def sleeping_statement(pool: Pool) -> Coro[object]:
    return pool.execute("DO SLEEP(0.5)")


def sleeping_stream(pool: Pool) -> Coro[object]:
    return pool.stream("SELECT SLEEP(0.5)")


@pytest.mark.parametrize("operation", [sleeping_lend, sleeping_statement, sleeping_stream])
def test_what_is_abandoned_when_the_loop_has_ended_closes_its_connection(
    mariadb: SQLServer, operation: Operation
) -> None:
    def body(pool: Pool) -> Coro[Generator[Any, Any, object]]:
        yield from pool.execute("DO 1")
        generator = operation(pool)
        next(generator)  # it waits for the statement's answer, or sleeps
        return generator

    def main() -> Coro[tuple[Pool, Generator[Any, Any, object]]]:
        pool = Pool(mariadb.url(), kill_cancelled=True)
        return pool, (yield from body(pool))

    pool, generator = coro.run(main())
    generator.close()
    assert "0 of 16 connections lent, 0 idle" in repr(pool)


def test_no_slot_is_lost_in_ten_thousand_rounds_of_cancellation(mariadb_database: str) -> None:
    dice = random.Random(0)
    steps = [1] * 8 + [2, 3, 4, 100]  # most of them while they wait for a connection

    def ask(pool: Pool, number: int) -> Coro[None]:
        with CancelScope() as scope:
            answer = yield from interrupted(pool.fetch_value("SELECT ?", number), dice.choice(steps), scope.cancel)
            assert answer == number

    def body(pool: Pool) -> Coro[None]:
        for _ in range(100):
            yield from coro.gather(*[ask(pool, number) for number in range(100)])
            assert is_whole(pool)
        assert (yield from coro.gather(*[pool.fetch_value("SELECT ?", n) for n in range(9)])) == list(range(9))

    with_pool(mariadb_database, body, size=3)


def test_a_second_cancellation_while_the_first_one_is_cleaned_up_loses_nothing(mariadb: SQLServer) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        def group(group: TaskGroup) -> Coro[None]:
            task = group.spawn(pool.transaction(lambda connection: connection.execute("DO SLEEP(0.2)")))
            while b"SLEEP" not in proxy.requests:
                yield from coro.checkpoint()
            for _ in range(3):
                task.cancel()
                yield from coro.checkpoint()
            assert (yield from pool.fetch_value("SELECT 7")) == 7

        yield from coro.task_group(group)
        assert is_whole(pool)

    through(mariadb, body, kill_cancelled=True)


# --- Out of time ----------------------------------------------------------------------------------------------


def test_one_deadline_holds_while_all_connections_are_taken(mariadb: SQLServer) -> None:
    def body(pool: Pool) -> Coro[None]:
        def use(connection: Connection) -> Coro[None]:
            with pytest.raises(TimeoutError), coro.timeout(0.05):
                yield from pool.execute("DO 1")

        yield from pool.lend(use)
        assert is_whole(pool)

    with_pool(mariadb.url(), body, size=1)


def test_one_deadline_holds_while_the_server_does_not_greet() -> None:
    def body() -> Coro[None]:
        with closing(coro.listen("127.0.0.1", 0)) as silent:
            pool = Pool(f"mysql://root@127.0.0.1:{silent.port}/", size=1)
            with pytest.raises(TimeoutError), coro.timeout(0.05):
                yield from pool.execute("DO 1")
            assert is_whole(pool)
            pool.close()

    coro.run(body())


@pytest.mark.parametrize("stage", [1, 2, 3, 4], ids=["login", "settings", "prepare", "execute"])
def test_one_deadline_holds_while_the_server_does_not_answer(mariadb: SQLServer, stage: int) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        def hold() -> None:
            proxy.hold_replies()

        with pytest.raises(TimeoutError), coro.timeout(0.2):
            yield from interrupted(pool.fetch_value("SELECT ?", 1), 1 + stage, hold)
        assert is_whole(pool)
        proxy.release_replies()
        assert (yield from pool.fetch_value("SELECT ?", 7)) == 7

    through(mariadb, body)


# --- Cut --------------------------------------------------------------------------------------------------------


ROWS = "SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, NULL UNION ALL SELECT 3, 'z'"


def fetch_text(pool: Pool) -> Coro[object]:
    return pool.fetch_all(ROWS)


def fetch_prepared(pool: Pool) -> Coro[object]:
    return pool.fetch_all(f"SELECT * FROM ({ROWS}) AS t WHERE a < ?", 9)


@pytest.mark.parametrize("operation", [fetch_text, fetch_prepared])
def test_a_result_cut_at_any_byte_is_an_error_and_the_next_query_gets_its_own_answer(
    mariadb: SQLServer, operation: Operation
) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        yield from pool.execute("DO 1")
        before = len(proxy.replies)
        assert (yield from operation(pool)) == [(1, "x"), (2, None), (3, "z")]
        whole = len(proxy.replies) - before
        for cut in range(whole):
            yield from pool.execute("DO 1")  # logs in where the last round has cost the connection
            proxy.cut_after = len(proxy.replies) + cut
            with pytest.raises(OperationalError) as caught:
                yield from operation(pool)
            assert (caught.value.code, caught.value.outcome_unknown) == (2013, True)
            assert is_whole(pool)

    through(mariadb, body)
