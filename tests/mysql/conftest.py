"""What holds for all tests of the MySQL client."""

from __future__ import annotations

import pytest

from coro.mysql import Pool, connect, pool


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is slow to answer is no dead one. A test that wants one says how long it is waited for."""
    for name in "PING_TIMEOUT", "CLEAN_TIMEOUT", "KILL_TIMEOUT":
        monkeypatch.setattr(pool, name, 100.0)
    for opens in Pool.__init__, connect:
        monkeypatch.setattr(opens, "__kwdefaults__", {**(opens.__kwdefaults__ or {}), "connect_timeout": 100.0})
