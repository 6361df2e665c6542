"""What handlers return, and what becomes of it: answers, framed by the server, and errors."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from coro.http import Answer, HTTPError, Limits, Request, Response, StreamResponse
from coro.http.message import Sender
from coro.task import Coro
from tests.http.conftest import Serve
from tests.http.serving import echo, get, hello, put
from tests.http.vectors import NEXT


def answering(answer: Callable[[], Answer]) -> Callable[[Request], Coro[Answer]]:
    def handle(request: Request) -> Coro[Answer]:
        yield from ()
        return answer()

    return handle


def test_answer_has_date_length_and_type(serve: Serve) -> None:
    answer = serve(answering(lambda: Response(201, "é", [("X-A", "b")]))).ask(get())
    assert (answer.status, answer.body, answer["x-a"]) == (201, "é".encode(), "b")
    assert (answer["content-length"], answer["content-type"]) == ("2", "text/plain; charset=utf-8")
    assert answer["date"].endswith(" GMT")
    assert answer["connection"] == ""


def test_json(serve: Serve) -> None:
    answer = serve(answering(lambda: Response.json({"a": "é"}))).ask(get())
    assert (answer.body, answer["content-type"]) == ('{"a":"é"}'.encode(), "application/json")


def test_fields_of_one_name_stay_apart(serve: Serve) -> None:
    answer = serve(answering(lambda: Response(headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]))).ask(get())
    assert [value for name, value in answer.headers if name == "Set-Cookie"] == ["a=1", "b=2"]


def test_head_has_the_length_but_not_the_body(serve: Serve) -> None:
    client = serve(hello).client()
    answer = client.ask(get(method="HEAD"))
    assert (answer.status, answer["content-length"]) == (200, "6")
    assert client.ask(get("/2")).body == b"GET /2"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"HEAD / HTTP/1.1\r\n\r\n", 400),
        (get("/" + "a" * 8192, method="HEAD"), 414),
        (get(fields="X: y\r\n" * 100, method="HEAD"), 431),
    ],
)
def test_refusal_of_head_has_the_length_but_not_the_body(serve: Serve, request_: bytes, status: int) -> None:
    client = serve(hello).client()
    answer = client.ask(request_)
    assert (answer.status, answer["content-length"] > "0") == (status, True)
    assert client.rest() == b""


@pytest.mark.parametrize("begun", [b"HEAD / HTTP/1.1\r\n", get(fields="Content-Length: 1\r\n", method="HEAD")])
def test_head_that_does_not_arrive_in_time_is_answered_without_a_body(serve: Serve, begun: bytes) -> None:
    service = serve(echo, Limits(head_time=20, body_idle_time=20))
    client = service.client()
    client.send(begun)
    service.until_deadline()
    service.advance(22)
    assert client.answer(head=True).status == 408
    assert client.rest() == b""


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize(
    "answer", [lambda status: Response(status, b"body"), lambda status: StreamResponse(write_two_pieces, status)]
)
def test_status_without_a_body_has_none(serve: Serve, status: int, answer: Callable[[int], Answer]) -> None:
    client = serve(answering(lambda: answer(status))).client()
    for _ in range(2):
        received = client.ask(get())
        assert (received.status, received["content-length"], received["transfer-encoding"]) == (status, "", "")


def write_two_pieces(write: Callable[[bytes], Coro[None]]) -> Coro[None]:
    yield from write(b"one")
    yield from write(b"")
    yield from write(b"two")


def test_streamed_answer_is_chunked(serve: Serve) -> None:
    client = serve(answering(lambda: StreamResponse(write_two_pieces))).client()
    for _ in range(2):
        answer = client.ask(get())
        assert (answer.body, answer["transfer-encoding"], answer["connection"]) == (b"onetwo", "chunked", "")


def test_streamed_answer_to_http_1_0_ends_with_the_connection(serve: Serve) -> None:
    client = serve(answering(lambda: StreamResponse(write_two_pieces))).client()
    answer = client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert (answer.body, answer["transfer-encoding"], answer["connection"]) == (b"onetwo", "", "close")


def test_head_of_a_streamed_answer(serve: Serve) -> None:
    client = serve(answering(lambda: StreamResponse(write_two_pieces))).client()
    assert client.ask(get(method="HEAD"))["transfer-encoding"] == "chunked"
    assert client.ask(get()).body == b"onetwo"


@pytest.mark.parametrize(("count", "size"), [(20, 25_600), (1000, 100)])
def test_answers_to_a_client_that_reads_late_are_all_sent(serve: Serve, count: int, size: int) -> None:
    """They are small, and together more than the kernel's buffers take."""
    body = b"x" * size
    service = serve(answering(lambda: Response(200, body)))
    service.small_send_buffers()
    client = service.client(receive_buffer=4096)
    client.send(get() * count)
    service.until_deadline()
    for _ in range(count):
        assert client.answer().body == body


