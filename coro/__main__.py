"""`python -m coro` is the same as the command `coro`."""

from __future__ import annotations

import sys

from coro.cli import main

if __name__ == "__main__":
    sys.exit(main())
