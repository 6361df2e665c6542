"""Uppy (https://uppy.io), as it comes from npm, in a real browser: the uploader of many pages."""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
from pathlib import Path

from tests.services import CHECKOUT
from tests.upload.conftest import Start
from tests.upload.harness import SQLiteBackEnd

NODE_MODULES = CHECKOUT / ".cache" / "node" / "node_modules"
SCRIPT = Path(__file__).with_name("uppy.mjs")
MOST = 3_000_000  # bytes
TIME_LIMIT = 400.0  # seconds


def test_uppy_uploads_in_parallel_pauses_and_goes_on_after_a_broken_connection(start: Start) -> None:
    app = start(SQLiteBackEnd())
    faulthandler.cancel_dump_traceback_later()  # pytest's limit for a test, in the place of which is TIME_LIMIT
    assert (NODE_MODULES / "@uppy").is_dir(), "Uppy is not installed: run `make test-env`"
    done = subprocess.run(
        ["node", SCRIPT, f"http://127.0.0.1:{app.address[1]}/", app.log_in()],
        env={**os.environ, "NODE_MODULES": str(NODE_MODULES)}, capture_output=True, text=True, timeout=TIME_LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["errors"] == []
    assert (seen["together"], seen["parallel"]) == ([3, 0], [1, 0])
    assert (seen["paused"], seen["resumed"]) == ({"isPaused": True, "offset": 1_000_000}, [1, 0])
    assert (seen["dropped"], seen["drops"] > 1) == ([1, 0], True)
    contents = {row["name"]: app.content(row) for row in app.rows}
    assert contents == {
        "together 0": b"", "together 1": b"\1" * 1000, "together 2": b"\2" * MOST, "parallel": b"\7" * MOST,
        "paused": b"\x08" * MOST, "dropped": b"\x09" * MOST,
    }  # fmt: skip
