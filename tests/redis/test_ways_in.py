"""TCP, TLS, a Unix socket, a user with few rights, a database: all connections of a client take the same way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest

import coro
from coro import Coro
from coro.redis import Message, Redis, Transaction
from tests.redis.conftest import OldRedisServer
from tests.services import RedisServer

WAYS: dict[str, Callable[[RedisServer], str]] = {
    "tcp": lambda server: server.url(),
    "tls": lambda server: f"{server.url(tls=True)}?ca={server.certificates.authority}",
    "unix socket": lambda server: f"unix://:secret@{server.socket}",
    "user of an ACL": lambda server: server.url(user="app", password="of app"),
    "database": lambda server: server.url(3),
    "user, database, name, tls": lambda server: (
        f"{server.url(3, user='app', password='of app', tls=True)}?ca={server.certificates.authority}&name=tester"
    ),
}


@pytest.fixture(scope="session", params=[RedisServer, OldRedisServer], ids=["resp3", "resp2"])
def secured(request: pytest.FixtureRequest, servers: ExitStack) -> RedisServer:
    """A Redis with a password, and a user `app` who may use the keys and channels that begin with `app:`."""
    server: RedisServer = servers.enter_context(request.param(password="secret"))
    server.command("ACL", "SETUSER", "app", "on", ">of app", "~app:*", "~{app:*", "&app:*", "+@all")
    return server


@pytest.mark.parametrize("way", WAYS)
def test_everything_works_over(secured: RedisServer, way: str) -> None:
    secured.clear()
    redis = Redis.from_url(WAYS[way](secured))

    def swap(transaction: Transaction) -> Coro[None]:
        a, b = yield from transaction.mget("app:a", "app:b")
        transaction.multi()
        transaction.mset({"app:a": b or b"", "app:b": a or b""})

    def main() -> Coro[None]:
        value = b"\xff" * 1_000_000
        pipeline = redis.pipeline()
        pipeline.mset({"app:a": "a", "app:b": value})
        pipeline.rpush("app:queue", 1)
        yield from pipeline.execute()
        yield from redis.transaction(swap, "app:a", "app:b")
        assert (yield from redis.get("app:a")) == value
        assert (yield from redis.blpop("app:queue", 1)) == (b"app:queue", b"1")
        assert (yield from redis.lock("app:lock", 100).hold(lambda lock: redis.ping()))
        pubsub = redis.pubsub()
        yield from pubsub.subscribe("app:channel")
        yield from redis.publish("app:channel", value)
        assert (yield from pubsub.get_message()) == Message(b"app:channel", value)
        redis.close()

    coro.run(main())
