"""TCP and Unix sockets: connecting, listening, serving (coro/net.py). See also test_tls.py and test_stream.py."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

import coro
from coro import ClosedError, Coro, EndOfStream, Listener, Stream, TaskGroup
from coro.net import resolve
from tests.kernel.serving import ask, shout, with_server
from tests.kernel.support import on_every_selector, python, run_on
from tests.services import dead_port

# --- TCP ------------------------------------------------------------------------------------------


@on_every_selector
def test_server_and_clients_talk_over_tcp(selector: Any) -> None:
    def body(listener: Listener) -> Coro[list[bytes]]:
        def client(number: int) -> Coro[bytes]:
            stream = yield from coro.connect("127.0.0.1", listener.port)
            return (yield from ask(stream, b"client %d\n" % number))

        return (yield from coro.gather(*[client(number) for number in range(20)]))

    assert run_on(selector, with_server(body)) == [b"CLIENT %d\n" % number for number in range(20)]


def test_ipv6() -> Coro[None]:
    def body(listener: Listener) -> Coro[bytes]:
        stream = yield from coro.connect("::1", listener.port)
        return (yield from ask(stream, b"six\n"))

    assert (yield from with_server(body, coro.listen("::1", 0))) == b"SIX\n"


def test_small_writes_are_sent_at_once() -> Coro[None]:
    def body(listener: Listener) -> Coro[None]:
        stream = yield from coro.connect("127.0.0.1", listener.port)
        assert (yield from ask(stream, b"x\n")) == b"X\n"

    def handler(stream: Stream) -> Coro[None]:
        assert stream.socket.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        yield from shout(stream)

    yield from with_server(body, handler=handler)


def test_refused_connection_names_host_and_port() -> Coro[None]:
    port = dead_port()
    with pytest.raises(ConnectionRefusedError, match=rf"cannot connect to 127\.0\.0\.1:{port}: Connection refused"):
        yield from coro.connect("127.0.0.1", port)


def test_unknown_host_is_named(monkeypatch: pytest.MonkeyPatch) -> Coro[None]:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    expected = r"cannot find host 'nowhere\.example', for port 80: Name or service not known"
    with pytest.raises(OSError, match=expected):
        yield from coro.connect("nowhere.example", 80)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b"])
def test_what_cannot_be_the_name_of_a_host_is_an_error_like_an_unknown_one(host: str) -> Coro[None]:
    with pytest.raises(OSError, match=f"cannot find host {host!r}, for port 80: .*label"):
        yield from coro.connect(host, 80)


def test_next_address_is_tried_when_the_first_refuses(monkeypatch: pytest.MonkeyPatch) -> Coro[None]:
    def found(host: str, port: int) -> Coro[list[tuple[int, Any]]]:
        yield from ()
        return [(socket.AF_INET, ("127.0.0.1", dead_port())), (socket.AF_INET, ("127.0.0.1", port))]

    monkeypatch.setattr("coro.net.resolve", found)

    def body(listener: Listener) -> Coro[bytes]:
        stream = yield from coro.connect("two-addresses", listener.port)
        return (yield from ask(stream, b"second\n"))

    assert (yield from with_server(body)) == b"SECOND\n"


def test_names_are_looked_up_outside_of_the_loops_thread(monkeypatch: pytest.MonkeyPatch) -> Coro[None]:
    threads: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        threads.append(threading.current_thread().name)
        return real(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    found = yield from resolve("localhost", 80)
    assert ("127.0.0.1", 80) in [address[:2] for _, address in found]
    assert threads == ["MainThread", "coro-worker"]  # the first only parses numbers
    del threads[:]
    assert (yield from resolve("127.0.0.1", 80)) == [(socket.AF_INET, ("127.0.0.1", 80))]
    assert threads == ["MainThread"]


def test_connect_that_is_cancelled_closes_its_socket(monkeypatch: pytest.MonkeyPatch) -> Coro[None]:
    made: list[coro.Socket] = []
    real = coro.Socket.connect

    def connect(self: coro.Socket, address: Any) -> Coro[None]:
        made.append(self)
        yield from coro.sleep_forever()
        yield from real(self, address)

    monkeypatch.setattr(coro.Socket, "connect", connect)

    with coro.move_on_after(0.01):
        yield from coro.connect("127.0.0.1", 1)
    assert [sock.fd for sock in made] == [-1]


def test_taken_port_names_the_address() -> None:
    listener = coro.listen("127.0.0.1", 0)
    expected = rf"cannot listen on 127\.0\.0\.1:{listener.port}: Address already in use"
    with pytest.raises(OSError, match=expected) as caught:
        coro.listen("127.0.0.1", listener.port)
    assert caught.value.errno == errno.EADDRINUSE
    listener.close()


def test_several_listeners_can_share_a_port() -> None:
    first = coro.listen("127.0.0.1", 0, reuse_port=True)
    second = coro.listen("127.0.0.1", first.port, reuse_port=True)
    assert second.port == first.port
    first.close()
    second.close()


# --- Serving ----------------------------------------------------------------------------------------------


def test_stream_is_closed_when_its_handler_ends() -> Coro[None]:
    def handler(stream: Stream) -> Coro[None]:
        yield from stream.write(b"bye")

    def body(listener: Listener) -> Coro[bytes]:
        stream = yield from coro.connect("127.0.0.1", listener.port)
        data = yield from stream.read_exactly(3)
        rest = yield from stream.read()
        stream.close()
        return data + rest

    assert (yield from with_server(body, handler=handler)) == b"bye"


def test_handler_that_fails_is_logged_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> Coro[None]:
    def handler(stream: Stream) -> Coro[None]:
        line = yield from stream.read_until(b"\n")
        if line == b"fail\n":
            raise LookupError("a bug")
        yield from stream.write(line.upper())

    def body(listener: Listener) -> Coro[bytes]:
        good = yield from coro.connect("127.0.0.1", listener.port)
        bad = yield from coro.connect("127.0.0.1", listener.port)
        with pytest.raises(EndOfStream):
            yield from ask(bad, b"fail\n")
        return (yield from ask(good, b"good\n"))

    assert (yield from with_server(body, handler=handler)) == b"GOOD\n"
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.name == "coro.net"
    assert record.exc_info is not None and isinstance(record.exc_info[1], LookupError)


def test_client_that_goes_away_is_no_error_of_the_server(caplog: pytest.LogCaptureFixture) -> Coro[None]:
    ended = coro.Event()

    def handler(stream: Stream) -> Coro[None]:
        try:
            yield from shout(stream)
        finally:
            ended.set()

    def body(listener: Listener) -> Coro[None]:
        stream = yield from coro.connect("127.0.0.1", listener.port)
        yield from stream.write(b"unfinished")
        stream.close()
        yield from ended.wait()

    yield from with_server(body, handler=handler)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_cancelled_server_ends_its_handlers_and_closes_their_streams() -> Coro[None]:
    streams: list[Stream] = []

    def handler(stream: Stream) -> Coro[None]:
        streams.append(stream)
        yield from stream.read()

    def body(group: TaskGroup) -> Coro[None]:
        listener = coro.listen("127.0.0.1", 0)
        server = group.spawn(coro.serve([listener], handler))
        client = yield from coro.connect("127.0.0.1", listener.port)
        while not streams:
            yield from coro.sleep(0.001)
        server.cancel()
        with pytest.raises(coro.TaskCancelled):
            yield from server.join()
        assert streams[0].closed
        assert (yield from client.read()) == b""
        client.close()
        listener.close()

    yield from coro.task_group(body)


def test_server_whose_listener_is_closed_ends_when_its_handlers_have_ended() -> Coro[None]:
    def body(group: TaskGroup) -> Coro[None]:
        listener = coro.listen("127.0.0.1", 0)
        server = group.spawn(coro.serve(listener, shout))
        stream = yield from coro.connect("127.0.0.1", listener.port)
        yield from stream.write(b"before\n")
        assert (yield from stream.read_until(b"\n")) == b"BEFORE\n"
        listener.close()
        assert (yield from ask(stream, b"after\n")) == b"AFTER\n"
        yield from server.join()

    yield from coro.task_group(body)


def test_listener_that_is_closed_wakes_who_accepts() -> Coro[None]:
    listener = coro.listen("127.0.0.1", 0)

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(closed_error(listener.accept()))
        yield from coro.checkpoint()
        listener.close()
        listener.close()
        assert f"127.0.0.1:{listener.port} was closed" in (yield from task.join())

    yield from coro.task_group(body)
    with pytest.raises(ClosedError):
        yield from listener.accept()


def closed_error(work: Coro[Any]) -> Coro[str]:
    with pytest.raises(ClosedError) as caught:
        yield from work
    return str(caught.value)


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN])
def test_connection_that_was_lost_in_the_queue_does_not_end_the_server(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> Coro[None]:
    failures = [OSError(code, os.strerror(code))]
    real = socket.socket.accept

    def accept(self: socket.socket) -> Any:
        if failures:
            raise failures.pop()
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)

    def body(listener: Listener) -> Coro[bytes]:
        stream = yield from coro.connect("127.0.0.1", listener.port)
        return (yield from ask(stream, b"next\n"))

    assert (yield from with_server(body)) == b"NEXT\n"
    assert not failures


def test_server_without_free_descriptors_backs_off_and_recovers() -> None:
    """In a process that may open few: it takes all of them, connects, and gives them back one by one."""
    done = python("""
