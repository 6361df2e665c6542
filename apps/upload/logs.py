"""The access log as JSON, and an id by which the lines of one request are found together.

Each request gets an id: the client's or the proxy's `X-Request-Id`, if it is a plain word, or a new one. It goes back
with the answer, and stands in the access log and in what else is logged on the way. It is kept in a context variable:
each connection's task has a context of its own and serves one request at a time.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from contextvars import ContextVar

from coro import Coro
from coro.http import AccessLog, Answer, Handler, HTTPError, Request

PLAIN = re.compile(r"[A-Za-z0-9._:-]{1,64}")
CLIENT_CLOSED_REQUEST = 499  # as `coro.http` records it

request_id: ContextVar[str] = ContextVar("request_id", default="")


def identified(handler: Handler) -> Handler:
    """Give each request its id."""

    def handle(request: Request) -> Coro[Answer]:
        given = request.headers.get("x-request-id", "")
        word = given if PLAIN.fullmatch(given) else secrets.token_hex(8)
        request_id.set(word)
        try:
            answer = yield from handler(request)
        except HTTPError as error:
            error.headers = [*error.headers, ("X-Request-Id", word)]
            raise
        answer.headers = [*answer.headers, ("X-Request-Id", word)]
        return answer

    return handle


class JSONLog(AccessLog):
    """An access log with a line of JSON for each answer."""

    def record(self, request: Request, status: int, size: int, seconds: float) -> None:
        self.add(_line(
            "access", request_id=request_id.get(), client=request.client, method=request.method,
            target=request.target, status=status, aborted=status == CLIENT_CLOSED_REQUEST,
            length=request.content_length, sent=size, seconds=round(seconds, 6),
            agent=request.headers.get("user-agent"),
        ))  # fmt: skip

    def record_refusal(self, peer: str, status: int, size: int) -> None:
        self.add(_line("access", client=peer, status=status, sent=size))


class JSONFormatter(logging.Formatter):
    """Makes a line of JSON of each record, with the id of the request that it is about."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {"level": record.levelname.lower(), "message": record.getMessage()}
        if word := request_id.get():
            fields["request_id"] = word
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _line(record.name, **fields).rstrip("\n")


def log_as_json() -> None:
    """What the process logs is JSON from here on."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JSONFormatter())


def _line(logger: str, **fields: object) -> str:
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    return json.dumps({"time": stamp, "logger": logger, **fields}, ensure_ascii=True) + "\n"
