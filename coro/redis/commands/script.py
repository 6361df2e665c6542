"""A script that is sent once, and called by its digest from then on.

    transfer = redis.script("return redis.call('decrby', KEYS[1], ARGV[1]) ...")
    left = yield from transfer(keys=["account"], args=[5])

The server keeps scripts in memory only, and may forget them: where it does not know the digest, the script is sent, and
known again. That is no second try of something that may have been done: a digest that is not known runs nothing.

Specification: https://redis.io/docs/latest/develop/interact/programmability/eval-intro/
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from coro.redis.errors import NoScriptError
from coro.redis.resp import Argument
from coro.task import Coro


class Script:
    """Made by `Redis.script`; call it with `yield from`."""

    def __init__(self, send: Callable[[Sequence[Argument]], Coro[Any]], source: str) -> None:
        self._send = send
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[Argument] = (), args: Sequence[Argument] = ()) -> Coro[Any]:
        """Run it; what it returns. Suspends. `ReplyError` when it fails."""
        rest = (len(keys), *keys, *args)
        try:
            return (yield from self._send((b"EVALSHA", self.sha, *rest)))
        except NoScriptError:
            return (yield from self._send((b"EVAL", self.source, *rest)))

    def __repr__(self) -> str:
        return f"<Script {self.sha}>"
