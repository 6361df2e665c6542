"""Many clients at once while something ends: a store, which comes back, or the service itself.

What was answered with success is there, and nothing else; what was not can be sent again, or resumed.
"""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from tests.services import MariaDBServer, RedisServer
from tests.upload.conftest import Start
from tests.upload.harness import PATIENCE, App, BackEnd, Exchange, ServersBackEnd, eventually
from tests.upload.tus import PIECE, Client

CLIENTS = 6
IN_FLIGHT = 20
CONTENT = random.Random(1).randbytes(100_000)


class Load:
    """Clients that upload without a pause, by PUT and by tus, and note what they are told."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.accepted: dict[str, bytes] = {}  # by the uploads' ids
        self.refused = 0
        self.surprises: list[object] = []
        self._ended = threading.Event()
        self._sessions = [app.log_in() for _ in range(CLIENTS)]

        self._threads = [threading.Thread(target=self._upload, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _upload(self, number: int) -> None:
        contents = random.Random(number)
        session = self._sessions[number]
        while not self._ended.is_set():
            content = contents.randbytes(20_000)
            try:
                if number % 2:
                    answer = self.app.put("a", content, session)
                else:
                    fields = {"Tus_Resumable": "1.0.0", "Upload_Length": str(len(content)), "Content_Type": PIECE}
                    answer = self.app.ask("POST", "/files/", content, session=session, **fields)
            except Exception as error:
                self.surprises.append(error)
                return
            if answer.status == 201:
                self.accepted[answer.headers["Location"].rpartition("/")[2]] = content
            elif answer.status == 503 and "does not answer" in answer.json["error"]:
                self.refused += 1
            else:
                self.surprises.append(answer)

    def goes_on(self) -> None:
        """Wait until more has been accepted."""
        count = len(self.accepted) + 3 * CLIENTS
        eventually(lambda: len(self.accepted) >= count or self.surprises)

    def is_refused(self) -> None:
        count = self.refused + 3 * CLIENTS
        eventually(lambda: self.refused >= count or self.surprises)


def test_redis_and_mysql_end_and_come_back_under_load(
    start: Start, own_redis: Callable[..., RedisServer], own_mariadb: Callable[..., MariaDBServer]
) -> None:
    redis, sql = own_redis("--appendonly", "yes", "--appendfsync", "always"), own_mariadb()
    sql.sql("CREATE DATABASE upload")
    app = start(ServersBackEnd(redis, sql, "upload"), "--workers", "2")
    with Load(app) as load:
        load.goes_on()
        for store, end in (redis, redis.stop), (sql, sql.stop), (redis, redis.kill), (sql, sql.kill):
            end()
            load.is_refused()
            assert app.ask("GET", "/health").status == 200
            store.start()
            load.goes_on()
    assert load.surprises == []
    assert app.stop() == 0
    app.start()  # which settles what became of those whose answer was lost with the store
    contents = {row["id"]: app.content(row) for row in app.rows}
    assert load.accepted.items() <= contents.items()
    assert {row["path"] for row in app.rows} == app.files
    assert all(len(app.content(row)) == row["size"] for row in app.rows)


# --- The end of the service ------------------------------------------------------------------------


class InFlight:
    """Uploads of which the first part has arrived, half of them by PUT, half by tus, in every one of four workers."""

    def __init__(self, app: App, stack: ExitStack) -> None:
        self.app = app
        self.client = Client(app)
        self.puts: list[Exchange] = []
        self.pieces: list[Exchange] = []
        self.urls: list[str] = []
        half = CONTENT[: len(CONTENT) // 2]
        while len(self.puts) + len(self.pieces) < IN_FLIGHT or self.workers < 4:
            self.puts.append(stack.enter_context(app.begin_put(self.client.session, len(CONTENT), half)))
            self.urls.append(url := self.client.create(len(CONTENT)))
            self.pieces.append(stack.enter_context(self.client.begin_patch(url, 0, len(CONTENT), half)))
            eventually(lambda: len(app.files) == len(self.puts))
        for url in self.urls:
            eventually(lambda: self.client.received(url) == len(half))  # noqa: B023

    @property
    def workers(self) -> int:
        return len({path.split("/")[1] for path in self.app.files})


def refuses(app: App) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(app.address) != 0


def test_four_workers_finish_what_is_in_flight_and_take_nothing_new(start: Start, back_end: BackEnd) -> None:
    app = start(back_end, "--workers", "4", "--grace", str(PATIENCE))
    with ExitStack() as stack:
        begun = InFlight(app, stack)
        app.terminate()
        eventually(lambda: refuses(app))
        for exchange in begun.puts:
            exchange.send(CONTENT[len(CONTENT) // 2 :])
            assert exchange.answer().status == 201
        for exchange in begun.pieces:
            exchange.send(CONTENT[len(CONTENT) // 2 :])
            assert exchange.answer().status == 204
        assert app.wait() == 0
    assert len(app.rows) == len(begun.puts) + len(begun.pieces) >= IN_FLIGHT
    assert {row["path"] for row in app.rows} == app.files
    assert {row["sha256"] for row in app.rows} == {hashlib.sha256(CONTENT).hexdigest()}
    assert all(app.content(row) == CONTENT for row in app.rows)
    assert list((app.directory / "runs").iterdir()) == []


def test_what_four_workers_cut_because_the_grace_was_too_short_can_be_resumed(start: Start, back_end: BackEnd) -> None:
    app = start(back_end, "--workers", "4", "--grace", "0.1")
    with ExitStack() as stack:
        begun = InFlight(app, stack)
        assert app.stop() == 0
    assert app.files == set()  # of a PUT, nothing is left
    assert app.rows == []
    assert list((app.directory / "runs").iterdir()) == []
    app.start()
    for url in begun.urls:
        assert begun.client.offset(url) == len(CONTENT) // 2
        assert begun.client.patch(url, len(CONTENT) // 2, CONTENT[len(CONTENT) // 2 :]).status == 204
    assert [row["sha256"] for row in app.rows] == [hashlib.sha256(CONTENT).hexdigest()] * len(begun.urls)
