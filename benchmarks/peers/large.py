"""python -m benchmarks.peers.large PEER PORT DIRECTORY: a PUT goes to DIRECTORY/in, a GET answers with DIRECTORY/out.

`coro` is the HTTP server with a handler; `bare` is a blocking loop, one connection at a time, of the system calls that
there must be: `recv_into` and `write` of 1 MiB, or `sendfile`.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable

BUFFER_SIZE = 1 << 20


def with_coro(port: int, directory: str) -> None:
    import coro
    from coro import Coro
    from coro.http import FileResponse, Request, Response, Router, Server

    buffer = memoryview(bytearray(BUFFER_SIZE))

    def put(request: Request) -> Coro[Response]:
        with open(f"{directory}/in", "wb", buffering=0) as file:
            while count := (yield from request.body.read_into(buffer)):
                file.write(buffer[:count])
        return Response(201)

    def get(request: Request) -> Coro[FileResponse]:
        return (yield from FileResponse.open(request, f"{directory}/out"))

    def main() -> Coro[None]:
        router = Router()
        router.add("PUT", "/", put)
        router.add("GET", "/", get)
        yield from Server(router.handle).serve(coro.listen("127.0.0.1", port))

    coro.run(main())


def bare(port: int, directory: str) -> None:
    buffer = bytearray(BUFFER_SIZE)
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                head = b""
                while b"\r\n\r\n" not in head and (data := connection.recv(65536)):
                    head += data
                if head.startswith(b"PUT"):
                    _store(connection, head, f"{directory}/in", buffer)
                elif head:
                    _send(connection, f"{directory}/out")


def _store(connection: socket.socket, head: bytes, path: str, buffer: bytearray) -> None:
    head, _, start = head.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    assert length is not None
    missing = int(length[1]) - len(start)
    view = memoryview(buffer)
    with open(path, "wb", buffering=0) as file:
        file.write(start)
        while missing and (count := connection.recv_into(buffer)):
            file.write(view[:count])
            missing -= count
    connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")


def _send(connection: socket.socket, path: str) -> None:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        offset = 0
        while offset < size:
            offset += os.sendfile(connection.fileno(), file.fileno(), offset, BUFFER_SIZE)


PEERS: dict[str, Callable[[int, str], None]] = {"coro": with_coro, "bare": bare}

if __name__ == "__main__":
    PEERS[sys.argv[1]](int(sys.argv[2]), sys.argv[3])
