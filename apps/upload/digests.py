"""`Content-Digest` and `Repr-Digest` of requests (RFC 9530): what was sent is checked against them while it is stored.

    Content-Digest: sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:

Of the algorithms listed there sha-256 and sha-512 are taken; others are unknown here and do not count, as section 2
says. A body that came unencoded and whole is its own representation, so the two fields mean the same for it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Set
from types import MappingProxyType

from apps.upload.parts import Hash
from apps.upload.storage import Pieces
from coro import Coro
from coro.http import HTTPError

ALGORITHMS: dict[str, Callable[[], Hash]] = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
MEMBER = re.compile(r"([a-z0-9*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):")  # RFC 8941, sections 3.2 and 3.3.5


class Expected:
    """The digests that a request's content must have."""

    def __init__(self, headers: Mapping[str, str], *fields: str) -> None:
        """`HTTPError` 400 for a field that is malformed."""
        self._told: list[tuple[str, str, bytes]] = []  # field, algorithm, digest
        self._hashes: dict[str, Hash] = {}  # by algorithm
        for field in fields:
            if value := headers.get(field):
                for member in filter(None, (part.strip(" \t") for part in value.split(","))):
                    self._add(field, member)

    def _add(self, field: str, member: str) -> None:
        match = MEMBER.fullmatch(member)
        if match is None:
            raise HTTPError(400, f"{field}: {member!r} is not an algorithm and a digest, as in sha-256=:...:")
        name, encoded = match.groups()
        if name not in ALGORITHMS:
            return
        hashing = self._hashes.setdefault(name, ALGORITHMS[name]())
        try:
            digest = b64decode(encoded, validate=True)
        except ValueError:
            digest = b""
        if len(digest) != len(hashing.digest()):
            raise HTTPError(400, f"{field}: {encoded!r} is not a digest of {name}")
        self._told.append((field, name, digest))

    @property
    def algorithms(self) -> Set[str]:
        return self._hashes.keys()

    @property
    def hashes(self) -> list[Hash]:
        """To be updated with the content."""
        return list(self._hashes.values())

    def check(self, known: Mapping[str, bytes] = MappingProxyType({})) -> None:
        """After the content, of which some digests may be known otherwise. `HTTPError` 400 if it has another one."""
        for field, name, digest in self._told:
            found = known[name] if name in known else self._hashes[name].digest()
            if not hmac.compare_digest(found, digest):
                raise HTTPError(400, f"what arrived has another {name} than {field} tells: send it again")


class CheckedBody:
    """A body that is read through this, and must have the digests that were told of it."""

    def __init__(self, body: Pieces, expected: Expected) -> None:
        self._body = body
        self._expected = expected
        self._hashes = expected.hashes

    def read(self) -> Coro[bytes]:
        data = yield from self._body.read()
        for hashing in self._hashes:
            hashing.update(data)
        return data

    def finish(self) -> Coro[None]:
        """Check it, with what is left to be read. Suspends. `HTTPError` 400."""
        while self._hashes and (yield from self.read()):
            pass
        self._expected.check()
