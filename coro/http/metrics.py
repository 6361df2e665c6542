"""What a server does, in numbers, as Prometheus reads them (text format 0.0.4).

    metrics = Metrics()
    router.add("GET", "/metrics", metrics.handle)
    server = Server(router.handle, recorders=[metrics])

Several worker processes count each for itself: give each a port of its own to be asked at.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import Counter
from pathlib import Path

from coro.http.message import Request, Response
from coro.task import Coro

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


class Metrics:
    """Counts answers by method and status, their bytes, and the time they took."""

    def __init__(self) -> None:
        self._answers: Counter[tuple[str, int]] = Counter()
        self._refusals: Counter[int] = Counter()
        self._bytes = 0
        self._seconds = 0.0
        self._times = [0] * (len(BUCKETS) + 1)  # answers by bucket, the slower ones last
        self._start = time.time()

    def record(self, request: Request, status: int, size: int, seconds: float) -> None:
        self._answers[request.method, status] += 1
        self._bytes += size
        self._seconds += seconds
        self._times[bisect_left(BUCKETS, seconds)] += 1

    def record_refusal(self, peer: str, status: int, size: int) -> None:
        self._refusals[status] += 1
        self._bytes += size

    def handle(self, request: Request) -> Coro[Response]:
        """A handler that answers with the numbers. Does not suspend."""
        yield from ()
        return Response(200, self.text(request.open_connections).encode(), content_type=CONTENT_TYPE)

    def text(self, connections: int) -> str:
        lines: list[str] = []

        def metric(name: str, kind: str, help: str, *samples: tuple[str, float]) -> None:
            lines.extend((f"# HELP {name} {help}", f"# TYPE {name} {kind}"))
            lines.extend(f"{name}{labels} {value}" for labels, value in samples)

        metric(
            "http_requests_total", "counter", "Requests that were answered.",
            *((f'{{method="{method}",status="{status}"}}', n) for (method, status), n in sorted(self._answers.items())),
        )  # fmt: skip
        metric(
            "http_refusals_total", "counter", "Bytes that could not become a request and were answered.",
            *((f'{{status="{status}"}}', number) for status, number in sorted(self._refusals.items())),
        )  # fmt: skip
        metric("http_response_body_bytes_total", "counter", "Bytes of the bodies of answers.", ("", self._bytes))
        total, samples = 0, []
        for bound, number in zip([*map(str, BUCKETS), "+Inf"], self._times, strict=True):
            total += number
            samples.append((f'_bucket{{le="{bound}"}}', float(total)))
        metric(
            "http_request_duration_seconds", "histogram", "Time from a request's head to the end of its answer.",
            *((labels, int(value)) for labels, value in samples), ("_sum", self._seconds), ("_count", total),
        )  # fmt: skip
        metric("http_connections", "gauge", "Connections that are open.", ("", connections))
        metric("process_cpu_seconds_total", "counter", "User and system time.", ("", time.process_time()))
        metric("process_resident_memory_bytes", "gauge", "Resident memory.", ("", _resident_bytes()))
        metric("process_start_time_seconds", "gauge", "When counting began.", ("", self._start))
        return "\n".join(lines) + "\n"


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_SIZE
