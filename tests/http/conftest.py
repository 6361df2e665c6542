"""Servers for the tests of `coro.http`. What the server logs as a warning or an error fails the test, unless it asked for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.http.serving import Service

Serve = Callable[..., Service]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    """What the project logs from level WARNING on. A test takes out what it expects."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("coro")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)
    assert not [record.getMessage() for record in records]


@pytest.fixture
def serve(logged: list[logging.LogRecord]) -> Iterator[Serve]:
    """Starts a server, from what `Service` takes."""
    with ExitStack() as stack:

        def start(*arguments: object, **options: object) -> Service:
            service = Service(*arguments, **options)  # type: ignore[arg-type]
            stack.callback(service.close)
            return service

        yield start
