"""The body of a request, read as a stream. A client that sends faster than the handler reads is slowed down by TCP."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from coro.http.message import ClientDisconnected, HTTPError
from coro.http.parser import Head
from coro.task import Coro

if TYPE_CHECKING:
    from coro.http.connection import Connection

READ_SIZE = 32768  # bytes; the allocator serves 64 KiB and more by a slower path


class Body:
    """Reading suspends while nothing has come, and raises `ClientDisconnected` when the rest never will.

    A body with Content-Length that did not arrive with its head is read straight from the socket, past the parser,
    into the reader's buffer.
    """

    __slots__ = ("_connection", "_direct", "_head")

    def __init__(self, head: Head, connection: Connection) -> None:
        self._head = head
        self._connection = connection
        self._direct = 0  # bytes still to be read from the socket, past the parser

    @property
    def complete(self) -> bool:
        """Has the whole body been received? (Not: been read.)"""
        return self._head.complete

    @property
    def missing(self) -> int | None:
        """Bytes that have not been received yet; None when the client has not told."""
        head = self._head
        if head.complete:
            return 0
        return None if head.content_length is None else self._direct or head.content_length - head.buffered

    def buffered(self) -> bytes | None:
        """The whole body if it has been received already, else None. Does not suspend."""
        head = self._head
        if not head.complete:
            return None
        return self._take(head.buffered) if head.chunks else b""

    def read(self, limit: int = READ_SIZE) -> Coro[bytes]:
        """Up to `limit` bytes (at least one), as soon as there are any; b"" at the end."""
        if limit < 1:
            raise ValueError(f"reading {limit} bytes: b\"\" would mean that the body has ended")
        head = self._head
        while not head.chunks:
            if head.complete:
                return b""
            if head.content_length is not None:
                connection = self._connection
                room = self._start_direct(min(limit, READ_SIZE))
                data = yield from connection.await_body(connection.socket.recv(room))
                self._received(len(data))
                return data
            yield from self._connection.receive_chunks(head)
        return self._take(limit)

    def read_into(self, buffer: memoryview) -> Coro[int]:
        """Fill (part of) `buffer`; how many bytes, 0 at the end."""
        head = self._head
        if not head.chunks and not head.complete and head.content_length is not None:
            room = self._start_direct(len(buffer))
            connection = self._connection
            count = yield from connection.await_body(connection.socket.recv_into(buffer[:room]))
            self._received(count)
            return count
        data = yield from self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read_all(self, limit: int) -> Coro[bytes]:
        """The whole body. `HTTPError` 413 when it is more than `limit` bytes."""
        length = self._head.content_length
        if length is not None and length > limit:
            raise HTTPError(413, f"the body may have at most {limit} bytes")
        body = BytesIO()  # and not a list: its pieces may be of a byte or two, and their objects not
        while data := (yield from self.read()):
            if body.tell() + len(data) > limit:
                raise HTTPError(413, f"the body may have at most {limit} bytes")
            body.write(data)
        return body.getvalue()

    def _take(self, limit: int) -> bytes:
        head = self._head
        data = head.chunks[0] if len(head.chunks) == 1 else b"".join(head.chunks)
        head.chunks = () if len(data) <= limit else [data[limit:]]
        return data[:limit]

    def _start_direct(self, room: int) -> int:
        """Take the rest of the body over from the parser; how many bytes may be read now."""
        if not self._direct:
            assert self._head.content_length is not None
            self._direct = self._head.content_length - self._head.buffered
            self._connection.parser.detach()
        return min(room, self._direct)

    def _received(self, count: int) -> None:
        if not count:
            raise ClientDisconnected(f"the client closed the connection {self._direct} bytes before the body's end")
        self._connection.earn(count)
        self._direct -= count
        self._head.buffered += count
        if not self._direct:
            self._head.complete = True
