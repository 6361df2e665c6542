"""Content codings (RFC 9110, section 8.4.1) undone piece by piece, in bounded memory, without any I/O.

    decoder = Decoder("gzip")
    decoder.feed(data)
    piece = decoder.read(65536)     # b"": more has to be fed
    decoder.feed_eof()

A kilobyte can hold a megabyte. So a piece never has more bytes than were asked for, and what is left of the input
waits, compressed, for the next call: whoever reads decides how much is too much.
"""

from __future__ import annotations

import zlib
from typing import Any

GZIP, ZLIB, RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
WINDOW = {"gzip": GZIP, "x-gzip": GZIP, "deflate": ZLIB}  # by the codings there are here


class Decoder:
    """One body's decoder. ValueError for what is not encoded so."""

    def __init__(self, coding: str) -> None:
        self.coding = coding
        self._window = WINDOW[coding]
        self._zlib: Any = None  # of the current gzip member; None before its first bytes
        self._input = b""

    def feed(self, data: bytes) -> None:
        """Take in encoded bytes. Call it when `read` has returned b""."""
        self._input += data

    def read(self, limit: int) -> bytes:
        """Up to `limit` decoded bytes; b"" when more have to be fed."""
        while self._input or self._zlib is not None:
            if self._zlib is None and not self._begin():
                break
            try:
                data: bytes = self._zlib.decompress(self._input, limit)
            except zlib.error as error:
                raise ValueError(f"the body is not {self.coding}: {error}") from None
            if self._zlib.eof:
                self._input, self._zlib = self._zlib.unused_data, None
                if self._input and self._window != GZIP:
                    raise ValueError(f"bytes after the end of the {self.coding} body")
            else:
                self._input = self._zlib.unconsumed_tail
                if not data:
                    break
            if data:
                return data
        return b""

    def _begin(self) -> bool:
        """Begin with a gzip member, of which there may be several, or with the zlib stream, when enough has come."""
        if self._window == ZLIB:
            if len(self._input) < 2:
                return False
            # "deflate" is zlib's format; some servers send the bare one. RFC 1950, section 2.2, tells them apart.
            if self._input[0] & 15 != 8 or int.from_bytes(self._input[:2], "big") % 31:
                self._window = RAW
        self._zlib = zlib.decompressobj(self._window)
        return True

    def feed_eof(self) -> None:
        """The body has ended: ValueError if that is in the middle. An empty body is nothing encoded."""
        if self._zlib is not None or self._input:
            raise ValueError(f"the {self.coding} body ends in the middle")
