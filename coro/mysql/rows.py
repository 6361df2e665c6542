"""Rows of a result set, straight out of the receive buffer.

    text    one length-encoded string a column; 0xFB stands for NULL
    binary  0x00, a bit a column for NULL (from bit 2 on), then the values that are not NULL

A batch is whatever whole rows one buffer holds. Splitting appends each row's cells to one flat list; then
every column is a slice of that list, is decoded as a whole, and `zip` makes the tuples. So the interpreter
runs only the splitting, about one small loop a row, and all conversions are loops in C.

Whatever is not a plain row (the end, an error, a packet cut in two or of 16 MiB, a wrong sequence number) is
left in the framer for `Framer.next_packet` to judge.

Source: "Text Resultset Row" and "Binary Protocol Resultset Row" in the client/server protocol manual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from struct import Struct
from struct import error as StructError
from typing import Any, Final

from coro.mysql.columns import Cells, Column, Decoder, binary_decoder, fixed_size_code, text_decoder
from coro.mysql.errors import ProtocolError
from coro.mysql.packets import HEADER, HEADER_SIZE, MAX_PAYLOAD, Framer, lenenc_int

Row = tuple[Any, ...]
_Unpack = Callable[[bytes, int], tuple[Any, ...]]

_NULL: Final = 0xFB
_FIRST_OF_NO_ROW: Final = 0xFE  # EOF or OK, and 0xFF for an error


class RowReader:
    """Splits and decodes the rows of one result set. One subclass a protocol."""

    def __init__(self, columns: Sequence[Column], decoders: Sequence[Decoder]) -> None:
        self.columns = tuple(columns)
        self._decoders = tuple(decoders)

    def split(self, buffer: bytes, position: int, cells: Cells) -> int:
        """Appends the cells of the row at `position`; returns where it ends. IndexError if it is cut off."""
        raise NotImplementedError

    def take(self, framer: Framer, rows: list[Row]) -> None:
        """Takes all whole rows from the framer. Raises ProtocolError."""
        if framer.joining:
            return
        cells: Cells = []
        split = self.split
        header = HEADER.unpack_from
        buffer, position, sequence = framer.buffer, framer.position, framer.sequence
        size = len(buffer)
        longest = min(framer.limit, MAX_PAYLOAD - 1)
        try:
            while position + HEADER_SIZE < size:
                (word,) = header(buffer, position)
                length = word & MAX_PAYLOAD
                start = position + HEADER_SIZE
                end = start + length
                if end > size or word >> 24 != sequence or length > longest:
                    break
                if buffer[start] >= _FIRST_OF_NO_ROW:
                    break
                if split(buffer, start, cells) != end:
                    raise ProtocolError("a row is longer or shorter than its packet")
                position = end
                sequence = (sequence + 1) & 0xFF
        except (IndexError, StructError):
            raise ProtocolError("a row is cut off") from None
        framer.position, framer.sequence = position, sequence
        self._decode(cells, rows)

    def take_one(self, payload: bytes, rows: list[Row]) -> None:
        """Decodes the payload of a row that came alone, or in several packets. Raises ProtocolError."""
        cells: Cells = []
        try:
            end = self.split(payload, 0, cells)
        except (IndexError, StructError):
            raise ProtocolError("a row is cut off") from None
        if end != len(payload):
            raise ProtocolError("a row is longer or shorter than its packet")
        self._decode(cells, rows)

    def _decode(self, cells: Cells, rows: list[Row]) -> None:
        if not cells:
            return
        count = len(self._decoders)
        decoded = []
        for index, decode in enumerate(self._decoders):
            try:
                decoded.append(decode(cells[index::count]))
            except (ValueError, ArithmeticError) as error:
                raise ProtocolError(f"column {self.columns[index].name!r}: {error}") from None
        rows.extend(zip(*decoded, strict=True))


class TextRows(RowReader):
    """Rows of the text protocol (COM_QUERY)."""

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__(columns, [text_decoder(column) for column in columns])
        self._range = range(len(columns))

    def split(self, buffer: bytes, position: int, cells: Cells) -> int:
        append = cells.append
        for _ in self._range:
            length = buffer[position]
            position += 1
            if length < _NULL:
                end = position + length
                append(buffer[position:end])
                position = end
            elif length == _NULL:
                append(None)
            else:
                length, position = lenenc_int(buffer, position - 1)
                append(buffer[position : position + length])
                position += length
        return position


class BinaryRows(RowReader):
    """Rows of the binary protocol (COM_STMT_EXECUTE)."""

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__(columns, [binary_decoder(column) for column in columns])
        codes = [fixed_size_code(column) for column in columns]
        self._no_nulls = bytes(1 + (len(columns) + 9) // 8)  # the header byte and the bits, all zero
        self._runs: list[tuple[_Unpack | None, int]] = []  # neighbours of fixed size are unpacked together
        for fixed, run in groupby(codes, key=bool):
            if fixed:
                self._runs.append(_unpacker("".join(run)))
            else:
                self._runs.extend((None, 0) for _ in run)
        self._singles = [_unpacker(code) if code else (None, 0) for code in codes]

    def split(self, buffer: bytes, position: int, cells: Cells) -> int:
        if not buffer.startswith(self._no_nulls, position):
            return self._split_with_nulls(buffer, position, cells)
        position += len(self._no_nulls)
        for unpack, size in self._runs:
            if unpack is not None:
                cells += unpack(buffer, position)
                position += size
            else:
                size = buffer[position]
                position += 1
                if size >= _NULL:
                    size, position = lenenc_int(buffer, position - 1)
                cells.append(buffer[position : position + size])
                position += size
        return position

    def _split_with_nulls(self, buffer: bytes, position: int, cells: Cells) -> int:
        if buffer[position] != 0:
            raise ProtocolError(f"a binary row starts with 0x{buffer[position]:02x}")
        start = position + len(self._no_nulls)
        nulls = int.from_bytes(buffer[position + 1 : start], "little") >> 2
        position = start
        for unpack, size in self._singles:
            if nulls & 1:
                cells.append(None)
            elif unpack is not None:
                cells += unpack(buffer, position)
                position += size
            else:
                size, position = lenenc_int(buffer, position)
                cells.append(buffer[position : position + size])
                position += size
            nulls >>= 1
        return position


def _unpacker(codes: str) -> tuple[_Unpack, int]:
    layout = Struct("<" + codes)
    return layout.unpack_from, layout.size
