"""What each request does, top to bottom: session, body to disk, row, answer.

| request               | answer                                                                        |
|-----------------------|-------------------------------------------------------------------------------|
| `PUT /upload/NAME`    | 201, `{"id", "name", "size", "url"}`                                          |
| `POST /upload`        | a form's files: 201, `{"uploads": [as above, ...]}`; all of them or none      |
| `GET /uploads`        | 200, `{"uploads": [as above, with "sha256" and "created_at"; newest first]}`  |
| `GET /uploads/ID`..   | the file; archives, links for others: see downloads.py                        |
| `DELETE /uploads/ID`  | 204                                                                           |
| `/files/`             | resumable uploads, see tus.py; by the IETF's draft, see draft.py              |
| `/login`, `/logout`.. | accounts, see logins.py                                                       |
| `GET /health`         | 200 while the process serves                                                  |
| `GET /stats`          | under `coro run --stats`: how many requests a second this process could do    |
| `GET /ready`          | 200 while the stores answer and the directory is there, else 503              |
| `GET /metrics`        | numbers for Prometheus; from other machines for users only                    |
| `GET /`, `/static/..` | the page, see page.py                                                         |

Every answer that is not one of these is `{"error": "..."}` with the status that is due.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Sequence
from ipaddress import ip_address
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import coro
from apps.upload.accounts import Accounts
from apps.upload.arrivals import Arrivals
from apps.upload.contents import Contents
from apps.upload.digests import CheckedBody, Expected
from apps.upload.downloads import DownloadHandlers
from apps.upload.draft import DraftHandlers
from apps.upload.logins import LoginHandlers
from apps.upload.names import checked_name
from apps.upload.page import add_page
from apps.upload.parts import TooLarge
from apps.upload.policy import RETRY_SOON, Admission, Policy
from apps.upload.resumable import Resumables
from apps.upload.sniffing import AllowedTypes
from apps.upload.storage import FILES, Storage
from apps.upload.store import FULL, Metadata, NoRoom, OutcomeUnknown, Sessions, StoreDown, Upload
from apps.upload.tus import TusHandlers
from coro import Coro
from coro.debug import stats
from coro.http import (
    Answer,
    HTTPError,
    Metrics,
    MultipartReader,
    Request,
    Response,
    Router,
)

logger = logging.getLogger("upload")

OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
REPORT_TIME = 5.0  # seconds between two reports of the same store being down


class UploadHandlers:
    """The app's requests, on given stores. `handle` is the handler for `coro.http.Server`."""

    def __init__(
        self, sessions: Sessions, metadata: Metadata, storage: Storage, contents: Contents, resumables: Resumables,
        policy: Policy, types: AllowedTypes | None, *, draft: bool,
    ) -> None:  # fmt: skip
        self.sessions = sessions
        self.metadata = metadata
        self.policy = policy
        self.types = types  # that may be stored; None: all
        self.metrics = Metrics()
        self.storage = storage
        self.contents = contents
        self.refusals = Refusals()
        self.router = router = Router()
        router.add("POST", "/upload", self.post)
        router.add("GET", "/uploads", self.list)
        router.add("DELETE", "/uploads/{id}", self.delete)
        router.add("GET", "/health", self.health)
        router.add("GET", "/stats", self.stats)
        router.add("GET", "/ready", self.ready)
        router.add("GET", "/metrics", self.show_metrics)
        add_page(router)
        self.user = LoginHandlers(router, sessions, Accounts(sessions, metadata, storage.root)).user
        if draft:
            DraftHandlers(self, Arrivals(self, resumables, draft=True))
        else:
            router.add("PUT", "/upload/{name}", self.put)  # one of the first: patterns are tried in this order
        DownloadHandlers(self)
        TusHandlers(self, Arrivals(self, resumables))

    def handle(self, request: Request) -> Coro[Answer]:
        """The answer to any request. Suspends. `HTTPError`."""
        with self.refusals:
            if request.method not in SAFE_METHODS:
                _check_origin(request)
            return (yield from self.router.handle(request))

    # --- Uploading -------------------------------------------------------------------

    def put(self, request: Request) -> Coro[Answer]:
        user_id = yield from self.user(request)
        name = checked_name(request.params["name"])
        _check_length(request)
        expected = Expected(request.headers, "content-digest", "repr-digest")
        with (yield from self.policy.admit(user_id, request.content_length, request.content_length)) as admission:
            body = request.body if self.types is None else (yield from self.types.checked(request.body))
            stored = yield from self.storage.store(body, admission.limit, admission.room, expected.hashes)
            upload = Upload(stored.id, user_id, name, stored.path, stored.size, stored.sha256)
            try:
                expected.check()
            except HTTPError:
                yield from self.storage.discard(stored.path)
                raise
            yield from self.commit([upload])
        return Response.json(_described(upload), 201, [("Location", f"/uploads/{upload.id}")])

    def post(self, request: Request) -> Coro[Answer]:
        user_id = yield from self.user(request)
        body = CheckedBody(request.body, Expected(request.headers, "content-digest", "repr-digest"))
        form = MultipartReader(request, body)
        with (yield from self.policy.admit(user_id, None, request.content_length)) as admission:
            uploads = yield from self._store_files(form, body, user_id, admission)
            yield from self.commit(uploads)
        return Response.json({"uploads": [_described(upload) for upload in uploads]}, 201)

    def _store_files(
        self, form: MultipartReader, body: CheckedBody, user_id: int, admission: Admission
    ) -> Coro[Sequence[Upload]]:
        """The files of a form; none of them if one cannot be stored."""
        uploads: list[Upload] = []
        left, largest = admission.limit, self.storage.max_size
        try:
            while part := (yield from form.next_part()):
                if part.filename:
                    name = checked_name(part.filename)
                    limit = left if left is None or largest is None else min(left, largest)
                    pieces = part if self.types is None else (yield from self.types.checked_pieces(part))
                    stored = yield from self.storage.store_pieces(pieces, limit, admission.room)
                    uploads.append(Upload(stored.id, user_id, name, stored.path, stored.size, stored.sha256))
                    if self.policy.quota is not None and left is not None:
                        left -= stored.size
            if not uploads:
                raise HTTPError(400, "there is no file in the form")
            yield from body.finish()
        except BaseException:
            yield from self.storage.discard(*(upload.path for upload in uploads))
            raise
        return uploads

    def commit(self, uploads: Sequence[Upload]) -> Coro[None]:
        """Write the rows of whole files. If that fails, remove the files; but never one that may have a row."""
        try:
            with coro.shield():  # a client that leaves now has sent all there is
                if self.contents.sharing:
                    yield from self._share(uploads)
                yield from self.metadata.add_uploads(uploads)
        except (StoreDown, NoRoom) as error:
            if isinstance(error, OutcomeUnknown):
                self.storage.undecided = True
            else:
                yield from self.storage.discard(*(upload.path for upload in uploads))
                yield from self.contents.release(uploads)
            raise
        except BaseException:
            self.storage.undecided = True
            raise

    def _share(self, uploads: Sequence[Upload]) -> Coro[None]:
        try:
            yield from self.contents.share(uploads)
        except OSError as error:  # which is no reason to refuse them
            logger.warning("stored once more, though the same may be there already: %s", error)

    # --- What is stored ----------------------------------------------------------------

    def list(self, request: Request) -> Coro[Answer]:
        user_id = yield from self.user(request)
        uploads = yield from self.metadata.list_uploads(user_id)
        described = [
            {**_described(upload), "sha256": upload.sha256, "created_at": upload.created_at} for upload in uploads
        ]
        return Response.json({"uploads": described}, headers=[("Cache-Control", "no-store")])

    def delete(self, request: Request) -> Coro[Answer]:
        upload = yield from self.upload(request)
        note = yield from self.storage.note_deletion(upload.id, upload.path)
        try:
            with coro.shield():
                yield from self.metadata.delete_upload(upload.id)  # first the row: no row without its file
        except BaseException:
            self.storage.undecided = True
            raise
        yield from self.storage.discard(upload.path, note)
        yield from self.contents.release([upload])
        return Response(204)

    def upload(self, request: Request) -> Coro[Upload]:
        """The upload that the path names, if it is the caller's. `HTTPError` 401, 404."""
        user_id = yield from self.user(request)
        upload_id = request.params["id"]
        upload = (yield from self.metadata.get_upload(user_id, upload_id)) if upload_id.isascii() else None
        if upload is None:
            raise HTTPError(404, "there is no such upload")
        return upload

    # --- The rest -------------------------------------------------------------------------

    def health(self, request: Request) -> Coro[Answer]:
        yield from ()
        return Response.json({"status": "ok"})

    def stats(self, request: Request) -> Coro[Answer]:
        yield from self.user(request)
        measuring = stats()
        if measuring is None:
            raise HTTPError(404, "nothing is measured: start the server with `coro run --stats apps.upload`")
        return Response(200, str(measuring.report()).encode(), content_type="text/plain; charset=utf-8")

    def ready(self, request: Request) -> Coro[Answer]:
        yield from coro.gather(self.sessions.lookup("ready"), self.metadata.find_upload("ready"))
        try:
            yield from coro.on_disk(os.stat, self.storage.root / FILES)
        except OSError as error:
            logger.error("cannot use %s: %s", self.storage.root, error)
            raise HTTPError(503, "the directory of the files cannot be used") from None
        return Response.json({"status": "ready"})

    def show_metrics(self, request: Request) -> Coro[Answer]:
        if not _is_local(request.client):
            yield from self.user(request)
        return (yield from self.metrics.handle(request))


