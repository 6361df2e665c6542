"""Other programs, and calls in worker processes.

Their pipes are streams, their end is something to wait for.

No process outlives the generator function that started it. When its time is up (an error, a cancellation) it is asked
to end with SIGTERM, killed if it has not ended within the grace, and waited for, so that no zombie is left.

The end of a process makes a descriptor readable (pidfd_open(2)). Where there is none to be had, a thread waits for it
and closes a pipe.
Starting one can block, on a slow disk for example, and so is done in a thread.
"""

from __future__ import annotations

import io
import os
import pickle
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from subprocess import DEVNULL, PIPE, CompletedProcess, Popen
from typing import IO, Any, ParamSpec, TypeAlias, TypeVar, cast

from coro.errors import CoroError, EndOfStream, LimitExceeded
from coro.group import TaskGroup, background, gather, task_group
from coro.io import Buffer, Descriptor, Socket
from coro.streams import Pipe, ReadStream, WriteStream
from coro.sync import Lock
from coro.task import Coro, current_task
from coro.threads import Limiter, default_limiter
from coro.timing import checkpoint, move_on_after, shield, sleep_forever
from coro.worker import LENGTH, MAIN, PROTOCOL, Main

T = TypeVar("T")
P = ParamSpec("P")
Command: TypeAlias = Sequence[str | os.PathLike[str]]  # the program and its arguments
Channel: TypeAlias = int | IO[Any] | None  # as in `subprocess`: PIPE, DEVNULL, STDOUT, a file; None: ours

GRACE = 5.0  # seconds between SIGTERM and SIGKILL
OUTPUT_LIMIT = 64 << 20  # bytes of each kind of output that run_process keeps, unless told otherwise
SHOWN = 2000  # bytes of its standard error that an error quotes
STARTS = 4  # processes being started at once


class ProcessError(CoroError):
    """A process did not end as it should.

    `returncode` is its exit code, or less than 0: the signal that killed it; `stdout` and `stderr` what was captured.
    """

    def __init__(self, message: str, returncode: int = 0, stdout: bytes = b"", stderr: bytes = b"") -> None:
        super().__init__(message)
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr


class _End(Descriptor):
    """Readable when a process has ended."""

    __slots__ = ()

    def __init__(self, pid: int) -> None:
        try:
            fd = os.pidfd_open(pid)
        except (AttributeError, OSError):  # not on this system, or not before Linux 5.3, or a sandbox forbids it
            fd, held = os.pipe()
            threading.Thread(target=_wait_and_close, args=(pid, held), name="coro-process-end", daemon=True).start()
        super().__init__(fd)

    def close(self) -> None:
        fd = self.fd
        if fd >= 0:
            self.forget()
            os.close(fd)


def _wait_and_close(pid: int, fd: int) -> None:
    with suppress(ChildProcessError):  # it has been reaped
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # and leave that to `Popen.poll`
    os.close(fd)


