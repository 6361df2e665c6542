"""Writes and syncs files as an upload that is answered with 201 must have been, and does nothing else.

sync_files DIRECTORY SIZE THREADS SECONDS: prints how many files a second there were, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time


def main() -> None:
    directory, size, threads, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    data = os.urandom(size)
    counts = [0] * threads
    began = time.monotonic()

    def work(number: int) -> None:
        while time.monotonic() - began < seconds:
            _store(f"{directory}/{number}-{counts[number]}", directory, data)
            counts[number] += 1

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    print(json.dumps(sum(counts) / (time.monotonic() - began)))


def _store(path: str, directory: str, data: bytes) -> None:
    fd = os.open(f"{path}.part", os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)
    os.rename(f"{path}.part", path)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


main()
