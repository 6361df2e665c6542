"""The command phase: what is asked, and that an answer is read to its end whatever it holds."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import pytest

from coro.mysql import constants as c
from coro.mysql.commands import CommandPhase, Result, Statement
from coro.mysql.errors import (
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    ProtocolError,
)
from coro.mysql.packets import MAX_PAYLOAD, Framer, lenenc
from tests.mysql.wire import (
    AUTOCOMMIT,
    MODERN,
    OLD,
    binary_row,
    column,
    eof,
    err,
    every_way,
    ok,
    packets,
    play,
    play_every_way,
    prepared,
    result_set,
    rows_end,
    text_row,
)

MORE = AUTOCOMMIT | c.SERVER_MORE_RESULTS_EXISTS
ID = column("id", c.MYSQL_TYPE_LONG, charset=63)
NAME = column("name", c.MYSQL_TYPE_VAR_STRING)
TWO_ROWS = result_set([ID, NAME], [text_row(b"1", b"anna"), text_row(b"-2", None)])


def i32(value: int) -> bytes:
    return struct.pack("<i", value)


class Client:
    """A command phase, and the server's answers put in its way."""

    def __init__(self, capabilities: int = MODERN) -> None:
        self.framer = Framer()
        self.phase = CommandPhase(self.framer, capabilities, AUTOCOMMIT)
        self.sent: list[Any] = []

    def query(self, *answer: bytes) -> list[Result]:
        results, self.sent = play(self.phase.query("SELECT 1"), self.framer, [packets(*answer)])
        return results

    def prepare(self, *answer: bytes) -> Statement:
        statement, self.sent = play(self.phase.prepare("SELECT ?"), self.framer, [packets(*answer)])
        return statement

    def execute(self, statement: Statement, parameters: Sequence[Any], *pieces: bytes) -> list[Result]:
        results, self.sent = play(self.phase.execute(statement, parameters), self.framer, pieces)
        return results

    def is_in_step(self) -> bool:
        """Whether a ping, sent now, gets its own answer."""
        play(self.phase.ping(), self.framer, [packets(ok())])
        return self.framer.unread == 0


# --- Requests ------------------------------------------------------------------------------


def test_a_query_is_sent_as_it_is() -> None:
    client = Client()
    client.query(ok())
    assert client.sent == [b"\x09\0\0\0\x03SELECT 1"]


def test_a_ping_is_one_byte() -> None:
    framer = Framer()
    phase = CommandPhase(framer, MODERN, 0)
    _, sent = play(phase.ping(), framer, [packets(ok())])
    assert sent == [b"\x01\0\0\0\x0e"]
    assert phase.status == AUTOCOMMIT


def test_a_statement_is_closed_by_its_number() -> None:
    client = Client()
    statement = Statement("SELECT ?", 0x01020304, 1)
    assert client.phase.close_statement(statement) == b"\x05\0\0\0\x19\x04\x03\x02\x01"


@pytest.mark.parametrize("sql", [b"SELECT 1", None])
def test_sql_that_is_no_str_is_refused(sql: Any) -> None:
    phase = CommandPhase(Framer(), MODERN, 0)
    for exchange in (phase.query(sql), phase.prepare(sql)):
        with pytest.raises(ProgrammingError, match=f"a statement is a str, not a {type(sql).__name__}"):
            next(exchange)


def test_sql_that_is_no_text_is_refused_before_anything_is_sent() -> None:
    client = Client()
    with pytest.raises(ProgrammingError, match="cannot be encoded"):
        play(client.phase.query("SELECT '\ud800'"), client.framer, [])
    assert client.is_in_step()


# --- Text results -----------------------------------------------------------------------------


def test_ok_tells_what_a_statement_did() -> None:
    [result] = Client().query(ok(affected=300, insert_id=2**40, warnings=2))
    assert (result.affected_rows, result.last_insert_id, result.warnings) == (300, 2**40, 2)
    assert (result.columns, result.rows) == ((), [])


def test_rows_come_as_tuples_with_their_columns() -> None:
    [result] = Client().query(*TWO_ROWS)
    assert result.rows == [(1, "anna"), (-2, None)]
    assert [(column.name, column.type) for column in result.columns] == [
        ("id", c.MYSQL_TYPE_LONG),
        ("name", c.MYSQL_TYPE_VAR_STRING),
    ]


