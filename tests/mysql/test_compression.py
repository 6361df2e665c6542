"""The compressed protocol: byte by byte, damaged, and at real servers."""

from __future__ import annotations

import hashlib
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zstandard

from coro import Coro
from coro.mysql import Connection, InterfaceError, NotSupportedError, OperationalError, ProtocolError
from coro.mysql import constants as c
from coro.mysql.commands import CommandPhase
from coro.mysql.compression import CODECS, Codec, CompressedFramer
from coro.mysql.handshake import Login, login
from coro.mysql.packets import MAX_PAYLOAD, Framer
from coro.mysql.url import parse_url
from tests.mysql.sessions import with_connection
from tests.mysql.wire import (
    AUTOCOMMIT,
    MODERN,
    column,
    compressed,
    err,
    every_way,
    greeting,
    ok,
    packed_packet,
    packet,
    packets,
    play,
    result_set,
    rows_end,
    text_row,
)
from tests.services import SQLServer

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"zlib": zlib.compress, "zstd": zstandard.ZstdCompressor().compress}
each_codec = pytest.mark.parametrize("name", COMPRESS)

NAME = column("name", c.MYSQL_TYPE_VAR_STRING)
ROWS = [text_row(b"%d" % number * 20) for number in range(200)]
EXPECTED = [(str(number) * 20,) for number in range(200)]


def framer(name: str = "zlib") -> CompressedFramer:
    return CompressedFramer(CODECS[name](), limit=1 << 20)


def ask(framer: Framer, pieces: list[bytes]) -> Any:
    """The rows that a query gets as its answer, and what it sent."""
    [result], sent = play(CommandPhase(framer, MODERN, AUTOCOMMIT).query("SELECT 1"), framer, pieces)
    assert framer.unread == 0
    return result.rows, sent


@each_codec
@pytest.mark.parametrize("size", [1, 7, 60, 1000, 1 << 14])
def test_an_answer_is_the_same_however_it_is_packed_and_comes(name: str, size: int) -> None:
    answer = compressed(packets(*result_set([NAME], ROWS)), size=size, compress=COMPRESS[name])
    ways = every_way(answer) if size > 50 else every_way(answer)[:2]
    for pieces in ways:
        assert ask(framer(name), pieces)[0] == EXPECTED


def test_a_second_answer_may_follow() -> None:
    one = framer()
    for _ in range(2):
        assert ask(one, [compressed(packets(*result_set([NAME], ROWS)))])[0] == EXPECTED


def test_a_server_may_go_on_with_the_numbers_of_the_compressed_packets() -> None:
    """As they do when they flush in the middle of an answer."""
    head, rest = packets(b"\x01", NAME, *ROWS[:10]), packets(*ROWS[10:], rows_end(), first=2)
    assert ask(framer(), [compressed(head) + compressed(rest, first=2)])[0] == EXPECTED


@each_codec
def test_a_short_command_goes_as_it_is_and_a_long_one_is_compressed(name: str) -> None:
    one = framer(name)
    assert one.command(b"\x0e") == b"\x05\0\0\0\0\0\0" + b"\x01\0\0\0\x0e"
    sent = one.command(b"x" * 1000)
    assert sent[3:7] == b"\0" + (1004).to_bytes(3, "little")
    assert len(sent) < 100
    assert CODECS[name]().expand(sent[7:], 1004) == packet(b"x" * 1000, 0)


def test_what_does_not_become_shorter_goes_as_it_is() -> None:
    noise = hashlib.shake_128(b"").digest(1000)
    assert framer().command(noise) == packed_packet(packet(noise, 0), 0, 0)


def test_a_long_command_goes_in_several_packets() -> None:
    one = CompressedFramer(CODECS["zlib"]())
    data = hashlib.shake_128(b"").digest(MAX_PAYLOAD)
    plain = Framer().command(data)
    assert one.command(data) == packed_packet(plain[:MAX_PAYLOAD], 0, 0) + packed_packet(plain[MAX_PAYLOAD:], 0, 1)


