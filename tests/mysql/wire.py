"""The server's half of the wire format, for tests: packets are built here and understood by `coro.mysql`."""

from __future__ import annotations

import itertools
import random
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from coro.mysql import constants as c
from coro.mysql.packets import Exchange, Framer, Need, lenenc

T = TypeVar("T")

MODERN = c.CLIENT_PROTOCOL_41 | c.CLIENT_DEPRECATE_EOF  # what a login agrees on with a server of today
OLD = c.CLIENT_PROTOCOL_41
AUTOCOMMIT = c.SERVER_STATUS_AUTOCOMMIT
NONCE = bytes(range(1, 21))


def packet(payload: bytes, sequence: int) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([sequence & 0xFF]) + payload


def packets(*payloads: bytes, first: int = 1) -> bytes:
    """The payloads as the packets of one answer, whose first has sequence number 1."""
    return b"".join(packet(payload, number) for number, payload in enumerate(payloads, first))


def lenenc_int(value: int) -> bytes:
    if value < 0xFB:
        return bytes([value])
    return b"\xfe" + value.to_bytes(8, "little")


def ok(affected: int = 0, insert_id: int = 0, status: int = AUTOCOMMIT, warnings: int = 0) -> bytes:
    return b"\0" + lenenc_int(affected) + lenenc_int(insert_id) + struct.pack("<HH", status, warnings)


def rows_end(status: int = AUTOCOMMIT, warnings: int = 0) -> bytes:
    """The OK packet that ends the rows under CLIENT_DEPRECATE_EOF."""
    return b"\xfe" + ok(status=status, warnings=warnings)[1:]


def eof(status: int = AUTOCOMMIT, warnings: int = 0) -> bytes:
    return b"\xfe" + struct.pack("<HH", warnings, status)


def err(code: int, message: str, sqlstate: str = "HY000") -> bytes:
    return b"\xff" + struct.pack("<H", code) + b"#" + sqlstate.encode() + message.encode()


def column(name: str, kind: int, *, charset: int = 45, flags: int = 0) -> bytes:
    names = b"".join(lenenc(part.encode()) for part in ("def", "base", "t", "t", name, name))
    return names + struct.pack("<BHIBHBH", 12, charset, 255, kind, flags, 0, 0)


def text_row(*cells: bytes | None) -> bytes:
    return b"".join(b"\xfb" if cell is None else lenenc(cell) for cell in cells)


def binary_row(*cells: bytes | None) -> bytes:
    """Cells are given as they stand in the row: fixed-size ones bare, the others with their length."""
    bits = sum(4 << index for index, cell in enumerate(cells) if cell is None)
    nulls = bits.to_bytes((len(cells) + 9) // 8, "little")
    return b"\0" + nulls + b"".join(cell for cell in cells if cell is not None)


def result_set(columns: Sequence[bytes], rows: Iterable[bytes], status: int = AUTOCOMMIT) -> list[bytes]:
    """The payloads of a result set under CLIENT_DEPRECATE_EOF."""
    return [bytes([len(columns)]), *columns, *rows, rows_end(status)]


def prepared(statement_id: int, columns: int, parameters: int) -> list[bytes]:
    """The payloads that answer COM_STMT_PREPARE under CLIENT_DEPRECATE_EOF."""
    head = struct.pack("<BIHHBH", 0, statement_id, columns, parameters, 0, 0)
    return [head, *[column("?", c.MYSQL_TYPE_VAR_STRING)] * (columns + parameters)]


def greeting(
    *,
    capabilities: int = 0xFFFFFFFF & ~c.CLIENT_SSL,
    plugin: str = "mysql_native_password",
    nonce: bytes = NONCE,
    version: int = 10,
) -> bytes:
    """HandshakeV10; of a server without TLS unless said otherwise."""
    low, high = capabilities & 0xFFFF, capabilities >> 16
    head = bytes([version]) + b"9.1.0-test\0" + struct.pack("<I", 7) + nonce[:8] + b"\0"
    middle = struct.pack("<HBHHB", low, 8, AUTOCOMMIT, high, len(nonce) + 1)
    return head + middle + bytes(10) + nonce[8:] + b"\0" + plugin.encode() + b"\0"


def auth_switch(plugin: str, nonce: bytes = NONCE) -> bytes:
    return b"\xfe" + plugin.encode() + b"\0" + nonce + b"\0"


def compressed(data: bytes, first: int = 1, *, size: int = 1 << 14, compress: Any = zlib.compress) -> bytes:
    """The bytes in compressed packets of `size` bytes each; every second one goes as it is."""
    pieces = []
    for number, start in enumerate(range(0, len(data), size)):
        plain = data[start : start + size]
        packed, length = (plain, 0) if number % 2 else (compress(plain), len(plain))
        pieces.append(packed_packet(packed, length, first + number))
    return b"".join(pieces)


def packed_packet(packed: bytes, length: int, sequence: int) -> bytes:
    """A compressed packet: what it holds, and how long it says that is when it is unpacked."""
    return len(packed).to_bytes(3, "little") + bytes([sequence & 0xFF]) + length.to_bytes(3, "little") + packed


class Waiting(AssertionError):
    """The exchange wants more than the server has to say."""


def play(exchange: Exchange[T], framer: Framer, pieces: Iterable[bytes]) -> tuple[T, list[bytes | Need]]:
    """Drives an exchange against a server that says `pieces`, one each time the client waits.

    Its result, and what it sent; where it asked for TLS stands `Need.TLS`.
    """
    remaining = iter(pieces)
    sent: list[bytes | Need] = []
    try:
        while True:
            step = next(exchange)
            if step is not Need.DATA:
                sent.append(step)
                continue
            piece = next(remaining, None)
            if piece is None:
                raise Waiting("the exchange waits for more")
            framer.feed(piece)
    except StopIteration as stop:
        result: T = stop.value
        return result, sent


def every_way(data: bytes) -> list[list[bytes]]:
    """The same bytes whole, byte by byte, and cut at random places (the same ones in every run)."""
    ways = [[data], [data[i : i + 1] for i in range(len(data))]]
    dice = random.Random(len(data))
    for _ in range(20):
        cuts = sorted(dice.choices(range(len(data) + 1), k=dice.randrange(1, 6)))
        ends = [0, *cuts, len(data)]
        ways.append([data[a:b] for a, b in itertools.pairwise(ends) if a < b])
    return ways


def play_every_way(make: Any, data: bytes) -> list[Any]:
    """What `make(framer)`, an exchange, returns for each of the ways in which `data` may come."""
    outcomes = []
    for pieces in every_way(data):
        framer = Framer()
        outcomes.append(play(make(framer), framer, pieces)[0])
        assert framer.unread == 0
    return outcomes
