"""A program with many tasks that has itself shown by `coro ps`: [seconds of the command, of the snapshot] as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress

import coro
from coro import Coro, TaskGroup
from coro.debug.attach import attachable
from coro.debug.tree import snapshot


def waits(depth: int) -> Coro[None]:
    if depth:
        yield from waits(depth - 1)
    else:
        yield from coro.sleep_forever()


def show(tasks: int) -> float:
    command = [sys.executable, "-m", "coro", "ps", str(os.getpid())]
    started = time.perf_counter()
    shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    taken = time.perf_counter() - started
    assert shown.count("'waits'") == tasks
    return taken


def main(tasks: int) -> Coro[list[float]]:
    figures: list[float] = []

    def body(group: TaskGroup) -> Coro[None]:
        for _ in range(tasks):
            group.spawn(waits(2))
        yield from coro.checkpoint()
        figures.append((yield from coro.to_thread(show, tasks)))
        started = time.perf_counter()
        snapshot(coro.current_task().loop)
        figures.append(time.perf_counter() - started)
        group.cancel()

    with suppress(coro.TaskCancelled):
        yield from coro.task_group(body)
    return figures


if __name__ == "__main__":
    with attachable("benchmark"):
        print(json.dumps(coro.run(main(int(sys.argv[1])))))
