"""Reaching a server and logging in: addresses, TLS, users, databases, both protocol versions, and what goes wrong."""

from __future__ import annotations

import socket
import ssl
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coro
from coro import Coro, Stream
from coro.redis import AuthenticationError, Redis, RedisConnectionError
from coro.redis.connection import Connection
from tests.redis.conftest import OldRedisServer
from tests.redis.fake import FakeRedis, ManualClock, with_fake
from tests.services import RedisServer, dead_port


def call(url: str, *args: str | int) -> Any:
    """The reply to one command of a new client."""
    return coro.run(Redis.from_url(url).execute(*args))


def failure(url: str) -> RedisConnectionError:
    """What a PING of a new client raises."""
    with pytest.raises(RedisConnectionError) as caught:
        call(url, "PING")
    return caught.value


# --- Where ---------------------------------------------------------------------------


def test_tcp(redis_server: RedisServer) -> None:
    assert call(f"redis://127.0.0.1:{redis_server.port}", "PING") == b"PONG"


def test_unix_socket(redis_server: RedisServer) -> None:
    assert call(f"unix://{redis_server.socket}", "PING") == b"PONG"


def test_tls_verified_by_a_given_authority(redis_server: RedisServer) -> None:
    url = f"{redis_server.url(tls=True)}?ca={redis_server.certificates.authority}"
    assert call(url, "PING") == b"PONG"


def test_large_values_over_tls(redis_server: RedisServer) -> None:
    value = "v" * 3_000_000
    redis = Redis.from_url(f"{redis_server.url(tls=True)}?ca={redis_server.certificates.authority}")

    def main() -> Coro[bytes | None]:
        yield from redis.set("large over TLS", value)
        return (yield from redis.get("large over TLS"))

    assert coro.run(main()) == value.encode()


def test_tls_is_verified_unless_told_otherwise(redis_server: RedisServer) -> None:
    error = failure(redis_server.url(tls=True))
    assert "certificate verify failed" in str(error)
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


def test_tls_on_the_wrong_port_is_told(redis_server: RedisServer) -> None:
    plain, secured = redis_server.url(), redis_server.url(tls=True)
    assert f"is port {redis_server.tls_port} for TLS? Then" in str(failure(secured.replace("rediss", "redis")))
    assert f"is port {redis_server.port} for TLS? If not" in str(
        failure(f"{plain.replace('redis', 'rediss')}?connect_timeout=0.2")
    )


def test_tls_verifies_the_host_name(redis_server: RedisServer) -> None:
    files = redis_server.certificates
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)

    def serve(stream: Stream) -> Coro[None]:
        yield from stream.start_tls(context, server_side=True)

    def body(group: coro.TaskGroup) -> Coro[None]:
        listener = coro.listen("127.0.0.2", 0)  # which the certificate is not for
        group.spawn(coro.serve(listener, serve))
        with pytest.raises(RedisConnectionError, match=r"certificate is not valid for '127\.0\.0\.2'"):
            yield from Redis.from_url(f"rediss://127.0.0.2:{listener.port}?ca={files.authority}").ping()
        group.cancel()
        listener.close()

    coro.run(coro.task_group(body))


def test_file_of_authorities_that_is_missing_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"/nowhere/ca\.pem"):
        Redis.from_url("rediss://localhost?ca=/nowhere/ca.pem")


def test_file_of_authorities_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    with pytest.raises(ValueError, match=r"ca\.pem holds no certificate authority"):
        Redis.from_url(f"rediss://localhost?ca={path}")


# --- Who -----------------------------------------------------------------------------


@pytest.fixture(params=[RedisServer, OldRedisServer], ids=["resp3", "resp2"])
def guarded(request: pytest.FixtureRequest, servers: Any) -> RedisServer:
    """A Redis with a password, and a user `app` of its own."""
    server: RedisServer = servers.enter_context(request.param(password="s3cr/t @#"))
    server.command("ACL", "SETUSER", "app", "on", ">app pass", "~app:*", "+@all")
    return server


