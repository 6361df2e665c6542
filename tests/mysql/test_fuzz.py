"""Whatever a server sends, the client raises one of its own errors: a mended or wild answer never does more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coro.mysql import constants as c
from coro.mysql.auth import PLUGINS
from coro.mysql.columns import parse_column
from coro.mysql.commands import Answer, CommandPhase, Statement
from coro.mysql.compression import CODECS, CompressedFramer
from coro.mysql.errors import DatabaseError, ProtocolError
from coro.mysql.handshake import Login, Session, change_user, login, parse_greeting
from coro.mysql.packets import Exchange, Framer, lenenc
from coro.mysql.rows import BinaryRows
from tests.mysql.test_handshake import PEM
from tests.mysql.wire import (
    AUTOCOMMIT,
    MODERN,
    OLD,
    Waiting,
    auth_switch,
    binary_row,
    column,
    compressed,
    err,
    greeting,
    ok,
    packed_packet,
    packet,
    packets,
    play,
    prepared,
    result_set,
    rows_end,
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
SIGNED = packets(greeting(), first=0) + packet(auth_switch("client_ed25519", bytes(32)), 2)
SIGNED += packet(auth_switch("parsec", bytes(range(32))), 4) + packet(b"\x01P\0" + bytes(18), 6)
SIGNED += packet(b"\2" + auth_switch("sha256_password")[1:], 8) + packet(b"\x01" + PEM, 10) + packet(ok(), 12)
CURSOR = packets(b"\x01", column("c", c.MYSQL_TYPE_LONG), rows_end(c.SERVER_STATUS_CURSOR_EXISTS))
FETCHED = packets(binary_row(bytes(4)), rows_end(c.SERVER_STATUS_LAST_ROW_SENT))

WHO = Login("anna", "secret", private=True, further_passwords=("two",))


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


def become_another(framer: Framer) -> Exchange[object]:
    return change_user(framer, WHO, Session(parse_greeting(greeting()), WHO, MODERN, encrypted=False, status=0))


def reset(framer: Framer) -> Exchange[object]:
    return CommandPhase(framer, MODERN, 0).reset()


def read_piece_by_piece(framer: Framer) -> Exchange[None]:
    phase = CommandPhase(framer, MODERN, 0)
    answer = yield from phase.begin_query("SELECT 1")
    while not answer.ended:
        yield from phase.more(answer)


def open_cursor(framer: Framer) -> Exchange[object]:
    return CommandPhase(framer, MODERN, 0).open_cursor(Statement("SELECT 1", 1, 0), ())


def fetch(framer: Framer) -> Exchange[object]:
    reader = BinaryRows([parse_column(column("c", c.MYSQL_TYPE_LONG))])
    return CommandPhase(framer, MODERN, 0).fetch(Answer(reader, Statement("SELECT 1", 1, 0), [], ended=False), 2)


def load(framer: Framer) -> Exchange[None]:
    phase = CommandPhase(framer, MODERN, 0)
    if (yield from phase.begin_load("LOAD DATA")) is None:
        yield from phase.send_data(b"1")
        yield from phase.end_load()


EXCHANGES: list[Callable[[Framer], Exchange[object]]] = [log_in, become_another, reset, query, query_old, prepare]
EXCHANGES += [execute, read_piece_by_piece, open_cursor, fetch, load]
HONEST = [TEXT_RESULT, BINARY_RESULT, SHORT_RESULT, PREPARED, PROCEDURE, REFUSED, ASKS_FOR_A_FILE, LOGIN]
HONEST += [SIGNED, CURSOR, FETCHED]
LIMIT = 1 << 20  # of a packet
MOST = LIMIT + (16 << 20)  # bytes kept at once: a packet, and what one compressed packet can become


def outcome(make: Callable[[Framer], Exchange[object]], data: bytes, size: int, framer: Framer | None = None) -> None:
    """Passes if the exchange ends, waits for more, or raises an error of the package, and little is kept."""
    framer = framer or Framer(LIMIT)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    with suppress(Waiting, DatabaseError):
        play(make(framer), framer, pieces)
    assert framer.unread <= MOST


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
@given(st.sampled_from(EXCHANGES), st.sampled_from(HONEST), st.sampled_from(list(CODECS)), st.data())
def test_compressed_answers_with_some_bytes_changed_before_or_after(
    make: Callable[[Framer], Exchange[object]], honest: bytes, name: str, data: st.DataObject
) -> None:
    damaged = bytearray(honest)
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    size = data.draw(st.integers(1, 500))
    packed = bytearray(compressed(bytes(damaged), size=size, compress=CODECS[name]().compress))
    for _ in range(data.draw(st.integers(0, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    outcome(make, bytes(packed), data.draw(st.integers(1, 1000)), CompressedFramer(CODECS[name](), LIMIT))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(
    st.sampled_from(EXCHANGES),
    st.sampled_from(list(CODECS)),
    st.lists(st.tuples(st.binary(max_size=60), st.integers(0, 0xFFFFFF), st.integers(0, 5)), max_size=8),
    st.integers(1, 64),
)
def test_wild_payloads_in_compressed_packets(
    make: Callable[[Framer], Exchange[object]], name: str, parts: list[tuple[bytes, int, int]], size: int
) -> None:
    data = b"".join(packed_packet(*part) for part in parts)
    outcome(make, data, size, CompressedFramer(CODECS[name](), LIMIT))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(
    st.lists(
        st.tuples(st.sampled_from([b"\xfe", b"\x02"]), st.sampled_from([*PLUGINS, "dialog"]), st.binary(max_size=40))
        | st.tuples(st.sampled_from([b"\x01"]), st.sampled_from(["", "\x04", "\x03", "P"]), st.binary(max_size=30)),
        max_size=6,
    )
)
def test_a_wild_login(steps: list[tuple[bytes, str, bytes]]) -> None:
    """Plugins one after another, with challenges and further messages of any kind."""
    framer = Framer(LIMIT)
    pieces = [packet(greeting(), 0)]
    for number, (kind, name, more) in enumerate(steps):
        end = b"" if kind == b"\x01" else b"\0"
        pieces.append(packet(kind + name.encode() + end + more, 2 * number + 2))
    with suppress(Waiting, DatabaseError):
        play(log_in(framer), framer, pieces)


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
