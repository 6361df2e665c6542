"""One connection to a MySQL or MariaDB server: performs the exchanges that the other modules describe.

The rule: a connection whose exchange was interrupted (cancelled, timed out, lost, out of protocol) is closed
at once and never used again, so that nobody can read the answer to another's question. An error that the
server reports ends its exchange, and the connection goes on. Nothing is ever sent twice.

Statements with parameters are prepared on the server, once for each connection, and kept there; the least
recently used ones make room. Parameters never become part of the SQL.
"""

from __future__ import annotations

import abc
import ipaddress
import os
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from coro.errors import BusyError
from coro.mysql import constants as c
from coro.mysql.bulk import MultiRowInsert
from coro.mysql.commands import CommandPhase, Result, Statement
from coro.mysql.errors import (
    DatabaseError,
    Error,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    ProtocolError,
)
from coro.mysql.handshake import Login, Session, Tls, login
from coro.mysql.packets import Exchange, Framer, Need
from coro.mysql.parameters import Parameter
from coro.mysql.replies import ERR, parse_err
from coro.mysql.rows import Row
from coro.mysql.url import Target, TlsMode, parse_url
from coro.net import Stream, connect_unix
from coro.net import connect as connect_tcp
from coro.task import Coro

T = TypeVar("T")

# Servers tell at login neither which collation they prefer for utf8mb4 nor, all of them, whether they autocommit
_SESSION_SETTINGS: Final = "SET NAMES utf8mb4, autocommit = 1"
STATEMENT_CACHE_SIZE: Final = 64  # prepared statements that one connection keeps
_FIRST_READ: Final = 16 << 10  # bytes; most answers are small
_NEXT_READ: Final = 64 << 10
_PEER_CLOSED: Final = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_OUT_OF_STEP: Final = (c.CR_SERVER_LOST, c.CR_SSL_CONNECTION_ERROR)
_FORGET_STATEMENT: Final = (1243, 1615)  # ER_UNKNOWN_STMT_HANDLER, ER_NEED_REPREPARE


class Queries(abc.ABC):
    """What one asks a database, on whatever connection."""

    @abc.abstractmethod
    def results(self, sql: str, *parameters: Parameter) -> Coro[list[Result]]:
        """Runs one statement; all its results, of which a CALL may have several. Suspends.

        `?` in the SQL stands for a parameter. Raises DatabaseError: what the server reports, under its class;
        OperationalError 2003 when no connection can be made, 2013 when it is lost (the statement may have
        run).
        """

    def execute(self, sql: str, *parameters: Parameter) -> Coro[Result]:
        """Runs one statement; its last result, with affected rows and insert id. Suspends. As `results`."""
        return (yield from self.results(sql, *parameters))[-1]

    def fetch_all(self, sql: str, *parameters: Parameter) -> Coro[list[Row]]:
        """Runs one statement; the rows of its first result. Suspends. As `results`."""
        return (yield from self.results(sql, *parameters))[0].rows

    def fetch_one(self, sql: str, *parameters: Parameter) -> Coro[Row | None]:
        """Runs one statement; the first row, or None. Suspends. As `results`."""
        rows = (yield from self.results(sql, *parameters))[0].rows
        return rows[0] if rows else None

    def fetch_value(self, sql: str, *parameters: Parameter) -> Coro[Any]:
        """Runs one statement; the first column of the first row, or None. Suspends. As `results`."""
        rows = (yield from self.results(sql, *parameters))[0].rows
        return rows[0][0] if rows else None


