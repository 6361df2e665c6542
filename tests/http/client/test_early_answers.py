"""Answers that come before the request has been sent, and bodies that wait for leave to be sent."""

from __future__ import annotations

import pytest

import coro
from coro import Coro
from coro.http import ConnectionLost, ProtocolError, RequestTimeout, ResponseTooLarge, StreamBody, StreamedResponse
from coro.http.client.request import Write
from tests.http.client.network import OK, Network, Wire

TOO_LARGE = b"HTTP/1.1 413 Too Large\r\nContent-Length: 6\r\n\r\nno, no"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
pieces_written = 0


def endless(write: Write) -> Coro[None]:
    global pieces_written
    for pieces_written in range(10_000):  # noqa: B007
        yield from write(bytes(10_000))


def refuse(wire: Wire) -> Coro[None]:
    yield from wire.head()
    yield from wire.stream.read_exactly(1000)
    yield from wire.send(TOO_LARGE)
    yield from wire.until_closed()


@pytest.mark.parametrize("body", [bytes(1 << 22), StreamBody(endless)], ids=["bytes", "stream"])
def test_refused_body_is_not_sent_to_its_end(network: Network, body: bytes | StreamBody) -> Coro[None]:
    network.serve(refuse)
    response = yield from network.client.put("http://a/", body=body)
    assert (response.status, response.body) == (413, b"no, no")
    assert network.open == [False]
    assert pieces_written < 100


def test_no_more_of_a_refused_body_is_sent_while_the_refusal_is_read(network: Network) -> Coro[None]:
    network.capacity = 10_000
    more = 0

    def slow(wire: Wire) -> Coro[None]:
        nonlocal more
        yield from wire.head()
        yield from wire.send(TOO_LARGE[:-1])
        with coro.move_on_after(5):
            while piece := (yield from wire.stream.read()):
                more += len(piece)
        yield from wire.send(TOO_LARGE[-1:])
        yield from wire.until_closed()

    network.serve(slow)
    response = yield from network.client.put("http://a/", body=StreamBody(endless))
    assert response.status == 413
    assert more < 30_000


def test_answer_of_a_server_that_then_closes_is_read(network: Network) -> Coro[None]:
    def refuse_and_close(wire: Wire) -> Coro[None]:
        yield from wire.head()
        yield from wire.send(TOO_LARGE)

    network.serve(refuse_and_close)
    response = yield from network.client.put("http://a/", body=bytes(1 << 22))
    assert response.status == 413


def test_server_that_closes_in_the_middle_of_the_body_without_an_answer(network: Network) -> Coro[None]:
    def close(wire: Wire) -> Coro[None]:
        yield from wire.head()
        yield from wire.stream.read_exactly(1000)

    network.serve(close)
    with pytest.raises(ConnectionLost, match=r"POST http://a: .*; it may have been carried out"):
        yield from network.client.post("http://a/", body=bytes(1 << 22))


def test_answer_to_a_body_can_be_read_while_that_is_sent(network: Network) -> Coro[None]:
    """Neither side could go on if the client sent all before it reads: the connection holds less than that."""
    network.capacity = 1000

    def echo(wire: Wire) -> Coro[None]:
        yield from wire.head()
        yield from wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(100):
            yield from wire.stream.write((yield from wire.stream.read_exactly(1000)))

    network.serve(echo)
    data = bytes(range(250)) * 400
    response = yield from network.client.put("http://a/", body=data)
    assert response.body == data


