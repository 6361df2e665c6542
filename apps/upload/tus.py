"""The tus protocol 1.0.0 for resumable uploads, at `/files/` (https://tus.io/protocols/resumable-upload).

| request            | answer                                                                                       |
|--------------------|----------------------------------------------------------------------------------------------|
| `OPTIONS /files/`  | 204: what is supported                                                                       |
| `POST /files/`     | 201 and `Location`: a new upload, with a first piece if there is a body; or a concatenation  |
| `HEAD /files/ID`   | 200 and `Upload-Offset`: how much the disk has                                               |
| `PATCH /files/ID`  | 204 and `Upload-Offset`: a piece was appended; after the last one the upload is in the list  |
| `DELETE /files/ID` | 204: the upload is forgotten                                                                 |

Extensions: creation, creation-with-upload, creation-defer-length, checksum, expiration, termination, concatenation. A
request for an upload that another one holds takes it over (resumable.py). Somebody else's upload is 404.
"""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64decode
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import coro
from apps.upload.arrivals import Arrivals, url_of
from apps.upload.digests import Expected
from apps.upload.names import checked_name
from apps.upload.parts import Hash
from apps.upload.resumable import About, Resumable
from coro import Coro
from coro.http import Answer, Handler, HTTPError, Request, Response

if TYPE_CHECKING:
    from apps.upload.handlers import UploadHandlers

VERSION = "1.0.0"
RESUMABLE = ("Tus-Resumable", VERSION)
EXTENSIONS = (
    "creation", "creation-with-upload", "creation-defer-length", "checksum", "expiration", "termination",
    "concatenation",
)  # fmt: skip
CHECKSUMS: dict[str, Callable[[], Hash]] = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "md5": hashlib.md5}
PIECE = "application/offset+octet-stream"
CHECKSUM_MISMATCH = 460
MAX_METADATA_SIZE = 4096  # characters
MAX_PARTS = 100  # of a concatenation
UNNAMED = "upload"  # the name of a file whose client gave none


class Checksum:
    """What Upload-Checksum tells of a piece."""

    def __init__(self, request: Request) -> None:
        """`HTTPError` 400."""
        self.hashes: list[Hash] = []
        text = request.headers.get("upload-checksum")
        if text is None:
            return
        self._algorithm, _, encoded = text.partition(" ")
        try:
            self._digest = b64decode(encoded, validate=True)
        except binascii.Error:
            self._digest = b""
        if self._algorithm in CHECKSUMS:
            self.hashes = [CHECKSUMS[self._algorithm]()]
        if not self.hashes or len(self._digest) != len(self.hashes[0].digest()):
            raise HTTPError(400, f"Upload-Checksum is one of {', '.join(CHECKSUMS)}, and its digest in Base64")

    def check(self) -> None:
        for hashing in self.hashes:
            if hashing.digest() != self._digest:
                raise HTTPError(CHECKSUM_MISMATCH, f"the piece has another {self._algorithm}: send it again")


