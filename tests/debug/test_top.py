"""`coro top` on the real command line, and what its table says."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import termios

import coro
from coro import Coro
from coro.debug.attach import AttachError, HeldUpError, _tell_numbers
from coro.debug.monitor import Monitor
from coro.debug.top import table
from coro.loop import Loop
from tests.debug.support import CORO, PATIENCE, Place


def test_the_table_names_what_there_is_and_ctrl_c_ends_it(place: Place) -> None:
    with place.running("known:busy") as program:
        with place.top(program.pid) as (top, out, errors):
            lines = [out.readline().rstrip() for _ in range(7)]
            top.send_signal(signal.SIGINT)
            out.read()
            assert (top.wait(PATIENCE), errors.read()) == (0, "")
        assert lines[0].startswith(f"process {program.pid}: 102 tasks, ")
        opened = len(os.listdir(f"/proc/{program.pid}/fd"))  # the conversation with `top` is over, or just so
        assert opened <= int(lines[0].split(" descriptors")[0].split()[-1]) <= opened + 3
        assert "lag p50" in lines[1] and "p99" in lines[1]
        rows = {line.split()[0]: line for line in lines[4:]}
        assert rows["sleeps"].split()[1] == "100" and "sleep 100%" in rows["sleeps"]
        assert float(rows["spins"].split()[2]) > float(rows["sleeps"].split()[2])  # CPU%
        os.kill(program.pid, signal.SIGINT)
        assert program.process.wait(PATIENCE) == 130


def test_in_a_terminal_of_80_columns_no_line_is_longer(place: Place) -> None:
    with place.running("known:busy") as program:
        outer, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {name: value for name, value in place.environment.items() if name not in ("COLUMNS", "LINES")}
        with subprocess.Popen(
            [*CORO, "top", str(program.pid)], cwd=place.path, env=environment, stdin=inner, stdout=inner, stderr=inner
        ) as top:
            os.close(inner)
            screen = b""
            while b"\x1b[J" not in screen:
                screen += os.read(outer, 4096)
            top.send_signal(signal.SIGINT)
            while not screen.endswith(b"\x1b[?1049l"):  # the screen is as it was, the cursor is back
                screen += os.read(outer, 4096)
            assert top.wait(PATIENCE) == 0
        os.close(outer)
    assert b"\x1b[?25h" in screen
    drawn = screen.decode().partition("\x1b[H")[2].partition("\x1b[J")[0]
    lines = [line.replace("\x1b[K", "") for line in drawn.split("\r\n")]
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("sleeps ") for line in lines)


def test_watching_costs_nothing_before_and_after() -> None:
    def main() -> Coro[None]:
        loop = coro.current_task().loop
        before = {name: value for name, value in vars(loop).items() if callable(value)}
        monitor = Monitor(loop)
        monitor.start()
        yield from coro.sleep(0.001)
        assert loop._step_batch.__func__ is not Loop._step_batch  # type: ignore[attr-defined]
        monitor.stop()
        yield from coro.checkpoint()
        assert {name: value for name, value in vars(loop).items() if callable(value)} == before

    coro.run(main())


def test_time_is_counted_by_kind_of_wait() -> None:
    lock = coro.Lock()

    def waits() -> Coro[None]:
        with (yield from lock.acquire()):
            yield from coro.sleep(0.01)

    def main() -> Coro[dict[str, object]]:
        monitor = Monitor(coro.current_task().loop)
        monitor.start()
        yield from coro.checkpoint()  # it is seen from its next step on
        yield from coro.gather(waits(), waits())
        yield from coro.checkpoint()
        found = monitor.look()
        monitor.stop()
        return found

    found: dict[str, object] = coro.run(main())
    rows = {row["function"].rpartition(".")[2]: row for row in found["rows"]}  # type: ignore[attr-defined]
    assert set(rows["waits"]["waited"]) >= {"sleep", "lock"}
    assert set(rows["main"]["waited"]) >= {"tasks"}


def test_a_loop_that_is_held_up_is_told_and_looked_at_again() -> None:
    """It does not end the watching; that there is no loop any more does."""

    class Desk:
        answers = [object(), None, HeldUpError("held up by a\n  b"), {"tasks": 1}, AttachError("no loop"), None]

        def in_loop(self, action: object) -> object:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    stream = io.StringIO()
    _tell_numbers(Desk(), stream, {"interval": 0})  # type: ignore[arg-type]
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert told == [{"held up": "held up by a\n  b"}, {"tasks": 1}, {"error": "no loop"}]
    assert table(told[0], 80) == ["held up by a", "  b"]


def test_long_names_are_cut_at_their_beginning() -> None:
    row = {"function": "x" * 100 + ".end", "tasks": 1, "cpu": 0.5, "waits": 3.0, "waited": {"Redis": 3.0, "disk": 1.0}}
    numbers = {"pid": 1, "tasks": 1, "cpu": 0.5, "descriptors": 3, "calls": 0, "turns": 5.0, "lag_p50": 0.00001,
               "lag_p99": 0.002, "ready": 7, "rows": [row]}  # fmt: skip
    lines = table(numbers, 80)
    assert lines[0] == "process 1: 1 task, 50% CPU, 3 descriptors, 0 calls in threads"
    assert lines[-1].split()[0].endswith(".end") and lines[-1].endswith("Redis 75%, disk 25%")
    assert max(map(len, lines)) <= 80
