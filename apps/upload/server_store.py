"""Sessions in Redis; users and uploads in MySQL or MariaDB.

Both clients reconnect by themselves, so a server that was away is used again as soon as it answers; while it is away
every call fails at once, or after `PATIENCE` when it hangs.

A row whose INSERT got no answer may be there or not. Writing it a second time settles that, because its id is the
primary key: either it is written now, or the server says that it is there. The INSERT of a process that has crashed may
even arrive later than we look for its row. So before the file is removed, the id gets a row of `NOBODY`, at which that
INSERT fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeVar
from urllib.parse import urlsplit

import coro
from apps.upload.rows import RowWriter
from apps.upload.store import (
    INVITATION_TIME,
    SESSION_TIME,
    Account,
    APIToken,
    NameTaken,
    OutcomeUnknown,
    StoreDown,
    Upload,
    User,
    new_token,
)
from coro import Coro
from coro.mysql import Connection, Error, IntegrityError, OperationalError, Pool
from coro.redis import Redis, RedisError

T = TypeVar("T")

PATIENCE = 5.0  # seconds that a store may take to answer
POOL_SIZE = 16
NOBODY = 0  # has the rows of uploads that are not to be made any more; ids of users begin with 1
BARRED_TIME = 24 * 3600  # seconds for which such a row is kept

# What brings a database of each version to the next one. A step that broke off is done again: it must not mind.
MIGRATIONS = (
    (
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
    ),
    (
        """
        CREATE TABLE IF NOT EXISTS tokens(
            id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
            user_id BIGINT NOT NULL,
            name VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
            digest CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE,
            created_at DATETIME(6) NOT NULL,
            INDEX tokens_of_user (user_id)
        ) ENGINE = InnoDB
        """,
        """
        CREATE TABLE IF NOT EXISTS invitations(
            digest CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
            user_id BIGINT NOT NULL,
            expires DATETIME NOT NULL
        ) ENGINE = InnoDB
        """,
    ),
)
MIGRATION_LOCK = "LEFT(CONCAT('upload.', DATABASE()), 64)"  # names of locks are the whole server's
VERSION_TABLE = "CREATE TABLE IF NOT EXISTS upload_schema(version INT NOT NULL PRIMARY KEY) ENGINE = InnoDB"
ADD_UPLOADS = "INSERT INTO uploads(id, user_id, name, path, size, sha256, created_at) VALUES "
UPLOAD_ROW = "(?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6))"
CREATED_AT = "DATE_FORMAT({}created_at, '%Y-%m-%dT%H:%i:%s.%fZ')"
UPLOADS = f"SELECT id, user_id, name, path, size, sha256, {CREATED_AT.format('')} FROM uploads "
ACCOUNTS = f"""
    SELECT users.name, {CREATED_AT.format('users.')}, COUNT(uploads.id), CAST(COALESCE(SUM(size), 0) AS SIGNED)
    FROM users LEFT JOIN uploads ON user_id = users.id GROUP BY users.id ORDER BY users.name
"""
INVITED = "SELECT user_id FROM invitations WHERE digest = ? AND expires > UTC_TIMESTAMP() "
BAR_UPLOAD = f"""
    INSERT INTO uploads(id, user_id, name, path, size, created_at) VALUES (?, {NOBODY}, '', ?, 0, UTC_TIMESTAMP(6))
    ON DUPLICATE KEY UPDATE path = IF(user_id = {NOBODY}, VALUES(path), path)
"""
REPLACE_BARRED = f"""
    UPDATE uploads SET user_id = ?, name = ?, path = ?, size = ?, sha256 = ?, created_at = UTC_TIMESTAMP(6)
    WHERE id = ? AND user_id = {NOBODY} AND path <> ?
"""
FORGET_BARRED = f"""
    DELETE FROM uploads WHERE user_id = {NOBODY} AND created_at < UTC_TIMESTAMP() - INTERVAL {BARRED_TIME} SECOND
