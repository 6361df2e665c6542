"""What the processes of an app keep count of together: quotas, uploads at once, room on the disk."""

from __future__ import annotations

import errno
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import coro
from apps.upload.parts import PIECE_SIZE, TooLarge
from apps.upload.policy import Policy
from apps.upload.shared import STEP, Shared
from apps.upload.store import Metadata
from coro import Coro
from coro.http import HTTPError
from tests.upload.conftest import Start
from tests.upload.harness import App, BackEnd, SQLiteBackEnd, children, eventually, session_of
from tests.upload.test_policy import _refused_before_its_body as answer_before_body

CONTENT = bytes(range(256)) * 64
TRIES = 12  # connections, which the kernel gives to one worker or the other


def kill_workers(app: App) -> None:
    eventually(lambda: len(children(app.process.pid)) == 2)
    for pid in children(app.process.pid):
        os.kill(pid, signal.SIGKILL)


# --- Two workers ---------------------------------------------------------------------------------


def test_quota_holds_across_workers(start: Start, back_end: BackEnd) -> None:
    app = start(back_end, "--workers", "2", "--quota", "20000")
    session, other = app.log_in(), app.log_in()
    with app.begin_put(session, 15000, CONTENT[:5000]) as exchange:
        eventually(lambda: app.files)
        assert {answer_before_body(app, session, 5001) for _ in range(TRIES)} == {413}
        assert answer_before_body(app, other, 20000) == 100
        exchange.send(CONTENT[5000:15000])
        assert exchange.answer().status == 201
    assert {app.put("small", bytes(5001), session).status for _ in range(TRIES)} == {413}
    assert [app.put("small", bytes(1000), session).status for _ in range(6)] == [201] * 5 + [413]


