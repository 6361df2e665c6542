"""python -m benchmarks.peers.guarded PORT: a server with the limits that are built in."""

from __future__ import annotations

import sys


def main(port: int) -> None:
    import coro
    from coro import Coro
    from coro.http import Request, Response, Router, Server

    def put(request: Request) -> Coro[Response]:
        size = 0
        while data := (yield from request.body.read()):
            size += len(data)
        return Response(201, str(size))

    def health(request: Request) -> Coro[Response]:
        yield from ()
        return Response(200, "well")

    def serve() -> Coro[None]:
        router = Router()
        router.add("PUT", "/", put)
        router.add("GET", "/health", health)
        yield from Server(router.handle).serve(coro.listen("127.0.0.1", port))

    coro.run(serve())


if __name__ == "__main__":
    main(int(sys.argv[1]))
