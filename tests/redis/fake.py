"""A Redis that answers what, and when, a test says; and a clock that stands still until the test moves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import coro
from coro import Coro, Stream, TaskGroup
from coro.redis.resp import Parser

T = TypeVar("T")

WELCOME = b"%0\r\n"  # to HELLO


class FakeRedis:
    """Collects commands. `answers` says what is written when a command comes; nothing when it is not in there."""

    def __init__(self, answers: dict[bytes, bytes]) -> None:
        self.answers = {b"HELLO": WELCOME, b"CLIENT": b"+OK\r\n", **answers}
        self.commands: list[list[bytes]] = []  # all but HELLO and CLIENT, of the login
        self.connections = 0
        self.hellos = 0
        self.listener = coro.listen("127.0.0.1", 0)
        self.stream: Stream | None = None  # the connection opened last

    @property
    def url(self) -> str:
        return f"redis://{self.address}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listener.port}"

    def serve(self, stream: Stream) -> Coro[None]:
        self.connections += 1
        self.stream = stream
        parser = Parser()
        while data := (yield from stream.read()):
            command: Any
            for command in parser.feed(data):
                self.hellos += command[0] == b"HELLO"
                answer = self.answer(command)
                if answer is not None:
                    yield from stream.write(answer)

    def answer(self, command: list[bytes]) -> bytes | None:
        if command[0] not in (b"HELLO", b"CLIENT"):
            self.commands.append(command)
        return self.answers.get(command[0])

    def say(self, data: bytes) -> Coro[None]:
        """Write to the client, on the connection opened last."""
        assert self.stream is not None
        yield from self.stream.write(data)

    def received(self, count: int) -> Coro[None]:
        """Return when that many commands have come."""
        while len(self.commands) < count:
            yield from coro.checkpoint()


def with_fake(
    answers: dict[bytes, bytes], body: Callable[[FakeRedis], Coro[T]], kind: type[FakeRedis] = FakeRedis
) -> Coro[T]:
    """Run `body` with a fake Redis in the same loop; its result. Suspends."""

    def run(group: TaskGroup) -> Coro[T]:
        fake = kind(answers)
        group.spawn(coro.serve(fake.listener, fake.serve), name="fake Redis")
        try:
            return (yield from body(fake))
        finally:
            group.cancel()
            fake.listener.close()

    return coro.task_group(run)


def settle() -> Coro[None]:
    """Let the loop turn until what can happen without new input, over loopback sockets, has happened."""
    for _ in range(50):
        yield from coro.checkpoint()


class ManualClock:
    """A clock for `coro.run(..., clock=...)`."""

    def __init__(self) -> None:
        self.time = 1000.0

    def advance(self, seconds: float) -> None:
        self.time += seconds

    def __call__(self) -> float:
        return self.time