"""
USERS = "SELECT id, name, password FROM users "


class RedisSessions:
    """Key `session:TOKEN` holds the user's id in decimal digits, with a time to live.

    `sessions:USER` is the set of a user's tokens, as far as they were made here: to end them all.
    """

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url, timeout=PATIENCE, connect_timeout=PATIENCE)

    def prepare(self) -> Coro[None]:
        yield from self._ask(self._redis.ping())

    def create(self, user_id: int) -> Coro[str]:
        token = new_token()
        pipeline = self._redis.pipeline()
        pipeline.sadd(f"sessions:{user_id}", token)  # first: no session that `delete_all` would not find
        pipeline.expire(f"sessions:{user_id}", SESSION_TIME)
        pipeline.set(f"session:{token}", str(user_id), ex=SESSION_TIME)
        yield from self._ask(pipeline.execute())
        return token

    def lookup(self, token: str) -> Coro[int | None]:
        try:  # as `_ask`, without a frame of its own: each request comes here
            value = yield from self._redis.get(f"session:{token}")
        except RedisError as error:
            raise StoreDown("Redis", error) from error
        return int(value) if value is not None and value.isdigit() else None

    def delete(self, token: str) -> Coro[None]:
        user_id = yield from self._ask(self._redis.getdel(f"session:{token}"))
        if user_id is not None:
            yield from self._ask(self._redis.srem(f"sessions:{user_id.decode()}", token))

    def delete_all(self, user_id: int) -> Coro[None]:
        tokens = yield from self._ask(self._redis.smembers(f"sessions:{user_id}"))
        keys = [f"session:{token.decode()}" for token in tokens]
        yield from self._ask(self._redis.delete(f"sessions:{user_id}", *keys))

    def close(self) -> None:
        self._redis.close()

    def _ask(self, command: Coro[T]) -> Coro[T]:
        try:
            return (yield from command)
        except RedisError as error:
            raise StoreDown("Redis", error) from error


def _migrate(connection: Connection) -> Coro[None]:
    """Bring the tables up to date, one process at a time."""
    if not (yield from connection.fetch_value(f"SELECT GET_LOCK({MIGRATION_LOCK}, ?)", PATIENCE / 2)):
        raise StoreDown("MySQL", "another process has been changing its tables for a while; try again")
    try:
        yield from connection.execute(VERSION_TABLE)
        version = yield from connection.fetch_value("SELECT COALESCE(MAX(version), 0) FROM upload_schema")
        if version > len(MIGRATIONS):
            raise StoreDown("MySQL", "its tables are of a newer version of this program")
        for number, statements in enumerate(MIGRATIONS[version:], version + 1):
            for statement in statements:
                yield from connection.execute(statement)
            yield from connection.execute("INSERT INTO upload_schema VALUES (?)", number)
    finally:
        yield from connection.fetch_value(f"SELECT RELEASE_LOCK({MIGRATION_LOCK})")


class MySQLMetadata:
    """Tables `users`, `uploads`, `tokens`, `invitations`, and `upload_schema`, which tells their version."""

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
            yield from self._ask(self._pool.transaction(_migrate))
            # The first two fail where tables of these names are others than ours.
            for statement in UPLOADS + "LIMIT 0", USERS + "LIMIT 0", FORGET_BARRED:
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

    def get_user(self, user_id: int) -> Coro[User | None]:
        row = yield from self._ask(self._pool.fetch_one(USERS + "WHERE id = ?", user_id))
        return User(*row) if row else None

    def has_users(self) -> Coro[bool]:
        return bool((yield from self._ask(self._pool.fetch_all("SELECT 1 FROM users LIMIT 1"))))

    def list_accounts(self) -> Coro[list[Account]]:
        rows = yield from self._ask(self._pool.fetch_all(ACCOUNTS))
        return [Account(*row) for row in rows]

    def set_password(self, user_id: int, password: str) -> Coro[None]:
        yield from self._ask(self._pool.execute("UPDATE users SET password = ? WHERE id = ?", password, user_id))

    def delete_user(self, user_id: int) -> Coro[None]:
        def delete(connection: Connection) -> Coro[None]:
            yield from connection.execute("DELETE FROM tokens WHERE user_id = ?", user_id)
            yield from connection.execute("DELETE FROM invitations WHERE user_id = ?", user_id)
            yield from connection.execute("DELETE FROM users WHERE id = ?", user_id)

        yield from self._ask(self._pool.transaction(delete))

    def add_invitation(self, user_id: int, digest: str) -> Coro[None]:
        sql = "INSERT INTO invitations VALUES (?, ?, UTC_TIMESTAMP() + INTERVAL ? SECOND)"
        yield from self._ask(self._pool.execute(sql, digest, user_id, INVITATION_TIME))

    def has_invitation(self, digest: str) -> Coro[bool]:
        return bool((yield from self._ask(self._pool.fetch_all(INVITED, digest))))

    def accept_invitation(self, digest: str, password: str) -> Coro[int | None]:
        def accept(connection: Connection) -> Coro[int | None]:
            row = yield from connection.fetch_one(INVITED + "FOR UPDATE", digest)
            yield from connection.execute("DELETE FROM invitations WHERE digest = ?", digest)
            if row is None:
                return None
            yield from connection.execute("UPDATE users SET password = ? WHERE id = ?", password, row[0])
            return row[0]  # type: ignore[no-any-return]

        return (yield from self._ask(self._pool.transaction(accept)))

    def add_token(self, user_id: int, name: str, digest: str) -> Coro[None]:
        sql = "INSERT INTO tokens(user_id, name, digest, created_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))"
        yield from self._ask(self._pool.execute(sql, user_id, name, digest))

    def find_token(self, digest: str) -> Coro[int | None]:
        row = yield from self._ask(self._pool.fetch_one("SELECT user_id FROM tokens WHERE digest = ?", digest))
        return row[0] if row else None

    def list_tokens(self, user_id: int) -> Coro[list[APIToken]]:
        sql = f"SELECT id, name, {CREATED_AT.format('')} FROM tokens WHERE user_id = ? ORDER BY id"
        rows = yield from self._ask(self._pool.fetch_all(sql, user_id))
        return [APIToken(*row) for row in rows]

    def delete_token(self, user_id: int, token_id: int) -> Coro[None]:
        sql = "DELETE FROM tokens WHERE user_id = ? AND id = ?"
        yield from self._ask(self._pool.execute(sql, user_id, token_id))

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
        except IntegrityError:
            pass
        try:
            with coro.timeout(PATIENCE):
                try:
                    yield from self._pool.execute(sql, *values)
                except IntegrityError:  # the first was carried out; or one of them is barred, or was written before
                    for upload in uploads:
                        yield from self._insert_again(upload)
        except (Error, OSError) as error:
            raise OutcomeUnknown("MySQL", error) from error

    def _insert_again(self, upload: Upload) -> Coro[None]:
        """Write a row that may be there already, or barred."""
        id, user_id, name, path, size, sha256, _ = upload
        try:
            yield from self._pool.execute(_insert_of(1), *upload[:6])
        except IntegrityError:
            yield from self._pool.execute(REPLACE_BARRED, user_id, name, path, size, sha256, id, path)
            if (yield from self.find_upload(id)) is None:
                raise

    def get_upload(self, user_id: int, upload_id: str) -> Coro[Upload | None]:
        query = self._pool.fetch_one(UPLOADS + "WHERE id = ? AND user_id = ?", upload_id, user_id)
        row = yield from self._ask(query)
        return Upload(*row) if row else None

    def find_upload(self, upload_id: str) -> Coro[Upload | None]:
        query = self._pool.fetch_one(UPLOADS + "WHERE id = ? AND user_id <> ?", upload_id, NOBODY)
        row = yield from self._ask(query)
        return Upload(*row) if row else None

    def bar_upload(self, upload_id: str, path: str) -> Coro[Upload | None]:
        yield from self._ask(self._pool.execute(BAR_UPLOAD, upload_id, path))
        return (yield from self.find_upload(upload_id))

    def list_uploads(self, user_id: int) -> Coro[list[Upload]]:
        sql = UPLOADS + "WHERE user_id = ? ORDER BY created_at DESC, id DESC"
        rows = yield from self._ask(self._pool.fetch_all(sql, user_id))
        return [Upload(*row) for row in rows]

    def usage(self, user_id: int) -> Coro[int]:
        sql = "SELECT COALESCE(SUM(size), 0) FROM uploads WHERE user_id = ?"
        return int((yield from self._ask(self._pool.fetch_value(sql, user_id))))

    def scan_uploads(self, after: str, limit: int) -> Coro[list[Upload]]:
        sql = UPLOADS + "WHERE id > ? AND user_id <> ? ORDER BY id LIMIT ?"
        rows = yield from self._ask(self._pool.fetch_all(sql, after, NOBODY, limit))
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
