"""What runs in a worker process of `to_process`: take a call from the socket, make it, send back what came of it.

Each message is its length (8 bytes, big-endian), then a pickle. A call is (function, args, kwargs); an answer is
(True, result) or (False, error, the traceback as text). The worker ends at the end of the stream.

A worker must not outlive the process it works for. While it waits for a call, it sees the end of the stream. While it
makes one, which may be C code that never looks up, the kernel watches in its place: a hang-up of the socket raises
SIGIO (fcntl(2), `O_ASYNC`), whose default action is to end the process.
"""

from __future__ import annotations

import fcntl
import io
import os
import pickle
import runpy
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from coro.errors import CoroError

PROTOCOL = pickle.HIGHEST_PROTOCOL  # the same Python runs on both sides
LENGTH = struct.Struct("!Q")
# The caller's main program, where a call needs it, is run under this name. multiprocessing, which calls it the same,
# has taught people the guard that keeps it from doing its work again: `if __name__ == "__main__":`.
MAIN = "__mp_main__"


class Main:
    """The caller's main program, as far as a worker has to do with it."""

    being_loaded = False

    def __init__(self, module: str | None, path: str | None) -> None:
        self._module = module
        self._path = path
        self._loaded = False

    def load(self, wanted: str) -> None:
        if self._loaded:
            return
        Main.being_loaded = True
        try:
            if self._module is not None:
                names = runpy.run_module(self._module, run_name=MAIN, alter_sys=True)
            elif self._path is not None:
                names = runpy.run_path(self._path, run_name=MAIN)
            else:
                raise pickle.UnpicklingError(f"{wanted!r} is defined in no file: move it to a module, to be imported")
        finally:
            Main.being_loaded = False
        self._loaded = True
        main = ModuleType(MAIN)
        main.__dict__.update(names)
        sys.modules[MAIN] = sys.modules["__main__"] = main


def serve(fd: int, main: Main) -> None:
    """Answer the calls that come on the socket `fd`, until its end."""
    signal.signal(signal.SIGINT, lambda number, frame: None)  # Ctrl-C is for the caller, who ends us if need be
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # it could not be allowed to end us half started
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    os.set_inheritable(fd, False)
    os.register_at_fork(after_in_child=lambda: os.close(fd))  # what a call forks must not keep the stream open
    with suppress(ConnectionError), socket.socket(fileno=fd) as connection, connection.makefile("rb") as stream:
        while head := stream.read(LENGTH.size):
            call = stream.read(LENGTH.unpack(head)[0])
            with _ended_by_hang_up(connection):
                answer = _perform(call, main)
                _flush()
            connection.sendall(LENGTH.pack(len(answer)))
            connection.sendall(answer)


class _Unpickler(pickle.Unpickler):
    def __init__(self, call: bytes, main: Main) -> None:
        super().__init__(io.BytesIO(call))
        self._main = main

    def find_class(self, module: str, name: str) -> Any:
        if module == "__main__":
            self._main.load(name)
        return super().find_class(module, name)


def _perform(call: bytes, main: Main) -> bytes:
    try:
        function, args, kwargs = _Unpickler(call, main).load()
        return pickle.dumps((True, function(*args, **kwargs)), PROTOCOL)
    except BaseException as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next  # without this function
        text = "".join(traceback.format_exception(error))
        try:
            answer = pickle.dumps((False, error, text), PROTOCOL)
            pickle.loads(answer)  # many classes of errors can be pickled, but not made again from that
        except Exception:
            substitute = CoroError(f"the call raised {error!r}, which cannot be sent from one process to another")
            return pickle.dumps((False, substitute, text), PROTOCOL)
        return answer


@contextmanager
def _ended_by_hang_up(connection: socket.socket) -> Iterator[None]:
    """Inside the block, the end of the stream ends this process at once."""
    flags = fcntl.fcntl(connection, fcntl.F_GETFL)
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETFL, flags | os.O_ASYNC)
    poll = select.poll()
    poll.register(connection, 0)  # a hang-up is always reported
    if poll.poll(0):  # it came before the kernel watched
        os.kill(os.getpid(), signal.SIGIO)
    try:
        yield
    finally:
        fcntl.fcntl(connection, fcntl.F_SETFL, flags)


def _flush() -> None:
    """What the call printed must not wait here for the next one, or be lost with this process."""
    for file in sys.stdout, sys.stderr:
        with suppress(AttributeError, OSError, ValueError):  # there is none, its reader has gone, it was closed
            file.flush()
