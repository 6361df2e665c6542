"""The server with TLS: the same HTTP, other ways for files and for the end of a connection."""

from __future__ import annotations

import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

import coro
from coro.http import FileResponse, Limits, Request, Response
from coro.task import Coro
from tests.certificates import Certificates, make_certificates
from tests.http.conftest import Serve
from tests.http.serving import PATIENCE, Client, Service, echo, get, hello, put, put_chunked

TICK = 1.0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    return context


class Secured:
    """Connects with TLS."""

    def __init__(self, service: Service, certificates: Certificates, alpn: list[str]) -> None:
        context = ssl.create_default_context(cafile=str(certificates.authority))
        if alpn:
            context.set_alpn_protocols(alpn)
        plain = service.client()
        self.sock = context.wrap_socket(plain.sock, server_hostname="localhost", suppress_ragged_eofs=False)
        service._clients.append(self)  # type: ignore[arg-type]
        self.client = Client(self.sock)

    def close(self) -> None:
        self.client.close()


def secured(service: Service, certificates: Certificates, *alpn: str) -> Client:
    return Secured(service, certificates, list(alpn)).client


def test_requests_one_after_the_other(serve: Serve, tls: ssl.SSLContext, certificates: Certificates) -> None:
    client = secured(serve(echo, tls=tls), certificates)
    assert client.ask(put(b"one")).body == b"one"
    assert client.ask(put_chunked(b"3\r\ntwo\r\n0\r\n\r\n")).body == b"two"
    big = b"0123456789" * 500_000
    assert client.ask(put(big)).body == big
    assert client.ask(get(fields="Connection: close\r\n"))["connection"] == "close"
    assert client.rest() == b"", "the end is signed: no error"


def scheme(request: Request) -> Coro[Response]:
    yield from ()
    return Response(200, request.scheme)


def test_scheme_is_https(serve: Serve, tls: ssl.SSLContext, certificates: Certificates) -> None:
    assert secured(serve(scheme, tls=tls), certificates).ask(get()).body == b"https"


@pytest.mark.parametrize(("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["h2"], None), ([], None)])
def test_alpn(
    serve: Serve, tls: ssl.SSLContext, certificates: Certificates, offered: list[str], chosen: str | None
) -> None:
    client = secured(serve(hello, tls=tls), certificates, *offered)
    assert isinstance(client.sock, ssl.SSLSocket) and client.sock.selected_alpn_protocol() == chosen
    assert client.ask(get()).status == 200


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00"], ids=["nothing", "half a greeting"])
def test_handshake_must_be_done_in_time(serve: Serve, tls: ssl.SSLContext, sent: bytes) -> None:
    service = serve(hello, Limits(head_time=20), tls=tls)
    client = service.client()
    client.send(sent)
    connection = service.connection()
    service.until(lambda: connection.deadline < float("inf"))
    service.advance(20 + TICK)
    service.until_no_connection()
    with suppress(ConnectionResetError):  # if what was sent had not been read yet
        assert client.rest() == b""


def test_who_does_not_speak_tls_is_hung_up_on(serve: Serve, tls: ssl.SSLContext, certificates: Certificates) -> None:
    service = serve(hello, tls=tls)
    client = service.client()
    client.send(get())
    with suppress(ConnectionResetError):
        assert not client.rest().startswith(b"HTTP")
    service.until_no_connection()
    assert secured(service, certificates).ask(get()).status == 200


def test_others_are_served_while_somebody_does_not_shake_hands(
    serve: Serve, tls: ssl.SSLContext, certificates: Certificates
) -> None:
    service = serve(hello, tls=tls)
    service.client().send(b"\x16")
    service.connection()
    assert secured(service, certificates).ask(get()).status == 200


def test_file(serve: Serve, tls: ssl.SSLContext, certificates: Certificates, tmp_path: Path) -> None:
    content = b"0123456789" * 200_000
    path = tmp_path / "file"
    path.write_bytes(content)

    def handle(request: Request) -> Coro[FileResponse]:
        return (yield from FileResponse.open(request, str(path)))

    client = secured(serve(handle, tls=tls), certificates)
    assert client.ask(get()).body == content
    answer = client.ask(get(fields="Range: bytes=700000-1500001\r\n"))
    assert (answer.status, answer.body) == (206, content[700_000:1_500_002])
    assert client.ask(get()).body == content


def test_early_answer_is_received_by_a_client_that_goes_on_sending(
    serve: Serve, tls: ssl.SSLContext, certificates: Certificates
) -> None:
    def refuse(request: Request) -> Coro[Response]:
        yield from ()
        return Response(413)

    client = secured(serve(refuse, tls=tls), certificates)
    client.send(put(b"x" * 3_000_000, length=1 << 30))
    assert client.answer().status == 413
    assert client.rest() == b""


def test_handler_is_cancelled_when_its_client_has_gone(
    serve: Serve, tls: ssl.SSLContext, certificates: Certificates
) -> None:
    waiting = coro.Event()
    ends: list[type[BaseException]] = []

    def handle(request: Request) -> Coro[Response]:
        try:
            waiting.set()
            yield from coro.sleep_forever()
        except BaseException as error:
            ends.append(type(error))
            raise
        return Response(200)

    service = serve(handle, tls=tls)
    client = secured(service, certificates)
    client.send(get())
    service.until(waiting.is_set)
    client.close()
    service.until_no_connection()
    assert ends == [coro.Cancelled]


def test_curl(serve: Serve, tls: ssl.SSLContext, certificates: Certificates) -> None:
    url = f"https://localhost:{serve(echo, tls=tls).port}/"
    data = b"0123456789" * 100_000
    run = subprocess.run(
        ["curl", "-sS", "--cacert", str(certificates.authority), "-T", "-", url],
        input=data, capture_output=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (0, data), run.stderr
