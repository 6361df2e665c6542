"""python -m benchmarks.peers.parking PEER TASKS resident|traced: bytes per parked task, as JSON.

A task has two frames: a function of its own that delegates to the `wait` of an event, each peer's own kind, which is
never set; some peers' `wait` adds frames or futures of its own. Memory is read when all tasks wait: the growth of the
process's resident set, or of what Python's allocators gave out (tracemalloc), which misses stacks.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NoReturn

import coro
from coro import Coro, TaskGroup

PAGE = os.sysconf("SC_PAGE_SIZE")


class Meter:
    """Reads memory before the tasks are made and when they wait. The second reading ends the process."""

    def __init__(self, tasks: int, traced: bool) -> None:
        self.tasks = tasks
        self.traced = traced
        if traced:
            tracemalloc.start()

    def _read(self) -> int:
        if self.traced:
            return tracemalloc.get_traced_memory()[0]
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE

    def before(self) -> None:
        self._before = self._read()

    def parked(self) -> NoReturn:
        print(json.dumps((self._read() - self._before) / self.tasks), flush=True)
        os._exit(0)  # ending this many tasks in good order would only take time


def with_coro(meter: Meter) -> None:
    event = coro.Event()

    def waiter() -> Coro[None]:
        yield from event.wait()

    def body(group: TaskGroup) -> Coro[None]:
        meter.before()
        for _ in range(meter.tasks):
            group.spawn(waiter())
        for _ in range(3):
            yield from coro.checkpoint()
        meter.parked()

    def main() -> Coro[None]:
        yield from coro.task_group(body)

    coro.run(main())


def with_asyncio(meter: Meter, new_loop: Callable[[], Any] | None = None) -> None:
    import asyncio

    async def main() -> None:
        event = asyncio.Event()

        async def waiter() -> None:
            await event.wait()

        async with asyncio.TaskGroup() as group:
            meter.before()
            for _ in range(meter.tasks):
                group.create_task(waiter())
            for _ in range(3):
                await asyncio.sleep(0)
            meter.parked()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def with_uvloop(meter: Meter) -> None:
    import uvloop

    with_asyncio(meter, uvloop.new_event_loop)


def with_trio(meter: Meter) -> None:
    import trio

    async def main() -> None:
        event = trio.Event()

        async def waiter() -> None:
            await event.wait()

        async with trio.open_nursery() as nursery:
            meter.before()
            for _ in range(meter.tasks):
                nursery.start_soon(waiter)
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            meter.parked()

    trio.run(main)


def with_curio(meter: Meter) -> None:
    import curio

    async def main() -> None:
        event = curio.Event()

        async def waiter() -> None:
            await event.wait()

        async with curio.TaskGroup() as group:
            meter.before()
            for _ in range(meter.tasks):
                await group.spawn(waiter)
            for _ in range(3):
                await curio.sleep(0)
            meter.parked()

    curio.run(main)


def with_tinyio(meter: Meter) -> None:
    import tinyio

    event = tinyio.Event()

    def waiter() -> Generator[Any, Any, None]:
        yield from event.wait()

    def main() -> Generator[Any, Any, None]:
        meter.before()
        yield {waiter() for _ in range(meter.tasks)}  # a set: started in the background
        for _ in range(3):
            yield
        meter.parked()

    tinyio.Loop().run(main())


def with_gevent(meter: Meter) -> None:
    import gevent
    import gevent.event

    event = gevent.event.Event()

    def waiter() -> None:
        event.wait()

    meter.before()
    tasks = [gevent.spawn(waiter) for _ in range(meter.tasks)]
    for _ in range(3):
        gevent.sleep(0)
    assert len(tasks) == meter.tasks
    meter.parked()


def with_threads(meter: Meter) -> None:
    """Without their kernel stacks, which the resident set of a process does not contain."""
    event = threading.Event()
    ready = threading.Semaphore(0)

    def waiter() -> None:
        ready.release()
        event.wait()

    meter.before()
    threads = [threading.Thread(target=waiter) for _ in range(meter.tasks)]
    for thread in threads:
        thread.start()
    for _ in threads:
        ready.acquire()
    meter.parked()


PEERS: dict[str, Callable[[Meter], None]] = {
    "coro": with_coro,
    "asyncio": with_asyncio,
    "uvloop": with_uvloop,
    "trio": with_trio,
    "curio": with_curio,
    "tinyio": with_tinyio,
    "gevent": with_gevent,
    "threads": with_threads,
}


def main(peer: str, tasks: int, kind: str) -> None:
    PEERS[peer](Meter(tasks, traced=kind == "traced"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
