"""A network in memory for the tests of the client."""

from __future__ import annotations

import pytest

from tests.http.client.network import Network


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)
