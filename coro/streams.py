"""Bytes in order: reading through a buffer, wherever they come from, and the ends of pipes.

A `ReadStream` makes what protocols ask for (so many bytes, all up to a separator) out of what the kernel gives (some
bytes, when there are any). Its source is a socket or a pipe. There is no task behind it that reads ahead: what is not
asked for stays in the kernel, and the sender is slowed down.
"""

from __future__ import annotations

import os
from io import FileIO
from typing import Protocol

from coro.errors import ClosedError, EndOfStream, LimitExceeded
from coro.io import EAGER, Buffer, Descriptor, Readable
from coro.task import Coro, Request

READ_SIZE = 65536  # bytes asked of the kernel at once
LINE_LIMIT = 65536  # bytes that read_until takes unless told otherwise


class Source(Protocol):
    """Where the bytes of a `ReadStream` come from."""

    fd: int  # -1 once it is closed
    drained: bool  # wait until it is readable before the next read
    readable: Readable
    blocked: Request  # what to wait for, when a read would block

    def recv_nowait(self, limit: int) -> bytes | None: ...

    def recv(self, limit: int) -> Coro[bytes]: ...

    def recv_into(self, buffer: bytearray | memoryview) -> Coro[int]: ...

    def close(self) -> None: ...


class ReadStream:
    """Bytes to read, from one task at a time; `close` may be called from any."""

    __slots__ = ("_buffer", "_source")

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = b""  # received and not yet asked for

    def read(self, limit: int = READ_SIZE) -> Coro[bytes]:
        """Up to `limit` bytes, as soon as there are any; b"" at the end of the stream. May suspend.

        ValueError for a limit below 1, of which b"" could mean either; OSError.
        """
        if limit < 1:
            raise ValueError(f"read({limit}): ask for at least one byte (`read_exactly` reads a number of them)")
        if self._buffer:
            data, self._buffer = self._buffer[:limit], self._buffer[limit:]
            return data
        return (yield from self._source.recv(limit))

    def read_into(self, buffer: bytearray | memoryview) -> Coro[int]:
        """Fill (part of) `buffer`; how many bytes, 0 at the end of the stream. May suspend.

        ValueError for a buffer without room; OSError.
        """
        if not buffer:
            raise ValueError("read_into: the buffer has no room, and 0 would mean the end of the stream")
        if self._buffer:
            count = min(len(buffer), len(self._buffer))
            buffer[:count] = self._buffer[:count]
            self._buffer = self._buffer[count:]
            return count
        return (yield from self._source.recv_into(buffer))

    def read_exactly(self, count: int) -> Coro[bytes]:
        """`count` bytes. May suspend.

        `EndOfStream` when the stream ends before; ValueError for a negative count; OSError.
        """
        if count < 0:
            raise ValueError(f"read_exactly({count}): a stream has no end to count from")
        if len(self._buffer) >= count:
            data, self._buffer = self._buffer[:count], self._buffer[count:]
            return data
        parts = [self._buffer]
        missing = count - len(self._buffer)
        self._buffer = b""
        while missing:
            try:
                data = yield from self._source.recv(min(missing, 1 << 20))
            except BaseException:
                self._buffer = b"".join(parts)  # for who reads next
                raise
            if not data:
                raise EndOfStream(f"{self!r} ended {missing} bytes short of {count}", b"".join(parts))
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def read_until(self, separator: bytes, limit: int = LINE_LIMIT) -> Coro[bytes]:
        """All up to and including `separator`. May suspend.

        `LimitExceeded` when that is more than `limit` bytes, `EndOfStream` when the stream ends before it, OSError.
        """
        source = self._source
        buffer: bytes | bytearray = self._buffer
        self._buffer = b""
        start = 0
        while True:
            found = buffer.find(separator, start)
            end = found + len(separator) if found >= 0 else len(buffer)
            if end > limit:
                self._buffer = bytes(buffer)
                raise LimitExceeded(f"{self!r}: no {separator!r} within {limit} bytes")
            if found >= 0:
                self._buffer = bytes(buffer[end:])
                return bytes(buffer[:end])
            start = max(0, len(buffer) - len(separator) + 1)
            try:
                if source.drained:  # `recv`, without a generator of its own: this is where most protocols wait
                    yield source.readable
                while (data := source.recv_nowait(READ_SIZE)) is None:
                    yield source.blocked
            except BaseException:
                self._buffer = bytes(buffer)  # for who reads next
                raise
            if not data:
                raise EndOfStream(f"{self!r} ended before {separator!r}", bytes(buffer))
            if not buffer:  # most often all comes in one piece, and need not be copied
                buffer = data
            else:
                if isinstance(buffer, bytes):
                    buffer = bytearray(buffer)  # which grows in place
                buffer += data

    def unread(self, data: bytes) -> None:
        """Put bytes back in front of what is to be read next. Does not suspend."""
        self._buffer = data + self._buffer

    @property
    def closed(self) -> bool:
        return self._source.fd < 0

    def close(self) -> None:
        """Close now, without waiting for anything. Who waits on the stream gets `ClosedError`. Can be repeated."""
        self._source.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._source!r}>"


