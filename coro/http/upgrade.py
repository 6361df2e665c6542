"""Leaving HTTP for another protocol on the same connection (RFC 9110, section 7.8)."""

from __future__ import annotations

from collections.abc import Callable

from coro.http.message import HeaderList, Sender
from coro.net import Stream
from coro.task import Coro


class Upgrade:
    """The answer 101: from here on `serve(stream)` has the connection, which is closed when it returns.

    To be returned when the client offers the protocol (`request.upgrade`). No time limit of the server's holds any
    more; a server that stops cancels `serve` after its grace.
    """

    def __init__(self, protocol: str, serve: Callable[[Stream], Coro[None]], headers: HeaderList = ()) -> None:
        self.status = 101
        self.headers = headers
        self._protocol = protocol
        self._serve = serve

    def send(self, sender: Sender) -> Coro[None]:
        stream = yield from sender.switch_protocols(self, self._protocol)
        yield from self._serve(stream)
