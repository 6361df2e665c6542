"""Which statements can carry many rows at once, and how the rows are cut into batches."""

from __future__ import annotations

import pytest

from coro.mysql.bulk import MAX_BYTES, MAX_PLACEHOLDERS, MAX_ROWS, MultiRowInsert


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
        "INSERT INTO t VALUES (?) RETURNING id",
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
    batches = list(insert.batches(rows))  # type: ignore[arg-type]
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
    assert sizes("INSERT INTO t VALUES (?)", [("x" * (MAX_BYTES // 2),)] * 5) == [2, 2, 1]


def test_a_row_that_is_too_long_by_itself_goes_alone() -> None:
    long, short = (b"x" * (2 * MAX_BYTES),), (b"x",)
    assert sizes("INSERT INTO t VALUES (?)", [short, long, short]) == [1, 1, 1]
