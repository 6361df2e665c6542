"""The client that programs use: one object for a whole program, and for all its tasks at once.

    redis = Redis.from_url("redis://localhost:6379/0")

    def count(name: str) -> Coro[int]:
        return (yield from redis.incr(f"visits:{name}"))

What the tasks issue in one round of the loop leaves together and is answered together (`coro.redis.shared` says how).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from coro.redis.commands import Commands, check_shareable
from coro.redis.resp import Argument
from coro.redis.shared import Command, SharedConnection
from coro.redis.url import Settings, parse_url
from coro.task import Coro


class Redis(Commands):
    """A client for one server. It connects when the first command is issued, and again when the connection was lost.

    It belongs to one run of the loop at a time; when that ends, so does its connection.
    """

    def __init__(self, settings: Settings) -> None:
        """Does not suspend and does not connect; reads the files that TLS needs (OSError, ValueError)."""
        self.settings = settings
        self._shared = SharedConnection(settings)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        timeout: float | None = None,
        connect_timeout: float | None = None,
        max_unanswered: int | None = None,
    ) -> Redis:
        """A client for a `redis://`, `rediss://` or `unix://` URL; see `coro.redis.url`. Does not suspend.

        `timeout` (seconds from a command's sending to its reply), `connect_timeout` (seconds for connecting and
        logging in) and `max_unanswered` (commands under way at once) go before what the URL says. ValueError.
        """
        given: dict[str, Any] = {
            "timeout": timeout,
            "connect_timeout": connect_timeout,
            "max_unanswered": max_unanswered,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        return cls(dataclasses.replace(parse_url(url), **changes))

    def execute(self, *args: Argument) -> Coro[Any]:
        """Carry out any command that can share a connection; its reply. Suspends.

        Strings are bytes, arrays lists, maps dicts (lists in RESP2), sets sets. Raises `ReplyError` (or the class for
        its prefix) when the server answers with an error; `RedisConnectionError` when it cannot be reached, does not
        answer in time or the connection is lost; `OwnConnectionError` for a command that blocks or changes the
        connection; TypeError for what cannot be sent.

        A command that was sent is never sent again. Cancelled while it waits, its caller gets no reply, and nobody
        else does; the command may be carried out all the same.
        """
        check_shareable(args)
        return self._send(args)

    def _send(self, args: Sequence[Argument]) -> Coro[Any]:
        return (yield Command(self._shared, args))

    def close(self) -> None:
        """Close the client for good; who waits for a reply gets `ClosedError`. Does not suspend."""
        self._shared.close()

    def __repr__(self) -> str:
        return f"<Redis at {self._shared!r}>"
