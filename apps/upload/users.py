"""`coro run apps.upload user add|list|password|remove`: accounts, from the command line."""

from __future__ import annotations

import getpass
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

import coro
from apps.upload.accounts import Accounts
from apps.upload.opening import in_one_line, open_stores
from apps.upload.storage import make_directories
from apps.upload.store import Metadata, Sessions, User
from coro import Coro
from coro.cli import CommandError

Command = Callable[[Namespace, Sessions, Metadata], Coro[None]]


def add_commands(parser: ArgumentParser) -> None:
    user = parser.add_subparsers(required=True, metavar="ACTION")
    asks = "the password is asked for, or read from standard input"

    def command(name: str, run: Command, text: str, *, named: bool = True) -> ArgumentParser:
        action = user.add_parser(name, help=text)
        if named:
            action.add_argument("name", metavar="NAME")
        action.set_defaults(command=lambda options: _on_stores(options, run))
        return action

    command("add", _add, f"add an account; {asks}")
    command("list", _list, "list the accounts, with what they have stored", named=False)
    command("password", _password, f"change a password, and end its user's sessions; {asks}")
    remove = command("remove", _remove, "remove an account and end its user's sessions")
    remove.add_argument("--with-uploads", action="store_true", help="remove the user's uploads as well")


def _on_stores(options: Namespace, run: Command) -> Coro[None]:
    with open_stores(options) as (sessions, metadata), in_one_line(options.dir):
        make_directories(options.dir)
        yield from metadata.prepare()
        yield from sessions.prepare()
        yield from run(options, sessions, metadata)


def _add(options: Namespace, sessions: Sessions, metadata: Metadata) -> Coro[None]:
    yield from Accounts(sessions, metadata, options.dir).add(options.name, _ask_password(options.name))


def _list(options: Namespace, sessions: Sessions, metadata: Metadata) -> Coro[None]:
    accounts = yield from metadata.list_accounts()
    width = max((len(account.name) for account in accounts), default=0)
    for account in accounts:
        stored = f"{account.uploads:>8} uploads {account.size:>16,} bytes"
        print(f"{account.name:{width}}  since {account.created_at[:10]} {stored}")


def _password(options: Namespace, sessions: Sessions, metadata: Metadata) -> Coro[None]:
    user = yield from _existing(options.name, metadata)
    yield from Accounts(sessions, metadata, options.dir).set_password(user.id, _ask_password(options.name))


def _remove(options: Namespace, sessions: Sessions, metadata: Metadata) -> Coro[None]:
    user = yield from _existing(options.name, metadata)
    uploads = yield from metadata.list_uploads(user.id)
    if uploads and not options.with_uploads:
        count, they = ("1 upload", "it") if len(uploads) == 1 else (f"{len(uploads)} uploads", "them")
        raise CommandError(f"{options.name} has {count}: --with-uploads removes {they} too")
    yield from metadata.delete_user(user.id)
    yield from sessions.delete_all(user.id)
    for upload in (yield from metadata.list_uploads(user.id)):
        yield from metadata.delete_upload(upload.id)  # first the row: no row without its file
        yield from coro.on_disk((options.dir / upload.path).unlink, missing_ok=True)


def _existing(name: str, metadata: Metadata) -> Coro[User]:
    user = yield from metadata.find_user(name)
    if user is None:
        raise CommandError(f"there is no user {name!r}")
    return user


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
