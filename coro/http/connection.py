"""One client's connection: a task that reads heads, runs the handler and sends its answer, in order.

What a connection may cost is bounded: the parser limits what a client sends, and one deadline, moved as the
connection goes from state to state, limits how long it may take. When it has passed, or when the client has gone,
whatever the connection waits for is cancelled, in the handler too. A connection whose request or answer was
interrupted is closed, never reused.
"""

from __future__ import annotations

import logging
import math
import os
import select
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from selectors import EVENT_READ
from typing import TYPE_CHECKING, TypeVar, cast

from coro.errors import EndOfStream
from coro.http.body import READ_SIZE, Body
from coro.http.message import (
    BODILESS,
    Answer,
    ClientDisconnected,
    HeaderList,
    HTTPError,
    Request,
    Response,
    encode_head,
)
from coro.http.parser import Head, RequestParser
from coro.io import address_text
from coro.net import Stream
from coro.task import CancelScope, Coro, Task
from coro.task import Request as Wait
from coro.threads import to_thread
from coro.timing import checkpoint, move_on_after

if TYPE_CHECKING:
    from coro.http.server import Server

logger = logging.getLogger("coro.http")

T = TypeVar("T")

DRAIN_SIZE = 65536  # an unread rest of a body up to this size is read and dropped, to keep the connection
LINGER_TIME = 30.0  # seconds for which what the client still sends is read and dropped before closing
LINGER_IDLE_TIME = 2.0  # ... if it goes on sending
SEND_SIZE = 1 << 18  # bytes of an answer that must be taken within the limit for an idle body
SENDFILE_SIZE = 1 << 20  # bytes of a file sent at once, so that one download does not hold the loop
CLIENT_CLOSED_REQUEST = 499  # in the access log, for an answer that nobody waited for; nginx's number
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LOST = (ConnectionError, EndOfStream, ssl.SSLError)
NOTHING: tuple[Wait, ...] = ()  # to wait for