def test_a_result_is_the_same_however_its_bytes_come() -> None:
    def query(framer: Framer) -> Any:
        return CommandPhase(framer, MODERN, 0).query("SELECT 1")

    for [result] in play_every_way(query, packets(*TWO_ROWS)):
        assert result.rows == [(1, "anna"), (-2, None)]


def test_bytes_behind_an_answer_are_left_alone() -> None:
    client = Client()
    client.query(*TWO_ROWS, b"more")
    assert client.framer.unread == 4 + len(b"more")
    with pytest.raises(ProtocolError, match="answers no command"):
        client.query(ok())


def test_an_empty_result_has_columns_and_no_rows() -> None:
    [result] = Client().query(*result_set([ID], []))
    assert (len(result.columns), result.rows) == (1, [])


def test_a_server_of_before_deprecate_eof_is_understood() -> None:
    [result] = Client(OLD).query(b"\x02", ID, NAME, eof(), text_row(b"1", b"anna"), eof(warnings=3))
    assert (result.rows, result.warnings) == ([(1, "anna")], 3)


def test_a_row_that_starts_like_an_end_is_a_row() -> None:
    """A cell of 16 MiB has a length that starts with 0xFE, as the end of the rows does."""
    big = b"\xfe" + struct.pack("<Q", 1 << 24) + bytes(1 << 24)
    data = column("data", c.MYSQL_TYPE_LONG_BLOB, charset=63)
    first, second = big[:MAX_PAYLOAD], big[MAX_PAYLOAD:]
    [result] = Client().query(b"\x01", data, first, second, rows_end())
    assert result.rows == [(bytes(1 << 24),)]


def test_short_and_long_rows_stand_in_their_order() -> None:
    data = column("data", c.MYSQL_TYPE_LONG_BLOB, charset=63)
    long_cell = b"\xfd" + struct.pack("<I", MAX_PAYLOAD - 4)[:3] + bytes(MAX_PAYLOAD - 4)  # exactly one full packet
    [result] = Client().query(b"\x01", data, text_row(b"a"), long_cell, b"", text_row(b"z"), rows_end())
    assert [len(row[0]) for row in result.rows] == [1, MAX_PAYLOAD - 4, 1]


def test_a_long_row_may_come_a_packet_at_a_time() -> None:
    data = column("data", c.MYSQL_TYPE_LONG_BLOB, charset=63)
    row = b"\xfe" + struct.pack("<Q", MAX_PAYLOAD) + bytes(MAX_PAYLOAD)
    client = Client()
    pieces = [
        packets(b"\x01", data, row[:MAX_PAYLOAD]),
        packets(row[MAX_PAYLOAD:], first=4),
        packets(rows_end(), first=5),
    ]
    [result], _ = play(client.phase.query("SELECT 1"), client.framer, pieces)
    assert result.rows == [(bytes(MAX_PAYLOAD),)]


def test_a_row_out_of_sequence_is_refused() -> None:
    client = Client()
    answer = packets(b"\x01", ID, text_row(b"1")) + packets(text_row(b"2"), rows_end(), first=5)
    with pytest.raises(ProtocolError, match="sequence number 5 where 4 was due"):
        play(client.phase.query("SELECT 1"), client.framer, [answer])


def test_more_than_255_rows_go_round_the_sequence_numbers() -> None:
    rows = [text_row(b"%d" % number) for number in range(1000)]
    [result] = Client().query(*result_set([ID], rows))
    assert result.rows == [(number,) for number in range(1000)]


def test_every_result_of_a_procedure_is_read() -> None:
    client = Client()
    results = client.query(
        *result_set([ID], [text_row(b"1")], MORE), *result_set([NAME], [text_row(b"x")], MORE), ok(affected=5)
    )
    assert [result.rows for result in results] == [[(1,)], [("x",)], []]
    assert results[-1].affected_rows == 5
    assert client.is_in_step()


# --- Errors --------------------------------------------------------------------------------------


def test_an_error_is_raised_under_its_class_and_leaves_the_connection_in_step() -> None:
    client = Client()
    with pytest.raises(IntegrityError, match="Duplicate entry") as caught:
        client.query(err(1062, "Duplicate entry", "23000"))
    assert (caught.value.code, caught.value.sqlstate) == (1062, "23000")
    assert client.is_in_step()


def test_an_error_after_some_rows_is_raised_and_leaves_the_connection_in_step() -> None:
    client = Client()
    with pytest.raises(ProgrammingError):
        client.query(b"\x01", ID, text_row(b"1"), err(1054, "Unknown column", "42S22"))
    assert client.is_in_step()


