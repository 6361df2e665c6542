"""Going over to another protocol, and not going over to it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

import coro
from coro.http import Answer, Request, Response, Upgrade
from coro.task import Coro
from tests.http.conftest import Serve
from tests.http.serving import Client, get, put

OFFER = "Connection: Upgrade\r\nUpgrade: shout, other/2\r\n"


def shout(stream: coro.Stream) -> Coro[None]:
    while line := (yield from stream.read()):
        yield from stream.write(line.upper())


def handle(request: Request) -> Coro[Answer]:
    yield from ()
    if "shout" in request.upgrade:
        return Upgrade("shout", shout, [("X-A", "b")])
    return Response(200, f"{request.path} {request.upgrade}")


def test_connection_is_the_other_protocols_from_there_on(serve: Serve) -> None:
    service = serve(handle)
    client = service.client()
    client.send(get(fields=OFFER) + b"at once ")
    status, headers = client.head()
    assert status == 101
    fields = {name.lower(): value for name, value in headers}
    assert (fields["upgrade"], fields["connection"], fields["x-a"]) == ("shout", "Upgrade", "b")
    assert "content-length" not in fields and "transfer-encoding" not in fields
    assert client.read(8) == b"AT ONCE "
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert client.read(18) == b"GET / HTTP/1.1\r\n\r\n"
    service.advance(10_000)
    client.send(b"still there")
    assert client.read(11) == b"STILL THERE"
    client.sock.shutdown(1)
    assert client.rest() == b""
    service.until_no_connection()


def test_offer_that_is_not_taken_up_is_a_request_like_others(serve: Serve) -> None:
    client = serve(handle).client()
    client.send(get("/1", "Connection: upgrade\r\nUpgrade: other\r\n") + get("/2"))
    assert [client.answer().body, client.answer().body] == [b"/1 other", b"/2 "]


def test_offer_with_a_body_is_none(serve: Serve) -> None:
    """RFC 9110, section 7.8 leaves it to the server."""
    client = serve(handle).client()
    assert client.ask(put(b"abc", OFFER)).body == b"/ "
    assert client.ask(get("/2")).body == b"/2 "


def test_offer_of_http_1_0_is_none(serve: Serve) -> None:
    assert serve(handle).ask(get(fields=OFFER, version="1.0")).body == b"/ "


def test_going_over_unasked_is_an_error(serve: Serve, logged: list[logging.LogRecord]) -> None:
    def unasked(request: Request) -> Coro[Answer]:
        yield from ()
        return Upgrade("shout", shout)

    assert serve(unasked).ask(get()).status == 500
    assert "did not offer" in str(logged.pop().exc_info)


def ask_for_more(stream: coro.Stream) -> Coro[None]:
    yield from stream.read_exactly(1000)


@pytest.mark.parametrize("leave", [Client.close, Client.vanish])
@pytest.mark.parametrize("protocol", [shout, ask_for_more])
def test_client_that_goes_away_is_no_error(
    serve: Serve, leave: Callable[[Client], None], protocol: Callable[[coro.Stream], Coro[None]]
) -> None:
    def handle(request: Request) -> Coro[Answer]:
        yield from ()
        return Upgrade("shout", protocol)

    service = serve(handle)
    client = service.client()
    client.send(get(fields=OFFER))
    assert client.head()[0] == 101
    leave(client)
    service.until_no_connection()


def test_other_lost_connections_are_errors(serve: Serve, logged: list[logging.LogRecord]) -> None:
    def forward(stream: coro.Stream) -> Coro[None]:
        yield from stream.read()
        raise ConnectionRefusedError("of a server that this one asks")

    def handle(request: Request) -> Coro[Answer]:
        yield from ()
        return Upgrade("shout", forward)

    client = serve(handle).client()
    client.send(get(fields=OFFER) + b"x")
    assert client.head()[0] == 101
    assert client.rest() == b""
    assert "of a server that this one asks" in str(logged.pop().exc_info)


@pytest.mark.parametrize("grace", [0.0, 10.0])
def test_other_protocol_is_ended_when_the_server_stops(serve: Serve, grace: float) -> None:
    service = serve(handle)
    client = service.client()
    client.send(get(fields=OFFER) + b"x")
    client.head()
    assert client.read(1) == b"X"
    service.stop(grace)
    if grace:
        client.send(b"y")
        assert client.read(1) == b"Y"
        service.advance(grace)
    assert client.rest() == b""
    service.wait_ended()
