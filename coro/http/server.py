"""The HTTP/1.1 server: one task a connection, which reads heads, runs the handler and sends its answer, in order.

What a connection may cost is bounded: the parser limits what a client sends, and one deadline, moved as the
connection goes from state to state, limits how long it may take. Deadlines are plain numbers that one task of the
server looks through now and then, so moving one costs an assignment. When it has passed, whatever the connection waits
for is cancelled, in the handler too. A connection whose request or answer was interrupted is closed, never reused.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Iterable
from typing import Any

from coro.group import TaskGroup, task_group
from coro.http.body import READ_SIZE, Body
from coro.http.log import AccessLog
from coro.http.message import (
    BODILESS,
    Answer,
    ClientDisconnected,
    Handler,
    HTTPError,
    Request,
    Response,
    encode_head,
)
from coro.http.parser import Head, Limits, RequestParser
from coro.io import address_text
from coro.net import Listener, Stream
from coro.sync import Event
from coro.task import CancelScope, Coro, current_task
from coro.timing import checkpoint, move_on_after, now, sleep

logger = logging.getLogger("coro.http")

DRAIN_SIZE = 65536  # an unread rest of a body up to this size is read and dropped, to keep the connection
LINGER_TIME = 30.0  # seconds for which what the client still sends is read and dropped before closing
LINGER_IDLE_TIME = 2.0  # ... if it goes on sending
SEND_SIZE = 1 << 18  # bytes of an answer that must be taken within the limit for an idle body
SENDFILE_SIZE = 1 << 20  # bytes of a file sent at once, so that one download does not hold the loop
CLIENT_CLOSED_REQUEST = 499  # in the access log, for an answer that nobody waited for; nginx's number
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection:
    """One client's connection, and the `Sender` of its answers."""

    __slots__ = (
        "_answer", "_chunked", "_reuse", "_scope", "_sent", "_socket", "_started", "_task", "_unsent", "busy",
        "deadline", "parser", "peer", "request", "server",
    )  # fmt: skip

    def __init__(self, server: Server, stream: Stream) -> None:
        self.server = server
        self.parser = RequestParser(server.limits)
        self.peer = address_text(stream.socket.sock.getpeername())
        self.busy = False  # is a head arriving, or a request being answered?
        self.request: Request
        self._socket = stream.socket
        self._scope = CancelScope()
        self._task = current_task()
        self.deadline = math.inf  # on the server's clock
        self._started: float | None = None  # when the request being answered began, for the access log
        self._answer: Answer | None = None  # the one whose head has been sent
        self._sent = 0  # bytes of its body
        self._unsent: int | None = None  # bytes of its body still to come, if it has told
        self._chunked = False
        self._reuse = True  # may another request follow?

    def run(self) -> Coro[None]:
        """Serve the connection to its end."""
        try:
            with self._scope:
                yield from self._serve()
            if self._scope.cancelled_caught and self.busy and self._answer is None:
                yield from self._refuse(408, "the request did not arrive in time")
        except (OSError, ClientDisconnected) as error:
            logger.debug("%s: %s", self.peer, error)

    def close_if_idle(self) -> None:
        """End the connection if it waits for a request of which nothing has come. Does not suspend."""
        if not self.busy and self._task.request is self._socket.readable:
            self._scope.cancel()

    def expire(self) -> None:
        """The deadline has passed: cancel whatever the connection waits for."""
        self._scope.cancel()

    # --- Requests ---------------------------------------------------------------

    def _serve(self) -> Coro[None]:
        parser, server, socket = self.parser, self.server, self._socket
        limits, heads = server.limits, parser.heads
        while self._reuse:
            if not heads:
                self.busy = False
                if server.stopping:
                    return
                self.deadline = server.now + limits.idle_time
            while not heads:
                if parser.refusal is not None:
                    self.busy, self._answer = True, None
                    yield from self._refuse(parser.refusal.status, parser.refusal.reason)
                    return
                if parser.mid_head and not self.busy:
                    self.busy, self._answer = True, None
                    self.deadline = server.now + limits.head_time
                data = yield from socket.recv(READ_SIZE)
                if not data:
                    return
                parser.feed(data)
                del data  # lest it is kept for as long as the handler waits
            self.busy = True
            self.deadline = math.inf
            yield from self._answer_request(heads.pop(0))
            if heads:
                yield from checkpoint()  # who pipelines gets one answer a turn, like everybody else
        yield from self._linger()

    def _answer_request(self, head: Head) -> Coro[None]:
        body = Body(head, self)
        request = self.request = Request(head, body, self.peer)
        self._answer, self._sent, self._chunked = None, 0, False
        log = self.server.access_log
        if log is not None:
            self._started = self._task.loop.time()
        try:
            try:
                answer = yield from self.server.handler(request)
                yield from answer.send(self)
                if self._unsent:
                    raise ValueError(f"the answer is {self._unsent} bytes shorter than it told")
                if self._chunked:
                    yield from self._send(b"0\r\n\r\n")
            except ClientDisconnected:
                raise
            except Exception as error:
                yield from self._fail(error)
        except ClientDisconnected as error:
            logger.debug("%s: %s", self.peer, error)
            self._reuse = False
        finally:
            if log is not None:
                self._log_answer(log)
        self._started = None
        if self._reuse and not head.complete:
            yield from self._drain(body)

    def _fail(self, error: Exception) -> Coro[None]:
        """The handler, or sending its answer, raised: answer with the status that is due, or break off."""
        if isinstance(error, HTTPError) and self._answer is None:
            try:
                yield from error.response().send(self)
                return
            except ValueError as malformed:
                error = malformed
        logger.error("%s %s failed", self.request.method, self.request.target, exc_info=error)
        if self._answer is None:
            yield from HTTPError(500, "an error in the server; it has been logged").response().send(self)
        else:
            self._reuse = False  # the client sees that the answer is cut off

    def _log_answer(self, log: AccessLog) -> None:
        assert self._started is not None
        if self._answer is not None:
            status = self._answer.status
        else:
            status = 408 if self._scope.cancel_called else CLIENT_CLOSED_REQUEST
        log.record(self.request, status, self._sent, self._task.loop.time() - self._started)

    def _refuse(self, status: int, reason: str) -> Coro[None]:
        """Answer what could not become a request, and close."""
        self._reuse = False
        response = Response.json({"error": reason}, status)
        data = encode_head(status, response.headers, len(response.body), False, "close") + response.body
        if self.server.access_log is not None and self._started is None:
            self.server.access_log.record_refusal(self.peer, status, len(response.body))
        with move_on_after(LINGER_TIME):
            yield from self._socket.send_all(data)
            yield from self._linger()

    # --- The request's body ---------------------------------------------------------

    def receive_body(self, limit: int) -> Coro[bytes]:
        """Bytes of the body from the socket, past the parser."""
        yield from self._before_body()
        try:
            data = yield from self._socket.recv(limit)
        except OSError as error:
            raise ClientDisconnected(f"{self.peer}: {error.strerror}") from None
        finally:
            self.deadline = math.inf
        return data

    def receive_body_into(self, buffer: memoryview) -> Coro[int]:
        yield from self._before_body()
        try:
            count = yield from self._socket.recv_into(buffer)
        except OSError as error:
            raise ClientDisconnected(f"{self.peer}: {error.strerror}") from None
        finally:
            self.deadline = math.inf
        return count

    def receive_chunks(self, head: Head) -> Coro[None]:
        """More of a body through the parser."""
        if self.parser.refusal is None:
            data = yield from self.receive_body(READ_SIZE)
            if not data:
                raise ClientDisconnected("the client closed the connection before the body's end")
            self.parser.feed(data)
        refusal = self.parser.refusal
        if refusal is not None and not head.chunks and not head.complete:
            self._reuse = False
            raise HTTPError(refusal.status, refusal.reason)

    def _before_body(self) -> Generator[Any, Any, None]:
        head = self.request.head
        if head.expects_continue:
            head.expects_continue = False
            if not head.buffered and self._answer is None:
                yield from self._send(CONTINUE)
        self.deadline = self.server.now + self.server.limits.body_idle_time

    def _drain(self, body: Body) -> Coro[None]:
        """The answer is sent and a short rest of the body was not read: drop it, to come to the next request."""
        with move_on_after(LINGER_TIME) as scope:
            while (yield from body.read()):
                pass
        if scope.cancelled_caught:
            self._reuse = False

    def _may_reuse(self) -> bool:
        """Can the connection take another request after this one?"""
        head = self.request.head
        if not self._reuse or not head.keep_alive or self.server.stopping:
            return False
        if head.complete:
            return True
        missing = self.request.body.missing
        return missing is not None and missing <= DRAIN_SIZE and not head.expects_continue

    def _linger(self) -> Coro[None]:
        """Let the client read the answer: closing with unread bytes would reset the connection and discard it."""
        self.deadline = math.inf
        with move_on_after(LINGER_TIME):
            self._socket.send_eof()
            data = b"unread"
            while data:
                data = b""
                with move_on_after(LINGER_IDLE_TIME):
                    data = yield from self._socket.recv(READ_SIZE)

    # --- Sending an answer ------------------------------------------------------------

    def send_head(self, answer: Answer, length: int | None, body: bytes = b"") -> Coro[None]:
        request = self.request
        self._reuse = self._may_reuse()
        without_body = request.method == "HEAD" or answer.status in BODILESS
        chunked = length is None and answer.status not in BODILESS and request.version == "1.1"
        if length is None and not chunked and not without_body:
            self._reuse = False  # the end of the connection is the end of the body
        if not self._reuse:
            connection = "close"
        else:
            connection = "keep-alive" if request.version == "1.0" else ""
        data = encode_head(answer.status, answer.headers, length, chunked, connection)
        self._answer = answer
        self._chunked = chunked and not without_body
        if without_body:
            body, length = b"", 0
        self._sent = len(body)
        self._unsent = None if length is None else length - len(body)
        if len(body) > READ_SIZE:
            yield from self._send(data)
            yield from self._send(body)
            return
        data += body
        try:
            sent = self._socket.sock.send(data)  # the usual end of the matter
        except OSError:
            sent = 0
        if sent < len(data):
            yield from self._send(memoryview(data)[sent:])

    def send_body(self, data: bytes | memoryview) -> Coro[None]:
        if not data:
            return  # as a chunk it would end the body
        self._count(len(data))
        if self._chunked:
            data = b"%x\r\n" % len(data) + data + b"\r\n"
        yield from self._send(data)

    def send_file(self, fd: int, offset: int, count: int) -> Coro[None]:
        self.deadline = self.server.now + self.server.limits.body_idle_time
        while count:
            try:
                sent = yield from self._socket.send_file(fd, offset, min(count, SENDFILE_SIZE))
            except (ConnectionError, TimeoutError) as error:
                raise ClientDisconnected(f"{self.peer}: {error.strerror}") from None
            if not sent:
                raise EOFError("the file is shorter than it was")
            offset += sent
            count -= sent
            self._count(sent)
            self.deadline = self.server.now + self.server.limits.body_idle_time
            if count:
                yield from checkpoint()
        self.deadline = math.inf

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
                yield from self._socket.send_all(memoryview(data)[start : start + SEND_SIZE])
        except OSError as error:
            raise ClientDisconnected(f"{self.peer}: {error.strerror}") from None
        finally:
            self.deadline = math.inf


