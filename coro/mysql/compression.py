"""The compressed protocol: packets in packets, from the first command after the login on.

    3 bytes  length of the compressed payload, little-endian
    1 byte   sequence number, counted apart from that of the packets inside
    3 bytes  length of the payload before compression; 0 when it was not worth it, and the payload is as it is
    n bytes  payload, which holds packets, or parts of them: the boundaries have nothing to do with each other

However it was packed, a payload never becomes longer than the 16 MiB that its header can announce, and it is unpacked
only when what came before is used up: so the little that a server sends cannot become much here.

Source: "Compression" in the client/server protocol manual.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple

from coro.mysql.errors import InterfaceError, ProtocolError
from coro.mysql.packets import HEADER_SIZE, MAX_ALLOWED_PACKET, MAX_PAYLOAD, Framer

_HEADER: Final = Struct("<IHB")  # length and sequence number; length before compression, in two parts
_HEADER_SIZE: Final = 7
_WORTH_IT: Final = 50  # bytes; shorter payloads go as they are
ZSTD_LEVEL: Final = 3


class Codec(NamedTuple):
    """A way to compress. `expand(data, size)` gives at most a little more than `size` bytes, or ValueError."""

    compress: Callable[[bytes], bytes]
    expand: Callable[[bytes, int], bytes]


def zlib_codec() -> Codec:
    """zlib, which all servers have."""

    def expand(data: bytes, size: int) -> bytes:
        expander = zlib.decompressobj()
        try:
            return expander.decompress(data, size + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None

    return Codec(zlib.compress, expand)


def zstd_codec() -> Codec:
    """Zstandard, which MySQL has. InterfaceError when the package is not installed."""
    try:
        import zstandard
    except ImportError:
        raise InterfaceError("compress=zstd needs a package: pip install 'coro-loop[zstd]'") from None
    compressor = zstandard.ZstdCompressor(ZSTD_LEVEL)
    expander = zstandard.ZstdDecompressor(max_window_size=1 << 24)

    def expand(data: bytes, size: int) -> bytes:
        try:
            return expander.stream_reader(data).read(size + 1)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from None

    return Codec(compressor.compress, expand)


CODECS: Final[dict[str, Callable[[], Codec]]] = {"zlib": zlib_codec, "zstd": zstd_codec}


class CompressedFramer(Framer):
    """The framing of a connection whose login is done, and which is compressed."""

    __slots__ = ("_codec", "_number", "_received")

    def __init__(self, codec: Codec, limit: int = MAX_ALLOWED_PACKET) -> None:
        super().__init__(limit)
        self._codec = codec
        self._number = 0  # of the next compressed packet, of either side
        self._received = bytearray()  # and not yet unpacked

    def feed(self, data: bytes) -> None:
        """As `Framer.feed`. ProtocolError for data that are damaged."""
        self._received += data
        self._unpack()

    @property
    def unread(self) -> int:
        return super().unread + len(self._received)

    def next_packet(self) -> bytes | None:
        while True:
            if not self._missing and len(self.buffer) - self.position >= HEADER_SIZE:
                # A server that flushes in the middle of an answer goes on with the compressed packets' numbers
                self.sequence = self.buffer[self.position + 3]
            payload = super().next_packet()
            if payload is not None or not self._unpack():
                return payload

    def farewell(self) -> bytes:
        if self.position == len(self.buffer) and len(self._received) >= _HEADER_SIZE:
            self._number = self._received[3]  # last words come out of turn
            self._unpack()
        return super().farewell()

    def command(self, payload: bytes) -> bytes:
        self._number = 0
        return super().command(payload)

    def frame(self, payload: bytes) -> bytes:
        data, self._number = self._packed(super().frame(payload), self._number)
        return data

    def unanswered(self, payload: bytes) -> bytes:
        return self._packed(super().unanswered(payload), 0)[0]

    def _packed(self, data: bytes, number: int) -> tuple[bytes, int]:
        """The compressed packets, from `number` on, that carry `data`; and the number behind them."""
        pieces: list[bytes] = []
        for start in range(0, len(data), MAX_PAYLOAD):
            plain = data[start : start + MAX_PAYLOAD]
            packed = self._codec.compress(plain) if len(plain) >= _WORTH_IT else plain
            size = len(plain)
            if len(packed) >= size:
                packed, size = plain, 0
            pieces += (_HEADER.pack(len(packed) | number << 24, size & 0xFFFF, size >> 16), packed)
            number = (number + 1) & 0xFF
        return b"".join(pieces), number

    def _unpack(self) -> bool:
        """Unpacks while there is nothing left to go on with; whether that brought something."""
        before = len(self._received)
        received = self._received
        while len(received) >= _HEADER_SIZE and (self._missing or self.position == len(self.buffer)):
            word, low, high = _HEADER.unpack_from(received)
            end = _HEADER_SIZE + (word & MAX_PAYLOAD)
            if word >> 24 != self._number:
                raise ProtocolError(
                    f"compressed packet with sequence number {word >> 24} where {self._number} was due"
                )
            if len(received) < end:
                break
            self._number = (self._number + 1) & 0xFF
            packed = bytes(received[_HEADER_SIZE:end])
            del received[:end]
            super().feed(self._expanded(packed, low | high << 16))
        return len(received) < before

    def _expanded(self, packed: bytes, size: int) -> bytes:
        if not size:
            return packed
        try:
            plain = self._codec.expand(packed, size)
        except ValueError as error:
            raise ProtocolError(f"a compressed packet is damaged: {error}") from None
        if len(plain) != size:
            raise ProtocolError(f"a compressed packet holds {len(plain)} bytes or more where {size} were announced")
        return plain
