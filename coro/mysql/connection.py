"""One connection to a MySQL or MariaDB server, and what one can ask over it.

A connection whose exchange was interrupted is closed (see `coro.mysql.channel`). An error that the server reports
ends its exchange, and the connection goes on. Nothing is ever sent twice.

Statements with parameters are prepared on the server, once for each connection, and kept there (see `Statement`); the
least recently used ones make room. Parameters never become part of the SQL.
"""

from __future__ import annotations

import abc
import enum
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from coro.mysql import constants as c
from coro.mysql.bulk import MultiRowInsert, bulk_batches, suits_bulk
from coro.mysql.channel import Channel
from coro.mysql.commands import OPEN_TRANSACTION, CommandPhase, Result, Statement
from coro.mysql.errors import DatabaseError, Error, ProgrammingError
from coro.mysql.handshake import Session, change_user
from coro.mysql.packets import Exchange
from coro.mysql.parameters import Parameter
from coro.mysql.rows import Row
from coro.mysql.sources import PIECE, LongData, Source, pieces
from coro.mysql.streaming import AnswerRows, CursorRows, RowStream
from coro.task import Coro

T = TypeVar("T")

STATEMENT_CACHE_SIZE: Final = 64  # prepared statements that one connection keeps
_PREPARE_AGAIN: Final = (1243, 1615)  # ER_UNKNOWN_STMT_HANDLER, ER_NEED_REPREPARE: it was not executed
_TOO_MANY_PREPARED: Final = 1461  # ER_MAX_PREPARED_STMT_COUNT_REACHED
# The statements that do nothing when they fail. A procedure could have got that error in its middle.
_ALL_OR_NOTHING: Final = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH)\b", re.IGNORECASE)


