"""python -m benchmarks.peers.send_large PORT TOKEN BLOCKS: one PUT of BLOCKS MiB; how it went, as JSON."""

from __future__ import annotations

import http.client
import json
import random
import sys
from collections.abc import Iterator
from time import perf_counter

BLOCK_SIZE = 1 << 20
BLOCK = random.Random(1).randbytes(BLOCK_SIZE)  # the body is this block over and over


def blocks(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield BLOCK


def main(port: int, token: str, count: int) -> None:
    headers = {"Cookie": f"session={token}", "Content-Length": str(count * BLOCK_SIZE)}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    start = perf_counter()
    connection.request("PUT", "/upload/large.bin", blocks(count), headers)
    answer = connection.getresponse()
    said = answer.read().decode()
    print(json.dumps({"status": answer.status, "answer": said, "seconds": perf_counter() - start}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
