"""HTTP/1.1 on coro: a server whose handlers are generator functions, `handle(request) -> Coro[Response]`."""

from coro.http.files import FileResponse
from coro.http.log import AccessLog
from coro.http.message import (
    Answer,
    ClientDisconnected,
    Handler,
    HTTPError,
    Request,
    Response,
    StreamResponse,
)
from coro.http.multipart import MultipartReader, Part
from coro.http.parser import Limits
from coro.http.router import Router
from coro.http.server import Server

__all__ = [
    "AccessLog",
    "Answer",
    "ClientDisconnected",
    "FileResponse",
    "HTTPError",
    "Handler",
    "Limits",
    "MultipartReader",
    "Part",
    "Request",
    "Response",
    "Router",
    "Server",
    "StreamResponse",
]