class Connection:
    """One client's connection, and the `Sender` of its answers."""

    __slots__ = (
        "_answer", "_chunked", "_credit", "_gone", "_left", "_reuse", "_scope", "_sent", "_started",
        "_unsent", "busy", "deadline", "parser", "peer", "request", "server", "socket", "task",
    )  # fmt: skip

    def __init__(self, server: Server, stream: Stream) -> None:
        self.server = server
        self.task: Task[None]  # that serves it
        self.parser = RequestParser(server.limits, server.plain)
        self.peer = "somebody"  # until it is asked for
        self.busy = False  # is a head arriving, or a request being answered?
        self.request: Request | None = None  # the one being answered
        self.deadline = math.inf  # on the server's clock
        self.socket = stream.socket
        self._scope = CancelScope()
        self._started: float | None = None  # when the request being answered began, for who keeps count
        self._answer: Answer | None = None  # the one whose head has been sent
        self._sent = 0  # bytes of its body
        self._unsent: int | None = None  # bytes of its body still to come, if it has told
        self._chunked = False
        self._credit = 0.0  # seconds that the request's body may still be waited for
        self._left = server.limits.requests  # requests that may still come
        self._reuse = True  # may another request follow?
        self._gone = False  # has the client closed the connection while its request was being answered?

    @property
    def answered(self) -> bool:
        """Has it had an answer?"""
        return self._left < self.server.limits.requests

    @property
    def method(self) -> str:
        assert self.request is not None
        return self.request.method

    @property
    def tls(self) -> bool:
        return self.socket.tls

    def run(self) -> Coro[None]:
        """Serve the connection to its end, and close it. Raises nothing that is a client's or a handler's fault."""
        try:
            self.peer = address_text(self.socket.sock.getpeername())
            self.socket.watcher = self
            with self._scope:
                self.deadline = self.server.now + self.server.limits.head_time
                if self.socket.tls:
                    yield from Stream(self.socket).handshake()
                    self.deadline = self.server.now + self.server.limits.head_time
                yield from self._serve()
            if self._scope.cancelled_caught and self.busy and self._answer is None and not self._gone:
                yield from self._refuse(408, "the request did not arrive in time")
        except (OSError, ClientDisconnected) as error:
            logger.debug("%s: %s", self.peer, error)
        except Exception:
            logger.exception("serving %s failed", self.peer)
        finally:
            self.close()

    def close(self) -> None:
        """Does not suspend; can be repeated."""
        self.socket.watcher = self.request = None
        self.deadline = math.inf
        self.socket.close()
        self.server.ended(self)

    @property
    def idle(self) -> bool:
        """Does it wait for a request of which nothing has come?"""
        return not self.busy and self.task.request is self.socket.readable

    def expire(self) -> None:
        """The deadline has passed, or nobody needs it: cancel whatever the connection waits for. Does not suspend."""
        self._scope.cancel()

    # --- Requests ---------------------------------------------------------------

    def _serve(self) -> Coro[None]:
        """Read heads and answer them, in one frame: a generator for each request would cost more than its parsing."""
        parser, server, socket = self.parser, self.server, self.socket
        while True:
            if socket.drained:
                yield socket.readable
            while (data := socket.recv_nowait(READ_SIZE)) is None:
                yield socket.blocked
            if not data:
                return
            head = parser.next_head(data)
            del data  # lest it is kept for as long as the handler waits
            while head is not None:
                self._begin(head)
                assert self.request is not None
                try:
                    yield from (yield from server.handler(self.request)).send(self)
                    if self._unsent or self._chunked:
                        yield from self._end_body()
                except Exception as error:
                    yield from self._fail(self.request, error)
                finally:
                    if server.recorders:
                        self._record(self.request)
                if self._reuse and not head.complete:
                    yield from self._drain(self.request.body)
                del head
                self.request = self._answer = self._started = None
                if not self._reuse:
                    yield from self._linger()
                    return
                if server.stopping:
                    return
                self.busy = False
                self.deadline = server.now + server.limits.idle_time
                head = parser.next_head()
                if head is not None:
                    yield from checkpoint()  # who pipelines gets one answer a turn, like everybody else
            if parser.refusal is not None:
                yield from self._refuse(parser.refusal.status, parser.refusal.reason)
                return
            if parser.mid_head and not self.busy:
                self.busy = True
                self.deadline = server.now + server.limits.head_time

    def _begin(self, head: Head) -> None:
        """The request is complete, but for its body: from here on it is being answered."""
        if not self.socket.events & EVENT_READ:  # as it is from the first wait on
            self.socket.watch(self.task.loop, self.socket.events | EVENT_READ)
        if self.server.recorders:
            self._started = self.task.loop.time()
        self.request = Request(head, self)
        self.busy = True
        self.deadline = math.inf
        self._sent, self._chunked, self._unsent = 0, False, 0

    def _end_body(self) -> Coro[None]:
        """The answer has sent all that it wanted to."""
        if self._unsent:
            raise ValueError(f"the answer is {self._unsent} bytes shorter than it told")
        yield from self._send(b"0\r\n\r\n")

    def on_unread(self) -> None:
        """Something has come while nobody reads: if it is the end, nobody waits for the answer any more.

        While it is waited for to take more of the answer, that will tell: it may have closed its direction only. As
        long as its request's body is not whole, who reads that will see the end, after all that came before it.
        """
        request = self.request
        if request is None or not request.head.complete or self.deadline < math.inf or not self._has_ended():
            return
        self._gone = True
        self._scope.cancel()

    @property
    def unwatched(self) -> bool:
        """Is a request being answered behind whose back bytes have come, so that no end would be reported?"""
        return self.request is not None and self.socket.watcher is self and not self.socket.events & EVENT_READ

    def _has_ended(self) -> bool:
        """Has the client closed its direction? Also behind bytes that nobody has read: poll(2), POLLRDHUP."""
        poll = select.poll()
        poll.register(self.socket.fd, select.POLLRDHUP)  # a connection that is broken is told of unasked
        return bool(poll.poll(0))

    def _fail(self, request: Request, error: Exception) -> Coro[None]:
        """The handler, or sending its answer, raised: answer with the status that is due, or break off."""
        try:
            yield from self._answer_error(request, error)
        except ClientDisconnected as gone:
            logger.debug("%s: %s", self.peer, gone)
            self._reuse = False

    def _answer_error(self, request: Request, error: Exception) -> Coro[None]:
        if isinstance(error, ClientDisconnected):
            raise error
        if isinstance(error, HTTPError) and self._answer is None:
            try:
                yield from self.server.error_page(request, error).send(self)
                if self._unsent or self._chunked:
                    yield from self._end_body()
                return
            except ClientDisconnected:
                raise
            except Exception as malformed:
                error = malformed
        if self._answer is not None and self._answer.status == 101 and isinstance(error, LOST) and self._has_ended():
            raise ClientDisconnected(f"{self.peer}: {error}")  # so the other protocol's reader or writer was told
        logger.error("%s %s failed", request.method, request.target, exc_info=error)
        if self._answer is None:
            yield from HTTPError(500, "an error in the server; it has been logged").response().send(self)
        else:
            self._reuse = False  # the client sees that the answer is cut off

    def _record(self, request: Request) -> None:
        assert self._started is not None
        if self._answer is not None:
            status = self._answer.status
        else:
            status = 408 if self._scope.cancel_called and not self._gone else CLIENT_CLOSED_REQUEST
        seconds = self.task.loop.time() - self._started
        for recorder in self.server.recorders:
            recorder.record(request, status, self._sent, seconds)

    def _refuse(self, status: int, reason: str) -> Coro[None]:
        """Answer what could not become a request, and close."""
        self.busy, self._reuse = True, False
        response = Response.json({"error": reason}, status)
        head = self.parser.asks_for_head if self.request is None else self.method == "HEAD"
        body = b"" if head else response.body  # RFC 9110, section 9.3.2
        data = encode_head(status, response.headers, len(response.body), False, "close") + body
        if self._started is None:
            for recorder in self.server.recorders:
                recorder.record_refusal(self.peer, status, len(body))
        with move_on_after(LINGER_TIME):
            yield from self.socket.send_all(data)
            yield from self._linger()

    # --- The request's body ---------------------------------------------------------

    def open_body(self, head: Head) -> Body:
        self._credit = self.server.limits.body_idle_time
        return Body(head, self)

    def receive_chunks(self, head: Head) -> Coro[None]:
        """More of a body through the parser."""
        if self.parser.refusal is None:
            data = yield from self.await_body(self.socket.recv(READ_SIZE))
            self.earn(len(data))
            if not data:
                raise ClientDisconnected("the client closed the connection before the body's end")
            self.parser.feed(data)
        refusal = self.parser.refusal
        if refusal is not None and not head.chunks and not head.complete:
            self._reuse = False
            if self._answer is not None:  # too late to say so
                raise ClientDisconnected(f"{self.peer}: {refusal.reason}")
            raise HTTPError(refusal.status, refusal.reason)

    def await_body(self, reading: Coro[T]) -> Coro[T]:
        """Read some of the body from the socket, for as long as there is credit: waiting takes from it."""
        assert self.request is not None
        head = self.request.head
        if head.expects_continue:
            head.expects_continue = False
            if not head.buffered and self._answer is None:
                yield from self._send(CONTINUE)
        begin = self.server.now
        self.deadline = begin + self._credit
        try:
            return (yield from reading)
        except OSError as error:
            raise ClientDisconnected(f"{self.peer}: {error.strerror}") from None
        finally:
            self._credit -= self.server.now - begin
            self.deadline = math.inf

    def earn(self, count: int) -> None:
        """So many bytes of the body have come: they give credit."""
        limits = self.server.limits
        earned = count / limits.body_rate if limits.body_rate else limits.body_idle_time
        self._credit = min(self._credit + earned, limits.body_idle_time)

    def _drain(self, body: Body) -> Coro[None]:
        """The answer is sent and a short rest of the body was not read: drop it, to come to the next request."""
        with move_on_after(LINGER_TIME) as scope:
            while (yield from body.read()):
                pass
        if scope.cancelled_caught:
            self._reuse = False

    def _may_reuse(self, head: Head) -> bool:
        """Can the connection take another request after what has come of this one's body?"""
        if self.server.stopping or head.complete:
            return not self.server.stopping
        assert self.request is not None
        missing = self.request.body.missing
        return missing is not None and missing <= DRAIN_SIZE and not head.expects_continue

    def _linger(self) -> Coro[None]:
        """Let the client read the answer: closing with unread bytes would reset the connection and discard it."""
        self.deadline = math.inf
        with move_on_after(LINGER_TIME):
            self._end_writing()
            data = b"unread"
            while data:
                data = b""
                with move_on_after(LINGER_IDLE_TIME):
                    data = yield from self.socket.recv(READ_SIZE)

    def _end_writing(self) -> None:
        """Say that no more will come. What is read after that is for throwing away: under TLS it is not decrypted."""
        if self.socket.tls:
            with suppress(OSError, ValueError):
                cast(ssl.SSLSocket, self.socket.sock).unwrap()
        self.socket.sock.shutdown(socket.SHUT_WR)

    # --- Sending an answer ------------------------------------------------------------

    def inform(self, status: int, headers: HeaderList) -> Coro[None]:
        assert self.request is not None
        if not 102 <= status < 200:
            raise ValueError(f"{status} is not the status of an interim answer that a handler may send")
        if self._answer is not None:
            raise ValueError("an interim answer comes before the answer")
        if self.request.head.version != "1.0":
            yield from self._send(encode_head(status, headers, None, False, ""))

    def send_head(self, answer: Answer, length: int | None, body: bytes = b"") -> Iterable[Wait]:
        assert self.request is not None
        status, head = answer.status, self.request.head
        if status < 200:
            raise ValueError(f"{status} is not the status of a final answer")
        if status == 205 and length != 0:  # which still needs its Content-Length: RFC 9110, section 15.3.6
            raise ValueError("an answer with status 205 has no content")
        self._left -= 1
        self._reuse = self._reuse and head.keep_alive and self._left > 0 and self._may_reuse(head)
        bodiless = status in BODILESS
        without_body = bodiless or head.method == "HEAD"
        chunked = length is None and not bodiless and head.version == "1.1"
        if length is None and not chunked and not without_body:
            self._reuse = False  # the end of the connection is the end of the body
        if not self._reuse:
            connection = "close"
        else:
            connection = "keep-alive" if head.version == "1.0" else ""
        data = encode_head(status, answer.headers, length, chunked, connection)
        self._answer = answer
        self._chunked = chunked and not without_body
        if without_body:
            body, length = b"", 0
        self._sent = len(body)
        self._unsent = None if length is None else length - len(body)
        if len(body) > READ_SIZE:
            return self._send_both(data, body)
        data += body
        try:
            sent = self.socket.sock.send(data)
        except OSError:
            sent = 0
        return NOTHING if sent == len(data) else self._send(memoryview(data)[sent:])  # the former as a rule

    def _send_both(self, data: bytes, body: bytes) -> Coro[None]:
        yield from self._send(data)
        yield from self._send(body)

    def send_body(self, data: bytes | memoryview) -> Coro[None]:
        if not data:
            return  # as a chunk it would end the body
        self._count(len(data))
        if self._chunked:
            data = b"%x\r\n" % len(data) + data + b"\r\n"
        yield from self._send(data)

    def send_file(self, fd: int, offset: int, count: int) -> Coro[None]:
        try:
            while count:
                self.deadline = self.server.now + self.server.limits.body_idle_time
                if self.socket.tls:  # which the kernel's sendfile does not go through
                    data = yield from to_thread(os.pread, fd, min(count, SEND_SIZE), offset)
                    yield from self._send(data)
                    sent = len(data)
                else:
                    sent = yield from self._send_file_piece(fd, offset, min(count, SENDFILE_SIZE))
                if not sent:
                    raise EOFError("the file is shorter than it was")
                offset += sent
                count -= sent
                self._count(sent)
                if count:
                    yield from checkpoint()
        finally:
            self.deadline = math.inf

    def _send_file_piece(self, fd: int, offset: int, count: int) -> Coro[int]:
        try:
            return (yield from self.socket.send_file(fd, offset, count))
        except (ConnectionError, TimeoutError) as error:
            raise ClientDisconnected(f"{self.peer}: {error.strerror}") from None

    def switch_protocols(self, answer: Answer, protocol: str) -> Coro[Stream]:
        """Send 101; the connection, to be used in whatever way the other protocol has it."""
        assert self.request is not None
        if not self.request.head.upgrade:
            raise ValueError(f"the client did not offer to go over to {protocol}")
        fields = [("Upgrade", protocol), *answer.headers]
        data = encode_head(answer.status, fields, None, False, "Upgrade")
        self._reuse, self._answer = False, answer
        self.socket.watcher = None  # from here on, the end of the connection is for the stream's reader to see
        yield from self._send(data)
        stream = Stream(self.socket)
        stream.unread(self.parser.take_rest())
        return stream

    def _count(self, size: int) -> None:
        """That many bytes of the body are to be sent now."""
        self._sent += size
        if self._unsent is not None:
            self._unsent -= size
            if self._unsent < 0:
                raise ValueError(f"the answer is {-self._unsent} bytes longer than it told")

    def _send(self, data: bytes | memoryview) -> Coro[None]:
        try:
            for start in range(0, len(data), SEND_SIZE):
                self.deadline = self.server.now + self.server.limits.body_idle_time
                yield from self.socket.send_all(memoryview(data)[start : start + SEND_SIZE])
        except OSError as error:
            raise ClientDisconnected(f"{self.peer}: {error.strerror}") from None
        finally:
            self.deadline = math.inf
