"""Slow attackers of all kinds at once, with an honest slow client among them. The clock is the test's.

`python -m benchmarks slow_clients` does the same with thousands of them, in real time.
"""

from __future__ import annotations

import select
from collections.abc import Callable

from coro.http import Limits, Request, Response, Router
from coro.task import Coro
from tests.http.conftest import Serve
from tests.http.serving import Client, get, hello, put, put_chunked

LIMITS = Limits(head_time=20, idle_time=75, body_idle_time=60, body_rate=240)
EACH = 20  # attackers of a kind
HONEST_RATE = 50_000  # bytes a second
LENGTH = 75 * HONEST_RATE  # longer than any of them holds out


def count_body(request: Request) -> Coro[Response]:
    size = 0
    while data := (yield from request.body.read()):
        size += len(data)
    return Response(200, str(size))


# What an attacker begins with, what it sends each second, and the status with which, after how long, it is cut off.
ATTACKS: dict[str, tuple[bytes, Callable[[int], bytes], int, float]] = {
    "head that drips": (b"GET / HTTP/1.1\r\n", lambda second: b"X: y\r\n"[(second - 1) % 6 :][:1], 408, 20),
    "body that stalls": (put(b"x", length=10**6, target="/body"), lambda second: b"", 408, 60),
    "body of a byte a second": (put(length=10**6, target="/body"), lambda second: b"x", 408, 61),
    "chunks of a byte": (put_chunked(b"", target="/body"), lambda second: b"1\r\nx\r\n", 408, 62),
    "chunk extension": (put_chunked(b"1;", target="/body"), lambda second: b"x" * 1000, 400, 17),
    "silence": (b"", lambda second: b"", 0, 20),
}  # fmt: skip


def status_of(client: Client) -> int:
    """The status with which the client was cut off; 0: without an answer."""
    return int((client.rest() or b"HTTP/1.1 0").split()[1])


def has_been_cut(client: Client) -> bool:
    return bool(select.select([client.sock], [], [], 0)[0])


def test_attackers_are_cut_off_and_others_are_served(serve: Serve) -> None:
    router = Router()
    router.add("GET", "/health", hello)
    router.add("PUT", "/body", count_body)
    service = serve(router.handle, LIMITS)
    attackers = {name: [service.client() for _ in range(EACH)] for name in ATTACKS}
    for name, clients in attackers.items():
        for client in clients:
            client.send(ATTACKS[name][0])
    honest, probe = service.client(), service.client()
    honest.send(put(length=LENGTH, target="/body"))
    server = service.server
    service.until(lambda: len(server.connections) == EACH * len(ATTACKS) + 2)
    service.until(lambda: all(c.deadline < float("inf") for c in server.connections))
    upload = next(c.request for c in server.connections if c.request and c.request.content_length == LENGTH)

    cut: dict[str, int] = {}
    for second in range(1, 75):
        honest.send(b"h" * HONEST_RATE)
        for name in attackers.keys() - cut.keys():
            for client in attackers[name]:
                if data := ATTACKS[name][1](second):
                    client.send(data)
        assert probe.ask(get("/health")).body == b"GET /health"
        service.until(lambda second=second: upload.head.buffered == second * HONEST_RATE)  # type: ignore[misc]
        service.advance(1)
        for name in attackers.keys() - cut.keys():
            if has_been_cut(attackers[name][0]):
                cut[name] = second
    honest.send(b"h" * HONEST_RATE)
    assert honest.answer().body == b"%d" % LENGTH
    assert cut.keys() == ATTACKS.keys()
    for name, (_, _, status, seconds) in ATTACKS.items():
        assert [status_of(client) for client in attackers[name]] == [status] * EACH, name
        assert seconds - 1 <= cut[name] <= seconds + 2, name
    assert probe.ask(get("/health")).status == 200
