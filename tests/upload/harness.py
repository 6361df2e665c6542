"""The app as its users meet it: a process started by `coro run`, spoken to over loopback; and what it stores behind it.

Sessions and rows are made and read here by other clients than ours, in the formats that others rely on.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, Self
from urllib.parse import urlsplit

from tests.services import CHECKOUT, RedisServer, SQLServer

PATIENCE = 100.0  # seconds for what takes an instant on a machine that is not loaded
COLUMNS = ("id", "user_id", "name", "path", "size", "sha256")


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class BackEnd(Protocol):
    """Where an app keeps sessions, users and rows."""

    options: Sequence[str]

    def new_session(self, app: App, user_id: int) -> str: ...
    def ask(self, app: App, sql: str) -> list[tuple[Any, ...]]: ...


class SQLiteBackEnd:
    options: Sequence[str] = ()

    def new_session(self, app: App, user_id: int) -> str:
        token = secrets.token_urlsafe()
        with self._open(app) as database:
            database.execute("INSERT INTO sessions VALUES (?, ?, ?)", (token, user_id, time.time() + 3600))
            database.commit()
        return token

    def ask(self, app: App, sql: str) -> list[tuple[Any, ...]]:
        with self._open(app) as database:
            found = database.execute(sql).fetchall()
            database.commit()
        return found

    def _open(self, app: App) -> closing[sqlite3.Connection]:
        return closing(sqlite3.connect(app.directory / "upload.sqlite3", timeout=PATIENCE))


class ServersBackEnd:
    def __init__(self, redis: RedisServer, sql: SQLServer, database: str, mysql_url: str | None = None) -> None:
        self.redis = redis
        self.sql = sql
        self.database = database
        self.options: Sequence[str] = ("--redis", redis.url(), "--mysql", mysql_url or sql.url(database))

    def new_session(self, app: App, user_id: int) -> str:
        token = secrets.token_urlsafe()
        self.redis.command("SET", f"session:{token}", str(user_id), "EX", 3600)
        return token

    def ask(self, app: App, sql: str) -> list[tuple[Any, ...]]:
        return self.sql.sql(sql, database=self.database)


class Process(Protocol):
    """What is used of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    @property
    def stdout(self) -> IO[str] | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class App:
    """A running `coro run apps.upload` on any free port."""

    def __init__(self, directory: Path, back_end: BackEnd, *options: str, prefix: Sequence[str] = ()) -> None:
        """`prefix` is put before the command."""
        self.directory = directory
        self.back_end = back_end
        self.options = options
        self.prefix = prefix
        self.lines: list[str] = []  # what it printed up to where to click
        self.start()

    @property
    def command(self) -> list[str]:
        return [*self.prefix, *app_command("--dir", str(self.directory), *self.back_end.options, *self.options)]

    def start(self) -> None:
        """Start it, or start it again after it has ended. Returns when it serves."""
        self.process = self.launch()
        assert self.process.stdout is not None
        self.lines = []
        while not any("http://" in line for line in self.lines):
            line = self.process.stdout.readline()
            if not line:
                self.process.wait(PATIENCE)
                raise AssertionError(f"the app did not start:\n{self.errors}")
            self.lines.append(line)
        url = next(word for line in self.lines for word in line.split() if word.startswith("http://"))
        self.address = ("127.0.0.1", urlsplit(url).port or 0)
        assert self.ask("GET", "/health").status == 200

    def launch(self) -> Process:
        with open(self.log, "ab") as log:
            return subprocess.Popen(self.command, env=environment(), stdout=subprocess.PIPE, stderr=log, text=True)

    @property
    def log(self) -> str:
        return f"{self.directory}.log"

    @property
    def errors(self) -> str:
        """What it has said on stderr, over all its starts."""
        return Path(self.log).read_text()

    def kill(self) -> None:
        """End it as a crash would, with all its workers."""
        workers = children(self.process.pid)
        self.process.kill()
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait()

    def terminate(self) -> None:
        """Ask it to end; return at once."""
        self.process.terminate()

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        self.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended; its exit code."""
        code = self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def close(self) -> None:
        print(self.errors)  # shown when the test has failed
        if self.process.poll() is None:
            self.kill()
        elif self.process.stdout is not None:
            self.process.stdout.close()

    # --- Speaking to it --------------------------------------------------------------

    def log_in(self, user_id: int | None = None) -> str:
        """A session of that user, or of one who has none yet; its token."""
        return self.back_end.new_session(self, user_id or secrets.randbelow(1 << 40) + 1)

    def ask(
        self, method: str, path: str, body: Any = None, *, session: str | None = None, **fields: str
    ) -> Answer:
        """One request on a connection of its own. `fields` are header fields, with _ for -."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        if session is not None:
            headers["Cookie"] = f"session={session}"
        with closing(http.client.HTTPConnection(*self.address, timeout=PATIENCE)) as connection:
            connection.connect()
            with suppress(BrokenPipeError, ConnectionResetError):  # it need not wait for a body that it refuses
                connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def post(self, path: str, session: str | None = None, /, **fields: str) -> Answer:
        """Send a JSON object."""
        return self.ask("POST", path, json.dumps(fields), session=session, Content_Type="application/json")

    def invitation(self) -> str:
        """The token of the link that the first start has printed, next to what was read from it so far."""
        assert self.process.stdout is not None
        found = re.search(r"#invitation=(\S+)", self.process.stdout.readline())
        assert found is not None
        return found[1]

    def put(self, name: str, body: Any, session: str) -> Answer:
        return self.ask("PUT", f"/upload/{name}", body, session=session)

    def begin_put(self, session: str, size: int, body: bytes = b"", *fields: str) -> Exchange:
        """Send the head of a PUT of `size` bytes, and the first of them."""
        head = [f"PUT /upload/slow HTTP/1.1\r\nHost: test\r\nCookie: session={session}", f"Content-Length: {size}"]
        exchange = Exchange(self.address)
        try:
            exchange.send("\r\n".join([*head, *fields, "", ""]).encode() + body)
        except BaseException:
            exchange.close()
            raise
        return exchange

    # --- Looking behind it ------------------------------------------------------------

    @property
    def rows(self) -> list[dict[str, Any]]:
        found = self.back_end.ask(self, f"SELECT {', '.join(COLUMNS)} FROM uploads WHERE user_id > 0")
        return [dict(zip(COLUMNS, row, strict=True)) for row in found]

    @property
    def files(self) -> set[str]:
        """Every file of an upload, whole or in part, relative to its directory."""
        return below(self.seen_directory, "files")

    @property
    def seen_directory(self) -> Path:
        """Its directory, where it has mounted another disk there too."""
        root = Path(f"/proc/{self.process.pid}/root") if self.process.poll() is None else Path("/")
        return root / self.directory.relative_to("/")

    def content(self, row: Mapping[str, Any]) -> bytes:
        return (self.directory / str(row["path"])).read_bytes()


