"""The upload job on gevent's WSGI server: blocking code on a patched standard library.

Run it as `python -m gevent.monkey --module benchmarks.peers.upload_gevent ...`, which patches before it imports.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote

import pymysql
import redis
from gevent.pywsgi import WSGIServer
from gevent.queue import Queue

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

CHUNK = 65536
Start = Callable[[str, list[tuple[str, str]]], object]


class App:
    """`PUT /upload/NAME`, and the two pools."""

    def __init__(self) -> None:
        pool: Any = redis.BlockingConnectionPool
        pool = pool(host=HOST, port=REDIS_PORT, max_connections=POOL_SIZE, timeout=POOL_WAIT)
        self.sessions: Any = redis.Redis(connection_pool=pool)
        self.database: Any = Queue()
        for _ in range(POOL_SIZE):
            self.database.put(pymysql.connect(autocommit=True, **DATABASE))

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        key = session_key(environ.get("HTTP_COOKIE", ""))
        user = self.sessions.get(key) if key else None
        if user is None:
            return self.answer(start, "401 Unauthorized", {"error": "log in first"})
        upload_id, file = new_file()
        size = 0
        with open(file, "xb", buffering=0) as out:
            while chunk := environ["wsgi.input"].read(CHUNK):
                size += out.write(chunk)
        name = unquote(environ["PATH_INFO"].removeprefix("/upload/"))
        connection = self.database.get()
        try:
            with connection.cursor() as cursor:
                cursor.execute(INSERT, (upload_id, int(user), name, file, size))
        finally:
            self.database.put(connection)
        return self.answer(start, "201 Created", {"id": upload_id, "size": size})

    def answer(self, start: Start, status: str, value: dict[str, Any]) -> Iterable[bytes]:
        body = json.dumps(value).encode()
        start(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


if __name__ == "__main__":
    listener = socket.create_server((HOST, PORT), backlog=BACKLOG)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # and with it what it accepts
    WSGIServer(listener, App(), log=None).serve_forever()
