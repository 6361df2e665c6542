"""Whom the client trusts: nobody but who shows a certificate for the host's name, signed by an authority it knows."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

import coro
from coro import Coro, Stream, TaskGroup
from coro.http import Client, ConnectError, ConnectionLost
from tests.certificates import Certificates, make_certificates

T = TypeVar("T")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


class TLSServer:
    """Answers with TLS; what it saw of the client."""

    def __init__(self, files: Certificates, answer: bytes = OK, protocols: list[str] | None = None) -> None:
        self.listener = coro.listen("127.0.0.1", 0)
        self.asked_for: list[str | None] = []  # names (SNI)
        self.agreed: list[str | None] = []  # protocols (ALPN)
        self.requests = 0
        self._answer = answer
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files.certificate, files.key)
        self._context.set_alpn_protocols(protocols or ["h2", "http/1.1"])
        self._context.sni_callback = lambda sock, name, context: self.asked_for.append(name)

    def serve(self, stream: Stream) -> Coro[None]:
        yield from stream.start_tls(self._context, server_side=True)
        sock = stream.socket.sock
        assert isinstance(sock, ssl.SSLSocket)
        self.agreed.append(sock.selected_alpn_protocol())
        while True:
            yield from stream.read_until(b"\r\n\r\n")
            self.requests += 1
            yield from stream.write(self._answer)
            if b"Content-Length" not in self._answer:
                return

    def run(self, body: Callable[[str], Coro[T]]) -> Coro[T]:
        """`body(url)` while it serves."""
        def both(group: TaskGroup) -> Coro[T]:
            group.spawn(coro.serve(self.listener, lambda stream: self.serve(stream)))
            try:
                return (yield from body(f"https://localhost:{self.listener.port}/"))
            finally:
                self.listener.close()
                group.cancel()

        return coro.task_group(both)


def trusting(files: Certificates) -> Client:
    return Client(tls=ssl.create_default_context(cafile=files.authority))


def refused(server: TLSServer, client: Client, words: str, host: str = "localhost") -> Coro[None]:
    def body(url: str) -> Coro[None]:
        expected = rf"^GET https://{host}:{server.listener.port}: .*{words}"
        with client, pytest.raises(ConnectError, match=expected):
            yield from client.get(url.replace("localhost", host))

    yield from server.run(body)
    assert server.requests == 0


def test_authority_that_the_client_is_told_of(certificates: Certificates) -> Coro[None]:
    def body(url: str) -> Coro[None]:
        with trusting(certificates) as client:
            for host in "localhost", "LOCALHOST", "127.0.0.1":
                response = yield from client.get(url.replace("localhost", host))
                assert response.body == b"abc"
                yield from client.get(url.replace("localhost", host))

    server = TLSServer(certificates)
    yield from server.run(body)
    assert server.asked_for == ["localhost", None]  # addresses are no names: RFC 6066, section 3
    assert server.requests == 6


def test_certificate_need_not_have_the_dot_that_ends_an_absolute_name(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> Coro[None]:
    def found(host: str, port: int) -> Coro[list[Any]]:
        yield from ()
        return [(socket.AF_INET, ("127.0.0.1", port))]

    def body(url: str) -> Coro[None]:
        with trusting(certificates) as client:
            assert (yield from client.get(url.replace("localhost", "localhost."))).body == b"abc"

    monkeypatch.setattr("coro.net.resolve", found)
    yield from TLSServer(certificates).run(body)


def test_default_context_offers_nothing_but_http_1_1(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> Coro[None]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))

    def body(url: str) -> Coro[None]:
        with Client() as client:
            assert (yield from client.get(url)).body == b"abc"

    server = TLSServer(certificates)
    yield from server.run(body)
    assert server.agreed == ["http/1.1"]


def test_authority_that_the_client_does_not_know_is_refused(certificates: Certificates) -> Coro[None]:
    advice = r"unable to get local issuer certificate.*Client\(tls=ssl.create_default_context\(cafile=...\)\)"
    yield from refused(TLSServer(certificates), Client(), advice)


def test_certificate_that_signed_itself_is_refused(certificates: Certificates, tmp_path: Path) -> Coro[None]:
    """Even by who trusts another authority."""
    own = make_certificates(tmp_path)
    self_signed = replace(own, certificate=own.authority, key=own.authority_key)
    yield from refused(TLSServer(self_signed), trusting(certificates), "self-signed certificate")


def test_certificate_of_another_host_is_refused(tmp_path: Path) -> Coro[None]:
    files = make_certificates(tmp_path, host="other.example")
    yield from refused(TLSServer(files), trusting(files), "Hostname mismatch")


def test_certificate_that_has_expired_is_refused(tmp_path: Path) -> Coro[None]:
    files = make_certificates(tmp_path, days=-1)
    yield from refused(TLSServer(files), trusting(files), "certificate has expired")


def test_server_without_tls_is_an_error() -> Coro[None]:
    def plain(stream: Stream) -> Coro[None]:
        yield from stream.write(OK)

    def body(group: TaskGroup) -> Coro[None]:
        listener = coro.listen("127.0.0.1", 0)
        group.spawn(coro.serve(listener, plain))
        expected = r"GET https://127.0.0.1:\d+: cannot connect .* with TLS"
        with Client() as client, pytest.raises(ConnectError, match=expected):
            yield from client.get(f"https://127.0.0.1:{listener.port}/")
        listener.close()
        group.cancel()

    yield from coro.task_group(body)


def test_tls_server_that_is_asked_without_is_an_error(certificates: Certificates) -> Coro[None]:
    def body(url: str) -> Coro[None]:
        with Client() as client, pytest.raises((ConnectionLost, coro.http.ProtocolError), match="GET http://localhost"):
            yield from client.get(url.replace("https", "http"))

    yield from TLSServer(certificates).run(body)


def test_context_that_agrees_on_another_protocol_is_refused(certificates: Certificates) -> Coro[None]:
    context = ssl.create_default_context(cafile=certificates.authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    yield from refused(TLSServer(certificates), Client(tls=context), "TLS agreed on h2: the context must offer")


def test_context_that_does_not_verify_is_never_used_in_silence(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> Coro[None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certificates.authority)
    for mode in ssl.CERT_REQUIRED, ssl.CERT_NONE:
        context.verify_mode = mode
        client = Client(tls=context)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING and "does not verify who it speaks to" in record.getMessage()
        caplog.clear()

    def body(url: str) -> Coro[int]:
        with client:
            return (yield from client.get(url)).status

    assert (yield from TLSServer(certificates).run(body)) == 200
    trusting(certificates)
    assert not caplog.records


def test_end_that_is_not_signed_is_no_end_of_a_body(certificates: Certificates) -> Coro[None]:
    """A body that is framed by the end of the connection could have been cut by anybody."""
    server = TLSServer(certificates, b"HTTP/1.1 200 OK\r\n\r\nabc")

    def body(url: str) -> Coro[None]:
        with trusting(certificates) as client:
            assert (yield from client.get(url)).body == b"abc"  # signed
            server.serve = cutting  # type: ignore[method-assign]
            with pytest.raises(ConnectionLost, match="the connection was lost"):
                yield from client.get(url)


    def cutting(stream: Stream) -> Coro[None]:
        yield from stream.start_tls(server._context, server_side=True)
        yield from stream.read_until(b"\r\n\r\n")
        yield from stream.write(b"HTTP/1.1 200 OK\r\n\r\nabc")
        sock = stream.socket.sock
        stream.socket.forget()
        os.close(sock.detach())

    yield from server.run(body)
