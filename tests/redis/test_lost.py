"""How a shared connection ends, and how the next begins: deadlines, losses, dead servers, closing."""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

import coro
from coro import ClosedError, Coro, TaskGroup
from coro.redis import Redis, RedisConnectionError
from coro.redis.connection import Connection, open_connection
from tests.proxy import Proxy, through_proxy
from tests.redis.fake import FakeRedis, ManualClock, settle, with_fake
from tests.services import RedisServer, dead_port

NOTHING_WAITS = "0 unsent, 0 unanswered"


def expect_lost(redis: Redis, message: str) -> Coro[None]:
    with pytest.raises(RedisConnectionError, match=message):
        yield from redis.get("key")


def caught(call: Coro[Any]) -> Coro[Any]:
    """The result of `call`, or the connection error that it raises."""
    try:
        return (yield from call)
    except RedisConnectionError as error:
        return error


# --- Deadline --------------------------------------------------------------------------------


def test_server_that_does_not_answer_in_time_loses_the_connection() -> None:
    clock = ManualClock()

    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url, timeout=5)
        yield from redis.ping()
        for seconds in 7, 3:  # idle meanwhile: nothing is late
            clock.advance(seconds)
            yield from settle()

        def use(group: TaskGroup) -> Coro[None]:
            message = f"connection to Redis at {fake.address} was lost: GET was not answered within 5 s"
            first = group.spawn(expect_lost(redis, message))
            yield from fake.received(2)
            clock.advance(3)
            second = group.spawn(expect_lost(redis, message))
            yield from fake.received(3)
            clock.advance(1.9)
            yield from settle()
            assert not first.done
            clock.advance(0.1)
            yield from first.join()
            yield from second.join()  # behind the first one, it would be late as well

        yield from coro.task_group(use)
        assert NOTHING_WAITS in repr(redis)
        assert (yield from redis.ping())
        assert fake.connections == 2

    coro.run(with_fake({b"PING": b"+PONG\r\n"}, body), clock=clock)


def test_command_whose_caller_has_gone_has_the_same_deadline() -> None:
    clock = ManualClock()

    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url, timeout=5)
        with coro.move_on_after(4):
            yield from redis_get_with_time(redis, fake, clock, 4)
        yield from coro.gather(expect_lost(redis, "was lost"), pass_time(fake, clock, 1))

    coro.run(with_fake({}, body), clock=clock)


def redis_get_with_time(redis: Redis, fake: FakeRedis, clock: ManualClock, seconds: float) -> Coro[None]:
    """GET, while so many seconds pass."""
    yield from coro.gather(redis.get("key"), pass_time(fake, clock, seconds))


def pass_time(fake: FakeRedis, clock: ManualClock, seconds: float) -> Coro[None]:
    """When another command has come, move the clock."""
    yield from fake.received(len(fake.commands) + 1)
    clock.advance(seconds)


def test_half_open_connection_is_found_while_nobody_uses_it() -> None:
    clock = ManualClock()

    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url, timeout=5, health_check_interval=30)
        yield from redis.get("key")
        for pings in 1, 2:
            for _ in range(6):  # the watchdog looks each time when a command could be late
                clock.advance(5)
                yield from settle()
            assert fake.commands == [[b"GET", b"key"], *[[b"PING"]] * pings]
        del fake.answers[b"PING"]
        for _ in range(6):
            clock.advance(5)
            yield from settle()
        assert fake.connections == 1 and "1 unanswered" in repr(redis)
        clock.advance(5)
        yield from settle()
        assert f"idle, {NOTHING_WAITS}" in repr(redis)
        yield from redis.get("key")
        assert fake.connections == 2

    coro.run(with_fake({b"PING": b"+PONG\r\n", b"GET": b"$-1\r\n"}, body), clock=clock)


def test_deadline_counts_from_the_sending_of_each_command() -> None:
    clock = ManualClock()

    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url, timeout=5)

        def use(group: TaskGroup) -> Coro[None]:
            for number in range(5):
                task = group.spawn(redis.get("key"))
                yield from fake.received(number + 1)
                clock.advance(4)
                yield from settle()
                yield from fake.say(b"_\r\n")
                assert (yield from task.join()) is None

        yield from coro.task_group(use)
        assert fake.connections == 1

    coro.run(with_fake({}, body), clock=clock)


def test_connection_whose_answers_came_while_the_program_was_held_up_is_kept() -> None:
    clock = ManualClock()

    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url, timeout=5)

        def use(group: TaskGroup) -> Coro[None]:
            tasks = [group.spawn(redis.get("key")) for _ in range(3)]
            yield from fake.received(3)
            assert fake.stream is not None
            fake.stream.socket.sock.sendall(b"$1\r\nA\r\n" * 3)
            clock.advance(6)  # by a long computation, say: nobody has read that yet
            for task in tasks:
                assert (yield from task.join()) == b"A"

        yield from coro.task_group(use)
        yield from settle()
        fake.answers[b"GET"] = b"$1\r\nB\r\n"
        assert (yield from redis.get("key")) == b"B"
        assert fake.connections == 1

    coro.run(with_fake({}, body), clock=clock)


