"""The servers of a URL: which one to connect to, and what to do when it cannot be had.

They are tried in the order of the URL, so that all clients agree on the one that is used while all is well (in a
Galera cluster, writers on several nodes get into each other's way). One that failed is tried after the others for
`AVOIDED_FOR` seconds. What another server would refuse as well, a wrong password say, is an error at once.

With several servers, each new session is asked whether it can work: a Galera node that is up but not Synced lets one
in and then refuses every statement (1047), and is passed over like one that is down.
"""

from __future__ import annotations

from typing import Final

from coro.mysql import constants as c
from coro.mysql.connection import Connection
from coro.mysql.errors import DatabaseError, OperationalError
from coro.mysql.login import connect_to, tls_context
from coro.mysql.url import Target, parse_servers
from coro.task import Coro
from coro.timing import move_on_after, now

AVOIDED_FOR: Final = 30.0  # seconds
CONNECT_TIMEOUT: Final = 10.0  # seconds for one server: TCP, TLS and login together

# This server cannot be had at the moment, and another one perhaps can: not reached, lost, TLS, out of protocol;
# 1040 and 1203 too many connections, 1041 out of memory, 1047 WSREP not ready, 1053 shutting down, 1129 host blocked
_TRY_ANOTHER: Final = (
    c.CR_CONN_HOST_ERROR,
    c.CR_SERVER_LOST,
    c.CR_SSL_CONNECTION_ERROR,
    c.CR_MALFORMED_PACKET,
    *(1040, 1041, 1047, 1053, 1129, 1203),
)


class Servers:
    """The servers of a `mysql://` URL. Reads the certificates that it names; InterfaceError for a bad URL or file."""

    def __init__(self, url: str, *, connect_timeout: float = CONNECT_TIMEOUT) -> None:
        self.targets = parse_servers(url)
        self._contexts = {target: tls_context(target) for target in self.targets}
        self._connect_timeout = connect_timeout
        self._failed: dict[Target, float] = {}  # when, by the loop's clock

    def order(self, time: float) -> list[Target]:
        """All servers, in the order in which to try them at `time`."""
        return sorted(self.targets, key=lambda target: self._is_avoided(target, time))

    def note_failure(self, target: Target) -> None:
        """Avoid this server for a while."""
        self._failed[target] = now()

    def connect(self) -> Coro[tuple[Connection, Target]]:
        """A new session, and with which server. Suspends. OperationalError when none of them can be had."""
        failures: list[DatabaseError] = []
        for target in self.order(now()):
            try:
                connection = yield from self.connect_to(target)
            except DatabaseError as error:
                if error.code not in _TRY_ANOTHER:
                    raise
                self.note_failure(target)
                failures.append(error)
            else:
                self._failed.pop(target, None)
                return connection, target
        if len(failures) == 1:
            raise failures[0]
        reasons = "; ".join(map(str, failures))
        raise OperationalError(f"none of {len(failures)} servers can be had: {reasons}", c.CR_CONN_HOST_ERROR, "08001")

    def connect_to(self, target: Target) -> Coro[Connection]:
        """A new session with this server. Suspends. OperationalError, also when it takes too long."""
        with move_on_after(self._connect_timeout):
            connection = yield from connect_to(target, self._contexts[target])
            if len(self.targets) > 1:
                try:
                    yield from connection.execute("DO 1")
                except BaseException:
                    connection.abort()
                    raise
            return connection
        raise OperationalError(
            f"cannot connect: no answer within {self._connect_timeout:g} s", c.CR_CONN_HOST_ERROR, "08001", target.peer
        )

    def _is_avoided(self, target: Target, time: float) -> bool:
        return target in self._failed and time < self._failed[target] + AVOIDED_FOR

    def __repr__(self) -> str:
        return ", ".join(target.peer for target in self.targets)


def connect(url: str, *, connect_timeout: float = CONNECT_TIMEOUT) -> Coro[Connection]:
    """Connects to the first server of a `mysql://` URL (see `coro.mysql.url`) that can be had, and logs in. Suspends.

    `connect_timeout` is in seconds, for each server. Raises OperationalError (2003: no connection can be made; 1045:
    access denied; ...), InterfaceError for a bad URL.
    """
    connection, _ = yield from Servers(url, connect_timeout=connect_timeout).connect()
    return connection
