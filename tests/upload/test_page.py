"""The page, in a real browser without a window: Debian's Chromium, driven by Playwright, examined by axe-core.

What is done with the page is in scenarios.mjs; what happens around it meanwhile, and what must have come of it, here.
Any message of the browser about a script or the Content-Security-Policy fails a test, and so does any violation of
the rules of axe-core for accessibility.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import struct
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.services import CHECKOUT
from tests.upload.conftest import Start
from tests.upload.harness import App, SQLiteBackEnd, eventually, session_of
from tests.upload.holding import HoldingProxy

NODE_MODULES = CHECKOUT / ".cache" / "node" / "node_modules"
SCRIPT = Path(__file__).with_name("browser.mjs")
PASSWORD = "correct horse"
SIZE = 16_000_000  # bytes: more than sockets hold
TIME_LIMIT = 400.0  # seconds for a scenario that hangs


class Visit:
    """An app behind a proxy, one account, and files of a person who is about to visit it."""

    def __init__(self, app: App, proxy: HoldingProxy, directory: Path) -> None:
        self.app = app
        self.proxy = proxy
        self.directory = directory
        self.url = f"http://127.0.0.1:{proxy.port}/"
        self.session = session_of(app.post("/login", invitation=app.invitation(), password=PASSWORD))
        self.sent = 0

    def file(self, name: str, content: bytes | None = None) -> str:
        """A file on this machine; of random content that takes a while to send."""
        path = self.directory / name
        path.write_bytes(os.urandom(SIZE) if content is None else content)
        return str(path)

    def play(self, scenario: str, *, orders: Mapping[str, Callable[..., object]] | None = None, **options: Any) -> Any:
        """What was seen in a scenario, in which no error and no barrier may have been."""
        given = {"url": self.url, "session": self.session, "directory": str(self.directory), **options}
        seen = _play(scenario, given, {**self.orders, **(orders or {})})
        assert (seen["errors"], seen["violations"]) == ([], [])
        return seen

    @property
    def orders(self) -> Mapping[str, Callable[..., object]]:
        return {
            "hold at half": lambda: self.proxy.hold_after(SIZE // 2),
            "wait until held": self._wait_held,
            "let it go on": self.proxy.release,
            "cut the connection": self.proxy.cut,
            "break the connection": self._break,
            "mend the connection": lambda: setattr(self.proxy, "refuse", False),
        }

    def _wait_held(self, uploads: int) -> None:
        """Each is at half, and the server has some of that on its disk."""
        assert self.proxy.wait_held(uploads, TIME_LIMIT)
        parts = self.app.directory / "resumable"
        eventually(lambda: len([path for path in parts.glob("*/data") if path.stat().st_size]) == uploads)

    def _break(self) -> None:
        self.proxy.refuse = True
        self.proxy.cut()
        self.proxy.release()

    def assert_stored(self, digests: dict[str, str], *paths: str) -> None:
        """The page shows these files, and they are stored as they are here."""
        wanted = {Path(path).name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths}
        assert digests == wanted
        listed = self.app.ask("GET", "/uploads", session=self._new_session()).json["uploads"]
        fetched = {upload["name"]: self.app.ask("GET", upload["url"], session=self._new_session()) for upload in listed}
        assert {name: hashlib.sha256(answer.body).hexdigest() for name, answer in fetched.items()} == wanted

    def _new_session(self) -> str:
        return session_of(self.app.post("/login", user="admin", password=PASSWORD))


def _play(scenario: str, options: dict[str, Any], orders: Mapping[str, Callable[..., object]]) -> Any:
    faulthandler.cancel_dump_traceback_later()  # pytest's limit for a test, in the place of which is TIME_LIMIT
    with subprocess.Popen(
        ["node", SCRIPT, scenario, json.dumps(options)], env={**os.environ, "NODE_MODULES": str(NODE_MODULES)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        limit = threading.Timer(TIME_LIMIT, process.kill)
        limit.start()
        seen: Any = None
        try:
            for line in process.stdout:
                message = json.loads(line)
                if "ask" in message:
                    result = orders[message["ask"]](*message["values"])
                    process.stdin.write(json.dumps(result, default=str) + "\n")
                    process.stdin.flush()
                else:
                    seen = message["seen"]
        finally:
            limit.cancel()
            if seen is None:
                process.kill()
    assert process.returncode == 0, f"{scenario}: see above what the browser's script says"
    return seen


@pytest.fixture
def visit(start: Start, tmp_path: Path) -> Iterator[Visit]:
    app = start(SQLiteBackEnd())
    with HoldingProxy(app.address[1]) as proxy:
        yield Visit(app, proxy, tmp_path)


def _png() -> bytes:
    """An image of one grey point."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")


