"""`coro top`: a table of the program's task functions, drawn anew each second, in the width of the terminal."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from typing import Any

from coro.debug.client import answer, attached, check_runs_tasks, send

INTERVAL = 1.0  # seconds
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the alternate screen, without a cursor
HOME, CLEAR_LINE, CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
NARROWEST = 60


def watch(pid: int) -> int:
    """`coro top PID`, until Ctrl-C. `AttachError`."""
    check_runs_tasks(pid)
    terminal = sys.stdout.isatty()
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with attached(pid) as stream:
            send(stream, {"ask": "numbers", "interval": INTERVAL})
            if terminal:
                sys.stdout.write(ENTER)
            try:
                while True:
                    numbers = answer(stream, pid)
                    size = shutil.get_terminal_size((80, 24))
                    lines = table(numbers, max(NARROWEST, size.columns))
                    if terminal:
                        _draw(lines[: size.lines - 1])
                    else:
                        print("\n".join(lines) + "\n", flush=True)
            finally:
                if terminal:
                    sys.stdout.write(LEAVE)
                    sys.stdout.flush()
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:  # who read the tables has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        signal.signal(signal.SIGTERM, previous)


def _draw(lines: list[str]) -> None:
    sys.stdout.write(HOME + "".join(f"{line}{CLEAR_LINE}\r\n" for line in lines) + CLEAR_REST)
    sys.stdout.flush()


def table(numbers: dict[str, Any], width: int) -> list[str]:
    """The lines of one table, none of them longer than `width`; or who holds up the loop, which tells nothing then."""
    if "held up" in numbers:
        return [line[:width] for line in numbers["held up"].splitlines()]
    head = [
        f"process {numbers['pid']}: {_many(numbers['tasks'], 'task')}, {numbers['cpu']:.0%} CPU,"
        f" {_many(numbers['descriptors'], 'descriptor')}, {_many(numbers['calls'], 'call')} in threads",
        f"loop: {numbers['turns']:,.0f} turns/s, lag p50 {_time(numbers['lag_p50'])}, p99 {_time(numbers['lag_p99'])},"
        f" longest ready queue {numbers['ready']:,}",
        "",
    ]
    name_width = max(16, min(36, width - 52))
    titles = f"{'TASK FUNCTION':<{name_width}} {'TASKS':>6} {'CPU%':>5} {'WAITS/s':>8}  TIME WAITING FOR"
    rows = [
        f"{_cut(row['function'], name_width):<{name_width}} {row['tasks']:>6} {row['cpu'] * 100:>5.1f}"
        f" {row['waits']:>8,.0f}  {_shares(row['waited'])}"
        for row in numbers["rows"]
    ]
    return [line[:width].rstrip() for line in [*head, titles, *rows]]


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _shares(waited: dict[str, float]) -> str:
    """The kinds of waits, longest first, with their shares of the time waited."""
    total = sum(waited.values()) or 1.0
    return ", ".join(f"{kind} {time / total:.0%}" for kind, time in waited.items() if time / total >= 0.005)


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-4 else f"{seconds * 1e6:.0f} us"


def _cut(name: str, width: int) -> str:
    """The end of a long name says more than its beginning."""
    return name if len(name) <= width else "…" + name[len(name) - width + 1 :]
