"""`coro contrast`: every way is measured or named, and what stands in the way is said in one line."""

from __future__ import annotations

import faulthandler
import sys

import pytest

from contrast import compare as comparing
from contrast import measure as measuring
from contrast import switching
from contrast.compare import PROGRAMS, compare
from contrast.measure import Load, lines_of_code
from coro import cli

TIME_LIMIT = 600.0  # seconds


@pytest.fixture(autouse=True)
def few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    # In the place of pytest's limit, which is for a test that starts a program or two.
    faulthandler.dump_traceback_later(TIME_LIMIT, exit=True, file=2)
    monkeypatch.setattr(measuring, "REQUESTS", 100)
    monkeypatch.setattr(switching, "SWITCHES", 200)
    monkeypatch.setattr(switching, "THREAD_SWITCHES", 200)


def rows(table: str) -> dict[str, list[float]]:
    """The figures of each program in what was printed."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    return {name: [float(figure.replace(",", "")) for figure in figures] for name, *figures in lines[1:]}


def test_measures_all_five(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["contrast", "--connections", "50", "--delay", "1"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("50 connections, services that answer after 1 ms, ")
    figures = rows(printed.out)
    assert tuple(figures) == PROGRAMS
    for requests_per_second, _cpu, _memory, _switches, cost, kernel, lines in figures.values():
        assert requests_per_second > 0 and cost > 0 and kernel > 0  # the others are too coarse here
        assert 20 < lines < 150
    # Each waits three times a request: for its head, and for two answers of services.
    assert [figures[program][3] for program in PROGRAMS[1:]] == [3.0] * 4
    assert figures["threads"][2] > figures["generators"][2]  # a stack each
    assert [line.split()[2] for line in printed.err.splitlines()] == list(PROGRAMS)  # as it comes to each


def test_counts_the_context_switches_of_all_threads(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(20, 0.001, ["threads"]) == 0
    assert rows(capsys.readouterr().out)["threads"][5] >= 2  # each request waits for two answers of services


def test_names_what_this_machine_cannot_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "NEEDS", {"greenlets": "no_such_package"})
    assert compare(1, 0.0, ["greenlets", "callbacks"]) == 0
    printed = capsys.readouterr().out
    assert list(rows(printed)) == ["callbacks"]
    reason = "it needs the package no_such_package, which is not installed"
    assert printed.splitlines()[-1] == f"not measured: greenlets: {reason}"


def test_names_a_program_that_fails_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(1, 0.0, ["nothing", "callbacks"]) == 1
    printed = capsys.readouterr().out
    assert list(rows(printed)) == ["callbacks"]
    reason = f"{sys.executable}: No module named contrast.nothing"
    assert printed.splitlines()[-1] == f"not measured: nothing: {reason}"


def test_says_how_many_connections_the_system_allows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "allow_descriptors", lambda: 1024)
    assert compare(1000, 0.0) == 1
    assert capsys.readouterr().err == (
        "coro: 1000 connections need at least 1101 open descriptors and 1024 are allowed: see ulimit -Hn\n"
    )


def test_as_many_requests_at_a_time_as_descriptors_allow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Load.within(20_000, 10_000, 0.0, 1.0).at_once == 9_900
    assert Load.within(20_000, 1_000, 0.0, 1.0).at_once == 1_000
    monkeypatch.setattr(comparing, "allow_descriptors", lambda: 112)
    assert compare(10, 0.0, ["callbacks"]) == 0
    assert capsys.readouterr().out.startswith("10 connections (2 with a request at a time), services ")


def test_lines_of_code_leave_out_blanks_comments_and_docstrings() -> None:
    assert lines_of_code('"""One.\n\nTwo."""\n\nx = """a\nb"""  # kept\n# left out\n\n\ndef f():\n    """3"""\n') == 3
