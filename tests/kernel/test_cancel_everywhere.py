"""Each thing that can be waited for, cancelled at every turn of the loop: afterwards nothing is held."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import coro
from coro import Coro, Stream, TaskGroup
from tests.kernel.programs import descriptors
from tests.kernel.test_handover import CancellingLoop

Work: TypeAlias = Callable[[], Coro[Any]]

works: list[Callable[..., Any]] = []


def work(make: Callable[..., Any]) -> Callable[..., Any]:
    """Of a context manager: its value is what is to be cancelled, its end checks what is left of it."""
    works.append(contextmanager(make))
    return make


def in_group(*spawned: Work) -> Coro[None]:
    """All of them as tasks, to their end."""

    def body(group: TaskGroup) -> Coro[None]:
        for one in spawned:
            group.spawn(one())
        yield from ()

    yield from coro.task_group(body)


@work
def semaphore(folder: Path) -> Iterator[Work]:
    permits = coro.Semaphore(2)

    def use() -> Coro[None]:
        with (yield from permits.acquire()):
            yield from coro.sleep(1)

    yield lambda: in_group(*[use] * 5)
    assert permits.free == 2
    assert not permits._permits


@work
def condition(folder: Path) -> Iterator[Work]:
    ready = coro.Condition()
    count = 0

    def wait() -> Coro[None]:
        with (yield from ready.acquire()):
            while count < 2:
                yield from ready.wait()
            yield from coro.checkpoint()

    def change() -> Coro[None]:
        nonlocal count
        for _ in range(2):
            with (yield from ready.acquire()):
                count += 1
                yield from coro.checkpoint()
                ready.notify_all()

    yield lambda: in_group(wait, wait, change)
    assert not ready._waiters
    assert not ready._lock.locked()


@work
def closed_queue(folder: Path) -> Iterator[Work]:
    queue: coro.Queue[int] = coro.Queue(0)

    def put() -> Coro[None]:
        for number in range(3):
            yield from queue.put(number)
        queue.close()

    def get() -> Coro[None]:
        with pytest.raises(coro.ClosedError):
            while True:
                yield from queue.get()

    yield lambda: in_group(get, put, get)
    assert not queue._gets
    assert not queue._puts


@work
def race(folder: Path) -> Iterator[Work]:
    lock = coro.Lock()

    def hold(seconds: int) -> Coro[None]:
        with (yield from lock.acquire()):
            yield from coro.sleep(seconds)

    yield lambda: coro.race(hold(3), hold(2), coro.sleep(4))
    assert not lock.locked()


@work
def limited_gather(folder: Path) -> Iterator[Work]:
    running = 0

    def count() -> Coro[None]:
        nonlocal running
        running += 1
        try:
            yield from coro.sleep(1)
        finally:
            running -= 1

    yield lambda: coro.gather(*[count() for _ in range(4)], limit=2)
    assert running == 0


@work
def thread(folder: Path) -> Iterator[Work]:
    limiter = coro.Limiter(1)

    def call_back() -> int:
        return coro.from_thread(answer)

    def answer() -> Coro[int]:
        yield from coro.sleep(0)
        return 42

    def call() -> Coro[None]:
        assert (yield from limiter.run(call_back)) == 42

    yield lambda: in_group(call, call)
    assert limiter.free == 1
    assert not limiter._permits


@work
def file(folder: Path) -> Iterator[Work]:
    def write() -> Coro[None]:
        with (yield from coro.open_file(folder / "file", "wb")) as file:
            yield from file.write(b"data")
            yield from file.sync()

    yield write


@work
def connection(folder: Path) -> Iterator[Work]:
    listener = coro.listen("127.0.0.1", 0)
    waiting: list[Stream] = []

    def echo(stream: Stream) -> Coro[None]:
        waiting.append(stream)
        try:
            yield from stream.write((yield from stream.read_until(b"\n")))
        finally:
            waiting.remove(stream)

    def ask(group: TaskGroup) -> Coro[None]:
        group.spawn(coro.serve(listener, echo))
        stream = yield from coro.connect("127.0.0.1", listener.port)
        with closing(stream):
            yield from stream.write(b"hello\n")
            assert (yield from stream.read_until(b"\n")) == b"hello\n"
        group.cancel()

    def main() -> Coro[None]:
        try:
            with coro.move_on_after(60):
                yield from coro.task_group(ask)
        except coro.TaskCancelled:
            pass
        finally:
            listener.close()

    yield main
    assert waiting == []


@work
def backpressure(folder: Path) -> Iterator[Work]:
    """A writer that waits for room, a reader that waits for bytes."""
    ends = [Stream(coro.Socket(end)) for end in socket.socketpair()]

    def write() -> Coro[None]:
        for _ in range(4):
            yield from ends[0].write(bytes(1 << 18))
        ends[0].close()

    def read() -> Coro[None]:
        while (yield from ends[1].read(1 << 16)):
            yield from coro.checkpoint()

    def main() -> Coro[None]:
        try:
            yield from in_group(write, read)
        finally:
            for end in ends:
                assert (end.socket.reader, end.socket.writer) == (None, None)
                end.close()

    yield main
    for end in ends:  # of a task that was cancelled before it began
        end.close()


@work
def process(folder: Path) -> Iterator[Work]:
    def run() -> Coro[None]:
        done = yield from coro.run_process(["cat"], stdin=b"data")
        assert done.stdout == b"data"

    before = children()  # servers of other tests, and what they have left, which may be reaped meanwhile
    yield run
    assert children() <= before


@work
def signals(folder: Path) -> Iterator[Work]:
    before = signal.getsignal(signal.SIGUSR1)

    def main() -> Coro[None]:
        with coro.open_signals(signal.SIGUSR1) as signals:
            yield from coro.checkpoint()
            os.kill(os.getpid(), signal.SIGUSR1)
            yield from signals.wait()

    previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    yield main
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    signal.signal(signal.SIGUSR1, previous)
    assert signal.getsignal(signal.SIGUSR1) is before


def children() -> set[str]:
    """The processes that this one has started, also those that have ended and are not reaped."""
    return {pid for task in os.listdir("/proc/self/task") for pid in _read(f"/proc/self/task/{task}/children").split()}


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except FileNotFoundError:  # the thread has ended
        return ""


@pytest.mark.parametrize("work", works, ids=lambda work: work.__name__)
def test_cancelled_at_any_turn_it_leaves_nothing_behind(work: Callable[..., Any], tmp_path: Path) -> None:
    before = descriptors()
    for turn in range(1000):
        ended = False
        loop = CancellingLoop()
        with work(tmp_path) as make:

            def body(group: TaskGroup, turn: int = turn, loop: CancellingLoop = loop, make: Work = make) -> Coro[bool]:
                task = group.spawn(make())
                loop.cancel_at(turn, task)
                try:
                    yield from task.join()
                except coro.TaskCancelled:
                    return False
                return True

            ended = loop.run(coro.task_group(body))
        assert descriptors() <= before  # a thread that an earlier test has left may have closed one meanwhile
        if ended:
            assert turn > 0
            return
    raise AssertionError("it does not end")
