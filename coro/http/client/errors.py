"""What can go wrong with a request. Each message names the method and the server, says what happened and what to do.

    ClientError
      InvalidURL          (ValueError) not sent: no request can be made of the URL
      ConnectError        not sent: no connection could be made, or its TLS was not to be trusted
      ConnectionLost      the connection broke before the response was complete
      ProtocolError       what the server sent is not HTTP/1.1, or could be understood in two ways
      ResponseTooLarge    (LimitExceeded) more than the limit that was given for it
      RedirectError       the response leads nowhere that may be gone to
      RequestTimeout      (TimeoutError)
      StatusError         only from `raise_for_status`
"""

from __future__ import annotations

from coro.errors import CoroError, LimitExceeded


class ClientError(CoroError):
    """Base of what a request can fail with."""


class InvalidURL(ClientError, ValueError):
    """No request can be made of this URL."""


class ConnectError(ClientError):
    """No connection could be made. The request was not sent."""


class ConnectionLost(ClientError):
    """The connection ended or broke before the response was complete. The request may have been carried out."""


class ProtocolError(ClientError):
    """What the server sent is not HTTP, or could be understood in two ways. Its connection was closed."""


class ResponseTooLarge(ClientError, LimitExceeded):
    """The response's head or body is larger than the limit for it."""


class RedirectError(ClientError):
    """A redirect that is not followed: one too many, out of TLS, or to no usable URL."""


class RequestTimeout(ClientError, TimeoutError):
    """A time limit has passed. The message names the phase of the request. Its connection was closed."""


class StatusError(ClientError):
    """The response has a status of 400 or above."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
