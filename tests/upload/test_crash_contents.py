"""A crash at every point of the ways in and out when the same content is stored once: no upload loses it to another's
end, and it goes with the last.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.upload.harness import SQLiteBackEnd, eventually
from tests.upload.nursery import MortalApp, Nursery
from tests.upload.test_contents import contents
from tests.upload.test_crash import SMALL, Resumed, World, every_point

STORED = 40  # names of one content, each to be deleted at another point


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def world(nursery: Nursery, directory: Path) -> Iterator[World]:
    app = MortalApp(nursery, directory, SQLiteBackEnd(), "--dedupe")
    try:
        yield World(app)
    finally:
        app.close()


def put(world: World, content: bytes) -> str:
    answer = world.app.put("a", content, world.client.session)
    assert answer.status == 201
    world.accepted[answer.json["id"]] = content
    return str(answer.json["url"])


def end(world: World) -> None:
    """All is deleted, and nothing is left of it."""
    app = world.app
    for row in app.rows:
        assert app.ask("DELETE", f"/uploads/{row['id']}", session=world.client.session).status == 204
    world.accepted.clear()
    eventually(lambda: not contents(app.directory))
    world.end()


@every_point
@pytest.mark.parametrize("stored", [0, 1])
def test_put_of_the_same_content(world: World, stored: int, torn: bool) -> None:
    content = world.content(SMALL)
    for _ in range(stored):
        put(world, content)
    calls = world.sweep(lambda: put(world, content), torn=torn)
    assert torn or "link" in calls
    end(world)


@every_point
def test_last_piece_of_the_same_content(world: World, torn: bool) -> None:
    content = world.content(SMALL)
    put(world, content)

    def make() -> Resumed:
        upload = Resumed(world, SMALL)
        upload.content = content
        upload.patch(0, 100)
        return upload

    upload = make()

    def after() -> None:
        nonlocal upload
        world.complete(upload.url, content)
        upload = make()

    world.sweep(lambda: upload.patch(100, SMALL), after, torn=torn)
    end(world)


@every_point
def test_deletion_of_what_others_have_too(world: World, torn: bool) -> None:
    content = world.content(SMALL)
    urls = [put(world, content) for _ in range(STORED)]
    assert len({os.stat(world.app.directory / row["path"]).st_ino for row in world.app.rows}) == 1

    def delete() -> None:
        url = urls.pop()
        world.accepted.pop(url.removeprefix("/uploads/"))
        assert world.app.ask("DELETE", url, session=world.client.session).status == 204

    world.sweep(delete, torn=torn)
    end(world)


@every_point
def test_deletion_of_the_last(world: World, torn: bool) -> None:
    def delete_all() -> None:
        for row in world.app.rows:
            world.accepted.pop(row["id"], None)
            world.app.ask("DELETE", f"/uploads/{row['id']}", session=world.client.session)
        assert not world.app.rows

    def after() -> None:
        delete_all()
        eventually(lambda: not contents(world.app.directory))
        put(world, world.content(SMALL))

    put(world, world.content(SMALL))
    world.sweep(delete_all, after, torn=torn)
    end(world)
