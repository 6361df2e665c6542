"""Real Redis and MariaDB for one benchmark, and a directory for the files that are uploaded.

The disk is taken out, as it would drown what is compared: everything lies in /dev/shm where that has room,
and MariaDB commits to the operating system without waiting for the disk. All three are on the load
generator's core.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

from benchmarks.processes import LOAD_CORE, Failed, pinned, progress
from tests.services import FailedServer, MariaDBServer, MissingServer, RedisServer, scratch

DATABASE = "bench"
SESSIONS = 500
MARIADB_OPTIONS = (
    "--skip-ssl",  # or those clients that prefer TLS would pay for it, and the others not
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-buffer-pool-size=256M",
    "--max-connections=3000",
)
# What the upload app makes for itself; the peers' rows have nothing in the last two columns.
TABLE = f"""
CREATE TABLE {DATABASE}.uploads (
  id CHAR(36) CHARACTER SET ascii NOT NULL PRIMARY KEY,
  user_id BIGINT NOT NULL,
  name VARCHAR(255) NOT NULL,
  path VARCHAR(255) NOT NULL,
  size BIGINT NOT NULL,
  sha256 CHAR(64) CHARACTER SET ascii,
  created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE=InnoDB"""


def _token(user: int) -> str:
    return hashlib.sha256(b"session of user %d" % user).hexdigest()[:32]


class Stores:
    """The running servers, and the sessions of users 1, 2, 3, ... in Redis."""

    def __init__(self, redis_server: RedisServer, mariadb: MariaDBServer) -> None:
        self._redis = redis_server
        self._mariadb = mariadb
        self.tokens = {user: _token(user) for user in range(1, SESSIONS + 1)}
        self.scratch = scratch().directory("bench")
        self.tokens_file = self.scratch / "tokens"
        self.tokens_file.write_text("".join(token + "\n" for token in self.tokens.values()))
        with redis.Redis(unix_socket_path=redis_server.socket) as client, client.pipeline() as pipeline:
            for user, token in self.tokens.items():
                pipeline.set(f"session:{token}", user)
            pipeline.execute()

    @property
    def redis_port(self) -> int:
        return self._redis.port

    @property
    def mysql_port(self) -> int:
        return self._mariadb.port

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self._redis.port}/0"

    @property
    def mysql_url(self) -> str:
        return f"mysql://root@127.0.0.1:{self._mariadb.port}/{DATABASE}"

    @property
    def mysql_pid(self) -> int:
        return self._mariadb.pid

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        return self._mariadb.sql(statement)

    @contextmanager
    def emptied(self, with_table: bool) -> Iterator[Path]:
        """A new database, with or without the table, and a new directory for files, gone after the block."""
        self.sql(f"DROP DATABASE IF EXISTS {DATABASE}")
        self.sql(f"CREATE DATABASE {DATABASE}")
        if with_table:
            self.sql(TABLE)
        directory = self.scratch / "files"
        directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(directory)


@contextmanager
def running() -> Iterator[Stores]:
    """The servers, for the block. `Failed` when they are not installed or do not start."""
    progress("starting Redis and MariaDB")
    with ExitStack() as stack:
        try:
            with pinned(LOAD_CORE):
                redis_server = stack.enter_context(RedisServer())
                mariadb = stack.enter_context(MariaDBServer(*MARIADB_OPTIONS))
        except (MissingServer, FailedServer) as error:
            raise Failed(str(error)) from None
        yield Stores(redis_server, mariadb)
