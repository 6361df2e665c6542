"""What kind of file it is, by its first bytes: what clients say of it, or how they name it, does not count.

The signatures are those of the WHATWG's MIME Sniffing Standard (https://mimesniff.spec.whatwg.org/, sections 6 and
7.1), and some of common types that it leaves out, marked here. What is none of them is text/plain if it has no byte
that text cannot have, else application/octet-stream.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from apps.upload.storage import Body, Pieces
from coro import Coro
from coro.http import HTTPError

HEAD_SIZE = 1445  # bytes that decide: the standard's resource header
PATTERN = re.compile(r"[a-z]+/(\*|[a-z0-9.+-]+)")

# At which offset, what, and what it tells.
SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF-", "application/pdf"),
    (0, b"%!PS-Adobe-", "application/postscript"),
    (0, b"\xfe\xff", "text/plain"),  # byte order marks
    (0, b"\xff\xfe", "text/plain"),
    (0, b"\xef\xbb\xbf", "text/plain"),
    (0, b"\0\0\1\0", "image/x-icon"),
    (0, b"\0\0\2\0", "image/x-icon"),
    (0, b"BM", "image/bmp"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBPVP", "image/webp"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"II*\0", "image/tiff"),  # not in the standard
    (0, b"MM\0*", "image/tiff"),  # nor is this
    (8, b"AIFF", "audio/aiff"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"fLaC", "audio/flac"),  # nor this
    (0, b"OggS\0", "application/ogg"),
    (0, b"MThd\0\0\0\6", "audio/midi"),
    (8, b"AVI ", "video/avi"),
    (8, b"WAVE", "audio/wave"),
    (34, b"LP", "application/vnd.ms-fontobject"),
    (0, b"\0\1\0\0", "font/ttf"),
    (0, b"OTTO", "font/otf"),
    (0, b"ttcf", "font/collection"),
    (0, b"wOFF", "font/woff"),
    (0, b"wOF2", "font/woff2"),
    (0, b"\x1f\x8b\x08", "application/x-gzip"),
    (0, b"PK\3\4", "application/zip"),  # documents of office programs too
    (0, b"Rar!\x1a\7", "application/x-rar-compressed"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),  # nor this
)
CONTAINERS = {"image/webp": b"RIFF", "video/avi": b"RIFF", "audio/wave": b"RIFF", "audio/aiff": b"FORM"}
HTML = re.compile(
    rb"[\t\n\f\r ]*<(!DOCTYPE HTML|HTML|HEAD|SCRIPT|IFRAME|H1|DIV|FONT|TABLE|A|STYLE|TITLE|B|BODY|BR|P|!--)[ >]",
    re.IGNORECASE,
)
XML = re.compile(rb"[\t\n\f\r ]*<\?xml")
BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")  # bytes that text cannot have

# ISO base media files by their brand; the standard knows those that begin with mp4 only.
BRANDS = {
    b"avif": "image/avif", b"avis": "image/avif", b"heic": "image/heic", b"heix": "image/heic", b"mif1": "image/heic",
    b"M4A ": "audio/mp4", b"M4V ": "video/mp4", b"isom": "video/mp4", b"iso2": "video/mp4", b"qt  ": "video/quicktime",
}  # fmt: skip

# Frames of MPEG audio, layer III (section 6.2.3): kbit/s of version 1 and of versions 2 and 2.5; samples a second.
RATES = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
LOW_RATES = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
SAMPLES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def sniff(head: bytes) -> str:
    """The media type of a file that begins so: its first `HEAD_SIZE` bytes, or all there is of it."""
    if HTML.match(head):
        return "text/html"
    if XML.match(head):
        return "text/xml"
    for offset, signature, kind in SIGNATURES:
        if head.startswith(signature, offset) and head.startswith(CONTAINERS.get(kind, b"")):
            return kind
    kind = _media(head) or ("audio/mpeg" if _is_mp3(head) else "")
    return kind or ("application/octet-stream" if BINARY.search(head) else "text/plain")


def _media(head: bytes) -> str:
    """Of a file in one of the two common containers of audio and video."""
    if head[4:8] == b"ftyp":
        size = int.from_bytes(head[:4], "big")
        brands = [head[at : at + 4] for at in (8, *range(16, min(size, len(head)), 4))]
        if brands[0] in BRANDS:
            return BRANDS[brands[0]]
        return "video/mp4" if any(brand.startswith(b"mp4") for brand in brands) else ""
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        kinds = {b"webm": "video/webm", b"matroska": "video/x-matroska"}  # the latter is not in the standard
        document = re.search(rb"\x42\x82.(webm|matroska)", head[4:64], re.DOTALL)
        return kinds[document[1]] if document else ""
    return ""


def _is_mp3(head: bytes) -> bool:
    """Does it begin with two frames?"""
    size = _mp3_frame(head, 0)
    return size > 0 and _mp3_frame(head, size) > 0


def _mp3_frame(head: bytes, at: int) -> int:
    """How many bytes the frame there has; 0 if there is none."""
    if len(head) < at + 4 or head[at] != 0xFF or head[at + 1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[at + 1] >> 3 & 3, head[at + 1] >> 1 & 3
    rate, samples, padding = head[at + 2] >> 4, head[at + 2] >> 2 & 3, head[at + 2] >> 1 & 1
    if version == 1 or layer != 1 or rate in (0, 15) or samples == 3:
        return 0
    bits = (RATES if version == 3 else LOW_RATES)[rate] * 1000
    return (144 if version == 3 else 72) * bits // SAMPLES[version][samples] + padding


class AllowedTypes:
    """The types that may be stored: `image/png`, `image/*`."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """ValueError for what is none."""
        if not patterns:
            raise ValueError("no type of files is named")
        for pattern in patterns:
            if not PATTERN.fullmatch(pattern):
                raise ValueError(f"{pattern!r} is not a type of files, as image/png or image/* are")
        self.patterns = tuple(patterns)

    def check(self, head: bytes) -> None:
        """`HTTPError` 415 if a file that begins so may not be stored."""
        kind = sniff(head)
        if kind not in self.patterns and f"{kind.partition('/')[0]}/*" not in self.patterns:
            raise HTTPError(415, f"this is {kind} by its first bytes; taken are {', '.join(self.patterns)}")

    def checked(self, body: Body) -> Coro[Body]:
        """The same body, if it may be stored. Suspends until its first bytes have come. `HTTPError` 415."""
        head = body.buffered()
        if head is None:
            head = yield from read_head(body)
        self.check(head[:HEAD_SIZE])
        return BegunBody(head, body)

    def checked_pieces(self, pieces: Pieces) -> Coro[Pieces]:
        """As `checked`, for a part of a form."""
        head = yield from read_head(pieces)
        self.check(head)
        return BegunPieces(head, pieces)


def read_head(pieces: Pieces, size: int = HEAD_SIZE) -> Coro[bytes]:
    """So many bytes, or all if there are fewer. Suspends, and raises what reading does."""
    head = b""
    while len(head) < size and (data := (yield from pieces.read(size - len(head)))):
        head += data
    return head


class BegunPieces:
    """What has been read of it already is given out again, before the rest."""

    def __init__(self, head: bytes, rest: Pieces) -> None:
        self._head = head
        self._rest = rest

    def _take(self, limit: int) -> bytes:
        data, self._head = self._head[:limit], self._head[limit:]
        return data

    def read(self, limit: int = HEAD_SIZE) -> Coro[bytes]:
        if self._head:
            return self._take(limit)
        return (yield from self._rest.read(limit))


class BegunBody(BegunPieces):
    """The same for the body of a request."""

    def __init__(self, head: bytes, rest: Body) -> None:
        super().__init__(head, rest)
        self._body = rest

    def buffered(self) -> bytes | None:
        rest = self._body.buffered()
        return None if rest is None else self._take(len(self._head)) + rest

    def read_into(self, buffer: memoryview) -> Coro[int]:
        if self._head:
            data = self._take(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        return (yield from self._body.read_into(buffer))
