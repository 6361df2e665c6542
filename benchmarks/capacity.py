"""`coro run --stats` of the upload app: what it predicts at part of the load, against what saturation really gives."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator

from benchmarks import load, stores, uploads
from benchmarks.processes import Failed, cpu_seconds, progress, wait_until_idle
from benchmarks.report import Column, Options, Report
from benchmarks.stores import Stores

SIZE = 256 * 1024  # with the digest it takes the server's core to its limit before the other core, which has all else
CONNECTIONS = 64
PAUSES = (100, 50)  # milliseconds between two requests of a connection: a light load, and up to half of what can be
OPTIONS = ("--no-fsync",)
TOOLS: dict[str, tuple[str, ...]] = {
    "off": (),
    "--watchdog 0.1": ("--watchdog", "0.1"),
    "--stats": ("--stats",),
    "--trace": ("--trace", "trace.json"),  # in the benchmark's directory
}
LIMIT = re.compile(r"limit: ([\d,]+) requests a second per core; what gives out first: (.*)")


def measure(options: Options) -> Iterator[Report]:
    seconds = options.pick(8, 4)
    prediction = Report(
        "Capacity: predicted and real",
        f"The upload job of {SIZE // 1024} KiB over {CONNECTIONS} connections. Predicted: by `/stats` of the server,"
        f" with a pause of so many ms (on average) before each request of a connection, for {seconds} s. Real:"
        " without pauses; uploads by CPU seconds of the process, all of them.",
        [Column("uploads per CPU-second"), Column("uploads/s")],
        more_is_better=True,
        baseline="real",
    )
    costs = Report(
        "Tools that are on",
        f"The same job without pauses, CPU of the server per upload; {seconds} s each.",
        [Column("server CPU us"), Column("uploads/s")],
        baseline="off",
    )
    try:
        load.check()
        with stores.running() as running:
            _predict(prediction, running, seconds)
            for name, tools in TOOLS.items():
                progress(f"capacity: {name}")
                rate, per_second = _saturate(running, seconds, tools)
                costs.rows[name] = [1e6 / rate, per_second]
    except Failed as failure:
        prediction.absent["everything"] = str(failure)
    for pause in PAUSES:
        ratio = prediction.ratio(f"predicted, pauses of {pause} ms", "real")
        prediction.require(f"predicted at pauses of {pause} ms, to real", ratio, at_least=0.9, at_most=1.1)
    costs.require("with --trace, throughput kept", costs.ratio("off", "--trace"), at_least=0.6)
    yield prediction
    yield costs


def _predict(report: Report, running: Stores, seconds: int) -> None:
    for pause in PAUSES:
        progress(f"capacity: pauses of {pause} ms")
        with uploads.server(uploads.CORO, running, OPTIONS, ("--stats",)) as server:
            url = f"http://127.0.0.1:{server.port}"
            result = load.run(url, CONNECTIONS, seconds, running.tokens_file, SIZE, pause)
            report.rows[f"predicted, pauses of {pause} ms"] = [
                _predicted(server.port, next(iter(running.tokens.values()))), result.created / result.seconds,
            ]  # fmt: skip
    progress("capacity: real")
    report.rows["real"] = _saturate(running, seconds, ("--stats",))


def _saturate(running: Stores, seconds: int, tools: tuple[str, ...]) -> list[float]:
    """Uploads per CPU-second of the server, and per second."""
    with uploads.server(uploads.CORO, running, OPTIONS, tools) as server:
        url = f"http://127.0.0.1:{server.port}"
        load.run(url, CONNECTIONS, 1, running.tokens_file, SIZE)  # warm-up
        wait_until_idle(server.pid)
        before = cpu_seconds(server.pid)
        result = load.run(url, CONNECTIONS, seconds, running.tokens_file, SIZE)
        wait_until_idle(server.pid)
        return [result.created / (cpu_seconds(server.pid) - before), result.created / result.seconds]


def _predicted(port: int, token: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/stats", headers={"Cookie": f"session={token}"})
    text = connection.getresponse().read().decode()
    connection.close()
    found = LIMIT.search(text)
    if found is None:
        raise Failed(f"/stats answers {text[:200]!r}")
    progress(text)
    return float(found[1].replace(",", ""))
