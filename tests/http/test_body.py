"""Request bodies as streams: slowed down by their readers, announced by 100 Continue, left unread, broken off."""

from __future__ import annotations

import contextlib
import http.client
import logging
import subprocess
from collections.abc import Callable

import pytest

import coro
from coro.http import ClientDisconnected, HTTPError, Request, Response, StreamResponse
from coro.http.connection import DRAIN_SIZE
from coro.task import Coro
from tests.http.conftest import Serve
from tests.http.serving import PATIENCE, Client, echo, get, hello, put, put_chunked
from tests.http.vectors import NEXT

MIB = 1 << 20
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECT = "Expect: 100-continue\r\n"
BOTH_FRAMINGS = pytest.mark.parametrize(
    "start", [put(length=1 << 40), put_chunked(b"%x\r\n" % (1 << 40))], ids=["Content-Length", "chunked"]
)


# --- Reading -----------------------------------------------------------------------


def pieces(limit: int) -> Callable[[Request], Coro[Response]]:
    """A handler that answers with the pieces it could read."""

    def handle(request: Request) -> Coro[Response]:
        found = []
        while data := (yield from request.body.read(limit)):
            found.append(data.decode())
        return Response.json(found)

    return handle


@pytest.mark.parametrize("data", [put(b"abcdefg"), put_chunked(b"1\r\na\r\n6\r\nbcdefg\r\n0\r\n\r\n")])
def test_read_gives_no_more_than_asked_for(serve: Serve, data: bytes) -> None:
    assert serve(pieces(3)).ask(data).body == b'["abc","def","g"]'


@pytest.mark.parametrize("limit", [0, -1])
def test_read_gives_at_least_a_byte_or_is_an_error(serve: Serve, limit: int) -> None:
    def handle(request: Request) -> Coro[Response]:
        with pytest.raises(ValueError, match=f"reading {limit} bytes"):
            yield from request.body.read(limit)
        return Response(200, (yield from request.body.read_all(10)))

    assert serve(handle).ask(put(b"abc")).body == b"abc"


def test_read_gives_what_has_come(serve: Serve) -> None:
    got: list[bytes] = []

    def handle(request: Request) -> Coro[Response]:
        while data := (yield from request.body.read()):
            got.append(data)
        return Response(204)

    for start, more, end in (
        (put(length=4), [b"a", b"b", b"cd"], b""),
        (put_chunked(b""), [b"1\r\na\r\n", b"1\r\nb\r\n", b"2\r\ncd\r\n"], b"0\r\n\r\n"),
    ):
        got.clear()
        service = serve(handle)
        client = service.client()
        client.send(start)
        for number, piece in enumerate(more, 1):
            client.send(piece)
            service.until(lambda number=number: len(got) == number)  # type: ignore[misc]
        client.send(end)
        assert client.answer().status == 204
        assert got == [b"a", b"b", b"cd"]


@pytest.mark.parametrize("split", [0, 1, 3, 6])
def test_read_into_fills_the_readers_buffer(serve: Serve, split: int) -> None:
    def handle(request: Request) -> Coro[Response]:
        buffer = memoryview(bytearray(4))
        found = []
        while count := (yield from request.body.read_into(buffer)):
            found.append(bytes(buffer[:count]))
        return Response(200, b"|".join(found))

    service = serve(handle)
    for start, rest in (
        (put(b"abcdef"[:split], length=6), b"abcdef"[split:]),
        (put_chunked(b"6\r\nabcdef"[: split + 3]), b"6\r\nabcdef"[split + 3 :] + b"\r\n0\r\n\r\n"),
    ):
        client = service.client()
        client.send(start)
        client.send(rest)
        assert client.answer().body.replace(b"|", b"") == b"abcdef"
        assert client.ask(put(b"")).body == b""


def read_into(request: Request) -> Coro[Response]:
    """Answers with the body, read into a large buffer."""
    buffer = memoryview(bytearray(MIB))
    end = 0
    while count := (yield from request.body.read_into(buffer[end:])):
        end += count
    return Response(200, bytes(buffer[:end]))


def read_one_byte(request: Request) -> Coro[Response]:
    return Response(200, (yield from request.body.read(1)))


@pytest.mark.parametrize("handler", [echo, read_into, read_one_byte])
@pytest.mark.parametrize("start", [put(length=4), put_chunked(b"")], ids=["Content-Length", "chunked"])
def test_reader_takes_nothing_of_the_next_request(
    serve: Serve, handler: Callable[[Request], Coro[Response]], start: bytes
) -> None:
    """Which comes together with the rest of the body, when the body is being waited for."""
    service = serve(handler)
    client = service.client()
    client.send(start)
    service.until_deadline()
    client.send((b"4\r\nbody\r\n0\r\n\r\n" if b"chunked" in start else b"body") + put(b"next"))
    assert [client.answer().body[:1], client.answer().body[:1]] == [b"b", b"n"]