class Process:
    """A running program, or one that has ended. Made by `open_process`."""

    def __init__(self, command: Command, popen: Popen[bytes]) -> None:
        self.command = command
        self.pid = popen.pid
        self._popen = popen
        try:
            self._end = _End(popen.pid)
        except BaseException:  # out of descriptors
            with popen:
                popen.kill()
            raise
        self._watching = Lock()  # one task waits for the descriptor, others for that task
        self._stdin = WriteStream(Pipe(cast(io.FileIO, popen.stdin))) if popen.stdin is not None else None
        self._stdout = ReadStream(Pipe(cast(io.FileIO, popen.stdout))) if popen.stdout is not None else None
        self._stderr = ReadStream(Pipe(cast(io.FileIO, popen.stderr))) if popen.stderr is not None else None

    @property
    def stdin(self) -> WriteStream:
        """The pipe that it reads from."""
        return _piped(self._stdin, "stdin")

    @property
    def stdout(self) -> ReadStream:
        """The pipe that it writes to."""
        return _piped(self._stdout, "stdout")

    @property
    def stderr(self) -> ReadStream:
        """The pipe that it reports errors to."""
        return _piped(self._stderr, "stderr")

    @property
    def returncode(self) -> int | None:
        """None while it runs, then its exit code, or less than 0: the signal that killed it."""
        return self._popen.poll()

    def wait(self) -> Coro[int]:
        """Wait for its end; the `returncode`. Suspends. Any number of tasks may wait."""
        while (code := self.returncode) is None:
            with (yield from self._watching.acquire()):
                if self.returncode is None:
                    yield self._end.readable
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it has ended. Does not suspend. PermissionError."""
        self._popen.send_signal(number)

    def terminate(self) -> None:
        """Ask it to end: SIGTERM. Does not suspend."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it: SIGKILL. Does not suspend; `wait` tells when it has ended."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Close our ends of its pipes, at once. Does not suspend."""
        for stream in self._stdin, self._stdout, self._stderr:
            if stream is not None:
                stream.close()

    def reap(self, grace: float) -> Coro[None]:
        """Wait `grace` seconds for its end, then kill it; leave nothing of it behind. Cannot be cancelled. Suspends.

        PermissionError when it must be killed and may not be.
        """
        self.close()
        try:
            with shield():
                with move_on_after(grace):
                    yield from self.wait()
                if self.returncode is None:
                    self.kill()
                    yield from self.wait()
        finally:
            self._end.close()

    def __repr__(self) -> str:
        code = self.returncode
        return f"<Process {self.pid} {_text(self.command)} {'running' if code is None else _ending(code)}>"


def _piped(stream: T | None, name: str) -> T:
    if stream is None:
        raise RuntimeError(f"there is no pipe to the process's {name}: start it with {name}=subprocess.PIPE")
    return stream


def _start(function: Callable[P, Popen[bytes]], *args: P.args, **kwargs: P.kwargs) -> Coro[Popen[bytes]]:
    """In a thread, for it may block. Under a limiter of its own, for a cancelled caller waits for it."""
    return (yield from default_limiter("process starts", STARTS).run(function, *args, **kwargs))


def _while_open(process: Process, work: Coro[T], stop: Callable[[], None], grace: float) -> Coro[T]:
    """Do `work`. If it fails or is cancelled, `stop()` the process, and see that it ends within `grace` seconds."""
    try:
        return (yield from work)
    except GeneratorExit:  # the run has been broken off: nothing can be waited for any more
        process.kill()
        raise
    except BaseException:
        with suppress(PermissionError):  # it runs as another user; without its pipes it may still end
            stop()
        yield from process.reap(grace)
        raise


def open_process(
    command: Command,
    body: Callable[[Process], Coro[T]],
    *,
    stdin: Channel = PIPE,
    stdout: Channel = PIPE,
    stderr: Channel = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    grace: float = GRACE,
) -> Coro[T]:
    """Start a program, run `body(process)`, close the pipes, wait for the program's end; the body's result. Suspends.

    If the body fails or is cancelled, the program is sent SIGTERM and, after `grace` seconds, SIGKILL; its end is
    waited for. `env` replaces our environment. No shell is involved. OSError when the program cannot be started.
    """
    if isinstance(command, str | bytes):
        raise TypeError(f"the command is a list of the program and its arguments, not {command!r}")
    popen = yield from _start(
        Popen, command, bufsize=0, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, env=env
    )  # fmt: skip
    process = Process(command, popen)

    def work() -> Coro[T]:
        result = yield from body(process)
        process.close()
        yield from process.wait()
        yield from process.reap(grace)
        return result

    return (yield from _while_open(process, work(), process.terminate, grace))


def run_process(
    command: Command,
    *,
    stdin: Buffer | Channel = b"",
    stdout: Channel = PIPE,
    stderr: Channel = PIPE,
    check: bool = True,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    limit: int = OUTPUT_LIMIT,
    grace: float = GRACE,
) -> Coro[CompletedProcess[bytes]]:
    """Run a program to its end, with the bytes of `stdin` as its input; `returncode`, `stdout` and `stderr`. Suspends.

    `ProcessError` when the exit code is not 0, unless `check` is False; `LimitExceeded` for more than `limit` bytes of
    output. These, and cancellation, end the program as in `open_process`, which the other arguments are for too.
    """
    if isinstance(stdin, str):
        raise TypeError("run_process: stdin is bytes, not str: encode it")
    given = stdin if isinstance(stdin, bytes | bytearray | memoryview) else None

    def body(process: Process) -> Coro[CompletedProcess[bytes]]:
        def work(group: TaskGroup) -> Coro[CompletedProcess[bytes]]:
            out = group.spawn(_read_all(process.stdout, limit)) if stdout == PIPE else None
            err = group.spawn(_read_all(process.stderr, limit)) if stderr == PIPE else None
            if given:
                yield from _feed(process.stdin, given)
            return CompletedProcess(
                process.command,
                (yield from process.wait()),
                (yield from out.join()) if out else None,
                (yield from err.join()) if err else None,
            )

        return task_group(work)

    channel: Channel = (PIPE if given else DEVNULL) if given is not None else cast(Channel, stdin)
    done = yield from open_process(
        command, body, stdin=channel, stdout=stdout, stderr=stderr, cwd=cwd, env=env, grace=grace
    )  # fmt: skip
    if check and done.returncode:
        said = (done.stderr or b"")[-SHOWN:].decode(errors="replace").strip()
        message = f"{_text(command)} {_ending(done.returncode)}" + (f": {said}" if said else "")
        raise ProcessError(message, done.returncode, done.stdout or b"", done.stderr or b"")
    return done


def _feed(stream: WriteStream, data: Buffer) -> Coro[None]:
    with suppress(BrokenPipeError):  # a program need not read all of its input
        yield from stream.write(data)
    stream.close()


def _read_all(stream: ReadStream, limit: int) -> Coro[bytes]:
    parts: list[bytes] = []
    size = 0
    while data := (yield from stream.read()):
        parts.append(data)
        size += len(data)
        if size > limit:
            raise LimitExceeded(f"the program's output is longer than {limit} bytes")
    return b"".join(parts)


def _text(command: Command) -> str:
    return f"`{shlex.join(os.fspath(part) for part in command)}`"


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-code}"


# --- Calls in worker processes ---------------------------------------------------------


class ProcessLimiter(Limiter):
    """How many calls of one kind may run in worker processes at once. `to_process` uses the one that every run has."""

    _what = "a free worker process"

    def __init__(self, processes: int | None = None) -> None:
        super().__init__(processes if processes is not None else os.cpu_count() or 1)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Coro[T]:
        """`to_process` under this limiter. Suspends. Raises what the call raises, or `ProcessError`."""
        if Main.being_loaded:
            raise RuntimeError(
                "a worker process that loads the main program to find a function in it came to a to_process() there:"
                " start the program's work below `if __name__ == '__main__':`"
            )
        call = _pickled((function, args, kwargs))
        yield from checkpoint()
        with (yield from self.acquire()):
            pool = _pool()
            worker = (yield from pool.take()) or (yield from _start_worker())
            name = getattr(function, "__qualname__", repr(function))
            answer = yield from _while_open(worker, worker.exchange(call, name), worker.kill, GRACE)
            yield from pool.give_back(worker)
        succeeded, value, *trace = _Unpickler(io.BytesIO(answer)).load()
        if succeeded:
            result: T = value
            return result
        value.add_note("in a worker process:\n" + trace[0])
        raise value


def to_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Coro[T]:
    """Call `function` in a worker process; its result. Suspends. Raises what the call raises, or `ProcessError`.

    Function, arguments and result travel as pickles: the function is one that the worker can import. A cancelled
    caller's worker is killed. A worker serves many calls; what one leaves in its globals is there for the next.
    """
    loop = current_task().loop
    if ProcessLimiter not in loop.locals:
        loop.locals[ProcessLimiter] = ProcessLimiter()
    limiter: ProcessLimiter = loop.locals[ProcessLimiter]
    return (yield from limiter.run(function, *args, **kwargs))


class _Worker(Process):
    """A process that runs `worker.serve`, and our end of the socket to it."""

    def __init__(self, command: Command, popen: Popen[bytes], connection: socket.socket) -> None:
        super().__init__(command, popen)
        self._socket = Socket(connection)
        self._answers = ReadStream(self._socket)

    def exchange(self, call: bytes, name: str) -> Coro[bytes]:
        """Send a call; the answer. `ProcessError` when the process ends instead."""
        try:
            yield from self._socket.send_all(LENGTH.pack(len(call)))
            yield from self._socket.send_all(call)
            (length,) = LENGTH.unpack((yield from self._answers.read_exactly(LENGTH.size)))
            return (yield from self._answers.read_exactly(length))
        except (EndOfStream, OSError):
            pass
        self.kill()  # in case the call has closed the socket; else it is ending, and its exit code is settled
        code = yield from self.wait()
        raise ProcessError(f"the worker process {self.pid}, in a call of {name}, {_ending(code)}", code)

    def close(self) -> None:
        """It ends when it sees the end of the stream: so that it does, even if a fork of ours has the socket too."""
        if self._socket.fd >= 0:
            with suppress(OSError):  # it has ended
                self._socket.sock.shutdown(socket.SHUT_RDWR)
            self._socket.close()


class _Pool:
    """The run's idle workers."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._ended = False
        background(self._end_with_the_run(), name="worker processes")

    def take(self) -> Coro[_Worker | None]:
        """The one that was used last, if there is any left: somebody may have killed them meanwhile."""
        while self._idle:
            worker = self._idle.pop()
            if worker.returncode is None:
                return worker
            yield from worker.reap(GRACE)
        return None

    def give_back(self, worker: _Worker) -> Coro[None]:
        if self._ended:
            yield from worker.reap(GRACE)
        else:
            self._idle.append(worker)

    def _end_with_the_run(self) -> Coro[None]:
        try:
            yield from sleep_forever()
        finally:
            self._ended = True
            idle, self._idle = self._idle, []
            with shield():
                yield from gather(*(worker.reap(GRACE) for worker in idle))


