"""Who may use the app: passwords, sessions, API tokens, invitations.

Only a scrypt hash of a password is stored (RFC 7914): slow and memory-hard on purpose. Guessing is slowed down further,
by account and by address (throttle.py), before a hash is computed.

A hash is `scrypt$n$r$p$salt$key`, numbers in decimal and bytes in Base64, so that the cost can be raised later while
old hashes still work.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import time
from base64 import b64decode, b64encode
from contextlib import suppress
from pathlib import Path

import coro
from apps.upload.shared import LIMITS
from apps.upload.store import APIToken, Metadata, Sessions, User, new_token
from apps.upload.throttle import Throttle
from coro import Coro, CoroError

COST, BLOCK_SIZE, PARALLEL = 1 << 15, 8, 1  # 32 MiB and about 0.1 s for each guess
HASHES_AT_ONCE = 2  # a bound on memory, and on the cores that guessing can take from uploads
ATTEMPTS, ATTEMPT_TIME = 10, 6.0  # wrong passwords at once for an account, and seconds for each one after that
ADDRESS_ATTEMPTS, ADDRESS_ATTEMPT_TIME = 30, 2.0  # the same for a client's address
TOKEN_PREFIX = "coro_"  # by which leaked API tokens are found
MIN_PASSWORD_SIZE = 8  # bytes
MAX_NAME_SIZE, MAX_PASSWORD_SIZE = 255, 1024  # bytes
NO_PASSWORD = "none"  # in the place of a hash, until its user has chosen one
NOBODY = User(0, "", f"scrypt${COST}${BLOCK_SIZE}${PARALLEL}$AAAAAAAAAAAAAAAAAAAAAA==$" + "A" * 43 + "=")


class UnusableName(CoroError):
    """A user name that is empty, too long, or not text that one can type."""


class UnusablePassword(CoroError):
    """A password that is too short or too long."""


class TooManyAttempts(CoroError):
    """Too many wrong passwords came; `seconds` tells when the next one is looked at."""

    def __init__(self, seconds: float) -> None:
        super().__init__("too many wrong passwords: wait a while")
        self.seconds = seconds


class Accounts:
    """Who may log in, and with what. Every method may raise `StoreDown`."""

    def __init__(self, sessions: Sessions, metadata: Metadata, directory: Path) -> None:
        """`directory`: the app's; there lies what was tried how often."""
        self._sessions = sessions
        self._metadata = metadata
        self._permits = coro.Semaphore(HASHES_AT_ONCE)
        limits = os.path.join(directory, LIMITS)
        self._by_name = Throttle(f"{limits}/names", ATTEMPTS, ATTEMPT_TIME, time.monotonic)
        self._by_address = Throttle(f"{limits}/addresses", ADDRESS_ATTEMPTS, ADDRESS_ATTEMPT_TIME, time.monotonic)

    # --- Passwords --------------------------------------------------------------------

    def check(self, name: str, password: str, address: str) -> Coro[User | None]:
        """The user, if name and password are right. Takes as long if there is no such user. Suspends.

        `TooManyAttempts` when too many were wrong, for that name or from that address.
        """
        if max(_size(name), _size(password)) > MAX_PASSWORD_SIZE:
            return None
        network = _network(address)
        if seconds := self._by_address.attempt(network) or self._by_name.attempt(name):
            raise TooManyAttempts(seconds)
        user = (yield from self._metadata.find_user(name)) if _is_usable(name) else None
        with (yield from self._permits.acquire()):
            right = yield from coro.to_thread(_matches, password, (user or NOBODY).password)
        if user is None or not right:
            return None
        self._by_address.forgive(network)
        self._by_name.forgive(name)
        return user

    def add(self, name: str, password: str | None) -> Coro[None]:
        """Add a user; without a password, for an invitation. Suspends. `NameTaken`, `UnusableName`,
        `UnusablePassword`.
        """
        if not _is_usable(name):
            raise UnusableName(f"a user name needs 1 to {MAX_NAME_SIZE} bytes of printable text, not {name!r}")
        hashed = NO_PASSWORD if password is None else (yield from self._hashed(password))
        yield from self._metadata.add_user(name, hashed)

    def set_password(self, user_id: int, password: str) -> Coro[None]:
        """Change a password, and end all of the user's sessions. Suspends. `UnusablePassword`."""
        hashed = yield from self._hashed(password)
        yield from self._metadata.set_password(user_id, hashed)
        yield from self._sessions.delete_all(user_id)

    def _hashed(self, password: str) -> Coro[str]:
        if not MIN_PASSWORD_SIZE <= _size(password) <= MAX_PASSWORD_SIZE:
            raise UnusablePassword(f"a password needs {MIN_PASSWORD_SIZE} to {MAX_PASSWORD_SIZE} bytes")
        with (yield from self._permits.acquire()):
            return (yield from coro.to_thread(hash_password, password))

    def name_of(self, user_id: int) -> Coro[str]:
        """A user's name; empty if the user is gone. Suspends."""
        user = yield from self._metadata.get_user(user_id)
        return user.name if user is not None else ""

    # --- Invitations ------------------------------------------------------------------

    def invite(self, name: str) -> Coro[str]:
        """A token by which a user, who exists, can choose a password, once. Suspends."""
        user = yield from self._metadata.find_user(name)
        assert user is not None
        token = new_token()
        yield from self._metadata.add_invitation(user.id, _digest(token))
        return token

    def accept(self, token: str, password: str) -> Coro[int | None]:
        """Choose the password that an invitation is for; the user's id. None if there is no such invitation.
        Suspends. `UnusablePassword`.
        """
        digest = _digest(token)
        if not (yield from self._metadata.has_invitation(digest)):
            return None  # without computing a hash for nobody
        user_id = yield from self._metadata.accept_invitation(digest, (yield from self._hashed(password)))
        if user_id is not None:
            yield from self._sessions.delete_all(user_id)
        return user_id

    # --- API tokens -------------------------------------------------------------------

    def add_token(self, user_id: int, name: str) -> Coro[str]:
        """A new API token; only its digest is kept. Suspends."""
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        yield from self._metadata.add_token(user_id, name, _digest(token))
        return token

    def list_tokens(self, user_id: int) -> Coro[list[APIToken]]:
        return self._metadata.list_tokens(user_id)

    def delete_token(self, user_id: int, token_id: int) -> Coro[None]:
        return self._metadata.delete_token(user_id, token_id)

    def find_token(self, token: str) -> Coro[int | None]:
        """The id of the user whose API token it is. Suspends."""
        return (yield from self._metadata.find_token(_digest(token)))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()  # it cannot be guessed: no salt, no cost


def _network(address: str) -> str:
    """What one client has for itself: an IPv4 address, the first 64 bits of an IPv6 one (RFC 6177)."""
    with suppress(ValueError):
        if (parsed := ipaddress.ip_address(address)).version == 6:
            return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


def hash_password(password: str) -> str:
    """The hash to be stored. Takes a while."""
    salt = secrets.token_bytes(16)
    key = _scrypt(password, salt, COST, BLOCK_SIZE, PARALLEL)
    return f"scrypt${COST}${BLOCK_SIZE}${PARALLEL}${b64encode(salt).decode()}${b64encode(key).decode()}"


def _matches(password: str, hashed: str) -> bool:
    if hashed == NO_PASSWORD:
        return False
    _, n, r, p, salt, key = hashed.split("$")
    return hmac.compare_digest(_scrypt(password, b64decode(salt), int(n), int(r), int(p)), b64decode(key))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    data = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(data, salt=salt, n=n, r=r, p=p, maxmem=2 * 128 * n * r, dklen=32)


def _is_usable(name: str) -> bool:
    return name.isprintable() and name == name.strip() and 0 < _size(name) <= MAX_NAME_SIZE


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
