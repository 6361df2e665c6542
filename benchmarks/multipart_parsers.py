"""Parsers for multipart/form-data that work on pieces: what a large file in a form costs."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.processes import SERVER_CORE, Failed, Peer, progress, python, run_json
from benchmarks.report import Column, Options, Report

PEERS = [
    Peer("multipart", "multipart", ("multipart",)),
    Peer("python-multipart", "python_multipart", ("python_multipart",)),
    Peer("streaming-form-data", "streaming_form_data", ("streaming_form_data",)),
]


def measure(options: Options) -> Iterator[Report]:
    repeats = options.pick(5, 1)
    report = Report(
        "Parsers for multipart/form-data",
        f"One file of 64 MiB in a form, in pieces of 64 KiB, best of {repeats}. `multipart` is the one in use.",
        [Column("CPU s per GiB, random bytes", 2), Column("CPU s per GiB, text", 2)],
        baseline="multipart",
    )
    for peer in PEERS:
        progress(f"multipart_parsers: {peer.name}")
        try:
            peer.check()
            report.rows[peer.name] = [
                min(
                    run_json(python("benchmarks.peers.multipart_parsing", peer.program, kind), SERVER_CORE)
                    for _ in range(repeats)
                )
                for kind in ("random", "lines")
            ]
        except Failed as failure:
            report.absent[peer.name] = str(failure)
    yield report
