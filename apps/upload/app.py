"""The app as a `coro run` service: its options, what happens once at the start, what each worker does."""

from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path

import coro
from apps.upload import fsck, users
from apps.upload.accounts import Accounts
from apps.upload.contents import Contents
from apps.upload.handlers import UploadHandlers
from apps.upload.logs import JSONLog, identified, log_as_json
from apps.upload.opening import in_one_line, open_stores
from apps.upload.policy import Policy
from apps.upload.reconcile import reconcile
from apps.upload.resumable import Resumables
from apps.upload.shared import Shared
from apps.upload.sniffing import AllowedTypes
from apps.upload.storage import Storage, make_directories
from apps.upload.store import Metadata, Sessions, StoreDown
from coro import Coro
from coro.cli import CommandError, Service
from coro.debug import stats
from coro.http import AccessLog, Handler, Recorder, Server

FIRST_USER = "admin"
SWEEP_TIME = 600.0  # seconds


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--dir", type=_directory, default=Path("var"), help="where files are stored (./%(default)s)")
    parser.add_argument("--redis", metavar="URL", help="sessions in Redis, redis://... (default: SQLite in --dir)")
    parser.add_argument("--mysql", metavar="URL", help="users and uploads in MySQL, mysql://... (default: SQLite)")
    parser.add_argument("--max-size", type=_size, metavar="BYTES", help="of one upload (default: no limit)")
    parser.add_argument("--quota", type=_size, metavar="BYTES", help="of each user's uploads (default: no limit)")
    parser.add_argument("--parallel", type=_size, metavar="N", help="each user's uploads at once (default: no limit)")
    parser.add_argument(
        "--allow-types", type=_types, metavar="TYPES",
        help="types of files that are taken, told by their first bytes, as in image/*,application/pdf (default: all)",
    )  # fmt: skip
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
        "--dedupe", action="store_true", help="store the same content once for each user, under several names"
    )
    parser.add_argument(
        "--resumable-draft", action="store_true", help="resumable uploads by the IETF's draft too, besides tus"
    )
    parser.add_argument(
        "--access-log", default="-", metavar="FILE", help="- for standard output (default), off for none"
    )
    parser.add_argument(
        "--proxies", type=_proxies, default=(), metavar="ADDRESSES",
        help="proxies, or networks of them, whose X-Forwarded-For, -Proto and -Host are believed; separated by commas",
    )  # fmt: skip
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text",
        help="text: the combined format; json: a line of JSON for each request and message, with request ids",
    )  # fmt: skip
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    users.add_commands(commands.add_parser("user", help="manage accounts"))
    fsck.add_options(commands.add_parser("fsck", help="compare disk and table, and mend differences"))


def prepare(options: Namespace) -> Coro[None]:
    """Once, before anything is served: directories, tables, what a crash left behind, a first account."""
    if options.dedupe and not options.digest:
        raise CommandError("--dedupe finds the same content by the digests that --no-digest leaves out")
    with open_stores(options) as (sessions, metadata), in_one_line(options.dir), _access_log(options.access_log):
        yield from _prepare_stores(options.dir, sessions, metadata)
        yield from reconcile(options.dir, metadata, _report)
        host = f"[{options.host}]" if ":" in options.host else options.host
        url = f"{'http' if options.certificate is None else 'https'}://{host}:{options.port}/"
        print(f"upload: {url}")
        if not (yield from metadata.has_users()):
            yield from _first_user(Accounts(sessions, metadata, options.dir), url)
    sys.stdout.flush()


def serve(options: Namespace, listener: coro.Listener) -> Coro[None]:
    """What each worker does until SIGTERM."""
    with open_stores(options) as (sessions, metadata):
        with in_one_line(options.dir):
            try:
                yield from reconcile(options.dir, metadata, _report)  # of a worker that died while others went on
            except StoreDown as error:
                _report(f"what a crash left behind is looked after at the next start: {error}")
            storage = Storage(
                options.dir, metadata.identity,
                durable=options.fsync, digest=options.digest, max_size=options.max_size,
            )  # fmt: skip
            contents = Contents(options.dir, sharing=options.dedupe)
            resumables = Resumables(storage, options.expire)
            shared = Shared(str(options.dir))
            policy = Policy(
                metadata, shared, max_size=options.max_size, quota=options.quota, parallel=options.parallel
            )
        with _access_log(options.access_log) as write:
            handlers = UploadHandlers(
                sessions, metadata, storage, contents, resumables, policy, options.allow_types,
                draft=options.resumable_draft,
            )  # fmt: skip
            server = _server(options, handlers, write)
            with coro.open_signals(signal.SIGTERM) as signals:

                def stop_on_signal() -> Coro[None]:
                    yield from signals.wait()
                    server.stop(options.grace)

                coro.background(stop_on_signal())
                coro.background(_sweep(resumables, contents))
                try:
                    yield from server.serve(listener)
                finally:
                    shared.close()
                    storage.close()


def _server(options: Namespace, handlers: UploadHandlers, write: Callable[[str], object] | None) -> Server:
    """With its recorders; `write` takes the lines of the access log."""
    handle: Handler = handlers.handle
    make_log = AccessLog
    if options.log_format == "json":
        log_as_json()
        handle, make_log = identified(handle), JSONLog
    log = None if write is None else make_log(write)
    recorders: list[Recorder] = [handlers.metrics]
    if measuring := stats():
        recorders.append(measuring)
    return Server(handle, access_log=log, recorders=recorders, proxies=options.proxies)


def _sweep(resumables: Resumables, contents: Contents) -> Coro[None]:
    """Remove what nobody came back for, as long as the service runs."""
    while True:
        try:
            yield from resumables.sweep()
            yield from contents.sweep()
        except OSError as error:
            _report(f"cannot remove uploads that have expired: {error}")
        yield from coro.sleep(min(SWEEP_TIME, resumables.keep))


main = Service(
    serve=serve, prepare=prepare, add_options=add_options, prefix="UPLOAD",
    description="Takes in files over HTTP: sessions in Redis, files on disk, their table in MySQL.",
)  # fmt: skip


def _prepare_stores(root: Path, sessions: Sessions, metadata: Metadata) -> Coro[None]:
    make_directories(root)
    yield from metadata.prepare()
    yield from sessions.prepare()


def _first_user(accounts: Accounts, url: str) -> Coro[None]:
    """Nobody can log in yet: make an account, and a link that lets whoever starts the app have it."""
    yield from accounts.add(FIRST_USER, None)
    token = yield from accounts.invite(FIRST_USER)
    print(f"upload: to choose a password for {FIRST_USER}, open {url}#invitation={token} (works once, for a day)")


@contextmanager
def _access_log(target: str) -> Iterator[Callable[[str], object] | None]:
    """What writes to it."""
    if target == "off":
        yield None
    elif target == "-":
        yield _print_now
    else:
        try:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise CommandError(f"cannot write the access log {target}: {error.strerror}") from error
        try:
            yield lambda lines: os.write(fd, lines.encode())
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
        raise ArgumentTypeError(f"{text!r} is not a number")
    return int(text)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _types(text: str) -> AllowedTypes:
    try:
        return AllowedTypes(_words(text))
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def _proxies(text: str) -> list[str]:
    addresses = _words(text)
    try:
        for address in addresses:
            ip_network(address)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return addresses


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a time in seconds")
    return seconds
