"""The access log: a line for each request, in the combined format, that no client can forge."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import coro
from coro.http import AccessLog, Answer, HTTPError, Limits, Request, Response, StreamResponse
from coro.http.log import FLUSH_TIME
from coro.task import Coro
from tests.http.conftest import Serve
from tests.http.serving import Service, echo, get, hello, put

# The combined format, and the seconds that it took.
LINE = re.compile(
    r'(?P<host>\S+) - - \[(?P<date>\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000)\] "(?P<request>(?:[^"\\]|\\.)*)"'
    r' (?P<status>\d{3}) (?P<size>\d+|-) "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)"'
    r" (?P<seconds>\d+\.\d{3}|-)\n"
)


class Log:
    """An access log in memory."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.log = AccessLog(self.written.append)

    def lines(self) -> list[dict[str, str]]:
        """What was written, as its fields."""
        found = [LINE.fullmatch(line) for text in self.written for line in text.splitlines(keepends=True)]
        assert all(found), self.written
        return [line.groupdict() for line in found if line is not None]


@pytest.fixture
def log() -> Log:
    return Log()


def lines_for(serve: Serve, log: Log, handler: Callable[[Request], Coro[Answer]], *data: bytes) -> list[dict[str, str]]:
    """The lines for these requests on one connection."""
    service = serve(handler, access_log=log.log)
    client = service.client()
    for piece in data:
        client.ask(piece)
    service.advance(FLUSH_TIME)
    return log.lines()


def test_line_has_all_fields(serve: Serve, log: Log) -> None:
    data = get("/a?b=c", "Referer: http://x/\r\nUser-Agent: curl/8\r\n")
    (line,) = lines_for(serve, log, hello, data)
    assert line.pop("date")
    assert line == {
        "host": "127.0.0.1", "request": "GET /a?b=c HTTP/1.1", "status": "200", "size": "6",
        "referer": "http://x/", "agent": "curl/8", "seconds": "0.000",
    }  # fmt: skip


def test_missing_fields_are_dashes(serve: Serve, log: Log) -> None:
    (line,) = lines_for(serve, log, hello, get(method="HEAD"))
    assert (line["size"], line["referer"], line["agent"]) == ("-", "-", "-")


def test_time_that_a_request_took(serve: Serve, log: Log) -> None:
    entered = coro.Event()

    def handle(request: Request) -> Coro[Response]:
        entered.set()
        yield from coro.sleep(1.5)
        return Response(204)

    service = serve(handle, access_log=log.log)
    client = service.client()
    client.send(get())
    service.until(entered.is_set)
    service.advance(1.5)
    client.answer()
    service.advance(FLUSH_TIME)
    assert log.lines()[0]["seconds"] == "1.500"


def test_bytes_of_a_streamed_body_are_counted(serve: Serve, log: Log) -> None:
    def handle(request: Request) -> Coro[StreamResponse]:
        def write_body(write: Callable[[bytes], Coro[None]]) -> Coro[None]:
            yield from write(b"one")
            yield from write(b"four")

        yield from ()
        return StreamResponse(write_body)

    (line,) = lines_for(serve, log, handle, get())
    assert line["size"] == "7"


def test_errors_have_their_status(serve: Serve, log: Log, logged: list[logging.LogRecord]) -> None:
    def handle(request: Request) -> Coro[Response]:
        yield from ()
        raise HTTPError(404) if request.path == "/missing" else KeyError

    lines = lines_for(serve, log, handle, get("/missing"), get("/broken"))
    assert [line["status"] for line in lines] == ["404", "500"]
    logged.clear()


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ('a" 200 1 "x', r"a\" 200 1 \"x"),
        ("a\\", r"a\\"),
        ('\\"', r"\\\""),
        ("tab\tbed", r"tab\tbed"),
        ("\xe9\x85", r"\xe9\x85"),
        ("", ""),
    ],
)
def test_what_the_client_sent_cannot_end_its_field(serve: Serve, log: Log, field: str, text: str) -> None:
    (line,) = lines_for(serve, log, hello, get("/", f"Referer: {field}\r\nUser-Agent: {field}\r\n"))
    assert (line["referer"], line["agent"], line["status"]) == (text, text, "200")


def test_what_the_client_sent_cannot_end_its_request_line(serve: Serve, log: Log) -> None:
    (line,) = lines_for(serve, log, hello, get('/"\\'))
    assert line["request"] == r"GET /\"\\ HTTP/1.1"


