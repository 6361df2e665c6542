"""Whatever a server sends, the client raises one of its own errors: a mended or wild answer never does more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coro.mysql import constants as c
from coro.mysql.commands import CommandPhase, Statement
from coro.mysql.errors import DatabaseError, ProtocolError
from coro.mysql.handshake import Login, login
from coro.mysql.packets import Exchange, Framer, lenenc
from tests.mysql.wire import (
    AUTOCOMMIT,
    MODERN,
    OLD,
    Waiting,
    auth_switch,
    binary_row,
    column,
    err,
    greeting,
    ok,
    packet,
    packets,
    play,
    prepared,
    result_set,
    text_row,
)

ALL_TYPES = sorted(value for name, value in vars(c).items() if name.startswith("MYSQL_TYPE_"))
COLUMNS = [column(f"c{kind}", kind, charset=charset) for kind in ALL_TYPES for charset in (45, 63)]
FIXED = {c.MYSQL_TYPE_TINY: 1, c.MYSQL_TYPE_SHORT: 2, c.MYSQL_TYPE_YEAR: 2, c.MYSQL_TYPE_LONG: 4}
FIXED |= {c.MYSQL_TYPE_INT24: 4, c.MYSQL_TYPE_FLOAT: 4, c.MYSQL_TYPE_LONGLONG: 8, c.MYSQL_TYPE_DOUBLE: 8}
CELLS = [bytes(FIXED[kind]) if kind in FIXED else lenenc(b"") for kind in ALL_TYPES for _ in (45, 63)]

# One honest conversation each, to be damaged
TEXT_RESULT = packets(*result_set(COLUMNS, [text_row(*[None] * len(COLUMNS))]))
BINARY_RESULT = packets(*result_set(COLUMNS, [binary_row(*CELLS)]))
SHORT_RESULT = packets(*result_set(COLUMNS[:4], [text_row(b"1", b"2", None, b"4")] * 3))
PREPARED = packets(*prepared(1, columns=2, parameters=3))
PROCEDURE = packets(*result_set(COLUMNS[:1], [], AUTOCOMMIT | c.SERVER_MORE_RESULTS_EXISTS), ok())
REFUSED = packets(err(1062, "Duplicate entry", "23000"))
ASKS_FOR_A_FILE = packets(b"\xfb/etc/passwd") + packet(ok(), 3)
LOGIN = packets(greeting(), first=0) + packet(auth_switch("caching_sha2_password"), 2)
LOGIN += packet(b"\x01\x04", 4) + packet(ok(), 6)

WHO = Login("anna", "secret", private=True)


def log_in(framer: Framer) -> Exchange[object]:
    return login(framer, WHO)


def query(framer: Framer) -> Exchange[object]:
    return CommandPhase(framer, MODERN, 0).query("SELECT 1")


def query_old(framer: Framer) -> Exchange[object]:
    return CommandPhase(framer, OLD, 0).query("SELECT 1")


def prepare(framer: Framer) -> Exchange[object]:
    return CommandPhase(framer, MODERN, 0).prepare("SELECT ?")


def execute(framer: Framer) -> Exchange[object]:
    return CommandPhase(framer, MODERN, 0).execute(Statement("SELECT 1", 1, 0), ())


EXCHANGES: list[Callable[[Framer], Exchange[object]]] = [log_in, query, query_old, prepare, execute]
HONEST = [TEXT_RESULT, BINARY_RESULT, SHORT_RESULT, PREPARED, PROCEDURE, REFUSED, ASKS_FOR_A_FILE, LOGIN]


def outcome(make: Callable[[Framer], Exchange[object]], data: bytes, size: int) -> None:
    """Passes if the exchange ends, waits for more, or raises an error of the package."""
    framer = Framer(limit=1 << 20)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    with suppress(Waiting, DatabaseError):
        play(make(framer), framer, pieces)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(st.sampled_from(EXCHANGES), st.binary(max_size=200), st.integers(1, 64))
def test_wild_bytes(make: Callable[[Framer], Exchange[object]], data: bytes, size: int) -> None:
    outcome(make, data, size)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(st.sampled_from(EXCHANGES), st.lists(st.binary(max_size=60), max_size=8), st.integers(1, 64))
def test_wild_payloads_in_sound_packets(
    make: Callable[[Framer], Exchange[object]], payloads: list[bytes], size: int
) -> None:
    outcome(make, packets(*payloads, first=0 if make is log_in else 1), size)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=1000)
@given(st.sampled_from(EXCHANGES), st.sampled_from(HONEST), st.data(), st.integers(1, 1000))
def test_honest_answers_with_some_bytes_changed(
    make: Callable[[Framer], Exchange[object]], honest: bytes, data: st.DataObject, size: int
) -> None:
    damaged = bytearray(honest)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(honest) - 1))] = data.draw(st.integers(0, 255))
    outcome(make, bytes(damaged), size)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=500)
@given(st.integers(0, len(COLUMNS) - 1), st.binary(max_size=30), st.booleans())
def test_a_wild_cell_in_a_column_of_any_type(index: int, cell: bytes, binary: bool) -> None:
    make = execute if binary else query
    fixed = FIXED.get(ALL_TYPES[index // 2])
    raw = cell[:fixed].ljust(fixed, b"\0") if binary and fixed else lenenc(cell)
    row = b"\0\0" + raw if binary else raw
    framer = Framer()
    try:
        play(make(framer), framer, [packets(*result_set([COLUMNS[index]], [row]))])
    except ProtocolError as error:
        assert "column" in error.message
