"""Bodies to send that are not in memory: files, forms with files, and what is made while it is sent.

A file is read off the loop, a piece at a time, when the server has taken the piece before.
"""

from __future__ import annotations

import mimetypes
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from coro.files import on_disk, open_file
from coro.http.client.request import Write
from coro.http.client.url import CONTROL
from coro.task import Coro

READ_SIZE = 1 << 18  # bytes of a file read at once
OCTETS = "application/octet-stream"


class FileBody:
    """A file on disk, as a body or as a part of a `MultipartBody`. Its type is guessed from its name, if not given.

    OSError, naming the file, when it cannot be read; EOFError when it has become shorter meanwhile.
    """

    repeatable = True

    def __init__(
        self, path: str | os.PathLike[str], *, filename: str | None = None, content_type: str | None = None
    ) -> None:
        self.path = os.fspath(path)
        self.filename = os.path.basename(self.path) if filename is None else filename
        self.content_type = content_type or mimetypes.guess_type(self.filename)[0] or OCTETS
        self._size = 0

    def size(self) -> Coro[int]:
        """Its size in bytes: what grows afterwards is not sent. Suspends. OSError."""
        self._size = yield from on_disk(os.path.getsize, self.path)
        return self._size

    def write_to(self, write: Write) -> Coro[None]:
        left = self._size
        with (yield from open_file(self.path)) as file:
            while left:
                data = yield from file.read(min(left, READ_SIZE))
                if not data:
                    raise EOFError(f"{self.path} has become {left} bytes shorter while it was sent")
                left -= len(data)
                yield from write(data)

    def __repr__(self) -> str:
        return f"<FileBody {self.path}>"


class StreamBody:
    """A body that is made while it is sent: `write_body(write)` calls `yield from write(data)` for each piece.

    With `length`, its bytes must be as many, and the server is told beforehand; else it is sent in chunks. Only one
    that is `repeatable`, whose `write_body` can be called again, can follow a redirect that keeps the method, or be
    sent again when the server has closed the connection that was kept.
    """

    def __init__(
        self,
        write_body: Callable[[Write], Coro[None]],
        *,
        length: int | None = None,
        content_type: str = OCTETS,
        repeatable: bool = False,
    ) -> None:
        self.content_type = content_type
        self.repeatable = repeatable
        self._write_body = write_body
        self._length = length

    def size(self) -> Coro[int | None]:
        yield from ()
        return self._length

    def write_to(self, write: Write) -> Coro[None]:
        return self._write_body(write)


class BytesPart:
    """Bytes in memory that a form sends as a file."""

    repeatable = True

    def __init__(self, data: bytes, *, filename: str | None, content_type: str | None = OCTETS) -> None:
        self.data = data
        self.filename = filename
        self.content_type = content_type

    def size(self) -> Coro[int]:
        yield from ()
        return len(self.data)

    def write_to(self, write: Write) -> Coro[None]:
        yield from write(self.data)


Part: TypeAlias = str | FileBody | BytesPart


class MultipartBody:
    """A form as multipart/form-data (RFC 7578): `MultipartBody({"title": "Sun", "photo": FileBody("sun.jpg")})`."""

    repeatable = True

    def __init__(self, parts: Mapping[str, Part] | Sequence[tuple[str, Part]]) -> None:
        self._boundary = secrets.token_hex(16)  # too random to stand in a part
        self.content_type = f"multipart/form-data; boundary={self._boundary}"
        self._parts: list[tuple[bytes, BytesPart | FileBody]] = []
        for name, given in parts.items() if isinstance(parts, Mapping) else parts:
            part = BytesPart(given.encode(), filename=None, content_type=None) if isinstance(given, str) else given
            self._parts.append((self._part_head(name, part), part))
        self._end = f"--{self._boundary}--\r\n".encode()

    def _part_head(self, name: str, part: BytesPart | FileBody) -> bytes:
        lines = [f"--{self._boundary}", f'Content-Disposition: form-data; name="{_escaped(name)}"']
        if part.filename is not None:
            lines[1] += f'; filename="{_escaped(part.filename)}"'
        if part.content_type is not None:
            lines.append(f"Content-Type: {part.content_type}")
        if any(CONTROL.search(line) for line in lines):
            raise ValueError(f"part {name!r} of a form has a name or a type with control characters")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def size(self) -> Coro[int]:
        """Bytes of the whole form. Suspends for files. OSError."""
        total = len(self._end)
        for head, part in self._parts:
            total += len(head) + (yield from part.size()) + 2
        return total

    def write_to(self, write: Write) -> Coro[None]:
        for head, part in self._parts:
            yield from write(head)
            yield from part.write_to(write)
            yield from write(b"\r\n")
        yield from write(self._end)


def _escaped(name: str) -> str:
    """As browsers do it (HTML, "multipart/form-data encoding algorithm"), who agree where the RFCs do not."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