class Isolation(enum.Enum):
    """What a transaction sees of others; the servers' default is REPEATABLE READ."""

    READ_UNCOMMITTED = "READ UNCOMMITTED"
    READ_COMMITTED = "READ COMMITTED"
    REPEATABLE_READ = "REPEATABLE READ"
    SERIALIZABLE = "SERIALIZABLE"


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

    def fetch_dicts(self, sql: str, *parameters: Parameter) -> Coro[list[dict[str, Any]]]:
        """Runs one statement; the rows of its first result, as dicts by column name. Suspends. As `results`.

        ProgrammingError when two columns have one name.
        """
        return (yield from self.results(sql, *parameters))[0].dicts()

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

    def __init__(self, channel: Channel, session: Session) -> None:
        self.peer = channel.peer
        self.id = session.greeting.connection_id  # as SHOW PROCESSLIST and KILL have it
        self.server_version = session.greeting.server_version
        self._session = session
        self._channel = channel
        self._perform = channel.perform
        self._phase = CommandPhase(channel.framer, session.capabilities, session.status)
        self._room: int | None = None  # bytes of the longest packet that the server takes, once that was asked
        self._statements: OrderedDict[str, Statement] = OrderedDict()

    # --- Asking ------------------------------------------------------------------

    def results(self, sql: str, *parameters: Parameter) -> Coro[list[Result]]:
        if not parameters:
            return (yield from self._perform(self._phase.query(sql)))
        statement = yield from self._prepared(sql, parameters)
        if LongData in map(type, parameters):
            return (yield from self._execute_long(statement, parameters))
        try:
            return (yield from self._perform(self._phase.execute(statement, parameters)))
        except DatabaseError as error:
            statement = yield from self._prepare_again(statement, error)
        return (yield from self._perform(self._phase.execute(statement, parameters)))

    def stream(self, sql: str, *parameters: Parameter) -> Coro[RowStream]:
        """Runs one statement; its rows, to be read as they come. Suspends. As `results`.

        Until the stream has ended the connection can do nothing else. Closed before its end, it closes the
        connection. See `coro.mysql.streaming`.
        """
        if not parameters:
            answer = yield from self._perform(self._phase.begin_query(sql))
            return AnswerRows(self._channel, self._phase, answer, sql)
        statement = yield from self._prepared(sql, parameters)
        try:
            answer = yield from self._perform(self._phase.begin(statement, parameters))
        except DatabaseError as error:
            statement = yield from self._prepare_again(statement, error)
            answer = yield from self._perform(self._phase.begin(statement, parameters))
        return AnswerRows(self._channel, self._phase, answer, sql)

    def cursor(self, sql: str, *parameters: Parameter, fetch_size: int = 1000) -> Coro[RowStream]:
        """Runs one statement; its rows, which the server keeps and gives `fetch_size` at a time. Suspends. As
        `results`.

        The connection can be used for other things in between. A statement for which the server opens no cursor
        (CALL, SHOW) is read as by `stream`.
        """
        if fetch_size < 1:
            raise ValueError(f"a fetch size of {fetch_size} rows")
        statement = yield from self._perform(self._phase.prepare(sql))
        try:
            answer = yield from self._perform(self._phase.open_cursor(statement, parameters))
        except DatabaseError:
            self._discard(statement)
            raise
        if answer.has_cursor:
            return CursorRows(self._channel, self._phase, answer, sql, fetch_size)
        self._discard(statement)
        return AnswerRows(self._channel, self._phase, answer, sql)

    def execute_many(self, sql: str, rows: Iterable[Sequence[Parameter]]) -> Coro[Result]:
        """Runs one statement for each row of parameters, for many of them at once where the server can (see
        `coro.mysql.bulk`). Suspends. As `results`.

        The result has the affected rows of all, and the rows that a RETURNING gave. Not atomic: for all or nothing,
        call it inside `transaction`.
        """
        if self._room is None:
            self._room = int((yield from self.fetch_value("SELECT @@max_allowed_packet")))
        total = Result()
        insert = MultiRowInsert.of(sql)
        if self._phase.has_bulk and suits_bulk(sql, insert):
            yield from self._execute_bulk(sql, rows, self._room, total)
        elif insert is not None:
            yield from self._execute_multi_row(insert, rows, self._room, total)
        else:
            for row in rows:
                total.add((yield from self.execute(sql, *row)))
        return total

    def _execute_bulk(self, sql: str, rows: Iterable[Sequence[Parameter]], room: int, total: Result) -> Coro[None]:
        statement = self._statements.get(sql) or (yield from self._prepare(sql))
        for batch in bulk_batches(rows, statement.parameter_count, room):
            try:
                results = yield from self._perform(self._phase.execute_bulk(statement, batch))
            except DatabaseError as error:
                statement = yield from self._prepare_again(statement, error)
                results = yield from self._perform(self._phase.execute_bulk(statement, batch))
            total.add(results[-1])

    def _execute_multi_row(
        self, insert: MultiRowInsert, rows: Iterable[Sequence[Parameter]], room: int, total: Result
    ) -> Coro[None]:
        statement: Statement | None = None
        size = 0
        try:
            for batch in insert.batches(rows, room):
                parameters = [value for row in batch for value in row]
                if statement is not None and not (size == len(batch) and statement.suits(parameters)):
                    self._discard(statement)
                    statement = None
                if statement is None:
                    size = len(batch)
                    statement = yield from self._perform(self._phase.prepare(insert.sql(size)))
                total.add((yield from self._perform(self._phase.execute(statement, parameters)))[-1])
        finally:
            if statement is not None:
                self._discard(statement)

    def load_data(self, sql: str, source: Source) -> Coro[Result]:
        """Runs a LOAD DATA LOCAL INFILE statement on data of this program (see `coro.mysql.sources`); the file name
        in it means nothing. Suspends. As `results`.

        Needs `local-infile=true` in the URL, and `local_infile` on the server. The text is taken to be in the
        character set of the database unless the statement names another. When the source fails, the connection is
        closed, which tells the server to undo.
        """
        if not self._session.capabilities & c.CLIENT_LOCAL_FILES:
            raise ProgrammingError("LOAD DATA LOCAL needs local-infile=true in the URL", peer=self.peer)
        read = pieces(source)
        results = yield from self._perform(self._phase.begin_load(sql))
        if results is not None:
            raise ProgrammingError("the statement was run, and asked for no data", peer=self.peer)
        self._channel.holder = sql
        try:
            yield from self._send(read, self._phase.send_data, by=sql)
        except BaseException:
            self.abort()
            raise
        finally:
            self._channel.holder = None
        return (yield from self._perform(self._phase.end_load()))[-1]

    def transaction(
        self, body: Callable[[Connection], Coro[T]], *, isolation: Isolation | None = None, read_only: bool = False
    ) -> Coro[T]:
        """Runs `body(connection)` in a transaction; its result. Suspends. Commits when it returns, else rolls
        back.

        Raises what the body raises, and as `results`. When the connection is lost during COMMIT nobody can
        tell whether it took place: the error says so, and has `outcome_unknown`.
        """
        if self.in_transaction:
            raise ProgrammingError("a transaction is open already: MySQL would commit it", peer=self.peer)
        if isolation is not None:
            yield from self._perform(self._phase.control(f"SET TRANSACTION ISOLATION LEVEL {isolation.value}"))
        start = "START TRANSACTION READ ONLY" if read_only else "START TRANSACTION"
        yield from self._perform(self._phase.control(start))
        try:
            result = yield from body(self)
        except Exception:
            if self.is_streaming:  # nothing can be asked any more
                self.abort()
            if not self.closed:
                with suppress(Error):  # the connection is closed then, and the server rolls back
                    yield from self.rollback()
            raise
        except BaseException:
            self._channel.give_up()
            raise
        try:
            yield from self._perform(self._phase.control("COMMIT"))
        except DatabaseError as error:
            if error.outcome_unknown:
                error.message += " during COMMIT: whether the transaction took place is unknown"
            raise
        return result

    def rollback(self) -> Coro[None]:
        """Undoes what the open transaction did, if there is one. Suspends. As `results`."""
        yield from self._perform(self._phase.control("ROLLBACK"))

    def ping(self) -> Coro[None]:
        """Asks the server for a sign of life. Suspends. OperationalError 2013 when there is none."""
        yield from self._perform(self._phase.ping())

    def settle(self) -> Coro[None]:
        """Gives a session that was just opened the settings that all of them have. Suspends. As `results`."""
        yield from self._perform(self._phase.settle())

    def reset(self) -> Coro[None]:
        """Makes the session as good as new, in two round trips: an open transaction is rolled back, locks are
        released, variables, temporary tables and prepared statements are gone. Suspends. As `results`.
        """
        self._statements.clear()
        yield from self._perform(self._phase.reset())

    def change_user(self, user: str, password: str = "", database: str = "") -> Coro[None]:
        """Makes the session new, as `reset` does, and another user's. Suspends. As `results`.

        Whatever goes wrong closes the connection; 1045 says that the server refuses the user.
        """
        who = replace(self._session.who, user=user, password=password, database=database, further_passwords=())
        self._statements.clear()
        self._phase.user_changed = True
        try:
            self._phase.status = yield from self._perform(change_user(self._channel.framer, who, self._session))
            yield from self.settle()
        except DatabaseError:
            self.abort()
            raise

    # --- State -------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction was open when the server answered last."""
        return self._phase.in_transaction

    @property
    def session_changed(self) -> bool:
        """Whether there may be, since login or `reset`, session state that `reset` would undo: variables, the default
        database, temporary tables, of which servers tell; locks (GET_LOCK, LOCK TABLES), `SELECT @a := 1`, `HANDLER`,
        SET TRANSACTION, of which only the text of the statement tells.
        """
        return self._phase.session_changed

    @property
    def user_changed(self) -> bool:
        """Whether the session has become another's than the URL's, by `change_user` or SET ROLE: a `reset` does not
        undo that."""
        return self._phase.user_changed

    @property
    def has_leftovers(self) -> bool:
        """Whether the session may differ from a new one: a transaction or stream is open, state or user changed."""
        phase = self._phase
        changed = phase.session_changed or phase.user_changed
        return changed or bool(phase.status & OPEN_TRANSACTION) or self._channel.holder is not None

    @property
    def is_streaming(self) -> bool:
        """Whether a stream that has not ended holds the connection."""
        return self._channel.holder is not None

    @property
    def closed(self) -> bool:
        return self._channel.closed

    def is_silent(self) -> bool:
        """Whether the socket is open, and the server has neither said anything nor closed it, as it is while it waits
        for a statement or is at one. Does not suspend."""
        return self._channel.is_silent()

    @property
    def interrupted(self) -> bool:
        """Whether it was closed by a cancellation, in the middle of a statement."""
        return self._channel.interrupted

    def linger(self) -> None:
        """From now on: when a statement is interrupted, leave the socket open until `abort`. So the server keeps
        the session, and its id cannot become another's."""
        self._channel.lingers = True

    def close(self) -> None:
        """Ends the session: says so to the server, without waiting, closes the socket. Can be repeated."""
        self._channel.close()

    def abort(self) -> None:
        """Closes the socket. The server notices, and rolls back what is open. Can be repeated."""
        self._channel.abort()

    def __repr__(self) -> str:
        state = "in a transaction" if self.in_transaction else "open"
        state = "closed" if self.closed else state
        return f"<mysql.Connection to {self.peer}, {state}>"

    def _prepared(self, sql: str, parameters: Sequence[Parameter]) -> Coro[Statement]:
        """The statement that is kept for this SQL, if it suits the types of the parameters, else a new one."""
        statement = self._statements.get(sql)
        if statement is None:
            statement = yield from self._prepare(sql)
        elif not statement.suits(parameters):
            self._discard(self._statements.pop(sql))
            statement = yield from self._prepare(sql)
        else:
            self._statements.move_to_end(sql)
        return statement

    def _prepare(self, sql: str) -> Coro[Statement]:
        try:
            statement = yield from self._perform(self._phase.prepare(sql))
        except DatabaseError as error:
            if error.code != _TOO_MANY_PREPARED or not self._statements:
                raise
            while self._statements:
                self._discard(self._statements.popitem()[1])
            statement = yield from self._perform(self._phase.prepare(sql))
        self._statements[sql] = statement
        if len(self._statements) > STATEMENT_CACHE_SIZE:
            self._discard(self._statements.popitem(last=False)[1])
        return statement

    def _prepare_again(self, statement: Statement, error: DatabaseError) -> Coro[Statement]:
        """The statement anew, when the server has forgotten it and has therefore done nothing; else the error."""
        if error.code not in _PREPARE_AGAIN:
            raise error
        self._statements.pop(statement.sql, None)
        if not _ALL_OR_NOTHING.match(statement.sql):
            raise error
        return (yield from self._prepare(statement.sql))

    def _execute_long(self, statement: Statement, parameters: Sequence[Parameter]) -> Coro[list[Result]]:
        """Sends the parameters that come in pieces, then executes."""
        try:
            for index, parameter in enumerate(parameters):
                if isinstance(parameter, LongData):
                    yield from self._send_long(statement, index, parameter)
            return (yield from self._perform(self._phase.execute(statement, parameters)))
        except BaseException:
            if self._statements.pop(statement.sql, None) is not None:  # the server has half of the parameters
                self._discard(statement)
            raise

    def _send_long(self, statement: Statement, index: int, parameter: LongData) -> Coro[None]:
        if parameter.sent:
            raise ProgrammingError(f"parameter {index + 1}: LongData can be used once")
        parameter.sent = True
        read = pieces(parameter.source)
        yield from self._perform(self._phase.send_long_data(statement, index, b""))
        yield from self._send(read, partial(self._phase.send_long_data, statement, index))

    def _send(
        self, read: Callable[[], Coro[bytes]], exchange: Callable[[bytes], Exchange[None]], by: object = None
    ) -> Coro[None]:
        """Sends what a source has, each piece by exchanges of at most `PIECE` bytes."""
        while piece := (yield from read()):
            if not isinstance(piece, (bytes, bytearray, memoryview)):
                raise ProgrammingError(f"a piece of the data is bytes, not a {type(piece).__qualname__}")
            for start in range(0, len(piece), PIECE):
                yield from self._perform(exchange(piece[start : start + PIECE]), by=by)

    def _discard(self, statement: Statement) -> None:
        self._channel.send_ahead(self._phase.close_statement(statement))
