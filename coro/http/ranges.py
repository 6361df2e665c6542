"""Which bytes of a file a `Range` field asks for (RFC 9110, section 14.2)."""

from __future__ import annotations

import re
from itertools import pairwise

MAX_RANGES = 16  # in one request; with more, the field is ignored
RANGES = re.compile(r"bytes=([0-9, \t-]{1,1000})", re.IGNORECASE)
RANGE = re.compile(r"([0-9]{0,18})-([0-9]{0,18})")


def select_ranges(field: str, size: int) -> list[range] | None:
    """The ranges that there are, in the order asked for; none if they all lie beyond the end.

    None if the field is to be ignored, and the whole file sent: it is malformed, or asks for so many ranges, or for so
    much again and again, that no honest client can mean it.
    """
    found = RANGES.fullmatch(field.strip())
    if found is None:
        return None
    texts = [text.strip() for text in found[1].split(",") if text.strip()]
    if not 1 <= len(texts) <= MAX_RANGES:
        return None
    ranges = []
    for text in texts:
        bounds = RANGE.fullmatch(text)
        if bounds is None or text == "-":
            return None
        first, last = bounds.groups()
        if first and last and int(last) < int(first):
            return None
        if first:
            selected = range(int(first), min(int(last) + 1, size) if last else size)
        else:
            selected = range(max(0, size - int(last)), size)
        if selected:
            ranges.append(selected)
    in_order = sorted(ranges, key=lambda selected: selected.start)
    if any(second.start < first.stop for first, second in pairwise(in_order)):
        return None
    return ranges
