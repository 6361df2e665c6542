"""Any bytes at all, sent to a server on a socket: answers that are due, and never an error in the server."""

from __future__ import annotations

import re
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coro.http import Request, Response
from coro.task import Coro
from tests.http.conftest import Serve
from tests.http.serving import PATIENCE, Service
from tests.http.test_parser import anything, cut, outcome

STATUS = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) ")
fuzzing = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def read_all(request: Request) -> Coro[Response]:
    yield from request.body.read_all(1 << 64)  # no head may tell a greater length
    return Response(204)


def due(data: bytes) -> list[int]:
    """The statuses of the answers that these bytes, and then their end, must get."""
    requests, refusal = outcome([data])
    statuses: list[int] = []
    for request in requests:
        if request.body is ...:
            return statuses + ([] if refusal is None else [refusal])
        statuses.append(204)
        if not request.keep_alive:
            return statuses
    return statuses + ([] if refusal is None else [refusal])


def answered(service: Service, pieces: list[bytes]) -> list[int]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)
        data = b""
        while more := sock.recv(65536):
            data += more
    return [int(status) for status in STATUS.findall(data)]


@pytest.fixture
def service(serve: Serve) -> Service:
    """One for all examples. An error that it logs fails the test."""
    return serve(read_all)


@fuzzing
@given(data=anything, draw=st.data())
def test_any_bytes_get_the_answers_that_are_due(service: Service, data: bytes, draw: st.DataObject) -> None:
    """As many as there are requests, then at most one refusal."""
    places = draw.draw(st.lists(st.integers(0, len(data)), max_size=4))
    assert answered(service, cut(data, places)) == due(data)
