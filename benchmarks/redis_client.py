"""Redis clients: what a GET costs the program that asks, small and large."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.peers.redis_clients import PIPELINE
from benchmarks.processes import LOAD_CORE, SERVER_CORE, Failed, Peer, pinned, progress, python, run_json
from benchmarks.report import Column, Options, Report
from tests.services import FailedServer, MissingServer, RedisServer

TASKS, SMALL = 64, 32
LARGE = 1 << 20
HIREDIS = ("redis", "hiredis")
ASYNCIO = Peer("redis.asyncio, hiredis", "redis-asyncio", HIREDIS)
SYNC = Peer("redis-py, hiredis, one at a time", "redis-py", HIREDIS)
PEERS = [
    Peer("coro", "coro"),
    ASYNCIO,
    Peer("redis.asyncio, hiredis, uvloop", "redis-asyncio-uvloop", (*HIREDIS, "uvloop")),
    Peer("coredis", "coredis", ("coredis",)),
    SYNC,
    Peer(f"redis-py, hiredis, pipelines of {PIPELINE}", "redis-py-pipeline", HIREDIS),
    Peer(f"coro, pipelines of {PIPELINE}", "coro-pipeline"),
]


def measure(options: Options) -> Iterator[Report]:
    try:
        with pinned(LOAD_CORE):
            server = RedisServer()
            server.start()
    except (MissingServer, FailedServer) as error:
        raise Failed(str(error)) from None
    try:
        yield _small(options, server.port)
        yield _large(options, server.port)
    finally:
        server.close()


def _small(options: Options, port: int) -> Report:
    count, repeats = options.pick(1500, 300), options.pick(5, 2)
    report = Report(
        f"GET of {SMALL} bytes, {TASKS} tasks",
        f"All tasks share one client object; the server is on another core. Best of {repeats} runs of"
        f" {TASKS * count:,} GETs.",
        [Column("client CPU us per GET", 1), Column("GETs/s")],
    )
    for peer in _repeated(repeats, PEERS):
        _measure_peer(report, peer, port, SMALL, TASKS, count)
    report.require(
        "coro's CPU time per GET is at most 1/4 of redis.asyncio's with hiredis",
        report.ratio("coro", ASYNCIO.name),
        at_most=0.25,
    )
    if ASYNCIO.name in report.rows:
        report.require(
            "coro does at least 3 times as many GETs per second",
            report.rows["coro"][1] / report.rows[ASYNCIO.name][1],
            at_least=3,
        )
    return report


def _large(options: Options, port: int) -> Report:
    count, repeats = options.pick(400, 100), options.pick(5, 2)
    report = Report(
        "GET of 1 MiB, one task",
        f"The server is on another core. Best of {repeats} runs of {count:,} GETs.",
        [Column("client CPU us per GET"), Column("GETs/s")],
    )
    for peer in _repeated(repeats, [PEERS[0], ASYNCIO, SYNC]):
        _measure_peer(report, peer, port, LARGE, 1, count)
    report.require(
        "coro reads at least 80% as many bytes per CPU-second as redis-py with hiredis",
        report.ratio(SYNC.name, "coro"),
        at_least=0.8,
    )
    if SYNC.name in report.rows:
        report.require(
            "coro does at least 80% as many GETs per second as redis-py with hiredis",
            report.rows["coro"][1] / report.rows[SYNC.name][1],
            at_least=0.8,
        )
    return report


def _repeated(repeats: int, peers: list[Peer]) -> Iterator[Peer]:
    """The peers in turn, several times: what disturbs the machine meets them alike."""
    for repeat in range(repeats):
        for peer in peers:
            progress(f"redis_client: run {repeat + 1} of {repeats}, {peer.name}")
            yield peer


def _measure_peer(report: Report, peer: Peer, port: int, size: int, tasks: int, count: int) -> None:
    try:
        peer.check()
        cpu, wall = run_json(
            python("benchmarks.peers.redis_clients", peer.program, port, size, tasks, count), SERVER_CORE
        )
    except Failed as failure:
        report.absent[peer.name] = str(failure)
        return
    figures = cpu / (tasks * count) * 1e6, tasks * count / wall
    best = report.rows.get(peer.name, figures)
    report.rows[peer.name] = min(best[0], figures[0]), max(best[1], figures[1])