def test_password(guarded: RedisServer) -> None:
    assert call(guarded.url(), "ACL", "WHOAMI") == b"default"


def test_user_of_an_access_control_list(guarded: RedisServer) -> None:
    assert call(guarded.url(user="app", password="app pass"), "ACL", "WHOAMI") == b"app"


def test_wrong_password(guarded: RedisServer) -> None:
    error = failure(guarded.url(user="app", password="wrong"))
    assert str(error).startswith(f"no connection to Redis at localhost:{guarded.port}: WRONGPASS")
    assert isinstance(error.__cause__, AuthenticationError)


def test_missing_password(guarded: RedisServer) -> None:
    """A server without HELLO lets one in, and refuses every command."""
    with pytest.raises((RedisConnectionError, AuthenticationError), match="NOAUTH"):
        call(f"redis://localhost:{guarded.port}", "PING")


def test_every_caller_learns_that_the_password_is_wrong(guarded: RedisServer) -> None:
    redis = Redis.from_url(guarded.url(user="app", password="wrong"))

    def attempt() -> Coro[None]:
        with pytest.raises(RedisConnectionError, match="WRONGPASS") as caught:
            yield from redis.ping()
        assert isinstance(caught.value.__cause__, AuthenticationError)

    def main() -> Coro[None]:
        yield from coro.gather(attempt(), attempt())
        yield from attempt()  # in the pause after the failed attempt

    coro.run(main())


# --- Database, protocol ------------------------------------------------------------------


def test_database_number(database: str) -> None:
    def main() -> Coro[None]:
        first = Redis.from_url(database)
        fifth = Redis.from_url(database.removesuffix("/0") + "/5")
        yield from fifth.set("key", "value")
        assert (yield from fifth.get("key")) == b"value"
        assert (yield from first.get("key")) is None

    coro.run(main())


def test_database_that_does_not_exist(redis_server: RedisServer) -> None:
    assert "DB index is out of range" in str(failure(redis_server.url(1000)))


def test_resp3_is_preferred(redis_server: RedisServer) -> None:
    assert call(redis_server.url(), "HGETALL", "missing") == {}


def test_resp2_is_spoken_with_a_server_that_does_not_know_hello(old_redis_server: RedisServer) -> None:
    assert call(old_redis_server.url(), "HGETALL", "missing") == []


@pytest.mark.parametrize(
    "refusal", [b"-NOPROTO unsupported protocol version\r\n", b"-NOPERM this user has no permissions\r\n"]
)
def test_resp2_is_spoken_with_a_server_that_refuses_hello(refusal: bytes) -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        yield from Redis.from_url(f"redis://:secret@{fake.address}/2").ping()
        assert fake.commands == [[b"AUTH", b"secret"], [b"SELECT", b"2"], [b"PING"]]

    ok = b"+OK\r\n"
    coro.run(with_fake({b"HELLO": refusal, b"AUTH": ok, b"SELECT": ok, b"PING": b"+PONG\r\n"}, body))


@pytest.mark.parametrize("old", [False, True], ids=["resp3", "resp2"])
def test_client_says_its_name(redis_server: RedisServer, old_redis_server: RedisServer, old: bool) -> None:
    server = old_redis_server if old else redis_server
    assert call(f"redis://127.0.0.1:{server.port}?name=app-1", "CLIENT", "GETNAME") == b"app-1"


def test_client_says_which_library_it_is_where_that_is_known() -> None:
    told: list[list[bytes]] = []

    class Noting(FakeRedis):
        def answer(self, command: list[bytes]) -> bytes | None:
            told.append(command)
            return super().answer(command)

    def body(fake: FakeRedis) -> Coro[None]:
        assert (yield from Redis.from_url(fake.url).ping())

    for answer in b"+OK\r\n", b"-ERR unknown subcommand\r\n":
        coro.run(with_fake({b"CLIENT": answer, b"PING": b"+PONG\r\n"}, body, Noting))
    words = [b" ".join(command) for command in told if command[0] == b"CLIENT"]
    assert words == [b"CLIENT SETINFO LIB-NAME coro", b"CLIENT SETINFO LIB-VER %s" % coro.__version__.encode()] * 2


