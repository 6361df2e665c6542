"""python -m benchmarks.peers.slow_uploads PORT TOKEN COUNT SIZE: uploads that stop half-way, all at once.

Prints a line when every upload has sent its head and half of its body; goes on when it is given a line;
prints, as JSON, how many answers of each status came, connections that broke as status 0. Upload N is named
slow-N.
"""

from __future__ import annotations

import json
import socket
import sys
from collections import Counter

ADDRESSES_EACH = 5000  # connections from one loopback address, so that its ports do not run short
IP_BIND_ADDRESS_NO_PORT = 24  # <linux/in.h>: pick the source port at connect, when the whole 4-tuple is known


def body_of(number: int, size: int) -> bytes:
    """The body of one upload: its number, over and over."""
    text = b"%08d" % number
    return (text * (size // len(text) + 1))[:size]


def connect(port: int, number: int) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    connection.bind((f"127.0.0.{1 + number // ADDRESSES_EACH}", 0))
    connection.settimeout(120)
    connection.connect(("127.0.0.1", port))
    return connection


def status_of(connection: socket.socket) -> int:
    """The status of the answer; what follows its status line is not waited for."""
    data = b""
    while b"\r\n" not in data:
        more = connection.recv(4096)
        if not more:
            return 0
        data += more
    return int(data.split()[1])


def main(port: int, token: str, count: int, size: int) -> None:
    connections = []
    for number in range(count):
        connection = connect(port, number)
        head = (
            f"PUT /upload/slow-{number} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Cookie: session={token}\r\nContent-Length: {size}\r\n\r\n"
        )
        connection.sendall(head.encode() + body_of(number, size)[: size // 2])
        connections.append(connection)
    print("parked", flush=True)
    sys.stdin.readline()
    statuses: Counter[int] = Counter()
    broken = set()
    for number, connection in enumerate(connections):
        try:
            connection.sendall(body_of(number, size)[size // 2 :])
        except OSError:
            broken.add(number)
    for number, connection in enumerate(connections):
        try:
            statuses[0 if number in broken else status_of(connection)] += 1
        except OSError:
            statuses[0] += 1
        connection.close()
    print(json.dumps(statuses), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
