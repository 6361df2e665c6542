"""Servers for the tests of `coro.http`. A warning or an error that one logs fails the test, unless it takes it out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.http.serving import Service

Serve = Callable[..., Service]


class Collector(logging.Handler):
    """Keeps the records."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    """What the project logs from level WARNING on. A test takes out what it expects."""
    collector = Collector()
    logger = logging.getLogger("coro")
    logger.addHandler(collector)
    yield collector.records
    logger.removeHandler(collector)
    assert not [record.getMessage() for record in collector.records]


@pytest.fixture
def serve(logged: list[logging.LogRecord]) -> Iterator[Serve]:
    """Starts a server, from what `Service` takes."""
    with ExitStack() as stack:

        def start(*arguments: object, **options: object) -> Service:
            service = Service(*arguments, **options)  # type: ignore[arg-type]
            stack.callback(service.close)
            return service

        yield start
