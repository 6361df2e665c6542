"""The upload job on aiohttp's server with uvloop, with the clients of the bare ASGI application."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import asyncmy
import redis.asyncio
import uvloop
from aiohttp import web

from benchmarks.peers.upload_setup import (
    BACKLOG,
    DATABASE,
    HOST,
    INSERT,
    POOL_SIZE,
    POOL_WAIT,
    PORT,
    REDIS_PORT,
    new_file,
)

POOLS: dict[str, Any] = {}


async def pools(app: Any) -> AsyncIterator[None]:
    pool = redis.asyncio.BlockingConnectionPool(
        host=HOST, port=REDIS_PORT, max_connections=POOL_SIZE, timeout=POOL_WAIT
    )
    POOLS["redis"] = redis.asyncio.Redis(connection_pool=pool)
    POOLS["mysql"] = await asyncmy.create_pool(minsize=POOL_SIZE, maxsize=POOL_SIZE, autocommit=True, **DATABASE)
    yield
    POOLS["mysql"].close()
    await POOLS["mysql"].wait_closed()
    await POOLS["redis"].aclose()


async def upload(request: Any) -> Any:
    token = request.cookies.get("session")
    user = await POOLS["redis"].get(f"session:{token}") if token else None
    if user is None:
        return web.json_response({"error": "log in first"}, status=401)
    upload_id, file = new_file()
    size = 0
    try:
        with open(file, "xb", buffering=0) as out:
            async for chunk in request.content.iter_any():
                size += out.write(chunk)
    except BaseException:
        os.unlink(file)
        raise
    async with POOLS["mysql"].acquire() as connection, connection.cursor() as cursor:
        await cursor.execute(INSERT, (upload_id, int(user), request.match_info["name"], file, size))
    return web.json_response({"id": upload_id, "size": size}, status=201)


if __name__ == "__main__":
    app = web.Application(client_max_size=1 << 40)
    app.cleanup_ctx.append(pools)
    app.router.add_put("/upload/{name}", upload)
    web.run_app(app, host=HOST, port=PORT, loop=uvloop.new_event_loop(), access_log=None, print=None, backlog=BACKLOG)