class Server:
    """Serves `handler` on listeners until it is stopped."""

    def __init__(
        self, handler: Handler, *, limits: Limits | None = None, access_log: AccessLog | None = None
    ) -> None:
        self.handler = handler
        self.limits = limits or Limits()
        self.access_log = access_log
        self.connections: set[Connection] = set()
        self.now = 0.0  # the loop's time, as exact as the deadlines need it
        self.stopping = False
        self._stop = Event()
        self._drained = Event()
        self._grace = 0.0

    def stop(self, grace: float) -> None:
        """Stop accepting, close idle connections, give requests `grace` seconds to finish. Does not suspend."""
        self.stopping = True
        self._grace = grace
        self._stop.set()

    def serve(self, listeners: Listener | Iterable[Listener]) -> Coro[None]:
        """Serve until `stop` was called and every connection has ended. Suspends. Closes the listeners."""
        listeners = [listeners] if isinstance(listeners, Listener) else list(listeners)

        def accept_all(listener: Listener, group: TaskGroup) -> Coro[None]:
            try:
                while True:
                    stream = yield from listener.accept()
                    group.spawn(self._run(stream))
            finally:
                listener.close()  # here, where nobody can be about to accept on it

        def body(group: TaskGroup) -> Coro[None]:
            self.now = now()
            group.spawn(self._watch_deadlines())
            acceptors = [group.spawn(accept_all(listener, group)) for listener in listeners]
            yield from self._stop.wait()
            for acceptor in acceptors:
                acceptor.cancel()
            yield from self._drain()
            group.cancel()

        try:
            yield from task_group(body)
        finally:
            if self.access_log is not None:
                self.access_log.flush()

    def _watch_deadlines(self) -> Coro[None]:
        limits = self.limits
        interval = min(1.0, min(limits.head_time, limits.idle_time, limits.body_idle_time) / 4)
        while True:
            yield from sleep(interval)
            self.now = now()
            for connection in [c for c in self.connections if c.deadline < self.now]:
                connection.expire()

    def _run(self, stream: Stream) -> Coro[None]:
        connection = None
        try:
            connection = Connection(self, stream)
            self.connections.add(connection)
            yield from connection.run()
        except OSError as error:  # gone before it was served
            logger.debug("%r: %s", stream, error)
        except Exception:
            logger.exception("serving %r failed", stream)
        finally:
            stream.close()
            if connection is not None:
                self.connections.discard(connection)
            if self.stopping and not self.connections:
                self._drained.set()

    def _drain(self) -> Coro[None]:
        """Wait until the connections have ended, for as long as the grace allows."""
        for connection in tuple(self.connections):
            connection.close_if_idle()
        if self.connections:
            with move_on_after(self._grace):
                yield from self._drained.wait()
