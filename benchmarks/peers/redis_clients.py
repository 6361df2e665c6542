"""python -m benchmarks.peers.redis_clients PEER PORT SIZE TASKS COUNT: GETs of one value of SIZE bytes.

Prints [CPU seconds, seconds] of this process for COUNT GETs by each of TASKS tasks, as JSON. All tasks share one client
object. `redis-py-pipeline` has one task, and sends 100 commands at once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

KEY = "benchmark"
PIPELINE = 100  # commands in an explicit pipeline
WARM_UP = 10  # GETs of each task before the clock starts


class Clock:
    """CPU and wall-clock time since it was made."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def read(self) -> list[float]:
        return [time.process_time() - self._cpu, time.perf_counter() - self._wall]


def with_coro(port: int, size: int, tasks: int, count: int) -> list[float]:
    import coro
    from coro import Coro
    from coro.redis import Redis

    redis = Redis.from_url(f"redis://127.0.0.1:{port}")

    def work(number: int) -> Coro[None]:
        for _ in range(number):
            value = yield from redis.get(KEY)
            assert value is not None and len(value) == size

    def main() -> Coro[list[float]]:
        yield from redis.set(KEY, b"x" * size)
        yield from coro.gather(*[work(WARM_UP) for _ in range(tasks)])
        clock = Clock()
        yield from coro.gather(*[work(count) for _ in range(tasks)])
        return clock.read()

    return coro.run(main())


def with_coro_pipeline(port: int, size: int, tasks: int, count: int) -> list[float]:
    import coro
    from coro import Coro
    from coro.redis import Redis

    redis = Redis.from_url(f"redis://127.0.0.1:{port}")

    def work(number: int) -> Coro[None]:
        for _ in range(number):
            pipeline = redis.pipeline(transaction=False)
            for _ in range(PIPELINE):
                pipeline.get(KEY)
            assert len((yield from pipeline.execute())) == PIPELINE

    def main() -> Coro[list[float]]:
        yield from redis.set(KEY, b"x" * size)
        yield from work(1)
        clock = Clock()
        yield from work(tasks * count // PIPELINE)
        return clock.read()

    return coro.run(main())


def with_redis_asyncio(port: int, size: int, tasks: int, count: int) -> list[float]:
    import asyncio

    import redis.asyncio

    async def main() -> list[float]:
        client = redis.asyncio.Redis(port=port, max_connections=tasks)
        await client.set(KEY, b"x" * size)

        async def work(number: int) -> None:
            for _ in range(number):
                value = await client.get(KEY)
                assert value is not None and len(value) == size

        await asyncio.gather(*[work(WARM_UP) for _ in range(tasks)])
        clock = Clock()
        await asyncio.gather(*[work(count) for _ in range(tasks)])
        result = clock.read()
        await client.aclose()
        return result

    return asyncio.run(main())


def with_redis_asyncio_uvloop(port: int, size: int, tasks: int, count: int) -> list[float]:
    import uvloop

    uvloop.install()
    return with_redis_asyncio(port, size, tasks, count)


def with_coredis(port: int, size: int, tasks: int, count: int) -> list[float]:
    import asyncio

    import coredis

    async def main() -> list[float]:
        async with coredis.Redis(port=port) as client:
            await client.set(KEY, b"x" * size)

            async def work(number: int) -> None:
                for _ in range(number):
                    value = await client.get(KEY)
                    assert value is not None and len(value) == size

            await asyncio.gather(*[work(WARM_UP) for _ in range(tasks)])
            clock = Clock()
            await asyncio.gather(*[work(count) for _ in range(tasks)])
            return clock.read()

    return asyncio.run(main())


def with_redis_py(port: int, size: int, tasks: int, count: int) -> list[float]:
    import redis

    client = redis.Redis(port=port)
    client.set(KEY, b"x" * size)
    client.get(KEY)
    clock = Clock()
    for _ in range(tasks * count):
        value = client.get(KEY)
        assert isinstance(value, bytes) and len(value) == size
    return clock.read()


def with_redis_py_pipeline(port: int, size: int, tasks: int, count: int) -> list[float]:
    import redis

    client = redis.Redis(port=port)
    client.set(KEY, b"x" * size)
    client.get(KEY)
    clock = Clock()
    for _ in range(tasks * count // PIPELINE):
        pipeline = client.pipeline(transaction=False)
        for _ in range(PIPELINE):
            pipeline.get(KEY)
        assert len(pipeline.execute()) == PIPELINE
    return clock.read()


PEERS: dict[str, Callable[[int, int, int, int], list[float]]] = {
    "coro": with_coro,
    "coro-pipeline": with_coro_pipeline,
    "redis-asyncio": with_redis_asyncio,
    "redis-asyncio-uvloop": with_redis_asyncio_uvloop,
    "coredis": with_coredis,
    "redis-py": with_redis_py,
    "redis-py-pipeline": with_redis_py_pipeline,
}


def main(peer: str, *numbers: Any) -> None:
    port, size, tasks, count = map(int, numbers)
    print(json.dumps(PEERS[peer](port, size, tasks, count)))


if __name__ == "__main__":
    main(*sys.argv[1:])