def test_what_belongs_to_no_answer_leaves_the_numbers_alone() -> None:
    one = framer()
    one.command(b"\x0e")
    assert one.unanswered(b"\x19\1\0\0\0")[3] == 0
    assert one.frame(b"")[3] == 1


# --- Damaged ------------------------------------------------------------------------------------------------

PLAIN = packets(ok())


@each_codec
@pytest.mark.parametrize("announced", [1, len(PLAIN) - 1, len(PLAIN) + 1, MAX_PAYLOAD])
def test_a_packet_that_holds_more_or_less_than_it_announces_is_refused(name: str, announced: int) -> None:
    with pytest.raises(ProtocolError, match=f"where {announced} were announced"):
        ask(framer(name), [packed_packet(COMPRESS[name](PLAIN), announced, 1)])


@each_codec
@pytest.mark.parametrize("packed", [b"", b"wild", b"\x78\x9c" + bytes(20), b"\x28\xb5\x2f\xfd" + bytes(20)])
def test_a_packet_that_cannot_be_unpacked_is_refused(name: str, packed: bytes) -> None:
    with pytest.raises(ProtocolError, match="compressed packet"):
        ask(framer(name), [packed_packet(packed, 100, 1)])


@pytest.mark.parametrize("number", [0, 2, 255])
def test_a_packet_out_of_turn_is_refused(number: int) -> None:
    with pytest.raises(ProtocolError, match=f"compressed packet with sequence number {number} where 1 was due"):
        ask(framer(), [compressed(PLAIN, first=number)])


def test_a_servers_last_words_come_out_of_turn() -> None:
    one = framer()
    one.command(b"\x0e")
    words = err(4031, "disconnected because of inactivity")
    with pytest.raises(ProtocolError):
        one.feed(compressed(packet(words, 0), first=0))
    assert one.farewell() == words


def test_an_unasked_packet_is_noticed() -> None:
    one = framer()
    ask(one, [compressed(packets(*result_set([NAME], ROWS)))])
    one.feed(b"\1")
    with pytest.raises(ProtocolError, match="answers no command"):
        one.command(b"\x0e")


@each_codec
def test_bombs_go_off_one_at_a_time(name: str) -> None:
    """A hundred packets of 16 MiB in little space. Their first announces more than the limit, and nothing follows."""
    bomb = COMPRESS[name](packet(b"", 1)[:3].replace(b"\0", b"\xff") + b"\1" + bytes(MAX_PAYLOAD - 4))
    one = framer(name)
    one.command(b"\x0e")
    one.feed(b"".join(packed_packet(bomb, MAX_PAYLOAD, number) for number in range(1, 101)))
    assert len(one.buffer) == MAX_PAYLOAD
    with pytest.raises(ProtocolError, match="packet of more than 1048576 bytes"):
        one.next_packet()
    assert len(one.buffer) == MAX_PAYLOAD


def test_zstandard_gets_no_more_memory_than_a_packet_needs() -> None:
    """The frame asks for a window of 32 MiB."""
    with pytest.raises(ValueError, match="memory"):
        CODECS["zstd"]().expand(bytes.fromhex("28b52ffd0078") + bytes(20), 100)


# --- Agreeing on it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "flag", "end"), [("zlib", c.CLIENT_COMPRESS, b""), ("zstd", c.CLIENT_ZSTD_COMPRESSION_ALGORITHM, b"\x03")]
)
def test_the_login_says_which_compression_follows(name: str, flag: int, end: bytes) -> None:
    one = Framer()
    answer = packet(greeting(), 0), packet(ok(), 2)
    _, [plain] = play(login(one, Login("anna")), one, answer)
    one = Framer()
    session, [response] = play(login(one, Login("anna", compress=name)), one, answer)
    assert isinstance(plain, bytes)
    assert isinstance(response, bytes)
    assert session.capabilities & flag
    assert int.from_bytes(response[4:8], "little") == int.from_bytes(plain[4:8], "little") | flag
    assert response[8:] == plain[8:] + end


