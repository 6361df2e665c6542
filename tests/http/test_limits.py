"""What a client may cost: connections, requests, the pace of its body; and who is gone is worked for no longer."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

import coro
from coro.http import ClientDisconnected, Limits, Request, Response, StreamResponse
from coro.http.body import Body
from coro.http.connection import Connection
from coro.http.message import _starts
from coro.http.parser import Head
from coro.http.server import ENDED_AT_ONCE, ROOM_TIME
from coro.task import Coro
from tests.http.conftest import Serve
from tests.http.serving import Client, Service, echo, get, hello, put, put_chunked

LIMITS = Limits(head_time=20, idle_time=75, body_idle_time=60, body_rate=100)
TICK = 1.0  # seconds by which a limit may be missed


# --- Secrets -------------------------------------------------------------------------------


def remembered(service: Service) -> list[object]:
    """What the server need not read, or write, again."""
    plain = service.server.plain
    return [*plain.heads, *plain.lines, *plain.fields, *_starts.values()]


def serve_secrets(serve: Serve) -> Service:
    def handle(request: Request) -> Coro[Response]:
        yield from ()
        return Response(200, headers=(("X-Token", "secret"),))

    service = serve(handle, LIMITS)
    service.ask(get("/?key=secret", "Cookie: a=secret\r\nX-Key: secret\r\n"))
    known = service.call(lambda: remembered(service))
    assert sum("secret" in str(data) for data in known) == 5  # the head, its first line, two fields; the answer's
    return service


def test_no_secret_is_remembered_for_long(serve: Serve) -> None:
    """Nor anything else, as nobody can tell what of a head is secret."""
    service = serve_secrets(serve)
    service.advance(TICK)
    service.until(lambda: not remembered(service))


def test_no_secret_is_remembered_when_the_server_has_ended(serve: Serve) -> None:
    service = serve_secrets(serve)
    service.stop()
    service.wait_ended()
    assert not remembered(service)


# --- The pace of a body --------------------------------------------------------------------


@pytest.mark.parametrize("start", [put(length=10**6), put_chunked(b"f4240\r\n")], ids=["Content-Length", "chunked"])
def test_body_that_comes_a_byte_a_second_is_cut_off(serve: Serve, start: bytes) -> None:
    """Each second costs one of the 60, each byte earns a hundredth of one."""
    service = serve(echo, LIMITS)
    client = service.client()
    client.send(start)
    service.until_deadline()
    for _ in range(59):
        pace(service, client, b"x", 1)
    service.advance(2 * TICK)
    answer = client.answer()
    assert (answer.status, answer["connection"]) == (408, "close")


def pace(service: Service, client: Client, piece: bytes, pause: float) -> None:
    """Let time pass, then have a piece arrive."""
    connection = service.until_deadline()
    request = connection.request
    assert request is not None
    before = service.call(lambda: request.head.buffered)
    service.advance(pause)
    client.send(piece)
    service.until(lambda: request.head.buffered == before + len(piece) and connection.deadline < float("inf"))


def test_body_at_the_least_rate_is_received_however_long_it_takes(serve: Serve) -> None:
    service = serve(echo, LIMITS)
    client = service.client()
    client.send(put(length=20_001))
    for _ in range(20):
        pace(service, client, b"x" * 1000, 10)
    client.send(b"x")
    assert len(client.answer().body) == 20_001


def test_body_may_pause_after_it_came_fast_and_again_once_it_has_made_up_for_it(serve: Serve) -> None:
    service = serve(echo, LIMITS)
    client = service.client()
    client.send(put(length=100_001))
    for _ in range(10):
        pace(service, client, b"x" * 10_000, LIMITS.body_idle_time - 2 * TICK)
    client.send(b"x")
    assert client.answer().status == 200


def test_what_came_fast_does_not_allow_to_be_slow_for_ever_after(serve: Serve) -> None:
    service = serve(echo, LIMITS)
    client = service.client()
    client.send(put(length=10**6))
    pace(service, client, b"x" * 500_000, 1)
    for _ in range(3):
        pace(service, client, b"x" * 1000, 25)
    service.advance(25)
    assert client.answer().status == 408


# --- The size of a body ---------------------------------------------------------------------


def test_body_that_tells_that_it_is_too_large_is_refused_before_its_handler_is_called(serve: Serve) -> None:
    called: list[Request] = []

    def handle(request: Request) -> Coro[Response]:
        called.append(request)
        return (yield from echo(request))

    service = serve(handle, Limits(body=3))
    client = service.client()
    assert client.ask(put(b"abc")).body == b"abc"
    answer = client.ask(put(b"abcd", "Expect: 100-continue\r\n"))
    assert (answer.status, answer["connection"]) == (413, "close")
    assert client.rest() == b""
    assert len(called) == 1


@pytest.mark.parametrize("split", [False, True])
def test_chunked_body_that_turns_out_to_be_too_large_is_refused(serve: Serve, split: bool) -> None:
    client = serve(echo, Limits(body=3)).client()
    assert client.ask(put_chunked(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")).body == b"abc"
    data = put_chunked(b"1\r\na\r\n3\r\nbcd\r\n0\r\n\r\n") + get()
    client.send(*([data[i : i + 1] for i in range(len(data))] if split else [data]))
    answer = client.answer()
    assert (answer.status, answer["connection"]) == (413, "close")
    assert client.rest() == b""


# --- Connections ---------------------------------------------------------------------------


class Held:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.go = coro.Event()
        self.begun = 0

    def handle(self, request: Request) -> Coro[Response]:
        self.begun += 1
        yield from self.go.wait()
        return Response(200)


class DrippingConnection:
    """Of whose chunked body two bytes come at a time."""

    def __init__(self, count: int) -> None:
        self._left = count

    def receive_chunks(self, head: Head) -> Coro[None]:
        yield from ()
        self._left -= 2
        head.chunks = [bytes(bytearray(2))]  # an object of its own, as those from a socket are
        head.complete = not self._left


def test_body_in_tiny_pieces_takes_no_more_memory_than_its_bytes() -> None:
    body = Body(Head("PUT", "/", "1.1", {}, True), cast(Connection, DrippingConnection(100_000)))
    tracemalloc.start()
    try:
        assert coro.run(body.read_all(100_000)) == bytes(100_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000


def test_no_more_connections_are_accepted_than_allowed(serve: Serve, logged: list[logging.LogRecord]) -> None:
    handler = Held()
    service = serve(handler.handle, Limits(connections=3))
    clients = [service.client() for _ in range(5)]
    for client in clients:
        client.send(get())
    service.until(lambda: handler.begun == 3)
    service.settle()
    assert service.call(lambda: (len(service.server.connections), handler.begun)) == (3, 3)
    service.call(handler.go.set)
    for client in clients:
        assert client.answer().status == 200
        client.close()
    assert "all 3 connections (Limits.connections) are in use" in logged.pop().getMessage()


def test_idle_connection_gives_way_when_there_is_no_room(serve: Serve, logged: list[logging.LogRecord]) -> None:
    service = serve(hello, Limits(connections=2))
    idle, silent = service.client(), service.client()
    idle.ask(get())
    service.until(lambda: len(service.server.connections) == 2)
    other = service.client()
    other.send(get())
    service.until(lambda: service.server._complained >= 0)
    service.advance(ROOM_TIME)  # in case that the answered one was not idle yet
    assert other.answer().status == 200
    assert idle.rest() == b""
    assert silent.ask(get()).status == 200, "one that has asked for nothing yet is spared"
    assert len(logged) == 1
    logged.clear()


def test_not_all_idle_connections_give_way_at_once(serve: Serve, logged: list[logging.LogRecord]) -> None:
    service = serve(hello, Limits(connections=ENDED_AT_ONCE + 3))
    for _ in range(ENDED_AT_ONCE + 3):
        service.client().ask(get())
    service.until(lambda: all(connection.idle for connection in service.server.connections))
    service.client().ask(get())
    assert service.call(lambda: len(service.server.connections)) == 4
    logged.clear()


def test_connection_on_which_nothing_ever_came_is_closed_after_the_time_for_a_head(serve: Serve) -> None:
    service = serve(hello, LIMITS)
    client = service.client()
    connection = service.connection()
    service.until(lambda: connection.deadline < float("inf"))
    service.advance(LIMITS.head_time + TICK)
    assert client.rest() == b""


def test_connection_is_closed_after_as_many_requests_as_allowed(serve: Serve) -> None:
    client = serve(hello, Limits(requests=3)).client()
    client.send(get() * 5)
    assert [client.answer()["connection"] for _ in range(3)] == ["", "", "close"]
    assert client.rest() == b""


# --- Clients that have gone ----------------------------------------------------------------------


class Watched:
    """A handler that waits for ever, and notes how that ended."""

    def __init__(self) -> None:
        self.waiting = coro.Event()
        self.ends: list[type[BaseException]] = []

    def wait(self) -> Coro[None]:
        try:
            self.waiting.set()
            yield from coro.sleep_forever()
        except BaseException as error:
            self.ends.append(type(error))
            raise

    def handle(self, request: Request) -> Coro[Response]:
        yield from self.wait()
        return Response(200)

    def handle_in_group(self, request: Request) -> Coro[Response]:
        yield from coro.gather(self.wait(), self.wait())
        return Response(200)

    def handle_after_body(self, request: Request) -> Coro[Response]:
        yield from request.body.read_all(1000)
        yield from self.wait()
        return Response(200)

    def stream(self, request: Request) -> Coro[StreamResponse]:
        def write_body(write: Callable[[bytes], Coro[None]]) -> Coro[None]:
            yield from write(b"event")
            yield from self.wait()

        yield from ()
        return StreamResponse(write_body)


@pytest.mark.parametrize("second", [False, True], ids=["first request", "second request"])
@pytest.mark.parametrize("leave", [Client.close, Client.vanish])
@pytest.mark.parametrize("kind", ["handle", "handle_in_group", "handle_after_body", "stream"])
def test_handler_is_cancelled_when_its_client_has_gone(
    serve: Serve, kind: str, leave: Callable[[Client], None], second: bool
) -> None:
    handler = Watched()
    handlers = {"/": getattr(handler, kind), "/hello": hello}
    service = serve(lambda request: handlers[request.path](request))
    client = service.client()
    if second:
        client.ask(get("/hello"))
    client.send(put(b"abc"))
    service.until(handler.waiting.is_set)
    leave(client)
    service.until_no_connection()
    assert set(handler.ends) == {coro.Cancelled}


def test_handler_is_cancelled_when_its_client_on_a_unix_socket_has_gone(serve: Serve, tmp_path: Path) -> None:
    handler = Watched()
    service = serve(handler.handle, path=str(tmp_path / "socket"))
    client = service.client()
    client.send(get())
    service.until(handler.waiting.is_set)
    client.close()
    service.until_no_connection()
    assert handler.ends == [coro.Cancelled]


@pytest.mark.parametrize("path", [False, True], ids=["TCP", "Unix"])
@pytest.mark.parametrize("leave", [Client.close, Client.vanish])
def test_handler_is_cancelled_when_its_client_has_gone_behind_the_next_request(
    serve: Serve, tmp_path: Path, leave: Callable[[Client], None], path: bool
) -> None:
    handler = Watched()
    service = serve(handler.handle, path=str(tmp_path / "socket") if path else None)
    client = service.client()
    client.send(get())
    service.until(handler.waiting.is_set)
    client.send(get())
    connection = service.connection()
    service.until(lambda: connection.unwatched)
    leave(client)
    for _ in range(10_000):  # how soon the kernel knows, nobody can say
        if service.call(lambda: handler.ends):
            break
        service.advance(1)
    service.until_no_connection()
    assert handler.ends == [coro.Cancelled]


def test_handler_gets_all_of_a_body_that_came_before_its_client_went(serve: Serve) -> None:
    go, begun = coro.Event(), coro.Event()
    read: list[bytes | type[BaseException]] = []

    def handle(request: Request) -> Coro[Response]:
        begun.set()
        yield from go.wait()
        try:
            while True:
                read.append((yield from request.body.read()))
        except BaseException as error:
            read.append(type(error))
            raise

    service = serve(handle)
    client = service.client()
    client.send(put(b"abc", length=10))
    service.until(begun.is_set)
    client.send(b"def")
    client.close()
    service.settle()
    service.call(go.set)
    service.until_no_connection()
    assert (read[0], read[1:-1], read[-1]) == (b"abc", [b"def"], ClientDisconnected)


@pytest.mark.parametrize("path", [False, True], ids=["TCP", "Unix"])
def test_handler_goes_on_when_its_client_sends_the_next_request(serve: Serve, tmp_path: Path, path: bool) -> None:
    handler = Held()
    service = serve(handler.handle, path=str(tmp_path / "socket") if path else None)
    client = service.client()
    client.send(get())
    service.until(lambda: handler.begun)
    client.send(get())
    service.settle()
    service.call(handler.go.set)
    assert [client.answer().status, client.answer().status] == [200, 200]


def test_client_that_has_closed_its_direction_still_receives_what_is_being_sent(serve: Serve) -> None:
    size = 32 << 20

    def large(request: Request) -> Coro[Response]:
        yield from ()
        return Response(200, b"x" * size)

    service = serve(large, replace(LIMITS))
    service.small_send_buffers()
    client = service.client(receive_buffer=4096)
    client.send(get())
    service.until_deadline()
    client.sock.shutdown(1)
    assert len(client.answer().body) == size
