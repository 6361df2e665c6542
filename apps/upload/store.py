"""What the app keeps besides the files themselves: sessions, users, and a row for each upload.

Two small protocols, each with two back ends that pass the same tests: SQLite for a bare machine, Redis and MySQL for
a real one. A row of `uploads` is the one proof that a file is whole and was accepted: it is written last, and its id
is chosen by the app, so that writing it twice cannot make two.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from coro import Coro, CoroError

SESSION_TIME = 7 * 24 * 3600  # seconds that a login lasts
INVITATION_TIME = 24 * 3600  # seconds in which an invitation can be used
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors that tell of a full disk
MAX_TOKEN_LENGTH = 128  # of a session cookie; a longer one is none of ours


class StoreDown(CoroError):
    """A store does not do what was asked, and has not done it; it may later. `server` is its name for clients."""

    def __init__(self, server: str, reason: object) -> None:
        super().__init__(f"{server}: {reason}")
        self.server = server
        self.reason = reason


class OutcomeUnknown(StoreDown):
    """The connection was lost before the answer came: what was asked may have been done."""


class NoRoom(CoroError):
    """There is no room left for what was to be written; nothing of it is kept."""


class NameTaken(CoroError):
    """There is a user of that name already."""


class Upload(NamedTuple):
    """A row of `uploads`."""

    id: str
    user_id: int
    name: str  # as the client gave it
    path: str  # of the file, relative to the app's directory or absolute
    size: int  # bytes
    sha256: str | None  # in hexadecimal digits
    created_at: str = ""  # UTC, ISO 8601; the store sets it when the row is written


class User(NamedTuple):
    """A row of `users`."""

    id: int
    name: str
    password: str  # its hash, see accounts.py


class Account(NamedTuple):
    """A user, and what is stored for that user."""

    name: str
    created_at: str  # UTC, ISO 8601
    uploads: int
    size: int  # bytes of all of them


class APIToken(NamedTuple):
    """A row of `tokens`: what a script shows instead of a session. Only the script knows the token itself."""

    id: int
    name: str  # as its user calls it
    created_at: str  # UTC, ISO 8601


class Sessions(Protocol):
    """Who is logged in. Every method may suspend and raise `StoreDown`."""

    def prepare(self) -> Coro[None]:
        """See that the store answers, and create what is missing."""
        ...

    def create(self, user_id: int) -> Coro[str]:
        """A new session; its token."""
        ...

    def lookup(self, token: str) -> Coro[int | None]:
        """The user's id, or None if there is no such session (any more)."""
        ...

    def delete(self, token: str) -> Coro[None]: ...

    def delete_all(self, user_id: int) -> Coro[None]:
        """End every session of a user that `create` has begun."""
        ...

    def close(self) -> None:
        """Does not suspend."""
        ...


class Metadata(Protocol):
    """Users and uploads. Every method may suspend and raise `StoreDown`."""

    @property
    def identity(self) -> str:
        """Which database it is, without passwords."""
        ...

    def prepare(self) -> Coro[None]:
        """Create the tables, or bring those of an earlier version up to date."""
        ...

    def add_user(self, name: str, password: str) -> Coro[None]:
        """Add a user, with the hash of the password. `NameTaken`."""
        ...

    def find_user(self, name: str) -> Coro[User | None]: ...

    def get_user(self, user_id: int) -> Coro[User | None]: ...

    def has_users(self) -> Coro[bool]: ...

    def list_accounts(self) -> Coro[list[Account]]:
        """All of them, by name."""
        ...

    def set_password(self, user_id: int, password: str) -> Coro[None]:
        """Replace the hash of the password."""
        ...

    def delete_user(self, user_id: int) -> Coro[None]:
        """Delete a user and the user's tokens and invitations; uploads stay."""
        ...

    def add_invitation(self, user_id: int, digest: str) -> Coro[None]:
        """Let whoever knows what has that digest choose the user's password, for `INVITATION_TIME`."""
        ...

    def has_invitation(self, digest: str) -> Coro[bool]:
        """Is there one that is still to be used?"""
        ...

    def accept_invitation(self, digest: str, password: str) -> Coro[int | None]:
        """Replace the hash of the password, for the first who asks; the user's id, or None if there is no such
        invitation (any more).
        """
        ...

    def add_token(self, user_id: int, name: str, digest: str) -> Coro[None]:
        """Add an API token by its digest."""
        ...

    def find_token(self, digest: str) -> Coro[int | None]:
        """The id of the user whose token it is."""
        ...

    def list_tokens(self, user_id: int) -> Coro[list[APIToken]]: ...

    def delete_token(self, user_id: int, token_id: int) -> Coro[None]: ...

    def add_uploads(self, uploads: Sequence[Upload]) -> Coro[None]:
        """Commit the rows, all or none. `OutcomeUnknown` when it cannot be told which."""
        ...

    def get_upload(self, user_id: int, upload_id: str) -> Coro[Upload | None]:
        """The upload, if it is that user's."""
        ...

    def find_upload(self, upload_id: str) -> Coro[Upload | None]:
        """The upload, whosever it is."""
        ...

    def bar_upload(self, upload_id: str, path: str) -> Coro[Upload | None]:
        """See that no INSERT which a crashed process left under way makes this upload, with its file at `path`, after
        all; the upload, if one was made already. Another process may still make it, with another file.
        """
        ...

    def list_uploads(self, user_id: int) -> Coro[list[Upload]]:
        """The user's uploads, newest first."""
        ...

    def usage(self, user_id: int) -> Coro[int]:
        """Bytes of all of the user's uploads."""
        ...

    def scan_uploads(self, after: str, limit: int) -> Coro[list[Upload]]:
        """Up to `limit` uploads of all users whose ids sort after `after`, in the order of ids."""
        ...

    def delete_upload(self, upload_id: str) -> Coro[None]: ...

    def close(self) -> None:
        """Does not suspend."""
        ...


def new_token() -> str:
    """A session token that cannot be guessed."""
    return secrets.token_urlsafe(24)