def test_status_without_a_name(serve: Serve) -> None:
    assert serve(answering(lambda: Response(299))).ask(get()).status == 299


@pytest.mark.parametrize(
    "answer",
    [
        lambda: Response(headers=[("X", "a\r\nY: b")]),
        lambda: Response(headers=[("X", "a\nb")]),
        lambda: Response(headers=[("X", "a\0b")]),
        lambda: Response(headers=[("X\r\nY", "a")]),
        lambda: Response(headers=[("X: Y", "a")]),
        lambda: Response(headers=[("X Y", "a")]),
        lambda: Response(headers=[("", "a")]),
        lambda: Response(headers=[("X", "\u2713")]),
        lambda: Response(headers=[("Content-Length", "1")]),
        lambda: Response(headers=[("transfer-encoding", "chunked")]),
        lambda: Response(headers=[("Connection", "close")]),
        lambda: Response(headers=[("Date", "today")]),
        lambda: Response(content_type="a\r\nX: b"),
        lambda: Response(100),
        lambda: Response(101),
        lambda: Response(600),
        lambda: Response(205, b"a"),
    ],
)
def test_answer_that_would_break_the_protocol_becomes_500(
    serve: Serve, logged: list[logging.LogRecord], answer: Callable[[], Response]
) -> None:
    client = serve(answering(answer)).client()
    assert client.ask(get()).status == 500
    assert isinstance(raised(logged), ValueError)
    assert client.ask(get()).status == 500
    logged.pop()


def test_error_that_would_break_the_protocol_becomes_500(serve: Serve, logged: list[logging.LogRecord]) -> None:
    client = serve(failing(HTTPError(400, "no", [("X", "\n")]))).client()
    assert client.ask(get()).status == 500
    assert isinstance(raised(logged), ValueError)


def raised(logged: list[logging.LogRecord]) -> BaseException | None:
    """The exception that was logged last."""
    info = logged.pop().exc_info
    assert info
    return info[1]


# --- Errors in handlers --------------------------------------------------------------------------


def failing(error: Exception) -> Callable[[Request], Coro[Response]]:
    def handle(request: Request) -> Coro[Response]:
        yield from ()
        raise error

    return handle


def test_http_error_is_answered_as_json(serve: Serve, logged: list[logging.LogRecord]) -> None:
    client = serve(failing(HTTPError(503, "the store is down", [("Retry-After", "5")]))).client()
    for _ in range(2):
        answer = client.ask(get())
        assert (answer.status, answer.body, answer["retry-after"]) == (503, b'{"error":"the store is down"}', "5")
    assert not logged


def test_failing_handler_is_logged_once_and_answered_with_500(serve: Serve, logged: list[logging.LogRecord]) -> None:
    client = serve(failing(KeyError("secret"))).client()
    answer = client.ask(get("/x"))
    assert answer.status == 500
    assert b"secret" not in answer.body
    record = logged.pop()
    assert (record.getMessage(), record.exc_info and record.exc_info[0]) == ("GET /x failed", KeyError)


def test_connection_goes_on_in_step_after_a_failing_handler(serve: Serve, logged: list[logging.LogRecord]) -> None:
    def handle(request: Request) -> Coro[Response]:
        if request.path == "/fail":
            yield from request.body.read(1)
            raise KeyError
        return (yield from echo(request))

    client = serve(handle).client()
    client.send(put(b"abc" + NEXT, target="/fail") + put(b"def"))
    assert (client.answer().status, client.answer().body) == (500, b"def")
    logged.clear()


def test_answer_that_fails_midway_is_cut_off(serve: Serve, logged: list[logging.LogRecord]) -> None:
    def write_body(write: Callable[[bytes], Coro[None]]) -> Coro[None]:
        yield from write(b"one")
        raise KeyError

    client = serve(answering(lambda: StreamResponse(write_body))).client()
    client.send(get("/x"))
    client.head()
    assert client.rest() == b"3\r\none\r\n"
    assert logged.pop().getMessage() == "GET /x failed"


@pytest.mark.parametrize(("told", "given"), [(5, b"abc"), (2, b"abc")])
def test_answer_of_another_length_than_told_is_cut_off(
    serve: Serve, logged: list[logging.LogRecord], told: int, given: bytes
) -> None:
    class Miscounted(Response):
        def send(self, sender: Sender) -> Coro[None]:
            yield from sender.send_head(self, told)
            yield from sender.send_body(given)

    client = serve(answering(Miscounted)).client()
    client.send(get() + get())
    client.head()
    assert len(client.rest()) <= told
    assert isinstance(raised(logged), ValueError)


def test_handler_that_is_no_generator_function(serve: Serve, logged: list[logging.LogRecord]) -> None:
    assert serve(lambda request: Response(200)).ask(get()).status == 500
    logged.pop()