import coro, logging, os, resource, socket
warnings = []

class Handler(logging.Handler):
    def emit(self, record):
        warnings.append((coro.now(), record.getMessage()))

logging.getLogger().addHandler(Handler())
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))

def handler(stream):
    yield from stream.write(b"hello")

def body(group):
    listener = coro.listen("127.0.0.1", 0)
    group.spawn(coro.serve(listener, handler))
    client = socket.socket()
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    client.connect(("127.0.0.1", listener.port))
    stream = coro.Stream(coro.Socket(client))
    while len(warnings) < 2:
        yield from coro.sleep(0.01)
    (first, text), (second, _) = warnings
    print(text.replace(str(listener.port), "PORT"), second - first >= 0.1)
    os.close(held.pop())
    print((yield from stream.read_exactly(5)))
    for fd in held:
        os.close(fd)
    group.cancel()

coro.run(coro.task_group(body))
""")
    assert done.stdout == "cannot accept on 127.0.0.1:PORT: Too many open files; trying again True\nb'hello'\n"
    assert done.stderr == ""


# --- Unix sockets ---------------------------------------------------------------------------------------------


@on_every_selector
def test_server_and_client_talk_over_a_unix_socket(selector: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    def body(listener: Listener) -> Coro[bytes]:
        stream = yield from coro.connect_unix(path)
        return (yield from ask(stream, b"unix\n"))

    assert run_on(selector, with_server(body, coro.listen_unix(path))) == b"UNIX\n"
    assert not os.path.exists(path)


def test_socket_file_that_an_ended_process_left_is_replaced(tmp_path: Path) -> Coro[None]:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)

    def body(listener: Listener) -> Coro[bytes]:
        stream = yield from coro.connect_unix(path)
        return (yield from ask(stream, b"new\n"))

    assert (yield from with_server(body, coro.listen_unix(path))) == b"NEW\n"


def test_socket_file_of_a_living_process_is_not_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listener = coro.listen_unix(path)
    with pytest.raises(OSError, match=f"cannot listen on {path}: Address already in use"):
        coro.listen_unix(path)
    assert os.path.exists(path)
    listener.close()


def test_file_that_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(OSError, match="Address already in use"):
        coro.listen_unix(str(path))
    assert path.read_text() == "precious"


def test_listener_whose_file_has_been_removed_can_be_closed(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listener = coro.listen_unix(path)
    os.unlink(path)
    listener.close()
    assert listener.socket.fd == -1


def test_missing_unix_socket_is_named(tmp_path: Path) -> Coro[None]:
    path = str(tmp_path / "socket")
    with pytest.raises(FileNotFoundError, match=f"cannot connect to {path}: No such file or directory"):
        yield from coro.connect_unix(path)


@pytest.mark.parametrize("call", [coro.connect_unix, coro.listen_unix])
def test_path_that_is_too_long_for_a_unix_socket_is_explained(call: Any) -> Coro[None]:
    with pytest.raises(OSError, match=r"/tmp/x+: AF_UNIX path too long"):
        yield from call("/tmp/" + "x" * 200)


def test_client_waits_while_the_queue_of_a_unix_socket_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """connect(2) says EAGAIN then, and a selector would call the unconnected socket writable."""
    monkeypatch.setattr("coro.net.BACK_OFF", 0.001)
    path = str(tmp_path / "socket")
    raw = socket.socket(socket.AF_UNIX)
    raw.bind(path)
    raw.listen(0)
    listener = Listener(raw)

    def body(group: TaskGroup) -> Coro[None]:
        clients = [group.spawn(coro.connect_unix(path)) for _ in range(4)]
        yield from coro.sleep(0)
        while not all(client.done or client.request for client in clients):
            yield from coro.checkpoint()
        assert not all(client.done for client in clients)
        for _ in clients:
            server = yield from listener.accept()
            yield from server.write(b"welcome")
            server.close()
        for client in clients:
            stream = yield from client.join()
            assert (yield from stream.read_exactly(7)) == b"welcome"
            stream.close()

    coro.run(coro.task_group(body))
    listener.close()


def test_port_that_cannot_be_is_told() -> Coro[None]:
    with pytest.raises(OSError, match="cannot connect to localhost:70000: there is no such port"):
        yield from coro.connect("localhost", 70000)