# --- The end of a connection --------------------------------------------------------------------


def test_connection_lost_fails_what_was_sent_and_what_was_not() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url, max_unanswered=1)

        def cut(group: TaskGroup) -> Coro[None]:
            lost = f"connection to Redis at {fake.address} was lost: the server closed the connection; GET "
            group.spawn(expect_lost(redis, lost + "had been sent, whether it was carried out is not known"))
            group.spawn(expect_lost(redis, lost + "was not sent"))
            yield from fake.received(1)
            assert fake.stream is not None
            fake.stream.write_eof()

        yield from coro.task_group(cut)
        assert NOTHING_WAITS in repr(redis)
        assert [command[0] for command in fake.commands] == [b"GET"]

    coro.run(with_fake({}, body))


def test_lost_connection_is_opened_again_by_the_next_call_and_nothing_sent_twice() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url)
        yield from redis.ping()

        def cut(group: TaskGroup) -> Coro[None]:
            group.spawn(expect_lost(redis, "was lost"))
            yield from fake.received(2)
            assert fake.stream is not None
            fake.stream.close()

        # The fake's own task notices that its stream was closed under it.
        yield from coro.task_group(cut)
        yield from redis.ping()
        assert [command[0] for command in fake.commands] == [b"PING", b"GET", b"PING"]
        assert fake.connections == 2

    coro.run(with_fake({b"PING": b"+PONG\r\n"}, body))


@pytest.mark.parametrize("idempotent", [True, False])
def test_only_what_is_declared_idempotent_is_sent_again(idempotent: bool) -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url)

        def cut(group: TaskGroup) -> Coro[None]:
            task = group.spawn(caught(redis.execute("SET", "key", "value", idempotent=idempotent)))
            yield from fake.received(1)
            assert fake.stream is not None
            fake.answers[b"SET"] = b"+OK\r\n"
            fake.stream.close()
            outcome = yield from task.join()
            if idempotent:
                assert outcome == b"OK"
            else:
                assert isinstance(outcome, RedisConnectionError) and outcome.sent

        yield from coro.task_group(cut)
        assert len(fake.commands) == 1 + idempotent

    coro.run(with_fake({}, body))


def test_connection_that_ended_while_idle_costs_no_call_anything(redis_server: RedisServer) -> None:
    def body(proxy: Proxy) -> Coro[None]:
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")
        for _ in range(3):
            yield from redis.ping()
            proxy.half_close()
            yield from settle()
            assert "idle" in repr(redis)
        assert proxy.connections == 3

    coro.run(through_proxy(redis_server.port, body))


@pytest.mark.parametrize(("reply", "message"), [(b"?\r\n", "is no reply"), (b"$1\r\nAB\r\n", "not CRLF")])
def test_connection_on_which_nonsense_comes_is_closed(reply: bytes, message: str) -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url)
        yield from expect_lost(redis, message)
        fake.answers[b"GET"] = b"_\r\n"
        yield from redis.get("key")
        assert fake.connections == 2

    coro.run(with_fake({b"GET": reply}, body))


def test_connection_on_which_a_reply_too_many_comes_is_closed() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url)
        assert (yield from redis.get("key")) == b"A"
        while "idle" not in repr(redis):
            yield from coro.checkpoint()
        fake.answers[b"GET"] = b"$1\r\nC\r\n"
        assert (yield from redis.get("key")) == b"C"
        assert fake.connections == 2

    coro.run(with_fake({b"GET": b"$1\r\nA\r\n$1\r\nB\r\n"}, body))


def test_replies_before_a_broken_one_reach_their_callers() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url)

        def use(group: TaskGroup) -> Coro[None]:
            first, second = [group.spawn(caught(redis.get("key"))) for _ in range(2)]
            yield from fake.received(2)
            yield from fake.say(b"$1\r\nA\r\n?\r\n")
            assert (yield from first.join()) == b"A"
            assert isinstance((yield from second.join()), RedisConnectionError)

        yield from coro.task_group(use)

    coro.run(with_fake({}, body))


# --- Reaching a dead server ------------------------------------------------------------------------


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When an attempt to connect was made, by the loop's clock."""
    times: list[float] = []

    def noted(*args: Any) -> Coro[Connection]:
        times.append(coro.now())
        return (yield from open_connection(*args))

    monkeypatch.setattr("coro.redis.connection.open_connection", noted)
    return times


def dead_server() -> Redis:
    return Redis.from_url(f"redis://127.0.0.1:{dead_port()}")


