"""The servers that the tests start: they keep their place over a restart, and none outlives the test run."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests import services, topologies
from tests.nginx import NginxServer
from tests.services import CHECKOUT, PATIENCE, FailedServer, RedisServer, SQLServer

START_ONE_AND_WAIT = """
from tests.services import RedisServer, scratch
server = RedisServer()
server.start()
print(server.pid, scratch().watchdog.pid, scratch().path, flush=True)
input()
"""


def has_ended(descriptor: int) -> bool:
    """Waits until the process behind a `pidfd` has ended; not for ever."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(PATIENCE * 1000))


def test_killed_redis_starts_again_on_its_port(own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis("--appendonly", "yes", "--appendfsync", "always")
    port = server.port
    server.command("SET", "key", "value")
    server.kill()
    server.start()
    assert (server.port, server.command("GET", "key")) == (port, b"value")


def test_killed_sql_server_starts_again_with_what_was_committed(
    own_sql_server: Callable[..., SQLServer],
) -> None:
    server = own_sql_server()
    port = server.port
    with server.database() as name:
        server.sql(f"CREATE TABLE {name}.t (a INT)")
        server.sql(f"INSERT INTO {name}.t VALUES (%s)", 5)
        server.kill()
        server.start()
        assert (server.port, server.sql(f"SELECT a FROM {name}.t")) == (port, [(5,)])


def test_server_whose_port_was_taken_meanwhile_gets_another(
    own_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = own_redis()
    pick_port, taken = services._pick_port, iter([first.port, first.port])
    monkeypatch.setattr(services, "_pick_port", lambda: next(taken, None) or pick_port())
    assert own_redis().port != first.port


def test_cluster_node_whose_bus_port_was_taken_meanwhile_gets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """By then it accepts connections, on which nothing comes but their end."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        pick_port, taken = services._pick_port, iter([holder.getsockname()[1]])
        monkeypatch.setattr(topologies, "_pick_port", lambda: next(taken, None) or pick_port())
        with topologies.ClusterNode() as node:
            assert node.info("cluster")["cluster_enabled"] == 1


def test_server_that_does_not_start_says_why(own_redis: Callable[..., RedisServer]) -> None:
    with pytest.raises(FailedServer, match="no-such-option"):
        own_redis("--no-such-option", "1")


def test_killed_nginx_leaves_no_process_that_goes_on_serving(own_nginx: Callable[..., NginxServer]) -> None:
    server = own_nginx()
    server.kill()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) == errno.ECONNREFUSED


def test_databases_are_empty_and_each_test_has_its_own(sql_server: SQLServer) -> None:
    with sql_server.database() as one, sql_server.database() as other:
        sql_server.sql(f"CREATE TABLE {one}.t (a INT)")
        assert sql_server.sql(f"SHOW TABLES FROM {other}") == []


def test_nothing_is_left_when_the_test_run_is_killed(redis_server: RedisServer) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", START_ONE_AND_WAIT],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with run:
        assert run.stdout is not None
        server, watchdog, directory = run.stdout.readline().split()
        descriptors = [os.pidfd_open(int(number)) for number in (server, watchdog)]
        run.kill()
        with suppress(BrokenPipeError):
            run.communicate()
    try:
        assert [has_ended(descriptor) for descriptor in descriptors] == [True, True]
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    assert not Path(os.fsdecode(directory)).exists()
