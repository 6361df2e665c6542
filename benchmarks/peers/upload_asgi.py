"""The upload job as a bare ASGI application on uvicorn with uvloop and httptools: asyncio at its fastest.

Files are written on the loop's thread: with small bodies a thread would only add to the cost.
"""

from __future__ import annotations

import json
import os
from typing import Any

import asyncmy
import redis.asyncio
import uvicorn

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
    session_key,
)


class App:
    """`PUT /upload/NAME`, and the life of the two pools."""

    sessions: Any
    database: Any

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.live(receive, send)
        elif scope["method"] == "PUT" and scope["path"].startswith("/upload/"):
            await self.upload(scope, receive, send)
        else:
            await self.answer(send, 404, {"error": "there is nothing here"})

    async def live(self, receive: Any, send: Any) -> None:
        pool = redis.asyncio.BlockingConnectionPool(
            host=HOST, port=REDIS_PORT, max_connections=POOL_SIZE, timeout=POOL_WAIT
        )
        await receive()
        self.sessions = redis.asyncio.Redis(connection_pool=pool)
        self.database = await asyncmy.create_pool(minsize=POOL_SIZE, maxsize=POOL_SIZE, autocommit=True, **DATABASE)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.database.close()
        await self.database.wait_closed()
        await self.sessions.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def upload(self, scope: Any, receive: Any, send: Any) -> None:
        user = None
        for name, value in scope["headers"]:
            if name == b"cookie" and (key := session_key(value.decode("latin-1"))):
                user = await self.sessions.get(key)
        if user is None:
            await self.answer(send, 401, {"error": "log in first"})
            return
        upload_id, file = new_file()
        size = 0
        with open(file, "xb", buffering=0) as out:
            more = True
            while more:
                event = await receive()
                if event["type"] == "http.disconnect":
                    os.unlink(file)
                    return
                size += out.write(event["body"])
                more = event["more_body"]
        name = scope["path"].removeprefix("/upload/")
        async with self.database.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(INSERT, (upload_id, int(user), name, file, size))
        await self.answer(send, 201, {"id": upload_id, "size": size})

    async def answer(self, send: Any, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        App(), host=HOST, port=PORT, loop="uvloop", http="httptools", lifespan="on", access_log=False,
        log_level="warning", backlog=BACKLOG,
    )  # fmt: skip
