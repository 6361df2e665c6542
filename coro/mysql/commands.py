"""The command phase: one request, its whole answer, then the next.

Each method is an exchange (see `coro.mysql.packets`): it yields the command's bytes and returns when the
answer has been read to its end, with every result set of a stored procedure. When it raises the server's
error, the answer has ended too, and the connection is in step.

An answer can also be read piece by piece: `begin` sends a statement and reads up to the first row, `more`
reads the rows that have come since. A server's cursor needs no such patience: it keeps the rows until `fetch`
asks for some, and other commands may come in between.

A server may answer a query by asking for a local file. It never gets one: it is sent an empty packet, which
is how the protocol says no, and the query fails. Only `begin_load` expects to be asked, and what is sent then is
what the caller hands over: the name that the server says is not looked at.

Source: "Command Phase" in the client/server protocol manual.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, Final

from coro.mysql import constants as c
from coro.mysql.columns import Column, parse_column
from coro.mysql.errors import DatabaseError, NotSupportedError, ProgrammingError, ProtocolError
from coro.mysql.packets import HEADER, MAX_PAYLOAD, Exchange, Framer, Need, Payload
from coro.mysql.parameters import Parameter, encode_parameters
from coro.mysql.replies import EOF, ERR, LOCAL_INFILE, OK, Outcome, expect_ok, parse_eof, parse_err, parse_ok
from coro.mysql.rows import BinaryRows, Row, RowReader, TextRows

OPEN_TRANSACTION: Final = c.SERVER_STATUS_IN_TRANS | c.SERVER_STATUS_IN_TRANS_READONLY
_MAX_COLUMNS: Final = 0xFFFF
_EXECUTE: Final = Struct("<BIBI")  # command, statement, cursor type, iteration count (1)
_FETCH: Final = Struct("<BII")  # command, statement, number of rows
_STATEMENT: Final = Struct("<BI")
_LONG_DATA: Final = Struct("<BIH")  # command, statement, parameter
_EXECUTE_BULK: Final = Struct("<BIH")  # command, statement, flags
_SEND_TYPES: Final = 128

# Servers tell at login neither which collation they prefer for utf8mb4 nor, all of them, whether they autocommit
_SETTINGS: Final = "SET NAMES utf8mb4, autocommit = 1"
# Servers do not tell of what sets a variable in passing, takes a lock, opens a table, is for the next transaction. That
# a role was set is told by some, and undone by no reset. Few statements have a hint of such, and these are read again.
_HINT: Final = re.compile(":=|@|LOCK|BACKUP|HANDLER|TRANSACTION|ROLE")
_GAP: Final = r"(?:\s|/\*.*?\*/)+"
_UNTOLD: Final = re.compile(
    rf":=|\bINTO{_GAP}@|\bGET_LOCK\b|\bLOCK{_GAP}TABLE|\bREAD{_GAP}LOCK\b|\bBACKUP\b|\bHANDLER\b|\bSET{_GAP}TRANSACTION\b",
    re.DOTALL,
)
_SET_ROLE: Final = re.compile(rf"\bSET{_GAP}ROLE\b", re.DOTALL)
_NULL: Final = type(None)
_TRACKING: Final = ", session_track_state_change = 1"


@dataclass(slots=True)
class Result:
    """One result of a statement: the rows it selected, or what it did."""

    columns: tuple[Column, ...] = ()
    rows: list[Row] = field(default_factory=list)
    affected_rows: int = 0
    last_insert_id: int = 0
    warnings: int = 0

    def add(self, other: Result) -> None:
        """Makes this the result of both, of which `other` came later."""
        self.columns = other.columns
        self.rows += other.rows
        self.affected_rows += other.affected_rows
        self.last_insert_id = self.last_insert_id or other.last_insert_id
        self.warnings += other.warnings

    def dicts(self) -> list[dict[str, Any]]:
        """The rows, each as a dict from column name to value. ProgrammingError when two columns have one name."""
        names = [column.name for column in self.columns]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ProgrammingError(f"two columns are called {twice!r}: give one another name, with AS")
        return [dict(zip(names, row, strict=True)) for row in self.rows]


@dataclass(slots=True)
class Statement:
    """A prepared statement. It lives on the server, in one connection, until it is closed.

    `definitions` are the packets that described its columns when it ran last. While the next answer starts
    with the same bytes, `reader` serves again, and the definitions need not be parsed.

    `types` are those that its parameters had, on MySQL. It decides (since 8.0.22) by one execution what a parameter is,
    and makes the later ones that too: after a 5, `WHERE name = ?` takes 'anna' for 0 and finds every name.
    """

    sql: str
    id: int
    parameter_count: int
    definitions: bytes = b""
    definition_packets: int = 0
    reader: RowReader | None = None
    types: tuple[type, ...] = ()

    def suits(self, parameters: Sequence[Parameter]) -> bool:
        """Whether the parameters have the types that they had before; NULL has any."""
        if not self.types:
            return True
        types = tuple(map(type, parameters))
        if types == self.types:
            return True
        return all(old is new or _NULL in (old, new) for old, new in zip(self.types, types, strict=False))

    def note_types(self, parameters: Sequence[Parameter]) -> None:
        """The statement is executed with these parameters."""
        types = tuple(map(type, parameters))
        if types != self.types:
            pairs = zip(self.types or types, types, strict=True)
            self.types = tuple(old if new is _NULL else new for old, new in pairs)


@dataclass(slots=True)
class Answer:
    """An answer that is read piece by piece."""

    reader: RowReader | None  # None where there are no rows
    statement: Statement | None
    rows: list[Row]  # have come already, and are still to be handed on
    ended: bool
    has_cursor: bool = False


class CommandPhase:
    """The commands of one connection whose login is done. `status` holds the server's latest status flags."""

    def __init__(self, framer: Framer, capabilities: int, status: int) -> None:
        self.framer = framer
        self.status = status
        self.session_changed = False  # the session has state that `reset` would undo
        self.user_changed = False  # the session has other rights than at login, which `reset` does not undo
        self._refusal: NotSupportedError | None = None
        self._deprecate_eof = bool(capabilities & c.CLIENT_DEPRECATE_EOF)
        self.has_bulk = bool(capabilities & c.MARIADB_CLIENT_STMT_BULK_OPERATIONS)
        self._tracks = bool(capabilities & c.CLIENT_SESSION_TRACK)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction was open when the server answered last."""
        return bool(self.status & OPEN_TRANSACTION)

    def query(self, sql: str) -> Exchange[list[Result]]:
        """Runs SQL that has no parameters (text protocol)."""
        yield self._text(c.COM_QUERY, sql)
        return (yield from self._results())

    def control(self, sql: str) -> Exchange[None]:
        """Runs a statement that begins or ends a transaction: MySQL calls that a change of the session's state."""
        changed = self.session_changed
        yield from self.query(sql)
        self.session_changed = changed

    def prepare(self, sql: str) -> Exchange[Statement]:
        """Prepares a statement; `?` stands for a parameter."""
        framer = self.framer
        yield self._text(c.COM_STMT_PREPARE, sql)
        payload = yield from framer.packet()
        if payload[:1] == ERR:
            raise parse_err(payload)
        fields = Payload(payload)
        if fields.integer(1) != OK[0]:
            raise ProtocolError(f"{payload[:8].hex()} does not answer COM_STMT_PREPARE")
        statement_id, column_count, parameter_count = fields.integer(4), fields.integer(2), fields.integer(2)
        for count in (parameter_count, column_count):
            for _ in range(count):
                yield from framer.packet()
            if count:
                yield from self._definitions_end()
        return Statement(sql, statement_id, parameter_count)

    def execute(self, statement: Statement, parameters: Sequence[Parameter]) -> Exchange[list[Result]]:
        """Runs a prepared statement (binary protocol). ProgrammingError for too few or many parameters."""
        yield self._execution(statement, parameters, c.CURSOR_TYPE_NO_CURSOR)
        return (yield from self._results(statement))

    def execute_bulk(self, statement: Statement, batch: bytes) -> Exchange[list[Result]]:
        """Runs a prepared statement for each row of a batch (see `coro.mysql.bulk`). Only where `has_bulk`."""
        yield self.framer.command(_EXECUTE_BULK.pack(c.COM_STMT_BULK_EXECUTE, statement.id, _SEND_TYPES) + batch)
        return (yield from self._results(statement))

    def begin_query(self, sql: str) -> Exchange[Answer]:
        """As `query`, up to the first row."""
        yield self._text(c.COM_QUERY, sql)
        return (yield from self._begun(None))

    def begin(self, statement: Statement, parameters: Sequence[Parameter]) -> Exchange[Answer]:
        """As `execute`, up to the first row."""
        yield self._execution(statement, parameters, c.CURSOR_TYPE_NO_CURSOR)
        return (yield from self._begun(statement))

    def more(self, answer: Answer) -> Exchange[list[Row]]:
        """Rows of an answer that was begun, at least one; none at its end. Further results are passed over."""
        assert answer.reader is not None
        rows: list[Row] = []
        try:
            while (outcome := self._take(answer.reader, rows, some=True)) is None and not rows:
                yield Need.DATA
            if outcome is not None:
                yield from self._pass_over(answer.statement)
                answer.ended = True
        except DatabaseError:
            answer.ended = True
            raise
        return rows

    def open_cursor(self, statement: Statement, parameters: Sequence[Parameter]) -> Exchange[Answer]:
        """As `begin`; the server keeps the rows in a cursor, unless the statement is none that can have one."""
        yield self._execution(statement, parameters, c.CURSOR_TYPE_READ_ONLY)
        self.status &= ~c.SERVER_STATUS_CURSOR_EXISTS
        answer = yield from self._begun(statement)
        outcome = None
        if self._deprecate_eof:  # otherwise the flag came behind the definitions
            while answer.reader and outcome is None and not answer.rows:
                outcome = self._take(answer.reader, answer.rows, some=True)
                if outcome is None and not answer.rows:
                    yield Need.DATA
        answer.has_cursor = bool(self.status & c.SERVER_STATUS_CURSOR_EXISTS)
        if outcome is not None and not answer.has_cursor:
            yield from self._pass_over(statement)
            answer.ended = True
        return answer

    def fetch(self, answer: Answer, count: int) -> Exchange[list[Row]]:
        """Up to `count` rows of a cursor; less at its end."""
        assert answer.reader is not None and answer.statement is not None
        yield self.framer.command(_FETCH.pack(c.COM_STMT_FETCH, answer.statement.id, count))
        rows: list[Row] = []
        while (outcome := self._take(answer.reader, rows)) is None and len(rows) <= count:
            yield Need.DATA
        if outcome is None or len(rows) > count:
            raise ProtocolError(f"a cursor gives more than the {count} rows that it was asked for")
        answer.ended = bool(self.status & c.SERVER_STATUS_LAST_ROW_SENT)
        if not rows and not answer.ended:
            raise ProtocolError("a cursor gives no rows and has not ended")
        return rows

    def send_long_data(self, statement: Statement, index: int, piece: bytes) -> Exchange[None]:
        """Adds a piece to a parameter of the statement's next execution. It has no answer."""
        yield self.framer.command(_LONG_DATA.pack(c.COM_STMT_SEND_LONG_DATA, statement.id, index) + piece)

    def begin_load(self, sql: str) -> Exchange[list[Result] | None]:
        """Runs a LOAD DATA LOCAL statement until the server asks for the data; the results of one that does not."""
        yield self._text(c.COM_QUERY, sql)
        payload = yield from self.framer.packet()
        return None if payload[:1] == LOCAL_INFILE else (yield from self._results(first=payload))

    def send_data(self, piece: bytes) -> Exchange[None]:
        """Sends a piece of the data that the server has asked for."""
        yield self.framer.frame(piece)

    def end_load(self) -> Exchange[list[Result]]:
        """Says that no more data will come; the results."""
        yield self.framer.frame(b"")
        return (yield from self._results())

    def close_statement(self, statement: Statement) -> bytes:
        """The command that frees a prepared statement. It has no answer: send it ahead of another."""
        return self.framer.unanswered(_STATEMENT.pack(c.COM_STMT_CLOSE, statement.id))

    def ping(self) -> Exchange[None]:
        """Asks the server whether it is there."""
        yield self.framer.command(bytes((c.COM_PING,)))
        self._note(expect_ok((yield from self.framer.packet())))

    def settle(self) -> Exchange[None]:
        """Gives the session the settings that all sessions here have."""
        yield from self.query(_SETTINGS + _TRACKING if self._tracks else _SETTINGS)
        self.session_changed = False

    def reset(self) -> Exchange[None]:
        """Makes the session as good as new: what was open, set, locked, prepared or temporary is gone."""
        yield self.framer.command(bytes((c.COM_RESET_CONNECTION,)))
        self._note(expect_ok((yield from self.framer.packet())))
        yield from self.settle()

    def _text(self, command: int, sql: str) -> bytes:
        if not isinstance(sql, str):
            raise ProgrammingError(f"a statement is a str, not a {type(sql).__qualname__}")
        text = sql.upper()
        if _HINT.search(text):
            self.session_changed = self.session_changed or _UNTOLD.search(text) is not None
            self.user_changed = self.user_changed or _SET_ROLE.search(text) is not None
        return self.framer.command(bytes((command,)) + _encoded(sql))

    def _execution(self, statement: Statement, parameters: Sequence[Parameter], cursor_type: int) -> bytes:
        head = _EXECUTE.pack(c.COM_STMT_EXECUTE, statement.id, cursor_type, 1)
        if len(parameters) != statement.parameter_count:
            raise ProgrammingError(
                f"{statement.parameter_count} parameters are due, and {len(parameters)} were given",
                c.CR_INVALID_PARAMETER_NO,
            )
        if not parameters:
            return self.framer.command(head)
        data = encode_parameters(parameters)
        if not self.has_bulk:  # MariaDB goes by the types as they come
            statement.note_types(parameters)
        return self.framer.command(head + data)

    def _note(self, outcome: Outcome) -> Outcome:
        self.status = outcome.status
        if outcome.status & c.SERVER_SESSION_STATE_CHANGED:
            self.session_changed = True
        return outcome

    def _results(self, statement: Statement | None = None, *, first: bytes = b"") -> Exchange[list[Result]]:
        """Reads results until the server says that no more exist; the `first` packet may have been read."""
        self._refusal = None
        results: list[Result] = []
        while True:
            head = yield from self._head(statement, first)
            first = b""
            results.append(head if isinstance(head, Result) else (yield from self._rows(head)))
            if not self.status & c.SERVER_MORE_RESULTS_EXISTS:
                break
        if self._refusal is not None:
            raise self._refusal
        return results

    def _begun(self, statement: Statement | None) -> Exchange[Answer]:
        self._refusal = None
        head = yield from self._head(statement)
        if not isinstance(head, Result):
            return Answer(head, statement, [], ended=False)
        yield from self._pass_over(statement)
        return Answer(None, statement, [], ended=True)

    def _pass_over(self, statement: Statement | None) -> Exchange[None]:
        """Reads the results that are left and drops them, without ever holding many of their rows."""
        while self.status & c.SERVER_MORE_RESULTS_EXISTS:
            head = yield from self._head(statement)
            rows: list[Row] = []
            while not isinstance(head, Result) and self._take(head, rows, some=True) is None:
                if not rows:
                    yield Need.DATA
                rows.clear()
        if self._refusal is not None:
            raise self._refusal

    def _head(self, statement: Statement | None, first: bytes = b"") -> Exchange[Result | RowReader]:
        """One result, up to its rows: the reader for them, or all of a result that has none."""
        framer = self.framer
        if statement is not None and statement.reader is not None:
            if not framer.unread:
                yield Need.DATA
            if _skip_definitions(framer, statement):
                return statement.reader
        payload = first or (yield from framer.packet())
        if payload[:1] == LOCAL_INFILE:
            yield from self._refuse_local_infile(payload)
            payload = yield from framer.packet()
        if payload[:1] == OK:
            outcome = self._note(parse_ok(payload))
            return Result((), [], outcome.affected_rows, outcome.last_insert_id, outcome.warnings)
        if payload[:1] == ERR:
            raise self._refusal or parse_err(payload)
        return (yield from self._definitions(payload, statement))

    def _definitions(self, head: bytes, statement: Statement | None) -> Exchange[RowReader]:
        """Reads column definitions; `head` is the packet that tells how many there are."""
        framer = self.framer
        fields = Payload(head)
        count = fields.lenenc_int()
        if fields.rest() or not 0 < count <= _MAX_COLUMNS:
            raise ProtocolError(f"{head[:8].hex()} starts no result")
        first_number = framer.sequence - 1
        packets = [head]
        for _ in range(count):
            packets.append((yield from framer.packet()))
        columns = [parse_column(payload) for payload in packets[1:]]
        packets += yield from self._definitions_end()
        if statement is None:
            return TextRows(columns)
        statement.reader = BinaryRows(columns)
        statement.definitions = _framed(packets, first_number)
        statement.definition_packets = len(packets)
        return statement.reader

    def _refuse_local_infile(self, payload: bytes) -> Exchange[None]:
        name = payload[1:200].decode("utf-8", "replace")
        self._refusal = NotSupportedError(
            f"the server asked for the local file {name!r}, and was given nothing",
            c.CR_LOAD_DATA_LOCAL_INFILE_REJECTED,
        )
        yield self.framer.frame(b"")

    def _definitions_end(self) -> Exchange[list[bytes]]:
        """The packets behind a list of definitions: one EOF from an old server, else none."""
        if self._deprecate_eof:
            return []
        payload = yield from self.framer.packet()
        self.status = parse_eof(payload).status
        return [payload]

    def _rows(self, reader: RowReader) -> Exchange[Result]:
        rows: list[Row] = []
        while (outcome := self._take(reader, rows)) is None:
            yield Need.DATA
        return Result(reader.columns, rows, warnings=outcome.warnings)

    def _take(self, reader: RowReader, rows: list[Row], *, some: bool = False) -> Outcome | None:
        """Takes the rows that have come, or `some` of them; when their end has come too, what it tells."""
        framer = self.framer
        while True:
            reader.take(framer, rows)
            if some and rows:
                return None
            payload = framer.next_packet()
            if payload is None:
                return None
            if payload[:1] == ERR:
                raise parse_err(payload)
            if payload[:1] == EOF and len(payload) < MAX_PAYLOAD:
                return self._note(parse_ok(payload) if self._deprecate_eof else parse_eof(payload))
            reader.take_one(payload, rows)


def _encoded(sql: str) -> bytes:
    try:
        return sql.encode()
    except UnicodeEncodeError as error:
        raise ProgrammingError(f"the statement cannot be encoded: {error}") from None


def _framed(packets: Sequence[bytes], first_number: int) -> bytes:
    """The packets as they came, headers and all."""
    numbered = enumerate(packets, first_number)
    return b"".join(HEADER.pack(len(packet) | (number & 0xFF) << 24) + packet for number, packet in numbered)


def _skip_definitions(framer: Framer, statement: Statement) -> bool:
    """Passes over the column definitions if they have come, and are the same as last time."""
    if not framer.buffer.startswith(statement.definitions, framer.position):
        return False
    framer.position += len(statement.definitions)
    framer.sequence = (framer.sequence + statement.definition_packets) & 0xFF
    return True
