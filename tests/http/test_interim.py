"""Interim answers that handlers send ahead of their own: 103 Early Hints and the like (RFC 9110, section 15.2)."""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Callable

import pytest

from coro.http import Request, Response, StreamResponse
from coro.task import Coro
from tests.http.conftest import Serve
from tests.http.serving import get, put

LINK = ("Link", "</style.css>; rel=preload")


def hinting(request: Request) -> Coro[Response]:
    yield from request.inform(103, [LINK])
    yield from request.inform(104)
    return Response(200, (yield from request.body.read_all(100)))


def test_interim_answers_come_before_the_answer(serve: Serve) -> None:
    client = serve(hinting).client()
    for body in b"one", b"two":
        client.send(put(body))
        status, headers = client.head()
        assert (status, [field for field in headers if field[0] != "Date"]) == (103, [LINK])
        status, headers = client.head()
        assert (status, [name for name, _ in headers if name != "Date"]) == (104, [])
        assert client.answer().body == body


def test_interim_answer_is_no_continue(serve: Serve) -> None:
    client = serve(hinting).client()
    client.send(put(fields="Expect: 100-continue\r\n", length=3))
    assert [client.head()[0] for _ in range(3)] == [103, 104, 100]
    client.send(b"abc")
    assert client.answer().body == b"abc"


def test_client_of_http_1_0_gets_none(serve: Serve) -> None:
    client = serve(hinting).client()
    assert client.ask(get(version="1.0")).status == 200


def test_curl_reads_them(serve: Serve) -> None:
    command = ["curl", "-sS", "-i", "--data-binary", "abc", f"http://127.0.0.1:{serve(hinting).port}/"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    assert re.findall(r"^HTTP/1\.1 (\d+)", done.stdout, re.MULTILINE) == ["103", "104", "200"]
    assert done.stdout.endswith("\n\nabc")


@pytest.mark.parametrize("status", [99, 100, 101, 200, 404])
def test_other_statuses_are_a_fault_of_the_handler(
    serve: Serve, logged: list[logging.LogRecord], status: int
) -> None:
    def handle(request: Request) -> Coro[Response]:
        yield from request.inform(status)
        return Response(200)

    assert serve(handle).ask(get()).status == 500
    assert str(status) in str(logged.pop().exc_info)


def test_interim_answer_after_the_answer_is_a_fault_of_the_handler(
    serve: Serve, logged: list[logging.LogRecord]
) -> None:
    def handle(request: Request) -> Coro[StreamResponse]:
        def write_body(write: Callable[[bytes], Coro[None]]) -> Coro[None]:
            yield from write(b"begun")
            yield from request.inform(103)

        yield from ()
        return StreamResponse(write_body)

    client = serve(handle).client()
    client.send(get())
    assert client.head()[0] == 200
    assert client.rest() == b"5\r\nbegun\r\n"
    assert "comes before the answer" in str(logged.pop().exc_info)
