#!/usr/bin/env python3
"""Runs the blocks of the book, docs/book/, and says where a page shows something else than what happens here.

    book.py [PAGE ...]           check all pages, or these; one line for each difference, exit code 1 when there are any
    book.py --write [PAGE ...]   put what happens here into the pages, and the same blocks into their translation

What a block is stands on its first line:

    ```python title=NAME       a file, there from this block on; a second block of the same title is added to it
    ```python from=PATH        a passage of a file of this project, word for word; a line `...` leaves some out
    ```pycon                   a session of the interactive interpreter: one for the whole page
    ```console                 commands, after "$ ", and all that they print; a failing one is a difference
    ```console figures         the same, but numbers are those of the machine: any number is as good as another
    ```text                    a drawing: nothing is run

All this happens in an empty folder that each page has, in the order of the page. `python` and `coro` are those that
run this script.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import doctest
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
BOOK = CHECKOUT / "docs" / "book"
TRANSLATION = CHECKOUT / "docs" / "zh" / "book"
PATIENCE = 600  # seconds that a command may take, or a statement: on a busy machine ten times what it takes alone

FENCE = re.compile(r"^```(.+)\n((?:.*\n)*?)```$", re.MULTILINE)
NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*(?: (?:[mun]?s)\b)?")  # times have their unit with them
SPACES = re.compile(r"[ \t]+")


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after its fence, and its lines."""

    info: str
    body: str
    line: int  # of its fence in the page

    @property
    def kind(self) -> str:
        return self.info.split()[0]

    @property
    def figures(self) -> bool:
        """Are its numbers those of the machine?"""
        return "figures" in self.info.split()

    def argument(self, name: str) -> str | None:
        """The value of `name=value` on its first line."""
        return next((word.partition("=")[2] for word in self.info.split() if word.startswith(f"{name}=")), None)


class Wrong(Exception):
    """What makes a block one that cannot be checked, or not hold; for its author."""


def blocks_of(text: str) -> list[Block]:
    """All fenced blocks of a page."""
    return [Block(found[1], found[2], text.count("\n", 0, found.start()) + 1) for found in FENCE.finditer(text)]


def with_blocks(text: str, bodies: Sequence[str]) -> str:
    """The page with other bodies in its blocks."""
    new = iter(bodies)
    return FENCE.sub(lambda found: f"```{found[1]}\n{next(new)}```", text)


def same(shown: str, real: str, figures: bool) -> bool:
    """Does a page show what happens? With `figures`, every number stands for any other: 999 ms for 1.2 s."""
    if not figures:
        return shown == real
    return _without_figures(shown) == _without_figures(real)


def _without_figures(text: str) -> str:
    return SPACES.sub(" ", NUMBER.sub("#", text))


# --- Running a page ----------------------------------------------------------------------


