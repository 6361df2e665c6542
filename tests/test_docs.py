"""The design notes do not name what is not there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def names_in(file: str) -> set[str]:
    """The functions in the test files of this name."""
    trees = [ast.parse(path.read_text()) for path in (CHECKOUT / "tests").rglob(file)]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def test_every_test_named_in_the_design_notes_exists() -> None:
    named = {
        (file, test)
        for page in (CHECKOUT / "docs" / "design").glob("*.md")
        for file, test in NAMED.findall(page.read_text())
    }
    assert named
    assert [f"{file}::{test}" for file, test in sorted(named) if test not in names_in(file)] == []
