"""How `coro ps` and `coro top` get into a running process, and how nobody else does.

By default nothing listens. A process that can be attached to has left a *marker* in a directory that only its user can
look into, and takes SIGUSR1. The signal alone has the task tree written to stderr. If the user's command has put a
*request* file into the directory before, a thread opens a Unix socket there instead, greets who comes in, answers, and
closes it when the last client has left. So the program's tasks never serve anybody, a slow reader holds up nothing but
its own thread, and the thread can tell what the loop is stuck in when it does not answer.

A connection counts from its greeting on: who comes just as the socket is closed gets none, and asks again.

Whoever may enter the directory may attach; the socket also asks the kernel for the user at its other end. A marker
tells when its process started: a signal is never sent to another one that has got its number (proc(5)).
"""

from __future__ import annotations

import _thread
import json
import logging
import os
import signal
import socket
import stat
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, TypeVar

from coro.debug.tree import age_of, places, seconds, snapshot, step_of
from coro.errors import CoroError
from coro.loop import Loop
from coro.task import running

T = TypeVar("T")

logger = logging.getLogger("coro.debug")

FIRST_CLIENT = 5.0  # seconds for which the socket waits for the client that asked for it
LOOK = 0.1  # seconds between two looks at a loop that does not come to answering
SAME_LOOKS = 10  # that see the same step: it holds the loop up
MOST_LOOKS = 100  # whatever they see: the machine may be slow
LONGEST_DIRECTORY = 88  # bytes; with the socket's name it must fit into 108: unix(7)
LISTEN_CHECK = 0.1  # seconds between looks whether the last client has left
NOT_IN = "cannot let coro ps or coro top in: %s; kill -USR1 shows the tasks here"


class AttachError(CoroError):
    """Why a process cannot be attached to, and what to do."""


class HeldUpError(AttachError):
    """The loop does not come to answering; it may later."""


@dataclass(frozen=True)
class Marker:
    """What a process that can be attached to says of itself."""

    pid: int
    started: int  # when, in clock ticks since the system's start
    name: str
    supervisor: int  # its process, if this is one of several workers
    worker: int  # which of them; -1 for none


# --- The directory ----------------------------------------------------------------------


def directories() -> list[Path]:
    """Where markers may be: the process and the command may see different environments."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    places = [Path(runtime, "coro")] if os.path.isdir(runtime) else []
    return [*places, Path(tempfile.gettempdir(), f"coro-{os.geteuid()}")]


def check_private(directory: Path) -> None:
    """`AttachError` unless it is a directory that belongs to this user, and that nobody else may enter."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise AttachError(f"{directory} is not a directory that only you can enter: remove it")


