"""Values written to and read from real servers: every type, both protocols, any length."""

from __future__ import annotations

import hashlib
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coro import Coro
from coro.mysql import Connection, OperationalError, Parameter
from coro.mysql.packets import MAX_PAYLOAD
from tests.mysql.sessions import with_connection
from tests.services import SQLServer

LONGEST_TIME = timedelta(hours=838, minutes=59, seconds=59)
NOW = datetime(2026, 1, 31, 12, 34, 56, 123456)

EVERY_TYPE: list[tuple[str, Parameter]] = [
    ("TINYINT", -128),
    ("TINYINT UNSIGNED", 255),
    ("SMALLINT", -(2**15)),
    ("SMALLINT UNSIGNED", 2**16 - 1),
    ("MEDIUMINT", -(2**23)),
    ("MEDIUMINT UNSIGNED", 2**24 - 1),
    ("INT", -(2**31)),
    ("INT UNSIGNED", 2**32 - 1),
    ("BIGINT", -(2**63)),
    ("BIGINT UNSIGNED", 2**64 - 1),
    ("BOOLEAN", 1),
    ("YEAR", 2026),
    ("BIT(1)", 1),
    ("BIT(64)", 2**64 - 1),
    ("FLOAT", 1.5),
    ("DOUBLE", 0.1),
    ("DECIMAL(65, 30)", Decimal("-12345678901234567890123456789012345.000000000000000000000000000001")),
    ("CHAR(10)", "ä😀"),
    ("VARCHAR(255)", ""),
    ("TEXT", "text " * 10_000),
    ("LONGTEXT", "'\"\\\0?%s"),
    ("BINARY(4)", b"\xff\0\0\0"),
    ("VARBINARY(255)", bytes(range(255))),
    ("BLOB", b""),
    ("LONGBLOB", b"\xff\xfe" * 40_000),
    ("DATE", date(1000, 1, 1)),
    ("DATE", date(9999, 12, 31)),
    ("DATETIME", datetime(2026, 1, 31, 12, 34, 56)),
    ("DATETIME(6)", NOW),
    ("DATETIME(3)", datetime(2026, 1, 31, 12, 34, 56, 123000)),
    ("DATETIME(6)", datetime(2026, 1, 31)),
    ("TIMESTAMP(6) NULL", NOW),
    ("TIME", LONGEST_TIME),
    ("TIME", -LONGEST_TIME),
    ("TIME(6)", timedelta(microseconds=-1)),
    ("TIME(6)", timedelta(hours=30, microseconds=500_000)),
    ("ENUM('x', 'ä')", "ä"),
    ("SET('a', 'b', 'c')", "a,c"),
    ("JSON", '{"ä": [1, 2.5, null]}'),
]


def stored(connection: Connection, kind: str, value: Parameter) -> Coro[list[Any]]:
    """A value written as a parameter and read back: by the text protocol, then by the binary protocol; twice each."""
    yield from connection.execute("DROP TEMPORARY TABLE IF EXISTS v")
    yield from connection.execute(f"CREATE TEMPORARY TABLE v (v {kind}) CHARACTER SET utf8mb4")
    yield from connection.execute("INSERT INTO v VALUES (?)", value)
    found = []
    for _ in range(2):
        found.append((yield from connection.fetch_value("SELECT v FROM v")))
        found.append((yield from connection.fetch_value("SELECT v FROM v WHERE ? = 1", 1)))
    return found


@pytest.mark.parametrize(("kind", "value"), EVERY_TYPE, ids=lambda item: str(item)[:20])
def test_every_type_comes_back_in_both_protocols(sql_database: str, kind: str, value: Parameter) -> None:
    found = with_connection(sql_database, lambda connection: stored(connection, kind, value))
    assert found == [value] * 4
    assert {type(item) for item in found} == {type(value)}


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in EVERY_TYPE}))
def test_null_comes_back_as_none_in_both_protocols(sql_database: str, kind: str) -> None:
    assert with_connection(sql_database, lambda connection: stored(connection, kind, None)) == [None] * 4


