"""Connections that died without a word: packets are dropped, no FIN comes, and the server cannot know.

The client comes back on another connection, perhaps to another worker. It must get the upload at once, at the offset
that the disk has, and what is still on its way from the dead connection must not be written any more.
"""

from __future__ import annotations

import ctypes
import hashlib
import random
import socket
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.upload.conftest import Start
from tests.upload.harness import App, BackEnd, Exchange, eventually
from tests.upload.tus import Client

DATA = random.Random(1).randbytes(200_000)
STEP = 4_000  # so that it can be tried fifty times
STALE = b"\xff" * 1000  # sent by who has lost the upload
SO_ATTACH_FILTER = 26  # socket(7)
BPF_RET = 0x06


def drop_what_comes(exchange: Exchange) -> None:
    """From now on every packet to the client is dropped: it acknowledges nothing, and answers not even by RST."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RET, 0, 0, 0))  # "keep 0 bytes of each packet"
    exchange.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))


def holder(app: App, url: str) -> int | None:
    """The process that has the lock of a resumable upload."""
    inode = (app.directory / "resumable" / url[7:]).stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        _, kind, _, _, pid, file, *_ = line.split()
        if kind == "FLOCK" and file.rpartition(":")[2] == str(inode):
            return int(pid)
    return None


@pytest.mark.parametrize("workers", [1, 4])
def test_upload_is_taken_over_from_a_connection_whose_packets_are_dropped(
    start: Start, back_end: BackEnd, workers: int
) -> None:
    """With several workers: also from another one. It is tried until that has happened."""
    app = start(back_end, "--workers", str(workers))
    client = Client(app)
    url = client.create(len(DATA))
    offset = 0
    holders: set[int | None] = set()
    with ExitStack() as stack:
        while len(holders) < min(workers, 2):
            assert offset + STEP < len(DATA)
            piece = DATA[offset : offset + STEP]
            dead = stack.enter_context(client.begin_patch(url, offset, len(DATA) - offset, piece))
            offset += STEP
            eventually(lambda: client.received(url) == offset)  # noqa: B023  (it is called in this turn only)
            drop_what_comes(dead)
            holders.add(holder(app, url))
            assert client.offset(url) == offset
            dead.send(STALE)
            assert holder(app, url) is None
        assert client.patch(url, offset, DATA[offset:]).status == 204
    [upload] = client.finished()
    assert upload["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert app.content(app.rows[0]) == DATA


def test_wish_of_a_process_that_crashed_takes_an_upload_from_nobody(app: App) -> None:
    client = Client(app)
    url = client.create(len(DATA))
    wish = app.directory / "wanted" / url[7:]
    wish.touch()
    with client.begin_patch(url, 0, len(DATA), DATA[:STEP]) as exchange:
        eventually(lambda: not wish.exists())
        exchange.send(DATA[STEP:])
        assert exchange.answer().status == 204
