"""A client of tus 1.0.0 that does what a test tells it, request by request."""

from __future__ import annotations

from base64 import b64encode
from typing import Any
from urllib.parse import urlsplit

from tests.upload.harness import Answer, App, Exchange

PIECE = "application/offset+octet-stream"


def metadata(**values: str) -> str:
    return ",".join(f"{key} {b64encode(value.encode()).decode()}" for key, value in values.items())


class Client:
    """One user's requests."""

    def __init__(self, app: App, user_id: int | None = None) -> None:
        self.app = app
        self.session = app.log_in(user_id)

    def ask(self, method: str, path: str, body: bytes | None = None, **fields: Any) -> Answer:
        headers = {"Tus_Resumable": "1.0.0", **{name: str(value) for name, value in fields.items()}}
        return self.app.ask(method, path, body, session=self.session, **headers)

    def create(self, length: int | None, **fields: Any) -> str:
        """A new upload; its URL."""
        told = {"Upload_Defer_Length": 1} if length is None else {"Upload_Length": length}
        answer = self.ask("POST", "/files/", b"", **told, **fields)
        assert answer.status == 201, answer
        location = answer.headers["Location"]
        host, port = self.app.address
        assert location.startswith(f"http://{host}:{port}/files/")
        return urlsplit(location).path

    def head(self, url: str) -> Answer:
        return self.ask("HEAD", url)

    def offset(self, url: str) -> int:
        answer = self.head(url)
        assert answer.status == 200, answer
        return int(answer.headers["Upload-Offset"])

    def patch(self, url: str, offset: int, data: bytes, **fields: Any) -> Answer:
        return self.ask("PATCH", url, data, Content_Type=PIECE, Upload_Offset=offset, **fields)

    def begin_patch(self, url: str, offset: int, size: int, data: bytes) -> Exchange:
        """Send the head of a PATCH of `size` bytes, and the first of them."""
        exchange = Exchange(self.app.address)
        head = (
            f"PATCH {url} HTTP/1.1\r\nHost: test\r\nCookie: session={self.session}\r\nTus-Resumable: 1.0.0\r\n"
            f"Content-Type: {PIECE}\r\nUpload-Offset: {offset}\r\nContent-Length: {size}\r\n\r\n"
        )
        exchange.send(head.encode() + data)
        return exchange

    def received(self, url: str) -> int:
        """How much is on the disk: unlike `offset`, this takes the upload from nobody."""
        return (self.app.directory / "resumable" / url[7:] / "data").stat().st_size

    def finished(self) -> list[dict[str, Any]]:
        """The uploads in the list."""
        uploads: list[dict[str, Any]] = self.app.ask("GET", "/uploads", session=self.session).json["uploads"]
        return uploads
