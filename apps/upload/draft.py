"""Resumable uploads as the IETF drafts them, with `--resumable-draft` (draft-ietf-httpbis-resumable-upload-12).

| request                  | answer                                                                                   |
|--------------------------|------------------------------------------------------------------------------------------|
| `PUT /upload/NAME`       | with `Upload-Complete`: 104 and `Location` of a new upload, ahead of the answer: 201     |
| `OPTIONS /upload/NAME`   | 204: what is supported                                                                   |
| `HEAD /resumable/ID`     | 204 and `Upload-Offset`: how much the disk has                                           |
| `PATCH /resumable/ID`    | 204: a piece was appended; after the last one 201, as the PUT would have been answered   |
| `DELETE /resumable/ID`   | 204: the upload is forgotten                                                             |

A client that sends a plain PUT says with one field more that it could go on after a broken connection. 104 is sent to
clients of interop version 8 only, as the drafts up to -10 ask for; what it tells of the offset is synced before.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import coro
from apps.upload.arrivals import Arrivals, url_of
from apps.upload.digests import Expected
from apps.upload.names import checked_name
from apps.upload.parts import TooLarge
from apps.upload.resumable import About, Resumable
from apps.upload.storage import Body
from coro import Coro
from coro.http import Answer, Handler, HTTPError, Request, Response

if TYPE_CHECKING:
    from apps.upload.handlers import UploadHandlers

RESUMPTION_SUPPORTED = 104
INTEROP = ("Upload-Draft-Interop-Version", "8")
PIECE = "application/partial-upload"
ACCEPT_PATCH = ("Accept-Patch", PIECE)
PROBLEMS = "https://iana.org/assignments/http-problem-types#"
REPORT_SIZE = 16 << 20  # bytes after which a client is told how much is on the disk
BOOLEAN = re.compile(r"\?([01])(;.*)?")  # RFC 9651, sections 3.3.6 and 3.3.1; parameters mean nothing here
INTEGER = re.compile(r"([0-9]{1,15})(;.*)?")


class Problem(HTTPError):
    """An error as RFC 9457 describes it."""

    def __init__(self, status: int, kind: str, title: str, *headers: tuple[str, str], **members: int) -> None:
        super().__init__(status, title, headers)
        self.fields = {"type": PROBLEMS + kind, "title": title, "status": status}
        self.fields |= {name.replace("_", "-"): value for name, value in members.items()}

    def response(self) -> Response:
        answer = Response.json(self.fields, self.status)
        answer.headers = [*self.headers, ("Content-Type", "application/problem+json")]
        return answer


class DraftHandlers:
    """The requests of the draft, for the app's other handlers to be asked who is logged in and to write rows."""

    def __init__(self, app: UploadHandlers, arrivals: Arrivals) -> None:
        self.app = app
        self.arrivals = arrivals
        app.router.add("OPTIONS", "/upload/{name}", self.options)
        app.router.add("PUT", "/upload/{name}", self._limited(self.put))
        app.router.add("HEAD", "/resumable/{id}", self._limited(self.head))
        app.router.add("PATCH", "/resumable/{id}", self._limited(self.patch))
        app.router.add("DELETE", "/resumable/{id}", self._limited(self.delete))

    def _limited(self, handler: Handler) -> Handler:
        """What is too large is refused with the limits; what is a problem of its own kind, as one."""

        def handle(request: Request) -> Coro[Answer]:
            try:
                with self.app.refusals:
                    return (yield from handler(request))
            except Problem as problem:
                return problem.response()
            except HTTPError as error:
                if error.status == 413:
                    error.headers = [*error.headers, *self._limits()]
                raise

        return handle

    def _limits(self, upload: Resumable | None = None) -> list[tuple[str, str]]:
        """Upload-Limit, if there is any."""
        limits = [] if self.app.storage.max_size is None else [f"max-size={self.app.storage.max_size}"]
        if upload is not None:
            limits.append(f"max-age={max(0, int(upload.expires - time.time()))}")
        return [("Upload-Limit", ", ".join(limits))] if limits else []

    def options(self, request: Request) -> Coro[Answer]:
        yield from ()
        return Response(204, headers=[ACCEPT_PATCH, ("Allow", "OPTIONS, PUT"), *self._limits()])

    # --- Creation ------------------------------------------------------------------------

    def put(self, request: Request) -> Coro[Answer]:
        complete = _boolean(request, "upload-complete")
        if complete is None:
            return (yield from self.app.put(request))
        user_id = yield from self.app.user(request)
        name = checked_name(request.params["name"])
        told, digest = Expected(request.headers, "content-digest"), request.headers.get("repr-digest", "")
        length = _length(request, 0, None)
        about = About(self.app.storage.new_id(), user_id, name, length, digest=digest, draft=True)
        upload = yield from self.arrivals.create(about)
        try:
            location = ("Location", url_of(request, f"/resumable/{about.id}"))
            with upload.scope:
                if _is_draft(request):
                    yield from request.inform(RESUMPTION_SUPPORTED, [location, INTEROP, *self._limits(upload)])
                answer = yield from self._append(request, upload, told, complete)
            if upload.scope.cancelled_caught:
                raise HTTPError(409, "another request has taken the upload over")
            if not complete:
                answer = Response(201, headers=[location, *answer.headers])
        finally:
            yield from upload.release()
        return answer

    # --- One upload -----------------------------------------------------------------------

    def head(self, request: Request) -> Coro[Answer]:
        upload = yield from self.arrivals.taken(request)
        try:
            if upload.whole:
                yield from self.arrivals.finish(upload)  # if the database was down when it became whole
            headers = self._described(upload)
            if upload.about.length is not None:
                headers.append(("Upload-Length", str(upload.about.length)))
        finally:
            yield from upload.release()
        return Response(204, headers=[*headers, ("Cache-Control", "no-store")])

    def patch(self, request: Request) -> Coro[Answer]:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != PIECE:
            raise HTTPError(415, f"a piece of an upload has the Content-Type {PIECE}", [ACCEPT_PATCH])
        complete, offset = _boolean(request, "upload-complete"), _integer(request, "upload-offset")
        if complete is None or offset is None:
            raise HTTPError(400, "a piece needs Upload-Complete, ?0 or ?1, and Upload-Offset")
        told = Expected(request.headers, "content-digest", "repr-digest")
        upload = yield from self.arrivals.taken(request)
        try:
            with upload.scope:
                yield from self._expect_more(request, upload, offset)
                answer = yield from self._append(request, upload, told, complete)
            if upload.scope.cancelled_caught:
                raise HTTPError(409, "another request has taken the upload over")
        finally:
            yield from upload.release()
        return answer

    def _expect_more(self, request: Request, upload: Resumable, offset: int) -> Coro[None]:
        """See that a piece can be appended there, and note how long the whole is, if that is told. `HTTPError`."""
        if upload.about.complete:
            if upload.whole:
                yield from self.arrivals.finish(upload)
            if request.content_length or "transfer-encoding" in request.headers:
                raise _inconsistent(upload.size)
            raise Problem(400, "completed-upload", "the upload is complete", ("Upload-Complete", "?1"))
        if offset != upload.size:
            raise Problem(
                409, "mismatching-upload-offset", f"the upload goes on at {upload.size}",
                ("Upload-Offset", str(upload.size)), expected_offset=upload.size, provided_offset=offset,
            )  # fmt: skip
        length = _length(request, offset, upload.about.length)
        if length != upload.about.length:
            yield from self.arrivals.check_size(upload.about.user_id, length)
            yield from upload.change(length=length)

    def delete(self, request: Request) -> Coro[Answer]:
        upload = yield from self.arrivals.taken(request)
        try:
            yield from upload.remove()
        finally:
            yield from upload.release()
        return Response(204)

    def _append(self, request: Request, upload: Resumable, told: Expected, complete: bool) -> Coro[Response]:
        """Receive a piece; the answer to it."""
        body: Body = request.body
        if _is_draft(request) and not told.hashes:  # a piece that has to be checked may not count in the end
            body = _ReportedBody(request, upload)
        try:
            yield from self.arrivals.append(request, upload, told, body=body, last=complete)
        except TooLarge:
            yield from upload.remove()  # it can never be right, and its offset must not go back
            raise
        if not complete:
            return Response(204, headers=self._described(upload))
        about = upload.about
        url = f"/uploads/{about.id}"
        described = {"id": about.id, "name": about.name, "size": upload.size, "url": url}  # as for any PUT
        return Response.json(described, 201, [("Location", url), ("Upload-Complete", "?1")])

    def _described(self, upload: Resumable) -> list[tuple[str, str]]:
        return [
            ("Upload-Offset", str(upload.size)), ("Upload-Complete", f"?{upload.about.complete:d}"),
            *self._limits(None if upload.about.finished else upload),
        ]  # fmt: skip


