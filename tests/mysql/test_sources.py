"""Data sent in pieces: LOAD DATA LOCAL, and long parameters."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import coro
from coro import BusyError, Coro
from coro.mysql import (
    Connection,
    DatabaseError,
    DataError,
    IntegrityError,
    LongData,
    NotSupportedError,
    ProgrammingError,
)
from coro.mysql import constants as c
from coro.mysql.commands import CommandPhase, Statement
from coro.mysql.handshake import Login, login
from coro.mysql.packets import Framer
from coro.mysql.sources import PIECE, Source, pieces
from coro.mysql.url import parse_url
from tests.mysql.sessions import with_connection
from tests.mysql.wire import MODERN, err, greeting, ok, packet, packets, play
from tests.services import SQLServer

LOAD = "LOAD DATA LOCAL INFILE 'x' INTO TABLE t CHARACTER SET utf8mb4"


def reader(*parts: bytes) -> Callable[[], Coro[bytes]]:
    """As the `read` of a stream: waits, then returns the next part."""
    rest = list(parts)

    def read() -> Coro[bytes]:
        yield from coro.checkpoint()
        return rest.pop(0) if rest else b""

    return read


def read_all(source: Source) -> list[bytes]:
    def main() -> Coro[list[bytes]]:
        read = pieces(source)
        found = []
        while piece := (yield from read()):
            found.append(piece)
        return found

    return coro.run(main())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"abc", [b"abc"]),
        (bytearray(b"abc"), [b"abc"]),
        (memoryview(b"abc"), [b"abc"]),
        (b"", []),
        ([b"a", b"", b"b"], [b"a", b"b"]),
        (iter([b"a", b"b"]), [b"a", b"b"]),
        (reader(b"a", b"b"), [b"a", b"b"]),
    ],
    ids=["bytes", "bytearray", "memoryview", "empty", "list", "iterator", "reader"],
)
def test_a_source_is_bytes_or_pieces_or_a_function_that_waits_for_them(source: Source, expected: list[bytes]) -> None:
    assert read_all(source) == expected


def test_a_text_is_no_source() -> None:
    with pytest.raises(ProgrammingError, match="encode a text, open a file"):
        pieces("/etc/passwd")  # type: ignore[arg-type]


# --- LOAD DATA LOCAL ----------------------------------------------------------------------------------------


@pytest.fixture
def loading(sql_server: SQLServer) -> Iterator[str]:
    """The URL of a database with a table `t`, on a server that takes LOAD DATA LOCAL."""
    sql_server.sql("SET GLOBAL local_infile = 1")
    with sql_server.database() as name:
        columns = "(a INT PRIMARY KEY, b VARCHAR(255))"
        sql_server.sql(f"CREATE TABLE {name}.t {columns} CHARACTER SET utf8mb4 ENGINE = InnoDB")
        yield sql_server.url(name) + "?local-infile=true"


def lines(start: int, end: int) -> bytes:
    return b"".join(b"%d\tl\xc3\xa4ne %d\n" % (number, number) for number in range(start, end))


def as_pieces() -> Iterator[bytes]:
    for start in range(0, 50_000, 500):
        yield lines(start, start + 500)


def as_a_reader() -> Source:
    return reader(lines(0, 1), lines(1, 49_999), lines(49_999, 50_000))


def as_bytes() -> Source:
    return lines(0, 50_000)


@pytest.mark.parametrize("source", [as_bytes, as_pieces, as_a_reader])
@pytest.mark.parametrize("query", ["", "&compress=zlib"])
def test_data_are_loaded(loading: str, source: Callable[[], Source], query: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        result = yield from connection.load_data(LOAD, source())
        assert result.affected_rows == 50_000
        assert (yield from connection.fetch_one("SELECT COUNT(*), SUM(a) FROM t")) == (50_000, 50_000 * 49_999 // 2)
        assert (yield from connection.fetch_value("SELECT b FROM t WHERE a = ?", 7)) == "läne 7"

    with_connection(loading + query, body)


def test_nothing_is_loaded_from_no_data(loading: str) -> None:
    assert with_connection(loading, lambda connection: connection.load_data(LOAD, b"")).affected_rows == 0


def test_an_error_of_the_server_comes_when_all_is_sent(loading: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        with pytest.raises(DatabaseError, match="more than 1 row"):
            yield from connection.load_data(LOAD + " (@a, b) SET a = (SELECT 1 UNION ALL SELECT 2)", lines(1, 50_000))
        with pytest.raises(ProgrammingError, match="nowhere"):
            yield from connection.load_data("LOAD DATA LOCAL INFILE 'x' INTO TABLE nowhere", b"1")
        assert (yield from connection.fetch_value("SELECT COUNT(*) FROM t")) == 0

    with_connection(loading, body)


def test_a_source_that_fails_closes_the_connection_and_undoes(loading: str) -> None:
    def failing() -> Iterator[bytes]:
        yield lines(0, 10_000)
        raise OSError("the disk is gone")

    def body(connection: Connection) -> Coro[None]:
        with pytest.raises(OSError, match="the disk is gone"):
            yield from connection.load_data(LOAD, failing())
        assert connection.closed

    with_connection(loading, body)
    assert with_connection(loading, lambda connection: connection.fetch_value("SELECT COUNT(*) FROM t")) == 0


def test_nothing_else_can_be_asked_while_data_are_loaded(loading: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        def asks() -> Coro[bytes]:
            with pytest.raises(BusyError, match="LOAD DATA LOCAL"):
                yield from connection.ping()
            return b""

        yield from connection.load_data(LOAD, asks)
        yield from connection.ping()

    with_connection(loading, body)


def test_a_statement_that_asks_for_no_data_is_an_error(loading: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        with pytest.raises(ProgrammingError, match="asked for no data"):
            yield from connection.load_data("SELECT 1", b"1")
        assert (yield from connection.fetch_value("SELECT 7")) == 7

    with_connection(loading, body)


def test_no_file_is_sent_even_where_loading_is_allowed(loading: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        with pytest.raises(NotSupportedError, match="'/etc/passwd', and was given nothing"):
            yield from connection.execute("LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE t")
        assert (yield from connection.fetch_value("SELECT COUNT(*) FROM t")) == 0

    with_connection(loading, body)


def test_loading_has_to_be_allowed_in_the_url(sql_database: str) -> None:
    assert parse_url(sql_database + "?local-infile=true").local_infile

    def body(connection: Connection) -> Coro[None]:
        with pytest.raises(ProgrammingError, match="local-infile=true"):
            yield from connection.load_data(LOAD, b"1")
        yield from connection.ping()

    with_connection(sql_database, body)


@pytest.mark.parametrize("allowed", [False, True])
def test_the_login_offers_local_files_only_where_that_is_asked_for(allowed: bool) -> None:
    framer = Framer()
    answer = packet(greeting(), 0), packet(ok(), 2)
    session, _ = play(login(framer, Login("anna", local_infile=allowed)), framer, answer)
    assert bool(session.capabilities & c.CLIENT_LOCAL_FILES) == allowed


def test_the_data_go_out_in_answer_to_the_question_and_an_empty_packet_ends_them() -> None:
    framer = Framer()
    phase = CommandPhase(framer, MODERN, 0)

    def load() -> Any:
        assert (yield from phase.begin_load("LOAD")) is None
        yield from phase.send_data(b"1\n")
        yield from phase.send_data(b"2\n")
        return (yield from phase.end_load())

    replies = [packets(b"\xfb/etc/passwd"), packets(ok(affected=2), first=5)]
    [result], sent = play(load(), framer, replies)
    assert result.affected_rows == 2
    assert sent[1:] == [b"\2\0\0\x02" + b"1\n", b"\2\0\0\x03" + b"2\n", b"\0\0\0\x04"]


def test_a_second_question_is_refused() -> None:
    framer = Framer()
    phase = CommandPhase(framer, MODERN, 0)

    def load() -> Any:
        yield from phase.begin_load("LOAD")
        return (yield from phase.end_load())

    replies = [packets(b"\xfbx"), packets(b"\xfb/etc/passwd", first=3), packets(ok(), first=5)]
    with pytest.raises(NotSupportedError, match="'/etc/passwd', and was given nothing"):
        play(load(), framer, replies)


# --- Long parameters ----------------------------------------------------------------------------------------

BIG = hashlib.shake_128(b"").digest(3 * PIECE + 5)


IN_PIECES = [lambda: BIG, lambda: [BIG[:7], BIG[7:]], lambda: reader(BIG[:-1], BIG[-1:])]


@pytest.mark.parametrize("source", IN_PIECES, ids=["bytes", "list", "reader"])
def test_a_long_parameter_is_sent_ahead_in_pieces(sql_database: str, source: Callable[[], Source]) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT, b LONGBLOB, c LONGBLOB)")
        for number in range(2):
            values = (number, LongData(source()), LongData(b""))
            result = yield from connection.execute("INSERT INTO t VALUES (?, ?, ?)", *values)
            assert result.affected_rows == 1
        assert (yield from connection.fetch_all("SELECT b, c FROM t")) == [(BIG, b"")] * 2
        yield from connection.execute("INSERT INTO t VALUES (?, ?, ?)", 3, "short", None)
        assert (yield from connection.fetch_one("SELECT b, c FROM t WHERE a = 3")) == (b"short", None)

    with_connection(sql_database, body)


def test_a_piece_that_is_text_is_refused(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        texts: Any = [b"half", "text"]
        with pytest.raises(ProgrammingError, match="a piece of the data is bytes, not a str"):
            yield from connection.execute("SELECT ?", LongData(texts))
        assert (yield from connection.fetch_value("SELECT LENGTH(?)", LongData(b"x"))) == 1

    with_connection(sql_database, body)


def test_a_source_that_fails_leaves_the_connection_open_and_the_statement_clean(sql_database: str) -> None:
    def failing() -> Iterator[bytes]:
        yield b"half"
        raise OSError("the disk is gone")

    def body(connection: Connection) -> Coro[None]:
        sql = "SELECT CAST(? AS BINARY)"
        with pytest.raises(OSError, match="the disk is gone"):
            yield from connection.fetch_value(sql, LongData(failing()))
        assert (yield from connection.fetch_value(sql, b"x")) == b"x"
        assert (yield from connection.fetch_value(sql, LongData(b"y"))) == b"y"

    with_connection(sql_database, body)


def test_long_data_that_cannot_be_stored_are_the_servers_error(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT PRIMARY KEY, b TINYBLOB)")
        yield from connection.execute("INSERT INTO t VALUES (1, '')")
        with pytest.raises(IntegrityError):
            yield from connection.execute("INSERT INTO t VALUES (?, ?)", 1, LongData(b"x"))
        with pytest.raises(DatabaseError):
            yield from connection.execute("INSERT INTO t VALUES (?, ?)", 2, LongData(bytes(1000)))
        yield from connection.execute("INSERT INTO t VALUES (?, ?)", 2, LongData(b"x"))

    with_connection(sql_database, body)


def test_long_data_can_be_used_once_and_not_for_many_rows(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        used = LongData(b"x")
        assert (yield from connection.fetch_value("SELECT LENGTH(?)", used)) == 1
        with pytest.raises(ProgrammingError, match="parameter 1: LongData can be used once"):
            yield from connection.fetch_value("SELECT LENGTH(?)", used)
        yield from connection.execute("CREATE TABLE t (a BLOB)")
        with pytest.raises(DataError, match="LongData goes by `execute`"):
            yield from connection.execute_many("INSERT INTO t VALUES (?)", [(LongData(b"x"),)])
        assert (yield from connection.fetch_value("SELECT COUNT(*) FROM t")) == 0

    with_connection(sql_database, body)


def test_a_piece_names_the_statement_and_the_parameter() -> None:
    framer = Framer()
    phase = CommandPhase(framer, MODERN, 0)
    _, sent = play(phase.send_long_data(Statement("", 7, 2), 1, b"abc"), framer, [])
    assert sent == [b"\x0a\0\0\0\x18" + struct.pack("<IH", 7, 1) + b"abc"]


def test_an_error_before_the_data_is_the_servers() -> None:
    framer = Framer()
    phase = CommandPhase(framer, MODERN, 0)
    with pytest.raises(ProgrammingError, match="not allowed"):
        play(phase.begin_load("LOAD"), framer, [packets(err(1148, "not allowed", "42000"))])
