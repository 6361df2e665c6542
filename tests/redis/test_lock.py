"""Locks: one holder at a time, given up by its holder only, and what happens when the time runs out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import coro
from coro import Coro, TaskGroup
from coro.redis import Lock, LockLostError, Redis
from tests.proxy import Proxy, through_proxy
from tests.redis.fake import ManualClock, settle
from tests.services import RedisServer


def test_one_holder_at_a_time_and_fences_rise(database: str) -> None:
    redis = Redis.from_url(database)
    inside = 0
    fences: list[int] = []

    def work(lock: Lock) -> Coro[None]:
        nonlocal inside
        inside += 1
        assert inside == 1
        fences.append(lock.fence)
        yield from redis.ping()
        inside -= 1

    coro.run(coro.gather(*[redis.lock("report", 30).hold(work) for _ in range(10)]))
    assert fences == sorted(set(fences)) and len(fences) == 10


def test_lock_that_others_hold_is_not_waited_for_longer_than_told(database: str) -> None:
    redis = Redis.from_url(database)

    def main() -> Coro[None]:
        first, second = redis.lock("name", 30), redis.lock("name", 30)
        assert (yield from first.acquire())
        assert 0 < first.remaining() <= 30
        assert not (yield from second.acquire(blocking_timeout=0.05))
        with pytest.raises(LockLostError, match="'name' was held by others for 0 s"):
            yield from second.hold(lambda lock: coro.sleep(0), blocking_timeout=0)
        with pytest.raises(RuntimeError, match="held by this object already"):
            yield from first.acquire()
        yield from first.release()
        assert first.remaining() == 0
        assert (yield from second.acquire(blocking_timeout=0))
        assert second.fence == first.fence + 1

    coro.run(main())


def test_only_the_holder_gives_a_lock_up_or_extends_it(database: str) -> None:
    redis = Redis.from_url(database)

    def main() -> Coro[None]:
        first, second = redis.lock("name", 30), redis.lock("name", 30)
        yield from first.acquire()
        yield from first.extend()
        yield from redis.delete("name")  # as if its time had run out
        assert (yield from second.acquire())
        with pytest.raises(LockLostError, match="the lock 'name' was lost"):
            yield from first.release()
        with pytest.raises(LockLostError):
            yield from first.extend()
        assert first.remaining() == 0
        assert (yield from redis.exists("name")) == 1
        yield from second.release()
        assert (yield from redis.exists("name")) == 0

    coro.run(main())


def test_extending_starts_the_time_anew(database: str) -> None:
    redis, clock = Redis.from_url(database), ManualClock()

    def main() -> Coro[None]:
        lock = redis.lock("name", 30)
        yield from lock.acquire()
        clock.advance(20)
        assert lock.remaining() == pytest.approx(10)
        yield from redis.pexpire("name", 15_000)
        yield from lock.extend()
        assert lock.remaining() == pytest.approx(30)
        assert (yield from redis.pttl("name")) > 20_000

    coro.run(main(), clock=clock)


def test_lock_is_extended_while_it_is_held(database: str) -> None:
    redis, clock = Redis.from_url(database), ManualClock()

    def work(lock: Lock) -> Coro[str]:
        for _ in range(10):
            clock.advance(11)  # more than a third of the time
            while lock.remaining() < 25:
                yield from coro.checkpoint()
        return "done"

    def main() -> Coro[None]:
        assert (yield from redis.lock("name", 30).hold(work)) == "done"
        assert (yield from redis.exists("name")) == 0

    coro.run(main(), clock=clock)


def test_body_is_cancelled_when_the_lock_is_lost(database: str) -> None:
    redis, clock = Redis.from_url(database), ManualClock()
    cancelled = False

    def work(lock: Lock) -> Coro[None]:
        nonlocal cancelled
        yield from redis.delete("name")
        clock.advance(11)
        try:
            yield from coro.sleep_forever()
        finally:
            cancelled = True

    def main() -> Coro[None]:
        with pytest.raises(LockLostError, match="'name' was lost"):
            yield from redis.lock("name", 30).hold(work)

    coro.run(main(), clock=clock)
    assert cancelled


def test_error_of_the_body_is_raised_also_when_the_lock_is_lost_meanwhile(database: str) -> None:
    redis, clock = Redis.from_url(database), ManualClock()

    def work(lock: Lock) -> Coro[None]:
        yield from redis.delete("name")
        clock.advance(11)
        try:
            yield from coro.sleep_forever()
        finally:
            raise KeyError("ours")

    def main() -> Coro[None]:
        with pytest.raises(KeyError, match="ours"):
            yield from redis.lock("name", 30).hold(work)

    coro.run(main(), clock=clock)


def test_body_is_cancelled_when_the_server_cannot_be_reached_until_the_time_is_up(redis_server: RedisServer) -> None:
    clock = ManualClock()

    def body(proxy: Proxy) -> Coro[None]:
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}", timeout=1000)

        def work(lock: Lock) -> Coro[None]:
            proxy.hold_replies()
            for _ in range(4):
                clock.advance(10)
                yield from settle()
            yield from coro.sleep_forever()

        def release() -> Coro[None]:
            with pytest.raises(LockLostError):
                yield from redis.lock("unreachable", 30).hold(work)

        yield from release()

    coro.run(through_proxy(redis_server.port, body), clock=clock)


def test_lock_is_given_up_when_its_body_fails_or_is_cancelled(database: str) -> None:
    redis = Redis.from_url(database)

    def fail(lock: Lock) -> Coro[None]:
        yield from coro.checkpoint()
        raise KeyError("ours")

    def main() -> Coro[None]:
        with pytest.raises(KeyError, match="ours"):
            yield from redis.lock("name", 30).hold(fail)
        assert (yield from redis.exists("name")) == 0
        with coro.move_on_after(0.05):
            yield from redis.lock("name", 30).hold(lambda lock: coro.sleep_forever())
        assert (yield from redis.exists("name")) == 0

    coro.run(main())


def test_lock_whose_taking_is_cancelled_at_any_step_is_not_left_behind(database: str) -> None:
    redis = Redis.from_url(database)

    def is_cancelled(group: TaskGroup, turns: int) -> Coro[bool]:
        lock = redis.lock("name", 30)
        task = group.spawn(lock.acquire())
        for _ in range(turns):
            yield from coro.checkpoint()
        task.cancel()
        try:
            assert (yield from task.join())
        except coro.TaskCancelled:
            assert (yield from redis.exists("name")) == 0
            return True
        yield from lock.release()
        return False

    def body(group: TaskGroup) -> Coro[None]:
        for _ in range(10):
            turns = 0
            while (yield from is_cancelled(group, turns)):
                turns += 1

    coro.run(coro.task_group(body))


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_time_that_makes_no_sense(timeout: float) -> None:
    with pytest.raises(ValueError, match="a lock is held for a number of seconds"):
        Redis.from_url("redis://localhost").lock("name", timeout)


def test_keys_of_a_lock_are_in_one_slot_of_a_cluster() -> None:
    lock: Callable[[str], Lock] = lambda name: Redis.from_url("redis://localhost").lock(name, 30)  # noqa: E731
    assert lock("name")._keys == ("name", "{name}:fence")
    assert lock("a{b}")._keys == ("a{b}", "a{b}:fence")
