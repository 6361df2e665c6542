"""Sessions, users and uploads in one SQLite file, for a machine without Redis and MySQL.

SQLite blocks, so every statement runs in a thread. In WAL mode readers and the writer do not wait for each other:
writes take turns on one connection, reads have a few of their own. Several processes may use the file at once.

https://www.sqlite.org/wal.html
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import coro
from apps.upload.rows import RowWriter
from apps.upload.store import (
    INVITATION_TIME,
    SESSION_TIME,
    Account,
    APIToken,
    NameTaken,
    NoRoom,
    StoreDown,
    Upload,
    User,
    new_token,
)
from coro import Coro, CoroError

Rows = list[tuple[Any, ...]]

READERS = 4  # reads that may be under way at once
BUSY_TIME = 5.0  # seconds to wait for a write of another process

# What brings a file of each version to the next one; the file counts its version itself (PRAGMA user_version).
MIGRATIONS = (
    """
    CREATE TABLE IF NOT EXISTS users(
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, password TEXT NOT NULL,
        created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
    CREATE TABLE IF NOT EXISTS uploads(
        id TEXT PRIMARY KEY, user_id INTEGER NOT NULL, name TEXT NOT NULL, path TEXT NOT NULL, size INTEGER NOT NULL,
        sha256 TEXT, created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS uploads_of_user ON uploads(user_id, created_at);
    CREATE TABLE IF NOT EXISTS sessions(
        token TEXT PRIMARY KEY, user_id INTEGER NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE invitations(digest TEXT PRIMARY KEY, user_id INTEGER NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE tokens(
        id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL UNIQUE,
        created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
    """,
)
ADD_UPLOAD = "INSERT INTO uploads(id, user_id, name, path, size, sha256) VALUES (?, ?, ?, ?, ?, ?)"
UPLOADS = "SELECT id, user_id, name, path, size, sha256, created_at FROM uploads "


class SqliteStore:
    """Both `Sessions` and `Metadata`. Opened when it is first used; each process needs one of its own."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        """Without `durable`, a committed row may be lost when the operating system crashes (not when the app does)."""
        self._path = path
        self._durable = durable
        self._row_writer = RowWriter(self._insert)
        self._write_lock = coro.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader_permits = coro.Semaphore(READERS)
        self._readers: list[sqlite3.Connection] = []  # those that are idle

    @property
    def identity(self) -> str:
        return "sqlite"  # the file lies beside the uploads: wherever they are, it is the one that belongs to them

    def prepare(self) -> Coro[None]:
        def migrate(writer: sqlite3.Connection) -> None:
            writer.execute("PRAGMA journal_mode = WAL")
            writer.execute("BEGIN IMMEDIATE")  # other processes may have the same in mind
            version = writer.execute("PRAGMA user_version").fetchone()[0]
            if version > len(MIGRATIONS):
                raise StoreDown("SQLite", f"{self._path} is of a newer version of this program")
            for script in MIGRATIONS[version:]:
                for statement in script.split(";"):
                    writer.execute(statement)
            writer.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

        yield from self._write(migrate)

    # --- Sessions ---------------------------------------------------------------

    def create(self, user_id: int) -> Coro[str]:
        token = new_token()
        now = time.time()

        def insert(writer: sqlite3.Connection) -> None:
            writer.execute("DELETE FROM sessions WHERE expires < ?", (now,))
            writer.execute("INSERT INTO sessions VALUES (?, ?, ?)", (token, user_id, now + SESSION_TIME))

        yield from self._write(insert)
        return token

    def lookup(self, token: str) -> Coro[int | None]:
        rows = yield from self._read(
            "SELECT user_id FROM sessions WHERE token = ? AND expires > ?", token, time.time()
        )
        return rows[0][0] if rows else None

    def delete(self, token: str) -> Coro[None]:
        yield from self._write(lambda writer: writer.execute("DELETE FROM sessions WHERE token = ?", (token,)))

    def delete_all(self, user_id: int) -> Coro[None]:
        yield from self._write(lambda writer: writer.execute("DELETE FROM sessions WHERE user_id = ?", (user_id,)))

    # --- Users -------------------------------------------------------------------

    def add_user(self, name: str, password: str) -> Coro[None]:
        def insert(writer: sqlite3.Connection) -> None:
            try:
                writer.execute("INSERT INTO users(name, password) VALUES (?, ?)", (name, password))
            except sqlite3.IntegrityError:
                raise NameTaken(f"there is a user {name!r} already") from None

        yield from self._write(insert)

    def find_user(self, name: str) -> Coro[User | None]:
        rows = yield from self._read("SELECT id, name, password FROM users WHERE name = ?", name)
        return User(*rows[0]) if rows else None

    def get_user(self, user_id: int) -> Coro[User | None]:
        rows = yield from self._read("SELECT id, name, password FROM users WHERE id = ?", user_id)
        return User(*rows[0]) if rows else None

    def has_users(self) -> Coro[bool]:
        return bool((yield from self._read("SELECT 1 FROM users LIMIT 1")))

    def list_accounts(self) -> Coro[list[Account]]:
        rows = yield from self._read(
            "SELECT users.name, users.created_at, COUNT(uploads.id), COALESCE(SUM(size), 0)"
            " FROM users LEFT JOIN uploads ON user_id = users.id GROUP BY users.id ORDER BY users.name"
        )
        return [Account(*row) for row in rows]

    def set_password(self, user_id: int, password: str) -> Coro[None]:
        sql = "UPDATE users SET password = ? WHERE id = ?"
        yield from self._write(lambda writer: writer.execute(sql, (password, user_id)))

    def delete_user(self, user_id: int) -> Coro[None]:
        def delete(writer: sqlite3.Connection) -> None:
            writer.execute("DELETE FROM tokens WHERE user_id = ?", (user_id,))
            writer.execute("DELETE FROM invitations WHERE user_id = ?", (user_id,))
            writer.execute("DELETE FROM users WHERE id = ?", (user_id,))

        yield from self._write(delete)

    def add_invitation(self, user_id: int, digest: str) -> Coro[None]:
        row = (digest, user_id, time.time() + INVITATION_TIME)
        yield from self._write(lambda writer: writer.execute("INSERT INTO invitations VALUES (?, ?, ?)", row))

    def has_invitation(self, digest: str) -> Coro[bool]:
        sql = "SELECT 1 FROM invitations WHERE digest = ? AND expires > ?"
        return bool((yield from self._read(sql, digest, time.time())))

    def accept_invitation(self, digest: str, password: str) -> Coro[int | None]:
        rows: Rows = []

        def accept(writer: sqlite3.Connection) -> None:
            writer.execute("BEGIN IMMEDIATE")  # nobody else may read it before it is gone
            writer.execute("DELETE FROM invitations WHERE expires <= ?", (time.time(),))
            rows.extend(writer.execute("SELECT user_id FROM invitations WHERE digest = ?", (digest,)))
            writer.execute("DELETE FROM invitations WHERE digest = ?", (digest,))
            writer.executemany("UPDATE users SET password = ? WHERE id = ?", [(password, *row) for row in rows])

        yield from self._write(accept)
        return rows[0][0] if rows else None

    def add_token(self, user_id: int, name: str, digest: str) -> Coro[None]:
        sql = "INSERT INTO tokens(user_id, name, digest) VALUES (?, ?, ?)"
        yield from self._write(lambda writer: writer.execute(sql, (user_id, name, digest)))

    def find_token(self, digest: str) -> Coro[int | None]:
        rows = yield from self._read("SELECT user_id FROM tokens WHERE digest = ?", digest)
        return rows[0][0] if rows else None

    def list_tokens(self, user_id: int) -> Coro[list[APIToken]]:
        rows = yield from self._read("SELECT id, name, created_at FROM tokens WHERE user_id = ? ORDER BY id", user_id)
        return [APIToken(*row) for row in rows]

    def delete_token(self, user_id: int, token_id: int) -> Coro[None]:
        sql = "DELETE FROM tokens WHERE user_id = ? AND id = ?"
        yield from self._write(lambda writer: writer.execute(sql, (user_id, token_id)))

    # --- Uploads ------------------------------------------------------------------

    def add_uploads(self, uploads: Sequence[Upload]) -> Coro[None]:
        if len(uploads) == 1:
            return self._row_writer.add(uploads[0])
        return self._insert(uploads)

    def _insert(self, uploads: Sequence[Upload]) -> Coro[None]:
        rows = [upload[:6] for upload in uploads]
        yield from self._write(lambda writer: writer.executemany(ADD_UPLOAD, rows))

    def get_upload(self, user_id: int, upload_id: str) -> Coro[Upload | None]:
        rows = yield from self._read(UPLOADS + "WHERE id = ? AND user_id = ?", upload_id, user_id)
        return Upload(*rows[0]) if rows else None

    def find_upload(self, upload_id: str) -> Coro[Upload | None]:
        rows = yield from self._read(UPLOADS + "WHERE id = ?", upload_id)
        return Upload(*rows[0]) if rows else None

    def bar_upload(self, upload_id: str, path: str) -> Coro[Upload | None]:
        return self.find_upload(upload_id)  # what a process has not committed ends with it

    def list_uploads(self, user_id: int) -> Coro[list[Upload]]:
        rows = yield from self._read(UPLOADS + "WHERE user_id = ? ORDER BY created_at DESC, id DESC", user_id)
        return [Upload(*row) for row in rows]

    def usage(self, user_id: int) -> Coro[int]:
        rows = yield from self._read("SELECT COALESCE(SUM(size), 0) FROM uploads WHERE user_id = ?", user_id)
        return int(rows[0][0])

    def scan_uploads(self, after: str, limit: int) -> Coro[list[Upload]]:
        rows = yield from self._read(UPLOADS + "WHERE id > ? ORDER BY id LIMIT ?", after, limit)
        return [Upload(*row) for row in rows]

    def delete_upload(self, upload_id: str) -> Coro[None]:
        yield from self._write(lambda writer: writer.execute("DELETE FROM uploads WHERE id = ?", (upload_id,)))

    # --- Connections -----------------------------------------------------------------

    def close(self) -> None:
        for connection in (*self._readers, self._writer):
            if connection is not None:
                connection.close()
        self._readers.clear()
        self._writer = None

    def _read(self, sql: str, *parameters: object) -> Coro[Rows]:
        """The rows of a SELECT."""
        with (yield from self._reader_permits.acquire()):
            reader = self._readers.pop() if self._readers else None

            def run() -> tuple[sqlite3.Connection, Rows]:
                connection = reader or self._connect()
                try:
                    return connection, connection.execute(sql, parameters).fetchall()
                except sqlite3.Error as error:
                    connection.close()
                    raise self._failure(error) from error

            reader, rows = yield from coro.on_disk(run)
            self._readers.append(reader)
            return rows

    def _write(self, work: Callable[[sqlite3.Connection], object]) -> Coro[None]:
        """Do `work` in a transaction."""

        def run() -> None:
            if self._writer is None:
                self._writer = self._connect()
            try:
                with self._writer:  # commits, or rolls back when `work` raises
                    work(self._writer)
            except sqlite3.Error as error:
                self._writer.close()
                self._writer = None
                raise self._failure(error) from error

        with (yield from self._write_lock.acquire()):
            yield from coro.on_disk(run)

    def _connect(self) -> sqlite3.Connection:
        # Used by many threads, but by one at a time.
        with ExitStack() as stack:
            try:
                connection = sqlite3.connect(self._path, timeout=BUSY_TIME, check_same_thread=False)
                stack.callback(connection.close)
                connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
            except sqlite3.Error as error:
                raise self._failure(error) from error
            stack.pop_all()
            return connection

    def _failure(self, error: sqlite3.Error) -> CoroError:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            return NoRoom(f"no room left to write {self._path}")
        return StoreDown("SQLite", f"{self._path}: {error}")
