"""A crash at every point of an upload by the IETF's draft: its client goes on, and there is one upload in the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.upload.harness import SQLiteBackEnd
from tests.upload.nursery import MortalApp, Nursery
from tests.upload.test_crash import LARGE, SMALL, World, every_point
from tests.upload.test_draft import Client


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def world(nursery: Nursery, directory: Path) -> Iterator[World]:
    app = MortalApp(nursery, directory, SQLiteBackEnd(), "--resumable-draft")
    try:
        yield World(app)
    finally:
        app.close()


@every_point
@pytest.mark.parametrize("begun", [SMALL, LARGE])
def test_piece_that_completes_an_upload(world: World, begun: int, torn: bool) -> None:
    client = Client(world.app)
    content = world.content(LARGE)
    path = client.create(content[:begun])

    def act() -> None:
        assert client.patch(path, begun, content[begun:], "?1").status == 201
        world.accepted[path.removeprefix("/resumable/")] = content

    def after() -> None:
        nonlocal path
        head = client.ask("HEAD", path)
        offset = int(head.headers["Upload-Offset"])
        assert (head.status, offset >= begun) == (204, True)
        if head.headers["Upload-Complete"] == "?0":
            assert client.patch(path, offset, content[offset:], "?1").status == 201
        assert [row["id"] for row in world.app.rows].count(path.removeprefix("/resumable/")) == 1
        path = client.create(content[:begun])

    world.sweep(act, after, torn=torn)
    world.end()


@every_point
def test_put_that_could_go_on(world: World, torn: bool) -> None:
    client = Client(world.app)

    def act() -> None:
        content = world.content(SMALL)
        answer = client.ask("PUT", "/upload/a", content, Upload_Complete="?1")
        assert answer.status == 201
        world.accepted[answer.json["id"]] = content

    world.sweep(act, torn=torn)
    world.end()
