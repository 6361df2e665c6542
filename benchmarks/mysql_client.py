"""MySQL clients: a row by its key, many rows at once, many rows inserted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.peers.mysql_client import TABLE_ROWS, rows
from benchmarks.processes import LOAD_CORE, SERVER_CORE, Failed, Peer, pinned, progress, python, run_json
from benchmarks.report import Column, Options, Report
from benchmarks.stores import MARIADB_OPTIONS
from tests.services import FailedServer, MariaDBServer, MissingServer

PEERS = [
    Peer("coro", "coro"),
    Peer("PyMySQL", "pymysql", ("pymysql",)),
    Peer("aiomysql", "aiomysql", ("aiomysql",)),
    Peer("asyncmy (Cython)", "asyncmy", ("asyncmy",)),
    Peer("mysqlclient (C)", "MySQLdb", ("MySQLdb",)),
]
INSERTED = 10_000
WHAT = {
    "point": ("Select a row by its key", "from 32 tasks over a pool of 16; clients without tasks, one after the other"),
    "fetch": ("Fetch rows", f"{TABLE_ROWS:,} rows of an INT, a VARCHAR, a BIGINT, a DOUBLE and a DATETIME at once"),
    "insert": ("Insert rows", f"{INSERTED:,} such rows, with execute_many"),
}
COLUMNS = "(id INT PRIMARY KEY, name VARCHAR(64), size BIGINT, ratio DOUBLE, created DATETIME)"


def measure(options: Options) -> Iterator[Report]:
    progress("mysql_client: starting MariaDB")
    with ExitStack() as stack:
        try:
            with pinned(LOAD_CORE):
                server = stack.enter_context(MariaDBServer(*MARIADB_OPTIONS))
        except (MissingServer, FailedServer) as error:
            raise Failed(str(error)) from None
        _make_tables(server)
        for what, count in (("point", options.pick(20_000, 4_000)), ("fetch", TABLE_ROWS), ("insert", INSERTED)):
            yield _compare(server, what, count, options.pick(7, 3))


def _make_tables(server: MariaDBServer) -> None:
    server.sql("CREATE DATABASE bench")
    server.sql(f"CREATE TABLE bench.rows5 {COLUMNS}")
    server.sql(f"CREATE TABLE bench.inserts {COLUMNS}")
    made = rows(TABLE_ROWS)
    for start in range(0, TABLE_ROWS, 5000):
        part = made[start : start + 5000]
        values = ",".join(f"({n}, '{name}', {size}, {ratio!r}, '{at}')" for n, name, size, ratio, at in part)
        server.sql(f"INSERT INTO bench.rows5 VALUES {values}")


def _compare(server: MariaDBServer, what: str, count: int, repeats: int) -> Report:
    title, doing = WHAT[what]
    unit, units = ("query", "queries") if what == "point" else ("row", "rows")
    report = Report(
        f"MySQL: {title.lower()}",
        f"{title}: {doing}. MariaDB on the other core, no TLS; the client's CPU time, best of {repeats} runs.",
        [Column(f"CPU us per {unit}", 2), Column(f"{units} per second")],
    )
    for repeat in range(repeats):
        progress(f"mysql_client: {what}, run {repeat + 1} of {repeats}")
        for peer in PEERS:
            server.sql("TRUNCATE TABLE bench.inserts")
            try:
                peer.check()
                command = python("benchmarks.peers.mysql_client", peer.program, what, server.port, count)
                seconds = run_json(command, SERVER_CORE)
            except Failed as failure:
                report.absent[peer.name] = str(failure)
                continue
            cpu, rate = report.rows.get(peer.name, (math.inf, 0.0))
            report.rows[peer.name] = [min(cpu, seconds["cpu"] * 1e6), max(rate, 1 / seconds["wall"])]
    _require(report, what)
    return report


def _require(report: Report, what: str) -> None:
    if what == "insert":
        rate = report.rows["coro"][1] / report.rows["PyMySQL"][1] if "PyMySQL" in report.rows else math.nan
        report.require("coro's rate is at least PyMySQL's", rate, at_least=1)
        return
    pymysql, aiomysql = (0.85, 0.63) if what == "point" else (0.51, 0.44)
    for peer, at_most in (("PyMySQL", pymysql), ("aiomysql", aiomysql)):
        report.require(f"coro's time is at most {at_most} of {peer}'s", report.ratio("coro", peer), at_most=at_most)
