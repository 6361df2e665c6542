"""Names of files: kept as clients give them, never used as paths."""

from __future__ import annotations

import re

from coro.http import HTTPError

MAX_NAME_SIZE = 255  # bytes
UNQUOTABLE = re.compile(r'[^ -~]|["%\\]')  # what a quoted string cannot hold, or clients read in different ways


def checked_name(name: str) -> str:
    """A file's name, which is kept but never used as a path. `HTTPError` 400."""
    if "\0" in name or "\ufffd" in name or not 0 < len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME_SIZE:
        raise HTTPError(400, f"a file's name needs 1 to {MAX_NAME_SIZE} bytes of UTF-8")
    return name