def _pool() -> _Pool:
    loop = current_task().loop
    if _Pool not in loop.locals:
        loop.locals[_Pool] = _Pool()
    pool: _Pool = loop.locals[_Pool]
    return pool


def _start_worker() -> Coro[_Worker]:
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            command = _worker_command(theirs.fileno())
            popen = yield from _start(_popen_uninterrupted, command, theirs.fileno())
        return _Worker(command, popen, ours)
    except BaseException:
        ours.close()
        raise


def _worker_command(fd: int) -> list[str]:
    """The same Python, with the same options, that finds the same modules."""
    main = sys.modules["__main__"]
    module, path = getattr(getattr(main, "__spec__", None), "name", None), getattr(main, "__file__", None)
    paths = [entry for entry in sys.path if isinstance(entry, str)]
    options = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing does
    return [
        sys.executable, *options, "-c",
        f"import sys; sys.path[:] = {paths}; sys.argv[:] = {sys.argv}\n"
        f"from coro.worker import Main, serve; serve({fd}, Main({module!r}, {path!r}))",
    ]  # fmt: skip


def _popen_uninterrupted(command: list[str], fd: int) -> Popen[bytes]:
    """Ctrl-C, which the terminal sends to all of its processes, waits until the worker is ready to ignore it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return Popen(command, stdin=DEVNULL, pass_fds=[fd])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _pickled(call: object) -> bytes:
    try:
        return pickle.dumps(call, PROTOCOL)
    except Exception as error:
        error.add_note("to_process sends the function and its arguments to another process: they must be picklable")
        raise


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class("__main__" if module == MAIN else module, name)
