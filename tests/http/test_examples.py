"""The program that the examples of docs/http-server.md make together, as they stand there."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coro
from coro import Coro, TaskGroup
from coro.http import BytesPart, Client, MultipartBody

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "http-server.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def ask_for_everything(client: Client, url: str) -> Coro[None]:
    item = yield from client.get(f"{url}/items/a%20b?color=red")
    assert item.json() == {"item": "a b", "color": "red"}
    assert item.headers["content-security-policy"] == "default-src 'self'"
    assert (yield from client.post(f"{url}/items", json={"name": "Sun"})).headers["location"] == "/items/1"
    assert (yield from client.post(f"{url}/items", json=[])).json() == {"error": "an item needs a name"}
    login = yield from client.post(f"{url}/session", form={"password": "secret"})
    assert login.set_cookies[0].startswith("session=")
    assert (yield from client.post(f"{url}/session", form={"password": "guessed"})).status == 403
    files = MultipartBody({"title": "Sun", "photo": BytesPart(b"abc", filename="sun.jpg")})
    assert (yield from client.post(f"{url}/files", body=files)).json() == {"title": 3, "sun.jpg": 3}
    assert len((yield from client.get(f"{url}/numbers")).text.split()) == 1000
    report = yield from client.get(f"{url}/report", headers={"Range": "bytes=1-3"})
    assert (report.status, report.body, report.headers["content-type"]) == (206, b"PDF", "application/pdf")
    assert 'http_requests_total{method="GET",status="206"} 1' in (yield from client.get(f"{url}/metrics")).text


def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.7")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for example in EXAMPLES:
        exec(example, names)
    serve: Callable[[coro.Listener], Coro[None]] = names["serve"]

    def body(group: TaskGroup) -> Coro[None]:
        listener = coro.listen("127.0.0.1", 0)
        group.spawn(serve(listener))
        with Client() as client:
            yield from ask_for_everything(client, f"http://127.0.0.1:{listener.port}")
        os.kill(os.getpid(), signal.SIGTERM)  # on which `serve` returns, and so the group ends

    coro.run(coro.task_group(body))
    assert capsys.readouterr().out.count('"GET /items/a%20b?color=red HTTP/1.1" 200') == 1
