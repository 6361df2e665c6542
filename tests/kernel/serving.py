"""A server of a few lines, for tests of what lies below it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import coro
from coro import Coro, Listener, Stream, TaskGroup

T = TypeVar("T")


def shout(stream: Stream) -> Coro[None]:
    """Answer each line in capitals."""
    while True:
        line = yield from stream.read_until(b"\n")
        yield from stream.write(line.upper())


def with_server(
    body: Callable[[Listener], Coro[T]],
    listener: Listener | None = None,
    handler: Callable[[Stream], Coro[None]] = shout,
) -> Coro[T]:
    """Run `body` while `handler` serves."""
    listening = listener or coro.listen("127.0.0.1", 0)

    def both(group: TaskGroup) -> Coro[T]:
        group.spawn(coro.serve(listening, handler))
        try:
            return (yield from body(listening))
        finally:
            listening.close()
            group.cancel()

    return coro.task_group(both)


def ask(stream: Stream, line: bytes) -> Coro[bytes]:
    """Send a line; the line that comes back. Closes the stream."""
    try:
        yield from stream.write(line)
        return (yield from stream.read_until(b"\n"))
    finally:
        stream.close()
