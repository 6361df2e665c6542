"""python -m benchmarks.peers.transfer_large METHOD PORT BLOCKS: PUT so many MiB, or GET them; how it went, as JSON."""

from __future__ import annotations

import json
import socket
import sys
from time import perf_counter

from benchmarks.peers.send_large import BLOCK, BLOCK_SIZE


def main(method: str, port: int, count: int) -> None:
    size = count * BLOCK_SIZE
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        start = perf_counter()
        length = size if method == "PUT" else 0
        connection.sendall(f"{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
        if method == "PUT":
            for _ in range(count):
                connection.sendall(BLOCK)
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(4096)
        head, _, body = head.partition(b"\r\n\r\n")
        received, same = len(body), BLOCK.startswith(body)
        buffer = bytearray(BLOCK_SIZE)
        while method == "GET" and received < size:
            count = connection.recv_into(buffer)
            if not count:
                break
            place = received % BLOCK_SIZE
            same = same and buffer[: min(64, count)] == (BLOCK + BLOCK[:64])[place : place + min(64, count)]
            received += count
    seconds = perf_counter() - start
    whole = method == "PUT" or (same and received == size)
    print(json.dumps({"status": int(head.split()[1]), "whole": whole, "seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
