"""Files as answers, by `sendfile`, whole or one range of them (RFC 9110, section 14)."""

from __future__ import annotations

import errno
import os
import re
import stat
from email.utils import formatdate

from coro.http.message import HeaderList, HTTPError, Request, Sender
from coro.task import Coro
from coro.threads import to_thread

RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


class FileResponse:
    """The content of the open file `fd`, or the range of it that the request asks for.

    Make it with `FileResponse.open`. It closes the file when it has been sent, or when it is dropped unsent. Several
    ranges in one request are answered with the whole file, as RFC 9110, section 14.2 allows.
    """

    _fd = -1  # until the answer is made, the file is the caller's

    def __init__(
        self, request: Request, fd: int, headers: HeaderList = (), content_type: str = "application/octet-stream",
        etag: str | None = None,
    ) -> None:  # fmt: skip
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        self._offset, self._count, self.status = 0, info.st_size, 200
        modified = formatdate(info.st_mtime, usegmt=True)
        validators = [("Last-Modified", modified), *([("ETag", etag)] if etag else [])]
        self.headers: HeaderList = [
            *headers, ("Content-Type", content_type), ("Accept-Ranges", "bytes"), *validators
        ]  # fmt: skip
        if request.method == "GET":  # else a range has no meaning: RFC 9110, section 14.2
            if_range = request.headers.get("if-range")
            if if_range is None or (if_range in (etag, modified) and not if_range.startswith("W/")):
                self._select(request.headers.get("range", ""), info.st_size)
        self._fd = fd

    @classmethod
    def open(
        cls, request: Request, path: str, headers: HeaderList = (), content_type: str = "application/octet-stream",
        etag: str | None = None,
    ) -> Coro[FileResponse]:  # fmt: skip
        """An answer with the file at `path`. Suspends (the file is opened in a thread). OSError."""
        fd = yield from to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # so that a FIFO opens
        try:
            return cls(request, fd, headers, content_type, etag)
        except BaseException:
            os.close(fd)
            raise

    def _select(self, wanted: str, size: int) -> None:
        found = RANGE.fullmatch(wanted.strip())
        if found is None or not (found[1] or found[2]):
            return
        first, last = found[1], found[2]
        if first and last and int(last) < int(first):
            return  # not a valid range: ignored
        if not first:
            start, end = max(0, size - int(last)), size
        else:
            start, end = int(first), min(int(last) + 1, size) if last else size
        if start >= end:
            raise HTTPError(416, f"the file has {size} bytes", [("Content-Range", f"bytes */{size}")])
        self.status = 206
        self._offset, self._count = start, end - start
        self.headers = [*self.headers, ("Content-Range", f"bytes {start}-{end - 1}/{size}")]

    def send(self, sender: Sender) -> Coro[None]:
        try:
            yield from sender.send_head(self, self._count)
            if sender.method != "HEAD":
                yield from sender.send_file(self._fd, self._offset, self._count)
        finally:
            self.close()

    def close(self) -> None:
        """Close the file. Does not suspend; can be repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close
