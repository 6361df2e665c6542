"""python -m benchmarks.peers.switching PEER TASKS ROUNDS: CPU seconds per task switch, as JSON.

Every task gives way ROUNDS times, and each time every other task runs before it is its turn again. The clock
runs from the first task's first turn to the last task's last, so that making and ending tasks is not counted.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from time import process_time
from typing import Any

import coro
from coro import Coro

Clock = list[float]  # when each task began and ended


def with_coro(tasks: int, rounds: int, clock: Clock) -> None:
    def work() -> Coro[None]:
        clock.append(process_time())
        for _ in range(rounds):
            yield from coro.checkpoint()
        clock.append(process_time())

    def main() -> Coro[None]:
        yield from coro.gather(*(work() for _ in range(tasks)))

    coro.run(main())


def with_asyncio(tasks: int, rounds: int, clock: Clock, new_loop: Callable[[], Any] | None = None) -> None:
    import asyncio

    async def work() -> None:
        clock.append(process_time())
        for _ in range(rounds):
            await asyncio.sleep(0)
        clock.append(process_time())

    async def main() -> None:
        await asyncio.gather(*(work() for _ in range(tasks)))

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def with_uvloop(tasks: int, rounds: int, clock: Clock) -> None:
    import uvloop

    with_asyncio(tasks, rounds, clock, uvloop.new_event_loop)


def with_trio(tasks: int, rounds: int, clock: Clock) -> None:
    import trio

    async def work() -> None:
        clock.append(process_time())
        for _ in range(rounds):
            await trio.lowlevel.checkpoint()
        clock.append(process_time())

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(work)

    trio.run(main)


def with_curio(tasks: int, rounds: int, clock: Clock) -> None:
    import curio

    async def work() -> None:
        clock.append(process_time())
        for _ in range(rounds):
            await curio.sleep(0)
        clock.append(process_time())

    async def main() -> None:
        async with curio.TaskGroup() as group:
            for _ in range(tasks):
                await group.spawn(work)

    curio.run(main)


def with_tinyio(tasks: int, rounds: int, clock: Clock) -> None:
    import tinyio

    def work() -> Generator[Any, Any, None]:
        clock.append(process_time())
        for _ in range(rounds):
            yield
        clock.append(process_time())

    def main() -> Generator[Any, Any, None]:
        yield [work() for _ in range(tasks)]

    tinyio.Loop().run(main())


def with_gevent(tasks: int, rounds: int, clock: Clock) -> None:
    import gevent

    def work() -> None:
        clock.append(process_time())
        for _ in range(rounds):
            gevent.sleep(0)
        clock.append(process_time())

    gevent.joinall([gevent.spawn(work) for _ in range(tasks)])


def with_greenlet(tasks: int, rounds: int, clock: Clock) -> None:
    """No loop at all: each greenlet switches to the next one itself."""
    from greenlet import getcurrent, greenlet

    def work(following: int) -> None:
        getcurrent().parent.switch()  # started one by one from outside: none is inside of another's start
        clock.append(process_time())
        for _ in range(rounds):
            ring[following].switch()
        clock.append(process_time())

    ring = [greenlet(work) for _ in range(tasks)]
    for number, member in enumerate(ring):
        member.switch((number + 1) % tasks)
    for member in ring:  # the first turn goes round until the first one ends; the others are at their end by then
        member.switch()


def with_generator(tasks: int, rounds: int, clock: Clock) -> None:
    """No loop either: the least that a switch between generators can cost."""

    def work() -> Generator[None, None, None]:
        clock.append(process_time())
        for _ in range(rounds):
            yield
        clock.append(process_time())

    sends = [work().send for _ in range(tasks)]
    for _ in range(rounds):
        for send in sends:
            send(None)
    for send in sends:
        with suppress(StopIteration):
            send(None)


def with_threads(tasks: int, rounds: int, clock: Clock) -> None:
    """Threads that hand a turn round: each waits for its lock and releases the next one's."""
    turns = [threading.Lock() for _ in range(tasks)]
    for turn in turns:
        turn.acquire()

    def work(own: threading.Lock, following: threading.Lock) -> None:
        own.acquire()
        clock.append(process_time())
        for _ in range(rounds):
            following.release()
            own.acquire()
        following.release()
        clock.append(process_time())

    threading.stack_size(64 * 1024)
    pairs = zip(turns, turns[1:] + turns[:1], strict=True)
    threads = [threading.Thread(target=work, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    turns[0].release()
    for thread in threads:
        thread.join()


PEERS: dict[str, Callable[[int, int, Clock], None]] = {
    "coro": with_coro,
    "asyncio": with_asyncio,
    "uvloop": with_uvloop,
    "trio": with_trio,
    "curio": with_curio,
    "tinyio": with_tinyio,
    "gevent": with_gevent,
    "greenlet": with_greenlet,
    "generator": with_generator,
    "threads": with_threads,
}


def main(peer: str, tasks: int, rounds: int) -> None:
    clock: Clock = []
    PEERS[peer](tasks, rounds, clock)
    if len(clock) != 2 * tasks:
        raise SystemExit(f"{len(clock) // 2} of {tasks} tasks ran")
    print(json.dumps((max(clock) - min(clock)) / (tasks * rounds)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
