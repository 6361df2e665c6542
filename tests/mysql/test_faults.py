"""A connection that is cut at any byte of what the server says: an error in time, never a wrong answer."""

from __future__ import annotations

import pytest

import coro
from coro import Coro
from coro.mysql import Connection, Error, connect
from tests.mysql.sessions import create_user
from tests.proxy import Proxy, through_proxy
from tests.services import SQLServer

ROWS = [(0, ""), (1, "one"), (2, "x" * 260), (3, "three")]


def everything(url: str) -> Coro[Connection]:
    """Logs in and asks in every way; each answer that comes is right."""
    connection = yield from connect(url)
    assert (yield from connection.fetch_all("SELECT a, b FROM t ORDER BY a")) == ROWS
    for number in range(2):  # prepared at first, known the second time
        assert (yield from connection.fetch_all("SELECT a, b FROM t WHERE a >= ? ORDER BY a", number)) == ROWS[number:]
    with (yield from connection.stream("SELECT a, b FROM t ORDER BY a")) as stream:
        found = []
        while rows := (yield from stream.read()):
            found += rows
        assert found == ROWS
    with (yield from connection.cursor("SELECT a, b FROM t ORDER BY a", fetch_size=3)) as stream:
        assert (yield from stream.read()) + (yield from stream.read()) == ROWS
    assert [result.rows for result in (yield from connection.results("CALL p(?)", 1))] == [[(1,)], [(2,)], []]
    yield from connection.reset()
    yield from connection.ping()
    return connection


@pytest.mark.parametrize("query", ["tls=disabled", "tls=disabled&compress=zlib"])
def test_cut_at_every_byte_of_the_servers_answers(mariadb: SQLServer, query: str) -> None:
    user = create_user(mariadb, "secret", "VIA ed25519 USING PASSWORD('secret')")  # the plugin is switched to
    with mariadb.database() as name:
        mariadb.sql(f"GRANT ALL ON {name}.* TO {user}@'%'")
        mariadb.sql(f"CREATE TABLE {name}.t (a INT PRIMARY KEY, b TEXT)")
        mariadb.sql(f"INSERT INTO {name}.t VALUES " + ", ".join(map(str, ROWS)))
        mariadb.sql(f"CREATE PROCEDURE {name}.p(n INT) BEGIN SELECT n; SELECT n + 1; END")

        def through(proxy: Proxy) -> Coro[int]:
            url = f"mysql://{user}:secret@127.0.0.1:{proxy.port}/{name}?{query}"
            connection = yield from everything(url)
            connection.close()
            size = len(proxy.replies)
            for cut in range(size):
                proxy.replies, proxy.requests = b"", b""
                proxy.cut_after = cut
                with coro.timeout(60), pytest.raises(Error) as caught:
                    yield from everything(url)
                assert caught.value.code == 2013, f"cut at byte {cut} of {size}"
            return size

        assert coro.run(through_proxy(mariadb.port, through)) > 1000
