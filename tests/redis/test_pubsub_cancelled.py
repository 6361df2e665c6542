"""Subscribers that are cancelled, thousands of them, or hear late or no more: each message once, or a gap for it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

import pytest

import coro
from coro import Coro, TaskGroup
from coro.redis import Gap, Message, PubSub, Redis, RedisConnectionError
from tests.proxy import Proxy, through_proxy
from tests.redis.test_cancelled import ended
from tests.services import RedisServer

SUBSCRIBERS = 16  # at once
SHARES = 2  # tests that the rounds are shared among
ROUNDS = 325  # of each subscriber in each share: more than 10,000 in each of the two protocols
STEPS = 24  # turns of the loop, about what subscribing takes
PER_CONNECTION = 25  # rounds
ALL_IS_BACK = "0 of 50 own connections lent"

Check = Callable[[Proxy, Redis, Redis], Coro[None]]


class Subscriber(Protocol):
    def __call__(self, group: TaskGroup, name: str) -> Coro[None]: ...


@pytest.fixture(params=["redis_server", "old_redis_server"], ids=["resp3", "resp2"])
def port(request: pytest.FixtureRequest) -> int:
    server: RedisServer = request.getfixturevalue(request.param)
    return server.port


def behind_proxy(port: int, check: Check) -> None:
    """Run `check` with the proxy, a client that is behind it and one that is not; it leaves nothing behind."""

    def body(proxy: Proxy) -> Coro[None]:
        redis = Redis.from_url(f"redis://127.0.0.1:{proxy.port}")
        publisher = Redis.from_url(f"redis://127.0.0.1:{port}")
        yield from check(proxy, redis, publisher)
        while ALL_IS_BACK not in repr(redis.pool) or (yield from publisher.pubsub_channels()):
            yield from coro.checkpoint()

    coro.run(through_proxy(port, body))


def rounds_of(share: int) -> range:
    return range(share * ROUNDS, (share + 1) * ROUNDS)


def cut_short(group: TaskGroup, work: Coro[object], number: int) -> Coro[None]:
    """Begin the work, and cancel it after as many turns of the loop as the number of the round says."""
    task = group.spawn(work)
    for _ in range(number % STEPS):
        yield from coro.checkpoint()
    if number % STEPS < STEPS - 1:  # the last is not cut short
        task.cancel()


def each_in_a_group(subscriber: Subscriber) -> Coro[None]:
    """All subscribers, each with a group and a name of its own."""
    names = [f"name {number}" for number in range(SUBSCRIBERS)]
    yield from coro.gather(*[coro.task_group(partial(subscriber, name=name)) for name in names])


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("ends", [False, True], ids=["subscribe", "unsubscribe"])
def test_thousands_of_changes_cancelled_at_every_step(port: int, ends: bool, share: int) -> None:
    """Subscribe to a, or to its end, cancelled; then to b: it is b whose message comes, and then no channel's."""

    def check(proxy: Proxy, redis: Redis, publisher: Redis) -> Coro[None]:
        def subscriber(group: TaskGroup, name: str) -> Coro[None]:
            for number in rounds_of(share):
                if number % PER_CONNECTION == 0:
                    pubsub = redis.pubsub()
                    if ends:
                        yield from pubsub.subscribe(f"other {name}")
                yield from round_of(group, pubsub, f"a of {name}", f"b of {name}", number)
                if number % PER_CONNECTION == PER_CONNECTION - 1:
                    pubsub.close()
            pubsub.close()

        def round_of(group: TaskGroup, pubsub: PubSub, a: str, b: str, number: int) -> Coro[None]:
            if ends:
                yield from pubsub.subscribe(a)
            yield from cut_short(group, pubsub.unsubscribe(a) if ends else pubsub.subscribe(a), number)
            yield from pubsub.subscribe(b)
            assert (yield from publisher.publish(b, number)) == 1
            assert (yield from pubsub.get_message()) == Message(b.encode(), b"%d" % number)
            yield from pubsub.unsubscribe(a, b)
            assert (yield from publisher.publish(a, number)) == (yield from publisher.publish(b, number)) == 0

        yield from each_in_a_group(subscriber)

    behind_proxy(port, check)


