"""What those who run the app look at: readiness, metrics, logs, the comparison of disk and table."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.services import CHECKOUT, RedisServer
from tests.upload.conftest import Start
from tests.upload.harness import App, BackEnd, SQLiteBackEnd, eventually, run_app

CONTENT = bytes(range(256)) * 64


# --- Readiness and metrics --------------------------------------------------------------------


def test_ready_while_the_stores_answer(app: App) -> None:
    assert app.ask("GET", "/ready").json == {"status": "ready"}


def test_not_ready_but_live_without_a_store(start: Start, own_redis: Callable[..., RedisServer]) -> None:
    redis = own_redis()
    app = start(SQLiteBackEnd(), "--redis", redis.url())
    assert app.ask("GET", "/ready").status == 200
    redis.stop()
    answer = app.ask("GET", "/ready")
    assert (answer.status, answer.json["error"]) == (503, "Redis does not answer; try again later")
    assert app.ask("GET", "/health").status == 200


def test_not_ready_without_the_directory(start: Start) -> None:
    app = start(SQLiteBackEnd())
    os.rename(app.directory / "files", app.directory / "elsewhere")
    assert app.ask("GET", "/ready").status == 503


def test_metrics_count_answers(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--proxies", "127.0.0.1")
    assert app.put("a", CONTENT, app.log_in()).status == 201
    assert app.put("a", CONTENT, "nobodys").status == 401
    lines = app.ask("GET", "/metrics").body.decode().splitlines()
    for status in (201, 401):
        assert f'http_requests_total{{method="PUT",status="{status}"}} 1' in lines


def test_metrics_are_for_this_machine_and_for_users(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--proxies", "127.0.0.1")
    assert app.ask("GET", "/metrics", X_Forwarded_For="192.0.2.1").status == 401
    assert app.ask("GET", "/metrics", X_Forwarded_For="192.0.2.1", session=app.log_in()).status == 200


# --- Logs -----------------------------------------------------------------------------------------


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_log_has_request_ids_and_tells_of_clients_that_went(start: Start, directory: Path) -> None:
    log = directory / "access.log"
    app = start(SQLiteBackEnd(), "--access-log", str(log), "--log-format", "json")
    session = app.log_in()
    own = app.ask("GET", "/uploads?x=1", session=session, X_Request_Id="from.the-proxy", User_Agent="tester")
    made = app.ask("GET", "/uploads", X_Request_Id="two words")
    assert own.headers["X-Request-Id"] == "from.the-proxy"
    assert re.fullmatch("[0-9a-f]{16}", made.headers["X-Request-Id"])
    with app.begin_put(session, len(CONTENT), CONTENT[:5000]):
        eventually(lambda: app.files)
    eventually(lambda: not app.files)
    assert app.stop() == 0
    first, second, third = [line for line in _lines(log) if line["target"] != "/health"]
    assert (first["request_id"], first["status"], first["agent"]) == ("from.the-proxy", 200, "tester")
    assert (first["method"], first["target"], first["client"]) == ("GET", "/uploads?x=1", "127.0.0.1")
    assert (first["sent"], first["aborted"]) == (len(own.body), False)
    assert (second["request_id"], second["status"]) == (made.headers["X-Request-Id"], 401)
    assert (third["method"], third["status"], third["aborted"], third["length"]) == ("PUT", 499, True, len(CONTENT))


def test_json_messages_have_the_id_of_their_request(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--log-format", "json")
    session = app.log_in()
    upload = app.put("a", CONTENT, session).json
    (app.directory / app.rows[0]["path"]).unlink()
    assert app.ask("GET", upload["url"], session=session, X_Request_Id="the-one").status == 404
    line = json.loads(app.errors.splitlines()[-1])
    assert (line["level"], line["logger"], line["request_id"]) == ("error", "upload", "the-one")
    assert upload["id"] in line["message"]


# --- Disk and table ---------------------------------------------------------------------------------


def _fsck(app: App, *options: str) -> subprocess.CompletedProcess[str]:
    return run_app("--dir", str(app.directory), *app.back_end.options, "fsck", *options)


def test_fsck_finds_and_mends_what_differs(start: Start, back_end: BackEnd) -> None:
    app = start(back_end)
    session = app.log_in()
    names = ("good", "missing", "short", "damaged")
    uploads = {name: app.put(name, CONTENT, session).json for name in names}
    app.stop()
    paths = {row["name"]: app.directory / row["path"] for row in app.rows}
    paths["missing"].unlink()
    paths["short"].write_bytes(CONTENT[:10])
    paths["damaged"].write_bytes(CONTENT[::-1])
    (paths["good"].parent / "nobodys").write_bytes(b"?")
    done = _fsck(app)
    assert done.returncode == 1
    assert done.stderr == (
        "coro: 4 uploads: 2 lost, 0 damaged, 1 files without a row; --mend removes the rows, and puts the files aside\n"
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert uploads["missing"]["id"] in lines[0] and lines[0].endswith("is missing")
    assert uploads["short"]["id"] in lines[1] and lines[1].endswith("has 10 bytes")
    assert lines[2].endswith("/nobodys belongs to no upload")
    assert len(app.rows) == 4
    assert "2 lost, 1 damaged, 1 files" in _fsck(app, "--digests").stderr
    mended = _fsck(app, "--mend")
    assert (mended.returncode, mended.stderr) == (0, "")
    assert {row["name"] for row in app.rows} == {"good", "damaged"}
    aside = sorted(path.read_bytes() for path in (app.directory / "stray").iterdir())
    assert aside == sorted([CONTENT[:10], b"?"])
    again = _fsck(app)
    assert (again.returncode, again.stdout) == (0, "2 uploads: 0 lost, 0 damaged, 0 files without a row\n")


def test_fsck_leaves_alone_what_a_living_app_is_at(start: Start, back_end: BackEnd) -> None:
    app = start(back_end)
    session = app.log_in()
    assert app.put("a", CONTENT, session).status == 201
    with app.begin_put(session, len(CONTENT), CONTENT[:5000]) as exchange:
        eventually(lambda: len(app.files) == 2)
        assert _fsck(app, "--mend", "--digests").returncode == 0
        exchange.send(CONTENT[5000:])
        assert exchange.answer().status == 201


# --- How it is deployed --------------------------------------------------------------------------------


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    unit = tmp_path / "upload.service"
    text = (CHECKOUT / "deploy" / "upload.service").read_text()
    unit.write_text(text.replace("/opt/coro/bin/coro", "/bin/true"))  # it wants a program that is there
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_options_of_the_deployment_are_options(directory: Path) -> None:
    config = CHECKOUT / "deploy" / "upload.toml"
    done = run_app("--dir", str(directory), "--config", str(config), "--redis", "redis://127.0.0.1:1")
    assert (done.returncode, "127.0.0.1:1" in done.stderr) == (1, True)


def test_the_compose_file_names_what_is_there() -> None:
    services = yaml.safe_load((CHECKOUT / "deploy" / "compose.yaml").read_text())["services"]
    assert set(services) == {"upload", "redis", "mysql"}
    assert set(services["upload"]["depends_on"]) == {"redis", "mysql"}
    build = services["upload"]["build"]
    assert (CHECKOUT / "deploy" / build["context"] / build["dockerfile"]).exists()
