"""The stores that the options name, and what users are told when they cannot be used."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apps.upload.accounts import UnusableName, UnusablePassword
from apps.upload.server_store import MySQLMetadata, RedisSessions
from apps.upload.sqlite_store import SqliteStore
from apps.upload.store import Metadata, NameTaken, NoRoom, Sessions, StoreDown
from coro.cli import CommandError
from coro.mysql import InterfaceError


@contextmanager
def in_one_line(directory: Path) -> Iterator[None]:
    """Make a `CommandError` of what the user can mend."""
    try:
        yield
    except StoreDown as error:
        raise CommandError(f"cannot use {error}") from error
    except (NoRoom, NameTaken, UnusableName, UnusablePassword) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"cannot use the directory {directory}: {error}") from error


@contextmanager
def open_stores(options: Namespace) -> Iterator[tuple[Sessions, Metadata]]:
    """The stores that the options name. Nothing is connected or opened yet."""
    embedded = SqliteStore(options.dir / "upload.sqlite3", durable=options.fsync)
    try:
        sessions: Sessions = RedisSessions(options.redis) if options.redis is not None else embedded
        metadata: Metadata = MySQLMetadata(options.mysql) if options.mysql is not None else embedded
    except (ValueError, InterfaceError) as error:
        raise CommandError(str(error)) from error
    try:
        yield sessions, metadata
    finally:
        sessions.close()
        metadata.close()
        embedded.close()
