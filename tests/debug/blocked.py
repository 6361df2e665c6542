"""What the watchdog advises for a function that blocks, again and again: `python -m tests.debug.blocked FUNCTION`."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from time import sleep as pause

from coro.debug.watchdog import advice, own_frame

UNTIL_THE_END, _ = os.pipe()  # of this process: then there is no writer any more


def sleeps() -> None:
    time.sleep(1000)


def sleeps_by_another_name() -> None:
    pause(1000)


def receives() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.recv(1)


def hashes() -> None:
    while True:
        hashlib.scrypt(b"", salt=b"", n=1 << 14, r=8, p=40, maxmem=1 << 30)


def runs() -> None:
    subprocess.run(["cat"], stdin=UNTIL_THE_END)


def tell(function: Callable[[], None]) -> None:
    """From another thread, once the function has begun."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    while True:
        frame = sys._current_frames()[thread.ident or 0]
        if own_frame(frame).f_code is function.__code__:
            print(advice(frame), flush=True)
        time.sleep(0.01)


if __name__ == "__main__":
    tell(globals()[sys.argv[1]])
