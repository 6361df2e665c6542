"""The server on real sockets: requests in, answers out, in order."""

from __future__ import annotations

import http.client
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import coro
from coro.http import Request, Response, Router
from coro.task import Coro
from tests.http.conftest import Serve
from tests.http.serving import PATIENCE, echo, get, hello, put, put_chunked
from tests.http.vectors import NEXT, REFUSED

# --- Keep-alive ----------------------------------------------------------------------


def test_connection_serves_one_request_after_the_other(serve: Serve) -> None:
    client = serve(hello).client()
    assert [client.ask(get(f"/{number}")).body for number in range(3)] == [b"GET /0", b"GET /1", b"GET /2"]


def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    client = serve(hello).client()
    client.send(b"".join(get(f"/{number}") for number in range(500)))
    assert [client.answer().body for _ in range(500)] == [b"GET /%d" % number for number in range(500)]


def test_pipelined_requests_are_answered_in_order_when_the_first_takes_longer(serve: Serve) -> None:
    arrived: list[str] = []
    go = coro.Event()

    def handle(request: Request) -> Coro[Response]:
        arrived.append(request.path)
        if request.path == "/slow":
            yield from go.wait()
        return Response(200, request.path)

    service = serve(handle)
    client = service.client()
    client.send(get("/slow"), get("/quick"))
    service.until(lambda: arrived)
    assert service.call(lambda: list(arrived)) == ["/slow"]
    service.call(go.set)
    assert [client.answer().body, client.answer().body] == [b"/slow", b"/quick"]


def test_client_that_pipelines_without_end_gets_one_answer_a_turn(serve: Serve) -> None:
    answered: list[str] = []
    arrived: list[str] = []
    go = coro.Event()

    def handle(request: Request) -> Coro[Response]:
        arrived.append(request.path)
        yield from go.wait()
        if request.path == "/patient":
            for _ in range(3):
                yield from coro.checkpoint()
        answered.append(request.path)
        return Response(200)

    service = serve(handle)
    greedy, patient = service.client(), service.client()
    greedy.send(get("/greedy") * 100)
    patient.send(get("/patient"))
    service.until(lambda: len(arrived) == 2)
    service.call(go.set)
    assert patient.answer().status == 200
    assert [greedy.answer().status for _ in range(100)] == [200] * 100
    assert answered.index("/patient") < 10


def test_pipelined_bodies_are_told_apart(serve: Serve) -> None:
    client = serve(echo).client()
    client.send(put(b"one") + put_chunked(b"3\r\ntwo\r\n0\r\n\r\n") + put(b"") + put(b"four"))
    assert [client.answer().body for _ in range(4)] == [b"one", b"two", b"", b"four"]


def test_requests_may_come_byte_by_byte(serve: Serve) -> None:
    client = serve(echo).client()
    data = put(b"one") + put_chunked(b"3\r\ntwo\r\n0\r\n\r\n") + get()
    client.send(*(data[i : i + 1] for i in range(len(data))))
    assert [client.answer().body for _ in range(3)] == [b"one", b"two", b""]


def test_close_is_answered_by_close(serve: Serve) -> None:
    client = serve(hello).client()
    assert client.ask(get(fields="Connection: close\r\n"))["connection"] == "close"
    assert client.rest() == b""


def test_nothing_is_answered_after_a_request_to_close(serve: Serve) -> None:
    client = serve(hello).client()
    assert client.ask(get("/1", "Connection: close\r\n") + get("/2")).body == b"GET /1"
    assert client.rest() == b""


def test_answer_is_received_whole_although_more_was_sent_after_a_request_to_close(serve: Serve) -> None:
    """More than the server read with the request: closing at once would reset the connection."""
    client = serve(hello).client()
    client.send(get("/1", "Connection: close\r\n"), get("/2") * 20_000)
    assert client.answer().body == b"GET /1"
    assert client.rest() == b""


def test_http_1_0_connection_is_closed(serve: Serve) -> None:
    client = serve(hello).client()
    answer = client.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert (answer.body, answer["connection"]) == (b"GET /", "close")
    assert client.rest() == b""


