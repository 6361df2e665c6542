"""HTTP/1.1 on coro: a server whose handlers are generator functions, `handle(request) -> Coro[Response]`; a client."""

from coro.http.body import Body
from coro.http.client.bodies import BytesPart, FileBody, MultipartBody, StreamBody
from coro.http.client.client import Client
from coro.http.client.errors import (
    ClientError,
    ConnectError,
    ConnectionLost,
    InvalidURL,
    ProtocolError,
    RedirectError,
    RequestTimeout,
    ResponseTooLarge,
    StatusError,
)
from coro.http.client.parser import ClientLimits
from coro.http.client.request import RequestBody, RequestOptions
from coro.http.client.response import ClientResponse, StreamedResponse
from coro.http.cookies import set_cookie
from coro.http.errorpage import error_page
from coro.http.files import FileResponse
from coro.http.forwarded import Proxies
from coro.http.log import AccessLog
from coro.http.message import (
    Answer,
    ClientDisconnected,
    Handler,
    HeaderList,
    Headers,
    HTTPError,
    Request,
    Response,
    Sender,
    StreamResponse,
)
from coro.http.metrics import Metrics
from coro.http.multipart import MultipartReader, Part
from coro.http.parser import Limits
from coro.http.preconditions import check_preconditions
from coro.http.router import Router
from coro.http.server import Recorder, Server
from coro.http.upgrade import Upgrade

__all__ = [
    "AccessLog",
    "Answer",
    "Body",
    "BytesPart",
    "Client",
    "ClientDisconnected",
    "ClientError",
    "ClientLimits",
    "ClientResponse",
    "ConnectError",
    "ConnectionLost",
    "FileBody",
    "FileResponse",
    "HTTPError",
    "Handler",
    "HeaderList",
    "Headers",
    "InvalidURL",
    "Limits",
    "Metrics",
    "MultipartBody",
    "MultipartReader",
    "Part",
    "Proxies",
    "ProtocolError",
    "Recorder",
    "RedirectError",
    "Request",
    "RequestBody",
    "RequestOptions",
    "RequestTimeout",
    "Response",
    "ResponseTooLarge",
    "Router",
    "Sender",
    "Server",
    "StatusError",
    "StreamBody",
    "StreamResponse",
    "StreamedResponse",
    "Upgrade",
    "check_preconditions",
    "error_page",
    "set_cookie",
]
