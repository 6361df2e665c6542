"""A connection that is cut at any byte of what the server says: an error in time, never a wrong answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import coro
from coro import Coro
from coro.mysql import Connection, Error, RowStream, connect
from tests.mysql.sessions import create_user
from tests.proxy import Proxy, through_proxy
from tests.services import SQLServer

ROWS = [(0, ""), (1, "one"), (2, "x" * 260)]
SELECT = "SELECT 0 AS a, '' AS b UNION ALL SELECT 1, 'one' UNION ALL SELECT 2, REPEAT('x', 260)"
FROM = f"SELECT * FROM ({SELECT}) AS t WHERE a >= ?"


def log_in(connection: Connection) -> Coro[None]:
    yield from coro.checkpoint()


def query(connection: Connection) -> Coro[None]:
    assert (yield from connection.fetch_all(SELECT)) == ROWS


def prepare_and_execute(connection: Connection) -> Coro[None]:
    assert (yield from connection.fetch_all(FROM, 1)) == ROWS[1:]


def read_all(stream: RowStream) -> Coro[list[Any]]:
    found = []
    while rows := (yield from stream.read()):
        found += rows
    return found


def read_piece_by_piece(connection: Connection) -> Coro[None]:
    with (yield from connection.stream(SELECT)) as stream:
        assert (yield from read_all(stream)) == ROWS


def read_by_cursor(connection: Connection) -> Coro[None]:
    with (yield from connection.cursor(FROM, 0, fetch_size=2)) as stream:
        assert (yield from read_all(stream)) == ROWS


def call(connection: Connection) -> Coro[None]:
    assert [result.rows for result in (yield from connection.results("CALL p(?)", 1))] == [[(1,)], [(2,)], []]


def reset_and_ping(connection: Connection) -> Coro[None]:
    yield from connection.reset()
    yield from connection.ping()


def change_user(connection: Connection) -> Coro[None]:
    yield from connection.change_user("root")


STEPS: list[tuple[Callable[[Connection], Coro[None]], Callable[[Connection], Coro[None]]]] = [
    (log_in, query),
    (log_in, prepare_and_execute),
    (prepare_and_execute, prepare_and_execute),  # the statement, and the columns of its rows, are known by now
    (log_in, read_piece_by_piece),
    (log_in, read_by_cursor),
    (log_in, call),
    (log_in, reset_and_ping),
    (log_in, change_user),
]


@pytest.mark.parametrize("options", ["tls=disabled", "tls=disabled&compress=zlib"])
@pytest.mark.parametrize(("before", "step"), STEPS, ids=lambda step: step.__name__)
def test_an_answer_is_cut_at_every_byte(
    mariadb: SQLServer,
    before: Callable[[Connection], Coro[None]],
    step: Callable[[Connection], Coro[None]],
    options: str,
) -> None:
    with mariadb.database() as name:
        mariadb.sql(f"CREATE PROCEDURE {name}.p(n INT) BEGIN SELECT n; SELECT n + 1; END")

        def through(proxy: Proxy) -> Coro[int]:
            url = f"mysql://root@127.0.0.1:{proxy.port}/{name}?{options}"
            cut = 0
            while True:
                connection = yield from connect(url)
                yield from before(connection)
                proxy.cut_after = len(proxy.replies) + cut
                try:
                    with coro.timeout(100):
                        yield from step(connection)
                except Error as error:
                    assert (error.code, connection.closed) == (2013, True), f"cut at byte {cut}: {error}"
                else:  # all of the answer had come
                    connection.close()
                    return cut
                cut += 1
                proxy.replies.clear()
                proxy.requests.clear()

        assert coro.run(through_proxy(mariadb.port, through)) > 10


@pytest.mark.parametrize(
    ("options", "step", "codes"),
    [("tls=disabled", 1, {2013}), ("tls=required", 23, {2013, 2026})],  # 2026 where TLS was being agreed on
)
def test_a_login_is_cut_at_every_byte(mariadb: SQLServer, options: str, step: int, codes: set[int]) -> None:
    user = create_user(mariadb, "secret", "VIA ed25519 USING PASSWORD('secret')")  # the plugin is switched to

    def through(proxy: Proxy) -> Coro[None]:
        url = f"mysql://{user}:secret@127.0.0.1:{proxy.port}/?{options}"
        connection = yield from connect(url)
        size = len(proxy.replies)
        connection.close()
        for cut in range(0, size - 10, step):
            proxy.replies.clear()
            proxy.cut_after = cut
            with coro.timeout(100), pytest.raises(Error) as caught:
                yield from connect(url)
            assert caught.value.code in codes, f"cut at byte {cut} of {size}: {caught.value}"

    coro.run(through_proxy(mariadb.port, through))