class TusHandlers:
    """The requests of `/files/`, for the app's other handlers to be asked who is logged in and to write rows."""

    def __init__(self, app: UploadHandlers, arrivals: Arrivals) -> None:
        self.app = app
        self.arrivals = arrivals
        self._by_method = {"HEAD": self.head, "PATCH": self.patch, "DELETE": self.delete}
        for path in "/files", "/files/":
            app.router.add("OPTIONS", path, self.options)
            app.router.add("POST", path, self._checked(self.create))
        app.router.add("OPTIONS", "/files/{id}", self.options)
        app.router.add("POST", "/files/{id}", self._checked(self.override))
        for method, handler in self._by_method.items():
            app.router.add(method, "/files/{id}", self._checked(handler))

    def _checked(self, handler: Handler) -> Handler:
        """Every answer names the version, errors too; other versions are refused."""

        def handle(request: Request) -> Coro[Answer]:
            try:
                with self.app.refusals:
                    if request.headers.get("tus-resumable") != VERSION:
                        raise HTTPError(412, f"Tus-Resumable has to be {VERSION}", [("Tus-Version", VERSION)])
                    return (yield from handler(request))
            except HTTPError as error:
                error.headers = [*error.headers, RESUMABLE]
                raise

        return handle

    def options(self, request: Request) -> Coro[Answer]:
        yield from ()
        limit = self.app.storage.max_size
        headers = [
            RESUMABLE,
            ("Tus-Version", VERSION),
            ("Tus-Extension", ",".join(EXTENSIONS)),
            ("Tus-Checksum-Algorithm", ",".join(CHECKSUMS)),
            *([("Tus-Max-Size", str(limit))] if limit is not None else ()),
        ]
        return Response(204, headers=headers)

    def override(self, request: Request) -> Coro[Answer]:
        """For clients that can send POST only."""
        method = request.headers.get("x-http-method-override", "").upper()
        if method not in self._by_method:
            raise HTTPError(405, "POST on an upload needs X-HTTP-Method-Override", [("Allow", "HEAD, PATCH, DELETE")])
        return (yield from self._by_method[method](request))

    # --- Creation ------------------------------------------------------------------------

    def create(self, request: Request) -> Coro[Answer]:
        user_id = yield from self.app.user(request)
        metadata, name = _metadata(request)
        concat = request.headers.get("upload-concat", "")
        if concat.startswith("final;"):
            return (yield from self._concatenate(request, user_id, name, metadata, concat))
        if concat not in ("", "partial"):
            raise HTTPError(400, "Upload-Concat is `partial` or `final;` and the uploads' URLs")
        told, digest = Expected(request.headers, "content-digest"), request.headers.get("repr-digest", "")
        about = About(self.app.storage.new_id(), user_id, name, _length(request), metadata, concat, digest=digest)
        upload = yield from self.arrivals.create(about)
        try:
            with_data = request.headers.get("content-type") == PIECE
            if with_data:
                yield from self._append(request, upload, told)
            elif upload.whole:  # an empty file
                yield from self.arrivals.finish(upload)
        finally:
            yield from upload.release()
        return Response(201, headers=self._described(upload, _location(request, about.id), offset=with_data))

    def _concatenate(self, request: Request, user_id: int, name: str, metadata: str, concat: str) -> Coro[Answer]:
        """One upload out of several that are whole."""
        ids = [urlsplit(url).path.rpartition("/")[2] for url in concat.removeprefix("final;").split()]
        if not 0 < len(ids) <= MAX_PARTS or len(set(ids)) != len(ids):
            raise HTTPError(400, f"a concatenation needs 1 to {MAX_PARTS} different uploads")
        parts: list[Resumable] = []
        try:
            parts.append((yield from self.arrivals.held(ids[0], user_id)))
            if (made := (yield from self._made_of(parts[0], ids))) is not None:
                return Response(201, headers=[RESUMABLE, _location(request, made)])
            for part_id in ids[1:]:
                parts.append((yield from self.arrivals.held(part_id, user_id)))
            for part in parts:
                if part.about.concat != "partial" or not part.whole:
                    raise HTTPError(409, f"/files/{part.about.id} is not a partial upload that is whole")
            length = sum(part.size for part in parts)
            digest = request.headers.get("repr-digest", "")
            about = About(self.app.storage.new_id(), user_id, name, length, metadata, concat, digest=digest)
            upload = yield from self.arrivals.create(about)
            try:
                for part in parts:
                    yield from upload.copy(part)
                yield from parts[0].change(joined=" ".join([about.id, *ids]))
                yield from self.arrivals.finish(upload)
            except BaseException:
                with coro.shield():
                    yield from upload.remove()
                raise
            finally:
                yield from upload.release()
            for part in reversed(parts):
                yield from part.remove()  # at last the one that knows what was made of them
        finally:
            for part in parts:
                yield from part.release()
        return Response(201, headers=self._described(upload, _location(request, about.id), offset=False))

    def _made_of(self, first: Resumable, ids: list[str]) -> Coro[str | None]:
        """What was made of these parts already: then it is the answer that was lost. Those that are left expire."""
        made, *parts = first.about.joined.split() or [""]
        if parts != ids or (yield from self.app.metadata.get_upload(first.about.user_id, made)) is None:
            return None
        return made

    # --- One upload -----------------------------------------------------------------------

    def head(self, request: Request) -> Coro[Answer]:
        upload = yield from self.arrivals.taken(request)
        try:
            if upload.whole:
                yield from self.arrivals.finish(upload)  # if the database was down when it became whole
            about = upload.about
            length = ("Upload-Defer-Length", "1") if about.length is None else ("Upload-Length", str(about.length))
            headers = self._described(upload, length, ("Cache-Control", "no-store"))
            if about.metadata:
                headers.append(("Upload-Metadata", about.metadata))
            if about.concat:
                headers.append(("Upload-Concat", about.concat))
        finally:
            yield from upload.release()
        return Response(200, headers=headers)

    def patch(self, request: Request) -> Coro[Answer]:
        if request.headers.get("content-type") != PIECE:
            raise HTTPError(415, f"a piece of an upload has the Content-Type {PIECE}")
        upload = yield from self.arrivals.taken(request)
        try:
            with upload.scope:
                if request.headers.get("upload-offset") != str(upload.size):
                    raise HTTPError(409, f"the upload goes on at {upload.size}")
                # RFC 9530, section 3.1: here, the representation that is sent is the piece as well.
                told = Expected(request.headers, "content-digest", "repr-digest")
                yield from self._append(request, upload, told)
            if upload.scope.cancelled_caught:
                raise HTTPError(409, "another request has taken the upload over")
        finally:
            yield from upload.release()
        return Response(204, headers=self._described(upload))

    def delete(self, request: Request) -> Coro[Answer]:
        upload = yield from self.arrivals.taken(request)
        try:
            if upload.about.finished:
                raise HTTPError(403, f"the upload is complete: delete /uploads/{upload.about.id}")
            yield from upload.remove()
        finally:
            yield from upload.release()
        return Response(204, headers=[RESUMABLE])

    def _append(self, request: Request, upload: Resumable, told: Expected) -> Coro[None]:
        """Receive a piece, with which the client may tell how long the whole is."""
        if upload.about.length is None and "upload-length" in request.headers:
            length = _number(request, "upload-length")
            if length < upload.size:
                raise HTTPError(400, f"there are {upload.size} bytes already")
            yield from self.arrivals.check_size(upload.about.user_id, length)
            yield from upload.change(length=length)
        yield from self.arrivals.append(request, upload, Checksum(request), told)

    def _described(self, upload: Resumable, *more: tuple[str, str], offset: bool = True) -> list[tuple[str, str]]:
        headers = [RESUMABLE, *more]
        if offset:
            headers.append(("Upload-Offset", str(upload.size)))
        if not upload.about.finished:
            headers.append(("Upload-Expires", formatdate(upload.expires, usegmt=True)))
        return headers


