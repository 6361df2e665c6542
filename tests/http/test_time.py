"""Time limits, and stopping. The clock stands still but where a test moves it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

import coro
from coro.http import Limits, Request, Response, StreamResponse
from coro.http.connection import DRAIN_SIZE, LINGER_IDLE_TIME, LINGER_TIME, Connection
from coro.net import Stream
from coro.task import Coro
from tests.http.conftest import Serve
from tests.http.serving import Service, echo, get, hello, put, put_chunked

LIMITS = Limits(head_time=20, idle_time=75, body_idle_time=60)
TICK = 1.0  # seconds by which a limit may be missed
MIB = 1 << 20


def until_busy(service: Service) -> None:
    service.until(lambda: any(connection.busy for connection in service.server.connections))


# --- Time limits ---------------------------------------------------------------------------


def test_head_must_be_complete_in_time(serve: Serve) -> None:
    service = serve(hello, LIMITS)
    client = service.client()
    client.send(b"GET / HTTP/1.1\r\n")
    service.until_deadline()
    service.advance(LIMITS.head_time - TICK)
    client.send(b"X: dripping\r\n")
    service.advance(2 * TICK)
    answer = client.answer()
    assert (answer.status, answer["connection"]) == (408, "close")
    assert client.rest() == b""


def test_head_whose_beginning_came_with_the_request_before_must_be_complete_in_time(serve: Serve) -> None:
    service = serve(hello, LIMITS)
    client = service.client()
    client.send(get() + b"GET /2 HT")
    assert client.answer().status == 200
    service.until_deadline()
    service.advance(LIMITS.head_time + TICK)
    assert client.answer().status == 408


def test_idle_connection_is_closed_without_an_answer(serve: Serve) -> None:
    service = serve(hello, LIMITS)
    client = service.client()
    client.ask(get())
    connection = service.connection()
    service.until(lambda: not connection.busy)
    service.advance(LIMITS.idle_time - TICK)
    assert client.ask(get("/2")).body == b"GET /2"
    service.until(lambda: not connection.busy)
    service.advance(LIMITS.idle_time + TICK)
    assert client.rest() == b""


def test_connection_on_which_nothing_comes_is_closed(serve: Serve) -> None:
    service = serve(hello, LIMITS)
    client = service.client()
    connection = service.connection()
    service.until(lambda: connection.deadline < float("inf"))
    service.advance(LIMITS.idle_time + TICK)
    assert client.rest() == b""


def test_empty_lines_do_not_keep_a_connection_open(serve: Serve) -> None:
    service = serve(hello, LIMITS)
    client = service.client()
    connection = service.connection()
    service.until(lambda: connection.deadline < float("inf"))
    service.advance(LIMITS.idle_time - TICK)
    client.send(b"\r\n" * 100)
    service.advance(2 * TICK)
    assert client.rest() == b""


@pytest.mark.parametrize("start", [put(length=10), put_chunked(b"")], ids=["Content-Length", "chunked"])
def test_body_that_stalls_ends_the_request_with_408(serve: Serve, start: bytes) -> None:
    ends: list[type[BaseException]] = []

    def handle(request: Request) -> Coro[Response]:
        try:
            return (yield from echo(request))
        except BaseException as error:
            ends.append(type(error))
            raise

    service = serve(handle, LIMITS)
    client = service.client()
    client.send(start)
    service.until_deadline()
    service.advance(LIMITS.body_idle_time + TICK)
    answer = client.answer()
    assert (answer.status, answer["connection"]) == (408, "close")
    assert client.rest() == b""
    assert ends == [coro.Cancelled]


def received(connection: Connection) -> int:
    """Bytes of the body so far."""
    return connection.request.head.buffered if connection.request is not None else 0


def test_body_that_comes_slowly_is_received(serve: Serve) -> None:
    service = serve(echo, replace(LIMITS, body_rate=0))
    client = service.client()
    client.send(put(length=5))
    connection = service.until_deadline()
    for number in range(1, 5):
        service.advance(LIMITS.body_idle_time - TICK)
        client.send(b"x")
        service.until(lambda number=number: received(connection) == number)  # type: ignore[misc]
    client.send(b"x")
    assert client.answer().body == b"xxxxx"


def test_handler_may_take_its_time(serve: Serve) -> None:
    go = coro.Event()

    def handle(request: Request) -> Coro[Response]:
        yield from request.body.read(1)
        yield from go.wait()
        return Response(204)

    service = serve(handle, LIMITS)
    client = service.client()
    client.send(put(b"abc"))
    until_busy(service)
    service.advance(1000)
    service.call(go.set)
    assert client.answer().status == 204


def test_handler_may_take_its_time_after_it_gave_up_reading(serve: Serve) -> None:
    """The limit for an idle body counts while the body is being read, and no longer."""
    waiting = coro.Event()
    go = coro.Event()

    def handle(request: Request) -> Coro[Response]:
        with coro.move_on_after(5):
            yield from request.body.read()
        waiting.set()
        yield from go.wait()
        return Response(204)

    service = serve(handle, LIMITS)
    client = service.client()
    client.send(put(length=10))
    service.until_deadline()
    service.advance(5)
    service.until(waiting.is_set)
    service.advance(1000)
    service.call(go.set)
    assert client.answer().status == 204


def large(request: Request) -> Coro[Response]:
    yield from ()
    return Response(200, b"x" * 32 * MIB)


def streamed(request: Request) -> Coro[StreamResponse]:
    def write_body(write: Callable[[bytes], Coro[None]]) -> Coro[None]:
        for _ in range(32):
            yield from write(b"x" * MIB)

    yield from ()
    return StreamResponse(write_body)


@pytest.mark.parametrize("handler", [large, streamed])
def test_client_that_takes_nothing_of_its_answer_is_cut_off(
    serve: Serve, logged: list[logging.LogRecord], handler: Callable[[Request], Coro[Response]]
) -> None:
    service = serve(handler, LIMITS)
    client = service.client(receive_buffer=4096)
    client.send(get())
    service.until_deadline()
    service.advance(LIMITS.body_idle_time + TICK)
    service.until_no_connection()
    assert len(client.rest()) < 32 * MIB


@pytest.mark.parametrize("handler", [large, streamed])
def test_client_that_takes_its_answer_slowly_receives_it(
    serve: Serve, handler: Callable[[Request], Coro[Response]]
) -> None:
    service = serve(handler, LIMITS)
    client = service.client(receive_buffer=65536)
    client.send(get())
    client.head()
    connection = service.until_deadline()
    sent = 0
    for _ in range(5):
        before = service.call(lambda: connection.deadline)
        service.advance(LIMITS.body_idle_time - 2 * TICK)
        while service.call(lambda: connection.deadline) == before:
            sent += len(client.sock.recv(65536))
    while sent < 20 * MIB:
        sent += len(client.sock.recv(65536))


def test_client_that_goes_on_sending_after_its_answer_is_cut_off(serve: Serve) -> None:
    service = serve(hello, LIMITS)
    client = service.client()
    assert client.ask(put(length=1 << 40))["connection"] == "close"
    assert client.rest() == b""
    for _ in range(int(LINGER_TIME)):
        client.send(b"x")
        service.settle()
        service.advance(1)
    service.until_no_connection()


def test_client_that_neither_sends_nor_closes_after_its_answer_is_cut_off(serve: Serve) -> None:
    service = serve(hello, LIMITS)
    client = service.client()
    assert client.ask(put(length=1 << 40))["connection"] == "close"
    assert client.rest() == b""
    service.advance(LINGER_IDLE_TIME)
    service.until_no_connection()


def test_rest_of_a_body_must_come_in_time(serve: Serve) -> None:
    service = serve(hello, LIMITS)
    client = service.client()
    assert client.ask(put(length=DRAIN_SIZE)).status == 200
    service.until_deadline()
    service.advance(LINGER_TIME)
    assert client.rest() == b""


# --- Stopping ---------------------------------------------------------------------------------


def test_stop_without_connections(serve: Serve) -> None:
    service = serve(hello)
    service.stop(grace=60)
    service.wait_ended()


def test_stop_closes_idle_connections(serve: Serve) -> None:
    service = serve(hello)
    used, unused = service.client(), service.client()
    used.ask(get())
    service.until(lambda: len(service.server.connections) == 2)
    service.until(lambda: not any(connection.busy for connection in service.server.connections))
    service.stop(grace=60)
    assert used.rest() == unused.rest() == b""
    service.wait_ended()


def test_stop_closes_a_connection_that_was_accepted_in_the_same_turn(serve: Serve) -> None:
    service = serve(hello)
    service.client().ask(get())  # it is answered: the server waits in the accept of the next one
    accept = service.listener.accept

    def accept_and_stop() -> Coro[Stream]:
        stream = yield from accept()
        service.server.stop(grace=60)
        return stream

    service.listener.accept = accept_and_stop  # type: ignore[method-assign]
    service.client().ask(get())  # after this one, that accept is called
    silent = service.client()
    assert silent.rest() == b""
    service.wait_ended()


def test_stop_refuses_new_connections(serve: Serve) -> None:
    service = serve(waiting)
    client = service.client()
    client.send(get())
    until_busy(service)
    service.stop(grace=60)
    service.until(lambda: service.listener.socket.fd < 0)
    with pytest.raises(ConnectionRefusedError):
        service.client()


class Waiting:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.go = coro.Event()
        self.ends: list[type[BaseException]] = []

    def handle(self, request: Request) -> Coro[Response]:
        try:
            yield from self.go.wait()
            return (yield from echo(request))
        except BaseException as error:
            self.ends.append(type(error))
            raise


def waiting(request: Request) -> Coro[Response]:
    return (yield from Waiting().handle(request))


def test_stop_lets_requests_finish(serve: Serve) -> None:
    handler = Waiting()
    service = serve(handler.handle)
    client = service.client()
    client.send(put(length=3) + b"a")
    until_busy(service)
    service.stop(grace=60)
    service.advance(59)
    service.call(handler.go.set)
    client.send(b"bc")
    answer = client.answer()
    assert (answer.body, answer["connection"]) == (b"abc", "close")
    assert client.rest() == b""
    client.close()
    service.wait_ended()


def test_stop_does_not_begin_what_was_pipelined(serve: Serve) -> None:
    handler = Waiting()
    service = serve(handler.handle)
    client = service.client()
    client.send(put(b"one") + put(b"two"))
    until_busy(service)
    service.stop(grace=60)
    service.call(handler.go.set)
    assert client.answer().body == b"one"
    assert client.rest() == b""


def test_stop_cancels_requests_after_the_grace(serve: Serve) -> None:
    handler = Waiting()
    service = serve(handler.handle)
    client = service.client()
    client.send(get())
    until_busy(service)
    service.stop(grace=60)
    assert not service.ended()
    service.advance(60)
    service.wait_ended()
    assert handler.ends == [coro.Cancelled]
    assert client.rest() == b""


def test_stop_closes_a_connection_in_the_middle_of_a_head_after_the_grace(serve: Serve) -> None:
    service = serve(hello)
    client = service.client()
    client.send(b"GET / HT")
    until_busy(service)
    service.stop(grace=10)
    service.advance(10)
    service.wait_ended()
    assert client.rest() == b""
