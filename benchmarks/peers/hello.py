"""python -m benchmarks.peers.hello PEER PORT: answers every request with "Hello, world!"."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

BODY = b"Hello, world!"
BACKLOG = 4096


def with_coro(port: int) -> None:
    import coro
    from coro import Coro
    from coro.http import Request, Response, Router, Server

    def hello(request: Request) -> Coro[Response]:
        yield from ()
        return Response(200, BODY, content_type="text/plain")

    def main() -> Coro[None]:
        router = Router()
        router.add("GET", "/", hello)
        yield from Server(router.handle).serve(coro.listen("127.0.0.1", port))

    coro.run(main())


def with_uvicorn(port: int) -> None:
    import uvicorn

    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(BODY)).encode())]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": BODY})

    uvicorn.run(
        app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", lifespan="off", access_log=False,
        log_level="warning", backlog=BACKLOG,
    )  # fmt: skip


def with_aiohttp(port: int) -> None:
    import uvloop
    from aiohttp import web

    async def hello(request: Any) -> Any:
        return web.Response(body=BODY, content_type="text/plain")

    app = web.Application()
    app.router.add_get("/", hello)
    web.run_app(
        app, host="127.0.0.1", port=port, loop=uvloop.new_event_loop(), access_log=None, print=None,
        backlog=BACKLOG,
    )  # fmt: skip


PEERS: dict[str, Callable[[int], None]] = {
    "coro": with_coro,
    "uvicorn": with_uvicorn,
    "aiohttp": with_aiohttp,
}


if __name__ == "__main__":
    PEERS[sys.argv[1]](int(sys.argv[2]))