def test_callers_share_one_attempt_to_connect(attempts: list[float]) -> None:
    redis = dead_server()
    coro.run(coro.gather(*[expect_lost(redis, "Connection refused") for _ in range(50)]))
    assert len(attempts) == 1
    assert NOTHING_WAITS in repr(redis)


def test_every_caller_gets_an_exception_of_its_own() -> None:
    """One object raised in many tasks would gather all their tracebacks."""
    redis = dead_server()
    errors = coro.run(coro.gather(*[caught(redis.get("key")) for _ in range(5)]))
    assert len({id(error) for error in errors}) == 5
    assert len({str(error) for error in errors}) == 1


def test_calls_soon_after_a_failed_attempt_fail_at_once(attempts: list[float]) -> None:
    redis = dead_server()

    def main() -> Coro[None]:
        yield from expect_lost(redis, "Connection refused")
        yield from expect_lost(redis, r"Connection refused \(trying again in 0\.\d+ s\)")

    coro.run(main(), clock=ManualClock())
    assert len(attempts) == 1


def test_pause_between_attempts_grows_to_a_second(attempts: list[float]) -> None:
    redis, clock = dead_server(), ManualClock()

    def main() -> Coro[None]:
        for _ in range(2000):
            yield from expect_lost(redis, "Connection refused")
            clock.advance(0.01)

    coro.run(main(), clock=clock)
    pauses = [later - earlier for earlier, later in pairwise(attempts)]
    assert 0.02 <= pauses[0] < 0.07
    assert min(pauses[6:]) > 0.45
    assert max(pauses) < 1.02


def test_server_that_is_back_is_found_again(own_redis: Callable[[], RedisServer]) -> None:
    server, clock = own_redis(), ManualClock()
    redis = Redis.from_url(server.url())

    def main() -> Coro[None]:
        yield from redis.ping()
        server.kill()
        yield from settle()
        yield from expect_lost(redis, "Connection refused")
        server.start()
        yield from expect_lost(redis, "trying again")
        clock.advance(1)
        assert (yield from redis.ping())

    coro.run(main(), clock=clock)


def test_pauses_are_short_again_after_a_success(own_redis: Callable[[], RedisServer], attempts: list[float]) -> None:
    server, clock = own_redis(), ManualClock()
    redis = Redis.from_url(server.url())

    def main() -> Coro[None]:
        server.kill()
        for _ in range(10):
            yield from expect_lost(redis, "Connection refused")
            clock.advance(1)
        server.start()
        yield from redis.ping()
        server.kill()
        yield from settle()
        attempts.clear()
        for _ in range(2):
            yield from expect_lost(redis, "Connection refused")
            clock.advance(0.06)

    coro.run(main(), clock=clock)
    assert len(attempts) == 2


# --- Closing -----------------------------------------------------------------------------------


def test_close_ends_every_wait_and_the_client() -> None:
    def body(fake: FakeRedis) -> Coro[None]:
        redis = Redis.from_url(fake.url, max_unanswered=1)

        def expect_closed() -> Coro[None]:
            with pytest.raises(ClosedError, match=fake.address):
                yield from redis.get("key")

        def use(group: TaskGroup) -> Coro[None]:
            tasks = [group.spawn(expect_closed()) for _ in range(3)]
            yield from fake.received(1)
            redis.close()
            redis.close()
            for task in tasks:
                yield from task.join()

        yield from coro.task_group(use)
        yield from expect_closed()
        assert repr(redis) == f"<Redis at {fake.address} closed, {NOTHING_WAITS}>"

    coro.run(with_fake({}, body))


def test_call_right_after_close_is_refused(redis_database: str) -> None:
    redis = Redis.from_url(redis_database)

    def main() -> Coro[None]:
        yield from redis.ping()
        redis.close()
        with pytest.raises(ClosedError):
            yield from redis.ping()

    coro.run(main())


def test_client_that_was_never_used_can_be_closed() -> None:
    Redis.from_url("redis://localhost").close()


def test_connection_ends_with_the_run_and_another_run_opens_its_own(redis_server: RedisServer) -> None:
    redis = Redis.from_url(redis_server.url())
    assert coro.run(redis.ping())
    assert "idle" in repr(redis)
    assert coro.run(redis.ping())
    gc.collect()  # a socket left open would be reported


def test_caller_that_outlives_the_main_task_gets_closed_error(redis_database: str) -> None:
    redis = Redis.from_url(redis_database)
    outcome: list[object] = []

    def linger() -> Coro[None]:
        try:
            yield from coro.sleep_forever()
        finally:
            with coro.shield():
                try:
                    outcome.append((yield from redis.ping()))
                except ClosedError as error:
                    outcome.append(error)

    def main() -> Coro[None]:
        yield from redis.ping()
        coro.background(linger())
        yield from coro.checkpoint()

    coro.run(main())
    assert isinstance(outcome[0], ClosedError)