@pytest.mark.parametrize("data", [put(b"x" * 11), put_chunked(b"b\r\n" + b"x" * 11 + b"\r\n0\r\n\r\n")])
def test_read_all_is_limited(serve: Serve, data: bytes) -> None:
    def handle(request: Request) -> Coro[Response]:
        return Response(200, (yield from request.body.read_all(int(request.path[1:]))))

    assert serve(handle).ask(data.replace(b"/", b"/11", 1)).body == b"x" * 11
    assert serve(handle).ask(data.replace(b"/", b"/10", 1)).status == 413


def test_body_that_came_with_its_head_is_there_at_once(serve: Serve) -> None:
    def handle(request: Request) -> Coro[Response]:
        yield from ()
        return Response(200, repr((request.body.buffered(), request.body.complete, request.body.missing)))

    service = serve(handle)
    assert service.ask(put(b"abc")).body == b"(b'abc', True, 0)"
    assert service.ask(get()).body == b"(b'', True, 0)"
    assert service.ask(put(b"abc", length=5)).body == b"(None, False, 2)"
    assert service.ask(put_chunked(b"3\r\nabc\r\n")).body == b"(None, False, None)"


@pytest.mark.parametrize(
    ("body", "status"),
    [(b'{"a": [1]}', 200), (b"{", 400), (b"\xff", 400), (b"", 400), (b"[" * 100_000, 400), (b'"' + b"x" * MIB, 413)],
    ids=["valid", "broken", "not UTF-8", "empty", "nested deeply", "large"],
)
def test_json(serve: Serve, body: bytes, status: int) -> None:
    def handle(request: Request) -> Coro[Response]:
        return Response.json((yield from request.json()))

    answer = serve(handle).ask(put(body))
    assert answer.status == status
    assert status != 200 or answer.body == b'{"a":[1]}'


# --- Backpressure --------------------------------------------------------------------


@BOTH_FRAMINGS
def test_handler_that_does_not_read_stops_the_sender(serve: Serve, start: bytes) -> None:
    go = coro.Event()

    def handle(request: Request) -> Coro[Response]:
        yield from go.wait()
        while (yield from request.body.read()):
            pass
        return Response(204)

    service = serve(handle)
    client = service.client()
    client.send(start)
    service.until(lambda: any(connection.busy for connection in service.server.connections))
    most = 256 * MIB  # far more than the kernel's buffers take
    assert client.send_until_stopped(b"x" * MIB, most) < most
    request = service.connection().request
    assert request is not None
    head = request.head
    assert service.call(lambda: head.buffered) <= 65536
    service.call(go.set)
    client.send(b"x" * 16 * MIB)  # now it is read


def test_reader_takes_no_more_than_it_asks_for(serve: Serve) -> None:
    go = coro.Event()

    def handle(request: Request) -> Coro[Response]:
        yield from request.body.read(10)
        yield from go.wait()
        return Response(204)

    service = serve(handle)
    client = service.client()
    client.send(put(length=1000))
    request = service.until_deadline().request
    assert request is not None
    head = request.head
    client.send(b"x" * 1000)
    service.until(lambda: head.buffered)
    assert service.call(lambda: head.buffered) == 10
    service.call(go.set)
    assert client.answer().status == 204


# --- Expect: 100-continue ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "rest"),
    [(put(fields=EXPECT, length=3), b"abc"), (put_chunked(b"", EXPECT), b"3\r\nabc\r\n0\r\n\r\n")],
    ids=["Content-Length", "chunked"],
)
def test_continue_is_sent_when_the_handler_reads(serve: Serve, start: bytes, rest: bytes) -> None:
    reading = coro.Event()

    def handle(request: Request) -> Coro[Response]:
        yield from reading.wait()
        return (yield from echo(request))

    service = serve(handle)
    client = service.client()
    client.send(start)
    service.until(lambda: any(connection.busy for connection in service.server.connections))
    client.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.sock.recv(1)
    client.sock.settimeout(PATIENCE)
    service.call(reading.set)
    assert client.read(len(CONTINUE)) == CONTINUE
    client.send(rest)
    assert client.answer().body == b"abc"
    assert client.ask(put(b"x")).body == b"x"


def test_continue_is_sent_once(serve: Serve) -> None:
    client = serve(pieces(1)).client()
    client.send(put(fields=EXPECT, length=2))
    assert client.read(len(CONTINUE)) == CONTINUE
    client.send(b"a")
    client.send(b"b")
    assert client.answer().body == b'["a","b"]'