class _ReportedBody:
    """The body of a request, whose client is told now and then how much of it is on the disk."""

    def __init__(self, request: Request, upload: Resumable) -> None:
        self._request = request
        self._upload = upload
        self._told = upload.size

    def buffered(self) -> bytes | None:
        return self._request.body.buffered()

    def read(self, limit: int = REPORT_SIZE) -> Coro[bytes]:
        yield from self._report()
        return (yield from self._request.body.read(limit))

    def read_into(self, buffer: memoryview) -> Coro[int]:
        yield from self._report()
        return (yield from self._request.body.read_into(buffer))

    def _report(self) -> Coro[None]:
        size = self._upload.size
        if size - self._told >= REPORT_SIZE:
            self._told = size
            with coro.shield():  # an answer that was broken off in the middle could not be gone on from
                yield from self._upload.sync()
                yield from self._request.inform(RESUMPTION_SUPPORTED, [("Upload-Offset", str(size)), INTEROP])


def _is_draft(request: Request) -> bool:
    return request.headers.get(INTEROP[0]) == INTEROP[1]


def _boolean(request: Request, name: str) -> bool | None:
    """None if there is none: other values are to be ignored."""
    match = BOOLEAN.fullmatch(request.headers.get(name, "").strip())
    return None if match is None else match[1] == "1"


def _integer(request: Request, name: str) -> int | None:
    match = INTEGER.fullmatch(request.headers.get(name, "").strip())
    return None if match is None else int(match[1])


def _length(request: Request, offset: int, known: int | None) -> int | None:
    """Bytes of the whole, as far as the client has told now or before. `Problem` if it told several."""
    content = request.content_length
    if content is None and "transfer-encoding" not in request.headers:
        content = 0
    told = {known, _integer(request, "upload-length")}
    if _boolean(request, "upload-complete") and content is not None:
        told.add(offset + content)
    told.discard(None)
    if len(told) > 1:
        raise _inconsistent(known)
    length = told.pop() if told else None
    if length is not None and offset + (content or 0) > length:
        raise _inconsistent(length)
    return length


def _inconsistent(length: int | None) -> Problem:
    title = "this does not fit the length of the upload that was told"
    return Problem(400, "inconsistent-upload-length", title if length is None else f"{title}: {length}")
