"""The book shows what happens: its blocks are run, in English, and are the same ones in Chinese."""

from __future__ import annotations

import faulthandler
import re
from pathlib import Path

import pytest

from scripts import book

PAGES = sorted(book.BOOK.glob("*.md"))
HEADING = re.compile(r"^(#+) ", re.MULTILINE)
ADVICE = "(`make book` puts what happens into the pages; look at what it changes)"


def structure(text: str) -> tuple[list[book.Block], list[str], int]:
    """What a page and its translation have in common: blocks, levels of headings, rows of tables."""
    blocks = [book.Block(block.info, block.body, 0) for block in book.blocks_of(text)]
    prose = book.FENCE.sub("", text)
    return blocks, HEADING.findall(prose), len(re.findall(r"^\|", prose, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_book_shows_what_happens(page: Path) -> None:
    faulthandler.cancel_dump_traceback_later()  # pytest's limit for a test: each command of a page has one of its own
    found = book.differences(page.read_text())
    if found:
        pytest.fail("\n".join([f"{page} {ADVICE}", *found]), pytrace=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_translation_has_the_blocks_and_the_structure_of_its_page(page: Path) -> None:
    """The blocks are the same to the byte: so they hold in both languages if they hold in one."""
    assert structure((book.TRANSLATION / page.name).read_text()) == structure(page.read_text())
    assert len(list(book.TRANSLATION.glob("*.md"))) == len(PAGES)


def test_the_loop_of_chapter_3_has_sixty_lines() -> None:
    blocks = book.blocks_of((book.BOOK / "3-generators.md").read_text())
    assert sum(len(block.body.splitlines()) for block in blocks if block.argument("title") == "loop60.py") <= 60


# --- What a difference is -----------------------------------------------------------------

PAGE = """\
# A page

```python title=program.py
print("took", 1234, "us")
```

```console
$ python program.py
took 1234 us
```

```console figures
$ python program.py; echo "| 7 |"
took 9.5 s
|      1,000 |
```

```pycon
>>> def double(number):
...     return 2 * number
>>> double(21)
42
>>> double(None)
Traceback (most recent call last):
    ...
TypeError: unsupported operand type(s) for *: 'int' and 'NoneType'
```

```pycon
>>> double(4)
8
```

```python from=coro/loop.py
def run(self, main: Coro[T]) -> T:
    ...
    return self._result(task)
```

```text
a drawing
```
"""


def test_a_page_that_shows_what_happens_has_no_differences() -> None:
    assert book.differences(PAGE) == []


@pytest.mark.parametrize(
    ("shown", "changed", "line"),
    [
        ('print("took", 1234', 'print("took", 1235', 7),  # the program: its output in the exact block
        ("took 1234 us\n", "took 1235 us\n", 7),
        ("took 9.5 s", "takes 9.5 s", 12),
        ("|      1,000 |", "|      1,000 | 1 |", 12),
        ("took 9.5 s", "took 9.5 bytes", 12),
        ("took 9.5 s\n", "", 12),
        (">>> double(21)\n42", ">>> double(21)\n43", 18),
        ("return 2 * number", "return 3 * number", 18),
        ("TypeError: unsupported", "ValueError: unsupported", 18),
        (">>> double(4)\n8", ">>> double(4)\n9", 29),
        ("-> T:", "-> U:", 34),
        ("    return self._result(task)", "  return self._result(task)", 34),
        ("    ...\n    return self._result(task)", "    return self._result(task)", 34),
        ("```text", "```python", 40),
        ("```text", "```python title=../program.py", 40),
        ("```text", "```bash", 40),
        ("$ python program.py;", "$ exit 3;", 12),
        ("$ python program.py\n", "", 7),
    ],
)
def test_what_does_not_happen_is_a_difference(shown: str, changed: str, line: int) -> None:
    assert PAGE.count(shown) >= 1
    assert book.differences(PAGE.replace(shown, changed, 1))[0].startswith(f"line {line}: ")


def test_a_command_that_does_not_end_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "PATIENCE", 0.2)
    (found,) = book.differences("```console\n$ echo begun; sleep 1000 & sleep 1000\n```\n")
    assert found.startswith("line 1: echo begun; sleep 1000 & sleep 1000 was not done after 0.2 s")


def test_a_statement_that_does_not_end_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "PATIENCE", 0.2)
    found = book.differences("```pycon\n>>> while True: pass\n```\n\n```pycon\n>>> 1\n1\n```\n")
    assert found == [
        "line 1: >>> while True: pass has ended the session, or was not done after 0.2 s",
        "line 5: >>> 1 has ended the session, or was not done after 0.2 s",
    ]


def test_passages_stand_in_their_order() -> None:
    text = "one\n    two\n    three\nfour\n"
    for passage in "one\n", "two\nthree\n", "one\n...\nfour\n", "  two\n  three\n", "    two\n...\nfour\n":
        book.check_passage(passage, text, "a file")
    for passage in "four\n...\none\n", "one\ntwo\n", "two\n    three\n", "tw\n", "two\n\nthree\n", "two\n...\nfour\n":
        with pytest.raises(book.Wrong):
            book.check_passage(passage, text, "a file")


def test_writing_puts_what_happens_into_page_and_translation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "TRANSLATION", tmp_path / "zh")
    page, translated = tmp_path / "page.md", tmp_path / "zh" / "page.md"
    translated.parent.mkdir()
    page.write_text(PAGE.replace("\n42\n", "\n43\n").replace("took 1234 us\n", ""))
    translated.write_text(re.sub(r"(```\w.*\n)(?:[^`]*\n)?", r"\1", PAGE.replace("# A page", "# 一页")))
    assert book.write(page) == []
    assert book.same(page.read_text(), PAGE, figures=True)
    assert translated.read_text() == page.read_text().replace("# A page", "# 一页")