def test_a_geometry_is_its_bytes_in_both_protocols(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[list[Any]]:
        point = "SELECT ST_GeomFromText('POINT(1 2)') WHERE 1 = "
        return [(yield from connection.fetch_value(point + "1")), (yield from connection.fetch_value(point + "?", 1))]

    text, binary = with_connection(sql_database, body)
    assert isinstance(text, bytes)
    assert len(text) == 25
    assert text == binary


def test_a_zero_date_is_none_in_both_protocols(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[list[Any]]:
        yield from connection.execute("SET sql_mode = ''")
        return (yield from stored(connection, "DATETIME", "0000-00-00 00:00:00"))

    assert with_connection(sql_database, body) == [None] * 4


def test_a_float_has_six_digits_in_the_text_protocol_and_all_of_them_in_the_binary_protocol(sql_database: str) -> None:
    found = with_connection(sql_database, lambda connection: stored(connection, "FLOAT", 16777215.0))
    assert found == [16777200.0, 16777215.0] * 2


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.floats(-1e300, 1e300, allow_subnormal=False),
            st.none() | st.text(st.characters(exclude_categories=["Cs"])),
            st.none() | st.binary(),
            st.none() | st.datetimes(datetime(1000, 1, 1)),
            st.none() | st.timedeltas(timedelta(hours=-838), timedelta(hours=838)),  # MySQL 9 takes no fractions beyond
            st.none() | st.decimals(-(10**20), 10**20, places=10),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_rows_of_any_values_come_back_in_both_protocols(sql_database: str, rows: list[tuple[Parameter, ...]]) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute(
            "CREATE TEMPORARY TABLE v (n INT AUTO_INCREMENT PRIMARY KEY, i BIGINT, f DOUBLE, t LONGTEXT, b LONGBLOB,"
            " d DATETIME(6), s TIME(6), e DECIMAL(40, 10)) CHARACTER SET utf8mb4"
        )
        yield from connection.execute_many("INSERT INTO v (i, f, t, b, d, s, e) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        select = "SELECT i, f, t, b, d, s, e FROM v ORDER BY n"
        assert (yield from connection.fetch_all(select)) == rows
        assert (yield from connection.fetch_all(select + " LIMIT ?", len(rows))) == rows

    with_connection(sql_database, body)


@pytest.mark.parametrize("mode", ["NO_BACKSLASH_ESCAPES", "ANSI_QUOTES", ""])
def test_a_parameter_is_never_taken_for_sql(sql_database: str, mode: str) -> None:
    evil = "\\'; DROP TABLE t; -- \" ` ? %s \0 \n"

    def body(connection: Connection) -> Coro[Any]:
        yield from connection.execute(f"SET sql_mode = '{mode}'")
        return (yield from stored(connection, "TEXT", evil))

    assert with_connection(sql_database, body) == [evil] * 4


# --- Long packets -------------------------------------------------------------------------------------------

# The lengths at which a command (18 bytes more than the value), and a row (6 bytes more), just fill a packet
EDGES = [MAX_PAYLOAD - 18 + step for step in (-1, 0, 1)] + [MAX_PAYLOAD - 6 + step for step in (-1, 0, 1)]


@pytest.mark.parametrize("size", [*EDGES, (16 << 20) - 1, 16 << 20, 17 << 20, 33 << 20])
def test_long_values_pass_both_ways(sql_database: str, size: int) -> None:
    data = hashlib.shake_128(b"%d" % size).digest(1 << 20) * (size // (1 << 20) + 1)

    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TEMPORARY TABLE t (a LONGBLOB)")
        yield from connection.execute("INSERT INTO t VALUES (?)", data[:size])
        assert (yield from connection.fetch_value("SELECT a FROM t WHERE ? = 1", 1)) == data[:size]
        assert (yield from connection.fetch_value("SELECT a FROM t")) == data[:size]

    with_connection(sql_database, body)


@pytest.mark.parametrize("megabytes", [2, 20])
def test_a_packet_too_long_for_the_server_is_the_servers_error(sql_server: SQLServer, megabytes: int) -> None:
    def body(connection: Connection) -> Coro[None]:
        with pytest.raises(OperationalError, match="max_allowed_packet") as caught:
            yield from connection.execute("SELECT LENGTH(?)", bytes(megabytes << 20))
        assert caught.value.code == 1153

    sql_server.sql("SET GLOBAL max_allowed_packet = 1048576")
    try:
        with_connection(sql_server.url(), body)
    finally:
        sql_server.sql("SET GLOBAL max_allowed_packet = 67108864")
