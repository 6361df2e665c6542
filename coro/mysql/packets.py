"""Packets: how the protocol cuts its messages, in both directions, and the small encodings inside them.

    3 bytes  length of the payload, little-endian
    1 byte   sequence number: 0 for the first packet of a command, one more for each packet of either side
    n bytes  payload

A payload of 2**24-1 bytes or more is cut into packets of exactly 2**24-1 and a last one that is shorter (and
empty if the length is a multiple). Source: "MySQL Packets" and "Protocol Data Types" in the client/server
protocol manual.

Nothing here does I/O. An exchange with the server is a generator (`Exchange`): it yields bytes to be sent, or
says what it needs, and whoever drives it owns the socket. What was received goes into the connection's one
`Framer`; an exchange that is short of data has consumed nothing of the packet it waits for.
"""

from __future__ import annotations

import enum
from collections.abc import Generator
from struct import Struct
from typing import Final, TypeVar

from coro.mysql.constants import CR_NET_PACKET_TOO_LARGE
from coro.mysql.errors import DataError, ProtocolError

HEADER_SIZE: Final = 4
MAX_PAYLOAD: Final = 0xFFFFFF  # of one packet; a packet as long as this is followed by another
MAX_ALLOWED_PACKET: Final = 64 << 20  # of one joined payload, unless the caller says otherwise

HEADER: Final = Struct("<I")  # length in the lower three bytes, sequence number in the upper one
_U16: Final = Struct("<H")
_U32: Final = Struct("<I")
_U64: Final = Struct("<Q")


class Need(enum.Enum):
    """What an exchange needs before it can go on."""

    DATA = "feed what the server sends next"
    TLS = "send what was yielded, then start TLS on the connection"


T = TypeVar("T")
Exchange = Generator[bytes | Need, None, T]


class Framer:
    """Both directions of the framing of one connection.

    `buffer` from `position` on is what was received and not yet taken; `sequence` is the number that the next
    packet, of either side, must carry.
    """

    __slots__ = ("_chunks", "_missing", "_parts", "_parts_size", "buffer", "limit", "position", "sequence")

    def __init__(self, limit: int = MAX_ALLOWED_PACKET) -> None:
        self.limit = limit
        self.buffer = b""
        self.position = 0
        self.sequence = 0
        self._missing = 0  # bytes without which the packet at `position` is not whole
        self._chunks: list[bytes] = []  # received while that many were missing
        self._parts: list[bytes] = []  # payloads of 2**24-1 bytes whose end has not come yet
        self._parts_size = 0

    def feed(self, data: bytes) -> None:
        """Takes in what was received, in pieces of any size. A long packet is not copied for each of them."""
        if self._missing > len(data):
            self._missing -= len(data)
            self._chunks.append(data)
            return
        rest = self.buffer[self.position :]
        self.buffer = b"".join((rest, *self._chunks, data)) if rest or self._chunks else data
        self._chunks.clear()
        self._missing = 0
        self.position = 0

    @property
    def unread(self) -> int:
        """How many bytes were received and not yet taken."""
        return len(self.buffer) - self.position + sum(map(len, self._chunks))

    @property
    def joining(self) -> bool:
        """Whether the next packet continues a payload whose first part was taken already."""
        return bool(self._parts)

    def next_packet(self) -> bytes | None:
        """The payload of the next packet, joined if it came in several, or None while it is not whole.

        ProtocolError for a wrong sequence number, and for a payload over the limit once it is announced.
        """
        if self._missing:
            return None
        while True:
            available = len(self.buffer) - self.position
            if available < HEADER_SIZE:
                self._missing = HEADER_SIZE - available
                return None
            (word,) = HEADER.unpack_from(self.buffer, self.position)
            length = word & MAX_PAYLOAD
            if word >> 24 != self.sequence:
                raise ProtocolError(f"packet with sequence number {word >> 24} where {self.sequence} was due")
            if self._parts_size + length > self.limit:
                raise ProtocolError(f"packet of more than {self.limit} bytes", CR_NET_PACKET_TOO_LARGE)
            if available < HEADER_SIZE + length:
                self._missing = HEADER_SIZE + length - available
                return None
            start = self.position + HEADER_SIZE
            payload = self.buffer[start : start + length]
            self.position = start + length
            self.sequence = (self.sequence + 1) & 0xFF
            if length < MAX_PAYLOAD and not self._parts:
                return payload
            self._parts.append(payload)
            self._parts_size += length
            if length < MAX_PAYLOAD:
                payload = b"".join(self._parts)
                self._parts.clear()
                self._parts_size = 0
                return payload

    def farewell(self) -> bytes:
        """The payload of what was received and not taken, whatever its sequence number: a server's last words.

        A server that ends a session of its own accord says why in a packet that answers nothing. Empty if there is
        none, or not a whole one.
        """
        data = self.buffer[self.position :] + b"".join(self._chunks)
        if len(data) < HEADER_SIZE:
            return b""
        length = HEADER.unpack_from(data)[0] & MAX_PAYLOAD
        return data[HEADER_SIZE : HEADER_SIZE + length] if HEADER_SIZE + length <= len(data) else b""

    def packet(self) -> Exchange[bytes]:
        """Waits for the next packet and returns its payload."""
        while (payload := self.next_packet()) is None:
            yield Need.DATA
        return payload

    def command(self, payload: bytes) -> bytes:
        """The bytes of a command, which starts a new run of sequence numbers.

        Raises ProtocolError when the server said something that no command had asked for.
        """
        if self.unread or self._parts:
            raise ProtocolError("the server sent data that answers no command")
        self.sequence = 0
        return self.frame(payload)

    def unanswered(self, payload: bytes) -> bytes:
        """The bytes of a short command that has no answer; what is under way goes on undisturbed."""
        return HEADER.pack(len(payload)) + payload

    def frame(self, payload: bytes) -> bytes:
        """The bytes of a payload, within the current run of sequence numbers. DataError over the limit."""
        length = len(payload)
        if length > self.limit:
            raise DataError(
                f"a packet of {length} bytes is over the limit of {self.limit}", CR_NET_PACKET_TOO_LARGE
            )
        if length < MAX_PAYLOAD:
            header = HEADER.pack(length | self.sequence << 24)
            self.sequence = (self.sequence + 1) & 0xFF
            return header + payload
        pieces: list[bytes | memoryview] = []
        with memoryview(payload) as view:
            for start in range(0, length + 1, MAX_PAYLOAD):
                piece = view[start : start + MAX_PAYLOAD]
                pieces += (HEADER.pack(len(piece) | self.sequence << 24), piece)
                self.sequence = (self.sequence + 1) & 0xFF
            return b"".join(pieces)


