"""Every type with any value it can hold: written as a parameter, read back by both protocols and by another client."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coro import Coro
from coro.mysql import Connection, Parameter
from tests.mysql.sessions import with_connection
from tests.services import SQLServer

UTF8 = st.characters(exclude_categories=["Cs"])
LATIN1 = st.characters(codec="latin-1", exclude_categories=["Cc"])  # MySQL's latin1 is cp1252
CYRILLIC = st.characters(codec="cp1251", exclude_characters="\x98")


def whole(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def natural(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1)


def rounded(values: st.SearchStrategy[datetime], digits: int) -> st.SearchStrategy[datetime]:
    step = 10 ** (6 - digits)
    return values.map(lambda value: value.replace(microsecond=value.microsecond // step * step))


DAYS = st.dates(date(1, 1, 1))
MOMENTS = st.datetimes(datetime(1000, 1, 1))
STAMPS = st.datetimes(datetime(1970, 1, 2), datetime(2038, 1, 18))
SPANS = st.timedeltas(-timedelta(hours=838), timedelta(hours=838))

TYPES: dict[str, st.SearchStrategy[Any]] = {
    "TINYINT": whole(8),
    "TINYINT UNSIGNED": natural(8),
    "SMALLINT": whole(16),
    "SMALLINT UNSIGNED": natural(16),
    "MEDIUMINT": whole(24),
    "MEDIUMINT UNSIGNED": natural(24),
    "INT": whole(32),
    "INT UNSIGNED": natural(32),
    "INT(9) UNSIGNED ZEROFILL": natural(32),
    "BIGINT": whole(64),
    "BIGINT UNSIGNED": natural(64),
    "BOOLEAN": st.integers(0, 1),
    "YEAR": st.just(0) | st.integers(1901, 2155),
    "FLOAT": st.integers(-999_999, 999_999).map(float) | st.integers(-999, 999).map(lambda number: number / 8),
    "DOUBLE": st.floats(-1e300, 1e300, allow_subnormal=False),
    "DECIMAL(65, 30)": st.decimals(-(10**34), 10**34, places=30),
    "DECIMAL(20, 0) UNSIGNED": st.decimals(0, 10**19, places=0),
    "DATE": DAYS,
    "DATETIME": rounded(MOMENTS, 0),
    "DATETIME(3)": rounded(MOMENTS, 3),
    "DATETIME(6)": MOMENTS,
    "TIMESTAMP(6) NULL": STAMPS,
    "TIME": SPANS.map(lambda span: span - timedelta(microseconds=span.microseconds)),
    "TIME(6)": SPANS,
    "VARCHAR(50)": st.text(UTF8, max_size=50),
    "VARCHAR(50) CHARACTER SET latin1": st.text(LATIN1, max_size=50),
    "VARCHAR(50) CHARACTER SET cp1251": st.text(CYRILLIC, max_size=50),
    "VARCHAR(50) CHARACTER SET utf16": st.text(UTF8, max_size=50),
    "VARCHAR(50) COLLATE utf8mb4_bin": st.text(UTF8, max_size=50),
    "CHAR(10)": st.text(UTF8, max_size=9).map(lambda text: text + "."),  # CHAR loses spaces at its end
    "TINYTEXT": st.text(UTF8, max_size=60),
    "TEXT": st.text(UTF8, max_size=1000),
    "LONGTEXT": st.text(UTF8),
    "ENUM('', 'a', 'ö', '''')": st.sampled_from(["", "a", "ö", "'"]),
    "SET('a', 'b', 'ö')": st.sets(st.sampled_from(["a", "b", "ö"])).map(lambda found: ",".join(sorted(found))),
    "BINARY(4)": st.binary(min_size=4, max_size=4),
    "VARBINARY(300)": st.binary(max_size=300),
    "TINYBLOB": st.binary(max_size=255),
    "BLOB": st.binary(max_size=70_000),
    "LONGBLOB": st.binary(),
}
BITS = {"BIT(1)": natural(1), "BIT(8)": natural(8), "BIT(64)": natural(64)}  # which the other client has as bytes


@pytest.fixture
def place(sql_server: SQLServer) -> Iterator[tuple[SQLServer, str]]:
    """A server, and a new database there."""
    with sql_server.database() as name:
        yield sql_server, name


@settings(deadline=None, max_examples=6, suppress_health_check=list(HealthCheck))
@given(data=st.data())
@pytest.mark.parametrize("kind", [*TYPES, *BITS])
def test_any_values_come_back(place: tuple[SQLServer, str], kind: str, data: st.DataObject) -> None:
    server, name = place
    strategy = st.none() | (TYPES | BITS)[kind]
    values = data.draw(st.lists(strategy, min_size=1, max_size=20))

    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute(f"CREATE TABLE IF NOT EXISTS v (n INT, v {kind}) CHARACTER SET utf8mb4")
        yield from connection.execute("DELETE FROM v")
        rows = list(enumerate(values))
        yield from connection.execute_many("INSERT INTO v VALUES (?, ?)", rows)
        assert (yield from connection.fetch_all("SELECT n, v FROM v ORDER BY n")) == rows
        assert (yield from connection.fetch_all("SELECT n, v FROM v WHERE n >= ? ORDER BY n", 0)) == rows
        found = yield from connection.fetch_all("SELECT n, v FROM v WHERE v <=> ?", values[-1])
        if not kind.startswith("FLOAT"):  # which is compared as a DOUBLE
            assert rows[-1] in found

    with_connection(server.url(name) + "?tls=disabled", body)
    if kind in TYPES:
        other = [row[0] for row in server.sql("SELECT v FROM v ORDER BY n", database=name)]
        assert other == values


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(UTF8),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(UTF8), inner),
    max_leaves=10,
)


@settings(deadline=None, max_examples=10, suppress_health_check=list(HealthCheck))
@given(document=DOCUMENTS)
def test_a_json_document_is_its_text(sql_database: str, document: Any) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TEMPORARY TABLE v (v JSON)")
        yield from connection.execute("INSERT INTO v VALUES (?)", json.dumps(document))
        for text in (
            (yield from connection.fetch_value("SELECT v FROM v")),
            (yield from connection.fetch_value("SELECT v FROM v WHERE ? = 1", 1)),
        ):
            assert isinstance(text, str)
            assert json.loads(text) == document

    with_connection(sql_database + "?tls=disabled", body)


def both(connection: Connection, sql: str, *parameters: Parameter) -> Coro[tuple[Any, Any]]:
    """What the first column of `v` is by the text protocol and by the binary protocol, after the INSERT."""
    yield from connection.execute(sql, *parameters)
    text = yield from connection.fetch_value("SELECT v FROM v")
    return text, (yield from connection.fetch_value("SELECT v FROM v WHERE ? = 1", 1))


def test_a_geometry_goes_in_as_the_bytes_that_come_out(sql_database: str) -> None:
    point = struct.pack("<IBIdd", 0, 1, 1, 1.5, -2.0)  # SRID, byte order, kind, x, y

    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE v (v GEOMETRY)")
        assert (yield from both(connection, "INSERT INTO v VALUES (?)", point)) == (point, point)
        assert (yield from connection.fetch_value("SELECT ST_AsText(v) FROM v")) == "POINT(1.5 -2)"

    with_connection(sql_database, body)


VECTOR = struct.pack("<3f", 1.5, -2.0, 0.25)


@pytest.mark.parametrize(
    "name",
    [pytest.param("mysql9", marks=pytest.mark.mysql9), pytest.param("mariadb11", marks=pytest.mark.mariadb11)],
)
def test_a_vector_is_its_bytes(request: pytest.FixtureRequest, name: str) -> None:
    server: SQLServer = request.getfixturevalue(name)

    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE v (v VECTOR(3))")
        assert (yield from both(connection, "INSERT INTO v VALUES (?)", VECTOR)) == (VECTOR, VECTOR)

    with server.database() as database:
        with_connection(server.url(database), body)


@pytest.mark.mariadb11
def test_types_that_only_mariadb_has_are_text(mariadb11: SQLServer) -> None:
    def body(connection: Connection) -> Coro[None]:
        uuid = "123e4567-e89b-12d3-a456-426655440000"
        for kind, value in ("UUID", uuid), ("INET6", "2001:db8::1"), ("INET4", "10.0.0.1"):
            yield from connection.execute(f"CREATE OR REPLACE TEMPORARY TABLE v (v {kind})")
            assert (yield from both(connection, "INSERT INTO v VALUES (?)", value)) == (value, value)

    with mariadb11.database() as database:
        with_connection(mariadb11.url(database), body)


@pytest.mark.parametrize("value", ["0000-00-00", "2026-00-00", "2026-01-00"])
@pytest.mark.parametrize("kind", ["DATE", "DATETIME(6)"])
def test_a_date_that_no_calendar_has_is_none(sql_database: str, kind: str, value: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("SET sql_mode = ''")
        yield from connection.execute(f"CREATE TABLE v (v {kind})")
        assert (yield from both(connection, "INSERT INTO v VALUES (?)", value)) == (None, None)
        assert (yield from connection.fetch_value("SELECT COUNT(v) FROM v")) == 1  # it is not NULL

    with_connection(sql_database, body)


def test_text_is_text_and_bytes_are_bytes_whatever_the_sql_mode(sql_database: str) -> None:

    def body(connection: Connection) -> Coro[None]:
        for mode in ("NO_BACKSLASH_ESCAPES", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES,ANSI_QUOTES"):
            yield from connection.execute(f"SET sql_mode = '{mode}'")
            for evil in ("\\", "'", '"', "\\'", "''; -- ", "?", "\0", "\x1a"):
                assert (yield from connection.fetch_value("SELECT ?", evil)) == evil
                assert (yield from connection.fetch_value("SELECT CAST(? AS BINARY)", evil.encode())) == evil.encode()

    with_connection(sql_database, body)