def test_uploads_at_once_are_counted_across_workers(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--workers", "2", "--parallel", "2")
    session, other = app.log_in(), app.log_in()
    exchanges = [app.begin_put(session, len(CONTENT), CONTENT[:5000]) for _ in range(2)]
    eventually(lambda: len(app.files) == 2)
    assert {answer_before_body(app, session, 5) for _ in range(TRIES)} == {429}
    assert app.put("a", b"x", other).status == 201
    for exchange in exchanges:
        exchange.send(CONTENT[5000:])
        assert exchange.answer().status == 201
    assert {app.put("a", b"x", session).status for _ in range(TRIES)} == {201}


def log_in_and_measure(app: App) -> tuple[str, int]:
    """A session, and the size of an upload that there is room for once, not twice, on a disk that others do not use."""
    session = session_of(app.post("/login", invitation=app.invitation(), password="correct horse"))
    disk = os.statvfs(app.seen_directory)
    return session, disk.f_bavail * disk.f_frsize // 10 * 7


def test_room_on_the_disk_is_kept_across_workers(start: Start, small_disk: list[str]) -> None:
    app = start(SQLiteBackEnd(), "--workers", "2", prefix=small_disk)
    session, most = log_in_and_measure(app)
    with app.begin_put(session, most, CONTENT[:5000]):
        eventually(lambda: app.files)
        assert {answer_before_body(app, session, most) for _ in range(TRIES)} == {507}
        assert app.put("small", CONTENT, session).status == 201
    eventually(lambda: answer_before_body(app, session, most) == 100)


def test_what_a_killed_worker_held_is_given_back(start: Start, small_disk: list[str]) -> None:
    app = start(SQLiteBackEnd(), "--workers", "2", "--parallel", "1", "--quota", str(1 << 50), prefix=small_disk)
    session, most = log_in_and_measure(app)
    with app.begin_put(session, most, CONTENT[:5000]):
        eventually(lambda: app.files)
        assert answer_before_body(app, session, 5) == 429
        kill_workers(app)

    def admitted() -> bool:
        with suppress(OSError, IndexError):  # of a connection that a dying worker had accepted
            return answer_before_body(app, session, most) == 100
        return False

    eventually(admitted)
    eventually(lambda: app.put("a", CONTENT, session).status == 201)


# --- Room, process by process --------------------------------------------------------------------------


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A disk with room for 100 MB."""
    free = SimpleNamespace(f_bavail=100_000, f_frsize=1000)
    monkeypatch.setattr(os, "statvfs", lambda path: free)
    return free


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Shared, Shared]]:
    one, other = Shared(str(tmp_path)), Shared(str(tmp_path))
    with closing(other):
        yield one, other


def test_room_is_kept_until_it_is_used_or_released(two: tuple[Shared, Shared], disk: SimpleNamespace) -> None:
    one, other = two
    room = coro.run(one.reserve(70_000_000))
    for shared in two:
        with pytest.raises(OSError, match="no room left for an upload of 40000000 bytes"):
            coro.run(shared.reserve(40_000_000))
    room.use(20_000_000)
    disk.f_bavail = 80_000
    coro.run(other.reserve(30_000_000)).release()
    with pytest.raises(OSError, match="no room left"):
        coro.run(other.reserve(30_000_001))
    room.use(STEP - 1)  # of which the others may not know yet
    room.use(50_000_000)
    room.release()
    assert one.reserved == 0
    coro.run(other.reserve(80_000_000))
    one.close()


def test_room_of_a_process_that_is_gone_is_free(two: tuple[Shared, Shared], disk: SimpleNamespace) -> None:
    one, other = two
    coro.run(one.reserve(70_000_000))
    with pytest.raises(OSError, match="no room left"):
        coro.run(other.reserve(40_000_000))
    one.close()
    coro.run(other.reserve(100_000_000))


def test_slot_of_a_process_that_is_gone_is_used_again(two: tuple[Shared, Shared], tmp_path: Path) -> None:
    one, other = two
    one.close()
    with closing(Shared(str(tmp_path))) as next_one:
        assert next_one.living() == {other.name, next_one.name}
        assert next_one.living() == other.living()
    assert other.living() == {other.name}


# --- Users, process by process ----------------------------------------------------------------------------


class Table:
    """What is stored for user 1, counted slowly."""

    def __init__(self) -> None:
        self.stored = 0

    def usage(self, user_id: int) -> Coro[int]:
        yield from coro.checkpoint()
        stored = self.stored
        yield from coro.checkpoint()
        return stored


def policy(shared: Shared, table: Table, **limits: Any) -> Policy:
    settings = {"max_size": None, "quota": None, "parallel": None, **limits}
    return Policy(cast(Metadata, table), shared, **settings)


def test_quota_is_never_overrun_and_always_used(two: tuple[Shared, Shared]) -> None:
    table, rng = Table(), random.Random(5)
    policies = [policy(shared, table, quota=1000) for shared in two]
    promised = most = 0

    def upload(number: int) -> Coro[None]:
        nonlocal promised, most
        size = rng.randrange(1, 400)
        with (yield from policies[number % 2].admit(1, size, PIECE_SIZE)):
            promised += size
            most = max(most, promised)
            assert promised <= 1000
            for _ in range(rng.randrange(4)):
                yield from coro.checkpoint()
            table.stored += size
            yield from coro.checkpoint()
        yield from coro.checkpoint()
        table.stored -= size  # it is deleted
        promised -= size

    def client(number: int) -> Coro[None]:
        for _ in range(10):
            while True:
                try:
                    yield from upload(number)
                    break
                except TooLarge:
                    yield from coro.checkpoint()

    coro.run(coro.gather(*(client(number) for number in range(8))))
    assert most > 400  # there were several at once
    assert all(not policy.under_way and not policy.pending for policy in policies)
    for shared in two:
        with coro.run(shared.page(1)) as page:
            assert page.under_way() == (0, 0)
    two[0].close()


def test_uploads_of_a_process_that_is_gone_do_not_count(two: tuple[Shared, Shared]) -> None:
    one, other = (policy(shared, Table(), quota=1000, parallel=2) for shared in two)
    for _ in range(2):
        coro.run(one.admit(1, 300, 300))
    with pytest.raises(HTTPError, match="2 of your uploads are under way"):
        coro.run(other.admit(1, 1, 1))
    coro.run(other.admit(257, 1, 1))  # another user on the same page
    one.shared.close()
    with coro.run(other.admit(1, 1000, 1000)) as admission:
        assert admission.limit == 1000


def test_nothing_is_promised_that_cannot_be_written_down(
    two: tuple[Shared, Shared], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    one = policy(two[0], Table(), quota=1000, parallel=1)
    room = coro.run(two[0].reserve(STEP))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        for size in PIECE_SIZE + 1, 1:
            with pytest.raises(OSError, match="No space left"):
                coro.run(one.admit(1, 1, size))
        room.release()  # of which the others learn later
    with coro.run(one.admit(1, 1000, 1)), coro.run(two[1].page(1)) as page:
        assert (page.under_way(), two[0].reserved) == ((1, 1000), 0)
    two[0].close()


def test_page_that_was_torn_by_a_crash_of_the_system_is_begun_anew(two: tuple[Shared, Shared]) -> None:
    one, other = two
    with coro.run(one.page(1)) as page:
        page.write(1, 100)
    with coro.run(other.page(1)) as page:
        assert page.under_way() == (1, 100)
    for torn in b"", b'{"gone": 3, "proc', bytes(100):
        Path(one.directory, "limits", "1").write_bytes(torn)
        with coro.run(other.page(1)) as page:
            assert (page.under_way(), page.gone) == ((0, 0), 0)
    one.close()


def test_page_that_another_has_is_waited_for(two: tuple[Shared, Shared]) -> None:
    one, other = two
    held = one.page_nowait(1)
    assert held is not None
    assert other.page_nowait(1) is None

    def let_go(then: Callable[[], None]) -> Coro[None]:
        yield from coro.checkpoint()
        then()

    def wait() -> Coro[None]:
        with (yield from other.page(1)) as page:
            assert page.under_way() == (2, 5)

    def write() -> None:
        with held:
            held.write(2, 5)

    coro.run(coro.gather(wait(), let_go(write)))
    one.close()
