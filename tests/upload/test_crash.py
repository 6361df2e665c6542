"""A crash at every point of every way in: before each call that changes a file or is heard by another machine, and in
the midst of each write (nursery.py). Whatever the point, the next start must find

- no row without its whole file, and no file without a row;
- every upload that was accepted, and of a resumable one all that was acknowledged;
- nothing that keeps the client from going on.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import random
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.upload.harness import Answer, BackEnd, below, eventually, form
from tests.upload.nursery import MortalApp, Nursery
from tests.upload.tus import PIECE, Client

SMALL, LARGE = 1000, 150_000  # bytes: comes with its head; is received piece by piece


@pytest.fixture
def world(nursery: Nursery, directory: Path, back_end: BackEnd) -> Iterator[World]:
    app = MortalApp(nursery, directory, back_end)
    try:
        yield World(app)
    finally:
        app.close()


class World:
    """An app, what was sent to it, and what it has acknowledged."""

    def __init__(self, app: MortalApp) -> None:
        self.app = app
        self.client = Client(app)
        self.random = random.Random(1)
        self.sent: set[str] = set()  # SHA-256
        self.accepted: dict[str, bytes] = {}
        self.offsets: dict[str, int] = {}  # what was acknowledged of resumable uploads, by their URLs

    def content(self, size: int) -> bytes:
        content = self.random.randbytes(size)
        self.sent.add(hashlib.sha256(content).hexdigest())
        return content

    def start_with(self, *options: str) -> None:
        assert self.app.stop() == 0
        self.app.options = options
        self.app.start()

    def sweep(self, act: Callable[[], object], after: Callable[[], object] = lambda: None, *, torn: bool) -> set[str]:
        """Kill the app at the first point of `act`, at the second, ... until it survives. The calls it was killed at.

        `act` is given up where it fails. `after` looks at what has become of it, and goes on as a client would.
        """
        for number in count(1):
            self.app.nursery.die_at(number, torn=torn)
            with suppress(OSError, http.client.HTTPException):
                act()
            died = self.app.nursery.has_died()
            if died:
                assert self.app.wait() == -9
            calls = self.app.nursery.counted()
            if not died:
                self.check()
                after()
                return set(calls)
            self.app.start()
            try:
                self.check()
                after()
                self.check()
            except BaseException as error:
                error.add_note(f"killed {'in' if torn else 'before'} the last of {' '.join(calls)}")
                raise
        raise AssertionError

    def check(self) -> None:
        app = self.app
        rows = {str(row["id"]): row for row in app.rows}
        assert {row["path"] for row in rows.values()} == app.files
        for row in rows.values():
            digest = hashlib.sha256(app.content(row)).hexdigest()
            assert digest == row["sha256"]
            assert digest in self.sent
        for upload_id, content in self.accepted.items():
            assert app.content(rows[upload_id]) == content
        assert len(os.listdir(app.directory / "runs")) == 1

    def has_row(self, url: str) -> bool:
        return any(row["id"] == url[7:] for row in self.app.rows)

    def has_data(self, url: str, content: bytes) -> int:
        """What is stored of a resumable upload, after it was seen to be no less than acknowledged, and right."""
        offset = self.client.offset(url)
        assert offset >= self.offsets.get(url, 0)
        if not self.has_row(url):
            assert (self.app.directory / "resumable" / url[7:] / "data").read_bytes() == content[:offset]
        return offset

    def complete(self, url: str, content: bytes) -> None:
        """Go on where it was broken off."""
        offset = self.has_data(url, content)
        if offset < len(content):
            assert self.client.patch(url, offset, content[offset:]).status == 204
        assert [row["id"] for row in self.app.rows].count(url[7:]) == 1
        self.accepted[url[7:]] = content

    def end(self) -> None:
        """Whatever was left to be resumed expires; then disk and table have nothing but what was accepted or whole."""
        app = self.app
        assert app.stop() == 0
        app.options = (*app.options, "--expire", "0.01")
        app.start()
        eventually(lambda: not os.listdir(app.directory / "resumable"))
        eventually(lambda: 1 not in [_links(app.directory / path) for path in below(app.directory, "contents")])
        self.check()
        assert app.stop() == 0
        assert app.fsck() == 0


def _links(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_nlink
    return 0


every_point = pytest.mark.parametrize("torn", [False, True], ids=["between", "torn"])


@every_point
@pytest.mark.parametrize("options", [[], ["--no-fsync"]], ids=["fsync", "no-fsync"])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_put(world: World, size: int, options: list[str], torn: bool) -> None:
    world.start_with(*options)

    def act() -> None:
        content = world.content(size)
        answer = world.app.put("a", content, world.client.session)
        assert answer.status == 201
        world.accepted[answer.json["id"]] = content

    calls = world.sweep(act, torn=torn)
    assert calls.issuperset({"pwrite64"} if torn or options else {"pwrite64", "fsync", "rename", "send"})
    world.end()


@every_point
def test_put_of_a_content_that_is_there(world: World, torn: bool) -> None:
    world.start_with("--dedupe")
    content = world.content(SMALL)

    def act() -> None:
        answer = world.app.put("a", content, world.client.session)
        assert answer.status == 201
        world.accepted[answer.json["id"]] = content

    act()
    calls = world.sweep(act, torn=torn)
    assert torn or "link" in calls
    world.end()


@every_point
def test_form(world: World, torn: bool) -> None:
    def act() -> None:
        contents = world.content(SMALL), world.content(LARGE)
        body, kind = form(("a", contents[0]), ("b", contents[1]))
        answer = world.app.ask("POST", "/upload", body, session=world.client.session, Content_Type=kind)
        assert answer.status == 201
        for upload, content in zip(answer.json["uploads"], contents, strict=True):
            world.accepted[upload["id"]] = content

    def all_or_none() -> None:
        assert len(world.app.rows) % 2 == 0

    world.sweep(act, all_or_none, torn=torn)
    world.end()


@every_point
def test_deletion(world: World, torn: bool) -> None:
    deleted: list[str] = []
    content = world.content(SMALL)

    def store() -> str:
        answer = world.app.put("a", content, world.client.session)
        return str(answer.json["url"])

    urls = [store() for _ in range(60)]  # in one run that ends in order
    assert world.app.stop() == 0
    world.app.start()

    def act() -> None:
        url = urls.pop()
        if world.app.ask("DELETE", url, session=world.client.session).status == 204:
            deleted.append(url.removeprefix("/uploads/"))

    def after() -> None:
        rows = {row["id"] for row in world.app.rows}
        assert rows.isdisjoint(deleted)
        assert rows.issuperset(url.removeprefix("/uploads/") for url in urls)

    world.sweep(act, after, torn=torn)
    world.end()


# --- Resumable uploads -----------------------------------------------------------------------------


class Resumed:
    """A new upload for each point."""

    def __init__(self, world: World, size: int = LARGE, begun: int = 0, **fields: str) -> None:
        self.world = world
        self.content = world.content(size)
        self.url = world.client.create(size, **fields)
        if begun:
            self.patch(0, begun)

    def patch(self, begin: int, end: int, **fields: str) -> None:
        answer = self.world.client.patch(self.url, begin, self.content[begin:end], **fields)
        assert answer.status == 204
        self.world.offsets[self.url] = int(answer.headers["Upload-Offset"])


def sweep_one_by_one(
    world: World, make: Callable[[], Resumed], act: Callable[[Resumed], object], after: Callable[[Resumed], object],
    *, torn: bool,
) -> None:  # fmt: skip
    """As `World.sweep`, with another upload for each point, made without a crash."""
    current = make()

    def look_and_make_another() -> None:
        nonlocal current
        after(current)
        current = make()

    world.sweep(lambda: act(current), look_and_make_another, torn=torn)
    world.end()


@every_point
def test_creation(world: World, torn: bool) -> None:
    created: list[str] = []

    def act() -> None:
        created.append(world.client.create(SMALL))

    def after() -> None:
        for url in created:
            assert world.client.offset(url) == 0

    world.sweep(act, after, torn=torn)
    world.end()


@every_point
@pytest.mark.parametrize("size", [0, LARGE])
def test_creation_with_all_data(world: World, size: int, torn: bool) -> None:
    def act() -> None:
        content = world.content(size)
        fields = {"Content_Type": PIECE} if size else {}
        answer = world.client.ask("POST", "/files/", content, Upload_Length=size, **fields)
        assert answer.status == 201
        world.accepted[urlsplit(answer.headers["Location"]).path[7:]] = content

    world.sweep(act, torn=torn)
    world.end()


@every_point
@pytest.mark.parametrize("begin", [0, SMALL])
def test_piece(world: World, begin: int, torn: bool) -> None:
    def after(upload: Resumed) -> None:
        upload.world.complete(upload.url, upload.content)

    sweep_one_by_one(
        world, lambda: Resumed(world, begun=begin), lambda upload: upload.patch(begin, 100_000), after, torn=torn
    )


@every_point
def test_piece_with_checksum(world: World, torn: bool) -> None:
    def act(upload: Resumed) -> None:
        digest = b64encode(hashlib.md5(upload.content[SMALL:100_000]).digest()).decode()
        upload.patch(SMALL, 100_000, Upload_Checksum=f"md5 {digest}")

    def after(upload: Resumed) -> None:
        assert world.has_data(upload.url, upload.content) in (SMALL, 100_000)  # nothing that was not checked
        world.complete(upload.url, upload.content)

    sweep_one_by_one(world, lambda: Resumed(world, begun=SMALL), act, after, torn=torn)


@every_point
def test_last_piece(world: World, torn: bool) -> None:
    def act(upload: Resumed) -> None:
        upload.patch(SMALL, LARGE)
        world.accepted[upload.url[7:]] = upload.content

    def after(upload: Resumed) -> None:
        world.complete(upload.url, upload.content)

    sweep_one_by_one(world, lambda: Resumed(world, begun=SMALL), act, after, torn=torn)


@every_point
def test_piece_by_the_draft(world: World, torn: bool) -> None:
    world.start_with("--resumable-draft")
    app, content = world.app, world.content(LARGE)
    url, offset = "", 0

    def ask(method: str, path: str, body: bytes | None = None, **fields: str) -> Answer:
        return app.ask(method, path, body, session=world.client.session, **fields)

    def create() -> str:
        answer = ask("PUT", "/upload/a", b"", Upload_Complete="?0")
        assert answer.status == 201
        return urlsplit(answer.headers["Location"]).path

    def act() -> None:
        fields = {"Upload_Complete": "?1", "Upload_Offset": str(offset), "Content_Type": "application/partial-upload"}
        assert ask("PATCH", url, content[offset:], **fields).status == 201
        world.accepted[url.rpartition("/")[2]] = content

    def after() -> None:
        nonlocal url, offset
        answer = ask("HEAD", url)
        offset = int(answer.headers["Upload-Offset"])
        if answer.headers["Upload-Complete"] == "?0":
            act()
        assert url.rpartition("/")[2] in {row["id"] for row in app.rows}
        url, offset = create(), 0

    url = create()
    world.sweep(act, after, torn=torn)
    world.end()


@every_point
def test_termination(world: World, torn: bool) -> None:
    gone: list[str] = []

    def act(upload: Resumed) -> None:
        assert world.client.ask("DELETE", upload.url).status == 204
        gone.append(upload.url)

    def after(upload: Resumed) -> None:
        answer = world.client.head(upload.url)
        assert answer.status == 404 or upload.url not in gone
        if answer.status == 200:
            world.complete(upload.url, upload.content)

    sweep_one_by_one(world, lambda: Resumed(world, begun=SMALL), act, after, torn=torn)


@every_point
def test_concatenation(world: World, torn: bool) -> None:
    def make_parts() -> list[Resumed]:
        return [Resumed(world, size, size, Upload_Concat="partial") for size in (SMALL, LARGE)]

    joined = 0
    parts = make_parts()

    def join() -> Answer:
        urls = " ".join(part.url for part in parts)
        return world.client.ask("POST", "/files/", b"", Upload_Concat=f"final;{urls}")

    def act() -> None:
        world.sent.add(hashlib.sha256(whole := b"".join(part.content for part in parts)).hexdigest())
        answer = join()
        assert answer.status == 201
        world.accepted[urlsplit(answer.headers["Location"]).path[7:]] = whole
        parts.clear()

    def after() -> None:
        """The client that got no answer asks again: and there is one upload, not two."""
        nonlocal parts, joined
        joined += 1
        whole = sum(row["size"] == SMALL + LARGE for row in world.app.rows)
        if parts:
            answer = join()
            if answer.status == 404:  # it had no more to do but to answer
                assert whole == joined
            else:
                assert answer.status == 201
        assert sum(row["size"] == SMALL + LARGE for row in world.app.rows) == joined
        parts = make_parts()

    world.sweep(act, after, torn=torn)
    world.end()