class Exchange:
    """A request sent in pieces, and its answer. As a context, it is closed at the end."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=PATIENCE)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> Answer:
        with self, closing(http.client.HTTPResponse(self.socket)) as response:
            response.begin()
            return Answer(response.status, response.headers, response.read())

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def app_command(*options: str) -> list[str]:
    return [sys.executable, "-m", "coro", "run", "apps.upload", "--port", "0", "--access-log", "off", *options]


def environment(**variables: str) -> dict[str, str]:
    """Warnings are errors in the app's processes too."""
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONWARNINGS": "error", **variables}


def run_app(*options: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the app to its end."""
    return subprocess.run(
        app_command(*options), env=environment(**variables), input=stdin, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip


def eventually(condition: Callable[[], object]) -> None:
    """Wait until it holds. For what happens soon after something else, in another process."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def below(root: Path, name: str) -> set[str]:
    """The paths `name/*/*` in a directory in which others work: what is removed meanwhile is not there."""
    found = set()
    with suppress(FileNotFoundError):
        for directory in os.listdir(root / name):
            with suppress(FileNotFoundError):
                found |= {f"{name}/{directory}/{file}" for file in os.listdir(root / name / directory)}
    return found


def has_ended(pid: int) -> bool:
    """Also when nobody has asked how."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def memory(pid: int, field: str) -> int:
    """A field of /proc/PID/status in bytes: VmRSS (now), VmHWM (at most so far)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {field} for process {pid}")


def session_of(answer: Answer) -> str:
    """The session that a login has given."""
    assert answer.status == 200, answer
    return answer.headers["Set-Cookie"].partition(";")[0].removeprefix("session=")


def form(*files: tuple[str, bytes]) -> tuple[bytes, str]:
    """The body and Content-Type of a multipart/form-data request with these files (RFC 7578)."""
    parts = [
        f'--limit\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + b"--limit--\r\n", "multipart/form-data; boundary=limit"
