"""What a benchmark hands back, and how it is printed: one Markdown table with all peers of one run.

Figures of different runs, let alone machines, do not compare; so a requirement is always a ratio between two
rows of the same table, or an absolute size in bytes, and every row also shows its ratio to coro's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

COLUMN_RATIO = "to coro"


@dataclass(frozen=True)
class Column:
    """One figure of every peer: its heading, with the unit, and how many digits after the point are told."""

    heading: str
    digits: int = 0


@dataclass(frozen=True)
class Requirement:
    """What coro must reach here: a measured value (NaN: it could not be measured) and its bounds."""

    text: str
    value: float
    at_most: float = math.inf
    at_least: float = -math.inf

    @property
    def met(self) -> bool:
        return self.at_least <= self.value <= self.at_most

    def __str__(self) -> str:
        measured = "not measured" if math.isnan(self.value) else f"{self.value:,.4g}"
        return f"{self.text}: {measured}, {'ok' if self.met else 'MISSED'}"


@dataclass
class Report:
    """One table. The first column of figures is the one that is compared; `more_is_better` says which way."""

    title: str
    method: str
    columns: Sequence[Column]
    more_is_better: bool = False
    rows: dict[str, Sequence[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)  # peers that could not be measured, and why
    requirements: list[Requirement] = field(default_factory=list)
    baseline: str = "coro"

    def figure(self, peer: str) -> float:
        """The compared figure of one peer; NaN when it was not measured."""
        return self.rows[peer][0] if peer in self.rows else math.nan

    def ratio(self, peer: str, to: str) -> float:
        return self.figure(peer) / self.figure(to)

    def require(self, text: str, value: float, *, at_most: float = math.inf, at_least: float = -math.inf) -> None:
        self.requirements.append(Requirement(text, value, at_most, at_least))

    @property
    def met(self) -> bool:
        return all(requirement.met for requirement in self.requirements)

    def __str__(self) -> str:
        """The report as Markdown."""
        parts = [f"### {self.title}", self.method, self._table()]
        parts += [f"Not measured: {peer} ({reason})." for peer, reason in self.absent.items()]
        parts += [f"Required: {requirement}." for requirement in self.requirements]
        return "\n\n".join(parts) + "\n"

    def _table(self) -> str:
        lines = [["", *(column.heading for column in self.columns), COLUMN_RATIO]]
        for peer in sorted(self.rows, key=self.figure, reverse=self.more_is_better):
            figures = [
                _number(figure, column.digits) for figure, column in zip(self.rows[peer], self.columns, strict=True)
            ]
            lines.append([peer, *figures, _number(self.ratio(peer, self.baseline), 2)])
        widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        return "\n".join(_line(line, widths) for line in [lines[0], rule, *lines[1:]])


def _number(figure: float, digits: int) -> str:
    return "-" if math.isnan(figure) else f"{figure:,.{digits}f}"


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.ljust(width) if n == 0 else cell.rjust(width)
        for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "| " + " | ".join([first, *others]) + " |"


@dataclass(frozen=True)
class Options:
    """How thorough a run is to be."""

    quick: bool  # a look in a few seconds a table: fewer repeats, shorter loads, fewer connections

    def pick(self, thorough: int, quick: int) -> int:
        return quick if self.quick else thorough


Benchmark = Callable[[Options], Iterable[Report]]
