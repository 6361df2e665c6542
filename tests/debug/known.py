"""Programs of which one knows what the tools must say. Lines that they must name are marked `# line: NAME`.

Each prints "on" when everything is as it will stay.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import coro
from coro import Coro, Listener, Stream, TaskGroup
from coro.cli import Service
from coro.debug import client, stats
from coro.debug.kinds import kind_of
from coro.http import Request, Response, Router, Server
from coro.mysql import Pool

lock, other = coro.Lock(), coro.Lock()


def settled() -> Coro[None]:
    """All that can run has run."""
    for _ in range(10):
        yield from coro.checkpoint()
    os.write(1, b"on\n")  # in one piece, whoever else writes there


def use_up_descriptors(but: int) -> list[int]:
    """All that the process may have, but for so many."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken = []
    with suppress(OSError):
        while True:
            taken.append(os.dup(0))
    for _ in range(but):
        os.close(taken.pop())
    return taken


def without_descriptors() -> Coro[None]:
    use_up_descriptors(but=0)
    yield from settled()
    yield from coro.sleep_forever()  # line: full


def one_descriptor() -> Coro[None]:
    """Enough for a listening socket, not for a connection; until SIGUSR2."""
    with coro.open_signals(signal.SIGUSR2) as signals:
        taken = use_up_descriptors(but=1)
        yield from settled()
        yield from signals.wait()
        for fd in taken:
            os.close(fd)
        os.write(1, b"there are some again\n")
        yield from coro.sleep_forever()


def holder() -> Coro[None]:
    with (yield from lock.acquire()):
        yield from coro.sleep(1000)  # line: holder


def waiter() -> Coro[None]:
    yield from lock.acquire()  # line: waiter


def family() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(holder(), name="the holder")
        group.spawn(waiter())
        yield from coro.sleep_forever()

    yield from coro.task_group(body, name="kin")


def reads(stream: Stream) -> Coro[None]:
    yield from stream.read()  # line: reads


def tree() -> Coro[None]:
    os.mkfifo("fifo")
    listener = coro.listen("127.0.0.1", 0)
    print(listener.port, flush=True)

    def body(group: TaskGroup) -> Coro[None]:
        stream = yield from coro.connect("127.0.0.1", listener.port)
        group.spawn(family())
        group.spawn(reads(stream))
        group.spawn(coro.on_disk(open, "fifo"), name="opens")
        yield from settled()
        yield from coro.Event().wait()  # line: tree

    yield from coro.task_group(body, name="all")


# --- Two tasks that wait for each other ---------------------------------------------------


def first() -> Coro[None]:
    with (yield from lock.acquire()):
        yield from coro.checkpoint()
        with (yield from other.acquire()):  # line: first
            pass


def second() -> Coro[None]:
    with (yield from other.acquire()):
        yield from coro.checkpoint()
        with (yield from lock.acquire()):  # line: second
            pass


def locked() -> Coro[None]:
    yield from coro.gather(first(), second(), settled())


def locked_while_others_go_on() -> Coro[None]:
    yield from coro.gather(first(), second(), settled(), coro.sleep(1000))


def lost_wake_up() -> Coro[None]:
    """Waits for what nobody will tell."""
    event = coro.Event()
    yield from settled()
    yield from event.wait()  # line: lost_wake_up


def signalled() -> Coro[None]:
    """Not stuck: somebody may send the signal."""
    with coro.open_signals(signal.SIGTERM) as signals:
        yield from settled()
        yield from signals.wait()


def serve(options: Namespace, listener: Listener) -> Coro[None]:
    with coro.open_signals(signal.SIGTERM) as signals:
        yield from settled()
        yield from signals.wait()  # line: service


service = Service(serve=serve, prefix="KNOWN")


def show(request: Request) -> Coro[Response]:
    yield from coro.sleep(0.01)
    yield from coro.to_thread(time.sleep, 0.01)
    return Response(200, b"shown")


