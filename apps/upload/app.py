"""The app as a `coro run` service: its options, what happens once at the start, what each worker does."""

from __future__ import annotations

import getpass
import os
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import coro
from apps.upload.accounts import Accounts, UnusableName, new_password
from apps.upload.handlers import UploadHandlers
from apps.upload.reconcile import reconcile
from apps.upload.resumable import Resumables
from apps.upload.server_store import MySQLMetadata, RedisSessions
from apps.upload.sqlite_store import SqliteStore
from apps.upload.storage import Storage, make_directories
from apps.upload.store import Metadata, NameTaken, NoRoom, Sessions, StoreDown
from coro import Coro
from coro.cli import CommandError, Service
from coro.http import AccessLog, Server
from coro.mysql import InterfaceError

FIRST_USER = "admin"
SWEEP_TIME = 600.0  # seconds


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--dir", type=_directory, default=Path("var"), help="where files are stored (./%(default)s)")
    parser.add_argument("--redis", metavar="URL", help="sessions in Redis, redis://... (default: SQLite in --dir)")
    parser.add_argument("--mysql", metavar="URL", help="users and uploads in MySQL, mysql://... (default: SQLite)")
    parser.add_argument("--max-size", type=_size, metavar="BYTES", help="of one upload (default: no limit)")
    parser.add_argument(
        "--expire", type=_seconds, default=86400.0, metavar="SECONDS",
        help="how long an unfinished upload can be resumed (default: a day)",
    )  # fmt: skip
    parser.add_argument(
        "--no-fsync", dest="fsync", action="store_false", help="leave it to the system when data reach the disk"
    )
    parser.add_argument(
        "--no-digest", dest="digest", action="store_false", help="do not compute the SHA-256 of uploads"
    )
    parser.add_argument(
        "--access-log", default="-", metavar="FILE", help="- for standard output (default), off for none"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    user = commands.add_parser("user", help="manage accounts").add_subparsers(required=True, metavar="ACTION")
    add = user.add_parser("add", help="add an account; the password is asked for, or read from standard input")
    add.add_argument("name", metavar="NAME")
    add.set_defaults(command=add_user)


def prepare(options: Namespace) -> Coro[None]:
    """Once, before anything is served: directories, tables, what a crash left behind, a first account."""
    with _stores(options) as (sessions, metadata), _in_one_line(options.dir), _access_log(options.access_log):
        yield from _prepare_stores(options.dir, sessions, metadata)
        yield from reconcile(options.dir, metadata, _report)
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"upload: http://{host}:{options.port}/")
        if not (yield from metadata.has_users()):
            yield from _first_user(metadata, options.mysql is None)
    sys.stdout.flush()


def serve(options: Namespace, listener: coro.Listener) -> Coro[None]:
    """What each worker does until SIGTERM."""
    with _stores(options) as (sessions, metadata):
        with _in_one_line(options.dir):
            try:
                yield from reconcile(options.dir, metadata, _report)  # of a worker that died while others went on
            except StoreDown as error:
                _report(f"what a crash left behind is looked after at the next start: {error}")
            storage = Storage(
                options.dir, metadata.identity,
                durable=options.fsync, digest=options.digest, max_size=options.max_size,
            )  # fmt: skip
            resumables = Resumables(storage, options.expire)
        with _access_log(options.access_log) as log:
            server = Server(UploadHandlers(sessions, metadata, storage, resumables).handle, access_log=log)
            with coro.open_signals(signal.SIGTERM) as signals:

                def stop_on_signal() -> Coro[None]:
                    yield from signals.wait()
                    server.stop(options.grace)

                coro.background(stop_on_signal())
                coro.background(_sweep(resumables))
                try:
                    yield from server.serve(listener)
                finally:
                    storage.close()


def _sweep(resumables: Resumables) -> Coro[None]:
    """Remove what nobody came back for, as long as the service runs."""
    while True:
        try:
            yield from resumables.sweep()
        except OSError as error:
            _report(f"cannot remove uploads that have expired: {error}")
        yield from coro.sleep(min(SWEEP_TIME, resumables.keep))


def add_user(options: Namespace) -> Coro[None]:
    """The command `user add NAME`."""
    with _stores(options) as (_, metadata), _in_one_line(options.dir):
        make_directories(options.dir)
        yield from metadata.prepare()
        password = _ask_password(options.name)
        yield from Accounts(metadata).add(options.name, password)


main = Service(
    serve=serve, prepare=prepare, add_options=add_options, prefix="UPLOAD",
    description="Takes in files over HTTP: sessions in Redis, files on disk, their table in MySQL.",
)  # fmt: skip


@contextmanager
def _in_one_line(directory: Path) -> Iterator[None]:
    """Make a `CommandError` of what the user can mend."""
    try:
        yield
    except StoreDown as error:
        raise CommandError(f"cannot use {error}") from error
    except (NoRoom, NameTaken, UnusableName) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"cannot use the directory {directory}: {error}") from error


@contextmanager
def _stores(options: Namespace) -> Iterator[tuple[Sessions, Metadata]]:
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


def _prepare_stores(root: Path, sessions: Sessions, metadata: Metadata) -> Coro[None]:
    make_directories(root)
    yield from metadata.prepare()
    yield from sessions.prepare()


def _first_user(metadata: Metadata, embedded: bool) -> Coro[None]:
    """Nobody can log in yet: make an account on the embedded default, else say how to make one."""
    if not embedded:
        print("upload: there is no account yet; add one: coro run apps.upload --mysql URL user add NAME")
        return
    password = new_password()
    yield from Accounts(metadata).add(FIRST_USER, password)
    print(f"upload: log in as {FIRST_USER} with password {password} (shown this once)")


def _ask_password(name: str) -> str:
    """From the terminal, or the first line of what is piped in. `CommandError` if there is none."""
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password for {name}: ")
        if getpass.getpass("Again: ") != password:
            raise CommandError("the two passwords are not the same")
    else:
        password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise CommandError("an account needs a password")
    return password


@contextmanager
def _access_log(target: str) -> Iterator[AccessLog | None]:
    if target == "off":
        yield None
    elif target == "-":
        yield AccessLog(_print_now)
    else:
        try:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise CommandError(f"cannot write the access log {target}: {error.strerror}") from error
        try:
            yield AccessLog(lambda lines: os.write(fd, lines.encode()))
        finally:
            os.close(fd)


def _print_now(lines: str) -> None:
    print(lines, end="", flush=True)


def _report(line: str) -> None:
    print(f"upload: {line}", file=sys.stderr, flush=True)


def _directory(text: str) -> Path:
    if not text:
        raise ArgumentTypeError("a directory needs a name; `.` is the working directory")
    return Path(text)


def _size(text: str) -> int:
    if not (text.isdecimal() and text.isascii()):
        raise ArgumentTypeError(f"{text!r} is not a number of bytes")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a time in seconds")
    return seconds
