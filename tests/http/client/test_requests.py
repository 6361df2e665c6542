"""What is sent: every byte of it (coro/http/client/request.py, bodies.py)."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from multipart import parse_form_data  # type: ignore[import-untyped,unused-ignore]

import coro
from coro import Coro
from coro.http import BytesPart, FileBody, InvalidURL, MultipartBody, StreamBody
from coro.http.client.request import Write
from tests.http.client.network import OK, Network, Wire, answer


@pytest.fixture(autouse=True)
def server(network: Network) -> None:
    network.serve(record)


bodies: list[bytes] = []


def record(wire: Wire) -> Coro[None]:
    while True:
        _, body = yield from wire.request()
        bodies.append(body)
        yield from wire.send(OK)


def sent(network: Network) -> str:
    """The only request."""
    ((head,),) = [wire.requests for wire in network.wires]
    return head.decode("latin-1")


def test_get(network: Network) -> Coro[None]:
    yield from network.client.get("http://example.org/a?b=c#d")
    assert sent(network) == (
        "GET /a?b=c HTTP/1.1\r\nHost: example.org\r\nUser-Agent: coro\r\nAccept: */*\r\n"
        "Accept-Encoding: gzip, deflate\r\n\r\n"
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "brew"])
def test_method_without_a_body_tells_no_length(network: Network, method: str) -> Coro[None]:
    network.serve(answer(b"HTTP/1.1 204 No Content\r\n\r\n"))
    yield from network.client.request(method, "http://a/")
    assert sent(network).startswith(f"{method} / HTTP/1.1\r\n")
    assert "Content-Length" not in sent(network)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_method_that_is_expected_to_have_a_body_tells_that_there_is_none(network: Network, method: str) -> Coro[None]:
    yield from network.client.request(method, "http://a/")
    assert "\r\nContent-Length: 0\r\n" in sent(network)


def test_functions_for_methods(network: Network) -> Coro[None]:
    network.serve(answer(b"HTTP/1.1 204 No Content\r\n\r\n"))
    client = network.client
    for function in client.get, client.head, client.post, client.put, client.patch, client.delete:
        yield from function("http://a/")
    assert network.requests == [b"GET /", b"HEAD /", b"POST /", b"PUT /", b"PATCH /", b"DELETE /"]


@pytest.mark.parametrize(
    ("options", "expected", "body"),
    [
        ({"body": b"abc"}, ["Content-Length: 3"], b"abc"),
        ({"json": {"a": [1, "ä"]}}, ["Content-Type: application/json", "Content-Length: 14"], '{"a":[1,"ä"]}'.encode()),
        ({"json": None}, ["Content-Type: application/json", "Content-Length: 4"], b"null"),
        ({"form": {"a": "b c", "d": ["1", "2"]}},
         ["Content-Type: application/x-www-form-urlencoded", "Content-Length: 15"], b"a=b+c&d=1&d=2"),
        ({"json": 1, "headers": {"content-type": "x/y"}}, ["content-type: x/y", "Content-Length: 1"], b"1"),
    ],
)  # fmt: skip
def test_bodies_in_memory(network: Network, options: Any, expected: list[str], body: bytes) -> Coro[None]:
    expected = [line if not line.startswith("Content-Length") else f"Content-Length: {len(body)}" for line in expected]
    yield from network.client.post("http://a/", **options)
    assert sent(network).split("\r\n")[5:-2] == expected
    assert bodies.pop() == body


def test_fields_of_the_caller_come_in_order_and_replace_those_of_the_client(network: Network) -> Coro[None]:
    headers = [("X", "1"), ("user-agent", "me"), ("x", "2"), ("ACCEPT", "a/b"), ("Accept-Encoding", "br")]
    yield from network.client.get("http://a/", headers=[*headers, ("Host", "b:8")])
    assert sent(network) == (
        "GET / HTTP/1.1\r\nX: 1\r\nuser-agent: me\r\nx: 2\r\nACCEPT: a/b\r\nAccept-Encoding: br\r\nHost: b:8\r\n\r\n"
    )


def test_range_is_asked_for_without_a_coding(network: Network) -> Coro[None]:
    yield from network.client.get("http://a/", headers={"Range": "bytes=0-1"})
    assert "Accept-Encoding" not in sent(network)


@pytest.mark.parametrize(
    ("url", "options", "credentials"),
    [("http://u:p%40q@a/", {}, "u:p@q"), ("http://a/", {"auth": ("u", "p:ä")}, "u:p:ä"),
     ("http://x:y@a/", {"auth": ("u", "p")}, "u:p"), ("http://u@a/", {"params": {"a": "b"}}, "u:")],
)  # fmt: skip
def test_user_and_password(network: Network, url: str, options: Any, credentials: str) -> Coro[None]:
    response = yield from network.client.get(url, **options)
    assert f"\r\nAuthorization: Basic {base64.b64encode(credentials.encode()).decode()}\r\n" in sent(network)
    assert "@" not in response.url


def test_parameters(network: Network) -> Coro[None]:
    response = yield from network.client.get("http://a/b?c", params={"d e": "f&", "g": ["1", 2]})
    assert network.requests == [b"GET /b?c&d+e=f%26&g=1&g=2"]
    assert response.url == "http://a/b?c&d+e=f%26&g=1&g=2"


@pytest.mark.parametrize("bad", ["\r\nX: y", "\n", "\r", "\0", "a\x1fb", "\x7f", "\u20ac"])
def test_nothing_can_be_injected_into_a_head(network: Network, bad: str) -> Coro[None]:
    client = network.client
    for headers in [("X", "a" + bad)], [("X" + bad, "a")], {"Host": "a" + bad}:
        with pytest.raises(ValueError):
            yield from client.get("http://a/", headers=headers)
    for body in FileBody("/", content_type="a" + bad), StreamBody(numbers, content_type="a" + bad):
        with pytest.raises(ValueError, match="'Content-Type' has characters that could end it"):
            yield from client.put("http://a/", body=body)
    with pytest.raises(ValueError):
        yield from client.request("GET" + bad, "http://a/")
    if bad != "\u20ac":  # which is encoded
        for url in "http://a/" + bad, f"http://a{bad}/":
            with pytest.raises(InvalidURL):
                yield from client.get(url)
    yield from client.get("http://a/", params={"a" + bad: bad})
    assert len(sent(network).split("\r\n")) == 7


@pytest.mark.parametrize(
    "options",
    [
        *({"headers": {name: "1"}} for name in ("Content-Length", "transfer-encoding", "CONNECTION", "TE", "Expect")),
        {"headers": {"": "x"}}, {"headers": {"a b": "x"}}, {"headers": {"a:": "x"}}, {"headers": {"Host": "a/b"}},
        {"body": b"", "json": 1}, {"json": 1, "form": {}}, {"auth": ("a:b", "c")},
        {"auth": ("a", "b"), "headers": {"authorization": "x"}},
    ],
)  # fmt: skip
def test_what_is_not_sent(network: Network, options: Any) -> Coro[None]:
    with pytest.raises(ValueError):
        yield from network.client.post("http://a/", **options)
    assert not network.wires


def test_text_is_no_body(network: Network) -> Coro[None]:
    with pytest.raises(TypeError, match="encode the text"):
        yield from network.client.post("http://a/", body="abc")  # type: ignore[arg-type]


def test_connect_is_refused(network: Network) -> Coro[None]:
    with pytest.raises(ValueError, match="CONNECT"):
        yield from network.client.request("CONNECT", "http://a/")


# --- Bodies that are streamed -----------------------------------------------------------------


def numbers(write: Write) -> Coro[None]:
    for number in range(1000):
        yield from write(b"")
        yield from write(b"%d," % number)


NUMBERS = b"".join(b"%d," % number for number in range(1000))


def test_body_that_is_made_while_it_is_sent_comes_in_chunks(network: Network) -> Coro[None]:
    yield from network.client.post("http://a/", body=StreamBody(numbers, content_type="text/plain"))
    assert sent(network).endswith("\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert bodies.pop() == NUMBERS


def test_body_whose_length_is_told_comes_as_it_is(network: Network) -> Coro[None]:
    yield from network.client.put("http://a/", body=StreamBody(numbers, length=len(NUMBERS)))
    assert f"\r\nContent-Length: {len(NUMBERS)}\r\n" in sent(network)
    assert bodies.pop() == NUMBERS
    yield from network.client.put("http://a/", body=b"next")
    assert len(network.wires) == 1


@pytest.mark.parametrize(("difference", "words"), [(1, "1 bytes shorter"), (-1, "1 bytes longer")])
def test_body_of_another_length_than_it_told_is_an_error(network: Network, difference: int, words: str) -> Coro[None]:
    with pytest.raises(ValueError, match=f"PUT http://a: the body is {words} than it told"):
        yield from network.client.put("http://a/", body=StreamBody(numbers, length=len(NUMBERS) + difference))
    assert network.open == [False]


def test_error_of_the_function_that_makes_the_body_is_the_callers(network: Network) -> Coro[None]:
    def broken(write: Write) -> Coro[None]:
        yield from write(b"abc")
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        yield from network.client.put("http://a/", body=StreamBody(broken))
    assert network.open == [False]


def test_body_is_not_made_faster_than_the_server_takes_it(network: Network) -> Coro[None]:
    network.capacity = 1000
    written = 0

    def endless(write: Write) -> Coro[None]:
        nonlocal written
        while True:
            yield from write(bytes(100))
            written += 100

    def silent(wire: Wire) -> Coro[None]:
        yield from coro.sleep_forever()

    network.serve(silent)
    with coro.move_on_after(5):
        yield from network.client.put("http://a/", body=StreamBody(endless))
    assert written <= 1000
    assert network.open == [False]


def test_large_body_in_memory(network: Network) -> Coro[None]:
    network.capacity = 10_000
    data = bytes(range(256)) * 4000
    yield from network.client.put("http://a/", body=data)
    yield from network.client.put("http://a/", body=data[:100_000])
    assert bodies[-2:] == [data, data[:100_000]]
    assert len(network.wires) == 1


# --- Files and forms --------------------------------------------------------------------------


def test_file(network: Network, tmp_path: Path) -> Coro[None]:
    data = bytes(range(256)) * 3000
    (tmp_path / "a.png").write_bytes(data)
    yield from network.client.put("http://a/", body=FileBody(tmp_path / "a.png"))
    assert sent(network).endswith(f"\r\nContent-Type: image/png\r\nContent-Length: {len(data)}\r\n\r\n")
    assert bodies.pop() == data


def test_file_that_is_not_there_is_named_and_nothing_is_sent(network: Network, tmp_path: Path) -> Coro[None]:
    with pytest.raises(FileNotFoundError, match=r"nothing\.txt"):
        yield from network.client.put("http://a/", body=FileBody(tmp_path / "nothing.txt"))
    assert not network.wires


def test_file_that_shrinks_is_an_error_and_one_that_grows_is_not(network: Network, tmp_path: Path) -> Coro[None]:
    path = tmp_path / "log"

    class Changing(FileBody):
        then = b""

        def size(self) -> Coro[int]:
            size = yield from super().size()
            path.write_bytes(self.then)
            return size

    path.write_bytes(b"12345")
    body = Changing(path)
    body.then = b"1234567"
    yield from network.client.put("http://a/", body=body)
    assert bodies.pop() == b"12345"
    body.then = b"123"
    with pytest.raises(EOFError, match="log has become 4 bytes shorter"):
        yield from network.client.put("http://a/", body=body)
    assert network.open == [False]


def test_form_with_files_is_understood_by_another_implementation(network: Network, tmp_path: Path) -> Coro[None]:
    (tmp_path / "sun.jpg").write_bytes(b"\xff\xd8\r\n--x\r\n")
    parts: list[tuple[str, Any]] = [
        ("title", "Sün\r\n& moon"), ("photo", FileBody(tmp_path / "sun.jpg")), ("title", "again"),
        ('q"\r\n', BytesPart(b"123", filename='a";b.bin')),
    ]  # fmt: skip
    yield from network.client.post("http://a/", body=MultipartBody(parts))
    kind = sent(network).split("Content-Type: ")[1].split("\r\n")[0]
    body = bodies.pop()
    assert f"\r\nContent-Length: {len(body)}\r\n" in sent(network)
    forms, files = parse(kind, body)
    assert forms.getall("title") == ["Sün\r\n& moon", "again"]
    assert (files["photo"].filename, files["photo"].content_type) == ("sun.jpg", "image/jpeg")
    assert files["photo"].raw == b"\xff\xd8\r\n--x\r\n"
    assert (files['q"\r\n'].filename, files['q"\r\n'].raw) == ('a";b.bin', b"123")


def parse(kind: str, body: bytes) -> tuple[Any, Any]:
    environ = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": kind, "CONTENT_LENGTH": str(len(body))}
    environ["wsgi.input"] = io.BytesIO(body)  # type: ignore[assignment]
    forms, files = parse_form_data(environ, strict=True, charset="utf-8")
    return forms, files


def test_types_of_parts_cannot_break_out_of_their_lines() -> None:
    with pytest.raises(ValueError, match="control characters"):
        MultipartBody({"a": BytesPart(b"", filename="x", content_type="a/b\r\nX: y")})
