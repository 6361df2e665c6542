"""Time limits, in virtual time: each names the server and what was being waited for."""

from __future__ import annotations

import math
from typing import Any

import pytest

import coro
from coro import Coro
from coro.http import Client, RequestTimeout, StreamBody, StreamedResponse
from coro.http.client.request import Outgoing, Write
from tests.http.client.network import OK, Network, Wire, answer, echo_target

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


def drip(*pieces: bytes, pause: float) -> Any:
    """Answers with these pieces, a pause before each, and then waits for ever."""
    def handler(wire: Wire) -> Coro[None]:
        yield from wire.request()
        for piece in pieces:
            yield from coro.sleep(pause)
            yield from wire.send(piece)
        yield from wire.until_closed()

    return handler


def fails_at(request: Coro[Any], seconds: float, words: str) -> Coro[None]:
    with pytest.raises(TimeoutError, match=words) as raised:
        yield from request
    assert isinstance(raised.value, RequestTimeout)
    assert coro.now() == pytest.approx(seconds)


def test_connecting(network: Network, monkeypatch: pytest.MonkeyPatch) -> Coro[None]:
    def connect(client: Client, request: Outgoing) -> Coro[None]:
        yield from coro.sleep_forever()

    monkeypatch.setattr(Client, "_connect", connect)
    client = network.limit(connect_time=7, connections=1)
    yield from fails_at(client.get("http://a:8/"), 7, r"^GET http://a:8: timed out after 7 s connecting$")
    yield from fails_at(client.get("http://a:8/"), 14, "connecting")  # the permit has come back


def test_response(network: Network) -> Coro[None]:
    network.serve(drip(pause=0))
    request = network.limit(read_time=7).post("http://a/")
    yield from fails_at(request, 7, r"^POST http://a: timed out after 7 s waiting for the response$")
    assert network.open == [False]


def test_head_that_drips(network: Network) -> Coro[None]:
    network.serve(drip(HEAD[:1], HEAD[1:2], HEAD[2:], pause=3))
    request = network.limit(read_time=7).get("http://a/")
    yield from fails_at(request, 7, "timed out after 7 s waiting for the response")


def test_time_for_the_body_begins_anew_with_each_byte(network: Network) -> Coro[None]:
    network.serve(drip(HEAD, b"a", b"b", b"c", pause=6))
    request = network.limit(read_time=7).get("http://a/")
    yield from fails_at(request, 4 * 6 + 7, r"^GET http://a: timed out after 7 s reading the response's body$")
    assert network.open == [False]


def test_in_all(network: Network) -> Coro[None]:
    network.serve(drip(HEAD, *[b"a"] * 1000, pause=6))
    request = network.client.get("http://a/", timeout=33)
    yield from fails_at(request, 33, r"^GET http://a: timed out after 33 s in all, reading the response's body$")


def test_requests_for_a_whole_response_have_a_limit_in_all_unless_told_otherwise(network: Network) -> Coro[None]:
    network.serve(drip(HEAD, *[b"a"] * 1000, pause=6))
    yield from fails_at(network.client.get("http://a/"), 300, "300 s in all")
    network.serve(drip(HEAD, *[b"a"] * 1000, pause=6))
    yield from network.client.get("http://a/", timeout=math.inf)
    assert coro.now() == pytest.approx(300 + 6 * 1001)


def test_streams_have_none(network: Network) -> Coro[None]:
    def use(response: StreamedResponse) -> Coro[bytes]:
        return response.read_all(2000)

    network.serve(drip(HEAD, *[b"a"] * 1000, pause=6))
    assert len((yield from network.client.stream("GET", "http://a/", use))) == 1000


def test_caller_of_a_stream_may_take_its_time_but_not_more_than_it_asked_for(network: Network) -> Coro[None]:
    def slow(response: StreamedResponse) -> Coro[bytes]:
        data = yield from response.read(1)
        yield from coro.sleep(1000)
        return data + (yield from response.read())

    network.serve(answer(OK))
    client = network.client
    assert (yield from client.stream("GET", "http://a/", slow)) == b"abc"
    request = client.stream("GET", "http://a/", slow, timeout=500)
    yield from fails_at(request, 1500, "500 s in all, while the caller handled the response")


def test_redirects_share_the_time(network: Network) -> Coro[None]:
    network.serve(drip(b"HTTP/1.1 302 Found\r\nLocation: http://b/\r\nContent-Length: 0\r\n\r\n", pause=20))
    yield from fails_at(network.client.get("http://a/", timeout=30), 30, "^GET http://b: timed out after 30 s in all")


def test_waiting_for_a_free_connection(network: Network) -> Coro[None]:
    client = network.limit(connections_per_origin=1)
    network.serve(echo_target)

    def hold(response: StreamedResponse) -> Coro[None]:
        yield from fails_at(
            client.get("http://a/", timeout=5), 5, "^GET http://a: timed out after 5 s in all, waiting for a free"
        )

    yield from client.stream("GET", "http://a/", hold)


def test_server_that_does_not_take_the_body(network: Network) -> Coro[None]:
    def silent(wire: Wire) -> Coro[None]:
        yield from coro.sleep(5)
        yield from wire.stream.read_exactly(500_000)
        yield from coro.sleep_forever()

    network.serve(silent)
    request = network.limit(read_time=7).put("http://a/", body=bytes(1 << 20))
    yield from fails_at(request, 12, r"^PUT http://a: timed out after 7 s sending the request")
    assert network.open == [False]


def test_body_that_is_made_slowly_is_not_the_servers_fault(network: Network) -> Coro[None]:
    def slow(write: Write) -> Coro[None]:
        for _ in range(3):
            yield from coro.sleep(70)
            yield from write(b"abc")

    network.serve(answer(OK))
    assert (yield from network.client.put("http://a/", body=StreamBody(slow))).status == 200


def test_server_that_does_not_answer_when_the_body_is_sent(network: Network) -> Coro[None]:
    def slow(write: Write) -> Coro[None]:
        yield from coro.sleep(70)
        yield from write(b"abc")

    network.serve(drip(pause=0))
    request = network.client.put("http://a/", body=StreamBody(slow))
    yield from fails_at(request, 130, "timed out after 60 s waiting for the response")


def test_limit_of_the_caller_is_the_callers(network: Network) -> Coro[None]:
    network.serve(drip(pause=0))
    with pytest.raises(TimeoutError, match="not done within 3 s"), coro.timeout(3):
        yield from network.client.get("http://a/")
    assert network.open == [False]