def serve_web(options: Namespace, listener: Listener) -> Coro[None]:
    router = Router()
    router.add("GET", "/items/{id}", show)
    measuring = stats()
    server = Server(router.handle, recorders=[measuring] if measuring else [])
    with coro.open_signals(signal.SIGTERM) as signals:

        def stop() -> Coro[None]:
            print(listener.port, flush=True)
            yield from settled()
            yield from signals.wait()
            server.stop(1.0)

        coro.background(stop())
        yield from server.serve(listener)


web = Service(serve=serve_web, prefix="KNOWN")


# --- Somebody who comes just as the process stops listening -------------------------------------


def comes_as_the_socket_is_closed() -> Coro[None]:
    """Asks this very process twice: the second time when its thread has decided to listen no longer."""
    closing, connected = threading.Event(), threading.Event()
    unlink = os.unlink

    def unlink_late(path: str | Path) -> None:
        if str(path).endswith(".socket") and os.path.exists(path):
            closing.set()
            connected.wait()
        unlink(path)

    class Late(socket.socket):
        def connect(self, address: Any) -> None:
            closing.wait()
            super().connect(address)
            connected.set()

    def arm() -> None:
        os.unlink, socket.socket = unlink_late, Late  # type: ignore[assignment, misc]

    yield from coro.to_thread(ask, arm)
    print((yield from coro.to_thread(ask)), end="")


def ask(before_leaving: Callable[[], None] = lambda: None) -> str:
    with client.attached(os.getpid()) as stream:
        client.send(stream, {"ask": "tree"})
        text = str(client.answer(stream, os.getpid())["text"])
        before_leaving()
    return text


# --- Tasks that hold the loop up, and tasks that leak ------------------------------------------


def blocks() -> Coro[None]:
    yield from settled()  # in the same step: from then on nothing else gets its turn
    time.sleep(1000)  # line: blocks


def blocks_often() -> Coro[None]:
    yield from settled()
    for _ in range(3):
        time.sleep(0.2)  # line: once
        yield from coro.checkpoint()
        time.sleep(0.2)  # line: again
        yield from coro.checkpoint()


def keeps_the_interpreter() -> Coro[None]:
    yield from settled()
    while True:
        sum(range(5_000_000))  # line: keeps
        yield from coro.checkpoint()


def spins() -> Coro[None]:
    while True:
        sum(range(1000))
        yield from coro.checkpoint()


def sleeps() -> Coro[None]:
    yield from coro.sleep(1000)


def busy() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(spins())
        for _ in range(100):
            group.spawn(sleeps())
        yield from settled()

    yield from coro.task_group(body)


def named() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[None]:
        for name in "one", "two":
            group.spawn(works(), name=name)
        yield from ()

    yield from coro.task_group(body)


def works() -> Coro[None]:
    for _ in range(3):
        yield from coro.checkpoint()


def hands_over() -> Coro[None]:
    queue: coro.Queue[int] = coro.Queue()

    def gets() -> Coro[None]:
        yield from queue.get()

    def puts() -> Coro[None]:
        yield from coro.sleep(0.01)
        yield from queue.put(1)

    gets.__qualname__, puts.__qualname__ = "gets", "puts"
    yield from coro.gather(gets(), puts())


def forgotten(number: int) -> Coro[None]:
    yield from coro.sleep_forever()  # line: forgotten


def leaks() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[None]:
        for number in range(10_000):
            group.spawn(forgotten(number))
        gc.freeze()
        yield from settled()

    yield from coro.task_group(body)


# --- Queries that take all connections -------------------------------------------------------


def report(pool: Pool) -> Coro[None]:
    yield from pool.fetch_all("SELECT SLEEP(1000)")  # line: report


def lookup(pool: Pool) -> Coro[None]:
    yield from pool.fetch_all("SELECT 1")  # line: lookup


def slow_query() -> Coro[None]:
    pool = Pool(os.environ["KNOWN_MYSQL"], size=2)

    def body(group: TaskGroup) -> Coro[None]:
        tasks = [group.spawn(report(pool)), group.spawn(report(pool)), group.spawn(lookup(pool))]
        while [task.request and kind_of(task, task.request) for task in tasks] != ["MySQL", "MySQL", "MySQL pool"]:
            yield from coro.sleep(0.01)
        yield from settled()

    yield from coro.task_group(body, name="all")
