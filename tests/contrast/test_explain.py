"""`coro explain`: what it says of live objects is true of them, whatever the numbers are on this machine."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import pytest

from contrast import explain, switching
from contrast.explain import DEPTHS, value_stack
from coro import cli


@pytest.fixture(autouse=True)
def few_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switching, "SWITCHES", 200)
    monkeypatch.setattr(switching, "THREAD_SWITCHES", 200)


def shown(capsys: pytest.CaptureFixture[str], topic: str) -> str:
    assert cli.main(["explain", topic]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    return printed


def part(printed: str, title: str) -> str:
    """From this heading to the next one."""
    return re.split(r"\n\n\n", printed[printed.index(title) :])[0]


def test_shows_what_a_generator_keeps_at_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    generators = part(shown(capsys, "switch"), "GENERATORS")
    assert re.findall(r"^\d\. (.*)$", generators, re.MULTILINE) == [
        "anna.send(None)", "bert.send(None)", "anna.send('hello')", "bert.send('hello')",
        "anna.send('goodbye')", "bert.send('goodbye')",
    ]  # fmt: skip
    assert re.findall(r"locals +(.*)", generators)[2] == "name = 'anna', heard = 'anna heard hello', count = 2"
    assert re.findall(r"value stack +(.*)", generators) == [
        f"a range_iterator, '{name} heard '" for name in ("anna", "bert") * 3
    ]
    offsets = re.findall(r"offset +(\d+)", generators)
    assert len(offsets) == 6 and len(set(offsets)) == 1  # both stop at the same place, each time
    assert generators.count("nothing was moved, the frame is as it was left") == 4
    assert len(re.findall(r"goes on at +\d+ RESUME", generators)) == 4
    assert len(set(re.findall(r"on the heap, at (0x[0-9a-f]+): \d+ bytes", generators))) == 2


def test_shows_the_stack_that_a_greenlet_copies(capsys: pytest.CaptureFixture[str]) -> None:
    greenlets = part(shown(capsys, "switch"), "GREENLETS")
    saved = [int(size.replace(",", "")) for size in re.findall(r"saved: ([\d,]+) bytes of C stack", greenlets)]
    assert len(saved) == 4 and min(saved) > 0
    assert greenlets.count("bytes of C stack, copied back") == 2
    assert re.findall(r"^    (\w+): offset", greenlets, re.MULTILINE) == ["listen", "work"] * 4


def test_shows_a_thread_that_waits(capsys: pytest.CaptureFixture[str]) -> None:
    threads = part(shown(capsys, "switch"), "THREADS")
    assert len(re.findall(r"^\d\. anna, thread \d+, waits for a lock\n  saved: ", threads, re.MULTILINE)) == 3


def test_measures_a_switch_of_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    costs = part(shown(capsys, "switch"), "COST")
    assert re.findall(r"^  (.*?) {2,}[\d,]+ ns$", costs, re.MULTILINE) == [
        "generator: send, and back", "  through coro's loop", "greenlet: switch, and back", "  through a hub",
        "thread: to the next one, by a lock",
    ]  # fmt: skip


def test_measures_how_a_switch_grows_with_depth(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.split() for line in shown(capsys, "depth").splitlines() if line[:6].strip().isdigit()]
    assert [int(words[0]) for words in lines] == list(DEPTHS)
    sizes = [int(words[-1].replace(",", "")) for words in lines]
    assert [size // sizes[0] for size in sizes] == list(DEPTHS)  # a frame a level
    assert all(len(words) == 6 and words[3] != "-" for words in lines)


def test_says_that_greenlet_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "has_greenlet", lambda: False)
    for topic, times in ("switch", 2), ("depth", 1):
        printed = shown(capsys, topic)
        assert printed.count("  not shown: greenlet is not installed (pip install greenlet)\n") == times
    assert [line.split()[3] for line in printed.splitlines() if line[:6].strip().isdigit()] == ["-"] * len(DEPTHS)


def test_the_value_stack_is_what_has_no_name() -> None:
    def adding(text: str) -> Generator[None, str, list[str]]:
        return [text + "1", text + "2" + (yield)]

    task: Any = adding("a")
    task.send(None)
    assert value_stack(task) == ["a1", "a2"]


def test_a_topic_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(["explain", "life"])
    assert error.value.code == 2
    assert "'switch', 'depth'" in capsys.readouterr().err
