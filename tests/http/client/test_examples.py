"""The examples of docs/http-client.md, run as they stand there, against servers in memory."""

from __future__ import annotations

import contextlib
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coro.http
from coro import Coro
from tests.certificates import make_certificates
from tests.http.client.network import Network, Wire

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "http-client.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: "x"\r\nContent-Length: 9\r\n\r\n{"a": 12}'


def handler(wire: Wire) -> Coro[None]:
    while True:
        yield from wire.request()
        yield from wire.send(ANSWER)


def function_of(example: str, names: dict[str, Any]) -> Callable[[], Coro[None]]:
    """The example as a generator function; `client` is there, as in the text around it."""
    exec("def run(client):\n" + textwrap.indent(example, "    ") + "    client.close()\n", names)
    run = names["run"]
    return lambda: run(coro.http.Client())


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> Coro[None]:
    (tmp_path / "sun.jpg").write_bytes(b"\xff\xd8")
    make_certificates(tmp_path)
    monkeypatch.chdir(tmp_path)
    network.serve(handler)
    # What an example imports, the next ones use.
    names: dict[str, Any] = {name: getattr(coro.http, name) for name in coro.http.__all__}
    with contextlib.redirect_stdout(None):
        yield from function_of(EXAMPLES[number], names)()
    assert network.requests
    assert not any(network.open)
    if "disk.iso" in EXAMPLES[number]:
        assert (tmp_path / "disk.iso").read_bytes() == b'{"a": 12}'


def test_all_defaults_are_told_as_they_are() -> None:
    table = dict(re.findall(r"^\| (`[a-z][^|]+) \| ([^|]+) \|", PAGE, re.MULTILINE))
    limits = coro.http.ClientLimits()
    told = {}
    for names, values in table.items():
        for name, value in zip(re.findall(r"`(\w+)`", names), values.split(", "), strict=False):
            number, _, unit = value.partition(" ")
            told[name] = float(number) * (1024 if unit == "KiB" else 1)
    assert told == {name: float(getattr(limits, name)) for name in limits.__dataclass_fields__}
