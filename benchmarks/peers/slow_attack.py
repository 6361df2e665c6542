"""python -m benchmarks.peers.slow_attack PORT EACH: so many slow attackers of each kind, until all have been cut off.

Prints "attacking" when all have begun; then, as JSON, for each kind the statuses with which they were cut off (0: no
answer) and the seconds until the last one was.

python -m benchmarks.peers.slow_attack PORT probe: GET /health every 20 ms until stdin ends; latencies in ms, as JSON.
python -m benchmarks.peers.slow_attack PORT honest SECONDS: an upload at 50 KB/s; how it was answered.
"""

from __future__ import annotations

import http.client
import json
import select
import selectors
import socket
import sys
import time
from collections import Counter
from contextlib import suppress

from benchmarks.peers.slow_uploads import connect

HONEST_RATE = 50_000  # bytes a second
PUT = b"PUT / HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n\r\n"
WITH_LENGTH = PUT + b"Content-Length: 1000000\r\n\r\n"
PATIENCE = 180.0  # seconds
TURNS = 20  # in each second: attackers do not all send at the same moment, as clients of their own would not

# What each begins with, and what it goes on with each second.
ATTACKS: dict[str, tuple[bytes, bytes]] = {
    "heads": (b"GET / HTTP/1.1\r\nX: ", b"y"),
    "stalled": (WITH_LENGTH + b"x", b""),
    "dripping": (WITH_LENGTH, b"x"),
    "extensions": (CHUNKED + b"1;", b"x" * 1000),
}


def attack(port: int, each: int) -> None:
    selector = selectors.DefaultSelector()
    left: dict[socket.socket, str] = {}
    for kind, (start, _) in ATTACKS.items():
        for _ in range(each):
            connection = connect(port, len(left))
            connection.setblocking(False)
            connection.send(start)
            left[connection] = kind
            selector.register(connection, selectors.EVENT_READ)
    print("attacking", flush=True)
    turns = [list(left)[turn::TURNS] for turn in range(TURNS)]
    begin = due = time.monotonic()
    turn = 0
    statuses: dict[str, Counter[int]] = {kind: Counter() for kind in ATTACKS}
    last = dict.fromkeys(ATTACKS, 0.0)
    while left and time.monotonic() < begin + PATIENCE:
        if time.monotonic() >= due:
            due += 1 / TURNS
            for connection in turns[turn]:
                with suppress(OSError, KeyError):  # it has been closed, or will be readable because it has been
                    connection.send(ATTACKS[left[connection]][1])
            turn = (turn + 1) % TURNS
        for key, _ in selector.select(max(0.0, due - time.monotonic())):
            connection = key.fileobj  # type: ignore[assignment]
            try:
                data = connection.recv(4096)
            except OSError:
                data = b""
            kind = left.pop(connection)
            statuses[kind][int(data.split()[1]) if data else 0] += 1
            last[kind] = time.monotonic() - begin
            selector.unregister(connection)
            connection.close()
    held = Counter(left.values())
    print(json.dumps({kind: [statuses[kind], last[kind], held[kind]] for kind in ATTACKS}), flush=True)


def probe(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    latencies = []
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        begin = time.perf_counter()
        connection.request("GET", "/health")
        connection.getresponse().read()
        latencies.append((time.perf_counter() - begin) * 1e3)
    latencies.sort()
    print(json.dumps({"p50": latencies[len(latencies) // 2], "p99": latencies[len(latencies) * 99 // 100]}))


def honest(port: int, seconds: int) -> None:
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    size = seconds * HONEST_RATE
    connection.sendall(PUT + b"Content-Length: %d\r\n\r\n" % size)
    for _ in range(seconds * 10):
        connection.sendall(b"h" * (HONEST_RATE // 10))
        time.sleep(0.1)
    answer = connection.recv(4096)
    print(json.dumps({"status": int(answer.split()[1]), "whole": answer.endswith(b"%d" % size)}))


if __name__ == "__main__":
    if sys.argv[2] == "probe":
        probe(int(sys.argv[1]))
    elif sys.argv[2] == "honest":
        honest(int(sys.argv[1]), int(sys.argv[3]))
    else:
        attack(int(sys.argv[1]), int(sys.argv[2]))
