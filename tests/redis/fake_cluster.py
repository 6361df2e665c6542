"""A cluster of two nodes that say what a test wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import coro
from coro import Coro
from coro.redis import RedisCluster, RedisConnectionError, ReplyError
from coro.redis.slots import SLOTS
from tests.redis.fake import FakeRedis, ManualClock, with_fake

A_KEY, B_KEY = "a", "b"  # slots 15495 and 3300
HALF = SLOTS // 2
VALUE, OK = b"$5\r\nvalue\r\n", b"+OK\r\n"


def map_of(low: Sequence[int], high: Sequence[int]) -> bytes:
    """A reply to CLUSTER SLOTS: who serves the lower half of the slots (with B_KEY), and who the upper (with A_KEY)."""
    return b"*2\r\n" + range_of(0, HALF - 1, low) + range_of(HALF, SLOTS - 1, high)


def range_of(first: int, last: int, ports: Sequence[int]) -> bytes:
    nodes = b"".join(b"*3\r\n+127.0.0.1\r\n:%d\r\n+id\r\n" % port for port in ports)
    return b"*%d\r\n:%d\r\n:%d\r\n%b" % (2 + len(ports), first, last, nodes)


class FakeCluster:
    """Two nodes, `a` for the upper half of the slots and `b` for the lower, that both say so."""

    def __init__(self, a: FakeRedis, b: FakeRedis) -> None:
        self.a, self.b = a, b
        self.nodes = (a, b)
        self.tell(low=[b.listener.port], high=[a.listener.port])
        for node in self.nodes:
            node.answers |= {b"GET": VALUE, b"PING": b"+PONG\r\n", b"READONLY": OK, b"ASKING": OK}

    def tell(self, low: Sequence[int], high: Sequence[int]) -> None:
        for node in self.nodes:
            node.answers[b"CLUSTER"] = map_of(low, high)

    def client(self, **options: Any) -> RedisCluster:
        return RedisCluster.from_url(f"redis://{self.a.address},{self.b.address}", **options)

    @property
    def asked(self) -> int:
        """How many times a map was asked for."""
        return sum(command[0] == b"CLUSTER" for node in self.nodes for command in node.commands)


def run(body: Callable[[FakeCluster], Coro[None]], clock: Callable[[], float] | None = None) -> None:
    """Run a test while time stands still, or passes as `clock` says."""

    def with_a(a: FakeRedis) -> Coro[None]:
        yield from with_fake({}, lambda b: body(FakeCluster(a, b)))

    coro.run(with_fake({}, with_a), clock=clock or ManualClock())


def gets(node: FakeRedis) -> int:
    return sum(command[0] == b"GET" for command in node.commands)


def caught(call: Coro[Any]) -> Coro[Any]:
    """The result of `call`, or the error that it raises."""
    try:
        return (yield from call)
    except (ReplyError, RedisConnectionError) as error:
        return error