def test_http_1_0_connection_is_kept_when_asked_for(serve: Serve) -> None:
    client = serve(hello).client()
    for _ in range(2):
        assert client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")["connection"] == "keep-alive"


def test_connection_may_be_closed_by_the_client_between_requests(serve: Serve) -> None:
    service = serve(hello)
    client = service.client()
    client.ask(get())
    client.close()
    service.until_no_connection()


def test_client_may_close_its_direction_and_still_receives_the_answer(serve: Serve) -> None:
    client = serve(hello).client()
    client.send(get())
    client.sock.shutdown(1)
    assert client.answer().body == b"GET /"
    assert client.rest() == b""


def test_connections_are_served_side_by_side(serve: Serve) -> None:
    waiting: list[str] = []
    go = coro.Event()

    def handle(request: Request) -> Coro[Response]:
        waiting.append(request.path)
        yield from go.wait()
        return Response(200, request.path)

    service = serve(handle)
    clients = [service.client() for _ in range(20)]
    for number, client in enumerate(clients):
        client.send(get(f"/{number}"))
    service.until(lambda: len(waiting) == 20)
    service.call(go.set)
    assert [client.answer().body for client in clients] == [b"/%d" % number for number in range(20)]


def test_unix_socket(serve: Serve, tmp_path: Path) -> None:
    service = serve(lambda request: peer(request), path=str(tmp_path / "socket"))
    assert service.ask(get()).body == b"unix socket"


def peer(request: Request) -> Coro[Response]:
    yield from ()
    return Response(200, request.peer)


# --- What a handler sees --------------------------------------------------------------


def seen(serve: Serve, data: bytes, look: Callable[[Request], object]) -> object:
    """What `look` finds in the request made of `data`."""
    found: list[object] = []

    def handle(request: Request) -> Coro[Response]:
        yield from ()
        found.append(look(request))
        return Response(204)

    assert serve(handle).ask(data).status == 204
    return found[0]


def test_path_is_decoded_and_target_is_not(serve: Serve) -> None:
    data = get("/%C3%A9%2fx?a=b%20c")
    assert seen(serve, data, lambda r: (r.path, r.target)) == ("/é/x", "/%C3%A9%2fx?a=b%20c")


def test_query(serve: Serve) -> None:
    assert seen(serve, get("/?a=1&b=&a=%C3%A9+x"), lambda r: r.query) == {"a": "é x", "b": ""}


def test_headers_are_found_in_any_case(serve: Serve) -> None:
    data = get(fields="X-A: 1\r\nx-a: 2\r\n")
    assert seen(serve, data, lambda r: (r.headers["x-A"], r.headers.get("X-B"), "X-A" in r.headers)) == (
        "1, 2", None, True
    )  # fmt: skip


def test_cookies(serve: Serve) -> None:
    data = get(fields='Cookie: a=1; b="2"; junk; a=3\r\nCookie: c=4=5\r\n')
    assert seen(serve, data, lambda r: r.cookies) == {"a": "1", "b": "2", "c": "4=5"}


def test_peer_is_the_clients_address(serve: Serve) -> None:
    service = serve(peer)
    client = service.client()
    host, port = client.sock.getsockname()
    assert client.ask(get()).body.decode() == f"{host}:{port}"