def test_refused_bytes_have_a_line(serve: Serve, log: Log) -> None:
    (line,) = lines_for(serve, log, hello, b"junk\r\n\r\n")
    assert (line["host"], line["request"], line["status"], line["seconds"]) == ("127.0.0.1", "-", "400", "-")
    assert int(line["size"]) > 0


def test_body_that_stalls_has_one_line(serve: Serve, log: Log) -> None:
    service = serve(echo, access_log=log.log)
    client = service.client()
    client.send(put(length=3, target="/slow"))
    service.until_deadline()
    service.advance(Limits().body_idle_time + 1)
    assert client.answer().status == 408
    service.advance(FLUSH_TIME)
    (line,) = log.lines()
    assert (line["request"], line["status"]) == ("PUT /slow HTTP/1.1", "408")


def test_head_that_stalls_has_one_line(serve: Serve, log: Log) -> None:
    service = serve(hello, access_log=log.log)
    client = service.client()
    client.ask(get())
    client.send(b"GET / HT")
    service.until_deadline()
    service.advance(Limits().head_time + 1)
    assert client.answer().status == 408
    service.advance(FLUSH_TIME)
    assert [(line["request"], line["status"]) for line in log.lines()] == [("GET / HTTP/1.1", "200"), ("-", "408")]


def test_client_that_went_away_has_a_line_with_499(serve: Serve, log: Log) -> None:
    service = serve(echo, access_log=log.log)
    client = service.client()
    client.send(put(b"a", length=3))
    service.until_deadline()
    client.close()
    service.until_no_connection()
    service.advance(FLUSH_TIME)
    (line,) = log.lines()
    assert (line["request"], line["status"]) == ("PUT / HTTP/1.1", "499")


def test_idle_connections_leave_no_line(serve: Serve, log: Log) -> None:
    service = serve(hello, access_log=log.log)
    client = service.client()
    connection = service.connection()
    service.until(lambda: connection.deadline < float("inf"))
    service.advance(Limits().idle_time + 1)
    client.rest()
    service.advance(FLUSH_TIME)
    assert log.written == []


def test_unix_socket(serve: Serve, log: Log, tmp_path: Path) -> None:
    service = serve(hello, access_log=log.log, path=str(tmp_path / "socket"))
    service.ask(get())
    service.advance(FLUSH_TIME)
    assert log.lines()[0]["host"] == "unix:"


def test_lines_are_written_together(serve: Serve, log: Log) -> None:
    service = serve(hello, access_log=log.log)
    client = service.client()
    for _ in range(3):
        client.ask(get())
    assert log.written == []
    service.advance(FLUSH_TIME)
    assert [text.count("\n") for text in log.written] == [3]
    client.ask(get())
    service.advance(FLUSH_TIME)
    assert [text.count("\n") for text in log.written] == [3, 1]


def stopped(service: Service) -> None:
    service.stop(grace=0)
    service.wait_ended()


def test_no_line_is_lost_at_the_end(serve: Serve, log: Log) -> None:
    service = serve(hello, access_log=log.log)
    service.ask(get("/1"))
    service.ask(get("/2"))
    stopped(service)
    assert [line["request"] for line in log.lines()] == ["GET /1 HTTP/1.1", "GET /2 HTTP/1.1"]


def test_request_that_is_cancelled_at_the_end_has_its_line(serve: Serve, log: Log) -> None:
    def handle(request: Request) -> Coro[Response]:
        yield from coro.sleep_forever()
        return Response(204)

    service = serve(handle, access_log=log.log)
    service.client().send(get("/1"))
    service.until(lambda: any(connection.busy for connection in service.server.connections))
    stopped(service)
    assert [line["request"] for line in log.lines()] == ["GET /1 HTTP/1.1"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("I/O operation on closed file.")], ids=repr
)
def test_log_that_cannot_be_written_does_not_stop_the_server(
    error: Exception, serve: Serve, logged: list[logging.LogRecord]
) -> None:
    def write(text: str) -> None:
        raise error

    service = serve(hello, access_log=AccessLog(write))
    client = service.client()
    client.ask(get())
    service.advance(FLUSH_TIME)
    assert str(error) in logged.pop().getMessage()
    assert client.ask(get()).status == 200
    stopped(service)
    assert str(error) in logged.pop().getMessage()