@each_codec
def test_a_server_that_does_not_compress_is_named(name: str) -> None:
    one = Framer()
    with pytest.raises(NotSupportedError, match=f"does not offer compression by {name}"):
        play(login(one, Login("anna", compress=name)), one, [packet(greeting(capabilities=MODERN | 1 << 15), 0)])


def test_a_url_names_the_compression() -> None:
    assert parse_url("mysql://db1/?compress=zstd").compress == "zstd"
    assert parse_url("mysql://db1/").compress == ""
    with pytest.raises(InterfaceError, match="neither zlib nor zstd"):
        parse_url("mysql://db1/?compress=true")


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(InterfaceError, match=r"pip install 'coro-loop\[zstd\]'"):
        CODECS["zstd"]()


# --- At real servers ----------------------------------------------------------------------------------------


COMPRESSING = [
    ("mariadb", "zlib"),
    pytest.param(("mysql9", "zlib"), marks=pytest.mark.mysql9),
    pytest.param(("mysql9", "zstd"), marks=pytest.mark.mysql9),
    pytest.param(("mariadb11", "zlib"), marks=pytest.mark.mariadb11),
]


@pytest.fixture(params=COMPRESSING, ids=lambda param: "-".join(param))
def compressing(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database, over a compressed connection."""
    server: SQLServer = request.getfixturevalue(request.param[0])
    with server.database() as name:
        yield server.url(name) + f"?compress={request.param[1]}&tls=disabled"


def test_mariadb_has_no_zstandard(mariadb: SQLServer) -> None:
    with pytest.raises(NotSupportedError, match="does not offer compression by zstd"):
        with_connection(mariadb.url() + "?compress=zstd", Connection.ping)


SIZES = [(0, False), (40, False), (60, False), (70_000, False), (70_000, True), (MAX_PAYLOAD - 18, False)]


@pytest.mark.parametrize(("size", "noisy"), [*SIZES, (17 << 20, True)])
def test_values_pass_both_ways(compressing: str, size: int, noisy: bool) -> None:
    data = hashlib.shake_128(b"").digest(size) if noisy else bytes(size)

    def body(connection: Connection) -> Coro[None]:
        assert (yield from connection.fetch_value("SELECT CAST(? AS BINARY)", data)) == data
        assert (yield from connection.fetch_value("SELECT SHA2(?, 256)", data)) == hashlib.sha256(data).hexdigest()

    with_connection(compressing, body)


def test_everything_else_goes_on_as_without(compressing: str) -> None:
    def body(connection: Connection) -> Coro[None]:
        yield from connection.execute("CREATE TABLE t (a INT PRIMARY KEY, b TEXT)")
        rows = [(number, str(number) * 30) for number in range(3000)]
        yield from connection.execute_many("INSERT INTO t VALUES (?, ?)", rows)
        assert (yield from connection.fetch_all("SELECT * FROM t ORDER BY a")) == rows
        for number in range(100):  # statements are closed on the way
            assert (yield from connection.fetch_value(f"SELECT {number}, ?", 1)) == number
        with (yield from connection.cursor("SELECT * FROM t ORDER BY a", fetch_size=100)) as stream:
            found = yield from stream.read()
            assert found == rows[:100]
        with (yield from connection.stream("SELECT * FROM t ORDER BY a")) as stream:
            found = []
            while some := (yield from stream.read()):
                found += some
        assert found == rows
        yield from connection.execute("CREATE PROCEDURE p() BEGIN SELECT * FROM t; SELECT 1 AS x; SELECT * FROM t; END")
        results = yield from connection.results("CALL p()")
        assert [len(result.rows) for result in results] == [3000, 1, 3000, 0]
        with pytest.raises(OperationalError):
            yield from connection.execute("SIGNAL SQLSTATE '45000'")
        yield from connection.reset()
        yield from connection.ping()

    with_connection(compressing, body)


def test_codecs_take_bytes_and_give_bytes() -> None:
    for make in CODECS.values():
        codec: Codec = make()
        assert codec.expand(codec.compress(b"x" * 1000), 1000) == b"x" * 1000
