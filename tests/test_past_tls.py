"""Under TLS no operation goes past it: what would send or read unprotected bytes is refused (coro/io.py)."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

import coro
from coro import Coro, Socket, Stream, TaskGroup
from tests.certificates import make_certificates


def with_tls(directory: Path, body: Callable[[Stream], Coro[None]]) -> None:
    """Run `body` with a client's end of a TLS connection to a server that echoes."""
    files = make_certificates(directory)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)

    def echo(stream: Stream) -> Coro[None]:
        yield from stream.start_tls(context, server_side=True)
        while data := (yield from stream.read()):
            yield from stream.write(data)

    def run(group: TaskGroup) -> Coro[None]:
        listener = coro.listen("127.0.0.1", 0)
        group.spawn(coro.serve(listener, echo))
        trust = ssl.create_default_context(cafile=files.authority)
        stream = yield from coro.connect("127.0.0.1", listener.port, tls=trust)
        try:
            yield from body(stream)
            yield from stream.write(b"still protected")
            assert (yield from stream.read_exactly(15)) == b"still protected"
        finally:
            stream.close()
            listener.close()

    coro.run(coro.task_group(run))


def test_sendfile_is_refused_under_tls(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"secret")

    def body(stream: Stream) -> Coro[None]:
        with path.open("rb") as file, pytest.raises(OSError, match="unencrypted") as caught:
            yield from stream.socket.send_file(file.fileno(), 0, 6)
        assert caught.value.errno == errno.EOPNOTSUPP

    with_tls(tmp_path, body)


def test_one_direction_cannot_be_closed_under_tls(tmp_path: Path) -> None:
    def body(stream: Stream) -> Coro[None]:
        with pytest.raises(OSError, match="one direction") as caught:
            stream.socket.send_eof()
        assert caught.value.errno == errno.EOPNOTSUPP
        yield from ()

    with_tls(tmp_path, body)


def test_sendfile_on_a_closed_socket_is_a_closed_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")

    def body() -> Coro[None]:
        near, far = socket.socketpair()
        with far, path.open("rb") as file:
            end = Socket(near)
            assert (yield from end.send_file(file.fileno(), 2, 100)) == 5
            assert far.recv(100) == b"ntent"
            end.close()
            with pytest.raises(coro.ClosedError):
                yield from end.send_file(file.fileno(), 0, 1)

    coro.run(body())
