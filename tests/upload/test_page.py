"""The page, in a real browser without a window: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

from tests.services import CHECKOUT
from tests.upload.conftest import Start
from tests.upload.harness import SQLiteBackEnd

NODE_MODULES = CHECKOUT / ".cache" / "node" / "node_modules"
SCRIPT = Path(__file__).with_name("browser.mjs")


def _browse(*arguments: str) -> Any:
    """What the script has seen."""
    done = subprocess.run(
        ["node", SCRIPT, *arguments], env={**os.environ, "NODE_MODULES": str(NODE_MODULES)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _png() -> bytes:
    """An image of one grey point."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")


def test_who_is_invited_chooses_a_password_and_sends_files(start: Start, tmp_path: Path) -> None:
    app = start(SQLiteBackEnd())
    url = f"http://127.0.0.1:{app.address[1]}/"
    content = {f"file {number}.bin": os.urandom(size) for number, size in enumerate((0, 1000, 3_000_000))}
    content |= {f"more {number}": b"x" for number in range(3)} | {"picture.png": _png()}
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    files = [str(tmp_path / name) for name in content]
    seen = _browse(f"{url}#invitation={app.invitation()}", str(tmp_path), "correct horse", *files)
    assert seen["errors"] == []
    assert (seen["address"], seen["asksForName"]) == (url, False)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    assert dict(zip(seen["names"], seen["digests"], strict=True)) == digests
    assert seen["found"] == ["picture.png"]
    link = re.search(r"http\S+", seen["notice"])
    assert link is not None
    newest = seen["names"][0]
    assert app.ask("GET", link[0].removeprefix(url.rstrip("/"))).body == content[newest]
    assert not seen["overflows"]
    assert (seen["title"], seen["language"]) == ("文件上传", "zh-CN")
    assert app.post("/login", user="admin", password="correct horse").status == 200
