"""Real Redis, MariaDB and MySQL servers, started by whoever needs one and gone afterwards.

Each server lives in a private directory (in memory where the machine has /dev/shm), listens on a loopback
port of its own and on a Unix socket, speaks TLS with a throwaway certificate, and is ended by its process id.
It answers when `start` returns. `close` ends it and removes its files; should this process be killed before
that, a watchdog does it.

    with RedisServer() as redis, MariaDBServer() as maria:
        ... redis.url(), maria.url(), maria.sql("SELECT 1") ...
"""

from __future__ import annotations

import abc
import atexit
import functools
import itertools
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pymysql
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.certificates import Certificates, make_certificates

CHECKOUT = Path(__file__).resolve().parent.parent
PATIENCE = 100.0  # seconds for a start or an end on a loaded machine; a server that died is noticed at once
PORT_ATTEMPTS = 20
ROOM_IN_MEMORY = 1 << 30  # bytes that /dev/shm must have free: in a container it may have 64 MiB in all


class MissingServer(Exception):
    """The program is not on this machine; the message says in one line what to do."""


class FailedServer(Exception):
    """The server did not come up or did not end; the message holds the end of its log."""


class Scratch:
    """The directory of everything this process starts, and the watchdog that outlives it.

    The watchdog is a shell that waits for the end of a pipe which only this process holds open: when this
    process ends, however it ends, every process whose number still stands in a `*.pid` file is killed and the
    directory removed. It and the servers are sessions of their own, so that Ctrl-C at the terminal reaches
    the test run only.
    """

    WATCHDOG = """
        read -r _
        for file in "$1"/*.pid; do [ -e "$file" ] && kill -KILL "$(cat "$file")"; done
        rm -rf -- "$1"
    """

    def __init__(self) -> None:
        memory = "/dev/shm" if _free_bytes("/dev/shm") >= ROOM_IN_MEMORY else None
        self.path = Path(tempfile.mkdtemp(prefix="coro-", dir=memory))
        self._owner = os.getpid()
        self.watchdog = subprocess.Popen(
            ["/bin/sh", "-c", self.WATCHDOG, "sh", str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._numbers = itertools.count(1)
        atexit.register(self.close)

    def directory(self, name: str) -> Path:
        """A new empty directory."""
        path = self.path / f"{name}-{next(self._numbers)}"
        path.mkdir()
        return path

    @functools.cached_property
    def certificates(self) -> Certificates:
        """The certificate for localhost which every server here shows, and the authority that signed it."""
        return make_certificates(self.directory("certificates"))

    def close(self) -> None:
        """Ends what is still running and removes the directory. Not in forked children: it is not theirs."""
        if os.getpid() == self._owner:
            self.watchdog.communicate(b"\n")


@functools.cache
def scratch() -> Scratch:
    """The scratch directory of this process, made at the first call."""
    return Scratch()


def _free_bytes(directory: str) -> int:
    try:
        room = os.statvfs(directory)
    except OSError:
        return 0
    return room.f_bavail * room.f_frsize if os.access(directory, os.W_OK) else 0


def program(name: str) -> str:
    """The path of an installed program; Debian keeps servers where a user's PATH does not look."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        raise MissingServer(f"{name} is not installed: apt-get install redis-server mariadb-server nginx")
    return found


PORTS = range(10_000, 32_000)  # below the range out of which connections get theirs
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_given: set[int] = set()


def _pick_port() -> int:
    """A loopback port that is free, and that no server of this test run gets but the one which this is picked for.

    So nothing takes the port by chance while its server is down for a restart. Two test runs may still pick
    the same one at once: then the later server fails to bind, and `Server.start` picks again.
    """
    numbers = random.SystemRandom()  # the global generator is seeded alike in all workers by hypothesis
    while True:
        port = numbers.choice(PORTS[WORKER::WORKERS])
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


@functools.cache
def _held_port(number: int) -> socket.socket:
    holder = socket.socket()
    holder.bind(("", 0))
    return holder


def dead_port(number: int = 0) -> int:
    """A port at which nobody listens; nobody else can, as this process holds it. Another one for another number."""
    port: int = _held_port(number).getsockname()[1]
    return port


class Server(abc.ABC):
    """One server process. A subclass says how it is started and how one sees that it answers."""

    name: str
    host = "localhost"  # the name in the certificate; servers listen on 127.0.0.1

    def __init__(self, *options: str) -> None:
        """Prepares a server that is started with the given command-line options besides those it needs."""
        self.options = options
        self.directory = scratch().directory(self.name)
        self.socket = str(self.directory / "socket")
        self.log = self.directory / "log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @abc.abstractmethod
    def _command(self) -> Sequence[str]:
        """The command line that serves `self.port` and `self.socket`."""

    @abc.abstractmethod
    def _is_ready(self) -> bool:
        """Whether the server, which accepts connections on its Unix socket, is ready to work."""

    def _pick_ports(self) -> None:
        self.port = _pick_port()

    @property
    def certificates(self) -> Certificates:
        return scratch().certificates

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise FailedServer(f"{self.name} is not running")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Starts the server on a free port; after a `stop` or `kill` on the same one, with the same files."""
        if self._process is not None:
            raise FailedServer(f"{self.name} runs already, on port {self.port}")
        attempts = 1 if self.port else PORT_ATTEMPTS
        for attempt in range(1, attempts + 1):
            if attempts > 1:
                self._pick_ports()
            try:
                return self._launch()
            except FailedServer as failure:
                if "Address already in use" not in str(failure) or attempt == attempts:
                    raise

    def stop(self) -> None:
        """Asks the server to end (SIGTERM) and waits until it has."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the server as a crash would (SIGKILL); what it had not written is lost."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """`stop`, then `start`."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Ends the server, running or not, and removes its files."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _pid_file(self) -> Path:
        return scratch().path / f"{self.directory.name}.pid"

    def _launch(self) -> None:
        for left_by_a_crash in self.directory.glob("socket*"):
            left_by_a_crash.unlink()
        # The shell notes its number for the watchdog, then becomes the server: none is ever unnoted.
        note = ["/bin/sh", "-c", 'echo $$ >"$0"; exec "$@"', str(self._pid_file)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*note, *self._command()],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not (self._accepts() and self._is_ready()):
            if self._process.poll() is not None:
                problem = f"ended with code {self._process.returncode} at its start"
            elif time.monotonic() > deadline:
                problem = f"did not answer within {PATIENCE:.0f} s"
            else:
                time.sleep(0.01)
                continue
            self.kill()
            raise self._failed(problem)

    def _accepts(self) -> bool:
        """Whether the Unix socket can be connected to. (On the port, somebody else's server might answer.)"""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.socket) == 0

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            raise FailedServer(f"{self.name} is not running")
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise self._failed(f"did not end at {number.name}") from None
        finally:
            self._pid_file.unlink(missing_ok=True)

    def _failed(self, problem: str) -> FailedServer:
        log = self.log.read_text(errors="replace")[-2000:]
        return FailedServer(f"{self.name} on port {self.port} {problem}; its log ends:\n{log}")


class RedisServer(Server):
    """A Redis without persistence (unless the options ask for it) and, given `password`, with a login."""

    name = "redis-server"
    spoken: dict[str, Any] = {}  # what redis-py has to know besides

    def __init__(self, *options: str, password: str = "") -> None:
        super().__init__(*options)
        self.password = password
        self.tls_port = 0

    def _pick_ports(self) -> None:
        self.port, self.tls_port = _pick_port(), _pick_port()

    def _command(self) -> Sequence[str]:
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "unixsocket": self.socket,
            "tls-port": self.tls_port,
            "tls-ca-cert-file": self.certificates.authority,
            "tls-cert-file": self.certificates.certificate,
            "tls-key-file": self.certificates.key,
            "tls-auth-clients": "no",
            "dir": self.directory,
            "save": "",
            "requirepass": self.password,
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        return [program("redis-server"), *words, *self.options]

    def _is_ready(self) -> bool:
        try:
            return self.command("PING") is not None
        except redis.ConnectionError:  # it reads its file, or has ended meanwhile
            return False

    def command(self, *words: str | bytes | int) -> Any:
        """Sends one command over the Unix socket, as the default user and by another client than ours.

        Returns the reply as redis-py gives it.
        """
        with self._client(unix_socket_path=self.socket) as client:
            return client.execute_command(*words)

    def clear(self) -> None:
        """Ends the connections of all clients, deletes every key, script and function, sets the counters to 0.

        A client that closed its connection may still be served for a while: a command of it carried out, a message or
        an element given to it. This one comes by TCP, after all that have connected so: none of them comes later.
        """
        with self._client(port=self.port) as client:
            for kind in "normal", "pubsub":
                client.execute_command("CLIENT", "KILL", "TYPE", kind)
            if client.execute_command("ROLE")[0] == b"master":
                client.execute_command("FLUSHALL")
                client.execute_command("FUNCTION", "FLUSH")
            client.execute_command("SCRIPT", "FLUSH")
            client.execute_command("CONFIG", "RESETSTAT")

    def _client(self, **place: Any) -> redis.Redis:
        once = Retry(NoBackoff(), 0)
        return redis.Redis(**place, **self.spoken, password=self.password or None, retry=once)

    def url(self, database: int = 0, *, user: str = "", password: str = "", tls: bool = False) -> str:
        """`redis://` or, with `tls`, `rediss://` on the TLS port; as the default user if none is named."""
        login = _login(user, password) if user else _login("", self.password)
        scheme, port = ("rediss", self.tls_port) if tls else ("redis", self.port)
        return f"{scheme}://{login}{self.host}:{port}/{database}"


class SQLServer(Server):
    """What MariaDB and MySQL have in common. User `root` has an empty password, from everywhere.

    TLS is spoken on the same port with the certificate for localhost; packets may have 64 MiB.
    """

    def _settings(self) -> Sequence[str]:
        return [
            *self._data(),
            f"--tmpdir={self.directory}",
            f"--pid-file={self.directory}/pid",
            f"--socket={self.socket}",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            "--skip-name-resolve",
            f"--ssl-ca={self.certificates.authority}",
            f"--ssl-cert={self.certificates.certificate}",
            f"--ssl-key={self.certificates.key}",
            "--skip-log-bin",
            "--max-connections=500",
            "--max-allowed-packet=64M",
            "--innodb-buffer-pool-size=32M",
            "--performance-schema=OFF",
        ]

    def _data(self) -> Sequence[str]:
        """Where the data are, and that it is meant if the server is to run as root."""
        as_root = ["--user=root"] if os.geteuid() == 0 else []
        return [f"--datadir={self.directory}/data", *as_root]

    @abc.abstractmethod
    def _initialize(self) -> Sequence[str]:
        """The command line that makes a new data directory."""

    def start(self) -> None:
        new = not (self.directory / "data").exists()
        if new:
            made = subprocess.run(
                self._initialize(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            if made.returncode:
                said = made.stdout[-2000:].decode(errors="replace")
                raise FailedServer(f"{self.name} could not make its data directory:\n{said}")
        super().start()
        if new:
            self.sql("CREATE USER IF NOT EXISTS root@'%'")
            self.sql("GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION")

    def _is_ready(self) -> bool:
        try:
            return self.sql("SELECT 1") == [(1,)]
        except pymysql.OperationalError:
            return False

    def sql(self, statement: str, *parameters: object, database: str | None = None) -> list[tuple[Any, ...]]:
        """Runs one statement as root over the Unix socket, by another client than ours.

        Returns all rows; what it changed is committed. `%s` in it stands for a parameter, when there are any.
        """
        connection = pymysql.connect(
            unix_socket=self.socket, user="root", database=database, autocommit=True, ssl_disabled=True
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return list(cursor.fetchall())

    def url(self, database: str = "", *, user: str = "root", password: str = "") -> str:
        """`mysql://` with the given login."""
        return f"mysql://{_login(user, password)}{self.host}:{self.port}/{database}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """The name of a new empty database, dropped at the end of the block."""
        name = f"test_{secrets.token_hex(8)}"
        self.sql(f"CREATE DATABASE {name}")
        try:
            yield name
        finally:
            self.sql(f"DROP DATABASE IF EXISTS {name}")


class MariaDBServer(SQLServer):
    """Debian's MariaDB, with the ed25519 login plugin loaded."""

    name = "mariadbd"

    def _initialize(self) -> Sequence[str]:
        return [
            program("mariadb-install-db"),
            "--no-defaults",
            *self._data(),
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            f"--tmpdir={self.directory}",  # several of them at once get into each other's way in /tmp
        ]

    def _command(self) -> Sequence[str]:
        ed25519 = "--plugin-load-add=auth_ed25519"
        return [program("mariadbd"), "--no-defaults", *self._settings(), ed25519, *self.options]


class MySQL9Server(SQLServer):
    """MySQL 9, from where `make mysql9` put it, with the login plugin for Unix sockets loaded."""

    name = "mysqld"

    def _initialize(self) -> Sequence[str]:
        return [_downloaded("mysql9"), "--initialize-insecure", *self._data()]

    def _command(self) -> Sequence[str]:
        settings = [*self._settings(), "--mysqlx=OFF", "--secure-file-priv=NULL"]
        return [_downloaded("mysql9"), *settings, "--plugin-load-add=auth_socket=auth_socket.so", *self.options]


class MariaDB11Server(SQLServer):
    """MariaDB 11, from where `make mariadb11` put it, with its newer login plugins loaded."""

    name = "mariadb11"

    def _initialize(self) -> Sequence[str]:
        server = _downloaded("mariadb11")
        bootstrap = 'mkdir data && exec "$0" --bootstrap "$@" <"$(dirname "$0")/bootstrap.sql"'
        return ["/bin/sh", "-c", bootstrap, server, *self._data()]

    def _command(self) -> Sequence[str]:
        plugins = [f"--plugin-load-add={name}" for name in ("auth_ed25519", "auth_parsec", "auth_mysql_sha2")]
        return [_downloaded("mariadb11"), *self._settings(), *plugins, *self.options]


def _downloaded(name: str) -> str:
    """The launcher of a server that comes from outside Debian's stable release."""
    launcher = CHECKOUT / ".cache" / name / "server"
    if not launcher.exists():
        raise MissingServer(f"{name} is not there: run `make {name}`")
    return str(launcher)


def _login(user: str, password: str) -> str:
    """The part of a URL before the host."""
    secret = f":{quote(password, safe='')}" if password else ""
    return f"{quote(user, safe='')}{secret}@" if user or secret else ""
