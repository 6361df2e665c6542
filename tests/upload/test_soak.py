"""What is promised in figures: a thousand uploads at once, again and again, beside one of 4 GiB; how soon an upload is
taken over from a dead connection.

`make soak ARGS=tests/upload` runs it, and prints its figures. It needs 8 GiB below the directory of the tests, which is
in memory where /dev/shm has room.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import resource
import selectors
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from tests.services import CHECKOUT
from tests.upload.conftest import Start
from tests.upload.harness import PATIENCE, App, BackEnd, environment, eventually, memory
from tests.upload.test_half_open import drop_what_comes, holder
from tests.upload.tus import Client

UPLOADS = 1000
SIZE = 1 << 20
LARGE = 4 << 30
WAVES = 3
HEALTHY = 0.1  # seconds that 99 of 100 answers of /health may take
TAKE_OVERS = 30  # uploads, each taken over three times
TAKEN_OVER = 1.0  # seconds, until the new connection's data are written
GROWTH = 16 << 20  # bytes that the process may have more after the last wave than after the first


class Upload:
    """One of many, on a connection that never waits."""

    def __init__(self, app: App, session: str, number: int, rest: bytes) -> None:
        self.content = number.to_bytes(16, "big") + rest
        head = (
            f"PUT /upload/{number} HTTP/1.1\r\nHost: test\r\nCookie: session={session}\r\n"
            f"Content-Length: {len(self.content)}\r\n\r\n"
        )
        self.socket = socket.create_connection(app.address, timeout=PATIENCE)
        self.socket.setblocking(False)
        self.left = [memoryview(head.encode() + self.content[: SIZE // 2]), memoryview(self.content)[SIZE // 2 :]]

    def send(self) -> bool:
        """Send what there is room for; whether this part is sent."""
        self.left[0] = self.left[0][self.socket.send(self.left[0]) :]
        if not self.left[0]:
            del self.left[0]
            return True
        return False

    def answer(self) -> str:
        """The upload's id."""
        self.socket.settimeout(PATIENCE)
        with self.socket, closing(http.client.HTTPResponse(self.socket)) as response:
            response.begin()
            assert response.status == 201
            return str(json.loads(response.read())["id"])


def _send_all(uploads: list[Upload]) -> None:
    with selectors.DefaultSelector() as selector:
        for upload in uploads:
            selector.register(upload.socket, selectors.EVENT_WRITE, upload)
        while selector.get_map():
            for key, _ in selector.select(PATIENCE):
                if key.data.send():
                    selector.unregister(key.fileobj)


def _wave(app: App, session: str, first: int, rest: bytes) -> dict[str, str]:
    """A thousand uploads that are all under way before the first of them ends; the digests by their ids."""
    uploads = [Upload(app, session, first + number, rest) for number in range(UPLOADS)]
    _send_all(uploads)
    eventually(lambda: sum(path.endswith(".part") for path in app.files) == UPLOADS + 1)
    _send_all(uploads)
    return {upload.answer(): hashlib.sha256(upload.content).hexdigest() for upload in uploads}


class Large(threading.Thread):
    """One upload of 4 GiB, whose last bytes are sent when it is told to end."""

    def __init__(self, app: App, session: str) -> None:
        super().__init__()
        self.exchange = app.begin_put(session, LARGE)
        self.may_end = threading.Event()
        self.digest = hashlib.sha256()

    def run(self) -> None:
        piece = random.Random(2).randbytes(SIZE)
        for number in range(LARGE // SIZE):
            if number == LARGE // SIZE - 1:
                self.may_end.wait()
            self.exchange.send(piece)
            self.digest.update(piece)

    def end(self) -> dict[str, str]:
        self.may_end.set()
        self.join()
        answer = self.exchange.answer()
        assert answer.status == 201
        return {answer.json["id"]: self.digest.hexdigest()}


@contextmanager
def _probing(app: App) -> Iterator[list[float]]:
    """How long answers of /health take meanwhile, in seconds, sorted; known after the block."""
    taken: list[float] = []
    script = f"from tests.upload.test_soak import probe; probe({app.address[1]})"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=CHECKOUT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as prober:  # fmt: skip
        try:
            yield taken
        finally:
            printed, _ = prober.communicate()
        taken += sorted(json.loads(printed))


def probe(port: int) -> None:
    """Ask for /health until the end of standard input, then print how long each answer took."""
    taken = []
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection, selectors.DefaultSelector() as ended:
        ended.register(sys.stdin, selectors.EVENT_READ)
        while not ended.select(0.005):
            begun = time.perf_counter()
            connection.request("GET", "/health")
            assert connection.getresponse().read()
            taken.append(time.perf_counter() - begun)
    print(json.dumps(taken))


@pytest.mark.soak
def test_a_thousand_uploads_at_once_beside_one_of_4_gib(start: Start, back_end: BackEnd) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    app = start(back_end)
    session = app.log_in()
    rest = random.Random(1).randbytes(SIZE - 16)
    digests: dict[str, str] = {}
    peaks = [memory(app.process.pid, "VmHWM")]
    with _probing(app) as taken:
        large = Large(app, session)
        large.start()
        for wave in range(WAVES):
            digests |= _wave(app, session, wave * UPLOADS, rest)
            peaks.append(memory(app.process.pid, "VmHWM"))
        digests |= large.end()
        peaks.append(memory(app.process.pid, "VmHWM"))
    middle, last = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
    print(f"\n/health: {len(taken)} answers, p50 {middle * 1000:.1f} ms, p99 {last * 1000:.1f} ms")
    print("memory at most, in MB: " + ", ".join(f"{peak / 1e6:.0f}" for peak in peaks))
    rows = {str(row["id"]): row for row in app.rows}
    assert {key: row["sha256"] for key, row in rows.items()} == digests
    assert {row["path"] for row in rows.values()} == app.files
    for row in rows.values():
        with open(app.directory / row["path"], "rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == row["sha256"]
    shutil.rmtree(app.directory / "files")
    assert len(digests) == WAVES * UPLOADS + 1
    assert last < HEALTHY
    assert peaks[-1] - peaks[1] < GROWTH


@pytest.mark.soak
def test_an_upload_is_taken_over_within_a_second(start: Start, back_end: BackEnd) -> None:
    """From connections whose packets are dropped, in the same of four workers or in another."""
    app = start(back_end, "--workers", "4")
    client = Client(app)
    taken: dict[bool, list[float]] = {False: [], True: []}
    with ExitStack() as stack:
        previous: int | None = None
        for _ in range(TAKE_OVERS):
            url = client.create(SIZE)
            for offset in range(0, SIZE // 2, SIZE // 8):
                data = bytes(SIZE // 8)
                begun = time.perf_counter()
                dead = stack.enter_context(client.begin_patch(url, offset, SIZE - offset, data))
                eventually(lambda: client.received(url) == offset + len(data))  # noqa: B023
                took, now = time.perf_counter() - begun, holder(app, url)
                if offset:
                    taken[now != previous].append(took)
                previous = now
                drop_what_comes(dead)
    for other, times in taken.items():
        times.sort()
        figures = f"{len(times)} times, p50 {times[len(times) // 2] * 1000:.0f} ms, at most {times[-1] * 1000:.0f} ms"
        print(f"\nfrom {'another' if other else 'the same'} worker: {figures}")
        assert times[-1] < TAKEN_OVER