def started(pid: int) -> int:
    """When a process started, in clock ticks since the system's start. OSError if there is none (or no /proc)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def _create_directory() -> Path:
    directory = directories()[0]
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    check_private(directory)
    if len(str(directory)) > LONGEST_DIRECTORY:
        raise AttachError(f"{directory} is too long a path for a Unix socket: set XDG_RUNTIME_DIR or TMPDIR")
    return directory


# --- The process that is looked into ------------------------------------------------------


@contextmanager
def attachable(name: str, *, supervisor: int = 0, worker: int = -1) -> Iterator[None]:
    """Inside the block, `coro ps` and `coro top` of the same user can attach to this process. Main thread only.

    They see the loop of the main thread. SIGUSR1 is used for that; without a command behind it, it has the task tree
    written to stderr. `coro run` does all this by itself.
    """
    previous = signal.signal(signal.SIGUSR1, _on_signal)
    marker = None
    try:
        try:
            marker = _create_directory() / f"{os.getpid()}.marker"
            _desk.directory = marker.parent
            text = json.dumps([os.getpid(), started(os.getpid()), name, supervisor, worker])
            unfinished = marker.with_suffix(".unfinished")  # what is half a marker would be cleared away
            with open(unfinished, "w", opener=_private) as file:
                file.write(text)
            unfinished.rename(marker)
        except (OSError, AttachError) as error:
            logger.warning("coro ps and coro top cannot attach to process %d: %s", os.getpid(), error)
        yield
    finally:
        if marker is not None:
            _desk.close(marker.parent)
        # A command may just have sent the signal: by default it would end the process, at its very end.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN if previous is signal.SIG_DFL else previous)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _on_signal(number: int, frame: FrameType | None) -> None:
    """In the main thread, between any two steps of the interpreter: nothing here may wait for a lock."""
    loop = running.loop
    if _desk.directory is not None:
        with suppress(OSError, RuntimeError):  # nobody asked; or there is no thread to be had
            os.unlink(_desk.directory / f"{os.getpid()}.request")
            _thread.start_new_thread(_desk.open, (loop,))
            return
    try:
        text = f"process {os.getpid()}: no loop is running\n" if loop is None else str(snapshot(loop))
    except Exception as error:  # must not come up in what the program does at this moment
        text = f"process {os.getpid()}: the snapshot failed: {error!r}\n"
    data = memoryview(text.encode("utf-8", "backslashreplace"))
    with suppress(OSError):  # past the buffer of sys.stderr, in the middle of which we may be
        while data:
            data = data[os.write(2, data) :]


class _Desk:
    """Answers those who have come in. All but the fields lives in threads that end with the last of them."""

    def __init__(self) -> None:
        self.directory: Path | None = None
        self.loop: Loop | None = None
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self.directory = None
        self._lock = threading.Lock()
        self._listening = False
        self._clients = 0
        self._until = 0.0  # when to give up waiting for a first client

    def open(self, loop: Loop | None) -> None:
        """In a thread of its own: listen until the last client has left."""
        with self._lock:
            if self.directory is None:
                return  # it has been closed since
            path = str(self.directory / f"{os.getpid()}.socket")
            self.loop = loop
            self._until = time.monotonic() + FIRST_CLIENT
            if self._listening:
                return
            try:
                listener = _listen(path)
            except OSError as error:  # too many are open
                logger.warning(NOT_IN, error.strerror)
                return
            self._listening = True
        while True:
            full = False
            try:
                connection, _ = listener.accept()
                self._admit(connection)
            except TimeoutError:
                pass
            except (OSError, RuntimeError) as error:  # too many descriptors are open, or threads there
                logger.warning(NOT_IN, error)
                full = True
            with self._lock:
                if full or (not self._clients and time.monotonic() > self._until):
                    self._listening = False
                    with suppress(FileNotFoundError):
                        os.unlink(path)
                    listener.close()
                    return

    def close(self, directory: Path) -> None:
        """Nobody new comes in. Nothing of this process is left in the directory."""
        with self._lock:  # a thread may be about to listen
            self.directory = None
            for left in directory.glob(f"{os.getpid()}.*"):
                left.unlink(missing_ok=True)

    def _admit(self, connection: socket.socket) -> None:
        with self._lock:
            self._clients += 1
            self._until = 0.0
        try:
            threading.Thread(target=self._serve, args=(connection,), name="coro-attach", daemon=True).start()
        except RuntimeError:
            connection.close()
            self._leave()
            raise

    def _leave(self) -> None:
        with self._lock:
            self._clients -= 1

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rw", encoding="utf-8", errors="backslashreplace") as stream:
                if peer_uid(connection) != os.geteuid():
                    print(json.dumps({"error": "this process belongs to another user"}), file=stream, flush=True)
                    return
                print(json.dumps({"pid": os.getpid()}), file=stream, flush=True)
                for line in stream:
                    question = json.loads(line)
                    QUESTIONS[question["ask"]](self, stream, question)
                    stream.flush()
        except (OSError, ValueError, KeyError):
            pass  # the client has gone, or is none of ours
        finally:
            self._leave()

    def in_loop(self, action: Callable[[Loop], T]) -> T:
        """What `action` returns when the loop has called it. `AttachError` when there is no loop, or it is held up."""
        loop = self.loop
        if loop is None:
            raise AttachError("no loop is running")
        outcome: list[T | Exception] = []
        begun, done = threading.Event(), threading.Event()

        def act() -> None:
            begun.set()
            try:
                outcome.append(action(loop))
            except Exception as error:
                outcome.append(error)
            done.set()

        loop.post(act)
        looks = same = 0
        step: tuple[object, object] = (None, None)
        while not done.wait(LOOK):
            if begun.is_set():
                continue
            if loop.selector.get_map() is None:
                raise AttachError("no loop is running")
            looks += 1
            seen = step_of(main_frame())
            same = same + 1 if seen[1] is not None and seen[0] is step[0] and seen[1] is step[1] else 0
            step = seen
            if same == SAME_LOOKS or looks == MOST_LOOKS:
                raise HeldUpError(held_up(loop))
        if isinstance(outcome[0], Exception):
            raise AttachError(f"the snapshot failed: {outcome[0]!r}") from outcome[0]
        return outcome[0]


def _listen(path: str) -> socket.socket:
    """A socket that this user may connect to. OSError, also if there is no descriptor left for a connection."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.close(os.dup(listener.fileno()))
        with suppress(FileNotFoundError):
            os.unlink(path)
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen()
        listener.settimeout(LISTEN_CHECK)
    except OSError:
        listener.close()
        raise
    return listener


_desk = _Desk()


def _tell_tree(desk: _Desk, stream: IO[str], question: dict[str, Any]) -> None:
    try:
        found = desk.in_loop(snapshot)
        answer = {"text": found.as_json() + "\n" if question.get("json") else str(found)}
    except AttachError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), file=stream)


def _tell_numbers(desk: _Desk, stream: IO[str], question: dict[str, Any]) -> None:
    """What `coro top` shows, again and again until the client has gone."""
    from coro.debug.monitor import Monitor  # loaded only when somebody asks

    try:
        monitor = desk.in_loop(Monitor)
        try:
            desk.in_loop(lambda loop: monitor.start())  # which a loop that is held up does later: `stop` follows it
            while True:
                time.sleep(question["interval"])
                try:
                    numbers = desk.in_loop(lambda loop: monitor.look())
                except HeldUpError as error:
                    numbers = {"held up": str(error)}
                print(json.dumps(numbers), file=stream, flush=True)
        finally:
            desk.in_loop(lambda loop: monitor.stop())
    except AttachError as error:
        print(json.dumps({"error": str(error)}), file=stream)


QUESTIONS: dict[str, Callable[[_Desk, IO[str], dict[str, Any]], None]] = {"tree": _tell_tree, "numbers": _tell_numbers}


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end of a Unix socket: unix(7), SO_PEERCRED."""
    credentials = struct.Struct("3i")  # pid, uid, gid
    uid: int = credentials.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size))[1]
    return uid


def main_frame() -> FrameType | None:
    """Where the main thread is."""
    return sys._current_frames().get(threading.main_thread().ident or 0)


def held_up(loop: Loop) -> str:
    """Of a loop that does not come to answering: which task's step holds it, and where."""
    task = loop.current
    frame = main_frame()
    stack = "".join(f"\n      {place}" for place in places(frame))
    name = "no task" if task is None else f"task {task.name!r}"
    since = "" if task is None else f", {seconds(age_of(task))} old"
    from coro.debug.watchdog import advice  # loaded only for this

    hint = "" if frame is None or task is None else f"\n  {advice(frame)}"
    return f"the loop is held up by one step of {name}{since}:{stack}{hint}"
