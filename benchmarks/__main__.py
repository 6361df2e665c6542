"""python -m benchmarks [--quick] [NAME ...]: run all benchmarks, or those named, and print their tables.

Tables go to stdout as Markdown, what is being done meanwhile to stderr. The exit code is 1 when a requirement
was missed, and 2 when what was asked for cannot be run at all.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import (
    capacity,
    connections,
    http_client,
    http_hello,
    http_idle,
    http_large,
    inspection,
    memory,
    multipart_parsers,
    mysql_client,
    primitives,
    redis_client,
    redis_cluster,
    slow_clients,
    switch,
    undriven,
    upload_durable,
    upload_job,
    upload_large,
)
from benchmarks.processes import CORES, LOAD_CORE
from benchmarks.report import Benchmark, Options

BENCHMARKS: dict[str, Benchmark] = {
    "switch": switch.measure,
    "memory": memory.measure,
    "primitives": primitives.measure,
    "undriven": undriven.measure,
    "inspection": inspection.measure,
    "capacity": capacity.measure,
    "mysql_client": mysql_client.measure,
    "redis_client": redis_client.measure,
    "redis_cluster": redis_cluster.measure,
    "http_hello": http_hello.measure,
    "http_idle": http_idle.measure,
    "http_large": http_large.measure,
    "slow_clients": slow_clients.measure,
    "multipart_parsers": multipart_parsers.measure,
    "http_client": http_client.measure,
    "upload_large": upload_large.measure,
    "upload_job": upload_job.measure,
    "upload_durable": upload_durable.measure,
    "connections": connections.measure,
}
PACKAGES = (
    "uvloop", "httptools", "uvicorn", "aiohttp", "httpx", "urllib3", "trio", "curio", "tinyio", "gevent", "greenlet",
    "PyMySQL", "aiomysql", "asyncmy", "mysqlclient", "redis", "hiredis", "coredis",
)  # fmt: skip


def machine() -> str:
    """What the figures were measured on and with, in one paragraph."""
    cpu = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = " ".join(line.partition(":")[2].split())
            break
    cores = f"{len(CORES)} core" + "s" * (len(CORES) > 1)
    words = [
        f"{cpu}, {cores}, Linux {platform.release()}",
        f"{platform.python_implementation()} {platform.python_version()}",
    ]
    for package in PACKAGES:
        try:
            words.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(words) + "."


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n\n")[2])
    parser.add_argument("names", nargs="*", metavar="NAME", help="any of: " + ", ".join(BENCHMARKS) + " (default: all)")
    parser.add_argument("--quick", action="store_true", help="short runs: a first look, not figures to quote")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if not sys.platform.startswith("linux"):
        parser.error("the benchmarks read /proc and pin processes to cores: they need Linux")

    os.sched_setaffinity(0, {LOAD_CORE})  # this process and what feeds the servers; see processes.py
    print(machine() + "\n", flush=True)
    if len(CORES) < 2:
        print("Only one core here: servers and their load share it, which distorts all rates.\n", flush=True)
    missed = 0
    for name in arguments.names or BENCHMARKS:
        for report in BENCHMARKS[name](Options(quick=arguments.quick)):
            print(report, flush=True)
            missed += not report.met
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
