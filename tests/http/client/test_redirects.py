"""Where a redirect leads, with what (RFC 9110, section 15.4), and what never goes along."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

import coro
from coro import Coro
from coro.http import RedirectError, StreamBody, StreamedResponse
from coro.http.client.exchange import DISCARDING_TIME
from tests.http.client.network import OK, Network, Wire


class Site:
    """Servers whose pages are redirects; what is not one is answered with 200."""

    def __init__(self, network: Network, **pages: str) -> None:
        self.pages = pages  # path without the slash -> "status location"
        self.requests: list[tuple[str, str, bytes, bytes]] = []  # method, URL, head, body
        network.serve(self.handle)

    def handle(self, wire: Wire) -> Coro[None]:
        while True:
            head, body = yield from wire.request()
            method, target, _ = head.decode().split(" ", 2)
            self.requests.append((method, wire.origin + target, head, body))
            status, _, location = self.pages.get(target[1:], "").partition(" ")
            if status:
                more = f"HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\n".encode()
                yield from wire.send(more + (b"" if method == "HEAD" else b"gone"))
            else:
                yield from wire.send(OK if method != "HEAD" else OK[:-3])

    @property
    def asked(self) -> list[str]:
        return [f"{method} {url}" for method, url, _, _ in self.requests]


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        *((status, "GET", "GET") for status in (301, 302, 303, 307, 308)),
        *((status, "HEAD", "HEAD") for status in (301, 302, 303, 307, 308)),
        (301, "POST", "GET"), (302, "POST", "GET"), (303, "POST", "GET"), (307, "POST", "POST"), (308, "POST", "POST"),
        (301, "PUT", "PUT"), (302, "DELETE", "DELETE"), (303, "PUT", "GET"), (303, "DELETE", "GET"),
        (307, "PUT", "PUT"),
    ],
)  # fmt: skip
def test_method_after_a_redirect(network: Network, status: int, method: str, then: str) -> Coro[None]:
    site = Site(network, a=f"{status} /b")
    body = b"abc" if method in ("POST", "PUT") else b""
    options: Any = {"body": body, "headers": {"Content-Type": "x/y", "X": "z"}} if body else {}
    response = yield from network.client.request(method, "http://h/a", **options)
    assert (response.status, response.url, response.method) == (200, "http://h/b", then)
    assert site.asked == [f"{method} http://h/a", f"{then} http://h/b"]
    _, _, head, sent = site.requests[1]
    assert sent == (body if then == method else b"")
    if body:
        assert (b"Content-Type: x/y" in head) is (then == method)
        assert b"X: z" in head
    assert len(network.wires) == 1, "the connection was not kept"


@pytest.mark.parametrize("status", [300, 304, 305, 306, 399])
def test_other_statuses_are_no_redirects(network: Network, status: int) -> Coro[None]:
    Site(network, a=f"{status} /b")
    response = yield from network.client.request("HEAD", "http://h/a")
    assert (response.status, response.url) == (status, "http://h/a")


def test_redirect_without_a_location_is_for_the_caller(network: Network) -> Coro[None]:
    def handler(wire: Wire) -> Coro[None]:
        yield from wire.request()
        yield from wire.send(b"HTTP/1.1 302 X\r\nContent-Length: 3\r\n\r\nabc")

    network.serve(handler)
    assert (yield from network.client.get("http://h/")).status == 302


def test_redirects_are_not_followed_if_not_wanted(network: Network) -> Coro[None]:
    Site(network, a="302 http://elsewhere/b")
    response = yield from network.client.get("http://h/a", redirects=0)
    assert (response.status, response.headers["location"], response.body) == (302, "http://elsewhere/b", b"gone")


def test_redirects_come_to_an_end(network: Network) -> Coro[None]:
    site = Site(network, a="302 /b", b="302 /a")
    with pytest.raises(RedirectError, match=r"GET http://h: redirected more than 10 times, now to http://h/b"):
        yield from network.client.get("http://h/a")
    assert len(site.asked) == 11
    del site.requests[:]
    with pytest.raises(RedirectError, match="more than 1 times"):
        yield from network.client.get("http://h/a", redirects=1)
    assert len(site.asked) == 2


def test_redirect_to_itself_comes_to_an_end(network: Network) -> Coro[None]:
    site = Site(network, a="302 /a")
    with pytest.raises(RedirectError):
        yield from network.client.get("http://h/a")
    assert len(site.asked) == 11


CREDENTIALS = dict.fromkeys(("Authorization", "Cookie", "Proxy-Authorization", "Host"), "secret") | {"X": "y"}


@pytest.mark.parametrize("to", ["http://other/b", "http://h:81/b", "https://h/b", "//other/b"])
def test_credentials_do_not_go_to_another_origin(network: Network, to: str) -> Coro[None]:
    site = Site(network, a=f"307 {to}", b="302 http://h/c")
    try:
        yield from network.client.get("http://h/a", headers=CREDENTIALS)
    except RedirectError:
        assert to.startswith("https")  # /b leads back, out of TLS
    assert len(site.requests) > 1
    for _, url, head, _ in site.requests[1:]:
        assert b"secret" not in head, url
        assert b"\r\nX: y\r\n" in head


def test_credentials_of_the_url_do_not_go_to_another_origin(network: Network) -> Coro[None]:
    site = Site(network, a="302 http://other/b")
    yield from network.client.get("http://user:password@h/a")
    assert [b"Authorization: Basic" in head for _, _, head, _ in site.requests] == [True, False]


def test_credentials_stay_within_their_origin(network: Network) -> Coro[None]:
    site = Site(network, a="302 http://h:80/b")
    yield from network.client.get("http://h/a", headers=CREDENTIALS)
    assert site.requests[1][2].count(b"secret") == 4


def test_tls_is_not_left_unasked(network: Network) -> Coro[None]:
    site = Site(network, a="302 http://h/b", b="302 https://h/a")
    with pytest.raises(RedirectError, match="GET https://h: redirected to http://h, without TLS"):
        yield from network.client.get("https://h/a")
    assert len(site.asked) == 1
    with pytest.raises(RedirectError, match="without TLS"):
        yield from network.client.get("http://h/b")


@pytest.mark.parametrize("location", ["ftp://h/", "file:///etc/passwd", "http://u:p@h/", "http://[x/", "//:1/"])
def test_location_that_is_of_no_use(network: Network, location: str) -> Coro[None]:
    site = Site(network, a=f"302 {location}")
    with pytest.raises(RedirectError, match="GET http://h: redirected to nowhere"):
        yield from network.client.get("http://h/a")
    assert len(site.asked) == 1


@pytest.mark.parametrize("repeatable", [True, False])
def test_body_goes_along_if_it_can_be_sent_again(network: Network, repeatable: bool) -> Coro[None]:
    site = Site(network, a="307 /b")
    request = network.client.post("http://h/a", body=StreamBody(lambda write: write(b"abc"), repeatable=repeatable))
    if repeatable:
        yield from request
        assert [body for _, _, _, body in site.requests] == [b"abc", b"abc"]
    else:
        with pytest.raises(RedirectError, match="redirected with 307, but this body cannot be sent again"):
            yield from request


def test_body_of_a_redirect_that_drips_is_not_waited_for(network: Network) -> Coro[None]:
    def handler(wire: Wire) -> Coro[None]:
        head, _ = yield from wire.request()
        if b" /a " in head:
            yield from wire.send(b"HTTP/1.1 302 X\r\nLocation: /b\r\nContent-Length: 60000\r\n\r\n")
            while True:
                yield from coro.sleep(1)
                yield from wire.send(b"x")
        yield from wire.send(OK)

    network.serve(handler)
    read_all = partial(StreamedResponse.read_all, limit=3)
    assert (yield from network.client.stream("GET", "http://h/a", read_all)) == b"abc"
    assert network.open == [False, True]
    assert coro.now() == pytest.approx(DISCARDING_TIME)


def test_long_body_of_a_redirect_is_not_read_to_its_end(network: Network) -> Coro[None]:
    def handler(wire: Wire) -> Coro[None]:
        head, _ = yield from wire.request()
        if b" /a " in head:
            yield from wire.send(b"HTTP/1.1 302 X\r\nLocation: /b\r\nContent-Length: 100000000\r\n\r\n")
            while True:
                yield from wire.send(bytes(1000))
        yield from wire.send(OK)

    network.serve(handler)
    assert (yield from network.client.get("http://h/a")).body == b"abc"
    assert network.open == [False, True]
