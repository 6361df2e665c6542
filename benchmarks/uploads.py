"""The upload job: its servers, and how its results are checked.

`PUT /upload/NAME` with a session cookie: look the session up in Redis, stream the body to a new file, insert
the row into MariaDB and commit, answer 201. All servers do this with one process, without an access log, and with
the disk's durability left out: coro with the options `BARE`.
"""

from __future__ import annotations

import http.client
import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import golang
from benchmarks.processes import Failed, Peer, free_port, python, serving
from benchmarks.stores import DATABASE, Stores

BARE = ("--no-fsync", "--no-digest", "--access-log", "off")
CLIENTS = ("redis", "hiredis", "asyncmy")
CORO = Peer("coro", "coro")
RAW_ASGI = Peer("uvicorn, raw ASGI", "asgi", ("uvicorn", "uvloop", "httptools", *CLIENTS))
GO = Peer("Go net/http", "go", programs=("go",))
PEERS = [
    CORO,
    RAW_ASGI,
    Peer("aiohttp", "aiohttp", ("aiohttp", "uvloop", *CLIENTS)),
    Peer("FastAPI", "fastapi", ("fastapi", "uvicorn", "uvloop", "httptools", *CLIENTS)),
    Peer("gevent", "gevent", ("gevent", "redis", "hiredis", "pymysql")),
    GO,
]


@dataclass(frozen=True)
class Server:
    """A running server: its process and port, the directory it was given, and where in it the bodies go."""

    pid: int
    port: int
    directory: Path
    bodies: str = "."


@contextmanager
def server(
    peer: Peer,
    stores: Stores,
    options: Sequence[str] = BARE,
    tools: Sequence[str] = (),
) -> Iterator[Server]:
    """Run a peer with an empty database and directory. `options`: of the upload app; `tools`: of `coro run`."""
    peer.check()
    port = free_port()
    ports = [str(port), str(stores.redis_port), str(stores.mysql_port)]
    with stores.emptied(with_table=peer is not CORO) as directory:
        if peer is CORO:
            command = [sys.executable, "-m", "coro", "run", *tools, "apps.upload", "--port", str(port)]
            command += [
                "--dir",
                str(directory),
                "--redis",
                stores.redis_url,
                "--mysql",
                stores.mysql_url,
                *options,
            ]
        elif peer is GO:
            command = [golang.build("upload"), *ports, str(directory)]
        else:
            module = f"benchmarks.peers.upload_{peer.program}"
            if peer.program == "gevent":  # its patches must be there before anything is imported
                command = python("gevent.monkey", "--module", module, *ports, directory)
            else:
                command = python(module, *ports, directory)
        with serving(command, port, stores.scratch / f"{peer.program}.log", golang.ONE_CORE) as pid:
            yield Server(pid, port, directory, "files" if peer is CORO else ".")


# --- Checks ---------------------------------------------------------------------------


def body_of(token: str, size: int) -> bytes:
    """What load.lua sends with this session."""
    return (token * math.ceil(size / len(token))).encode()[:size]


def check_answers(running: Server, stores: Stores) -> None:
    """The server does the job at all: 401 without a session, 201 and the row and file with one."""
    token = stores.tokens[7]
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    statuses = []
    for cookie, size in ("session=nobody", 1), (f"a=b; session={token}", 1), (f"session={token}", 100_000):
        connection.request("PUT", "/upload/checked.bin", body_of(token, size), {"Cookie": cookie})
        answer = connection.getresponse()
        said = answer.read()
        statuses.append(answer.status)
        if answer.status == 201 and json.loads(said)["size"] != size:
            raise Failed(f"answers {said[:200]!r} to an upload of {size} bytes")
        if answer.getheader("Connection") == "close":
            connection.close()
    connection.close()
    if statuses != [401, 201, 201]:
        raise Failed(f"answers {statuses} where 401, 201, 201 are due")
    for size in 1, 100_000:
        if verify(running, stores, size, f"size = {size}") != 1:
            raise Failed(f"an upload of {size} bytes did not get its one row")


def verify(running: Server, stores: Stores, size: int, where: str = "TRUE") -> int:
    """Every row has its file with the right bytes, and (without `where`) every file its row; how many."""
    rows = stores.sql(f"SELECT user_id, path, size FROM {DATABASE}.uploads WHERE {where}")
    expected = {user: body_of(token, size) for user, token in stores.tokens.items()}
    known = set()
    for user, path, stored in rows:
        file = (running.directory / path).resolve()
        known.add(file)
        if stored != size or file.read_bytes() != expected[user]:
            raise Failed(f"{file} or its row is not what user {user} uploaded")
    if where == "TRUE":
        strays = stored_files(running) - known
        if strays:
            raise Failed(f"{len(strays)} files without a row")
    return len(rows)


def stored_files(running: Server) -> set[Path]:
    """All files with something in them."""
    bodies = (running.directory / running.bodies).rglob("*")
    return {file.resolve() for file in bodies if file.is_file() and file.stat().st_size}


def clear(running: Server, stores: Stores) -> None:
    """Remove all uploads so far, rows and files."""
    for (path,) in stores.sql(f"SELECT path FROM {DATABASE}.uploads"):
        (running.directory / path).unlink()
    stores.sql(f"DELETE FROM {DATABASE}.uploads")
