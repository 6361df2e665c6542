"""Who the client is: behind proxies that are trusted, and behind those that are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from coro.http import Request, Response
from coro.http.forwarded import MAX_PROXIES, Proxies, host_of
from coro.task import Coro
from tests.http.conftest import Serve
from tests.http.serving import get


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("192.0.2.1:80", "192.0.2.1"), ("192.0.2.1", "192.0.2.1"), ("[2001:db8::1]:80", "2001:db8::1"),
        ("[::1]", "::1"), ("::1", "::1"), ("unix socket", "unix"), ("/run/socket", "unix"),
    ],
)  # fmt: skip
def test_host_of_an_address(address: str, host: str) -> None:
    assert host_of(address) == host


@pytest.mark.parametrize(
    ("peer", "said", "client"),
    [
        ("198.51.100.7", "", "198.51.100.7"),
        ("198.51.100.7", "1.2.3.4", "198.51.100.7"),  # not a proxy of ours: anybody can say anything
        ("10.1.2.3", "", "10.1.2.3"),
        ("10.1.2.3", "198.51.100.7", "198.51.100.7"),
        ("10.1.2.3", "1.2.3.4, 198.51.100.7", "198.51.100.7"),  # what stands before it, the client may have made up
        ("10.1.2.3", "1.2.3.4, 198.51.100.7, 10.0.0.9", "198.51.100.7"),  # two proxies of ours
        ("10.1.2.3", "10.0.0.1,10.0.0.2", "10.0.0.1"),
        ("10.1.2.3", "198.51.100.7:4711", "198.51.100.7"),
        ("10.1.2.3", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.1.2.3", "nonsense", "10.1.2.3"),
        ("10.1.2.3", "198.51.100.7, unknown", "10.1.2.3"),
        ("10.1.2.3", 'fe80::1%x" 200', "10.1.2.3"),
        ("::ffff:10.1.2.3", "198.51.100.7", "198.51.100.7"),
        ("::1", "198.51.100.7", "198.51.100.7"),
        ("unix", "198.51.100.7", "198.51.100.7"),
    ],
)
def test_client(peer: str, said: str, client: str) -> None:
    assert Proxies(["10.0.0.0/8", "::1", "unix"]).client(peer, said) == client


@pytest.mark.parametrize(("others", "client"), [(MAX_PROXIES, "198.51.100.7"), (MAX_PROXIES + 1, "10.0.0.9")])
def test_chain_of_proxies_is_followed_for_a_bounded_way(others: int, client: str) -> None:
    said = ",".join(["198.51.100.7"] + ["10.0.0.9"] * others)
    assert Proxies(["10.0.0.0/8"]).client("10.1.2.3", said) == client


def test_nobody_is_trusted_unasked() -> None:
    assert [Proxies().trusts(host) for host in ("127.0.0.1", "::1", "unix")] == [False] * 3


def test_malformed_proxy_is_refused() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        Proxies(["nowhere"])


def tell(request: Request) -> Coro[Response]:
    yield from ()
    return Response(200, f"{request.client} {request.scheme} {request.host}")


FORWARDED = "X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: example.org\r\n"


def test_request_behind_a_trusted_proxy(serve: Serve) -> None:
    service = serve(tell, proxies=["127.0.0.1"])
    assert service.ask(get(fields=FORWARDED)).body == b"198.51.100.7 https example.org"
    assert service.ask(get()).body == b"127.0.0.1 http a"


def test_request_behind_a_proxy_that_is_not_trusted(serve: Serve) -> None:
    assert serve(tell).ask(get(fields=FORWARDED)).body == b"127.0.0.1 http a"


def test_request_behind_a_proxy_on_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    service = serve(tell, path=str(tmp_path / "socket"), proxies=["unix"])
    assert service.ask(get(fields=FORWARDED)).body == b"198.51.100.7 https example.org"
