"""Files as answers, by `sendfile`: whole, or those ranges that are asked for (RFC 9110, section 14)."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from email.utils import formatdate

from coro.http.message import HeaderList, HTTPError, Request, Sender
from coro.http.preconditions import check_preconditions, validators
from coro.http.ranges import select_ranges
from coro.task import Coro
from coro.threads import to_thread


class FileResponse:
    """The content of the open file `fd`, or those ranges of it that the request asks for, or that it has not changed.

    Make it with `FileResponse.open`. It closes the file when it has been sent, or when it is dropped unsent. Without
    `etag`, the file's time of change and its size make one.
    """

    _fd = -1  # until the answer is made, the file is the caller's

    def __init__(
        self, request: Request, fd: int, headers: HeaderList = (), content_type: str = "application/octet-stream",
        etag: str | None = None,
    ) -> None:  # fmt: skip
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        etag = etag or f'"{info.st_mtime_ns:x}-{info.st_size:x}"'
        self.status = 200
        self.headers: HeaderList = [*headers, ("Accept-Ranges", "bytes"), *validators(etag, info.st_mtime)]
        self._size = info.st_size
        self._content_type = content_type
        self._pieces: list[tuple[bytes, range]] = [(b"", range(info.st_size))]  # each: what goes ahead, then bytes
        self._end = b""
        if check_preconditions(request, etag=etag, modified=info.st_mtime) is not None:
            self.status, self._pieces = 304, []
        elif request.method == "GET":  # else a range has no meaning: RFC 9110, section 14.2
            if_range = request.headers.get("if-range")
            modified = formatdate(info.st_mtime, usegmt=True)
            if if_range is None or (if_range in (etag, modified) and not if_range.startswith("W/")):
                self._select(request.headers.get("range", ""))
        if self.status != 304:
            self.headers = [("Content-Type", self._content_type), *self.headers]
        self._fd = fd

    @classmethod
    def open(
        cls, request: Request, path: str, headers: HeaderList = (), content_type: str = "application/octet-stream",
        etag: str | None = None,
    ) -> Coro[FileResponse]:  # fmt: skip
        """An answer with the file at `path`. Suspends (it is opened in a thread). OSError, `HTTPError` 412, 416."""
        fd = yield from to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # so that a FIFO opens
        try:
            return cls(request, fd, headers, content_type, etag)
        except BaseException:
            os.close(fd)
            raise

    def _select(self, wanted: str) -> None:
        size = self._size
        ranges = select_ranges(wanted, size)
        if ranges is None:
            return
        if not ranges:
            raise HTTPError(416, f"the file has {size} bytes", [("Content-Range", f"bytes */{size}")])
        self.status = 206
        if len(ranges) == 1:
            self._pieces = [(b"", ranges[0])]
            self.headers = [*self.headers, ("Content-Range", _content_range(ranges[0], size))]
            return
        boundary = secrets.token_hex(16)
        line = f"\r\n--{boundary}\r\nContent-Type: {self._content_type}\r\nContent-Range: "
        self._pieces = [(f"{line}{_content_range(piece, size)}\r\n\r\n".encode("latin-1"), piece) for piece in ranges]
        self._end = f"\r\n--{boundary}--\r\n".encode()
        self._content_type = f"multipart/byteranges; boundary={boundary}"

    def send(self, sender: Sender) -> Coro[None]:
        try:
            length = sum(len(ahead) + len(piece) for ahead, piece in self._pieces) + len(self._end)
            yield from sender.send_head(self, length)
            if sender.method != "HEAD":
                for ahead, piece in self._pieces:
                    yield from sender.send_body(ahead)
                    yield from sender.send_file(self._fd, piece.start, len(piece))
                yield from sender.send_body(self._end)
        finally:
            self.close()

    def close(self) -> None:
        """Close the file. Does not suspend; can be repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


def _content_range(piece: range, size: int) -> str:
    return f"bytes {piece.start}-{piece.stop - 1}/{size}"