def test_an_error_after_some_results_is_raised_and_leaves_the_connection_in_step() -> None:
    client = Client()
    with pytest.raises(ProgrammingError):
        client.query(*result_set([ID], [], MORE), err(1054, "Unknown column", "42S22"))
    assert client.is_in_step()


@pytest.mark.parametrize(
    "answer",
    [
        [b""],
        [b"\0"],
        [b"\0\0\0\0"],
        [b"\xff\x01"],
        [b"\xfb/etc/passwd", b"\x01"],
        [b"\x00\xfb\0\0\0\0\0"],
        [b"\x01extra"],
        [b"\xfc\x00"],
        [b"\xfe" + struct.pack("<Q", 2**62)],
        [b"\x01", b"\x03def"],
        [b"\x01", ID[:-4]],
        [b"\x01", ID, b""],
        [b"\x01", ID, b"", rows_end()],
        [b"\x01", ID, text_row(b"1", b"2")],
        [b"\x01", ID, b"\x05" + b"1"],
        [b"\x01", ID, b"\xfc\x05"],
        [b"\x01", ID, b"\xfd" + b"\xff" * 3 + b"1"],
        [b"\x01", ID, text_row(b"x")],
        [b"\x01", NAME, text_row(b"\xff\xff")],
        [b"\x01", column("d", c.MYSQL_TYPE_NEWDECIMAL), text_row(b"1.2.3")],
        [b"\x01", column("d", c.MYSQL_TYPE_DATE), text_row(b"tomorrow")],
        [b"\x01", column("d", c.MYSQL_TYPE_TIME), text_row(b"noon")],
        [b"\x01", ID, b"\xfe\0\0"],
    ],
    ids=lambda answer: b"|".join(answer)[-24:].hex(),
)
def test_an_answer_out_of_protocol_is_refused(answer: list[bytes]) -> None:
    for pieces in every_way(packets(*answer)):
        client = Client()
        with pytest.raises(ProtocolError):
            play(client.phase.query("SELECT 1"), client.framer, pieces)


# --- LOAD DATA LOCAL INFILE ---------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", [ok(), err(1148, "not allowed", "42000")])
def test_a_server_that_asks_for_a_local_file_gets_an_empty_packet(verdict: bytes) -> None:
    client = Client()
    exchange = client.phase.query("SELECT 1")
    query = next(exchange)
    next(exchange)
    client.framer.feed(packets(b"\xfb/etc/passwd"))
    assert next(exchange) == b"\0\0\0\x02"
    client.framer.feed(packets(verdict, first=3))
    with pytest.raises(NotSupportedError, match="local file '/etc/passwd'"):
        next(exchange)
    assert query == b"\x09\0\0\0\x03SELECT 1"
    assert client.query(*TWO_ROWS)[0].rows == [(1, "anna"), (-2, None)]


# --- Prepared statements ----------------------------------------------------------------------------


def test_a_statement_is_prepared_and_its_definitions_are_passed_over() -> None:
    client = Client()
    statement = client.prepare(*prepared(0x01020304, columns=2, parameters=1))
    assert (statement.id, statement.parameter_count) == (0x01020304, 1)
    assert client.sent == [b"\x09\0\0\0\x16SELECT ?"]
    assert client.is_in_step()


def test_a_statement_of_an_old_server_has_eof_packets_behind_its_definitions() -> None:
    client = Client(OLD)
    head, parameter, *_ = prepared(1, columns=1, parameters=1)
    assert client.prepare(head, parameter, eof(), ID, eof()).parameter_count == 1
    assert client.is_in_step()


def test_a_statement_that_cannot_be_prepared_raises_the_servers_error() -> None:
    client = Client()
    with pytest.raises(ProgrammingError, match="syntax"):
        client.prepare(err(1064, "syntax", "42000"))
    assert client.is_in_step()


@pytest.mark.parametrize("answer", [b"", b"\0\1\2", b"\x01" + bytes(11)])
def test_an_answer_to_prepare_out_of_protocol_is_refused(answer: bytes) -> None:
    with pytest.raises(ProtocolError):
        Client().prepare(answer)


def test_an_execution_names_the_statement_and_carries_the_parameters() -> None:
    client = Client()
    client.execute(Statement("", 7, 2), (None, "x"), packets(ok(affected=1)))
    head = b"\x17" + struct.pack("<IBI", 7, 0, 1)
    assert client.sent[0][4:] == head + b"\x01" + b"\x01" + b"\x06\0\xfd\0" + b"\x01x"


