"""Peers written in Go: built once, into .cache, with the machine's compiler and Debian's libraries."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmarks.processes import CHECKOUT, Failed, last_line, progress

SOURCES = Path(__file__).resolve().parent / "peers"
BINARIES = CHECKOUT / ".cache" / "benchmarks"
LIBRARIES = "/usr/share/gocode"  # where Debian's golang-*-dev packages put their sources
ONE_CORE = {"GOMAXPROCS": "1"}


def build(name: str) -> str:
    """The binary of peers/NAME.go. `Failed` with the compiler's words."""
    source, binary = SOURCES / f"{name}.go", BINARIES / name
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        progress(f"building {source.name}")
        BINARIES.mkdir(parents=True, exist_ok=True)
        settings = {"GO111MODULE": "off", "GOPATH": LIBRARIES, "GOCACHE": str(BINARIES / "go")}
        done = subprocess.run(
            ["go", "build", "-o", str(binary), str(source)],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Failed(f"cannot be built: {last_line(done.stderr)}")
    return str(binary)
