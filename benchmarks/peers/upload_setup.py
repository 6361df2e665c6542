"""What the Python servers of the upload job share. Arguments: PORT REDIS_PORT MYSQL_PORT DIRECTORY."""

from __future__ import annotations

import sys
import uuid
from http.cookies import CookieError, SimpleCookie
from typing import Any

PORT, REDIS_PORT, MYSQL_PORT = (int(argument) for argument in sys.argv[1:4])
DIRECTORY = sys.argv[4]
HOST = "127.0.0.1"
POOL_SIZE = 32  # connections to Redis, and as many to MariaDB
POOL_WAIT = 60.0  # seconds to wait for one of them
BACKLOG = 4096
DATABASE: dict[str, Any] = {
    "host": HOST,
    "port": MYSQL_PORT,
    "user": "root",
    "password": "",
    "database": "bench",
}
INSERT = "INSERT INTO uploads (id, user_id, name, path, size) VALUES (%s, %s, %s, %s, %s)"


def new_file() -> tuple[str, str]:
    """The id of a new upload and where its file goes."""
    upload_id = str(uuid.uuid4())
    return upload_id, f"{DIRECTORY}/{upload_id}"


def session_key(cookie_header: str) -> str | None:
    """The Redis key of the session that a Cookie field names."""
    if cookie_header.startswith("session=") and ";" not in cookie_header:
        return "session:" + cookie_header.removeprefix("session=")
    try:
        morsel = SimpleCookie(cookie_header).get("session")
    except CookieError:
        return None
    return f"session:{morsel.value}" if morsel else None
