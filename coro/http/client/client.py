"""The HTTP client: `Client.get(url)` and its like for whole responses, `Client.stream` for what is read while it comes.

    with Client() as client:
        response = yield from client.get("https://example.com/")
        print(response.status, response.text)

A generator cannot wait at the end of a `with` block, so a response that is streamed lives as long as a function runs:
`yield from client.stream("GET", url, use)` runs `use(response)`, and cleans up when it has returned or raised.
"""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, Unpack, cast

from coro.http.client.errors import ConnectError, ConnectionLost, RedirectError
from coro.http.client.exchange import CONNECTING, FREE_CONNECTION, Deadline, Exchange
from coro.http.client.parser import ClientLimits, ResponseHead
from coro.http.client.pool import Connection, Pool
from coro.http.client.request import Outgoing, RequestOptions, prepare, redirected
from coro.http.client.response import ClientResponse, StreamedResponse
from coro.net import Stream, connect, connect_unix
from coro.task import Coro

T = TypeVar("T")
Use = Callable[[StreamedResponse], Coro[T]]

logger = logging.getLogger("coro.http")

BODY_LIMIT = 1 << 24  # bytes of a whole response's body, unless another limit is given
REDIRECTS = 10
ALPN = "http/1.1"


class Client:
    """Asks HTTP servers, and keeps connections to them. For any number of tasks, in one run of the loop.

    `tls`: another context than `ssl.create_default_context()`, for servers with certificates of an authority of one's
    own, or for client certificates. `unix_socket`: the path of a Unix socket to which all requests go, whatever host
    is in their URLs.

    All functions that send raise `ClientError` (see `coro.http.client.errors`), each message naming method and server;
    `ClosedError` after `close`.
    """

    def __init__(
        self, *, limits: ClientLimits | None = None, tls: ssl.SSLContext | None = None, unix_socket: str | None = None
    ) -> None:
        self.limits = limits or ClientLimits()
        self._tls = tls
        self._unix_socket = unix_socket
        self._pool = Pool(self.limits)
        if tls is not None and (tls.verify_mode is not ssl.CERT_REQUIRED or not tls.check_hostname):
            logger.warning("this HTTP client does not verify who it speaks to: its TLS context does not ask for that")

    # --- Asking ----------------------------------------------------------------------

    def request(
        self, method: str, url: str, *, limit: int = BODY_LIMIT, **options: Unpack[RequestOptions]
    ) -> Coro[ClientResponse]:
        """Ask, and read the whole response: at most `limit` bytes of body, else `ResponseTooLarge`. Suspends.

        Redirects are followed. A status of 400 or above is not an error here: see `raise_for_status`.
        """
        def whole(response: StreamedResponse) -> Coro[ClientResponse]:
            return response.whole(limit)

        return (yield from self._perform(method, url, whole, options, self.limits.total_time))

    def stream(self, method: str, url: str, use: Use[T], **options: Unpack[RequestOptions]) -> Coro[T]:
        """Ask; run `use(response)`, which reads the body while it comes; what it returns. Suspends.

        The connection is kept if `use` has read the body to its end, else closed. There is no limit for the time in all
        but the `timeout` that is given: how long reading takes is for `use` to say.
        """
        return (yield from self._perform(method, url, use, options, math.inf))

    def get(self, url: str, *, limit: int = BODY_LIMIT, **options: Unpack[RequestOptions]) -> Coro[ClientResponse]:
        """`request` with GET."""
        return self.request("GET", url, limit=limit, **options)

    def head(self, url: str, **options: Unpack[RequestOptions]) -> Coro[ClientResponse]:
        """`request` with HEAD."""
        return self.request("HEAD", url, **options)

    def post(self, url: str, *, limit: int = BODY_LIMIT, **options: Unpack[RequestOptions]) -> Coro[ClientResponse]:
        """`request` with POST."""
        return self.request("POST", url, limit=limit, **options)

    def put(self, url: str, *, limit: int = BODY_LIMIT, **options: Unpack[RequestOptions]) -> Coro[ClientResponse]:
        """`request` with PUT."""
        return self.request("PUT", url, limit=limit, **options)

    def patch(self, url: str, *, limit: int = BODY_LIMIT, **options: Unpack[RequestOptions]) -> Coro[ClientResponse]:
        """`request` with PATCH."""
        return self.request("PATCH", url, limit=limit, **options)

    def delete(self, url: str, *, limit: int = BODY_LIMIT, **options: Unpack[RequestOptions]) -> Coro[ClientResponse]:
        """`request` with DELETE."""
        return self.request("DELETE", url, limit=limit, **options)

    # --- Closing ---------------------------------------------------------------------

    def close(self) -> None:
        """Close the idle connections now, and the others when their requests are done. No more requests are sent.

        Who still waits for a connection gets `ClosedError`. Does not suspend; can be repeated.
        """
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<http.Client, {self._pool!r}>"

    # --- Performing ------------------------------------------------------------------

    def _perform(self, method: str, url: str, use: Use[T], options: RequestOptions, total: float) -> Coro[T]:
        """One request, and those that follow from its redirects."""
        request = prepare(method, url, options)
        limit = options.get("redirects", REDIRECTS)
        deadline = Deadline(options.get("timeout", total))
        with deadline.scope:
            while True:
                outcome = yield from self._send(request, deadline, use, limit > 0)
                if not isinstance(outcome, Outgoing):
                    return outcome
                if outcome.hops > limit:
                    raise RedirectError(f"{request!r}: redirected more than {limit} times, now to {outcome.url}")
                request = outcome
        raise deadline.error(request)

    def _send(self, request: Outgoing, deadline: Deadline, use: Use[T], follow: bool) -> Coro[T | Outgoing]:
        """One request, sent once more if it may be; what `use` made of its response, or the request that follows."""
        body = request.body
        length = len(body) if isinstance(body, bytes) else (yield from body.size())
        fresh = False
        while True:
            exchange = yield from self._begin(request, deadline, fresh)
            try:
                return (yield from exchange.run(length, partial(self._handle, request, exchange, use, follow)))
            except ConnectionLost as error:
                if not exchange.may_repeat(error):
                    raise
                fresh = True
            finally:
                exchange.end()

    def _handle(
        self, request: Outgoing, exchange: Exchange, use: Use[T], follow: bool, head: ResponseHead
    ) -> Coro[T | Outgoing]:
        """The head of a response is there: follow it, or let the caller read the rest."""
        if head.status == 417 and request.expects:
            following: Outgoing | None = request.without_expectation()
        else:
            following = redirected(request, head) if follow else None
        if following is None:
            return (yield from use(StreamedResponse(request, head, exchange)))
        yield from exchange.discard()
        return following

    def _begin(self, request: Outgoing, deadline: Deadline, fresh: bool) -> Coro[Exchange]:
        """Have a connection: a kept one if there is one and it need not be `fresh`."""
        pool, origin = self._pool, request.url.origin
        if not pool.acquire_nowait(origin):
            deadline.begin(FREE_CONNECTION)
            yield from pool.acquire(origin)
        try:
            connection = pool.take_idle(origin, fresh)
            if connection is None:
                deadline.begin(CONNECTING, self.limits.connect_time)
                connection = Connection(origin, (yield from self._connect(request)), self.limits)
            return Exchange(pool, connection, request, deadline)
        except BaseException:
            pool.release(origin, None)
            raise

    def _connect(self, request: Outgoing) -> Coro[Stream]:
        """A new connection. `ConnectError`."""
        origin = request.url.origin
        context = self._context() if origin.scheme == "https" else None
        name = origin.host.rstrip(".")  # as certificates have it
        try:
            if self._unix_socket is None:
                stream = yield from connect(origin.host, origin.port, tls=context, server_hostname=name)
            else:
                stream = yield from connect_unix(self._unix_socket)
                if context is not None:
                    yield from stream.start_tls(context, server_hostname=name)
        except OSError as error:
            advice = ""
            if isinstance(error, ssl.SSLCertVerificationError):
                advice = " (for an authority of your own: Client(tls=ssl.create_default_context(cafile=...)))"
            raise ConnectError(f"{request!r}: {error.strerror or error}{advice}") from error
        if context is not None:
            agreed = cast(ssl.SSLSocket, stream.socket.sock).selected_alpn_protocol()
            if agreed not in (None, ALPN):
                stream.close()
                raise ConnectError(f"{request!r}: TLS agreed on {agreed}: the context must offer {ALPN} only")
        return stream

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols([ALPN])
        return self._tls
