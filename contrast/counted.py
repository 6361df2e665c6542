"""One of the five, counting its switches: how often it goes on with a connection that waited. Prints it on SIGUSR1.

    python -m contrast.counted --folder FOLDER --services PORT PROGRAM

The interpreter tells a profiler when a frame begins or goes on: that of `handle`, or with callbacks of the function
that the selector calls. greenlet has a hook of its own. (A thread's switches are the kernel's: it counts them itself.)
"""

from __future__ import annotations

import importlib
import signal
import sys
from types import CodeType, FrameType

from contrast.job import main

switches = 0


def count_frames(code: CodeType) -> None:
    def profile(frame: FrameType, event: str, argument: object) -> None:
        global switches
        switches += event == "call" and frame.f_code is code

    sys.setprofile(profile)


def count_greenlets(hub: object) -> None:
    from greenlet import settrace

    def trace(event: str, who: tuple[object, object]) -> None:
        global switches
        switches += who[1] is not hub

    settrace(trace)


if __name__ == "__main__":
    program = importlib.import_module(f"contrast.{sys.argv.pop()}")
    signal.signal(signal.SIGUSR1, lambda number, frame: print(switches, flush=True))
    if hasattr(program, "hub"):
        count_greenlets(program.hub)
    else:
        count_frames((program.handle if hasattr(program, "handle") else program.Stream.ready).__code__)
    main(program.serve)