@pytest.mark.parametrize("share", range(SHARES))
def test_thousands_of_receivers_cancelled_at_every_step(port: int, share: int) -> None:
    """Whoever waits for a message is cancelled before, while or after it comes: the next one gets it, if he did not."""

    def check(proxy: Proxy, redis: Redis, publisher: Redis) -> Coro[None]:
        def subscriber(group: TaskGroup, name: str) -> Coro[None]:
            pubsub = redis.pubsub()
            yield from pubsub.subscribe(name)
            got: list[int] = []

            def take() -> Coro[None]:
                message = yield from pubsub.get_message()
                assert isinstance(message, Message) and message.channel == name.encode()
                got.append(int(message.data))

            for number in rounds_of(share):
                publishing = group.spawn(publisher.publish(name, number))
                yield from cut_short(group, take(), number)
                yield from publishing.join()
            while len(got) < ROUNDS:
                yield from take()
            assert got == list(rounds_of(share))
            pubsub.close()

        yield from each_in_a_group(subscriber)

    behind_proxy(port, check)


def test_subscribers_that_do_not_wait_for_what_comes_late(port: int) -> None:
    """All that the server says comes 100 ms late, and who waits gives up at any time: nothing is lost or mixed up."""
    numbers = random.Random(5)

    def check(proxy: Proxy, redis: Redis, publisher: Redis) -> Coro[None]:
        late = 0

        def subscriber(group: TaskGroup, name: str) -> Coro[None]:
            nonlocal late
            pubsub = redis.pubsub()
            yield from pubsub.subscribe(name)
            got: list[int] = []

            def take() -> Coro[None]:
                while True:
                    message = yield from pubsub.get_message()
                    assert isinstance(message, Message)
                    if message.channel == name.encode():
                        got.append(int(message.data))
                    else:
                        assert message == Message(f"{name} too".encode(), b"of it")

            for number in range(20):
                yield from publisher.publish(name, number)
                yield from publisher.publish(f"{name} too", "of it")
                change = numbers.choice([pubsub.subscribe, pubsub.unsubscribe])
                for work in change(f"{name} too"), take():
                    with coro.move_on_after(numbers.uniform(0, 0.15)) as scope:
                        yield from work
                    late += scope.cancelled_caught
            taking = group.spawn(take())
            while len(got) < 20:
                yield from coro.checkpoint()
            assert got == list(range(20))
            taking.cancel()
            yield from ended(taking)
            pubsub.close()

        proxy.delay = 0.1
        yield from each_in_a_group(subscriber)
        assert late > 20 * SUBSCRIBERS  # who takes messages always gives up, who changes something at times

    behind_proxy(port, check)


def test_half_closed_connections_of_subscribers_at_any_time(port: int) -> None:
    """The server says that it has finished, now and then: each message comes once, in order, or a gap stands for it."""

    def check(proxy: Proxy, redis: Redis, publisher: Redis) -> Coro[None]:
        messages = gaps = 0
        ended = False

        def subscriber(group: TaskGroup, name: str) -> Coro[None]:
            pubsub = redis.pubsub()
            yield from surely(lambda: pubsub.subscribe(name))
            publishing = group.spawn(publish(name))
            changing = group.spawn(change(pubsub, f"{name} too"))
            yield from listen(pubsub, name)
            publishing.cancel()
            yield from changing.join()
            pubsub.close()

        def publish(name: str) -> Coro[None]:
            """Numbers, and in the end that it is the last, until it is heard."""
            for number in itertools.count():
                yield from publisher.publish(name, "last" if ended else number)
                yield from publisher.publish(f"{name} too", "of it")

        def change(pubsub: PubSub, name: str) -> Coro[None]:
            while not ended:
                yield from surely(lambda: pubsub.subscribe(name))
                yield from pubsub.unsubscribe(name)

        def listen(pubsub: PubSub, name: str) -> Coro[None]:
            nonlocal messages, gaps
            expected, known = 0, True
            while True:
                item = yield from pubsub.get_message()
                if isinstance(item, Gap):
                    gaps += 1
                    known = False
                elif item.channel == name.encode():
                    if item.data == b"last":
                        return
                    assert int(item.data) == expected if known else int(item.data) >= expected
                    expected, known = int(item.data) + 1, True
                    messages += 1

        def end() -> Coro[None]:
            nonlocal ended
            for number in range(30):
                goal = messages + 100 + number
                while messages < goal:
                    yield from coro.checkpoint()
                proxy.half_close()
            ended = True

        yield from coro.gather(end(), each_in_a_group(subscriber))
        assert gaps

    behind_proxy(port, check)


def surely(work: Callable[[], Coro[None]]) -> Coro[None]:
    """Do the work until it succeeds."""
    while True:
        with suppress(RedisConnectionError):
            return (yield from work())
        yield from coro.sleep(0.001)
