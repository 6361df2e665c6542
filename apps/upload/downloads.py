"""What is stored, given out: one file, several as a ZIP archive, and links for people without an account.

| request                   | answer                                                                                  |
|---------------------------|-----------------------------------------------------------------------------------------|
| `GET /uploads/ID`         | the file, or ranges of it, to be saved; with `?inline=1` shown, if its kind is harmless |
| `GET /archive?ids=ID,ID`  | a ZIP archive, made while it is sent                                                    |
| `POST /uploads/ID/link`   | `seconds` it shall work (a week): 201, `{"url", "expires"}`                             |
| `GET /shared/LINK`        | as `GET /uploads/ID`, for whoever has the link                                          |

A link says whose upload it is for and until when, and carries an HMAC-SHA256 of that under the key in DIR/key. It ends
before its time with its upload, or, like all the others, with the key.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

import coro
from apps.upload.names import UNQUOTABLE
from apps.upload.store import Upload
from coro import Coro
from coro.http import Answer, FileResponse, HTTPError, Request, Response, StreamResponse

if TYPE_CHECKING:
    from apps.upload.handlers import UploadHandlers

logger = logging.getLogger("upload")

# Kinds that browsers show without running anything, by the ending of the name; `nosniff` holds them to it.
HARMLESS = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp",
    ".avif": "image/avif", ".txt": "text/plain; charset=utf-8", ".mp3": "audio/mpeg", ".mp4": "video/mp4",
    ".webm": "video/webm",
}  # fmt: skip
LINK_TIME, MAX_LINK_TIME = 7 * 86400, 365 * 86400  # seconds
MAX_FILES = 1000  # of an archive
PIECE_SIZE = 1 << 18  # bytes of a file read at once
UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')  # in the names of an archive, on some system or other


class DownloadHandlers:
    """The requests that give something out, for the app's other handlers to be asked whose it is."""

    def __init__(self, app: UploadHandlers) -> None:
        """Blocks briefly. OSError."""
        self.app = app
        self._key = _load_key(app.storage.root)
        app.router.add("GET", "/uploads/{id}", self.download)
        app.router.add("POST", "/uploads/{id}/link", self.link)
        app.router.add("GET", "/shared/{link}", self.shared)
        app.router.add("GET", "/archive", self.archive)

    def download(self, request: Request) -> Coro[Answer]:
        return (yield from self._file(request, (yield from self.app.upload(request))))

    def _file(self, request: Request, upload: Upload) -> Coro[Answer]:
        ending = os.path.splitext(upload.name)[1].lower()
        kind = HARMLESS.get(ending) if request.query.get("inline") == "1" else None
        headers = [
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", "default-src 'none'; sandbox"),
            ("Content-Disposition", disposition("attachment" if kind is None else "inline", upload.name)),
            ("Cache-Control", "private, no-cache"),
        ]
        path, etag = str(self.app.storage.root / upload.path), f'"{upload.sha256 or upload.id}"'
        try:
            return (yield from FileResponse.open(request, path, headers, kind or "application/octet-stream", etag))
        except FileNotFoundError:
            logger.error("the file of upload %s is missing: %s", upload.id, upload.path)
            raise HTTPError(404, "the file is not there any more") from None

    # --- Links -----------------------------------------------------------------------------

    def link(self, request: Request) -> Coro[Answer]:
        upload = yield from self.app.upload(request)
        fields = (yield from request.json(1000)) if request.content_length else {}
        seconds = fields.get("seconds", LINK_TIME) if isinstance(fields, dict) else None
        if not isinstance(seconds, int) or not 0 < seconds <= MAX_LINK_TIME:
            raise HTTPError(400, f"`seconds` is a number from 1 to {MAX_LINK_TIME}")
        expires = int(time.time()) + seconds
        text = f"{upload.user_id}-{upload.id}-{expires}"
        return Response.json({"url": f"/shared/{text}-{self._signature(text)}", "expires": expires}, 201)

    def shared(self, request: Request) -> Coro[Answer]:
        text, _, signature = request.params["link"].rpartition("-")
        if not hmac.compare_digest(signature.encode(), self._signature(text).encode()):
            raise HTTPError(404, "there is no such link")
        user_id, upload_id, expires = text.split("-")
        if int(expires) < time.time():
            raise HTTPError(410, "this link has expired")
        upload = yield from self.app.metadata.get_upload(int(user_id), upload_id)
        if upload is None:
            raise HTTPError(410, "what this link was for is not there any more")
        return (yield from self._file(request, upload))

    def _signature(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    # --- Several at once ----------------------------------------------------------------------

    def archive(self, request: Request) -> Coro[Answer]:
        user_id = yield from self.app.user(request)
        ids = [word for word in request.query.get("ids", "").split(",") if word and word.isascii()]
        if not 0 < len(ids) <= MAX_FILES:
            raise HTTPError(400, f"`ids` are those of 1 to {MAX_FILES} uploads, separated by commas")
        uploads: list[Upload] = []
        for upload_id in dict.fromkeys(ids):
            upload = yield from self.app.metadata.get_upload(user_id, upload_id)
            if upload is None:
                raise HTTPError(404, f"there is no upload {upload_id}")
            uploads.append(upload)

        def write_body(write: Callable[[bytes], Coro[None]]) -> Coro[None]:
            yield from _write_archive(self.app.storage.root, uploads, write)

        headers = [("Content-Disposition", disposition("attachment", "uploads.zip")), ("Cache-Control", "no-store")]
        return StreamResponse(write_body, 200, headers, "application/zip")


class _Output:
    """Where `zipfile` writes to: what has come is taken away now and then. It cannot seek, and `zipfile` knows."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        data, self._data = bytes(self._data), bytearray()
        return data


def _write_archive(root: Path, uploads: Sequence[Upload], write: Callable[[bytes], Coro[None]]) -> Coro[None]:
    """A ZIP archive, a piece in memory at a time. Suspends. OSError if a file goes meanwhile: the answer breaks off."""
    output = _Output()
    archive = zipfile.ZipFile(output, "w")  # type: ignore[call-overload]  # it needs no more than that of a file
    try:
        for upload, name in zip(uploads, _archive_names(uploads), strict=True):
            file: IO[bytes] = yield from coro.on_disk(open, root / upload.path, "rb")
            with file:
                moment = time.strptime(upload.created_at[:19], "%Y-%m-%dT%H:%M:%S")[:6]
                info = zipfile.ZipInfo(name, (max(moment[0], 1980), *moment[1:]))
                with archive.open(info, "w", force_zip64=True) as entry:
                    while (yield from coro.on_disk(_copy_piece, file, entry)):
                        yield from write(output.take())
    finally:
        archive.close()
    yield from write(output.take())


def _copy_piece(file: IO[bytes], entry: IO[bytes]) -> int:
    data = file.read(PIECE_SIZE)
    return entry.write(data) if data else 0


def _archive_names(uploads: Sequence[Upload]) -> Iterator[str]:
    """Names that stay within the folder where they are unpacked, and none twice."""
    seen: set[str] = set()
    for upload in uploads:
        plain = UNSAFE.sub("_", upload.name).strip(". ") or "upload"
        stem, dot, ending = plain.rpartition(".")
        name, number = plain, 1
        while name.lower() in seen:
            number += 1
            name = f"{stem} ({number}){dot}{ending}" if stem else f"{plain} ({number})"
        seen.add(name.lower())
        yield name


def disposition(kind: str, name: str) -> str:
    """A Content-Disposition under the file's own name (RFC 6266; the name as in RFC 8187)."""
    plain = UNQUOTABLE.sub("_", name)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _load_key(root: Path) -> bytes:
    """The key of the links; made by the first process that asks for it."""
    path = root / "key"
    if not path.exists():
        new = root / f"key-{secrets.token_hex(8)}"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(secrets.token_bytes(32))
        with suppress(FileExistsError):  # another process was faster: its key is the one
            os.link(new, path)
        os.unlink(new)
    return path.read_bytes()