def test_writer_and_reader_in_conversation(network: Network) -> Coro[None]:
    said = coro.Queue[bytes]()

    def answers(wire: Wire) -> Coro[None]:
        yield from wire.head()
        yield from wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while size := int((yield from wire.stream.read_until(b"\r\n")), 16):
            data = yield from wire.stream.read_exactly(size + 2)
            yield from wire.send(b"%x\r\n" % size + data.upper())
        yield from wire.send(b"0\r\n\r\n")
        yield from wire.until_closed()

    def questions(write: Write) -> Coro[None]:
        while data := (yield from said.get()):
            yield from write(data)

    def talk(response: StreamedResponse) -> Coro[list[bytes]]:
        heard = []
        for word in b"one", b"two", b"three":
            said.put_nowait(word)
            heard.append((yield from response.read()))
        said.put_nowait(b"")
        assert (yield from response.read()) == b""
        return heard

    network.serve(answers)
    heard = yield from network.client.stream("POST", "http://a/", talk, body=StreamBody(questions))
    assert heard == [b"ONE", b"TWO", b"THREE"]


def test_writer_that_thinks_is_not_held_against_the_server(network: Network) -> Coro[None]:
    def answers(wire: Wire) -> Coro[None]:
        head = yield from wire.head()
        yield from wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\n")
        yield from wire.stream.read_until(b"0\r\n\r\n")
        if b"quick" in head:
            yield from wire.send(b"abc")
        yield from wire.until_closed()

    def thinks(write: Write) -> Coro[None]:
        yield from coro.sleep(1000)
        yield from write(b"abc")

    network.serve(answers)
    client = network.limit(total_time=1e9)
    assert (yield from client.put("http://a/quick", body=StreamBody(thinks))).body == b"abc"
    with pytest.raises(RequestTimeout, match="timed out after 60 s reading the response's body"):
        yield from client.put("http://a/never", body=StreamBody(thinks))
    assert coro.now() == pytest.approx(1000 + 1000 + 60)


def test_caller_that_thinks_is_not_hurried_by_the_end_of_the_sending(network: Network) -> Coro[None]:
    def answers(wire: Wire) -> Coro[None]:
        yield from wire.head()
        yield from wire.send(OK)
        yield from wire.until_closed()

    def slow(write: Write) -> Coro[None]:
        yield from coro.sleep(10)
        yield from write(b"abc")

    def thinks(response: StreamedResponse) -> Coro[bytes]:
        yield from coro.sleep(1000)
        return (yield from response.read())

    network.serve(answers)
    data = yield from network.client.stream("PUT", "http://a/", thinks, body=StreamBody(slow))
    assert data == b"abc"


@pytest.mark.parametrize("body", [b"3\r\nabcd\r\n", b"5\r\nabcde\r\n"], ids=["malformed", "too long"])
def test_answer_of_no_use_ends_the_sending_and_is_the_error(network: Network, body: bytes) -> Coro[None]:
    def bad(wire: Wire) -> Coro[None]:
        yield from wire.head()
        yield from wire.stream.read_exactly(1000)
        yield from wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", body)
        yield from coro.sleep_forever()

    network.serve(bad)
    with pytest.raises(ResponseTooLarge if b"5" in body else ProtocolError):
        yield from network.client.put("http://a/", body=StreamBody(endless), limit=4)
    assert network.open == [False]


def test_connection_is_closed_when_the_answer_is_whole_but_the_request_is_not(network: Network) -> Coro[None]:
    def quick(wire: Wire) -> Coro[None]:
        yield from wire.head()
        yield from wire.send(OK)
        yield from wire.until_closed()

    def waits(write: Write) -> Coro[None]:
        yield from write(b"abc")
        yield from coro.sleep_forever()

    network.serve(quick)
    response = yield from network.client.put("http://a/", body=StreamBody(waits))
    assert response.body == b"abc"
    assert network.open == [False]


def test_body_that_is_made_of_another_response_fails_with_that(network: Network) -> Coro[None]:
    """Its lost connection is not taken for that of the request that it is the body of."""
    client = network.client

    def handler(wire: Wire) -> Coro[None]:
        yield from wire.head()
        if wire.origin == "http://source":
            yield from wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        else:
            yield from wire.send(OK)
            yield from wire.until_closed()

    def copy(write: Write) -> Coro[None]:
        def use(response: StreamedResponse) -> Coro[None]:
            while data := (yield from response.read()):
                yield from write(data)

        yield from client.stream("GET", "http://source/", use)

    network.serve(handler)
    yield from client.get("http://target/")
    with pytest.raises(ConnectionLost, match="GET http://source: the server closed the connection 7 bytes before"):
        yield from client.put("http://target/", body=StreamBody(copy, repeatable=True))
    assert len(network.wires) == 2
    assert network.open == [False, False]


