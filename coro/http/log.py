"""The access log, in the combined format that log analysers know. A subclass with a `record` of its own has another."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from coro.http.forwarded import UNIX, host_of
from coro.http.message import Request
from coro.timing import call_later

logger = logging.getLogger("coro.http")

FLUSH_TIME = 0.5  # seconds for which lines are collected, to be written at once


class AccessLog:
    """Writes a line for each request through `write`, several at a time."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._lines: list[str] = []
        self._second = 0
        self._date = ""

    def record(self, request: Request, status: int, size: int, seconds: float) -> None:
        """Note one answered request: the answer's status, the bytes of its body, and the time it took."""
        fields, head = request.headers, request.head
        line = f"{head.method} {head.target} HTTP/{head.version}"
        referer, agent = fields.get("referer", "-"), fields.get("user-agent", "-")
        if not _harmless(line + referer + agent):
            line, referer, agent = _quoted(line), _quoted(referer), _quoted(agent)
        self._add(request.client, line, status, size, f'"{referer}" "{agent}" {seconds:.3f}')

    def record_refusal(self, peer: str, status: int, size: int) -> None:
        """Note bytes that could not become a request."""
        self._add(host_of(peer), "-", status, size, '"-" "-" -')

    def _add(self, host: str, line: str, status: int, size: int, rest: str) -> None:
        second = int(time.time())
        if second != self._second:
            self._second, self._date = second, time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(second))
        if host == UNIX:
            host = "unix:"  # as nginx has it
        self.add(f'{host} - - [{self._date}] "{line}" {status} {size or "-"} {rest}\n')

    def add(self, line: str) -> None:
        """Collect a line, to be written soon. Does not suspend."""
        if not self._lines:
            call_later(FLUSH_TIME, self.flush)
        self._lines.append(line)

    def flush(self) -> None:
        """Write what has been collected. Does not suspend."""
        lines, self._lines = self._lines, []
        if lines:
            try:
                self._write("".join(lines))
            except Exception as error:  # a full disk, a closed file: the server goes on
                logger.error("%d lines of the access log are lost: %s", len(lines), error)


def _harmless(text: str) -> bool:
    """Can text of the client's neither end its field nor its line?"""
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def _quoted(text: str) -> str:
    """Text of the client's, so that it is harmless."""
    if _harmless(text):
        return text
    return text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
