"""A client that leaves when it has sent all there is."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import coro
from apps.upload.handlers import UploadHandlers
from apps.upload.store import Upload
from coro import Coro, TaskGroup


def test_row_is_written_although_the_client_leaves_meanwhile() -> Coro[None]:
    begun, go = coro.Event(), coro.Event()
    written: list[Any] = []

    def add_uploads(uploads: Sequence[Upload]) -> Coro[None]:
        begun.set()
        yield from go.wait()
        written.extend(uploads)

    handlers = SimpleNamespace(
        metadata=SimpleNamespace(add_uploads=add_uploads), storage=SimpleNamespace(),
        contents=SimpleNamespace(sharing=False),
    )  # fmt: skip
    upload = Upload("id", 1, "name", "path", 3, None)

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(UploadHandlers.commit(cast(Any, handlers), [upload]))
        yield from begun.wait()
        task.cancel()
        go.set()

    yield from coro.task_group(body)
    assert written == [upload]
    assert not hasattr(handlers.storage, "undecided")