# --- Sending, finding, sharing, deleting ---------------------------------------------------------


def test_who_is_invited_chooses_a_password_and_sends_files(start: Start, tmp_path: Path) -> None:
    app = start(SQLiteBackEnd())
    url = f"http://127.0.0.1:{app.address[1]}/"
    content = {f"file {number}.bin": os.urandom(size) for number, size in enumerate((0, 1000, 3_000_000))}
    content |= {f"more {number}": b"x" for number in range(3)} | {"picture.png": _png()}
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    files = [str(tmp_path / name) for name in content]
    options = {"url": url, "token": app.invitation(), "password": PASSWORD, "files": files, "directory": str(tmp_path)}
    seen = _play("invitation", options, {})
    assert (seen["errors"], seen["violations"], seen["failures"]) == ([], [], [])
    assert (seen["address"], seen["asksForName"]) == (url, False)
    assert seen["digests"] == {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    assert seen["found"] == ["picture.png"]
    assert not seen["overflows"]
    assert app.post("/login", user="admin", password=PASSWORD).status == 200


def test_a_link_is_for_anybody_until_the_file_is_deleted(visit: Visit) -> None:
    visit.app.put("a%20b.txt", b"hello", visit.session)
    seen = visit.play("share")
    assert (seen["download"], seen["path"]) == ("a b.txt", "hello")
    assert seen["gone"] == 410


# --- Going on ------------------------------------------------------------------------------------


def test_dropped_files_go_on_by_themselves_when_the_connection_breaks(visit: Visit) -> None:
    files = [visit.file(name) for name in ("one.bin", "two.bin", "three.bin")]
    seen = visit.play("broken", files=files)
    visit.assert_stored(seen["digests"], *files)
    assert seen["offsets"][:3] == [0, 0, 0]
    assert min(seen["offsets"][3:]) > 0


def test_an_upload_goes_on_after_a_reload_when_the_file_is_chosen_again(visit: Visit) -> None:
    file = visit.file("one.bin")
    seen = visit.play("reloaded", file=file, other=visit.file("two.bin", b"another"))
    assert seen["refused"] == "This is another file, or it has changed. To go on, choose one.bin as it was."
    assert (len(seen["offsets"]), seen["offsets"][0], seen["offsets"][1] > 0) == (2, 0, True)
    visit.assert_stored(seen["digests"], file)
    assert not seen["left"]


def test_a_dropped_file_goes_on_after_a_reload_without_being_chosen_again(visit: Visit) -> None:
    file = visit.file("one.bin")
    seen = visit.play("dropped", file=file)
    assert (len(seen["offsets"]), seen["offsets"][0], seen["offsets"][1] > 0) == (2, 0, True)
    visit.assert_stored(seen["digests"], file)


def test_uploads_are_paused_resumed_and_cancelled_by_hand(visit: Visit) -> None:
    files = [visit.file("one.bin"), visit.file("two.bin")]

    def nothing_left() -> None:
        eventually(lambda: not list((visit.app.directory / "resumable").glob("*/data")))

    seen = visit.play("paused", files=files, orders={"wait until nothing is left of the other": nothing_left})
    assert seen["paused"] == 2
    assert (len(seen["offsets"]), seen["offsets"][2] > 0) == (3, True)
    visit.assert_stored(seen["digests"], files[0])
    assert not seen["left"]


def test_an_upload_goes_on_after_a_login_when_the_session_has_ended(visit: Visit) -> None:
    file = visit.file("one.bin")
    orders = {"end the session": lambda: visit.app.back_end.ask(visit.app, "DELETE FROM sessions")}
    seen = visit.play("expired", orders=orders, file=file, name="admin", password=PASSWORD)
    assert seen["hint"] == "Your session has ended. Log in again to go on. Nothing of your uploads is lost."
    assert (seen["name"], seen["wrong"]) == ("admin", "The user name or the password is wrong.")
    assert (len(seen["offsets"]), seen["offsets"][1] > 0) == (2, True)
    visit.assert_stored(seen["digests"], file)


def test_an_upload_goes_on_when_the_server_was_killed(visit: Visit) -> None:
    def kill() -> None:
        visit.app.kill()
        visit.proxy.release()

    def start_again() -> None:
        visit.app.start()
        visit.proxy.server_port = visit.app.address[1]

    file = visit.file("one.bin")
    seen = visit.play("restarted", file=file, orders={"kill the server": kill, "start the server": start_again})
    assert seen["offsets"][-1] > 0
    visit.assert_stored(seen["digests"], file)


def test_an_upload_belongs_to_one_tab_and_the_next_one_takes_it_up_when_that_is_closed(visit: Visit) -> None:
    file = visit.file("one.bin")
    seen = visit.play("twice", file=file)
    assert not seen["offered"]
    visit.assert_stored(seen["digests"], file)


# --- Refusals ------------------------------------------------------------------------------------


def test_when_the_disk_is_full_the_page_says_so_and_sends_the_file_when_there_is_room(
    start: Start, small_disk: list[str], tmp_path: Path
) -> None:
    app = start(SQLiteBackEnd(), prefix=small_disk)
    with HoldingProxy(app.address[1]) as proxy:
        visit = Visit(app, proxy, tmp_path)
        url = app.put("first", bytes(6_000_000), visit.session).json["url"]
        file = visit.file("second", bytes(6_000_000))
        make_room = {"make room": lambda: app.ask("DELETE", url, session=visit.session).status == 204}
        seen = visit.play("refused", orders=make_room, files=[file], locale="en-GB")
        assert seen["reasons"] == ["Not uploaded: the server's disk is full. Retry when there is room again."]
        visit.assert_stored(seen["digests"], file)


def test_files_of_a_type_that_is_not_taken_are_refused_and_none_is_tried_for_ever(start: Start, tmp_path: Path) -> None:
    app = start(SQLiteBackEnd(), "--allow-types", "image/*")
    with HoldingProxy(app.address[1]) as proxy:
        visit = Visit(app, proxy, tmp_path)
        files = [visit.file("large.bin"), visit.file("text.txt", b"text")]
        seen = visit.play("refused", orders={"make room": lambda: False}, files=files, locale="en-GB")
    assert seen["reasons"] == [
        f"Not uploaded: such files are not taken: it is {kind}, and only image/* may be sent."
        for kind in ("application/octet-stream", "text/plain")
    ]


@pytest.mark.parametrize(
    ("locale", "title", "reasons"),
    [
        ("en-US", "Uploads", (
            "Not uploaded: the file is too large: at most 2 MB are taken.",
            "Not uploaded: there is no room left for you: of 1.5 MB you have 1.5 MB left. Delete files, then retry.",
        )),
        ("zh-CN", "文件上传", (
            "未上传：文件太大，最多接受 2 MB。", "未上传：空间不足：配额 1.5 MB，剩余 1.5 MB。请删除一些文件后重试。",
        )),
    ],
)  # fmt: skip
def test_what_the_server_refuses_is_said_in_the_readers_words(
    start: Start, tmp_path: Path, locale: str, title: str, reasons: tuple[str, str]
) -> None:
    app = start(SQLiteBackEnd(), "--max-size", "2000000", "--quota", "1500000")
    with HoldingProxy(app.address[1]) as proxy:
        visit = Visit(app, proxy, tmp_path)
        files = [visit.file("large", bytes(2_000_001)), visit.file("one too many", bytes(1_900_000))]
        seen = visit.play("refused", orders={"make room": lambda: False}, files=files, locale=locale)
    assert (seen["title"], seen["language"]) == (title, locale.replace("en-US", "en"))
    assert tuple(seen["reasons"]) == reasons


# --- The account ---------------------------------------------------------------------------------


def test_tokens_password_and_all_sessions(visit: Visit) -> None:
    def listed(token: str) -> int:
        return visit.app.ask("GET", "/uploads", Authorization=f"Bearer {token}").status

    def check(condition: bool) -> None:
        assert condition

    orders: Mapping[str, Callable[..., object]] = {
        "use the token": lambda token: check(listed(token) == 200),
        "the token is refused": lambda token: check(listed(token) == 401),
        "the old session is over": lambda: check(visit.app.ask("GET", "/uploads", session=visit.session).status == 401),
    }
    seen = visit.play("account", orders=orders, password=PASSWORD, fresh="battery staple")
    assert (seen["title"], seen["names"]) == ("Account of admin", ["backup"])
    assert seen["differ"] == "The two new passwords differ."
    assert not seen["overflows"]
    assert seen["cookies"] == 0
    assert visit.app.back_end.ask(visit.app, "SELECT * FROM sessions") == []
    assert visit.app.post("/login", user="admin", password="battery staple").status == 200


# --- Everybody -----------------------------------------------------------------------------------


def test_all_of_it_can_be_done_by_the_keyboard(visit: Visit) -> None:
    file = visit.file("one.bin")
    seen = visit.play("keyboard", name="admin", password=PASSWORD, file=file)
    assert seen["outline"] == "solid"
    assert seen["focused"] == "Resume the upload of one.bin"  # the focus stays where it was
    assert seen["said"] == "one.bin uploaded."
    assert (seen["first"], seen["after"]) == ("Cancel", "Your files")
    assert seen["digests"] == {"one.bin": hashlib.sha256(Path(file).read_bytes()).hexdigest()}