def test_continue_is_not_sent_when_the_handler_answers_without_reading(serve: Serve) -> None:
    """The client may send the body all the same, or not: the connection cannot be used again."""
    client = serve(hello).client()
    answer = client.ask(put(fields=EXPECT, length=3))
    assert (answer.body, answer["connection"]) == (b"PUT /", "close")
    assert client.rest() == b""


@pytest.mark.parametrize(
    "data",
    [put(b"abc", EXPECT), put(b"", EXPECT), put_chunked(b"3\r\nabc\r\n0\r\n\r\n", EXPECT)],
    ids=["Content-Length", "no body", "chunked"],
)
def test_continue_is_not_sent_when_the_body_is_there_already(serve: Serve, data: bytes) -> None:
    assert serve(echo).ask(data).status == 200


def test_continue_is_not_sent_when_part_of_the_body_is_there(serve: Serve) -> None:
    service = serve(echo)
    client = service.client()
    client.send(put(b"a", EXPECT, length=3))
    service.until_deadline()
    client.send(b"bc")
    assert client.answer().body == b"abc"


def test_continue_is_not_sent_to_http_1_0(serve: Serve) -> None:
    client = serve(echo).client()
    client.send(b"PUT / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    client.send(b"abc")
    assert client.answer().body == b"abc"


def test_continue_is_not_sent_within_an_answer(serve: Serve) -> None:
    """The body is read only while the answer is being streamed."""

    def handle(request: Request) -> Coro[StreamResponse]:
        def write_body(write: Callable[[bytes], Coro[None]]) -> Coro[None]:
            yield from write((yield from request.body.read_all(10)))

        yield from ()
        return StreamResponse(write_body)

    client = serve(handle).client()
    client.send(put(fields=EXPECT, length=3))
    assert client.head()[0] == 200
    client.send(b"abc")
    assert client.rest() == b"3\r\nabc\r\n0\r\n\r\n"


def test_rest_of_a_body_is_dropped_after_continue_was_sent(serve: Serve) -> None:
    client = serve(read_one_byte).client()
    client.send(put(fields=EXPECT, length=3))
    assert client.read(len(CONTINUE)) == CONTINUE
    client.send(b"a")
    assert client.answer().body == b"a"
    assert client.ask(b"bc" + put(b"d")).body == b"d"


# --- Bodies that nobody reads ---------------------------------------------------------------


def refuse(request: Request) -> Coro[Response]:
    yield from ()
    raise HTTPError(413, "too large")


def test_short_rest_is_dropped_and_the_connection_used_again(serve: Serve) -> None:
    client = serve(hello).client()
    body = (NEXT * 2000)[:DRAIN_SIZE]
    answer = client.ask(put(length=DRAIN_SIZE))
    assert (answer.body, answer["connection"]) == (b"PUT /", "")
    client.send(body)
    assert client.ask(get("/2")).body == b"GET /2"


def test_long_rest_closes_the_connection(serve: Serve) -> None:
    client = serve(hello).client()
    answer = client.ask(put(length=DRAIN_SIZE + 1))
    assert (answer.body, answer["connection"]) == (b"PUT /", "close")
    client.send((NEXT * 2000)[: DRAIN_SIZE + 1] + NEXT)
    assert client.rest() == b""


def test_rest_of_a_body_that_was_read_in_part_is_dropped(serve: Serve) -> None:
    client = serve(read_one_byte).client()
    client.send(put(b"abc" + NEXT) + put(b"def"))
    assert [client.answer().body, client.answer().body] == [b"a", b"d"]


def test_rest_of_a_chunked_body_closes_the_connection(serve: Serve) -> None:
    """Nobody knows how long it is."""
    client = serve(hello).client()
    assert client.ask(put_chunked(b"3\r\nabc\r\n"))["connection"] == "close"
    client.send(b"0\r\n\r\n" + NEXT)
    assert client.rest() == b""


def test_chunked_body_that_has_come_whole_is_dropped(serve: Serve) -> None:
    client = serve(hello).client()
    assert client.ask(put_chunked(b"3\r\nabc\r\n0\r\n\r\n"))["connection"] == ""
    assert client.ask(get()).body == b"GET /"


@BOTH_FRAMINGS
def test_early_answer_is_received_by_a_client_that_goes_on_sending(serve: Serve, start: bytes) -> None:
    client = serve(refuse).client()
    client.send(start, b"x" * 32 * MIB)
    answer = client.answer()
    assert (answer.status, answer["connection"]) == (413, "close")
    assert client.rest() == b""


def test_http_client_receives_an_early_answer(serve: Serve) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", serve(refuse).port, timeout=PATIENCE)
    with contextlib.closing(connection):
        for body in (b"x" * 32 * MIB, iter([b"x" * MIB] * 32)):
            connection.request("PUT", "/", body)
            response = connection.getresponse()
            assert (response.status, response.read()) == (413, b'{"error":"too large"}')


@pytest.mark.parametrize("options", [[], ["-H", "Expect:"], ["-H", "Expect:", "-H", "Transfer-Encoding: chunked"]])
def test_curl_receives_an_early_answer(serve: Serve, options: list[str]) -> None:
    url = f"http://127.0.0.1:{serve(refuse).port}/"
    run = subprocess.run(
        ["curl", "-sS", "-T", "-", *options, url],
        input=b"x" * 32 * MIB, capture_output=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert run.stdout == b'{"error":"too large"}', run.stderr


# --- Bodies that break off ------------------------------------------------------------------


def leave(client: Client) -> None:
    client.close()


def end(client: Client) -> None:
    client.sock.shutdown(1)


@BOTH_FRAMINGS
@pytest.mark.parametrize("go_away", [leave, end, Client.vanish], ids=["closes", "ends", "resets"])
def test_reader_learns_that_the_client_went_away(
    serve: Serve, logged: list[logging.LogRecord], start: bytes, go_away: Callable[[Client], None]
) -> None:
    events: list[object] = []

    def handle(request: Request) -> Coro[Response]:
        try:
            while data := (yield from request.body.read()):
                events.append(data)
        except ClientDisconnected as error:
            events.append(type(error))
            raise
        return Response(204)

    service = serve(handle)
    client = service.client()
    client.send(start)
    client.send(b"abc")
    service.until(lambda: events)
    go_away(client)
    service.until_no_connection()
    assert events == [b"abc", ClientDisconnected]
    assert not logged


def test_read_into_learns_that_the_client_went_away(serve: Serve) -> None:
    errors: list[Exception] = []

    def handle(request: Request) -> Coro[Response]:
        try:
            while (yield from request.body.read_into(memoryview(bytearray(10)))):
                pass
        except ClientDisconnected as error:
            errors.append(error)
            raise
        return Response(204)

    service = serve(handle)
    client = service.client()
    client.send(put(b"abc", length=10))
    client.close()
    service.until(lambda: errors)


def test_handler_is_told_about_a_body_out_of_order_when_it_comes_to_that_place(serve: Serve) -> None:
    """What was in order is read before; the client, which waits for an answer, gets it at once."""
    read: list[bytes] = []

    def handle(request: Request) -> Coro[Response]:
        while data := (yield from request.body.read()):
            read.append(data)
        return Response(204)

    client = serve(handle).client()
    answer = client.ask(put_chunked(b"3\r\nabc\r\nzzz\r\n"))
    assert (answer.status, answer["connection"], read) == (400, "close", [b"abc"])


def test_body_out_of_order_within_an_answer_cuts_it_off_and_is_no_error_of_the_handler(serve: Serve) -> None:
    def handle(request: Request) -> Coro[StreamResponse]:
        def write_body(write: Callable[[bytes], Coro[None]]) -> Coro[None]:
            while data := (yield from request.body.read()):
                yield from write(data)

        yield from ()
        return StreamResponse(write_body)

    client = serve(handle).client()
    client.send(put_chunked(b"3\r\nabc\r\nzzz\r\n"))
    assert client.rest().endswith(b"\r\n\r\n3\r\nabc\r\n")


def test_client_that_went_away_before_continue_is_no_error(serve: Serve, logged: list[logging.LogRecord]) -> None:
    go = coro.Event()
    errors: list[BaseException] = []

    def handle(request: Request) -> Coro[Response]:
        try:
            with coro.shield():  # from being cancelled because of it
                yield from go.wait()
                return (yield from echo(request))
        except ClientDisconnected as error:
            errors.append(error)
            raise

    service = serve(handle)
    client = service.client()
    client.send(put(fields=EXPECT, length=3))
    service.until(lambda: any(connection.busy for connection in service.server.connections))
    client.vanish()
    service.call(go.set)
    service.until_no_connection()
    assert len(errors) == 1


def test_client_that_went_away_before_its_answer_is_no_error(serve: Serve, logged: list[logging.LogRecord]) -> None:
    go = coro.Event()

    def handle(request: Request) -> Coro[Response]:
        yield from go.wait()
        return Response(200, b"x" * 64 * MIB)

    service = serve(handle)
    client = service.client()
    client.send(get())
    service.until(lambda: any(connection.busy for connection in service.server.connections))
    client.vanish()
    service.call(go.set)
    service.until_no_connection()
