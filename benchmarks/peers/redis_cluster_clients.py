"""python -m benchmarks.peers.redis_cluster_clients PEER PORT SIZE TASKS COUNT: GETs from a cluster.

Prints [CPU seconds, seconds] of this process for COUNT GETs by each of TASKS tasks, as JSON. All tasks share one client
object; each has a key of its own, of SIZE bytes, so that every node has its part. PORT is that of one node.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.peers.redis_clients import WARM_UP, Clock


def with_coro(port: int, size: int, tasks: int, count: int) -> list[float]:
    import coro
    from coro import Coro
    from coro.redis import RedisCluster

    redis = RedisCluster.from_url(f"redis://127.0.0.1:{port}")

    def work(key: str, number: int) -> Coro[None]:
        for _ in range(number):
            value = yield from redis.get(key)
            assert value is not None and len(value) == size

    def main() -> Coro[list[float]]:
        keys = [f"key{number}" for number in range(tasks)]
        yield from coro.gather(*[redis.set(key, b"x" * size) for key in keys])
        yield from coro.gather(*[work(key, WARM_UP) for key in keys])
        clock = Clock()
        yield from coro.gather(*[work(key, count) for key in keys])
        return clock.read()

    return coro.run(main())


def with_redis_asyncio(port: int, size: int, tasks: int, count: int) -> list[float]:
    import asyncio

    import redis.asyncio

    async def main() -> list[float]:
        client: Any = redis.asyncio.RedisCluster(host="127.0.0.1", port=port, max_connections=tasks)
        keys = [f"key{number}" for number in range(tasks)]
        for key in keys:
            await client.set(key, b"x" * size)

        async def work(key: str, number: int) -> None:
            for _ in range(number):
                value = await client.get(key)
                assert value is not None and len(value) == size

        await asyncio.gather(*[work(key, WARM_UP) for key in keys])
        clock = Clock()
        await asyncio.gather(*[work(key, count) for key in keys])
        result = clock.read()
        await client.aclose()
        return result

    return asyncio.run(main())


def with_coredis(port: int, size: int, tasks: int, count: int) -> list[float]:
    import asyncio

    import coredis

    async def main() -> list[float]:
        async with coredis.RedisCluster("127.0.0.1", port) as client:
            keys = [f"key{number}" for number in range(tasks)]
            for key in keys:
                await client.set(key, b"x" * size)

            async def work(key: str, number: int) -> None:
                for _ in range(number):
                    value = await client.get(key)
                    assert value is not None and len(value) == size

            await asyncio.gather(*[work(key, WARM_UP) for key in keys])
            clock = Clock()
            await asyncio.gather(*[work(key, count) for key in keys])
            return clock.read()

    return asyncio.run(main())


def with_redis_py(port: int, size: int, tasks: int, count: int) -> list[float]:
    import redis

    client: Any = redis.RedisCluster(host="127.0.0.1", port=port)
    keys = [f"key{number}" for number in range(tasks)]
    for key in keys:
        client.set(key, b"x" * size)
        client.get(key)
    clock = Clock()
    for _ in range(count):
        for key in keys:
            value = client.get(key)
            assert isinstance(value, bytes) and len(value) == size
    return clock.read()


PEERS: dict[str, Callable[[int, int, int, int], list[float]]] = {
    "coro": with_coro,
    "redis-asyncio": with_redis_asyncio,
    "coredis": with_coredis,
    "redis-py": with_redis_py,
}


def main(peer: str, *numbers: Any) -> None:
    port, size, tasks, count = map(int, numbers)
    print(json.dumps(PEERS[peer](port, size, tasks, count)))


if __name__ == "__main__":
    main(*sys.argv[1:])
