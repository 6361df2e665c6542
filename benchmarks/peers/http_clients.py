"""python -m benchmarks.peers.http_clients PEER PORT SECONDS: GETs from a server on PORT, many at a time.

Prints [requests, CPU seconds, seconds] of this process as JSON. What cannot do many at a time does one after another.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.peers.hello import BODY

TASKS = 64
WARM_UP = 0.3  # seconds


class Count:
    """The requests that were answered while the clock ran."""

    def __init__(self, seconds: float) -> None:
        self.requests = 0
        self.started = 0.0
        self.cpu = 0.0
        self.begin = time.monotonic() + WARM_UP
        self.end = self.begin + seconds

    def more(self, body: bytes) -> bool:
        """An answer has come: is another request to be sent?"""
        if body != BODY:
            raise ValueError(f"answered {body[:80]!r}")
        now = time.monotonic()
        if not self.started:
            if now >= self.begin:
                self.started, self.cpu = now, time.process_time()
            return True
        self.requests += 1
        return now < self.end

    def result(self) -> list[float]:
        return [self.requests, time.process_time() - self.cpu, time.monotonic() - self.started]


def with_coro(url: str, count: Count) -> None:
    import coro
    from coro import Coro
    from coro.http import Client, ClientLimits

    def main() -> Coro[None]:
        with Client(limits=ClientLimits(connections_per_origin=TASKS)) as client:

            def work() -> Coro[None]:
                while count.more((yield from client.get(url)).body):
                    pass

            yield from coro.gather(*[work() for _ in range(TASKS)])

    coro.run(main())


def with_aiohttp(url: str, count: Count) -> None:
    import asyncio

    asyncio.run(_aiohttp(url, count))


def with_aiohttp_uvloop(url: str, count: Count) -> None:
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_aiohttp(url, count))


async def _aiohttp(url: str, count: Count) -> None:
    import asyncio

    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=TASKS)) as session:

        async def work() -> None:
            while True:
                async with session.get(url) as response:
                    if not count.more(await response.read()):
                        return

        await asyncio.gather(*[work() for _ in range(TASKS)])


def with_httpx(url: str, count: Count) -> None:
    import asyncio

    import httpx

    async def main() -> None:
        limits = httpx.Limits(max_connections=TASKS, max_keepalive_connections=TASKS)
        async with httpx.AsyncClient(limits=limits) as client:

            async def work() -> None:
                while count.more((await client.get(url)).content):
                    pass

            await asyncio.gather(*[work() for _ in range(TASKS)])

    asyncio.run(main())


def with_urllib3(url: str, count: Count) -> None:
    import urllib3

    with urllib3.PoolManager(maxsize=1) as pool:
        while count.more(pool.request("GET", url).data):
            pass


def with_http_client(url: str, count: Count) -> None:
    import http.client
    from urllib.parse import urlsplit

    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    while True:
        connection.request("GET", "/")
        with connection.getresponse() as response:
            if not count.more(response.read()):
                break
    connection.close()


PEERS: dict[str, Callable[[str, Count], Any]] = {
    "coro": with_coro,
    "aiohttp": with_aiohttp,
    "aiohttp-uvloop": with_aiohttp_uvloop,
    "httpx": with_httpx,
    "urllib3": with_urllib3,
    "http.client": with_http_client,
}


if __name__ == "__main__":
    counted = Count(float(sys.argv[3]))
    PEERS[sys.argv[1]](f"http://127.0.0.1:{sys.argv[2]}/", counted)
    print(json.dumps(counted.result()))
