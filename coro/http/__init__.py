"""HTTP/1.1 on coro: a server whose handlers are generator functions, `handle(request) -> Coro[Response]`."""

from coro.http.body import Body
from coro.http.files import FileResponse
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
from coro.http.multipart import MultipartReader, Part
from coro.http.parser import Limits
from coro.http.router import Router
from coro.http.server import Server

__all__ = [
    "AccessLog",
    "Answer",
    "Body",
    "ClientDisconnected",
    "FileResponse",
    "HTTPError",
    "Handler",
    "HeaderList",
    "Headers",
    "Limits",
    "MultipartReader",
    "Part",
    "Request",
    "Response",
    "Router",
    "Sender",
    "Server",
    "StreamResponse",
]
