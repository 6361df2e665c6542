"""Which statements can carry many rows at once, how the rows are cut into batches, and what servers make of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from coro import Coro
from coro.mysql import Connection, IntegrityError, Pool, ProgrammingError, Result
from coro.mysql.bulk import MAX_BYTES, MAX_PLACEHOLDERS, MAX_ROWS, MultiRowInsert, bulk_batches, suits_bulk
from coro.mysql.parameters import encode_parameters
from tests.mysql.sessions import through, with_connection
from tests.proxy import Proxy
from tests.services import SQLServer


@pytest.mark.parametrize(
    ("sql", "twice"),
    [
        ("INSERT INTO t (a, b) VALUES (?, ?)", "INSERT INTO t (a, b) VALUES (?, ?), (?, ?)"),
        ("insert into t values(?)", "insert into t values(?), (?)"),
        ("REPLACE INTO `a b`.t VALUE (?)", "REPLACE INTO `a b`.t VALUE (?), (?)"),
        ("INSERT IGNORE INTO t VALUES (?, NOW(6), 1)", "INSERT IGNORE INTO t VALUES (?, NOW(6), 1), (?, NOW(6), 1)"),
        (
            "INSERT INTO t (a) VALUES (?) ON DUPLICATE KEY UPDATE a = VALUES(a)",
            "INSERT INTO t (a) VALUES (?), (?) ON DUPLICATE KEY UPDATE a = VALUES(a)",
        ),
        ("INSERT INTO t VALUES (?) RETURNING id", "INSERT INTO t VALUES (?), (?) RETURNING id"),
        ("\n  INSERT INTO t (a)\n  VALUES (?)\n", "\n  INSERT INTO t (a)\n  VALUES (?), (?)\n"),
    ],
)
def test_an_insert_is_repeated_behind_values(sql: str, twice: str) -> None:
    insert = MultiRowInsert.of(sql)
    assert insert is not None
    assert insert.sql(1) == sql
    assert insert.sql(2) == twice


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE t SET a = ? WHERE b = ?",
        "DELETE FROM t WHERE a = ?",
        "INSERT INTO t SELECT ?",
        "INSERT INTO t SET a = ?",
        "INSERT INTO t VALUES (1)",
        "INSERT INTO t VALUES (?), (?)",
        "INSERT INTO t VALUES (?) ON DUPLICATE KEY UPDATE a = ?",
        "INSERT INTO t VALUES (?) RETURNING id + ?",
        "INSERT INTO t VALUES (?, ')')",
        "INSERT INTO t VALUES (?, '?')",
        "INSERT INTO t VALUES (((?)))",
        "INSERT INTO t VALUES (?); DROP TABLE t",
        "INSERTS INTO t VALUES (?)",
        "WITH x AS (SELECT 1) INSERT INTO t VALUES (?)",
    ],
)
def test_what_could_be_mistaken_is_not_repeated(sql: str) -> None:
    assert MultiRowInsert.of(sql) is None


def sizes(sql: str, rows: list[tuple[object, ...]]) -> list[int]:
    insert = MultiRowInsert.of(sql)
    assert insert is not None
    batches = list(insert.batches(rows, 1 << 24))  # type: ignore[arg-type]
    assert [row for batch in batches for row in batch] == rows
    return [len(batch) for batch in batches]


def test_no_rows_make_no_batch() -> None:
    assert sizes("INSERT INTO t VALUES (?)", []) == []


def test_a_batch_ends_after_so_many_rows() -> None:
    assert sizes("INSERT INTO t VALUES (?)", [(1,)] * (2 * MAX_ROWS + 3)) == [MAX_ROWS, MAX_ROWS, 3]


def test_a_batch_has_no_more_placeholders_than_the_protocol_can_count() -> None:
    row = (1,) * 1000
    most = MAX_PLACEHOLDERS // 1000
    assert sizes(f"INSERT INTO t VALUES ({', '.join('?' * 1000)})", [row] * (most + 1)) == [most, 1]


def test_a_batch_ends_before_its_packet_gets_too_long() -> None:
    assert sizes("INSERT INTO t VALUES (?)", [("x" * (MAX_BYTES // 2 - 100),)] * 5) == [2, 2, 1]


def test_a_row_that_is_too_long_by_itself_goes_alone() -> None:
    long, short = (b"x" * (2 * MAX_BYTES),), (b"x",)
    assert sizes("INSERT INTO t VALUES (?)", [short, long, short]) == [1, 1, 1]


def test_neither_the_statement_nor_its_values_are_longer_than_the_server_takes() -> None:
    insert = MultiRowInsert.of("INSERT INTO some_table (a, b) VALUES (?, ?)")
    assert insert is not None
    rows = [("ä" * 10, Decimal(1))] * 100
    for room in (1024, 4096):
        batches = list(insert.batches(rows, room))
        assert sum(map(len, batches)) == 100
        assert all(len(insert.sql(len(batch))) < room for batch in batches)
        assert all(len(encode_parameters([v for row in batch for v in row])) < room for batch in batches)


# --- MariaDB's command --------------------------------------------------------------------------------------


I64, NULL, TEXT = b"\x08\0", b"\x06\0", b"\xfd\0"


def one(value: int) -> bytes:
    return b"\0" + value.to_bytes(8, "little")


@pytest.mark.parametrize(
    ("rows", "batches"),
    [
        ([], []),
        ([(1, None), (2, None)], [I64 + NULL + one(1) + b"\1" + one(2) + b"\1"]),
        ([(None,), (1,), (None,)], [I64 + b"\1" + one(1) + b"\1"]),
        ([(1,), (2,), ("a",), ("b",)], [I64 + one(1) + one(2), TEXT + b"\0\1a" + b"\0\1b"]),
        ([(1,), ("a",), (None,), (2,)], [I64 + one(1), TEXT + b"\0\1a\1", I64 + one(2)]),
    ],
    ids=["none", "a column of NULL", "NULL and values", "a type that changes", "and changes back"],
)
def test_a_batch_tells_the_types_once_and_ends_where_one_changes(
    rows: list[tuple[object, ...]], batches: list[bytes]
) -> None:
    assert list(bulk_batches(rows, len(rows[0]) if rows else 1, 1 << 24)) == batches  # type: ignore[arg-type]


def test_a_batch_has_no_more_bytes_than_the_server_takes() -> None:
    lengths = [len(batch) for batch in bulk_batches([("x" * 100,)] * 50, 1, 1024)]
    assert lengths == [2 + 9 * 102] * 5 + [2 + 5 * 102]
    lengths = [len(batch) for batch in bulk_batches([("x",), ("x" * 2000,), ("x",)], 1, 1024)]
    assert [length > 1024 for length in lengths] == [False, True, False]


@pytest.mark.parametrize(
    ("sql", "suits"),
    [
        ("INSERT INTO t VALUES (?, NOW(6), ?) RETURNING id", True),
        ("INSERT INTO t VALUES (?) ON DUPLICATE KEY UPDATE a = VALUES(a)", True),
        (" delete FROM t WHERE a = ? OR b = CONCAT('x', ?)", True),
        ("UPDATE t SET a = CONCAT(a, ?)", True),
        ("INSERT INTO t VALUES (?) ON DUPLICATE KEY UPDATE a = CONCAT(a, ?)", False),
        ("INSERT INTO t VALUES (?, UPPER(?))", False),
        ("INSERT INTO t VALUES (?, (SELECT x FROM s WHERE y = ?))", False),
        ("INSERT INTO t SELECT ?", False),
        ("CALL p(?)", False),
    ],
)
def test_mariadb_gets_at_once_what_it_does_not_compute_once_for_all(sql: str, suits: bool) -> None:
    assert suits_bulk(sql, MultiRowInsert.of(sql)) is suits


# --- Servers ------------------------------------------------------------------------------------------------


def test_execute_many_counts_what_all_its_statements_did(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT)")
        inserted = yield from connection.execute_many("INSERT INTO t (a) VALUES (?)", [(n,) for n in range(2500)])
        updated = yield from connection.execute_many("UPDATE t SET a = ? WHERE id = ?", [(-1, 1), (-2, 2)])
        deleted = yield from connection.execute_many("DELETE FROM t WHERE id = ?", [(3,), (4,), (99999,)])
        assert (inserted.affected_rows, inserted.last_insert_id) == (2500, 1)
        assert (updated.affected_rows, deleted.affected_rows) == (2, 2)
        assert (yield from connection.fetch_all("SELECT a FROM t ORDER BY id LIMIT 3")) == [(-1,), (-2,), (4,)]

    with_connection(sql_database, body)


def test_mariadb_is_sent_many_rows_by_one_command_and_a_statement_that_is_kept(mariadb: SQLServer) -> None:
    def body(proxy: Proxy, pool: Pool) -> Coro[None]:
        for _ in range(3):
            yield from pool.execute_many(f"DELETE FROM {name}.t WHERE a = ?", [(n,) for n in range(1000)])
        assert proxy.requests.count(b"\x16DELETE") == 1  # COM_STMT_PREPARE
        assert len(re.findall(rb".\x23\0\0\xfa", proxy.requests, re.DOTALL)) == 3  # of 9 * 1000 bytes and some

    with mariadb.database() as name:
        mariadb.sql(f"CREATE TABLE {name}.t (a INT)")
        through(mariadb, body)


def test_execute_many_of_nothing_does_nothing(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[Result]:
        yield from connection.execute("CREATE TABLE t (a INT)")
        return (yield from connection.execute_many("INSERT INTO t VALUES (?)", []))

    assert with_connection(sql_database, body).affected_rows == 0


def test_values_of_all_types_and_null_arrive_as_they_were(sql_database: str) -> None:
    at = datetime(2026, 1, 31, 12, 34, 56, 789)
    rows = [
        (1, "ä'\\\"", b"\0\xff", 0.1, Decimal("1.50"), at, timedelta(hours=-30), date(2026, 1, 1)),
        (2, None, None, None, None, None, None, None),
        (1 << 62, "2", b"", -0.0, Decimal("-1.00"), at, timedelta(0), date(1000, 1, 1)),
    ]

    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute(
            "CREATE TABLE t"
            " (a BIGINT PRIMARY KEY, b TEXT, c BLOB, d DOUBLE, e DECIMAL(9, 2), f DATETIME(6), g TIME, h DATE)"
        )
        yield from connection.execute_many("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        assert (yield from connection.fetch_all("SELECT * FROM t ORDER BY a")) == rows

    with_connection(sql_database, body)


def test_on_duplicate_key_update_may_have_parameters_of_its_own(sql_database: str) -> None:
    sql = "INSERT INTO t VALUES (?, ?) ON DUPLICATE KEY UPDATE b = CONCAT(b, ?)"

    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT PRIMARY KEY, b TEXT)")
        yield from connection.execute_many(sql, [(1, "x", "-"), (2, "y", "-"), (1, "z", "+")])
        assert (yield from connection.fetch_all("SELECT * FROM t ORDER BY a")) == [(1, "x+"), (2, "y")]

    with_connection(sql_database, body)


def test_the_rows_of_returning_are_all_there(mariadb_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a TEXT)")
        rows = [("x" * 1000,)] * 2500
        result = yield from connection.execute_many("INSERT INTO t (a) VALUES (?) RETURNING id, LENGTH(a) AS n", rows)
        assert [size for _, size in result.rows] == [1000] * 2500
        assert result.rows == (yield from connection.fetch_all("SELECT id, LENGTH(a) FROM t ORDER BY id"))
        assert [column.name for column in result.columns] == ["id", "n"]

    with_connection(mariadb_database, body)


def test_a_value_made_of_a_parameter_is_made_anew_for_each_row(sql_database: str) -> None:
    sql = "INSERT INTO t VALUES (?, (SELECT CONCAT(UPPER(?), x.b) FROM u x WHERE x.a = ?))"

    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT PRIMARY KEY, b TEXT)")
        yield from connection.execute("CREATE TABLE u SELECT 1 AS a, 'x' AS b UNION SELECT 2, 'y'")
        yield from connection.execute_many(sql, [(1, "k", 1), (2, "l", 2)])
        yield from connection.execute_many("UPDATE t SET b = CONCAT(b, ?) WHERE a = ?", [("-", 1), ("+", 2), ("!", 1)])
        assert (yield from connection.fetch_all("SELECT * FROM t ORDER BY a")) == [(1, "Kx-!"), (2, "Ly+")]

    with_connection(sql_database, body)


@pytest.mark.parametrize("sql", ["INSERT INTO t SELECT ? WHERE 1 = 1", "CALL p(?)"])
def test_a_statement_for_which_there_is_no_bulk_is_run_row_by_row(sql_database: str, sql: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT)")
        yield from connection.execute("CREATE PROCEDURE p(IN x INT) INSERT INTO t VALUES (x)")
        yield from connection.execute_many(sql, [(n,) for n in range(5)])
        assert (yield from connection.fetch_all("SELECT a FROM t ORDER BY a")) == [(n,) for n in range(5)]

    with_connection(sql_database, body)


def test_an_error_in_one_row_is_raised_and_leaves_the_connection_in_step(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT PRIMARY KEY)")
        for _ in range(3):
            with pytest.raises(IntegrityError):
                yield from connection.execute_many("INSERT INTO t VALUES (?)", [(1,), (1,)])
        assert (yield from connection.fetch_value("SELECT COUNT(*) FROM t")) == 0
        left = "SHOW SESSION STATUS WHERE variable_name IN ('Com_stmt_prepare', 'Com_stmt_close')"
        counts: dict[str, str] = dict((yield from connection.fetch_all(left)))
        assert int(counts["Com_stmt_prepare"]) - int(counts["Com_stmt_close"]) <= 1

    with_connection(sql_database, body)


@pytest.mark.parametrize("rows", [[(1, 2), (3,)], [(1, 2, 3), (4,)]], ids=["too few", "too many, then too few"])
def test_a_row_with_the_wrong_number_of_values_is_refused(sql_database: str, rows: list[tuple[int, ...]]) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT, b INT)")
        with pytest.raises(ProgrammingError, match=r"2 parameters are due, and [13] were given"):
            yield from connection.execute_many("INSERT INTO t VALUES (?, ?)", rows)
        assert (yield from connection.fetch_value("SELECT COUNT(*) FROM t")) == 0

    with_connection(sql_database, body)


NO_ROWS = ["ab", b"ab", {"a": 1, "b": 2}, {1, 2}, 7, iter((1, 2))]


@pytest.mark.parametrize("row", NO_ROWS, ids=lambda row: type(row).__name__)
def test_what_is_no_row_is_refused(mariadb_database: str, row: Any) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a TEXT, b TEXT)")
        for sql in ("INSERT INTO t VALUES (?, ?)", "INSERT INTO t VALUES (?, UPPER(?))"):
            with pytest.raises(ProgrammingError, match=f"not a {type(row).__name__}"):
                yield from connection.execute_many(sql, [row])
        assert (yield from connection.fetch_value("SELECT COUNT(*) FROM t")) == 0

    with_connection(mariadb_database, body)


def test_the_servers_longest_packet_is_respected(own_sql_server: Callable[..., SQLServer]) -> None:
    server = own_sql_server("--max-allowed-packet=4096", "--net-buffer-length=1024")
    server.sql("CREATE DATABASE d")

    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT PRIMARY KEY, b TEXT CHARACTER SET utf8mb4)")
        rows = [(n, "ä" * 50) for n in range(500)]
        yield from connection.execute_many("INSERT INTO t VALUES (?, ?)", rows)
        assert (yield from connection.fetch_all("SELECT * FROM t ORDER BY a")) == rows

    with_connection(server.url("d"), body)
