"""TLS, with certificates of a throwaway authority (coro/io.py, coro/net.py)."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

import coro
from coro import Coro, Listener, Stream
from tests.certificates import Certificates, make_certificates
from tests.kernel.serving import ask, shout, with_server
from tests.kernel.support import on_every_selector, run_on


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def serving(certificates: Certificates) -> Callable[[Stream], Coro[None]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)

    def handler(stream: Stream) -> Coro[None]:
        try:
            yield from stream.start_tls(context, server_side=True)
        except OSError:
            return
        yield from shout(stream)

    return handler


Handler = Callable[[Stream], Coro[None]]


@on_every_selector
def test_tls_with_a_certificate_that_the_client_trusts(
    selector: Any, certificates: Certificates, serving: Handler
) -> None:
    trust = ssl.create_default_context(cafile=certificates.authority)

    def body(listener: Listener) -> Coro[None]:
        for host in "localhost", "127.0.0.1":
            stream = yield from coro.connect(host, listener.port, tls=trust)
            assert (yield from ask(stream, b"secret\n")) == b"SECRET\n"
        stream = yield from coro.connect("127.0.0.1", listener.port, tls=trust, server_hostname="localhost")
        big = b"x" * 60_000 + b"\n"  # more than a record
        assert (yield from ask(stream, big)) == big.upper()

    run_on(selector, with_server(body, handler=serving))


def test_certificate_that_is_not_trusted_is_refused_by_name(serving: Handler) -> Coro[None]:
    def body(listener: Listener) -> Coro[None]:
        expected = rf"cannot connect to localhost:{listener.port} with TLS: .*CERTIFICATE_VERIFY_FAILED"
        with pytest.raises(ssl.SSLCertVerificationError, match=expected):
            yield from coro.connect("localhost", listener.port, tls=ssl.create_default_context())

    yield from with_server(body, handler=serving)


def test_certificate_for_another_host_is_refused(certificates: Certificates, serving: Handler) -> Coro[None]:
    trust = ssl.create_default_context(cafile=certificates.authority)

    def body(listener: Listener) -> Coro[None]:
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            yield from coro.connect("localhost", listener.port, tls=trust, server_hostname="example.com")

    yield from with_server(body, handler=serving)


def test_server_that_does_not_speak_tls_is_an_error_with_host_and_port() -> Coro[None]:
    def plain(stream: Stream) -> Coro[None]:
        yield from stream.write(b"220 hello, this is not TLS\n")

    def body(listener: Listener) -> Coro[None]:
        with pytest.raises(OSError, match=rf"cannot connect to 127\.0\.0\.1:{listener.port} with TLS: "):
            yield from coro.connect("127.0.0.1", listener.port, tls=ssl.create_default_context())

    yield from with_server(body, handler=plain)


def test_handshake_that_is_cancelled_closes_the_connection() -> Coro[None]:
    gone = coro.Event()

    def silent(stream: Stream) -> Coro[None]:
        while (yield from stream.read()):
            pass
        gone.set()

    def body(listener: Listener) -> Coro[None]:
        stream = yield from coro.connect("127.0.0.1", listener.port)
        with coro.move_on_after(0.01) as scope:
            yield from stream.start_tls(ssl.create_default_context(), server_hostname="localhost")
        assert scope.cancelled_caught
        assert stream.closed
        yield from gone.wait()

    yield from with_server(body, handler=silent)


def test_bytes_sent_ahead_of_the_handshake_are_not_taken_for_protected_ones(certificates: Certificates) -> Coro[None]:
    def injecting(stream: Stream) -> Coro[None]:
        yield from stream.write(b"go ahead\ninjected")
        yield from stream.read()

    def body(listener: Listener) -> Coro[None]:
        stream = yield from coro.connect("127.0.0.1", listener.port)
        assert (yield from stream.read_until(b"\n")) == b"go ahead\n"
        with pytest.raises(ssl.SSLError, match="ahead of the TLS handshake"):
            yield from stream.start_tls(ssl.create_default_context(), server_hostname="localhost")
        assert stream.closed

    yield from with_server(body, handler=injecting)


def test_tls_reader_that_never_has_to_wait_lets_others_run(certificates: Certificates, serving: Handler) -> Coro[None]:
    """One record holds thousands of reads, which the selector cannot see."""
    trust = ssl.create_default_context(cafile=certificates.authority)

    def body(listener: Listener) -> Coro[None]:
        stream = yield from coro.connect("localhost", listener.port, tls=trust)
        line = b"x" * 9_999 + b"\n"
        yield from stream.write(line)
        got = b""
        while len(got) < len(line):
            got += yield from stream.read(10)
        assert got == line.upper()
        stream.close()

    yield from with_server(body, handler=serving)


@pytest.mark.parametrize("cut", [False, True])
def test_end_that_the_peer_signed_is_the_end_and_any_other_is_an_error(
    cut: bool, certificates: Certificates
) -> Coro[None]:
    trust = ssl.create_default_context(cafile=certificates.authority)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)

    def handler(stream: Stream) -> Coro[None]:
        yield from stream.start_tls(context, server_side=True)
        yield from stream.write(b"all there is")
        if cut:
            _shut_down_under_tls(stream)

    def body(listener: Listener) -> Coro[None]:
        stream = yield from coro.connect("localhost", listener.port, tls=trust)
        assert (yield from stream.read_exactly(12)) == b"all there is"
        if cut:
            with pytest.raises(ssl.SSLError):
                yield from stream.read()
        else:
            assert (yield from stream.read()) == b""
        stream.close()

    yield from with_server(body, handler=handler)


def _shut_down_under_tls(stream: Stream) -> None:
    """As whoever sits between would: without a word of TLS."""
    under = socket.socket(fileno=os.dup(stream.socket.fd))
    under.shutdown(socket.SHUT_WR)
    under.close()


def test_neither_half_close_nor_a_second_handshake_leaves_tls(
    certificates: Certificates, serving: Handler
) -> Coro[None]:
    trust = ssl.create_default_context(cafile=certificates.authority)

    def body(listener: Listener) -> Coro[None]:
        stream = yield from coro.connect("localhost", listener.port, tls=trust)
        with pytest.raises(OSError, match="TLS"):
            stream.write_eof()
        with pytest.raises(RuntimeError, match="TLS already"):
            yield from stream.start_tls(trust, server_hostname="localhost")
        assert (yield from ask(stream, b"a\n")) == b"A\n"

    yield from with_server(body, handler=serving)


def _listening(certificates: Certificates) -> Listener:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    return coro.listen("127.0.0.1", 0, tls=context)


def test_listener_with_tls_serves_streams_with_tls(certificates: Certificates) -> Coro[None]:
    trust = ssl.create_default_context(cafile=certificates.authority)

    def body(listener: Listener) -> Coro[None]:
        silent = yield from coro.connect("127.0.0.1", listener.port)  # does not hold up the others
        for _ in range(2):
            stream = yield from coro.connect("127.0.0.1", listener.port, tls=trust)
            assert (yield from ask(stream, b"secret\n")) == b"SECRET\n"
        silent.close()

    yield from with_server(body, _listening(certificates))


def test_stream_accepted_by_hand_from_a_listener_with_tls_shakes_hands_when_it_is_used(
    certificates: Certificates,
) -> Coro[None]:
    trust = ssl.create_default_context(cafile=certificates.authority)

    def serve_one(listener: Listener) -> Coro[None]:
        stream = yield from listener.accept()
        yield from stream.write((yield from stream.read_until(b"\n")).upper())
        stream.close()

    def connect(listener: Listener) -> Coro[None]:
        stream = yield from coro.connect("127.0.0.1", listener.port, tls=trust)
        assert (yield from ask(stream, b"secret\n")) == b"SECRET\n"

    listener = _listening(certificates)
    yield from coro.gather(serve_one(listener), connect(listener))
    listener.close()