def test_an_execution_without_parameters_has_no_part_for_them() -> None:
    client = Client()
    client.execute(Statement("", 7, 0), (), packets(ok()))
    assert client.sent[0][4:] == b"\x17" + struct.pack("<IBI", 7, 0, 1)


def test_the_wrong_number_of_parameters_is_refused_before_anything_is_sent() -> None:
    client = Client()
    with pytest.raises(ProgrammingError, match="1 parameters are due, and 2 were given"):
        client.execute(Statement("", 7, 1), (1, 2))
    assert client.is_in_step()


ROWS = [binary_row(i32(1), lenenc(b"anna")), binary_row(None, lenenc(b"x" * 300)), binary_row(i32(-2), None)]
EXPECTED = [(1, "anna"), (None, "x" * 300), (-2, None)]


def test_binary_rows_come_as_the_same_tuples_as_text_rows() -> None:
    [result] = Client().execute(Statement("", 7, 0), (), packets(*result_set([ID, NAME], ROWS)))
    assert result.rows == EXPECTED


@pytest.mark.parametrize("pieces", every_way(packets(*result_set([ID, NAME], ROWS)))[1:], ids=len)
def test_a_second_execution_reads_the_same_however_its_bytes_come(pieces: list[bytes]) -> None:
    client = Client()
    statement = Statement("", 7, 0)
    client.execute(statement, (), packets(*result_set([ID, NAME], ROWS)))
    [result] = client.execute(statement, (), *pieces)
    assert result.rows == EXPECTED
    assert client.is_in_step()


def test_definitions_that_are_the_same_as_last_time_are_not_read_again() -> None:
    client = Client()
    statement = Statement("", 7, 0)
    answer = packets(*result_set([ID, NAME], ROWS))
    client.execute(statement, (), answer)
    reader = statement.reader
    [result] = client.execute(statement, (), answer)
    assert statement.reader is reader
    assert result.columns[1].name == "name"


def test_definitions_that_have_changed_are_read_again() -> None:
    client = Client()
    statement = Statement("", 7, 0)
    client.execute(statement, (), packets(*result_set([ID, NAME], ROWS)))
    [result] = client.execute(statement, (), packets(*result_set([NAME], [binary_row(lenenc(b"new"))])))
    assert result.rows == [("new",)]


def test_a_statement_that_had_rows_may_have_none_the_next_time() -> None:
    client = Client()
    statement = Statement("", 7, 0)
    client.execute(statement, (), packets(*result_set([ID, NAME], ROWS)))
    with pytest.raises(ProgrammingError):
        client.execute(statement, (), packets(err(1146, "no such table", "42S02")))
    assert client.execute(statement, (), packets(ok(affected=3)))[0].affected_rows == 3
    assert client.is_in_step()


def test_nulls_are_found_in_every_one_of_many_columns() -> None:
    columns = [column(f"c{number}", c.MYSQL_TYPE_TINY) for number in range(20)]
    for hole in range(20):
        cells = [None if number == hole else bytes([number]) for number in range(20)]
        answer = packets(*result_set(columns, [binary_row(*cells)]))
        [result] = Client().execute(Statement("", 7, 0), (), answer)
        assert result.rows == [tuple(None if number == hole else number for number in range(20))]


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"\0",
        b"\x01\0" + i32(1) + b"\x01x",
        b"\0\0" + i32(1),
        b"\0\0" + i32(1) + b"\x02x",
        b"\0\0" + i32(1) + b"\x01xy",
        b"\0\0" + i32(1) + b"\xfd\xff\xff\xff" + b"x",
        b"\0\x04" + b"\x02x",
    ],
)
def test_a_binary_row_out_of_protocol_is_refused(row: bytes) -> None:
    for pieces in every_way(packets(b"\x02", ID, NAME, row)):
        with pytest.raises(ProtocolError):
            Client().execute(Statement("", 7, 0), (), *pieces)


# --- Transactions ------------------------------------------------------------------------------------


def test_the_status_flags_tell_whether_a_transaction_is_open() -> None:
    client = Client()
    client.query(ok(status=c.SERVER_STATUS_IN_TRANS))
    assert client.phase.in_transaction
    client.query(*result_set([ID], [], c.SERVER_STATUS_IN_TRANS | c.SERVER_STATUS_IN_TRANS_READONLY))
    assert client.phase.in_transaction
    client.query(ok())
    assert not client.phase.in_transaction
