"""Redis Cluster clients: what a GET from one of three primaries costs the program that asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.processes import LOAD_CORE, SERVER_CORE, Failed, Peer, pinned, progress, python, run_json
from benchmarks.report import Column, Options, Report
from tests.services import FailedServer, MissingServer
from tests.topologies import STEADY, RedisCluster

TASKS, SIZE = 64, 32
HIREDIS = ("redis", "hiredis")
ASYNCIO = Peer("redis.asyncio.RedisCluster, hiredis", "redis-asyncio", HIREDIS)
PEERS = [
    Peer("coro", "coro"),
    ASYNCIO,
    Peer("coredis", "coredis", ("coredis",)),
    Peer("redis-py, hiredis, one at a time", "redis-py", HIREDIS),
]


def measure(options: Options) -> Iterator[Report]:
    progress("starting a Redis cluster")
    with ExitStack() as stack:
        try:
            with pinned(LOAD_CORE):
                cluster = stack.enter_context(RedisCluster(node_timeout=STEADY))
        except (MissingServer, FailedServer) as error:
            raise Failed(str(error)) from None
        yield _report(options, cluster.nodes[0].port)


def _report(options: Options, port: int) -> Report:
    count, repeats = options.pick(500, 100), options.pick(3, 2)
    report = Report(
        f"GET of {SIZE} bytes from a cluster of 3 + 3 nodes, {TASKS} tasks",
        f"Each task has a key of its own; all share one client object. The nodes are on another core. Best of {repeats}"
        f" runs of {TASKS * count:,} GETs.",
        [Column("client CPU us per GET", 1), Column("GETs/s")],
    )
    for repeat in range(repeats):
        for peer in PEERS:
            progress(f"redis_cluster: run {repeat + 1} of {repeats}, {peer.name}")
            _measure_peer(report, peer, port, count)
    report.require(
        "coro's CPU time per GET is at most 1/4 of redis.asyncio.RedisCluster's with hiredis",
        report.ratio("coro", ASYNCIO.name),
        at_most=0.25,
    )
    return report


def _measure_peer(report: Report, peer: Peer, port: int, count: int) -> None:
    try:
        peer.check()
        program = python("benchmarks.peers.redis_cluster_clients", peer.program, port, SIZE, TASKS, count)
        cpu, wall = run_json(program, SERVER_CORE)
    except Failed as failure:
        report.absent[peer.name] = str(failure)
        return
    figures = cpu / (TASKS * count) * 1e6, TASKS * count / wall
    best = report.rows.get(peer.name, figures)
    report.rows[peer.name] = min(best[0], figures[0]), max(best[1], figures[1])
