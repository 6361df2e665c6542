from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.debug.support import Place


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    yield place
    place.close()
