"""What applications are written with: forms, cookies, middleware, error pages, metrics."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coro.http import (
    Answer,
    FileResponse,
    Handler,
    HTTPError,
    Metrics,
    Request,
    Response,
    Router,
    StreamResponse,
    set_cookie,
)
from coro.task import Coro
from tests.http.conftest import Serve
from tests.http.serving import get, hello, put, put_chunked

FORM = "Content-Type: application/x-www-form-urlencoded\r\n"


# --- Forms and cookies ---------------------------------------------------------------------


def show_form(request: Request) -> Coro[Response]:
    return Response.json((yield from request.form(limit=10_000)))


def test_form(serve: Serve) -> None:
    answer = serve(show_form).ask(put(b"a=1&b=x+%C3%A9&c=&a=2", FORM))
    assert answer.body.decode() == '{"a":"2","b":"x é","c":""}'


@pytest.mark.parametrize(
    ("body", "fields", "status"),
    [
        (b"a=1", "", 415),
        (b"a=1", "Content-Type: text/plain\r\n", 415),
        (b"a=1", FORM.replace("\r", "; charset=utf-8\r"), 200),
        (b"a=\xff", FORM, 400),
        (b"a&" * 1001, FORM, 400),
        (b"a" * 10_001, FORM, 413),
    ],
)
def test_what_is_no_form(serve: Serve, body: bytes, fields: str, status: int) -> None:
    assert serve(show_form).ask(put(body, fields)).status == status


def test_cookie_is_as_safe_as_can_be_unless_told_otherwise() -> None:
    assert set_cookie("a", "b") == ("Set-Cookie", "a=b; Path=/; Secure; HttpOnly; SameSite=Lax")
    assert set_cookie(
        "a", "", max_age=0, path="/x", domain="example.org", secure=False, http_only=False, same_site="Strict"
    ) == ("Set-Cookie", "a=; Path=/x; Domain=example.org; Max-Age=0; SameSite=Strict")


@pytest.mark.parametrize(
    "arguments",
    [("a b", "c"), ("", "c"), ("a", "b;c"), ("a", "b c"), ("a", 'b"'), ("a", "b\r\nX: y"), ("a=b", "c"), ("a", "é")],
)
def test_what_cannot_stand_in_a_cookie(arguments: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="cookie"):
        set_cookie(*arguments)


@pytest.mark.parametrize("options", [{"path": "/;x"}, {"domain": "a;b"}, {"same_site": "None", "secure": False}])
def test_what_cannot_be_said_of_a_cookie(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cookie"):
        set_cookie("a", "b", **options)


def test_cookie_that_was_set_comes_back(serve: Serve) -> None:
    def handle(request: Request) -> Coro[Response]:
        yield from ()
        return Response(200, request.cookies.get("a", "none"), [set_cookie("a", "b=c"), set_cookie("d", "e")])

    client = serve(handle).client()
    answer = client.ask(get())
    cookies = [value.partition(";")[0] for name, value in answer.headers if name == "Set-Cookie"]
    assert (answer.body, cookies) == (b"none", ["a=b=c", "d=e"])
    assert client.ask(get(fields=f"Cookie: {'; '.join(cookies)}\r\n")).body == b"b=c"


# --- Middleware ----------------------------------------------------------------------------


def require_token(handler: Handler) -> Handler:
    def handle(request: Request) -> Coro[Answer]:
        if request.headers.get("authorization") != "Bearer t":
            raise HTTPError(401, "who are you?", [("WWW-Authenticate", "Bearer")])
        return (yield from handler(request))

    return handle


def add_field(name: str, value: str) -> Callable[[Handler], Handler]:
    def middleware(handler: Handler) -> Handler:
        def handle(request: Request) -> Coro[Answer]:
            answer = yield from handler(request)
            answer.headers = [*answer.headers, (name, value)]
            return answer

        return handle

    return middleware


def test_middleware_is_a_function_from_handler_to_handler(serve: Serve) -> None:
    client = serve(add_field("X-A", "b")(require_token(hello))).client()
    answer = client.ask(get(fields="Authorization: Bearer t\r\n"))
    assert (answer.status, answer["x-a"]) == (200, "b")
    assert client.ask(get())["www-authenticate"] == "Bearer"


# --- Error pages ---------------------------------------------------------------------------


def fail(request: Request) -> Coro[Response]:
    yield from ()
    raise HTTPError(404, f"nothing at <{request.path}>", [("X-A", "b")])


def test_error_is_json_for_programs_and_a_page_for_browsers(serve: Serve) -> None:
    service = serve(fail)
    answer = service.ask(get())
    assert (answer.status, answer["content-type"], answer.body) == (
        404, "application/json", b'{"error":"nothing at </>"}'
    )  # fmt: skip
    assert (answer["x-a"], answer["vary"]) == ("b", "Accept")
    answer = service.ask(get(fields="Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n"))
    assert (answer.status, answer["content-type"], answer["x-a"]) == (404, "text/html; charset=utf-8", "b")
    assert answer["vary"] == "Accept"
    assert b"<h1>404 Not Found</h1>\n<p>nothing at &lt;/&gt;</p>" in answer.body
    assert "default-src 'none'" in answer["content-security-policy"]


def test_what_is_no_unicode_can_be_told_back(serve: Serve) -> None:
    """JSON can hold half a surrogate pair, which no UTF-8 can."""
    def refuse(request: Request) -> Coro[Response]:
        raise HTTPError(400, f"not {(yield from request.json())}")

    service = serve(refuse)
    answer = service.ask(put(b'"<\\ud800>"'))
    assert (answer.status, answer.body) == (400, b'{"error":"not <\\ud800>"}')
    answer = service.ask(put(b'"<\\ud800>"', "Accept: text/html\r\n"))
    assert answer.status == 400 and b"<p>not &lt;?&gt;</p>" in answer.body


def test_error_page_of_an_application(serve: Serve) -> None:
    def page(request: Request, error: HTTPError) -> Response:
        return Response(error.status, f"{request.path}: {error}", error.headers)

    assert serve(fail, error_page=page).ask(get("/x")).body == b"/x: nothing at </x>"


def page_in_pieces(request: Request, error: HTTPError) -> StreamResponse:
    def write_body(write: Callable[[bytes], Coro[None]]) -> Coro[None]:
        yield from write(b"go")
        if request.path == "/broken":
            raise KeyError
        yield from write(b"ne")

    return StreamResponse(write_body, error.status)


def test_error_page_that_is_streamed_has_an_end(serve: Serve) -> None:
    """The connection can be used again, whether the page had a body to send and whether the request's was read."""
    client = serve(fail, error_page=page_in_pieces).client()
    for ask in get(), get(method="HEAD"), put(b"unread"), put_chunked(b"6\r\nunread\r\n0\r\n\r\n"), get():
        answer = client.ask(ask)
        assert (answer.status, answer.body) == (404, b"" if ask.startswith(b"HEAD") else b"gone")


