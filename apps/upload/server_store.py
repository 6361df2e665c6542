"""Sessions in Redis; users and uploads in MySQL or MariaDB.

Both clients reconnect by themselves, so a server that was away is used again as soon as it answers; while it is away
every call fails at once, or after `PATIENCE` when it hangs.

A row whose INSERT got no answer may be there or not. Writing it a second time settles that, because its id is the
primary key: either it is written now, or the server says that it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeVar
from urllib.parse import urlsplit

import coro
from apps.upload.rows import RowWriter
from apps.upload.store import SESSION_TIME, NameTaken, OutcomeUnknown, StoreDown, Upload, User, new_token
from coro import Coro
from coro.mysql import Error, IntegrityError, OperationalError, Pool
from coro.redis import Redis, RedisError

T = TypeVar("T")

PATIENCE = 5.0  # seconds that a store may take to answer
POOL_SIZE = 16

SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS users(
        id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
        name VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL UNIQUE,
        password VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        created_at DATETIME(6) NOT NULL
    ) ENGINE = InnoDB
    """,
    """
    CREATE TABLE IF NOT EXISTS uploads(
        id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
        user_id BIGINT NOT NULL,
        name VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        path VARCHAR(1024) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        size BIGINT NOT NULL,
        sha256 CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
        created_at DATETIME(6) NOT NULL,
        INDEX uploads_of_user (user_id, created_at)
    ) ENGINE = InnoDB
    """,
)
ADD_UPLOADS = "INSERT INTO uploads(id, user_id, name, path, size, sha256, created_at) VALUES "
UPLOAD_ROW = "(?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6))"
UPLOADS = """
    SELECT id, user_id, name, path, size, sha256, DATE_FORMAT(created_at, '%Y-%m-%dT%H:%i:%s.%fZ') FROM uploads
"""
USERS = "SELECT id, name, password FROM users "


class RedisSessions:
    """Key `session:TOKEN` holds the user's id in decimal digits, with a time to live."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url, timeout=PATIENCE, connect_timeout=PATIENCE)

    def prepare(self) -> Coro[None]:
        yield from self._ask(self._redis.ping())

    def create(self, user_id: int) -> Coro[str]:
        token = new_token()
        yield from self._ask(self._redis.set(f"session:{token}", str(user_id), ex=SESSION_TIME))
        return token

    def lookup(self, token: str) -> Coro[int | None]:
        value = yield from self._ask(self._redis.get(f"session:{token}"))
        return int(value) if value is not None and value.isdigit() else None

    def delete(self, token: str) -> Coro[None]:
        yield from self._ask(self._redis.delete(f"session:{token}"))

    def close(self) -> None:
        self._redis.close()

    def _ask(self, command: Coro[T]) -> Coro[T]:
        try:
            return (yield from command)
        except RedisError as error:
            raise StoreDown("Redis", error) from error


class MySQLMetadata:
    """Tables `users` and `uploads`."""

    def __init__(self, url: str) -> None:
        self._pool = Pool(url, size=POOL_SIZE)
        self._row_writer = RowWriter(self._insert)
        parts = urlsplit(url)
        if parts.path in ("", "/"):
            raise ValueError("bad MySQL URL: it names no database: mysql://user:password@host:port/DATABASE")
        self._identity = f"mysql://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def identity(self) -> str:
        return self._identity

    def prepare(self) -> Coro[None]:
        try:
            for statement in (*SCHEMA, UPLOADS + "LIMIT 0", USERS + "LIMIT 0"):  # other tables of these names: not ours
                yield from self._ask(self._pool.execute(statement))
        except Error as error:
            raise StoreDown("MySQL", error) from error

    def add_user(self, name: str, password: str) -> Coro[None]:
        sql = "INSERT INTO users(name, password, created_at) VALUES (?, ?, UTC_TIMESTAMP(6))"
        try:
            yield from self._ask(self._pool.execute(sql, name, password))
        except IntegrityError:
            raise NameTaken(f"there is a user {name!r} already") from None

    def find_user(self, name: str) -> Coro[User | None]:
        row = yield from self._ask(self._pool.fetch_one(USERS + "WHERE name = ?", name))
        return User(*row) if row else None

    def has_users(self) -> Coro[bool]:
        return bool((yield from self._ask(self._pool.fetch_all("SELECT 1 FROM users LIMIT 1"))))

    def add_uploads(self, uploads: Sequence[Upload]) -> Coro[None]:
        if len(uploads) == 1:
            return self._row_writer.add(uploads[0])
        return self._insert(uploads)

    def _insert(self, uploads: Sequence[Upload]) -> Coro[None]:
        sql = _insert_of(len(uploads))
        values = [value for upload in uploads for value in upload[:6]]
        try:
            with coro.timeout(PATIENCE):
                yield from self._pool.execute(sql, *values)
            return
        except TimeoutError as error:
            raise OutcomeUnknown("MySQL", self._no_answer()) from error
        except OperationalError as error:
            if not error.outcome_unknown:
                raise StoreDown("MySQL", error) from error
        try:
            with coro.timeout(PATIENCE):
                yield from self._pool.execute(sql, *values)
        except IntegrityError:
            return  # the first INSERT was carried out
        except (Error, OSError) as error:
            raise OutcomeUnknown("MySQL", error) from error

    def get_upload(self, user_id: int, upload_id: str) -> Coro[Upload | None]:
        query = self._pool.fetch_one(UPLOADS + "WHERE id = ? AND user_id = ?", upload_id, user_id)
        row = yield from self._ask(query)
        return Upload(*row) if row else None

    def has_upload(self, upload_id: str) -> Coro[bool]:
        query = self._pool.fetch_all("SELECT 1 FROM uploads WHERE id = ?", upload_id)
        return bool((yield from self._ask(query)))

    def list_uploads(self, user_id: int) -> Coro[list[Upload]]:
        sql = UPLOADS + "WHERE user_id = ? ORDER BY created_at DESC, id DESC"
        rows = yield from self._ask(self._pool.fetch_all(sql, user_id))
        return [Upload(*row) for row in rows]

    def scan_uploads(self, after: str, limit: int) -> Coro[list[Upload]]:
        sql = UPLOADS + "WHERE id > ? ORDER BY id LIMIT ?"
        rows = yield from self._ask(self._pool.fetch_all(sql, after, limit))
        return [Upload(*row) for row in rows]

    def delete_upload(self, upload_id: str) -> Coro[None]:
        yield from self._ask(self._pool.execute("DELETE FROM uploads WHERE id = ?", upload_id))

    def close(self) -> None:
        self._pool.close()

    def _ask(self, query: Coro[T]) -> Coro[T]:
        try:
            with coro.timeout(PATIENCE):
                return (yield from query)
        except TimeoutError as error:
            raise StoreDown("MySQL", self._no_answer()) from error
        except (OperationalError, OSError) as error:
            raise StoreDown("MySQL", error) from error

    def _no_answer(self) -> str:
        return f"no answer within {PATIENCE:g} s from {self._identity}"


@cache
def _insert_of(rows: int) -> str:
    return ADD_UPLOADS + ", ".join([UPLOAD_ROW] * rows)
