"""Real servers of both protocol versions."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from coro.redis.url import TIMEOUT, Settings
from tests.services import RedisServer
from tests.topologies import STEADY, RedisCluster


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is slow to answer is no dead one. A test that wants one says how long it is waited for."""
    defaults = Settings.__init__.__defaults__ or ()
    patient = tuple(100.0 if value == TIMEOUT else value for value in defaults)
    monkeypatch.setattr(Settings.__init__, "__defaults__", patient)


class OldRedisServer(RedisServer):
    """A Redis that does not know HELLO, as none did before version 6: it speaks RESP2 only."""

    spoken = {"protocol": 2}

    def __init__(self, *options: str, password: str = "") -> None:
        super().__init__("--rename-command", "HELLO", "", *options, password=password)


@pytest.fixture(scope="session")
def new_redis(servers: ExitStack) -> RedisServer:
    return servers.enter_context(RedisServer())


@pytest.fixture(scope="session")
def old_redis(servers: ExitStack) -> RedisServer:
    return servers.enter_context(OldRedisServer())


@pytest.fixture
def redis_server(new_redis: RedisServer) -> RedisServer:
    """A Redis that the tests of this directory share, with nothing that an earlier one has left."""
    new_redis.clear()
    return new_redis


@pytest.fixture
def old_redis_server(old_redis: RedisServer) -> RedisServer:
    """The same that speaks RESP2 only."""
    old_redis.clear()
    return old_redis


@pytest.fixture
def redis_database(redis_server: RedisServer) -> str:
    """The URL of the shared Redis, emptied."""
    return redis_server.url()


@pytest.fixture(params=["redis_server", "old_redis_server"], ids=["resp3", "resp2"])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of an emptied Redis that speaks RESP3, then of one that speaks RESP2."""
    server: RedisServer = request.getfixturevalue(request.param)
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
