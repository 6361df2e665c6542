"""Real servers of both protocol versions."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import redis

from tests.services import RedisServer
from tests.topologies import STEADY, RedisCluster


class OldRedisServer(RedisServer):
    """A Redis that does not know HELLO, as none did before version 6: it speaks RESP2 only."""

    def __init__(self, *options: str, password: str = "") -> None:
        super().__init__("--rename-command", "HELLO", "", *options, password=password)

    def command(self, *words: str | bytes | int) -> Any:
        with redis.Redis(unix_socket_path=self.socket, password=self.password or None, protocol=2) as client:
            return client.execute_command(*words)


@pytest.fixture(scope="session")
def old_redis_server(servers: ExitStack) -> RedisServer:
    """A shared Redis that speaks RESP2 only."""
    return servers.enter_context(OldRedisServer())


@pytest.fixture(params=["resp3", "resp2"])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of an emptied Redis that speaks RESP3, then of one that speaks RESP2."""
    name = {"resp3": "redis_server", "resp2": "old_redis_server"}[request.param]
    server: RedisServer = request.getfixturevalue(name)
    server.command("FLUSHALL")
    return server.url()


@pytest.fixture(scope="session")
def shared_cluster(servers: ExitStack) -> RedisCluster:
    """A cluster of three primaries with a replica each, holding whatever earlier tests left in it."""
    return servers.enter_context(RedisCluster(node_timeout=STEADY))


@pytest.fixture
def redis_cluster(shared_cluster: RedisCluster) -> RedisCluster:
    """The shared cluster, emptied."""
    shared_cluster.clear()
    return shared_cluster