# --- Expect: 100-continue ----------------------------------------------------------------------


def asks(network: Network, body: bytes | StreamBody = b"abc") -> Coro[int]:
    response = yield from network.client.put("http://a/", body=body, expect_continue=True)
    return response.status


def test_body_is_sent_when_the_server_says_so(network: Network) -> Coro[None]:
    def careful(wire: Wire) -> Coro[None]:
        while True:
            head = yield from wire.head()
            assert b"\r\nContent-Length: 3\r\nExpect: 100-continue\r\n" in head
            with coro.move_on_after(0.9) as scope:
                yield from wire.stream.read()
            assert scope.cancelled_caught, "the body came unasked"
            yield from wire.send(CONTINUE)
            assert (yield from wire.body(head)) == b"abc"
            yield from wire.send(OK)

    network.serve(careful)
    assert (yield from asks(network)) == 200
    assert (yield from asks(network)) == 200
    assert len(network.wires) == 1


def test_body_is_sent_after_a_while_when_the_server_says_nothing(network: Network) -> Coro[None]:
    def simple(wire: Wire) -> Coro[None]:
        head = yield from wire.head()
        assert (yield from wire.body(head)) == b"abc"
        assert coro.now() == pytest.approx(1)
        yield from wire.send(OK)

    network.serve(simple)
    assert (yield from asks(network)) == 200


def test_body_that_was_sent_unasked_is_sent_to_its_end(network: Network) -> Coro[None]:
    network.capacity = 1000

    def simple(wire: Wire) -> Coro[None]:
        head = yield from wire.head()
        yield from coro.sleep(2)
        yield from wire.send(OK[:-3])
        assert len((yield from wire.body(head))) == 100_000
        yield from wire.send(OK[-3:])

    network.serve(simple)
    assert (yield from asks(network, bytes(100_000))) == 200


@pytest.mark.parametrize("status", [b"403 No", b"200 OK"])
def test_body_is_not_sent_when_the_server_answers_instead(network: Network, status: bytes) -> Coro[None]:
    rest = b"?"

    def refuse(wire: Wire) -> Coro[None]:
        nonlocal rest
        yield from wire.head()
        yield from wire.send(b"HTTP/1.1 " + status + b"\r\nContent-Length: 3\r\n\r\n")
        with coro.move_on_after(5):
            rest = yield from wire.stream.read()
            return
        yield from wire.send(b"abc")
        rest = yield from wire.until_closed()

    network.serve(refuse)
    assert (yield from asks(network)) == int(status[:3])
    assert network.open == [False]
    yield from coro.sleep(5)
    assert rest == b""


@pytest.mark.parametrize("body", [b"abc", StreamBody(lambda write: write(b"abc"), length=3, repeatable=True)])
def test_server_without_expectations_is_asked_again(network: Network, body: bytes | StreamBody) -> Coro[None]:
    def old(wire: Wire) -> Coro[None]:
        head = yield from wire.head()
        if b"Expect" in head:
            yield from wire.send(b"HTTP/1.1 417 What?\r\nContent-Length: 0\r\n\r\n")
        else:
            assert (yield from wire.body(head)) == b"abc"
            yield from wire.send(OK)

    network.serve(old)
    assert (yield from asks(network, body)) == 200
    assert network.requests == [b"PUT /", b"PUT /"]


def test_nothing_is_expected_without_a_body(network: Network) -> Coro[None]:
    def plain(wire: Wire) -> Coro[None]:
        assert b"Expect" not in (yield from wire.head())
        yield from wire.send(OK)

    network.serve(plain)
    assert (yield from asks(network, b"")) == 200
