"""`coro contrast --plot`: a picture that stands by itself, with what is not in it said in words."""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from contrast import compare as comparing
from contrast import measure as measuring
from contrast.compare import plot
from contrast.plot import Axis, Point, svg
from coro import cli

TIME_LIMIT = 600.0  # seconds
SVG = "{http://www.w3.org/2000/svg}"
POINTS = {
    "threads": [Point(10, 20 << 20, 200.0), Point(100, 30 << 20, 2_000.0)],
    "generators": [Point(10, 25 << 20, 230.0), Point(100, 26 << 20, 2_300.0), Point(10_000, 90 << 20, 18_000.0)],
}


@pytest.fixture(autouse=True)
def few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    # In the place of pytest's limit, which is for a test that starts a program or two.
    faulthandler.dump_traceback_later(TIME_LIMIT, exit=True, file=2)
    monkeypatch.setattr(measuring, "REQUESTS", 100)
    monkeypatch.setattr(comparing, "SIZES", (1, 10))


def texts(document: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(document).iter(SVG + "text")]


def marks(document: str, program: str) -> int:
    groups = ElementTree.fromstring(document).findall(f".//{SVG}g[@class='{program}']")
    return sum(len(group.findall(f"{SVG}path[@class='mark']")) for group in groups)


def test_has_a_mark_for_each_point_in_both_panels_and_one_in_the_legend() -> None:
    document = svg(POINTS, 0.02, [])
    assert (marks(document, "threads"), marks(document, "generators")) == (2 * 2 + 1, 2 * 3 + 1)
    assert {"threads", "generators", "connections", "10", "10,000"} <= set(texts(document))
    assert {"Resident memory of the process, MiB", "Throughput, requests/s"} <= set(texts(document))


def test_tells_those_who_do_not_see_it() -> None:
    root = ElementTree.fromstring(svg(POINTS, 0.02, []))
    title, description = root.find(SVG + "title"), root.find(SVG + "desc")
    assert title is not None and description is not None
    assert (root.get("role"), root.get("aria-labelledby")) == ("img", f"{title.get('id')} {description.get('id')}")
    assert "threads: 10 connections 20 MiB and 200 a second, 100 connections 30 MiB" in str(description.text)


def test_follows_light_and_dark() -> None:
    assert "@media(prefers-color-scheme:dark)" in svg(POINTS, 0.02, [])


def test_says_what_is_not_in_it() -> None:
    note = "threads, 10,000 connections: can't start new thread & <more>"
    assert f"Not measured: {note}" in texts(svg(POINTS, 0.02, [note]))


def test_an_axis_covers_whole_powers_of_ten() -> None:
    axis = Axis.over([20.0, 4_000.0], 0.0, 300.0)
    assert axis.ticks() == [10.0, 100.0, 1_000.0, 10_000.0]
    assert [round(axis.place(tick)) for tick in axis.ticks()] == [0, 100, 200, 300]
    assert Axis.over([10.0], 0.0, 1.0).ticks() == [10.0, 100.0]  # one value alone


def test_draws_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "picture.svg"
    assert cli.main(["contrast", "--delay", "1", "--plot", str(file)]) == 0
    document = file.read_text()
    assert [marks(document, program) for program in comparing.PROGRAMS] == [2 * 2 + 1] * 5
    printed = capsys.readouterr()
    assert printed.out == f"written: {file}\n"
    assert printed.err.splitlines()[0] == "coro: 1/10 threads, 1 connections ..."
    assert len(printed.err.splitlines()) == 10


def test_names_what_cannot_run_and_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "NEEDS", {"greenlets": "no_such_package"})
    file = tmp_path / "picture.svg"
    assert plot(file, 0.0, ["greenlets", "nothing", "callbacks"]) == 1
    notes = [
        "greenlets: it needs the package no_such_package, which is not installed",
        f"nothing, 1 connections: {sys.executable}: No module named contrast.nothing",
    ]
    printed = capsys.readouterr().out.splitlines()
    assert printed == [*(f"not measured: {note}" for note in notes), f"written: {file}"]
    shown = " ".join(text for text in texts(file.read_text()) if "ot measured" in text)
    assert shown.startswith(f"Not measured: {notes[0]} Not measured: nothing, 1 connections: ")
    assert marks(file.read_text(), "callbacks") == 5


def test_says_at_once_that_the_file_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "none" / "picture.svg"
    assert cli.main(["contrast", "--plot", str(file)]) == 1
    assert capsys.readouterr().err == f"coro: cannot write {file}: No such file or directory\n"
