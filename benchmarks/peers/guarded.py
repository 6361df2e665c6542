"""python -m benchmarks.peers.guarded PORT: a server with the limits that are built in.

GET /longest answers with the most CPU milliseconds that a turn of its loop has taken: what clients wait for beyond that
is the machine's doing.
"""

from __future__ import annotations

import selectors
import sys
import time
from typing import Any


class TurnMeter(selectors.DefaultSelector):
    """Every turn of the loop ends here, and the next one begins."""

    longest = 0.0  # seconds of CPU
    _begin = time.thread_time()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, Any]]:
        self.longest = max(self.longest, time.thread_time() - self._begin)
        self._begin = time.thread_time()
        return super().select(timeout)


def main(port: int) -> None:
    import coro
    from coro import Coro, Loop
    from coro.http import Request, Response, Router, Server

    def put(request: Request) -> Coro[Response]:
        size = 0
        while data := (yield from request.body.read()):
            size += len(data)
        return Response(201, str(size))

    def health(request: Request) -> Coro[Response]:
        yield from ()
        return Response(200, "well")

    meter = TurnMeter()

    def longest(request: Request) -> Coro[Response]:
        yield from ()
        return Response(200, f"{meter.longest * 1e3:.1f}")

    def serve() -> Coro[None]:
        router = Router()
        router.add("PUT", "/", put)
        router.add("GET", "/health", health)
        router.add("GET", "/longest", longest)
        yield from Server(router.handle).serve(coro.listen("127.0.0.1", port))

    Loop(meter).run(serve())


if __name__ == "__main__":
    main(int(sys.argv[1]))
