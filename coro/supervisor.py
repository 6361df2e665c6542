"""Several worker processes for one service: started, started again when they die, stopped together. Linux.

The supervisor is plain blocking Python and runs none of the program's code; what it starts are forks of itself. It
opened the listening sockets, one for each worker, and keeps them: what connects while a worker is dead waits in the
socket's queue for the next one.

SIGTERM is passed on: workers finish what they have in flight. So is SIGUSR1, on which they tell what their tasks do.
Ctrl-C ends them at once, cleaned up: they see the end of a pipe that only the supervisor holds open, and would see it
just the same if the supervisor were killed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from coro import Coro, Descriptor, Listener, background, current_task

SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SHORTEST_DELAY, LONGEST_DELAY = 0.1, 10.0  # seconds before a worker that died is replaced; doubled each time
STEADY_TIME = 10.0  # seconds after which a worker's death is no longer taken for a failed start
INTERRUPTED = 130


@dataclass
class Worker:
    """One place among the workers: the process that fills it, or the time at which the next one will."""

    number: int
    pid: int = 0
    since: float = 0.0  # when the process was started
    due: float = 0.0  # when the next one is to be started
    delay: float = 0.0


def supervise(prepare: Callable[[], int], serve: Callable[[int, int], int], listeners: Sequence[Listener]) -> int:
    """Run `prepare()` in a process of its own; if its exit code is 0, keep a worker running for each listener.

    A worker is a process that runs `serve(number, lifeline)`, where the descriptor `lifeline` is for `until_orphaned`.
    Returns the exit code, when all workers have ended after SIGTERM (0 if each went well) or Ctrl-C (130).
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        supervisor = _Supervisor(serve, listeners, mask)
        return supervisor.run_prepare(prepare) or supervisor.run_workers()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def until_orphaned(work: Coro[None], lifeline: int) -> Coro[None]:
    """Do `work`, but cancel this task when the supervisor has closed the lifeline or died. Suspends."""
    task = current_task()

    def watch() -> Coro[None]:
        yield Descriptor(lifeline).readable
        task.cancel()

    background(watch(), name="lifeline")
    yield from work


class _Supervisor:
    def __init__(self, serve: Callable[[int, int], int], listeners: Sequence[Listener], mask: set[int]) -> None:
        self._serve = serve
        self._listeners = listeners
        self._mask = mask
        self._workers = [Worker(number) for number in range(len(listeners))]
        self._stopping = False
        self._code = 0
        self._lifeline, self._lifeline_held = os.pipe()

    def run_prepare(self, prepare: Callable[[], int]) -> int:
        pid = self._fork(prepare)
        ended = stopped_by = 0
        while not ended:
            number = signal.sigwait(SIGNALS)
            if number == signal.SIGUSR1:
                os.kill(pid, number)
            elif number != signal.SIGCHLD:
                stopped_by = number
                os.kill(pid, number)
            ended, status = os.waitpid(pid, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            return 128 - code
        return code or (128 + stopped_by if stopped_by else 0)  # it may have ended before the signal reached it

    def run_workers(self) -> int:
        while not self._stopping or any(worker.pid for worker in self._workers):
            now = time.monotonic()
            for worker in self._workers:
                if not worker.pid and not self._stopping and worker.due <= now:
                    worker.since = now
                    worker.pid = self._fork(partial(self._work, worker.number))
            waits = [worker.due - now for worker in self._workers if not worker.pid]
            timeout = max(0.0, min(waits)) if waits and not self._stopping else 3600.0
            received = signal.sigtimedwait(SIGNALS, timeout)
            if received is not None and received.si_signo == signal.SIGUSR1:
                self._pass_on(signal.SIGUSR1)
            elif received is not None and received.si_signo != signal.SIGCHLD:
                self._stop(signal.Signals(received.si_signo))
            self._reap()
        return self._code

    def _fork(self, work: Callable[[], int]) -> int:
        """Start a process that runs `work` and ends with its exit code; its number."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return pid
        self._become(work)

    def _become(self, work: Callable[[], int]) -> NoReturn:
        code = 1
        try:
            os.close(self._lifeline_held)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            code = work()
        except KeyboardInterrupt:  # before it began
            code = INTERRUPTED
        except SystemExit as exit:  # as the interpreter does it
            if isinstance(exit.code, str):
                print(exit.code, file=sys.stderr)
            code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _work(self, number: int) -> int:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to us too; the supervisor decides
        for other, listener in enumerate(self._listeners):
            if other != number:
                listener.close()
        return self._serve(number, self._lifeline)

    def _reap(self) -> None:
        """Note which workers have ended, and when they are to be replaced."""
        for worker in self._workers:
            if not worker.pid:
                continue
            ended, status = os.waitpid(worker.pid, os.WNOHANG)
            if not ended:
                continue
            code = os.waitstatus_to_exitcode(status)
            if self._stopping:
                self._code = self._code or (1 if code not in (0, -signal.SIGTERM, INTERRUPTED) else 0)
            else:
                now = time.monotonic()
                steady = now - worker.since >= STEADY_TIME
                worker.delay = 0.0 if steady else min(worker.delay * 2, LONGEST_DELAY)
                worker.delay = max(worker.delay, SHORTEST_DELAY)
                worker.due = now + worker.delay
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                print(
                    f"coro: worker {worker.number} (process {worker.pid}) {how}; another starts in {worker.delay:g} s",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
            worker.pid = 0

    def _stop(self, number: signal.Signals) -> None:
        again = self._code == INTERRUPTED
        if not self._stopping:
            self._stopping = True
            for listener in self._listeners:
                listener.close()  # the workers close theirs; then nobody listens, and who connects is told so
        if number == signal.SIGINT and not again:
            self._code = INTERRUPTED
            os.close(self._lifeline_held)
        if number == signal.SIGTERM or again:
            self._pass_on(signal.SIGKILL if number == signal.SIGINT else number)

    def _pass_on(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, number)
