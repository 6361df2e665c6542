"""python -m benchmarks.peers.bare_put PORT FILE [digest]: the least that storing a body can cost in Python.

One connection at a time, blocking: `recv_into` a buffer of 1 MiB, `write` it to the file, and with `digest`
the SHA-256 of it all. No HTTP beyond what the client needs to be content.
"""

from __future__ import annotations

import hashlib
import re
import socket
import sys

BUFFER_SIZE = 1 << 20


def handle(connection: socket.socket, path: str, with_digest: bool) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(65536)
        if not data:
            return  # somebody who wanted to know whether we listen
        head += data
    head, _, start = head.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    assert length is not None
    missing = int(length[1]) - len(start)
    digest = hashlib.sha256(start)
    buffer = bytearray(BUFFER_SIZE)
    view = memoryview(buffer)
    with open(path, "wb", buffering=0) as file:
        file.write(start)
        while missing:
            count = connection.recv_into(buffer)
            if not count:
                return
            piece = view[:count]
            file.write(piece)
            if with_digest:
                digest.update(piece)
            missing -= count
    body = digest.hexdigest().encode() if with_digest else b""
    connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def main(port: int, path: str, with_digest: bool) -> None:
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                handle(connection, path, with_digest)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:] == ["digest"])
