"""What comes in several requests: what the protocols for resumable uploads have in common.

A request takes the upload over, appends its content, checks it if it told a digest, and gives an upload that is whole
its row. What the requests look like is told by the protocols: tus.py, draft.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import coro
from apps.upload.digests import Expected
from apps.upload.parts import Hash, TooLarge
from apps.upload.resumable import About, NotThere, Resumable, Resumables, StillHeld
from apps.upload.sniffing import HEAD_SIZE, BegunBody, read_head
from apps.upload.storage import Body
from apps.upload.store import Upload
from coro import Coro
from coro.http import HTTPError, Request

if TYPE_CHECKING:
    from apps.upload.handlers import UploadHandlers


class Check(Protocol):
    """Something that the content of a request has to be."""

    @property
    def hashes(self) -> Sequence[Hash]:
        """To be updated with the content; none if nothing was told."""
        ...

    def check(self) -> None:
        """After the content. `HTTPError` if it is something else."""
        ...


class Arrivals:
    """The resumable uploads of one app; its other handlers are asked who is logged in, and write the rows."""

    def __init__(self, app: UploadHandlers, resumables: Resumables, *, draft: bool = False) -> None:
        """`draft`: those of the IETF's protocol."""
        self.app = app
        self.resumables = resumables
        self.draft = draft

    def create(self, about: About) -> Coro[Resumable]:
        """A new upload, held. Suspends. `HTTPError` 413, 429, 507, 400 for a Repr-Digest that is none; OSError."""
        Expected({"repr-digest": about.digest}, "repr-digest")
        yield from self.check_size(about.user_id, about.length)
        yield from self.resumables.create(about)
        return (yield from self.held(about.id, about.user_id))

    def taken(self, request: Request) -> Coro[Resumable]:
        """The upload that the path names, held. Suspends. `HTTPError` 401, 404, 423."""
        user_id = yield from self.app.user(request)
        return (yield from self.held(request.params["id"], user_id))

    def held(self, upload_id: str, user_id: int) -> Coro[Resumable]:
        """The right to an upload. Suspends. `HTTPError` 404, 423."""
        try:
            return (yield from self.resumables.take(upload_id, user_id, self.draft))
        except NotThere as error:
            raise HTTPError(404, str(error)) from None
        except StillHeld as error:
            raise HTTPError(423, str(error)) from None

    def check_size(self, user_id: int, length: int | None) -> Coro[None]:
        """Refuse what could never be whole. Suspends."""
        with (yield from self.app.policy.admit(user_id, length, length)):
            pass

    def append(
        self, request: Request, upload: Resumable, *checks: Check, body: Body | None = None, last: bool = False
    ) -> Coro[None]:
        """Receive a piece, through `body` if it is given, and finish the upload if that makes it whole. Suspends.

        `last`: there will be no other, says the client. Of a piece that breaks off, what came counts, unless it had
        to be checked.
        """
        limit, announced = upload.about.length, request.content_length
        if limit is not None and announced is not None and upload.size + announced > limit:
            raise HTTPError(413, f"the upload may have {limit} bytes, and has {upload.size}")
        with (yield from self.app.policy.admit(upload.about.user_id, limit, announced)) as admission:
            upload.limit = admission.limit if limit is None else limit
            upload.room = admission.room
            body = yield from self._typed(body or request.body, upload)
            yield from self._receive(body, upload, [check for check in checks if check.hashes])
            if last:
                if limit not in (None, upload.size):
                    raise HTTPError(400, f"the upload was to have {limit} bytes, and has {upload.size}")
                yield from upload.change(complete=True, length=upload.size)
            if upload.whole:
                yield from self.finish(upload)

    def _typed(self, body: Body, upload: Resumable) -> Coro[Body]:
        """The body, if what it continues or begins may be stored, as far as that can be told yet."""
        missing = HEAD_SIZE - upload.size
        if self.app.types is None or missing <= 0 or upload.about.concat == "partial":
            return body
        data = yield from read_head(body, missing)
        if len(data) == missing:
            yield from self._check_type(upload, data)
        return BegunBody(data, body)

    def _check_type(self, upload: Resumable, more: bytes = b"") -> Coro[None]:
        """Remove an upload that begins as none does that may be stored. Suspends. `HTTPError` 415."""
        if self.app.types is None:
            return
        head = yield from coro.on_disk(os.pread, upload.fd, HEAD_SIZE, 0)
        try:
            self.app.types.check(head + more)
        except HTTPError:
            yield from upload.remove()
            raise

    def _receive(self, body: Body, upload: Resumable, checks: Sequence[Check]) -> Coro[None]:
        begin = upload.size
        if checks:
            yield from upload.change(checked=begin)
        try:
            with upload.verified_by(*(digest for check in checks for digest in check.hashes)):
                yield from self.app.storage.receive(body, upload)
            for check in checks:
                check.check()
        except BaseException as error:
            if checks or isinstance(error, TooLarge):
                with coro.shield():
                    yield from upload.cut(begin)
            raise
        finally:
            if checks:
                with coro.shield():
                    yield from upload.sync()
                    yield from upload.change(checked=None)

    def finish(self, upload: Resumable) -> Coro[None]:
        """All has arrived: give it its row, unless it has one or is only to be a part of another. Suspends.

        `HTTPError` 400 when it is not what its creator told, 415 when its type may not be stored; it is removed then.
        """
        about = upload.about
        if about.finished or about.concat == "partial":
            return
        with coro.shield():  # whoever wants it now gets it when it is done
            if (yield from self.app.metadata.get_upload(about.user_id, about.id)) is None:
                yield from self._check_type(upload)
                yield from upload.sync()
                sha256 = yield from upload.sha256()
                yield from self._check_whole(upload, sha256)
                path = yield from self.app.storage.adopt(about.id, upload.path)
                yield from self.app.commit([Upload(about.id, about.user_id, about.name, path, upload.size, sha256)])
            yield from upload.finish()

    def _check_whole(self, upload: Resumable, sha256: str | None) -> Coro[None]:
        expected = Expected({"repr-digest": upload.about.digest}, "repr-digest")
        known = {} if sha256 is None else {"sha-256": bytes.fromhex(sha256)}
        if not expected.algorithms <= known.keys():
            yield from coro.on_disk(upload.read_through, expected.hashes)
        try:
            expected.check(known)
        except HTTPError:
            yield from upload.remove()
            raise


def url_of(request: Request, path: str) -> str:
    """The whole URL of something here, because not all clients can resolve a path."""
    scheme = request.headers.get("origin", "").partition("://")[0]  # of the page that sends it, which is ours
    return f"{scheme or request.scheme}://{request.host}{path}"
