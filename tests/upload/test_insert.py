"""What can happen to the INSERT of a row: it is lost, or late, or its answer is lost, or the app is killed around it.

Whatever it is, an upload has one row or none, and each row its whole file.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.services import RedisServer, SQLServer
from tests.upload.conftest import Start
from tests.upload.harness import PATIENCE, App, Exchange, ServersBackEnd, form
from tests.upload.proxy import Proxy
from tests.upload.tus import Client

CONTENT = bytes(range(256)) * 64
INSERT = b"files/"  # is in what is sent to the server


def assert_rows_and_files_agree(app: App) -> None:
    """Each row has its whole file, and there are no other files."""
    rows = app.rows
    assert {row["path"] for row in rows} == app.files
    assert all(app.content(row) == CONTENT for row in rows)


@pytest.fixture
def proxy(sql_server: SQLServer) -> Proxy:
    return Proxy(sql_server.port)


@pytest.fixture
def behind_proxy(redis_server: RedisServer, sql_server: SQLServer, sql_database: str, proxy: Proxy) -> ServersBackEnd:
    """Rows in a server behind the proxy, which can read what passes through it."""
    database = sql_database.rpartition("/")[2]
    url = f"mysql://root@127.0.0.1:{proxy.port}/{database}?tls=disabled&allow-public-key-retrieval=true"
    return ServersBackEnd(redis_server, sql_server, database, url)


# --- Ways in: each begins a request that ends with an INSERT of so many rows -----------------------------


def _put(client: Client) -> Exchange:
    return client.app.begin_put(client.session, len(CONTENT), CONTENT)


def _form(client: Client) -> Exchange:
    body, kind = form(("a", CONTENT), ("b", CONTENT))
    fields = f"Cookie: session={client.session}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"
    exchange = Exchange(client.app.address)
    exchange.send(f"POST /upload HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n".encode() + body)
    return exchange


def _tus(client: Client) -> Exchange:
    return client.begin_patch(client.create(len(CONTENT)), 0, len(CONTENT), CONTENT)


def _go_on(app: App, client: Client) -> None:
    """What a client of tus does when it got no answer."""
    [upload_id] = [path.name for path in (app.directory / "resumable").iterdir()]
    assert client.offset(f"/files/{upload_id}") == len(CONTENT)
    assert [row["id"] for row in app.rows] == [upload_id]


every_way = pytest.mark.parametrize(("begin", "rows"), [(_put, 1), (_form, 2), (_tus, 1)])
Begin = Callable[[Client], Exchange]


# --- The app lives -----------------------------------------------------------------------------------


@every_way
def test_the_answer_is_lost_the_upload_is_accepted_once(
    start: Start, behind_proxy: ServersBackEnd, proxy: Proxy, begin: Begin, rows: int
) -> None:
    app = start(behind_proxy)
    client = Client(app)
    proxy.cut_after(INSERT)
    with begin(client) as exchange:
        assert exchange.answer().status in (201, 204)
    assert proxy.cuts == 1
    assert len(app.rows) == rows
    assert_rows_and_files_agree(app)
    if begin is _tus:
        _go_on(app, client)


@every_way
def test_the_insert_is_lost_it_is_sent_again(
    start: Start, behind_proxy: ServersBackEnd, proxy: Proxy, begin: Begin, rows: int
) -> None:
    app = start(behind_proxy)
    proxy.cut_before(INSERT)
    with begin(Client(app)) as exchange:
        assert exchange.answer().status in (201, 204)
    assert proxy.cuts == 1
    assert len(app.rows) == rows
    assert_rows_and_files_agree(app)


@pytest.mark.parametrize("arrives", [True, False])
def test_when_nobody_can_tell_the_file_stays_until_the_next_start_decides(
    start: Start, behind_proxy: ServersBackEnd, proxy: Proxy, arrives: bool
) -> None:
    app = start(behind_proxy)
    session = app.log_in()
    (proxy.cut_after if arrives else proxy.cut_before)(b"files/", refuse=True)
    assert app.put("a", CONTENT, session).status == 503
    assert len(app.files) == 1
    assert len(app.rows) == int(arrives)
    assert app.stop() == 0
    proxy.refuse = False
    app.start()
    assert len(app.files) == int(arrives)
    assert_rows_and_files_agree(app)


@pytest.mark.parametrize("arrives", [True, False])
def test_a_deletion_of_which_nobody_can_tell_is_completed_or_undone_by_the_next_start(
    start: Start, behind_proxy: ServersBackEnd, proxy: Proxy, arrives: bool
) -> None:
    app = start(behind_proxy)
    session = app.log_in()
    upload = app.put("a", CONTENT, session).json
    assert app.stop() == 0  # the run that stored it has ended in order: nobody looks through its files any more
    app.start()
    proxy.cut_before(b"DELETE FROM uploads")
    assert app.ask("DELETE", upload["url"], session=session).status == 503
    assert proxy.cuts == 1
    if arrives:
        behind_proxy.sql.sql("DELETE FROM uploads", database=behind_proxy.database)
    assert app.stop() == 0
    app.start()
    assert len(app.files) == int(not arrives)
    assert_rows_and_files_agree(app)


# --- The app is killed ---------------------------------------------------------------------------------


@every_way
def test_the_app_is_killed_before_the_insert_arrives(
    start: Start, behind_proxy: ServersBackEnd, proxy: Proxy, begin: Begin, rows: int
) -> None:
    app = start(behind_proxy)
    client = Client(app)
    proxy.hold(INSERT)
    with begin(client):
        assert proxy.held.wait(PATIENCE)
        app.kill()
    app.start()
    assert app.rows == []
    assert_rows_and_files_agree(app)
    if begin is _tus:
        _go_on(app, client)
        assert_rows_and_files_agree(app)


@every_way
def test_the_app_is_killed_before_the_answer_arrives(
    start: Start, behind_proxy: ServersBackEnd, proxy: Proxy, begin: Begin, rows: int
) -> None:
    app = start(behind_proxy)
    client = Client(app)
    proxy.hold_answer(INSERT)
    with begin(client):
        assert proxy.held.wait(PATIENCE)
        app.kill()
    app.start()
    assert len(app.rows) == rows
    assert_rows_and_files_agree(app)
    if begin is _tus:
        _go_on(app, client)
        assert_rows_and_files_agree(app)


@pytest.mark.parametrize("goes_on", ["before", "after"])
@every_way
def test_the_insert_arrives_when_the_next_start_has_settled_the_crash(
    start: Start, behind_proxy: ServersBackEnd, proxy: Proxy, begin: Begin, rows: int, goes_on: str
) -> None:
    """The client of tus goes on before that, or after."""
    app = start(behind_proxy)
    client = Client(app)
    proxy.hold(INSERT)
    with begin(client):
        assert proxy.held.wait(PATIENCE)
        app.kill()
    app.start()
    assert app.files == set()
    if begin is _tus and goes_on == "before":
        _go_on(app, client)
    proxy.release()
    assert proxy.answered.wait(PATIENCE)
    assert_rows_and_files_agree(app)
    if begin is _tus:
        _go_on(app, client)
    app.kill()
    app.start()
    assert_rows_and_files_agree(app)
    assert len(app.rows) == int(begin is _tus)
