"""The picture of `coro contrast --plot`: an SVG of two panels, memory and throughput by the number of connections.

Both axes of both panels are logarithmic: the connections go over three powers of ten, and what they cost goes with
them. Colours follow the viewer's light or dark setting; the programs differ in the shape of their marks as well.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 900, 434
TOP, BOTTOM = 96, 376  # of the panels
LEFT, GAP, PANEL = 66, 84, 352  # where the first begins, what is between them, and how wide each is
NOTE_LENGTH = 130  # characters in a line

# An own colour and mark for each: in light, in dark, the outline of a mark around 0 0.
LOOKS = {
    "threads": ("#b3261e", "#ff8a80", "M-4-4H4V4H-4Z"),
    "callbacks": ("#6d5f00", "#e0c800", "M0-5L5 4H-5Z"),
    "greenlets": ("#1b7a33", "#6fdc8c", "M0-5.5L5.5 0L0 5.5L-5.5 0Z"),
    "native": ("#7b3fa0", "#d3a3f5", "M-4-4L4 4M4-4L-4 4"),
    "generators": ("#0057b8", "#7ab8ff", "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0-4.5 0Z"),
}


@dataclass(frozen=True)
class Point:
    """What one program took with so many connections."""

    connections: int
    resident: int  # bytes, the whole process
    requests_per_second: float


@dataclass(frozen=True)
class Panel:
    """One diagram: where it stands, and what of each point it shows."""

    left: float
    title: str
    value: Callable[[Point], float]
    label: Callable[[float], str]

    def svg(self, series: dict[str, list[Point]]) -> list[str]:
        points = [point for line in series.values() for point in line]
        across = Axis.over([point.connections for point in points], self.left, self.left + PANEL)
        up = Axis.over([self.value(point) for point in points], BOTTOM, TOP)
        parts = [f'<text class="title" x="{self.left}" y="{TOP - 14}">{self.title}</text>']
        for value in up.ticks():
            y = up.place(value)
            parts.append(f'<path class="grid" d="M{self.left} {y:.1f}h{PANEL}"/>')
            parts.append(f'<text class="y" x="{self.left - 8}" y="{y + 4:.1f}">{self.label(value)}</text>')
        for value in across.ticks():
            x = across.place(value)
            parts.append(f'<path class="grid" d="M{x:.1f} {TOP}V{BOTTOM}"/>')
            parts.append(f'<text class="x" x="{x:.1f}" y="{BOTTOM + 18}">{value:,.0f}</text>')
        parts.append(f'<text class="x" x="{self.left + PANEL / 2}" y="{BOTTOM + 38}">connections</text>')
        for program, line in series.items():
            places = [(across.place(point.connections), up.place(self.value(point))) for point in line]
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            parts.append(f'<g class="{program}"><path class="line" d="M{path}"/>')
            parts += [mark(program, x, y) for x, y in places]
            parts.append("</g>")
        return parts


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis over whole powers of ten."""

    low: int  # the exponents of its ends
    high: int
    begin: float  # their places
    end: float

    @classmethod
    def over(cls, values: Sequence[float], begin: float, end: float) -> Axis:
        low = math.floor(math.log10(min(values)))
        return cls(low, max(math.ceil(math.log10(max(values))), low + 1), begin, end)

    def place(self, value: float) -> float:
        return self.begin + (self.end - self.begin) * (math.log10(value) - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        return [10.0**exponent for exponent in range(self.low, self.high + 1)]


def svg(series: dict[str, list[Point]], delay: float, notes: Sequence[str]) -> str:
    """The document. `notes` say what is not in it, and why."""
    services = f"services that answer after {delay * 1000:g} ms, twice a request"
    panels = [
        Panel(LEFT, "Resident memory of the process, MiB", lambda point: point.resident / 2**20, "{:,g}".format),
        Panel(LEFT + PANEL + GAP, "Throughput, requests/s", lambda point: point.requests_per_second, "{:,g}".format),
    ]
    shown = "; ".join(f"{program}: {_told(points)}" for program, points in series.items())
    lines = [line for note in notes for line in _wrapped(f"Not measured: {note}")]
    height = HEIGHT + 20 * len(lines)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="t d">',
        '<title id="t">One job, five ways: memory and throughput by the number of connections</title>',
        f'<desc id="d">{escape(f"With {services}. {shown}.")}</desc>',
        f"<style>{_style()}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
    ]
    for number, program in enumerate(series):
        x = LEFT + number * 130
        parts.append(f'<g class="{program}"><path class="line" d="M{x} 28h28"/>{mark(program, x + 14, 28)}</g>')
        parts.append(f'<text x="{x + 36}" y="32">{program}</text>')
    parts.append(f'<text class="quiet" x="{LEFT}" y="56">One upload job; {services}. Both axes are logarithmic.</text>')
    for panel in panels if series else []:
        parts += panel.svg(series)
    for number, line in enumerate(lines):
        parts.append(f'<text class="quiet" x="{LEFT}" y="{HEIGHT + 6 + 18 * number}">{escape(line)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def mark(program: str, x: float, y: float) -> str:
    return f'<path class="mark" transform="translate({x:.1f} {y:.1f})" d="{LOOKS[program][2]}"/>'


def _told(points: Sequence[Point]) -> str:
    """A line for those who do not see it."""
    return ", ".join(
        f"{it.connections:,} connections {it.resident / 2**20:.0f} MiB and {it.requests_per_second:,.0f} a second"
        for it in points
    )


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, NOTE_LENGTH)


def _style() -> str:
    light = "".join(f".{program}{{--ink:{looks[0]}}}" for program, looks in LOOKS.items())
    dark = "".join(f".{program}{{--ink:{looks[1]}}}" for program, looks in LOOKS.items())
    return (
        "svg{--paper:#fff;--text:#1c1c1c;--quiet:#595959;--grid:#dcdcdc}"
        f"{light}"
        "@media(prefers-color-scheme:dark){"
        f"svg{{--paper:#14171a;--text:#e8e8e8;--quiet:#a8a8a8;--grid:#363b40}}{dark}}}"
        "text{font:13px system-ui,sans-serif;fill:var(--text)}"
        ".title{font-weight:600}.quiet{fill:var(--quiet)}.x{text-anchor:middle}.y{text-anchor:end}"
        ".paper{fill:var(--paper)}.grid{stroke:var(--grid);fill:none}"
        ".line{stroke:var(--ink);stroke-width:2;fill:none}"
        ".mark{stroke:var(--ink);stroke-width:2;fill:var(--paper)}"
    )
