"""What holds for all tests of the MySQL client."""

from __future__ import annotations

import pytest

from coro.mysql import pool


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is slow to answer the pool's own questions is no dead one; a test that wants one shortens this."""
    for name in "PING_TIMEOUT", "CLEAN_TIMEOUT", "KILL_TIMEOUT":
        monkeypatch.setattr(pool, name, 100.0)