class Page:
    """A page being run, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._session: subprocess.Popen[str] | None = None
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
        self._environment = {
            **os.environ, "PATH": path, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",  # what it prints comes in the order in which a terminal would show it
            "XDG_RUNTIME_DIR": str(folder), "COLUMNS": "120",
        }  # fmt: skip

    def run(self, block: Block) -> str:
        """What the body of this block would have to be. `Wrong` when there is nothing that it could be."""
        title, source = block.argument("title"), block.argument("from")
        if block.kind == "text":
            return block.body
        if block.kind == "console":
            return self._console(block.body)
        if block.kind == "pycon":
            return self._pycon(block.body)
        if block.kind == "python" and source is not None:
            check_passage(block.body, (CHECKOUT / source).read_text(), source)
            return block.body
        if title is None or os.path.basename(title) != title:
            raise Wrong(f"```{block.info} is no kind of block that is run: see scripts/book.py")
        with open(self._folder / title, "a") as file:
            file.write(block.body)
        return block.body

    def _console(self, body: str) -> str:
        commands = [line for line in body.splitlines() if line.startswith("$ ")]
        if not commands:
            raise Wrong("no line of this block begins with '$ '")
        return "".join(f"{line}\n{self._output(line[2:])}" for line in commands)

    def _output(self, command: str) -> str:
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=self._folder, env=self._environment, text=True, process_group=0,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            output = process.communicate(timeout=PATIENCE)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # also what it has started
            raise Wrong(f"{command} was not done after {PATIENCE} s:\n{process.communicate()[0]}") from None
        if process.returncode:
            raise Wrong(f"{command} failed with exit code {process.returncode}:\n{output}")
        return output

    def _pycon(self, body: str) -> str:
        if self._session is None:
            self._session = subprocess.Popen(
                [sys.executable, __file__, "--session"], cwd=self._folder, env=self._environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        assert self._session.stdin is not None and self._session.stdout is not None
        text = ""
        for example in doctest.DocTestParser().get_examples(body):
            first, *others = example.source.splitlines()
            text += "".join([f">>> {first}\n", *(f"... {other}".rstrip() + "\n" for other in others)])
            text += self._answer(self._session, example.source)
        return text

    def _answer(self, session: subprocess.Popen[str], source: str) -> str:
        """What the session prints for a statement."""
        assert session.stdin is not None and session.stdout is not None
        limit = threading.Timer(PATIENCE, session.kill)
        limit.start()
        try:
            session.stdin.write(json.dumps(source) + "\n")
            session.stdin.flush()
            answer = session.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            limit.cancel()
            limit.join()
        if not answer:
            raise Wrong(f">>> {source.rstrip()} has ended the session, or was not done after {PATIENCE} s")
        printed: str = json.loads(answer)
        return printed

    def close(self) -> None:
        if self._session is not None:
            self._session.kill()
            self._session.communicate()


def session() -> None:
    """Run what comes on stdin, a JSON string a line; what each printed goes to stdout in the same way."""
    sys.path.insert(0, "")
    answers, names = sys.stdout, dict[str, Any](__name__="__main__", __builtins__=builtins)
    for line in sys.stdin:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                exec(compile(json.loads(line), "<stdin>", "single"), names)
            except Exception as error:  # as doctest has it: where it came from is left out
                print("Traceback (most recent call last):\n    ...")
                print("".join(traceback.format_exception_only(error)), end="")
        print(json.dumps(printed.getvalue()), file=answers, flush=True)


def check_passage(passage: str, text: str, name: str) -> None:
    """`Wrong` unless the lines of `passage` stand in `text` as they are, but for how far all are indented."""
    parts: list[list[str]] = [[]]
    for line in passage.splitlines():
        if line.strip() == "...":
            parts.append([])
        else:
            parts[-1].append(line)
    lines = text.splitlines()
    indented = ([[" " * n + line if line else "" for line in part] for part in parts] for n in range(20))
    if not any(_stand(shown, lines) for shown in indented):
        raise Wrong(f"this is not in {name} as it stands here:\n{passage}")


def _stand(parts: list[list[str]], lines: list[str]) -> bool:
    """Do all parts stand in these lines, in their order?"""
    at = 0
    for part in parts:
        while lines[at : at + len(part)] != part:
            at += 1
            if at + len(part) > len(lines):
                return False
        at += len(part)
    return True


def run(text: str) -> Iterator[tuple[Block, str | Wrong]]:
    """Each block of a page, with the body that it should have, or what is wrong with it."""
    with tempfile.TemporaryDirectory(prefix="coro-book-") as folder:
        page = Page(Path(folder))
        try:
            for block in blocks_of(text):
                try:
                    yield block, page.run(block)
                except Wrong as wrong:
                    yield block, wrong
        finally:
            page.close()


def differences(text: str) -> list[str]:
    """Where a page does not show what happens, each in words."""
    found = []
    for block, real in run(text):
        if isinstance(real, Wrong):
            found.append(f"line {block.line}: {real}")
        elif not same(block.body, real, block.figures):
            found.append(f"line {block.line}: the page shows\n{block.body}and what happens is\n{real}")
    return found


# --- The command -------------------------------------------------------------------------


def write(page: Path) -> list[str]:
    """Put what happens into a page, and its blocks into its translation; what is wrong all the same."""
    wrong, bodies = [], []
    for block, real in run(page.read_text()):
        if isinstance(real, Wrong):
            wrong.append(f"line {block.line}: {real}")
            bodies.append(block.body)
        else:
            bodies.append(real)
    page.write_text(with_blocks(page.read_text(), bodies))
    translated = TRANSLATION / page.name
    if translated.exists():
        text = translated.read_text()
        if [block.info for block in blocks_of(text)] == [block.info for block in blocks_of(page.read_text())]:
            translated.write_text(with_blocks(text, bodies))
        else:
            wrong.append(f"its translation, {translated}, has other blocks")
    return wrong


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--session", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("pages", nargs="*", type=Path, default=sorted(BOOK.glob("*.md")), metavar="PAGE")
    options = parser.parse_args()
    if options.session:
        session()
        return 0
    status = 0
    for page in options.pages:
        print(page, file=sys.stderr)
        for difference in write(page) if options.write else differences(page.read_text()):
            print(f"{page}: {difference}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
