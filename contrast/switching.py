"""What one switch costs here: a hundred tasks of each kind give way in turn, through the loop that they run on.

CPU time of all of them, with the kernel's part: it is true on a busy machine too. `coro contrast` shows these
costs, and `coro explain switch` those of the two bare mechanisms below.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

import coro

TASKS = 100
SWITCHES = 20_000
THREAD_SWITCHES = 2_000  # each takes much longer
REPEATS = 3  # of which the fastest counts


def threads(count: int) -> None:
    """Each lets the next one run, and blocks: through the kernel."""
    turns = [threading.Semaphore(0) for _ in range(TASKS)]

    def work(number: int) -> None:
        for _ in range(count // TASKS):
            turns[number].acquire()
            turns[(number + 1) % TASKS].release()

    tasks = [threading.Thread(target=work, args=(number,)) for number in range(TASKS)]
    for task in tasks:
        task.start()
    turns[0].release()
    for task in tasks:
        task.join()


def callbacks(count: int) -> None:
    """A loop calls what is ready: there is nothing to switch but the function."""
    ready: deque[Callable[[], None]] = deque()

    def make() -> Callable[[], None]:
        def work() -> None:
            ready.append(work)

        return work

    ready += [make() for _ in range(TASKS)]
    for _ in range(count):
        ready.popleft()()


def greenlets(count: int) -> None:
    """To the hub, and from there to the next one."""
    from greenlet import getcurrent, greenlet

    hub = getcurrent()
    ready: deque[Any] = deque()

    def work() -> None:
        for _ in range(count // TASKS):
            ready.append(getcurrent())
            hub.switch()

    ready += [greenlet(work) for _ in range(TASKS)]
    while ready:
        ready.popleft().switch()


def native(count: int) -> None:
    async def work() -> None:
        for _ in range(count // TASKS):
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*[work() for _ in range(TASKS)])

    asyncio.run(all_of_them())


def generators(count: int) -> None:
    def work() -> coro.Coro[None]:
        for _ in range(count // TASKS):
            yield from coro.checkpoint()

    def all_of_them() -> coro.Coro[None]:
        yield from coro.gather(*[work() for _ in range(TASKS)])

    coro.run(all_of_them())


def bare_generators(count: int) -> None:
    """Without a loop: `send` to one and to the other, no more."""

    def work() -> Generator[None, None, None]:
        while True:
            yield

    one, two = work().send, work().send
    one(None), two(None)
    for _ in range(count // 2):
        one(None)
        two(None)


def bare_greenlets(count: int) -> None:
    """Without a hub: there, and back."""
    from greenlet import getcurrent, greenlet

    here = getcurrent()

    def work() -> None:
        while True:
            here.switch()

    there = greenlet(work).switch
    for _ in range(count // 2):
        there()


def cost(run: Callable[[int], None], count: int) -> float:
    """CPU seconds for each of `count` switches."""
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        run(count)
        times.append(time.process_time() - began)
    return min(times) / count


def switch_cost(program: str) -> float:
    """CPU seconds for each switch of one of the five."""
    count = THREAD_SWITCHES if program == "threads" else SWITCHES
    return cost(globals()[program], count)
