"""When a connection is used again, when a request is sent again, and who gets a connection first."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

import pytest

import coro
from coro import ClosedError, Coro, TaskGroup
from coro.http import Client, ClientLimits, ConnectionLost, ProtocolError, StreamBody, StreamedResponse
from coro.http.client.pool import Connection
from coro.http.client.request import Write
from tests.http.client.network import OK, Network, Wire, answer, echo_target


def read_all(response: StreamedResponse) -> Coro[bytes]:
    return response.read_all(1 << 20)


# --- Kept, or not ------------------------------------------------------------------------------


def test_connection_is_kept_for_the_next_request(network: Network) -> Coro[None]:
    network.serve(echo_target)
    for number in range(3):
        response = yield from network.client.get(f"http://a/{number}")
        assert response.body == b"/%d" % number
    assert [len(wire.requests) for wire in network.wires] == [3]


def test_connection_belongs_to_scheme_host_and_port(network: Network) -> Coro[None]:
    network.serve(echo_target)
    urls = ["http://a/", "http://A:80/x", "https://a/", "http://a:81/", "http://b/", "http://a./"]
    for url in urls:
        yield from network.client.get(url)
    assert [wire.origin for wire in network.wires] == ["http://a", "https://a", "http://a:81", "http://b", "http://a."]


def test_the_one_used_last_is_taken(network: Network) -> Coro[None]:
    network.serve(echo_target)
    client = network.client
    yield from coro.gather(*[client.get("http://a/") for _ in range(3)])
    assert repr(client) == "<http.Client, 0 connections lent, 3 idle>"
    for _ in range(5):
        yield from client.get("http://a/")
    assert sorted(len(wire.requests) for wire in network.wires) == [1, 1, 6]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        OK + b"\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_connection_is_closed_after(network: Network, data: bytes) -> Coro[None]:
    network.serve(answer(data, OK))
    client = network.client
    yield from client.get("http://a/")
    assert network.open == [False]
    network.serve(answer(OK))
    assert (yield from client.get("http://a/")).body == b"abc"


def test_connection_that_ended_with_the_response_is_closed(network: Network) -> Coro[None]:
    network.serve(answer(b"HTTP/1.1 200 OK\r\n\r\nabc", close=True))
    assert (yield from network.client.get("http://a/")).body == b"abc"
    assert network.open == [False]


def test_connection_whose_server_has_closed_it_is_not_used(network: Network) -> Coro[None]:
    network.serve(answer(OK, close=True))
    for _ in range(3):
        yield from network.client.post("http://a/", body=b"once")
    assert [len(wire.requests) for wire in network.wires] == [1, 1, 1]
    assert network.open == [False, False, True]


def test_what_a_server_says_unasked_is_never_taken_for_an_answer(network: Network) -> Coro[None]:
    def talking(wire: Wire) -> Coro[None]:
        yield from wire.request()
        yield from wire.send(OK)
        yield from coro.sleep(1)
        yield from wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        yield from wire.until_closed()

    network.serve(talking)
    client = network.client
    yield from client.get("http://a/")
    yield from coro.sleep(2)
    assert (yield from client.get("http://a/")).body == b"abc"
    assert network.open == [False, True]


def test_connection_that_nobody_uses_is_closed_after_a_while(network: Network) -> Coro[None]:
    network.serve(echo_target)
    client = network.limit(idle_time=30)
    yield from client.get("http://a/")
    yield from coro.sleep(20)
    yield from client.get("http://b/")
    yield from coro.sleep(9)
    assert network.open == [True, True]
    yield from coro.sleep(2)
    assert network.open == [False, True]
    yield from coro.sleep(19)
    assert network.open == [False, False]
    assert not client._pool._places


def test_use_makes_it_young_again(network: Network) -> Coro[None]:
    network.serve(echo_target)
    client = network.limit(idle_time=30)
    for _ in range(10):
        yield from client.get("http://a/")
        yield from coro.sleep(29)
    assert len(network.wires) == 1


def test_connection_is_given_up_before_its_server_does_so(network: Network) -> Coro[None]:
    network.serve(answer(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 3\r\n\r\nabc"))
    client = network.client
    yield from client.get("http://a/")
    yield from coro.sleep(3.9)
    yield from client.get("http://a/")
    assert len(network.wires) == 1
    yield from coro.sleep(4.1)
    yield from client.get("http://a/")
    assert len(network.wires) == 2


def test_it_is_given_up_even_if_nobody_has_closed_it_yet(network: Network) -> Coro[None]:
    """The timer is set for another connection, which stays longer."""
    network.serve(answer(OK, b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 3\r\n\r\nabc"))
    client = network.client
    yield from client.get("http://b/")
    yield from client.get("http://a/")
    yield from client.get("http://a/")
    yield from coro.sleep(4.5)
    yield from client.get("http://a/")
    assert [wire.origin for wire in network.wires] == ["http://b", "http://a", "http://a"]


LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\nabc"


def impatient(response: StreamedResponse) -> Coro[bytes]:
    return response.read(1)


def failing(response: StreamedResponse) -> Coro[bytes]:
    yield from response.read(1)
    raise LookupError("a bug")


def test_response_that_was_not_read_to_its_end_closes_the_connection(network: Network) -> Coro[None]:
    network.serve(answer(LONG))
    assert (yield from network.client.stream("GET", "http://a/", impatient)) == b"a"
    assert network.open == [False]


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"


@pytest.mark.parametrize("use", [impatient, failing])
@pytest.mark.parametrize(
    ("data", "kept"),
    [(OK, True), (CHUNKED + b"0\r\n\r\n", True), (CHUNKED, False), (CHUNKED + b"x\r\n", False), (OK + b"x", False),
     (b"HTTP/1.1 200 OK\r\n\r\nabc", False)],
)  # fmt: skip
def test_unread_rest_that_is_here_already_does_not_matter(
    network: Network, data: bytes, kept: bool, use: Any
) -> Coro[None]:
    network.serve(answer(data))
    client = network.client
    with suppress(LookupError):
        yield from client.stream("GET", "http://a/", use)
    assert network.open == [kept]


@pytest.mark.parametrize("limit", [100, 1])
def test_connection_is_free_as_soon_as_the_response_has_been_read(network: Network, limit: int) -> Coro[None]:
    client = network.limit(connections=1)

    def nested(response: StreamedResponse) -> Coro[bytes]:
        first = yield from response.read(limit)
        while len(first) < 2:
            first += yield from response.read(limit)
        second = yield from client.get("http://a/2")
        return first + second.body + (yield from response.read())

    network.serve(echo_target)
    assert (yield from client.stream("GET", "http://a/1", nested)) == b"/1/2"
    assert len(network.wires) == 1


def test_connection_is_free_for_a_response_without_a_body_at_once(network: Network) -> Coro[None]:
    client = network.limit(connections=1)

    def nested(response: StreamedResponse) -> Coro[int]:
        return (yield from client.get("http://a/")).status

    network.serve(answer(b"HTTP/1.1 204 No Content\r\n\r\n"))
    assert (yield from client.stream("GET", "http://a/", nested)) == 204


def test_response_cannot_be_read_when_its_function_has_ended(network: Network) -> Coro[None]:
    def leak(response: StreamedResponse) -> Coro[StreamedResponse]:
        yield from ()
        return response

    network.serve(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\nabc"))
    response = yield from network.client.stream("GET", "http://a/", leak)
    with pytest.raises(ClosedError, match="GET http://a: the response was closed before it was read"):
        yield from response.read()


def test_error_in_the_function_closes_the_connection(network: Network) -> Coro[None]:
    network.serve(answer(LONG))
    with pytest.raises(LookupError):
        yield from network.client.stream("GET", "http://a/", failing)
    assert network.open == [False]


def test_closing_the_client(network: Network) -> Coro[None]:
    network.serve(echo_target)
    with network.client as client:
        yield from client.get("http://a/")

        def close_meanwhile(response: StreamedResponse) -> Coro[bytes]:
            client.close()
            assert network.open == [True]
            return response.read_all(10)

        assert (yield from client.stream("GET", "http://a/x", close_meanwhile)) == b"/x"
    assert network.open == [False]
    assert len(coro.current_task().loop.timers) == 0
    with pytest.raises(ClosedError, match="the HTTP client is closed"):
        yield from client.get("http://a/")


# --- Sent again, or not ------------------------------------------------------------------------


def closes_after(count: int, last: bytes = b"") -> Any:
    """The first connection answers so many requests, and closes with the next one received, after these bytes."""
    def handler(wire: Wire) -> Coro[None]:
        for _ in range(count if wire.number == 0 else 1000):
            yield from wire.request()
            yield from wire.send(OK)
        yield from wire.request()
        yield from wire.send(last)

    return handler


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_idempotent_request_is_sent_again_when_a_kept_connection_is_lost(network: Network, method: str) -> Coro[None]:
    network.serve(closes_after(1))
    client = network.client
    yield from client.get("http://a/")
    yield from client.request(method, "http://a/2", body=b"abc" if method == "PUT" else b"")
    assert network.requests == [b"GET /", method.encode() + b" /2", method.encode() + b" /2"]
    assert network.open[0] is False


@pytest.mark.parametrize("method", ["POST", "PATCH", "LOCK"])
def test_request_that_may_have_been_carried_out_is_not_sent_again(network: Network, method: str) -> Coro[None]:
    network.serve(closes_after(1))
    client = network.client
    yield from client.get("http://a/")
    expected = f"{method} http://a: the server closed the connection without a response; it may have been carried out"
    with pytest.raises(ConnectionLost, match=expected):
        yield from client.request(method, "http://a/2")
    assert len(network.wires) == 1


def test_request_is_not_sent_again_when_its_connection_was_new(network: Network) -> Coro[None]:
    network.serve(closes_after(0))
    with pytest.raises(ConnectionLost, match=r"GET http://a: the server closed the connection without a response$"):
        yield from network.client.get("http://a/")
    assert len(network.wires) == 1


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", OK[:-1]])
def test_request_is_not_sent_again_when_the_answer_had_begun(network: Network, begun: bytes) -> Coro[None]:
    network.serve(closes_after(1, begun))
    client = network.client
    yield from client.get("http://a/")
    with pytest.raises(ConnectionLost):
        yield from client.get("http://a/2")
    assert len(network.wires) == 1


def test_request_is_sent_again_once(network: Network) -> Coro[None]:
    def always_closes(wire: Wire) -> Coro[None]:
        if wire.number == 0:
            yield from wire.request()
            yield from wire.send(OK)
        yield from wire.request()

    network.serve(always_closes)
    client = network.client
    yield from client.get("http://a/")
    with pytest.raises(ConnectionLost):
        yield from client.get("http://a/2")
    assert network.requests == [b"GET /", b"GET /2", b"GET /2"]


@pytest.mark.parametrize("repeatable", [True, False])
def test_body_that_cannot_be_made_again_is_not_sent_again(network: Network, repeatable: bool) -> Coro[None]:
    def write_body(write: Write) -> Coro[None]:
        yield from write(b"abc")

    network.serve(closes_after(1))
    client = network.client
    yield from client.get("http://a/")
    request = client.put("http://a/2", body=StreamBody(write_body, repeatable=repeatable))
    if repeatable:
        yield from request
    else:
        with pytest.raises(ConnectionLost):
            yield from request
    assert len(network.wires) == 1 + repeatable


@pytest.mark.parametrize("body", [b"abc", StreamBody(lambda write: write(b"abc"))])
def test_any_request_of_which_no_byte_has_left_is_sent_again(
    network: Network, monkeypatch: pytest.MonkeyPatch, body: Any
) -> Coro[None]:
    network.serve(answer(OK, close=True))
    client = network.client
    yield from client.get("http://a/")
    monkeypatch.setattr(Connection, "is_silent", lambda connection: True)  # it was, when one looked
    yield from client.post("http://a/2", body=body)
    assert network.requests == [b"GET /", b"POST /2"]


def test_request_that_tls_may_have_sent_in_part_is_not_sent_again(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> Coro[None]:
    network.serve(answer(OK, close=True))
    client = network.client
    yield from client.get("http://a/")
    errors = iter([ssl.SSLWantWriteError(), BrokenPipeError(32, "Broken pipe")])

    def send(data: object) -> int:
        raise next(errors)

    monkeypatch.setattr(network.ends[0].socket.sock, "send", send)
    monkeypatch.setattr(Connection, "is_silent", lambda connection: True)
    with pytest.raises(ConnectionLost, match=r"POST http://a: .*; it may have been carried out"):
        yield from client.post("http://a/2")
    assert len(network.wires) == 1


def test_other_kept_connections_are_not_tried_after_one_was_lost(network: Network) -> Coro[None]:
    def handler(wire: Wire) -> Coro[None]:
        yield from wire.request()
        yield from wire.send(OK)
        yield from wire.request()
        if wire.number >= 3:
            yield from wire.send(OK)

    network.serve(handler)
    client = network.client
    yield from coro.gather(*[client.get("http://a/") for _ in range(3)])
    network.serve(answer(OK))
    assert (yield from client.get("http://a/2")).body == b"abc"
    assert network.open == [False, False, False, True]
    assert network.requests.count(b"GET /2") == 2


# --- Who gets one ------------------------------------------------------------------------------


def test_no_more_connections_to_one_origin_than_allowed(network: Network) -> Coro[None]:
    network.serve(echo_target)
    client = network.limit(connections_per_origin=3)
    yield from coro.gather(*[client.get(f"http://{host}/") for host in "aaaaaaaaaaaaaaabb"])
    assert sorted(wire.origin for wire in network.wires) == ["http://a"] * 3 + ["http://b"] * 2


def test_no_more_connections_in_all_than_allowed_idle_ones_included(network: Network) -> Coro[None]:
    network.serve(echo_target)
    client = network.limit(connections=3)
    for number in range(10):
        yield from coro.gather(*[client.get(f"http://host{number + n}/") for n in range(5)])
        assert sum(network.open) <= 3
    assert network.most_open == 3


def test_longest_idle_one_makes_room(network: Network) -> Coro[None]:
    network.serve(echo_target)
    client = network.limit(connections=2)
    for host in "a", "b", "a", "c":
        yield from client.get(f"http://{host}/")
    assert {wire.origin: is_open for wire, is_open in zip(network.wires, network.open, strict=True)} == {
        "http://a": True, "http://b": False, "http://c": True
    }  # fmt: skip


def test_first_come_first_served(network: Network) -> Coro[None]:
    network.serve(echo_target)
    client = network.limit(connections_per_origin=1)
    served: list[int] = []

    def ask(number: int) -> Coro[None]:
        yield from client.get(f"http://a/{number}")
        served.append(number)
        if number < 10:
            yield from ask(number + 10)  # who comes again has to queue again

    yield from coro.gather(*[ask(number) for number in range(10)])
    assert served == list(range(20))
    assert len(network.wires) == 1


def test_busy_origin_does_not_stand_in_the_way_of_another(network: Network) -> Coro[None]:
    def handler(wire: Wire) -> Coro[None]:
        yield from wire.request()
        if wire.origin == "http://slow":
            yield from coro.sleep(100)
        yield from wire.send(OK)
        yield from wire.until_closed()

    network.serve(handler)
    client = network.limit(connections=5, connections_per_origin=2)

    def body(group: TaskGroup) -> Coro[None]:
        for _ in range(10):
            group.spawn(client.get("http://slow/", timeout=1000))
        yield from coro.sleep(1)
        yield from client.get("http://quick/")
        assert coro.now() < 2
        group.cancel()

    yield from coro.task_group(body)


def test_who_stops_waiting_leaves_nothing_behind(network: Network) -> Coro[None]:
    network.serve(echo_target)
    client = network.limit(connections=1)

    def hold(response: StreamedResponse) -> Coro[None]:
        with coro.move_on_after(1):
            yield from coro.gather(*[client.get(f"http://{host}/") for host in "aabb"])
        yield from response.read_all(10)

    yield from client.stream("GET", "http://a/", hold)
    assert [place.permits.free for place in client._pool._places.values()] == [20]
    assert (yield from client.get("http://b/1")).body == b"/1"
    assert repr(client) == "<http.Client, 0 connections lent, 1 idle>"
    client.close()
    assert not client._pool._places


def test_pool_of_nothing() -> None:
    for limits in ClientLimits(connections=0), ClientLimits(connections_per_origin=0):
        with pytest.raises(ValueError, match="without connections"):
            Client(limits=limits)


def test_waiting_for_a_client_that_is_closed(network: Network) -> Coro[None]:
    network.serve(echo_target)
    client = network.limit(connections=1)

    def hold(response: StreamedResponse) -> Coro[None]:
        def body(group: TaskGroup) -> Coro[None]:
            waiting = group.spawn(client.get("http://a/"))
            yield from coro.sleep(1)
            client.close()
            yield from response.read_all(10)
            with pytest.raises(ClosedError):
                yield from waiting.join()

        with suppress(ClosedError):
            yield from coro.task_group(body)

    yield from client.stream("GET", "http://a/", hold)
    assert network.open == [False]


def test_what_is_no_http_is_named_and_its_connection_closed(network: Network) -> Coro[None]:
    network.serve(answer(b"220 mail.example ESMTP\r\n"))
    with pytest.raises(ProtocolError, match=r"GET http://a:25: this is not HTTP/1.1: '220 mail.example"):
        yield from network.client.get("http://a:25/")
    assert network.open == [False]
