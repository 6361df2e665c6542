"""The job without the waiting: what one upload decides, and the bytes it sends and expects.

    POST / HTTP/1.1                    the client's request, on a connection that stays open for the next one
    Cookie: session=TOKEN
    Content-Length: 1000

    SESSION TOKEN\\n     -> USER\\n    the services' protocol: a line there, a line back; an empty line for "no"
    ROW ID USER SIZE\\n  -> ok\\n

The body is written to ID.part, renamed to ID, and then the row is inserted: no row without its whole file. Files are
written where the program runs, without a thread, in all five: bodies are small and the page cache takes them at once.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

HOST = "127.0.0.1"
END_OF_HEAD = b"\r\n\r\n"
MAX_HEAD = 65536  # bytes
MAX_BODY = 64 << 20  # bytes
CHUNK = 65536  # bytes of a body that are read at once
MAX_REPLY = 4096  # bytes that a service may answer
BACKLOG = 4096

REASONS = {201: b"Created", 401: b"Unauthorized", 503: b"Service Unavailable"}
COOKIE = re.compile(rb"\r\nCookie: *session=([\w-]+)\r\n", re.IGNORECASE)
CONTENT_LENGTH = re.compile(rb"\r\nContent-Length: *([0-9]{1,12})\r\n", re.IGNORECASE)

Serve = Callable[[socket.socket, Path, tuple[str, int]], None]
_numbers = itertools.count(1)


class ClientError(ConnectionError):
    """The client is gone, or sends what is no upload: the connection ends without an answer."""


class Upload:
    """One request. `with` removes its file on the way out, unless its row was inserted.

    The order of use: ask the services `session` and `admit` the reply; `write` while bytes are `left`; when it was
    `admitted`, ask them `complete()` and `acknowledge` the reply; `answer`. A reply is None when services are down.
    """

    __slots__ = ("_file", "_folder", "_id", "_size", "_token", "_user", "left", "status")

    def __init__(self, folder: Path, head: bytes) -> None:
        cookie, length = COOKIE.search(head), CONTENT_LENGTH.search(head)
        if length is None or int(length[1]) > MAX_BODY:
            raise ClientError("not an upload, or one that is too large")
        self._folder = folder
        self._id = f"{os.getpid()}-{next(_numbers)}"
        self._token = cookie[1] if cookie else b"-"
        self._size = self.left = int(length[1])
        self._user = b""
        self._file: BinaryIO | None = None
        self.status = 503

    @property
    def session(self) -> bytes:
        return b"SESSION %s\n" % self._token

    @property
    def admitted(self) -> bool:
        return self._file is not None

    def admit(self, reply: bytes | None) -> None:
        if reply is None:
            return
        self._user = reply.rstrip(b"\n")
        if self._user:
            self._file = open(f"{self._folder}/{self._id}.part", "wb", buffering=0)  # noqa: SIM115
        else:
            self.status = 401

    def write(self, data: bytes) -> None:
        """Take the next bytes of the body; those of one that is refused are dropped."""
        if not data:
            raise ClientError("the client is gone in the middle of a body")
        self.left -= len(data)
        if self._file is not None:
            self._file.write(data)

    def complete(self) -> bytes:
        """The body is there: its file takes its name. The question that inserts its row."""
        assert self._file is not None
        self._file.close()
        os.rename(f"{self._folder}/{self._id}.part", f"{self._folder}/{self._id}")
        return b"ROW %s %s %d\n" % (self._id.encode(), self._user, self._size)

    def acknowledge(self, reply: bytes | None) -> None:
        if reply == b"ok\n":
            self.status = 201

    def answer(self) -> bytes:
        text = (self._id if self.status == 201 else REASONS[self.status].decode()).encode() + b"\n"
        return b"HTTP/1.1 %d %s\r\nContent-Length: %d\r\n\r\n%s" % (self.status, REASONS[self.status], len(text), text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """The end of it, whichever: remove the file, unless its row was inserted."""
        if self._file is None:
            return
        name = f"{self._folder}/{self._id}"
        if not self._file.closed:  # still the part file
            self._file.close()
            os.unlink(f"{name}.part")
        elif self.status != 201:
            os.unlink(name)
        self._file = None


def allow_descriptors() -> int:
    """Allow as many open descriptors as the system does; how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def main(serve: Serve) -> None:
    """The command line of each of the five: listen, print the port, serve until a signal ends the process."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--folder", type=Path, required=True, help="where the files go")
    parser.add_argument("--services", type=int, required=True, metavar="PORT", help="where the services listen")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    allow_descriptors()
    with socket.create_server((HOST, 0), backlog=BACKLOG) as listener:
        print(listener.getsockname()[1], flush=True)
        serve(listener, options.folder, (HOST, options.services))
