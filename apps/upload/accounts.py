"""Passwords and accounts. Only a scrypt hash of a password is stored (RFC 7914): slow and memory-hard on purpose.

A hash is `scrypt$n$r$p$salt$key`, numbers in decimal and bytes in Base64, so that the cost can be raised later while
old hashes still work.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode

import coro
from apps.upload.store import Metadata, User
from coro import Coro, CoroError

COST, BLOCK_SIZE, PARALLEL = 1 << 15, 8, 1  # 32 MiB and about 0.1 s for each guess
HASHES_AT_ONCE = 2  # a bound on memory, and on the cores that guessing can take from uploads
MAX_NAME_SIZE, MAX_PASSWORD_SIZE = 255, 1024  # bytes
NOBODY = User(0, "", f"scrypt${COST}${BLOCK_SIZE}${PARALLEL}$AAAAAAAAAAAAAAAAAAAAAA==$" + "A" * 43 + "=")


class UnusableName(CoroError):
    """A user name that is empty, too long, or not text that one can type."""


class Accounts:
    """Who may log in."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._permits = coro.Semaphore(HASHES_AT_ONCE)

    def check(self, name: str, password: str) -> Coro[User | None]:
        """The user, if name and password are right. Takes as long if there is no such user. Suspends. `StoreDown`."""
        if max(_size(name), _size(password)) > MAX_PASSWORD_SIZE:
            return None
        user = (yield from self._metadata.find_user(name)) if _is_usable(name) else None
        with (yield from self._permits.acquire()):
            right = yield from coro.to_thread(_matches, password, (user or NOBODY).password)
        return user if right else None

    def add(self, name: str, password: str) -> Coro[None]:
        """Add a user. Suspends. `NameTaken`, `UnusableName`, `StoreDown`."""
        if not _is_usable(name):
            raise UnusableName(f"a user name needs 1 to {MAX_NAME_SIZE} bytes of printable text, not {name!r}")
        with (yield from self._permits.acquire()):
            hashed = yield from coro.to_thread(hash_password, password)
        yield from self._metadata.add_user(name, hashed)


def new_password() -> str:
    """A password that cannot be guessed and is easy to copy from a screen."""
    letters = "abcdefghijkmnpqrstuvwxyz23456789"  # without those that look alike
    return "-".join("".join(secrets.choice(letters) for _ in range(5)) for _ in range(4))


def hash_password(password: str) -> str:
    """The hash to be stored. Takes a while."""
    salt = secrets.token_bytes(16)
    key = _scrypt(password, salt, COST, BLOCK_SIZE, PARALLEL)
    return f"scrypt${COST}${BLOCK_SIZE}${PARALLEL}${b64encode(salt).decode()}${b64encode(key).decode()}"


def _matches(password: str, hashed: str) -> bool:
    _, n, r, p, salt, key = hashed.split("$")
    return hmac.compare_digest(_scrypt(password, b64decode(salt), int(n), int(r), int(p)), b64decode(key))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    data = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(data, salt=salt, n=n, r=r, p=p, maxmem=2 * 128 * n * r, dklen=32)


def _is_usable(name: str) -> bool:
    return name.isprintable() and name == name.strip() and 0 < _size(name) <= MAX_NAME_SIZE


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
