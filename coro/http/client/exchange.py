"""One request and its response on one connection.

The usual request goes out in one send, and its response comes in with one receive. A body that does not fit is sent by
a task of its own, while this one reads: a server may answer before it has read all, and one that refuses is not sent
the rest. Only when the response is there to its end, nothing came behind it and the request was sent to its end, the
connection goes back to the pool. In any other case, cancellation above all, it is closed: nobody will ever read the
answer to another's question.

Time limits are one cancel scope for each request; its deadline is moved from phase to phase, which costs an
assignment.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable
from typing import TypeVar

from coro.errors import ClosedError
from coro.group import TaskGroup, task_group
from coro.http.client.errors import ClientError, ConnectionLost, ProtocolError, RequestTimeout, ResponseTooLarge
from coro.http.client.parser import ClientLimits, ResponseHead
from coro.http.client.pool import Connection, Pool
from coro.http.client.request import Outgoing, RequestBody
from coro.sync import Event
from coro.task import CancelScope, Coro, Task, current_task
from coro.timing import move_on_after

T = TypeVar("T")
E = TypeVar("E", bound=ClientError)

READ_SIZE = 32768  # bytes; the allocator serves 64 KiB and more by a slower path
SEND_SIZE = 1 << 18  # bytes of a request that must be taken within `read_time`
DISCARDED = 65536  # bytes of a redirect's body that are read to keep its connection
DISCARDING_TIME = 2.0  # seconds for which they are waited for: opening another connection takes less

FREE_CONNECTION = "waiting for a free connection"
CONNECTING = "connecting"
SENDING = "sending the request"
RESPONSE = "waiting for the response"
BODY = "reading the response's body"
CALLER = "while the caller handled the response"


class Deadline:
    """What a request is doing, and until when it may: the scope that everything it does is in."""

    __slots__ = ("_end", "_loop", "_seconds", "_total", "phase", "scope")

    def __init__(self, total: float) -> None:
        self.scope = CancelScope()
        self._loop = current_task().loop
        self._total = total
        self._end = self._loop.time() + total if total < math.inf else math.inf
        self.phase = CONNECTING
        self._seconds = total

    def begin(self, phase: str, seconds: float = math.inf) -> None:
        """What follows may take so long, and no longer than all together may."""
        self.phase = phase
        self._seconds = seconds
        when = self._loop.time() + seconds
        self.scope.deadline = when if when < self._end else self._end

    def error(self, request: Outgoing) -> RequestTimeout:
        """What to raise when the scope has been cancelled by its deadline."""
        if self._loop.time() >= self._end:
            return RequestTimeout(f"{request!r}: timed out after {self._total:g} s in all, {self.phase}")
        return timed_out(request, self._seconds, self.phase)


def timed_out(request: Outgoing, seconds: float, phase: str) -> RequestTimeout:
    return RequestTimeout(f"{request!r}: timed out after {seconds:g} s {phase}")


class Exchange:
    """Made with the pool's permission and a connection, both of which it gives back: in `end`, at the latest."""

    __slots__ = (
        "_answered", "_complete", "_connection", "_deadline", "_ended", "_failure", "_limits", "_may_send", "_pool",
        "_request", "_sending", "_sent", "_unsent",
    )  # fmt: skip

    def __init__(self, pool: Pool, connection: Connection, request: Outgoing, deadline: Deadline) -> None:
        self._pool = pool
        self._limits: ClientLimits = pool.limits
        self._connection = connection
        self._request = request
        self._deadline = deadline
        self._sent = False  # has any byte left?
        self._answered = False  # has any byte come?
        self._complete = False  # was the response read to its end?
        self._ended = False
        self._failure: ClientError | None = None  # the last one of this exchange, and not of one that its caller made
        self._sending: Task[None] | None = None  # what is still being sent, by whom
        self._may_send: Event | None = None  # if the body is held back: may it be sent now?
        self._unsent: int | None = 0  # bytes of the body still to be written, if their number was told

    def may_repeat(self, error: ConnectionLost) -> bool:
        """May the request be sent once more, on another connection, after this error?

        Only if this connection was a kept one, which its server may close at any time; and if no byte has left, or
        doing it twice is the same as once and nothing was answered (RFC 9112, section 9.3.1).
        """
        if error is not self._failure or not self._connection.requests or self._answered:
            return False
        return not self._sent or (self._request.idempotent and self._request.repeatable)

    def run(self, length: int | None, handle: Callable[[ResponseHead], Coro[T]]) -> Coro[T]:
        """Send the request, whose body has `length` bytes (None: unknown); then `handle(head)`, with the response's."""
        request = self._request
        self._connection.parser.start(request.method)
        data, body = request.encode_head(length), request.body
        if isinstance(body, bytes) and len(body) <= SEND_SIZE and not request.expects:
            data += body
            body = b""
        sent = self._send_at_once(data)
        if sent == len(data) and body == b"":
            self._deadline.begin(RESPONSE, self._limits.read_time)
            return (yield from self._respond(handle))

        def send_and_respond(group: TaskGroup) -> Coro[T]:
            self._deadline.begin(RESPONSE)  # without a limit of its own while the request is being sent
            self._unsent = length
            self._may_send = Event() if request.expects else None
            writer = self._sending = group.spawn(self._send_rest(data[sent:], body), name=f"body of {request!r}")
            result = yield from self._respond(handle)
            if not writer.done:
                group.cancel()  # all is answered: nobody wants the rest
            return result

        return (yield from task_group(send_and_respond))

    def end(self) -> None:
        """Give the connection back if it can be used again, else close it. Does not suspend; can be repeated."""
        if self._ended:
            return
        self._ended = True
        connection = self._connection
        parser = connection.parser
        self._complete = parser.complete
        head = parser.head
        if head is not None and not parser.complete:
            parser.skip()
        if head is not None and head.keep_alive and parser.clean and self._sending is None:
            connection.requests += 1
            self._pool.release(connection.origin, connection, head.kept)
        else:
            connection.close()
            self._pool.release(connection.origin, None)

    # --- Sending ---------------------------------------------------------------------

    def _send_at_once(self, data: bytes) -> int:
        """Hand to the kernel what it takes without waiting; how much that was."""
        try:
            sent = self._connection.stream.socket.sock.send(data)
        except BlockingIOError:
            return 0
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            self._sent = True  # part of it may have left
            return 0
        except OSError as error:
            raise self._named(lost(error)) from None
        self._sent = True
        return sent

    def _send_rest(self, rest: bytes, body: bytes | RequestBody) -> Coro[None]:
        """What did not fit into the first send, in a task of its own."""
        try:
            yield from self._send(rest)
            if self._may_send is not None:
                with move_on_after(self._limits.continue_time):  # it need not say so: RFC 9110, section 10.1.1
                    yield from self._may_send.wait()
                self._may_send.set()
            if isinstance(body, bytes):
                yield from self._send(body)
            else:
                yield from body.write_to(self._write)
                if self._unsent:
                    raise ValueError(f"{self._request!r}: the body is {self._unsent} bytes shorter than it told")
                if self._unsent is None:
                    yield from self._send(b"0\r\n\r\n")
            self._sending = None
        except ConnectionLost as error:
            if error is not self._failure:
                raise  # of a request that the body is made of
            # Whoever waits for the response will see it, after what the server had to say before.
        if self._deadline.phase is not CALLER:
            self._deadline.begin(self._deadline.phase, self._limits.read_time)  # from now on, it is the server's turn

    def _write(self, data: bytes) -> Coro[None]:
        """Send a piece of the body. Suspends while the server does not take it. `ConnectionLost`, `RequestTimeout`."""
        if not data:
            return  # as a chunk it would end the body
        if self._unsent is None:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        elif len(data) > self._unsent:
            raise ValueError(f"{self._request!r}: the body is {len(data) - self._unsent} bytes longer than it told")
        else:
            self._unsent -= len(data)
        yield from self._send(data)

    def _send(self, data: bytes) -> Coro[None]:
        socket, seconds = self._connection.stream.socket, self._limits.read_time
        for start in range(0, len(data), SEND_SIZE):
            with move_on_after(seconds) as scope:
                try:
                    yield from socket.send_all(memoryview(data)[start : start + SEND_SIZE])
                except OSError as error:
                    raise self._named(lost(error)) from None
            if scope.cancelled_caught:
                raise timed_out(self._request, seconds, SENDING)
            self._sent = True

    # --- Receiving -------------------------------------------------------------------

    def _respond(self, handle: Callable[[ResponseHead], Coro[T]]) -> Coro[T]:
        parser = self._connection.parser
        head: ResponseHead | None = None
        try:
            while head is None:
                yield from self._receive()
                while (head := parser.read_head()) is not None and head.status < 200:
                    if head.status == 100 and self._may_send is not None:
                        self._may_send.set()
        except (ProtocolError, ResponseTooLarge, ConnectionLost) as error:
            raise self._named(error) from None
        if self._sending is None:
            if parser.complete:
                self.end()
        elif head.status >= 300 or (self._may_send is not None and not self._may_send.is_set()):
            self._sending.cancel()  # whatever was wrong with the request, more of it will not mend it
        self._deadline.begin(CALLER)
        return (yield from handle(head))

    @property
    def content_length(self) -> int | None:
        """Bytes of the body still to come, as they are sent, if the server has told."""
        return 0 if self._ended else self._connection.parser.content_length

    def buffered(self) -> bytes | None:
        """The (rest of the) body, if all of it has come already and can be told by its length. Does not suspend."""
        if self._ended:
            return b"" if self._complete else None
        data = self._connection.parser.buffered()
        if data is not None and self._sending is None:
            self.end()
        return data

    def read_body(self, limit: int) -> Coro[bytes]:
        """Up to `limit` bytes of the body as they were sent; b"" at its end. May suspend.

        `ConnectionLost`, `ProtocolError`, `ResponseTooLarge`, `RequestTimeout`; `ClosedError` after the exchange.
        """
        parser = self._connection.parser
        if self._ended:
            if self._complete:
                return b""
            raise ClosedError(f"{self._request!r}: the response was closed before it was read: read it in `stream`")
        try:
            while (data := parser.read_body(limit)) is None:
                sending = self._sending is not None and not self._sending.done
                self._deadline.begin(BODY, math.inf if sending else self._limits.read_time)
                yield from self._receive()
                self._deadline.begin(CALLER)
        except (ProtocolError, ResponseTooLarge, ConnectionLost) as error:
            raise self._named(error) from None
        if parser.complete and self._sending is None:
            self.end()
        return data

    def discard(self) -> Coro[None]:
        """Read the rest of the body if it is short and soon there: then the connection can be used again. May suspend.

        The errors of `read_body`.
        """
        left = DISCARDED
        with move_on_after(DISCARDING_TIME):
            while left > 0 and (data := (yield from self.read_body(left))):
                left -= len(data)

    def _receive(self) -> Coro[None]:
        """Wait for more of the response. `ConnectionLost`."""
        try:
            data = yield from self._connection.stream.socket.recv(READ_SIZE)
        except OSError as error:
            raise lost(error) from None
        if data:
            self._answered = True
            self._connection.parser.feed(data)
        else:
            self._connection.parser.feed_eof()

    def _named(self, error: E) -> E:
        """This exchange's error, with the name of the request."""
        text = f"{self._request!r}: {error}"
        if isinstance(error, ConnectionLost) and not self._request.idempotent:
            text += "; it may have been carried out" if self._sent else "; it was not sent"
        named = type(error)(text)
        self._failure = named
        return named


def lost(error: OSError) -> ConnectionLost:
    reason = None if isinstance(error, ssl.SSLError) else error.strerror
    return ConnectionLost(f"the connection was lost: {reason or error}")