def test_upgrade_is_not_taken_up(serve: Serve) -> None:
    client = serve(echo).client()
    client.send(put(b"abc", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n") + put(b"def"))
    assert [client.answer().body, client.answer().body] == [b"abc", b"def"]


def test_body_of_an_upgrade_that_comes_later_is_read(serve: Serve) -> None:
    service = serve(echo)
    client = service.client()
    client.send(put(b"", "Connection: upgrade\r\nUpgrade: h2c\r\n", length=len(NEXT)))
    service.until_deadline()
    client.send(NEXT)
    assert client.answer().body == NEXT
    assert client.ask(put(b"x")).body == b"x"


# --- Refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, (_, requests, _) in REFUSED.items() if not requests])
def test_refuses_and_closes(serve: Serve, name: str) -> None:
    data, _, status = REFUSED[name]
    client = serve(hello).client()
    answer = client.ask(data + NEXT)
    assert (answer.status, answer["connection"], answer["content-type"]) == (status, "close", "application/json")
    assert client.rest() == b""


@pytest.mark.parametrize("name", [name for name, (_, requests, _) in REFUSED.items() if requests])
def test_refuses_after_what_was_in_order(serve: Serve, name: str) -> None:
    """A body that is out of order is refused when the handler comes to it."""
    data, requests, status = REFUSED[name]
    client = serve(echo).client()
    client.send(data + NEXT)
    answers = [client.answer() for request in requests if request.body is not ...]
    assert {answer.status for answer in answers} <= {200}
    answer = client.answer()
    assert (answer.status, answer["connection"]) == (status, "close")
    assert client.rest() == b""


def test_body_out_of_order_that_nobody_reads_is_not_mistaken_for_requests(serve: Serve) -> None:
    client = serve(hello).client()
    answer = client.ask(put_chunked(b"zzz\r\n" + NEXT))
    assert (answer.body, answer["connection"]) == (b"PUT /", "close")
    assert client.rest() == b""


@pytest.mark.parametrize("split", [True, False])
def test_head_that_is_too_large(serve: Serve, split: bool) -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X%d: y\r\n" % number for number in range(200)) + b"\r\n"
    client = serve(hello).client()
    client.send(*([data[i : i + 1] for i in range(len(data))] if split else [data]))
    assert client.answer().status == 431


def test_target_that_is_too_long(serve: Serve) -> None:
    assert serve(hello).ask(get("/" * 9000)).status == 414


def test_refusal_is_received_by_a_client_that_goes_on_sending(serve: Serve) -> None:
    client = serve(hello).client()
    client.send(b"GET / HTTP/1.1\r\nX: ", b"y" * 8_000_000)
    assert client.answer().status == 431
    assert client.rest() == b""


# --- Other people's clients ----------------------------------------------------------------------------


def router() -> Router:
    router = Router()
    router.add("GET", "/hello", hello)
    router.add("PUT", "/echo", echo)
    router.add("POST", "/echo", echo)
    return router


def test_http_client(serve: Serve) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", serve(router().handle).port, timeout=PATIENCE)
    try:
        for method, path, body in (
            ("GET", "/hello", None), ("PUT", "/echo", b"x" * 100_000), ("PUT", "/echo", iter([b"a", b"b"]))
        ):  # fmt: skip
            connection.request(method, path, body)
            response = connection.getresponse()
            data = response.read()
            assert (response.status, data[:10]) == (200, {"GET": b"GET /hello"}.get(method, data[:10]))
            assert not response.will_close
    finally:
        connection.close()


def curl(*arguments: str, data: bytes = b"") -> bytes:
    run = subprocess.run(["curl", "-sS", *arguments], input=data, capture_output=True, check=False, timeout=PATIENCE)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_curl_uploads(serve: Serve) -> None:
    url = f"http://127.0.0.1:{serve(router().handle).port}/echo"
    data = b"0123456789" * 100_000
    assert curl("-T", "-", url, data=data) == data  # chunked, expects 100-continue
    assert curl("--data-binary", "@-", url, data=data) == data  # Content-Length, expects 100-continue
    assert curl("--http2", "--data-binary", "@-", url, data=b"abc") == b"abc"  # asks for h2c
    assert curl("--http1.0", "--data-binary", "@-", url, data=b"abc") == b"abc"


def test_curl_asks_for_head_and_options(serve: Serve) -> None:
    url = f"http://127.0.0.1:{serve(router().handle).port}"
    assert b"Content-Length: 11\r\n" in curl("-I", url + "/hello")
    assert b"\r\nAllow: OPTIONS, POST, PUT\r\n" in curl("-i", "-X", "OPTIONS", url + "/echo")
    assert curl("-i", "-X", "OPTIONS", "--request-target", "*", url).startswith(b"HTTP/1.1 204 ")