def _location(request: Request, upload_id: str) -> tuple[str, str]:
    return "Location", url_of(request, f"/files/{upload_id}")


def _length(request: Request) -> int | None:
    """How long the upload will be, if that is known already. `HTTPError` 400."""
    if "upload-length" in request.headers:
        return _number(request, "upload-length")
    if request.headers.get("upload-defer-length") != "1":
        raise HTTPError(400, "an upload needs Upload-Length, or Upload-Defer-Length: 1")
    return None


def _number(request: Request, name: str) -> int:
    text = request.headers.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise HTTPError(400, f"{name} is not a number of bytes: {text!r}")
    return int(text)


def _metadata(request: Request) -> tuple[str, str]:
    """Upload-Metadata as it was sent, and the file's name in it. `HTTPError` 400."""
    text = request.headers.get("upload-metadata", "").strip()
    if len(text) > MAX_METADATA_SIZE:
        raise HTTPError(400, f"Upload-Metadata may have at most {MAX_METADATA_SIZE} characters")
    values: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        key, _, encoded = pair.strip().partition(" ")
        try:
            values[key] = b64decode(encoded.strip(), validate=True).decode("utf-8", "replace")
        except binascii.Error:
            raise HTTPError(400, f"Upload-Metadata: the value of {key!r} is not Base64") from None
    name = values.get("filename") or values.get("name") or UNNAMED
    return text, checked_name(name)
