"""python -m benchmarks.peers.primitives PEER WHAT COUNT: CPU seconds per operation, as JSON.

WHAT is `spawn` (start a task and see its end), `lock`, `queue` (put and get), `thread` (a call in a thread), or, for
coro alone, `timers` and `tasks`: an operation while COUNT timers or tasks are waiting.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Generator
from time import process_time
from typing import Any

import coro
from coro import Coro

AT_ONCE = 100  # tasks started between two turns of the loop
WAKES = 100_000  # operations among COUNT waiting tasks or timers


def nothing() -> Coro[None]:
    yield from ()


def coro_spawn(count: int) -> Coro[None]:
    def body(group: coro.TaskGroup) -> Coro[None]:
        for _ in range(count // AT_ONCE):
            for _ in range(AT_ONCE):
                group.spawn(nothing())
            yield from coro.checkpoint()

    yield from coro.task_group(body)


def coro_lock(count: int) -> Coro[None]:
    lock = coro.Lock()
    for _ in range(count):
        with (yield from lock.acquire()):
            pass


def coro_queue(count: int) -> Coro[None]:
    queue: coro.Queue[int] = coro.Queue()
    for _ in range(count):
        yield from queue.put(1)
        yield from queue.get()


def coro_thread(count: int) -> Coro[None]:
    for _ in range(count):
        yield from coro.to_thread(int)


async def asyncio_spawn(count: int) -> None:
    async def nothing() -> None:
        pass

    async with asyncio.TaskGroup() as group:
        for _ in range(count // AT_ONCE):
            for _ in range(AT_ONCE):
                group.create_task(nothing())
            await asyncio.sleep(0)


async def asyncio_lock(count: int) -> None:
    lock = asyncio.Lock()
    for _ in range(count):
        async with lock:
            pass


async def asyncio_queue(count: int) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    for _ in range(count):
        await queue.put(1)
        await queue.get()


async def asyncio_thread(count: int) -> None:
    for _ in range(count):
        await asyncio.to_thread(int)


CORO: dict[str, Callable[[int], Coro[None]]] = {
    "spawn": coro_spawn, "lock": coro_lock, "queue": coro_queue, "thread": coro_thread,
}  # fmt: skip
ASYNCIO: dict[str, Callable[[int], Awaitable[None]]] = {
    "spawn": asyncio_spawn, "lock": asyncio_lock, "queue": asyncio_queue, "thread": asyncio_thread,
}  # fmt: skip


def timed_coro(what: str, count: int) -> float:
    def main() -> Coro[float]:
        began = process_time()
        yield from CORO[what](count)
        return (process_time() - began) / count

    return coro.run(main())


def timed_asyncio(what: str, count: int) -> float:
    async def main() -> float:
        began = process_time()
        await ASYNCIO[what](count)
        return (process_time() - began) / count

    return asyncio.run(main())


def among_timers(count: int) -> float:
    """A timer set and cancelled while `count` others are armed."""

    def main() -> Coro[float]:
        timers = [coro.call_later(1000 + n % 977, int) for n in range(count)]
        began = process_time()
        for _ in range(WAKES):
            coro.call_later(1500, int).cancel()
        used = process_time() - began
        for timer in timers:
            timer.cancel()
        yield from ()
        return used / WAKES

    return coro.run(main())


def among_tasks(count: int) -> float:
    """A switch between two tasks while `count` others wait."""

    def body(group: coro.TaskGroup) -> Coro[float]:
        event = coro.Event()
        for _ in range(count):
            group.spawn(event.wait())
        yield from coro.sleep(0)
        began = process_time()
        yield from coro.gather(_switch(WAKES // 2), _switch(WAKES // 2))
        used = process_time() - began
        event.set()
        return used / WAKES

    return coro.run(_in_group(body))


def _in_group(body: Callable[[coro.TaskGroup], Coro[float]]) -> Coro[float]:
    return (yield from coro.task_group(body))


def _switch(count: int) -> Generator[Any, Any, None]:
    for _ in range(count):
        yield from coro.checkpoint()


def main(peer: str, what: str, count: int) -> None:
    if what in ("timers", "tasks"):
        print(json.dumps((among_timers if what == "timers" else among_tasks)(count)))
    else:
        print(json.dumps((timed_coro if peer == "coro" else timed_asyncio)(what, count)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