def test_error_page_that_fails_on_the_way_is_cut_off(serve: Serve, logged: list[logging.LogRecord]) -> None:
    client = serve(fail, error_page=page_in_pieces).client()
    client.send(get("/broken"))
    assert client.head()[0] == 404
    assert client.rest() == b"2\r\ngo\r\n"
    assert logged.pop().exc_info


def test_error_page_that_is_a_file(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "gone.html"
    path.write_bytes(b"gone")

    def page(request: Request, error: HTTPError) -> FileResponse:
        answer = FileResponse(request, os.open(path, os.O_RDONLY))
        answer.status = error.status
        return answer

    client = serve(fail, error_page=page).client()
    for method, body in ("GET", b"gone"), ("HEAD", b""), ("GET", b"gone"):
        answer = client.ask(get(method=method))
        assert (answer.status, answer["content-length"], answer.body) == (404, "4", body)


def test_error_page_that_fails_is_500(serve: Serve, logged: list[logging.LogRecord]) -> None:
    def page(request: Request, error: HTTPError) -> Response:
        raise KeyError

    assert serve(fail, error_page=page).ask(get("/x")).status == 500
    assert logged.pop().exc_info


# --- Metrics -------------------------------------------------------------------------------

LINE = re.compile(r'[a-z_]+(_bucket|_sum|_count)?(\{[a-z]+="[^"\n]*"(,[a-z]+="[^"\n]*")*\})? [0-9.e+-]+')


def test_metrics(serve: Serve) -> None:
    metrics = Metrics()
    router = Router()
    router.add("GET", "/hello", hello)
    router.add("GET", "/metrics", metrics.handle)
    service = serve(router.handle, recorders=[metrics])
    client = service.client()
    for target in "/hello", "/hello", "/nothing":
        client.ask(get(target))
    service.ask(b"nonsense\r\n\r\n")
    answer = client.ask(get("/metrics"))
    assert answer["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.body.decode().splitlines()
    for line in (
        'http_requests_total{method="GET",status="200"} 2',
        'http_requests_total{method="GET",status="404"} 1',
        'http_refusals_total{status="400"} 1',
        'http_request_duration_seconds_bucket{le="0.001"} 3',
        'http_request_duration_seconds_bucket{le="+Inf"} 3',
        "http_request_duration_seconds_count 3",
        "http_request_duration_seconds_sum 0.0",
        "# TYPE http_request_duration_seconds histogram",
    ):
        assert line in lines
    assert not [line for line in lines if not line.startswith("#") and not LINE.fullmatch(line)]
    assert [line.split()[0] for line in lines if line.startswith("http_connections ")]