class Connection(Queries):
    """A session with the server. For one task at a time. Made by `connect`."""

    def __init__(self, stream: Stream, peer: str) -> None:
        self.peer = peer
        self.id = 0  # as SHOW PROCESSLIST and KILL have it
        self.server_version = ""
        self.closed = False
        self._stream = stream
        self._framer = Framer()
        self._phase = CommandPhase(self._framer, 0, 0)
        self._busy = False
        self._statements: OrderedDict[str, Statement] = OrderedDict()
        self._ahead = b""  # commands without an answer, to be sent with the next one

    # --- Asking ------------------------------------------------------------------

    def results(self, sql: str, *parameters: Parameter) -> Coro[list[Result]]:
        if not parameters:
            return (yield from self._perform(self._phase.query(sql)))
        statement = self._statements.get(sql)
        if statement is None:
            statement = yield from self._prepare(sql)
        else:
            self._statements.move_to_end(sql)
        try:
            return (yield from self._perform(self._phase.execute(statement, parameters)))
        except DatabaseError as error:
            if error.code in _FORGET_STATEMENT:
                self._statements.pop(sql, None)
            raise

    def execute_many(self, sql: str, rows: Iterable[Sequence[Parameter]]) -> Coro[Result]:
        """Runs one statement for each row of parameters, an INSERT for many of them at once. Suspends. As
        `results`.

        The result has the affected rows of all. Not atomic: for all or nothing, call it inside `transaction`.
        """
        insert = MultiRowInsert.of(sql)
        total = Result()
        if insert is None:
            for row in rows:
                _add(total, (yield from self.execute(sql, *row)))
            return total
        statement: Statement | None = None
        size = 0
        try:
            for batch in insert.batches(rows):
                if statement is not None and size != len(batch):
                    self._discard(statement)
                    statement = None
                if statement is None:
                    size = len(batch)
                    statement = yield from self._perform(self._phase.prepare(insert.sql(size)))
                parameters = [value for row in batch for value in row]
                _add(total, (yield from self._perform(self._phase.execute(statement, parameters)))[-1])
        finally:
            if statement is not None and not self.closed:
                self._discard(statement)
        return total

    def transaction(self, body: Callable[[Connection], Coro[T]]) -> Coro[T]:
        """Runs `body(connection)` in a transaction; its result. Suspends. Commits when it returns, else rolls
        back.

        Raises what the body raises, and as `results`. When the connection is lost during COMMIT nobody can
        tell whether it took place: the error (2013) says so.
        """
        if self.in_transaction:
            raise ProgrammingError("a transaction is open already: MySQL would commit it", peer=self.peer)
        yield from self._perform(self._phase.query("START TRANSACTION"))
        try:
            result = yield from body(self)
        except Exception:
            if not self.closed:
                with suppress(Error):  # the connection is closed then, and the server rolls back
                    yield from self.rollback()
            raise
        except BaseException:
            self.abort()
            raise
        try:
            yield from self._perform(self._phase.query("COMMIT"))
        except OperationalError as error:
            if error.code == c.CR_SERVER_LOST:
                error.message += " during COMMIT: whether the transaction took place is unknown"
            raise
        return result

    def rollback(self) -> Coro[None]:
        """Undoes what the open transaction did, if there is one. Suspends. As `results`."""
        yield from self._perform(self._phase.query("ROLLBACK"))

    def ping(self) -> Coro[None]:
        """Asks the server for a sign of life. Suspends. OperationalError 2013 when there is none."""
        yield from self._perform(self._phase.ping())

    # --- State -------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction was open when the server answered last."""
        return self._phase.in_transaction

    def is_usable(self) -> bool:
        """Whether the connection is open and silent. Does not suspend.

        A server that says something while it is not asked is saying farewell: it was shut down, or the
        session was killed or idle for too long. So is one whose end of the connection is closed.
        """
        if self.closed:
            return False
        try:
            socket.socket.recv(self._stream.socket.sock, 1, socket.MSG_PEEK)  # below TLS, if there is any
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Ends the session: says so to the server, without waiting, closes the socket. Can be repeated."""
        if not self.closed and not self._busy:
            with suppress(OSError, ProtocolError):
                self._stream.socket.sock.send(self._phase.quit())
        self.abort()

    def abort(self) -> None:
        """Closes the socket. The server notices, and rolls back what is open. Can be repeated."""
        self.closed = True
        self._stream.close()

    def __repr__(self) -> str:
        state = "in a transaction" if self.in_transaction else "open"
        state = "closed" if self.closed else state
        return f"<mysql.Connection to {self.peer}, {state}>"

    # --- Performing --------------------------------------------------------------

    def _log_in(self, target: Target, context: ssl.SSLContext | None) -> Coro[None]:
        """The login exchange, and the settings that every session gets."""
        exchange = login(self._framer, _login(target, self._stream))
        session: Session = yield from self._perform(exchange, context, target)
        self.id = session.connection_id
        self.server_version = session.server_version
        self._phase = CommandPhase(self._framer, session.capabilities, session.status)
        yield from self._perform(self._phase.query(_SESSION_SETTINGS))

    def _prepare(self, sql: str) -> Coro[Statement]:
        statement = yield from self._perform(self._phase.prepare(sql))
        self._statements[sql] = statement
        if len(self._statements) > STATEMENT_CACHE_SIZE:
            self._discard(self._statements.popitem(last=False)[1])
        return statement

    def _discard(self, statement: Statement) -> None:
        self._ahead += self._phase.close_statement(statement)

    def _perform(
        self, exchange: Exchange[T], context: ssl.SSLContext | None = None, target: Target | None = None
    ) -> Coro[T]:
        """Does what an exchange asks for, to its end; its result. Suspends."""
        if self.closed:
            raise InterfaceError("the connection is closed", peer=self.peer)
        if self._busy:
            raise BusyError(f"two tasks use {self!r} at once: take one connection each, from a pool")
        stream, framer = self._stream, self._framer
        self._busy = True
        in_step = False
        limit = _FIRST_READ
        try:
            while True:
                step = next(exchange)
                if step is Need.DATA:
                    data = yield from stream.read(limit)
                    if not data:
                        raise self._lost("the server closed the connection")
                    framer.feed(data)
                    limit = _NEXT_READ
                elif step is Need.TLS:
                    assert context is not None and target is not None
                    yield from self._start_tls(context, target.host)
                else:
                    yield from stream.write(self._ahead + step if self._ahead else step)
                    self._ahead = b""
        except StopIteration as stop:
            in_step = True
            result: T = stop.value
            return result
        except ProtocolError as error:
            error.peer = self.peer
            raise self._farewell() or error from None
        except DatabaseError as error:
            in_step = error.code not in _OUT_OF_STEP
            error.peer = self.peer
            raise
        except OSError as error:
            if isinstance(error, _PEER_CLOSED):  # it may have said why, and closed while we were sending
                with suppress(OSError):
                    framer.feed((yield from stream.read()))
            raise self._farewell() or self._lost(_reason(error)) from error
        finally:
            self._busy = False
            if not in_step:
                self.abort()

    def _start_tls(self, context: ssl.SSLContext, host: str) -> Coro[None]:
        try:
            yield from self._stream.start_tls(context, server_hostname=host)
        except ssl.SSLError as error:
            raise OperationalError(f"TLS: {_reason(error)}", c.CR_SSL_CONNECTION_ERROR) from error

    def _farewell(self) -> DatabaseError | None:
        """The error with which the server ended the session, if it said one."""
        payload = self._framer.farewell()
        if payload[:1] != ERR:
            return None
        error = parse_err(payload)
        error.peer = self.peer
        return error

    def _lost(self, reason: str) -> OperationalError:
        return OperationalError(f"lost the connection ({reason})", c.CR_SERVER_LOST, "08S01", self.peer)


def connect(url: str) -> Coro[Connection]:
    """Connects to the server of a `mysql://` URL (see `coro.mysql.url`) and logs in. Suspends.

    Raises OperationalError (2003: no connection can be made; 1045: access denied; ...), InterfaceError for a
    bad URL.
    """
    target = parse_url(url)
    return (yield from connect_to(target, tls_context(target)))


def connect_to(target: Target, context: ssl.SSLContext | None) -> Coro[Connection]:
    """As `connect`, with the URL taken apart and the TLS context made. Suspends."""
    try:
        if target.socket:
            stream = yield from connect_unix(target.socket)
        else:
            stream = yield from connect_tcp(target.host, target.port)
    except OSError as error:
        raise OperationalError(
            f"cannot connect: {_reason(error)}", c.CR_CONN_HOST_ERROR, "08001", target.peer
        ) from error
    connection = Connection(stream, target.peer)
    try:
        yield from connection._log_in(target, context)
    except BaseException:
        connection.abort()
        raise
    return connection


def tls_context(target: Target) -> ssl.SSLContext | None:
    """The TLS settings that the target asks for. Reads files; InterfaceError when one cannot be read."""
    if target.socket or target.tls is TlsMode.DISABLED:
        return None
    if target.tls in (TlsMode.PREFERRED, TlsMode.REQUIRED):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        context = ssl.create_default_context(cafile=target.ca or None)
    except OSError as error:
        message = f"cannot use the CA file {target.ca}: {_reason(error)}"
        raise InterfaceError(message, peer=target.peer) from None
    context.check_hostname = target.tls is TlsMode.VERIFY_IDENTITY
    return context


def _login(target: Target, stream: Stream) -> Login:
    if target.socket or target.tls is TlsMode.DISABLED:
        tls = Tls.NO
    else:
        tls = Tls.IF_OFFERED if target.tls is TlsMode.PREFERRED else Tls.MUST
    private = bool(target.socket) or tls is Tls.MUST or (tls is Tls.IF_OFFERED and _is_loopback(stream))
    return Login(
        user=target.user,
        password=target.password,
        database=target.database,
        tls=tls,
        private=private,
        public_key=_read_public_key(target),
        allow_public_key_retrieval=target.allow_public_key_retrieval,
        attributes={"_client_name": "coro", "_pid": str(os.getpid())},
    )


def _is_loopback(stream: Stream) -> bool:
    host = stream.socket.sock.getpeername()[0].partition("%")[0]
    return ipaddress.ip_address(host).is_loopback


def _read_public_key(target: Target) -> bytes | None:
    if not target.public_key:
        return None
    try:
        with open(target.public_key, "rb") as file:
            return file.read()
    except OSError as error:
        raise InterfaceError(
            f"cannot read the server's public key {target.public_key}: {_reason(error)}", peer=target.peer
        ) from None


def _add(total: Result, result: Result) -> None:
    total.affected_rows += result.affected_rows
    total.last_insert_id = total.last_insert_id or result.last_insert_id
    total.warnings += result.warnings


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate does not pass: {error.verify_message}"
    if isinstance(error, ssl.SSLError) or not error.errno or error.errno < 0:
        return str(error.strerror or error)
    return os.strerror(error.errno)
