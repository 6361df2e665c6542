"""The upload job on FastAPI, as its manual teaches to write it, on uvicorn with uvloop and httptools."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import asyncmy
import redis.asyncio
import uvicorn
from fastapi import Cookie, Depends, FastAPI, HTTPException, Request

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


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    pool = redis.asyncio.BlockingConnectionPool(
        host=HOST, port=REDIS_PORT, max_connections=POOL_SIZE, timeout=POOL_WAIT
    )
    app.state.sessions = redis.asyncio.Redis(connection_pool=pool)
    app.state.database = await asyncmy.create_pool(minsize=POOL_SIZE, maxsize=POOL_SIZE, autocommit=True, **DATABASE)
    yield
    app.state.database.close()
    await app.state.database.wait_closed()
    await app.state.sessions.aclose()


async def user_of_session(request: Request, session: Annotated[str | None, Cookie()] = None) -> int:
    user = await request.app.state.sessions.get(f"session:{session}") if session else None
    if user is None:
        raise HTTPException(401, "log in first")
    return int(user)


async def upload(name: str, request: Request, user: Annotated[int, Depends(user_of_session)]) -> dict[str, Any]:
    upload_id, file = new_file()
    size = 0
    try:
        with open(file, "xb", buffering=0) as out:
            async for chunk in request.stream():
                size += out.write(chunk)
    except BaseException:
        os.unlink(file)
        raise
    async with request.app.state.database.acquire() as connection, connection.cursor() as cursor:
        await cursor.execute(INSERT, (upload_id, user, name, file, size))
    return {"id": upload_id, "size": size}


if __name__ == "__main__":
    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/upload/{name}", upload, methods=["PUT"], status_code=201)
    uvicorn.run(
        app, host=HOST, port=PORT, loop="uvloop", http="httptools", access_log=False, log_level="warning",
        backlog=BACKLOG,
    )  # fmt: skip
