"""Several servers in one URL: which is used, which is avoided, and what is said when none can be had."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest

import coro
from coro import Coro, TaskGroup
from coro.mysql import Connection, InterfaceError, OperationalError, Pool, connect
from coro.mysql.servers import AVOIDED_FOR, Servers
from coro.mysql.url import parse_servers
from tests.mysql.sessions import with_pool
from tests.proxy import Proxy, through_proxy
from tests.redis.fake import ManualClock
from tests.services import MariaDBServer, SQLServer, dead_port

PORT = "SELECT @@port"


# --- URLs ---------------------------------------------------------------------------------------------------


def test_servers_are_separated_by_commas_and_share_the_rest() -> None:
    targets = parse_servers("mysql://anna:a,b%40@db1:3307,db2,[::1]:3308/shop?tls=required")
    assert [target.peer for target in targets] == ["db1:3307", "db2:3306", "[::1]:3308"]
    assert {(t.user, t.password, t.database, t.tls.value) for t in targets} == {("anna", "a,b@", "shop", "required")}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://db1,,db2/", "no name"),
        ("mysql://db1,db2,/", "no name"),
        ("mysql://db1,db1:3306/", "twice"),
        ("mysql://db1,db2/?socket=/s", "one socket"),
        ("mysql://db1,db2:port/", "no host and port"),
        ("mysql://anna:p/w@db1,db2/", "no host and port|'@' stands behind"),
    ],
)
def test_a_url_of_several_servers_that_makes_no_sense_is_refused(url: str, reason: str) -> None:
    with pytest.raises(InterfaceError, match=reason):
        Pool(url)


# --- Order --------------------------------------------------------------------------------------------------


def test_servers_are_tried_in_their_order_and_those_that_failed_lately_last() -> None:
    port = dead_port()

    def main() -> Coro[None]:
        servers = Servers(f"mysql://127.0.0.1:{port},127.0.0.2:{port},127.0.0.3:{port}/", connect_timeout=5)
        first, second, third = servers.targets
        time = coro.now()
        assert servers.order(time) == [first, second, third]
        servers.note_failure(second)
        assert servers.order(coro.now()) == [first, third, second]
        assert servers.order(coro.now() + AVOIDED_FOR) == [first, second, third]
        yield from ()

    coro.run(main())


def test_the_first_server_is_used_and_once_it_has_failed_not_tried_each_time(mariadb: SQLServer) -> None:
    def run(proxy: Proxy) -> Coro[None]:
        url = f"mysql://root@127.0.0.1:{proxy.port},127.0.0.1:{mariadb.port}/?tls=disabled"
        pool = Pool(url, max_age=0)  # each statement on a new connection
        try:
            yield from pool.execute("DO 1")
            assert proxy.connections == 1
            proxy.cut_after = len(proxy.replies) + 10
            for _ in range(3):
                yield from pool.execute("DO 1")
            assert proxy.connections == 2
        finally:
            pool.close()

    coro.run(through_proxy(mariadb.port, run))


def test_a_server_that_is_down_is_passed_over(mariadb: SQLServer) -> None:
    def main() -> Coro[None]:
        connection = yield from connect(f"mysql://root@127.0.0.1:{dead_port()},127.0.0.1:{mariadb.port}/")
        assert (yield from connection.fetch_value(PORT)) == mariadb.port
        connection.close()

    coro.run(main())


def test_a_server_that_does_not_answer_is_passed_over_in_time(mariadb: SQLServer) -> None:
    clock = ManualClock()

    def main(group: TaskGroup) -> Coro[None]:
        with closing(coro.listen("127.0.0.1", 0)) as silent:
            url = f"mysql://root@127.0.0.1:{silent.port},127.0.0.1:{mariadb.port}/"
            connecting = group.spawn(connect(url, connect_timeout=5))
            with closing((yield from silent.accept())):
                clock.advance(5)
                connection = yield from connecting.join()  # no time passes at the second server
            assert (yield from connection.fetch_value(PORT)) == mariadb.port
            connection.close()

    coro.run(coro.task_group(main), clock=clock)


def test_a_server_that_does_not_answer_is_named() -> None:
    def main() -> Coro[None]:
        with closing(coro.listen("127.0.0.1", 0)) as silent:
            with pytest.raises(OperationalError, match=rf"{silent.port}: cannot connect: no answer") as caught:
                yield from connect(f"mysql://root@127.0.0.1:{silent.port}/", connect_timeout=0.01)
            assert caught.value.code == 2003

    coro.run(main())


def test_a_server_with_no_room_is_passed_over(own_mariadb: Callable[..., MariaDBServer], mariadb: SQLServer) -> None:
    full = own_mariadb("--max-connections=10", "--extra-max-connections=1")

    def main() -> Coro[None]:
        taken: list[Connection] = []
        while len(taken) < 11:  # one is for a user with all rights; sessions of the start may still be ending
            try:
                taken.append((yield from connect(full.url())))
            except OperationalError as error:
                assert error.code == 1040
        with pytest.raises(OperationalError) as caught:
            yield from connect(full.url())
        assert caught.value.code == 1040
        connection = yield from connect(f"mysql://root@127.0.0.1:{full.port},127.0.0.1:{mariadb.port}/")
        assert (yield from connection.fetch_value(PORT)) == mariadb.port
        for one in (*taken, connection):
            one.close()

    coro.run(main())


def test_a_wrong_password_is_an_error_at_once(mariadb: SQLServer) -> None:
    def run(proxy: Proxy) -> Coro[None]:
        with pytest.raises(OperationalError) as caught:
            yield from connect(f"mysql://root:wrong@127.0.0.1:{mariadb.port},127.0.0.1:{proxy.port}/?tls=disabled")
        assert caught.value.code == 1045
        assert proxy.connections == 0

    coro.run(through_proxy(mariadb.port, run))


def test_when_no_server_can_be_had_the_error_says_why_of_each() -> None:
    port = dead_port()

    def body(pool: Pool) -> Coro[None]:
        with pytest.raises(OperationalError) as caught:
            yield from pool.execute("DO 1")
        assert caught.value.code == 2003
        assert "none of 2 servers can be had" in str(caught.value)
        assert str(caught.value).count("Connection refused") == 2
        assert f"127.0.0.2:{port}" in str(caught.value)
        assert "0 of" in repr(pool)

    with_pool(f"mysql://root@127.0.0.1:{port},127.0.0.2:{port}/", body)


def test_a_pool_moves_on_when_its_server_is_killed_and_comes_back_later(
    own_mariadb: Callable[..., MariaDBServer], mariadb: SQLServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = own_mariadb()

    def body(pool: Pool) -> Coro[None]:
        assert (yield from pool.fetch_value(PORT)) == first.port
        first.kill()
        assert (yield from pool.fetch_value(PORT)) == mariadb.port
        first.start()
        assert (yield from pool.fetch_value(PORT)) == mariadb.port
        monkeypatch.setattr("coro.mysql.servers.AVOIDED_FOR", 0.0)
        assert (yield from pool.lend(lambda held: pool.fetch_value(PORT))) == first.port

    with_pool(f"mysql://root@127.0.0.1:{first.port},127.0.0.1:{mariadb.port}/", body)
