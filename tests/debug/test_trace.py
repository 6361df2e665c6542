"""`coro run --trace`: what is in the file, and that it is whole whatever ends the program."""

from __future__ import annotations

import itertools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import coro
from coro import Coro
from coro.debug.trace import Trace
from tests.debug.support import PATIENCE, Place


def events(path: Path) -> list[dict[str, Any]]:
    """As the viewers read it: the array's end may be missing."""
    text = path.read_text().rstrip()
    found: list[dict[str, Any]] = json.loads(text if text.endswith("]") else text.rstrip(",") + "]")
    return found


def track(found: list[dict[str, Any]], name: str) -> tuple[int, int]:
    """Of the task with this name."""
    return next(
        (e["pid"], e["tid"]) for e in found if e["name"] == "thread_name" and e["args"]["name"] == name
    )


def slices(found: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [e for e in found if e["ph"] == "X" and (e["pid"], e["tid"]) == track(found, name)]


def test_a_recorded_program(place: Place) -> None:
    assert place.coro("run", "--trace", "trace.json", "known:hands_over").returncode == 0
    found = events(place.path / "trace.json")
    assert json.loads((place.path / "trace.json").read_text())  # it has its end
    waits = [e["name"] for e in slices(found, "gets") if e["name"] != "run"]
    assert waits == ["an item in a Queue"]
    assert next(e["name"] for e in slices(found, "puts") if e["name"] != "run").startswith("sleep ")
    groups = {e["args"]["name"]: e for e in found if e["name"] == "process_name"}
    group = groups["group gather (of hands_over)"]
    assert track(found, "gets")[0] == track(found, "puts")[0] == group["pid"]


def test_an_arrow_leads_from_who_wakes_to_who_is_woken(place: Place) -> None:
    place.coro("run", "--trace", "trace.json", "known:hands_over")
    found = events(place.path / "trace.json")
    gets, puts = track(found, "gets"), track(found, "puts")
    begun = {e["id"]: (e["pid"], e["tid"]) for e in found if e["ph"] == "s"}
    ends = {begun[e["id"]]: (e["pid"], e["tid"]) for e in found if e["ph"] == "f"}
    assert ends[puts] in (gets, track(found, "hands_over"))
    assert (puts, gets) in [(begun[e["id"]], (e["pid"], e["tid"])) for e in found if e["ph"] == "f"]


def test_slices_of_one_track_do_not_overlap(place: Place) -> None:
    place.coro("run", "--trace", "trace.json", "known:hands_over")
    found = events(place.path / "trace.json")
    for name in "gets", "puts", "hands_over":
        spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in slices(found, name))
        assert all(before[1] <= after[0] + 1e-3 for before, after in itertools.pairwise(spans))


def test_a_program_that_is_killed_leaves_what_can_be_read(place: Place) -> None:
    """Whole lines; but if the end came within write(2), the last one is a part of one."""
    with place.running("--trace", "trace.json", "known:busy") as program:
        while (place.path / "trace.json").stat().st_size < 100_000:
            assert program.process.poll() is None
        program.process.send_signal(signal.SIGKILL)
        program.process.wait()
    trace = place.path / "trace.json"
    trace.write_text(trace.read_text().rpartition("\n")[0])
    assert len(slices(events(trace), "spins")) > 100


def test_a_file_that_cannot_be_written_is_one_line(place: Place) -> None:
    done = place.coro("run", "--trace", "no/such/trace.json", "known:hands_over")
    assert done.returncode == 1
    assert done.stderr == "coro: cannot write the trace no/such/trace.json: No such file or directory\n"


def test_a_disk_that_is_full_from_the_start_is_one_line(place: Place) -> None:
    done = place.coro("run", "--trace", "/dev/full", "known:hands_over")
    assert (done.returncode, done.stderr) == (1, "coro: cannot write the trace /dev/full: No space left on device\n")


def test_nothing_is_written_after_the_end(tmp_path: Path) -> None:
    def main() -> Coro[None]:
        trace = Trace(coro.current_task().loop, str(tmp_path / "trace.json"))
        trace.start()
        yield from coro.checkpoint()
        trace.stop()
        trace._flush_late()  # was due when it ended

    coro.run(main())
    assert json.loads((tmp_path / "trace.json").read_text())


def test_each_worker_has_a_file_of_its_own(place: Place) -> None:
    with place.running("--trace", "t.json", "known:service", "--workers", "2", "--port", "0") as program:
        assert program.stdout.readline() == "on\n"
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(PATIENCE) == 0
    assert events(place.path / "t.0.json") and events(place.path / "t.1.json")


def test_a_full_disk_ends_the_trace_and_not_the_program(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def main() -> Coro[str]:
        trace = Trace(coro.current_task().loop, str(tmp_path / "trace.json"))
        trace.start()
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, trace._fd)
        os.close(full)
        for _ in range(2000):
            yield from coro.checkpoint()
        trace.stop()
        return "went on"

    assert coro.run(main()) == "went on"
    assert "the trace ends here: cannot write" in caplog.text and "No space left on device" in caplog.text
    assert len(caplog.records) == 1


def test_memory_does_not_grow_with_the_trace(tmp_path: Path) -> None:
    def brief() -> Coro[None]:
        yield from coro.checkpoint()

    def main() -> Coro[None]:
        trace = Trace(coro.current_task().loop, str(tmp_path / "trace.json"))
        trace.start()
        for _ in range(300):
            yield from coro.gather(brief(), brief(), brief())
        kept = [len(trace._tracks), len(trace._waits), len(trace._waking)]
        trace.stop()
        assert max(kept) <= 2 and len(trace._events) <= 4000

    coro.run(main())
    assert len(events(tmp_path / "trace.json")) > 2000
