"""python -m benchmarks.peers.multipart_parsing PEER KIND: CPU seconds a GiB for a form's file, as JSON.

The file comes in pieces of 64 KiB. KIND is `random`, or `lines`: text, whose line ends all might begin a boundary.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterator

BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
SIZE = 64 << 20
PIECE = 65536
HEAD = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'.encode()
END = f"\r\n--{BOUNDARY}--\r\n".encode()
CONTENT = {
    "random": random.Random(1).randbytes(PIECE),
    "lines": (b"a line of 32 characters of text\r\n" * 2048)[:PIECE],
}


def pieces(kind: str) -> Iterator[bytes]:
    yield HEAD
    for _ in range(SIZE // PIECE):
        yield CONTENT[kind]
    yield END


def with_multipart(body: Iterator[bytes]) -> int:
    import multipart

    size = 0
    parser = multipart.PushMultipartParser(BOUNDARY)
    for piece in body:
        for event in parser.parse(piece):
            if isinstance(event, bytes | bytearray):
                size += len(event)
    return size


def with_python_multipart(body: Iterator[bytes]) -> int:
    from python_multipart import MultipartParser

    size = 0

    def on_part_data(data: bytes, start: int, end: int) -> None:
        nonlocal size
        size += end - start

    parser = MultipartParser(BOUNDARY.encode(), {"on_part_data": on_part_data})
    for piece in body:
        parser.write(piece)
    parser.finalize()
    return size


def with_streaming_form_data(body: Iterator[bytes]) -> int:
    from streaming_form_data import StreamingFormDataParser
    from streaming_form_data.targets import BaseTarget

    class Counter(BaseTarget):  # type: ignore[misc]
        size = 0

        def on_data_received(self, chunk: bytes) -> None:
            self.size += len(chunk)

    target = Counter()
    parser = StreamingFormDataParser({"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
    parser.register("f", target)
    for piece in body:
        parser.data_received(piece)
    return target.size


PEERS: dict[str, Callable[[Iterator[bytes]], int]] = {
    "multipart": with_multipart,
    "python_multipart": with_python_multipart,
    "streaming_form_data": with_streaming_form_data,
}


def main(peer: str, kind: str) -> None:
    begin = time.process_time()
    size = PEERS[peer](pieces(kind))
    used = time.process_time() - begin
    assert size == SIZE, f"{size} bytes came out"
    print(json.dumps(used * (1 << 30) / SIZE))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
