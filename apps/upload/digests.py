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
from collections.abc import Callable

from apps.upload.storage import Hash
from coro.http import HTTPError, Request

ALGORITHMS: dict[str, Callable[[], Hash]] = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
MEMBER = re.compile(r"([a-z0-9*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):")  # RFC 8941, sections 3.2 and 3.3.5


class Expected:
    """The digests that a request's content must have."""

    def __init__(self, request: Request, *fields: str) -> None:
        """`HTTPError` 400 for a field that is malformed."""
        self._digests: list[tuple[str, str, Hash, bytes]] = []
        headers = request.headers
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
        hashing = ALGORITHMS[name]()
        try:
            digest = b64decode(encoded, validate=True)
        except ValueError:
            digest = b""
        if len(digest) != len(hashing.digest()):
            raise HTTPError(400, f"{field}: {encoded!r} is not a digest of {name}")
        self._digests.append((field, name, hashing, digest))

    def __bool__(self) -> bool:
        return bool(self._digests)

    @property
    def hashes(self) -> list[Hash]:
        """To be updated with the content."""
        return [hashing for _, _, hashing, _ in self._digests]

    def check(self) -> None:
        """After the content. `HTTPError` 400 if it has another digest."""
        for field, name, hashing, digest in self._digests:
            if not hmac.compare_digest(hashing.digest(), digest):
                raise HTTPError(400, f"what arrived has another {name} than {field} tells: send it again")