def lenenc(data: bytes) -> bytes:
    """A length-encoded string."""
    length = len(data)
    if length < 0xFB:
        return bytes((length,)) + data
    if length <= 0xFFFF:
        return b"\xfc" + _U16.pack(length) + data
    if length <= 0xFFFFFF:
        return b"\xfd" + _U32.pack(length)[:3] + data
    return b"\xfe" + _U64.pack(length) + data


def lenenc_int(data: bytes, position: int) -> tuple[int, int]:
    """The length-encoded integer at `position`, and the position behind it. IndexError when it is cut off."""
    first = data[position]
    position += 1
    if first < 0xFB:
        return first, position
    size = _LENENC_SIZES[first - 0xFB]
    if not size:
        raise ProtocolError(f"0x{first:02x} is no length")
    if position + size > len(data):
        raise IndexError("cut off")
    return int.from_bytes(data[position : position + size], "little"), position + size


_LENENC_SIZES: Final = (0, 2, 3, 8, 0)  # 0xFB stands for NULL, 0xFF for an error


class Payload:
    """Reads the fields of one payload in order. Every method raises ProtocolError when it is too short."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data = data
        self.position = position

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self.position + size
        if end > len(self.data):
            raise ProtocolError(f"a field of {size} bytes is cut off at byte {len(self.data)} of its packet")
        field = self.data[self.position : end]
        self.position = end
        return field

    def integer(self, size: int) -> int:
        """An unsigned integer of fixed size, in bytes."""
        return int.from_bytes(self.take(size), "little")

    def lenenc_int(self) -> int:
        """A length-encoded integer."""
        try:
            value, self.position = lenenc_int(self.data, self.position)
        except IndexError:
            raise ProtocolError("a length-encoded integer is cut off") from None
        return value

    def lenenc_bytes(self) -> bytes:
        """A length-encoded string."""
        return self.take(self.lenenc_int())

    def zero_terminated(self) -> bytes:
        """The bytes up to the next zero byte, which is passed over."""
        end = self.data.find(0, self.position)
        if end < 0:
            raise ProtocolError("a zero-terminated string has no end")
        field = self.data[self.position : end]
        self.position = end + 1
        return field

    def rest(self) -> bytes:
        """All that is left; may be empty."""
        field = self.data[self.position :]
        self.position = len(self.data)
        return field
