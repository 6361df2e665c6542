"""`coro run --stats`: what it measures, and what follows from it."""

from __future__ import annotations

import http.client
import io
import random
import signal

import pytest

from coro.debug import capacity
from coro.debug.capacity import Fit, Report
from tests.debug.support import PATIENCE, Place


def test_the_report_of_a_known_server(place: Place) -> None:
    with place.running("--stats", "known:web", "--port", "0") as program:
        for number in range(5):
            connection = http.client.HTTPConnection("127.0.0.1", int(program.printed[0]), timeout=PATIENCE)
            connection.request("GET", f"/items/{number}")
            assert connection.getresponse().read() == b"shown"
            connection.close()
        connection.request("GET", "/nothing")  # by another connection
        connection.getresponse().read()
        connection.close()
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(PATIENCE) == 0
        text = program.stderr.read()
    assert "capacity: 6 requests" in text
    assert "GET /items/{id}: 5 requests" in text and "(no handler): 1 requests" in text
    lines = [line for line in text.splitlines() if " us CPU up to show, then waits " in line]
    waits = {line.split()[-1]: float(line.split()[-4].replace(",", "")) for line in lines}
    assert set(waits) == {"sleep", "threads"}
    assert min(waits.values()) >= 1000  # of 10,000, on average of five: a wait is measured from a little later on
    assert "us CPU up to the answer" in text
    assert "what gives out first: " in text


def test_each_worker_reports_under_its_own_number(place: Place) -> None:
    with place.running("--stats", "known:service", "--workers", "2", "--port", "0") as program:
        assert program.stdout.readline() == "on\n"  # of the second worker
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(PATIENCE) == 0
        lines = sorted(program.stderr)
    assert [line.partition(":")[0] for line in lines] == ["worker 0, capacity", "worker 1, capacity"]


@pytest.mark.parametrize("connections", [1, 64])
def test_costs_of_turns_and_of_steps_are_told_apart(connections: int) -> None:
    numbers = random.Random(1)
    fit = Fit()
    for _ in range(1000):
        turns = numbers.randrange(10, 60)
        steps = turns + numbers.randrange(0, 40)
        fit.add(turns, steps, int((turns * 30_000 + steps * 20_000) * numbers.uniform(0.9, 1.1)))
    turn, step = fit.solve()
    assert turn == pytest.approx(30_000, rel=0.1)
    assert step == pytest.approx(20_000, rel=0.1)


def test_what_cannot_be_told_apart_is_all_counted_for_steps() -> None:
    fit = Fit()
    for n in range(1000):
        fit.add(n, 2 * n, n * 100)
    assert fit.solve() == (0.0, 50.0)


def made_report(**changes: object) -> Report:
    values: dict[str, object] = {
        "seconds": 10.0, "requests": 1000, "cpu_now": 0.002, "cpu_full": 0.001, "used": 1.0, "in_flight": 2.0,
        "time_in_flight": 0.02, "connections": 10, "pools": {}, "resident": 1 << 20, "bytes_each": 0.0,
        "descriptors": 20, "handlers": {},
    }  # fmt: skip
    return Report(**{**values, **changes})  # type: ignore[arg-type]


def test_the_core_is_the_limit_when_nothing_else_is() -> None:
    report = made_report()
    assert min(report.limits(), key=report.limits().__getitem__) == "CPU"
    text = str(report)
    assert "limit: 1,000 requests a second per core; what gives out first: CPU" in text
    assert "there: 20.0 requests in flight at 20.00 ms each (Little's law)" in text


def test_threads_are_the_limit_when_requests_hold_them_for_long() -> None:
    report = made_report(pools={"disk": (16, 0.1)})
    assert report.limits()["disk threads (16)"] == pytest.approx(160)
    assert "limit: 160 requests a second per core; what gives out first: disk threads (16)" in str(report)


def test_memory_that_only_caches_files_is_there_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = "MemTotal:  9 kB\nMemFree:  1 kB\nMemAvailable:  2 kB\n"
    monkeypatch.setattr(capacity, "open", lambda path: io.StringIO(meminfo), raising=False)
    assert capacity.available_bytes() == 2048


def test_without_requests_it_says_so() -> None:
    assert str(made_report(requests=0)) == "capacity: no requests in 10 s\n"
