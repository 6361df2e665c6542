"""The client that follows a master: real sentinels whose master is killed, and some that say what a test wants."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

import coro
from coro import ClosedError, Coro, Stream, TaskGroup
from coro.redis import ReadOnlyError, Redis, RedisConnectionError, Sentinel
from coro.redis.resp import Parser
from tests.redis.fake import FakeRedis, ManualClock, settle, with_fake
from tests.redis.load import KEYS, Counters, run_load, stop
from tests.services import RedisServer
from tests.topologies import SentinelTrio


@pytest.fixture(scope="module")
def shared_trio() -> Iterator[SentinelTrio]:
    with SentinelTrio(password="s3cret", sentinel_password="0ther") as servers:
        yield servers


@pytest.fixture
def trio(shared_trio: SentinelTrio) -> Iterator[SentinelTrio]:
    """A master with two replicas and three sentinels; what the test has killed runs again afterwards."""
    shared_trio.master().command("FLUSHALL")
    yield shared_trio
    shared_trio.heal()


def address_of(server: RedisServer) -> str:
    return f"127.0.0.1:{server.port}"


# --- Finding -----------------------------------------------------------------------------------


def test_master_is_found_and_logged_in_to(trio: SentinelTrio) -> None:
    redis = Sentinel.from_url(trio.url).master(decode=True)

    def main() -> Coro[None]:
        assert (yield from redis.set("key", "value"))
        assert (yield from redis.get("key")) == "value"
        pipeline = redis.pipeline()
        pipeline.incr("number")
        assert (yield from pipeline.execute()) == [1]
        assert address_of(trio.master()) in repr(redis)

    coro.run(main())


def test_replica_serves_reads(trio: SentinelTrio) -> None:
    sentinel = Sentinel.from_url(trio.url)
    redis, reads = sentinel.master(), sentinel.replica()

    def main() -> Coro[None]:
        yield from redis.set("key", "value")
        assert trio.master().command("WAIT", 2, 100_000) == 2
        assert (yield from reads.get("key")) == b"value"
        assert (yield from reads.role())[0] == b"slave"
        with pytest.raises(ReadOnlyError):
            yield from reads.set("key", "other")

    coro.run(main())


def test_sentinels_of_which_two_are_dead(trio: SentinelTrio) -> None:
    for sentinel in trio.sentinels[:2]:
        sentinel.kill()
    assert coro.run(Sentinel.from_url(trio.url).master().ping())


def test_sentinel_that_is_silent_is_not_waited_for(trio: SentinelTrio) -> None:
    """With the limits of time given here the test would not end before it is ended."""
    os.kill(trio.sentinels[0].pid, signal.SIGSTOP)
    try:
        sentinel = Sentinel.from_url(f"{trio.url}&timeout=600&connect_timeout=600")
        assert coro.run(sentinel.master().ping())
        os.kill(trio.sentinels[1].pid, signal.SIGSTOP)
        assert coro.run(sentinel.master().ping())  # one of three is enough
    finally:
        for process in trio.sentinels[:2]:
            os.kill(process.pid, signal.SIGCONT)


def test_sentinels_that_are_all_dead(trio: SentinelTrio) -> None:
    url = trio.url
    seeds = ", ".join(map(address_of, trio.sentinels))
    for sentinel in trio.sentinels:
        sentinel.kill()
    with pytest.raises(RedisConnectionError) as caught:
        coro.run(Sentinel.from_url(url).master().ping())
    assert str(caught.value) == f"the master 'mymaster' cannot be found: Connection refused ({seeds})"
    assert not caught.value.sent


def test_name_that_no_sentinel_knows(trio: SentinelTrio) -> None:
    url = trio.url.replace("mymaster", "nobody")
    with pytest.raises(RedisConnectionError, match=r"master 'nobody' cannot be found: no master of that name is known"):
        coro.run(Sentinel.from_url(url).master().ping())


def test_password_that_is_wrong_for_sentinels_or_server(trio: SentinelTrio) -> None:
    with pytest.raises(RedisConnectionError, match=r"'mymaster' cannot be found: WRONGPASS"):
        coro.run(Sentinel.from_url(trio.url.replace("0ther", "wrong")).master().ping())
    with pytest.raises(RedisConnectionError, match=f"no connection to Redis at {address_of(trio.master())}: WRONGPASS"):
        coro.run(Sentinel.from_url(trio.url.replace("s3cret", "wrong")).master().ping())


def test_everything_is_secured_if_the_url_says_so() -> None:
    with SentinelTrio(password="s3cret", sentinel_password="0ther", tls=True) as servers:
        sentinel = Sentinel.from_url(servers.url)
        assert coro.run(sentinel.master().set("key", "value"))
        assert coro.run(sentinel.replica().role())[0] == b"slave"
        untrusted = Sentinel.from_url(servers.url.partition("&ca=")[0])
        with pytest.raises(RedisConnectionError, match=r"cannot be found: .*certificate"):
            coro.run(untrusted.master().ping())


# --- Failover ----------------------------------------------------------------------------------


def test_master_killed_in_mid_load(trio: SentinelTrio) -> None:
    victim = trio.master()

    def disturb(counters: Counters) -> Coro[None]:
        yield from stop(victim)
        victim.kill()
        yield from counters.advance(KEYS, 20)  # at the new master

    counters = run_load(Sentinel.from_url(trio.url).master(), disturb)
    assert all(count <= 1 for count in counters.lost.values())
    assert any(counters.lost.values())
    sent = [str(error) for error in counters.errors if isinstance(error, RedisConnectionError) and error.sent]
    assert all(f"{address_of(victim)} was lost" in text for text in sent)
    assert trio.master() is not victim


def test_master_that_hangs_is_left_when_the_sentinels_replace_it(trio: SentinelTrio) -> None:
    """With the limit of time given here nothing else would end the wait for it."""
    victim = trio.master()

    def disturb(counters: Counters) -> Coro[None]:
        yield from stop(victim)
        yield from counters.advance(KEYS, 20)

    try:
        run_load(Sentinel.from_url(trio.url, timeout=600, connect_timeout=600).master(), disturb)
    finally:
        os.kill(victim.pid, signal.SIGCONT)


def test_replica_that_is_killed_is_replaced_and_in_the_end_by_the_master(trio: SentinelTrio) -> None:
    reads = Sentinel.from_url(trio.url).replica()
    master = trio.master()

    def main() -> Coro[None]:
        yield from reads.ping()
        for server in trio.servers:
            if server is not master:
                server.kill()
        while True:
            try:
                role = yield from reads.role()
                break
            except RedisConnectionError:
                yield from coro.sleep(0.05)
        assert role[0] == b"master"

    coro.run(main())


# --- Sentinels and servers that say what the test wants -------------------------------------------


MASTER_ROLE = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
REPLICA_ROLE = b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:1\r\n$9\r\nconnected\r\n:0\r\n"
OK = b"+OK\r\n"


class FakeSentinel(FakeRedis):
    """Answers by the first two words of a command, and knows who listens."""

    listener_stream: Stream | None = None

    def answer(self, command: list[bytes]) -> bytes | None:
        if command[0] == b"SUBSCRIBE":
            self.listener_stream = self.answering
        return super().answer(command) or self.answers.get(b" ".join(command[:2]))

    def serve(self, stream: Stream) -> Coro[None]:
        parser = Parser()
        while data := (yield from stream.read()):
            for command in parser.feed(data):
                self.answering = stream
                answer = self.answer(cast(list[bytes], command))
                if answer is not None:
                    yield from stream.write(answer)


class Fakes:
    """A sentinel that names `a` as master, until told otherwise; and two servers that say they are masters."""

    def __init__(self, sentinel: FakeSentinel, a: FakeRedis, b: FakeRedis) -> None:
        self.sentinel, self.a, self.b = sentinel, a, b
        sentinel.answers[b"SENTINEL REPLICAS"] = b"*0\r\n"
        sentinel.answers[b"SUBSCRIBE"] = b">3\r\n+subscribe\r\n$14\r\n+switch-master\r\n:1\r\n"
        self.name(a, epoch=1)
        for server in (a, b):
            server.answers |= {b"ROLE": MASTER_ROLE, b"GET": b"$5\r\nvalue\r\n", b"SET": OK, b"PING": b"+PONG\r\n"}

    def name(self, server: FakeRedis, *, epoch: int) -> None:
        """Have the sentinel name a server as master."""
        port = str(server.listener.port).encode()
        self.sentinel.answers |= {
            b"SENTINEL GET-MASTER-ADDR-BY-NAME": b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%b\r\n" % (len(port), port),
            b"SENTINEL MASTER": b"%%1\r\n$12\r\nconfig-epoch\r\n$1\r\n%d\r\n" % epoch,
        }

    def announce(self, old: FakeRedis, new: FakeRedis, name: str = "mymaster") -> Coro[None]:
        yield from self.publish(f"{name} 127.0.0.1 {old.listener.port} 127.0.0.1 {new.listener.port}".encode())

    def publish(self, text: bytes) -> Coro[None]:
        head = b">3\r\n+message\r\n$14\r\n+switch-master\r\n"
        assert self.sentinel.listener_stream is not None
        yield from self.sentinel.listener_stream.write(head + b"$%d\r\n%b\r\n" % (len(text), text))

    def client(self) -> Redis:
        return Sentinel.from_url(f"redis+sentinel://{self.sentinel.address}/mymaster").master()


def run(body: Callable[[Fakes], Coro[None]]) -> None:
    def with_sentinel(sentinel: FakeRedis) -> Coro[None]:
        assert isinstance(sentinel, FakeSentinel)

        def with_a(a: FakeRedis) -> Coro[None]:
            yield from with_fake({}, lambda b: body(Fakes(sentinel, a, b)))

        yield from with_fake({}, with_a)

    coro.run(with_fake({}, with_sentinel, FakeSentinel), clock=ManualClock())


def commands(server: FakeRedis) -> list[bytes]:
    return [command[0] for command in server.commands if command[0] != b"ROLE"]


def listening(fakes: Fakes) -> Coro[None]:
    """Return when the client listens to the sentinel."""
    while [b"SUBSCRIBE", b"+switch-master"] not in fakes.sentinel.commands:
        yield from coro.checkpoint()
    yield from settle()


def test_third_sentinel_is_not_waited_for_when_two_agree() -> None:
    """Time stands still here: there is no end to the patience with the silent one."""

    def body(fakes: Fakes) -> Coro[None]:
        del fakes.b.answers[b"HELLO"]
        one = fakes.sentinel.address
        sentinel = Sentinel.from_url(f"redis+sentinel://{one},{one},{fakes.b.address}/mymaster")
        assert (yield from sentinel.view()).master.port == fakes.a.listener.port

    run(body)


def test_server_that_is_no_master_is_not_taken_for_one() -> None:
    def body(fakes: Fakes) -> Coro[None]:
        fakes.a.answers[b"ROLE"] = REPLICA_ROLE
        with pytest.raises(RedisConnectionError) as caught:
            yield from fakes.client().get("key")
        assert str(caught.value) == (
            f"no connection to 'mymaster' at {fakes.a.address}: the sentinels take it for a master, but it is a slave"
        )
        assert not caught.value.sent
        assert commands(fakes.a) == []

    run(body)


def test_master_that_answers_as_a_replica_is_left() -> None:
    def body(fakes: Fakes) -> Coro[None]:
        redis = fakes.client()
        yield from redis.set("key", 1)
        fakes.a.answers[b"SET"] = b"-READONLY You can't write against a read only replica.\r\n"
        fakes.name(fakes.b, epoch=2)
        with pytest.raises(ReadOnlyError):
            yield from redis.set("key", 2)
        yield from redis.set("key", 3)
        assert (commands(fakes.a), commands(fakes.b)) == ([b"SET", b"SET"], [b"SET"])

    run(body)


def test_failover_that_a_sentinel_tells_of_ends_the_wait_for_the_old_master() -> None:
    def body(fakes: Fakes) -> Coro[None]:
        redis = fakes.client()
        yield from redis.get("key")
        yield from listening(fakes)
        del fakes.a.answers[b"GET"]

        def lost() -> Coro[None]:
            with pytest.raises(RedisConnectionError, match=f"{fakes.a.address} was lost") as caught:
                yield from redis.get("key")
            assert caught.value.sent

        def use(group: TaskGroup) -> Coro[None]:
            task = group.spawn(lost())
            yield from fakes.a.received(3)  # ROLE, GET, GET
            fakes.name(fakes.b, epoch=2)
            yield from fakes.announce(fakes.a, fakes.b)
            yield from task.join()
            assert (yield from redis.get("key")) == b"value"
            assert commands(fakes.b) == [b"GET"]
            yield from fakes.announce(fakes.a, fakes.b)  # by another sentinel: this is known
            yield from settle()
            yield from redis.get("key")
            assert fakes.b.connections == 1

        yield from coro.task_group(use)

    run(body)


def test_messages_that_say_nothing_about_the_master_change_nothing() -> None:
    def body(fakes: Fakes) -> Coro[None]:
        redis = fakes.client()
        yield from redis.get("key")
        yield from listening(fakes)
        yield from fakes.announce(fakes.a, fakes.b, "another")
        for text in (b"", b"mymaster", b"mymaster a b c", b"mymaster a 1 b x", b"\xff a 1 b 2"):
            yield from fakes.publish(text)
        yield from settle()
        yield from redis.get("key")
        assert (commands(fakes.a), fakes.a.connections) == ([b"GET", b"GET"], 1)

    run(body)


def test_failover_that_was_missed_is_asked_for_when_the_sentinel_is_heard_again() -> None:
    def body(fakes: Fakes) -> Coro[None]:
        redis = fakes.client()
        yield from redis.get("key")
        yield from listening(fakes)
        fakes.name(fakes.b, epoch=2)
        stream, fakes.sentinel.listener_stream = fakes.sentinel.listener_stream, None
        assert stream is not None
        stream.write_eof()
        while "idle" not in repr(redis):
            yield from coro.checkpoint()
        yield from redis.get("key")
        assert (commands(fakes.a), commands(fakes.b)) == ([b"GET"], [b"GET"])

    run(body)


def test_failover_while_the_client_connects_to_the_old_master() -> None:
    def body(fakes: Fakes) -> Coro[None]:
        del fakes.a.answers[b"HELLO"]
        redis = fakes.client()

        def use(group: TaskGroup) -> Coro[None]:
            task = group.spawn(redis.get("key"))
            while not fakes.a.hellos:
                yield from coro.checkpoint()
            yield from listening(fakes)
            fakes.name(fakes.b, epoch=2)
            yield from fakes.announce(fakes.a, fakes.b)
            assert (yield from task.join()) == b"value"

        yield from coro.task_group(use)

    run(body)


def test_closed_client_listens_no_more() -> None:
    def body(fakes: Fakes) -> Coro[None]:
        redis = fakes.client()
        yield from redis.get("key")
        yield from listening(fakes)
        stream = fakes.sentinel.listener_stream
        redis.close()
        while stream is not None and not stream.closed:
            yield from coro.checkpoint()
        with pytest.raises(ClosedError):
            yield from redis.get("key")

    run(body)


def test_caller_cancelled_at_any_step_of_the_search_leaves_nothing_behind() -> None:
    def once(fakes: Fakes, turns: int) -> Coro[bool]:
        redis = fakes.client()

        def use(group: TaskGroup) -> Coro[bool]:
            task = group.spawn(redis.get("key"))
            for _ in range(turns):
                yield from coro.checkpoint()
            task.cancel()
            assert (yield from redis.get("key")) == b"value"
            assert "0 unsent, 0 unanswered" in repr(redis)
            return task.exception is not None

        cancelled = yield from coro.task_group(use)
        redis.close()
        return cancelled

    def body(fakes: Fakes) -> Coro[None]:
        turns = 0
        while (yield from once(fakes, turns)):
            turns += 1
        assert turns > 10

    run(body)


# --- URLs --------------------------------------------------------------------------------------


def test_url_says_who_watches_whom_and_how_to_log_in() -> None:
    sentinel = Sentinel.from_url(
        "rediss+sentinel://me:p%40w@a,[::1]:7,c:8/my%2Fmaster/3?sentinel_username=you&sentinel_password=s%26s&timeout=7",
        connect_timeout=2,
    )
    assert [place.address for place in sentinel.sentinels] == ["a:26379", "[::1]:7", "c:8"]
    assert {(place.username, place.password, place.tls, place.database) for place in sentinel.sentinels} == {
        ("you", "s&s", True, 0)
    }
    settings = sentinel.settings
    assert sentinel.name == "my/master"
    assert (settings.username, settings.password, settings.tls, settings.database) == ("me", "p@w", True, 3)
    assert (settings.timeout, settings.connect_timeout) == (7, 2)
    assert "p@w" not in repr(sentinel) and "s&s" not in repr(sentinel)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis+sentinel://host", "write redis"),
        ("redis+sentinel:///mymaster", "write redis"),
        ("redis://host/mymaster", "write redis"),
        ("redis+sentinel://host/mymaster/x", "number of a database"),
        ("redis+sentinel://host:x/mymaster", "cannot be read"),
        ("redis+sentinel://host/mymaster?nothing=1", "nothing in a Redis URL"),
        ("redis+sentinel://:s3cret@host", "write redis"),
    ],
)
def test_url_that_names_no_master(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Sentinel.from_url(url)
    assert "s3cret" not in str(caught.value)


def test_sentinel_needs_a_name_and_somebody_to_ask() -> None:
    settings: Any = Redis.from_url("redis://host").settings
    with pytest.raises(ValueError, match="name at least one"):
        Sentinel([], "mymaster", settings)
    with pytest.raises(ValueError, match="which one"):
        Sentinel([settings], "", settings)