def test_kernel_is_told_to_look_whether_the_other_end_is_there(redis_server: RedisServer) -> None:
    redis = Redis.from_url(redis_server.url())

    def look(connection: Connection) -> Coro[int]:
        yield from ()
        return connection.stream.socket.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    assert coro.run(redis.pool.lend(look)) == 1


# --- What goes wrong --------------------------------------------------------------------------


PASSWORD = "hunter2"  # a traceback shows the source as well: the word itself must not stand in it


def unknown(command: str, *args: str) -> bytes:
    """What Redis says to a command that it does not know."""
    quoted = "".join(f"`{arg}`, " for arg in args)
    return f"-ERR unknown command `{command}`, with args beginning with: {quoted}\r\n".encode()


@pytest.mark.parametrize("auth", [b"-ERR invalid password\r\n", unknown("AUTH", "default", PASSWORD)])
def test_no_traceback_shows_a_password_that_the_server_quotes(auth: bytes) -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        with pytest.raises(RedisConnectionError) as caught:
            yield from Redis.from_url(f"redis://:{PASSWORD}@{fake.address}").ping()
        assert fake.commands == [[b"AUTH", PASSWORD.encode()]]
        assert PASSWORD not in "".join(traceback.format_exception(caught.value))
        assert str(caught.value).endswith(("ERR invalid password", "ERR unknown command `AUTH`"))

    hello = unknown("HELLO", "3", "AUTH", "default", PASSWORD)
    coro.run(with_fake({b"HELLO": hello, b"AUTH": auth}, body))


def test_nobody_listens() -> None:
    address = f"127.0.0.1:{dead_port()}"
    error = failure(f"redis://{address}")
    assert str(error) == f"no connection to Redis at {address}: Connection refused"
    assert isinstance(error, ConnectionError)


def test_socket_is_missing() -> None:
    assert str(failure("unix:///nowhere/redis.sock")) == (
        "no connection to Redis at /nowhere/redis.sock: No such file or directory"
    )


def test_peer_that_is_no_redis() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        with pytest.raises(RedisConnectionError, match="is no reply: is the peer a Redis server"):
            yield from Redis.from_url(fake.url).ping()

    coro.run(with_fake({b"HELLO": b"HTTP/1.1 400 Bad Request\r\n\r\n"}, body))


def test_peer_that_answers_more_than_it_was_asked() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        with pytest.raises(RedisConnectionError, match="2 replies came where 1 were due"):
            yield from Redis.from_url(fake.url).ping()

    coro.run(with_fake({b"HELLO": b"%0\r\n+PONG\r\n"}, body))


def test_what_the_server_says_out_of_band_is_no_answer_to_the_login() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        assert (yield from Redis.from_url(fake.url).ping())

    coro.run(with_fake({b"HELLO": b">1\r\n+welcome\r\n%0\r\n", b"PING": b"+PONG\r\n"}, body))


def test_server_that_has_too_many_clients(own_redis: Callable[..., RedisServer]) -> None:
    server = own_redis()

    def main() -> Coro[None]:
        yield from Redis.from_url(server.url()).execute("CONFIG", "SET", "maxclients", 1)
        with pytest.raises(RedisConnectionError, match=f"{server.port}: ERR max number of clients reached"):
            yield from Redis.from_url(server.url()).ping()

    coro.run(main())


def test_connect_deadline_covers_the_login() -> None:
    clock = ManualClock()

    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url, connect_timeout=3)

        def ping(group: coro.TaskGroup) -> Coro[None]:
            task = group.spawn(redis.ping())
            while not fake.hellos:
                yield from coro.checkpoint()
            clock.advance(2.9)
            yield from coro.checkpoint()
            assert not task.done
            clock.advance(0.1)
            with pytest.raises(RedisConnectionError, match=f"{fake.address}: not done within 3 s"):
                yield from task.join()

        with pytest.raises(RedisConnectionError):  # the group's
            yield from coro.task_group(ping)

    coro.run(with_fake({b"HELLO": b""}, body), clock=clock)