class WriteStream:
    """The writing end of a pipe. Write from one task at a time; `close` may be called from any."""

    __slots__ = ("_pipe",)

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def write(self, data: Buffer) -> Coro[None]:
        """Write all of `data`. Suspends while the reader does not take it (backpressure).

        BrokenPipeError when nobody can read it any more.
        """
        yield from self._pipe.send_all(data)

    @property
    def closed(self) -> bool:
        return self._pipe.fd < 0

    def close(self) -> None:
        """Close now: the reader sees the end. Who waits on the stream gets `ClosedError`. Can be repeated."""
        self._pipe.close()

    def __repr__(self) -> str:
        return f"<WriteStream {self._pipe!r}>"


class Pipe(Descriptor):
    """One end of a pipe, made non-blocking. Takes over `file`; `close` closes it."""

    __slots__ = ("_eager", "_file", "blocked", "drained")

    def __init__(self, file: FileIO) -> None:
        os.set_blocking(file.fileno(), False)  # for this end alone: the other end is an open file of its own
        super().__init__(file.fileno())
        self._file = file
        self.drained = False  # wait before the next read: the last one emptied the pipe, or it is time to
        self.blocked: Request = self.readable  # what to wait for, when a read would block
        self._eager = 0  # operations in a row that did not wait

    def recv(self, limit: int) -> Coro[bytes]:
        """Up to `limit` bytes, as soon as there are any; b"" when all writers are gone. May suspend. OSError."""
        if self.drained:
            yield self.readable
        while (data := self.recv_nowait(limit)) is None:
            yield self.blocked
        return data

    def recv_into(self, buffer: bytearray | memoryview) -> Coro[int]:
        """Fill (part of) `buffer`; the number of bytes, 0 when all writers are gone. May suspend. OSError."""
        if self.drained:
            yield self.readable
        self._check_open()
        while (count := self._file.readinto(buffer)) is None:
            yield self.blocked
            self._check_open()
        self._note_read(count < len(buffer))
        return count

    def recv_nowait(self, limit: int) -> bytes | None:
        """Up to `limit` bytes, b"" when all writers are gone; None: yield `blocked`, then try again. OSError."""
        self._check_open()
        data = self._file.read(limit)
        if data is not None:
            self._note_read(len(data) < limit)
        return data

    def _note_read(self, short: bool) -> None:
        self._eager += 1
        self.drained = short or self._eager >= EAGER
        if self.drained:
            self._eager = 0

    def send_all(self, data: Buffer) -> Coro[None]:
        """Write all of `data`. Suspends while the pipe is full. BrokenPipeError, OSError."""
        rest = memoryview(data)
        full = self._eager >= EAGER
        while rest:
            if full:
                yield self.writable
                self._eager = 0
            self._check_open()
            self._eager += 1
            count = self._file.write(rest)
            full = count is None
            rest = rest[count or 0 :]

    def _check_open(self) -> None:
        if self.fd < 0:
            raise ClosedError("the pipe is closed on this side")

    def close(self) -> None:
        """Close it now; who waits for it, or uses it later, gets `ClosedError`. Closing twice is allowed."""
        if self.fd >= 0:
            self.forget()
            self._file.close()

    def __repr__(self) -> str:
        return f"pipe, {super().__repr__()}"