class Refusals:
    """A block in which what keeps the app from doing what it was asked becomes an `HTTPError`."""

    def __init__(self) -> None:
        self._reported: dict[str, float] = {}  # when it was last logged that a store is down

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, StoreDown):
            self._report(error)
            raise HTTPError(503, f"{error.server} does not answer; try again later", RETRY_SOON) from None
        if isinstance(error, TooLarge):
            raise HTTPError(413, str(error)) from None
        if isinstance(error, OSError) and error.errno in OUT_OF_DESCRIPTORS:
            raise HTTPError(503, "too many uploads at once; try again later", RETRY_SOON) from None
        if isinstance(error, NoRoom) or (isinstance(error, OSError) and error.errno in FULL):
            logger.warning("%s", error)
            raise HTTPError(507, "the disk is full") from None

    def _report(self, error: StoreDown) -> None:
        """Log that a store is down, but not for each request that needs it."""
        now = time.monotonic()
        if now - self._reported.get(error.server, -REPORT_TIME) >= REPORT_TIME:
            self._reported[error.server] = now
            logger.warning("%s", error)


def _described(upload: Upload) -> dict[str, Any]:
    return {"id": upload.id, "name": upload.name, "size": upload.size, "url": f"/uploads/{upload.id}"}


def _is_local(address: str) -> bool:
    return address == "unix" or ip_address(address).is_loopback


def _check_length(request: Request) -> None:
    if request.content_length is None and "transfer-encoding" not in request.headers:
        raise HTTPError(411, "an upload needs Content-Length, 0 for an empty file, or Transfer-Encoding: chunked")


def _check_origin(request: Request) -> None:
    """Refuse what another site's page makes a browser send: browsers say in `Origin` whose page it is (RFC 6454)."""
    origin = request.headers.get("origin")
    if origin is not None and _host_of(origin) != request.host:
        raise HTTPError(403, "this request comes from another site's page")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # not a URL
        return None
