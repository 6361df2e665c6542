"""Which types of files are taken: told by their first bytes, and refused before the rest has come, for every way in."""

from __future__ import annotations

import gzip
import io
import tarfile
import wave
import zipfile
from typing import Any

import pytest

import coro
from apps.upload.sniffing import HEAD_SIZE, AllowedTypes, BegunBody, read_head, sniff
from tests.upload.conftest import Start
from tests.upload.harness import Answer, App, SQLiteBackEnd, eventually, form, run_app
from tests.upload.test_storage import Pieces
from tests.upload.tus import PIECE, Client

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20
HTML = b"<!doctype html><script>alert(1)</script>" + b" " * 5000
MP3_FRAME = b"\xff\xfb\x90\x00" + bytes(413)  # version 1, layer III, 128 kbit/s, 44,100 samples a second


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", "b")
    return file.getvalue()


def _wave() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(8000)
        audio.writeframes(bytes(100))
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return file.getvalue()


def _brand(brand: bytes, *more: bytes) -> bytes:
    return (16 + 4 * len(more)).to_bytes(4, "big") + b"ftyp" + brand + bytes(4) + b"".join(more) + b"\0\0\0\1mdat"


SAMPLES: list[tuple[bytes, str]] = [
    (b"", "text/plain"),
    (b"plain, \xc3\xa9\t\r\n\x1b[0m", "text/plain"),
    (b"\xff\xfea\0\n\0", "text/plain"),
    (b"\0binary", "application/octet-stream"),
    (b"almost text\x01", "application/octet-stream"),
    (PNG, "image/png"),
    (PNG[:7], "application/octet-stream"),
    (b"GIF89a" + bytes(10), "image/gif"),
    (b"\xff\xd8\xff\xe0" + bytes(10), "image/jpeg"),
    (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
    (b"XXXX\x10\0\0\0WEBPVP8 ", "application/octet-stream"),
    (b"II*\0" + bytes(8), "image/tiff"),
    (_wave(), "audio/wave"),
    (b"FORM\0\0\0\x10AIFF", "audio/aiff"),
    (b"ID3\x04" + bytes(10), "audio/mpeg"),
    (MP3_FRAME * 2, "audio/mpeg"),
    (MP3_FRAME, "application/octet-stream"),
    (b"\xff\xf3\x44\x00" + bytes(92) + b"\xff\xf3\x44\x00", "audio/mpeg"),  # version 2, 32 kbit/s, 24,000 samples
    (_brand(b"isom", b"mp41"), "video/mp4"),
    (_brand(b"abcd", b"efgh", b"mp42"), "video/mp4"),
    (_brand(b"abcd", b"efgh"), "application/octet-stream"),
    (_brand(b"heic"), "image/heic"),
    (_brand(b"avif"), "image/avif"),
    (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm\x42\x87", "video/webm"),
    (b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\x82\x88matroska\x42\x87", "video/x-matroska"),
    (b"\x1a\x45\xdf\xa3" + bytes(30), "application/octet-stream"),
    (b"%PDF-1.7\n\0", "application/pdf"),
    (_zip(), "application/zip"),
    (gzip.compress(b"", mtime=0), "application/x-gzip"),
    (_tar(), "application/octet-stream"),
    (HTML, "text/html"),
    (b" \n<BODY onload=alert(1)>", "text/html"),
    (b"<bodyguard>", "text/plain"),
    (b"<?xml version='1.0'?><svg/>", "text/xml"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "kind"), SAMPLES, ids=[f"{n}-{kind}" for n, (_, kind) in enumerate(SAMPLES)])
def test_type_is_told_by_the_first_bytes(data: bytes, kind: str) -> None:
    assert sniff(data[:HEAD_SIZE]) == kind


@pytest.mark.parametrize("length", range(0, 64, 3))
def test_any_beginning_has_some_type(length: int) -> None:
    for data, _ in SAMPLES:
        assert "/" in sniff(data[:length])


@pytest.mark.parametrize("size", [1, 100, HEAD_SIZE, 100_000])
@pytest.mark.parametrize("pieces", [[PNG], [PNG[:3], PNG[3:]], [PNG[:2000], PNG[2000:]]], ids=["1", "3", "2000"])
def test_body_whose_beginning_was_read_is_still_whole(pieces: list[bytes], size: int) -> None:
    def read(body: BegunBody) -> coro.Coro[bytes]:
        buffer = memoryview(bytearray(size))
        data = yield from body.read(10)
        while count := (yield from body.read_into(buffer)):
            data += buffer[:count]
        return data

    body = Pieces(*pieces)
    begun = BegunBody(coro.run(read_head(body)), body)
    assert coro.run(read(begun)) == PNG
    assert begun.buffered() == b""


# --- Each way in ---------------------------------------------------------------------------------


@pytest.fixture
def strict(start: Start) -> App:
    return start(SQLiteBackEnd(), "--allow-types", "image/*, application/pdf")


def test_put_of_another_type_is_refused_before_the_rest_has_come(strict: App) -> None:
    session = strict.log_in()
    with strict.begin_put(session, 100_000_000, HTML[:2000], "Content-Type: image/png") as exchange:
        answer = exchange.answer()
    assert answer.status == 415
    assert answer.json["error"] == "this is text/html by its first bytes; taken are image/*, application/pdf"
    assert [strict.put("a", data, session).status for data in (PNG, HTML, b"%PDF-1", b"", b"\0")] == [
        201, 415, 201, 415, 415,
    ]  # fmt: skip
    assert strict.put("slow", iter([PNG[:3], PNG[3:]]), session).status == 201
    assert {strict.content(row) for row in strict.rows} == {PNG, b"%PDF-1"}
    assert len(strict.files) == 3


def test_form_with_a_file_of_another_type_is_refused_whole(strict: App) -> None:
    session = strict.log_in()

    def post(*files: tuple[str, bytes]) -> Answer:
        body, kind = form(*files)
        return strict.ask("POST", "/upload", body, session=session, Content_Type=kind)

    assert post(("a.png", PNG), ("b.png", HTML)).status == 415
    assert strict.files == set()
    assert post(("a.png", PNG), ("b.png", PNG[:1000])).status == 201
    assert {strict.content(row) for row in strict.rows} == {PNG, PNG[:1000]}


@pytest.mark.parametrize("pieces", [[5000], [2000, 3000], [10, 1400, 1000, 2590]])
def test_upload_by_tus_of_another_type_is_refused_with_the_piece_that_tells(strict: App, pieces: list[int]) -> None:
    client = Client(strict)
    for data, told in (PNG[:5000], 204), (HTML[:5000], 415):
        url, offset, statuses = client.create(5000), 0, []
        for size in pieces:
            statuses.append(client.patch(url, offset, data[offset : offset + size]).status)
            offset += size
            if statuses[-1] == 415:
                assert offset >= HEAD_SIZE > offset - size
                break
        assert statuses[-1] == told
        assert client.head(url).status == (200 if told == 204 else 404)
    assert [upload["size"] for upload in client.finished()] == [5000]


def test_piece_by_tus_of_another_type_is_refused_before_the_rest_has_come(strict: App) -> None:
    client = Client(strict)
    with client.begin_patch(client.create(100_000_000), 0, 100_000_000, HTML[:2000]) as exchange:
        assert exchange.answer().status == 415


def test_small_upload_by_tus_is_judged_when_it_is_whole(strict: App) -> None:
    client = Client(strict)
    for data, status in (PNG[:20], 204), (b"text", 415):
        url = client.create(None)
        assert client.patch(url, 0, data[:3]).status == 204
        assert client.patch(url, 3, data[3:], Upload_Length=len(data)).status == status
    empty = client.ask("POST", "/files/", b"", Upload_Length=0)
    assert (empty.status, [upload["size"] for upload in client.finished()]) == (415, [20])
    assert not list((strict.directory / "resumable").glob("*/data"))


def test_joined_parts_are_judged_together(strict: App) -> None:
    client = Client(strict)

    def join(*pieces: bytes) -> int:
        urls = [client.create(len(piece), Upload_Concat="partial") for piece in pieces]
        for url, piece in zip(urls, pieces, strict=True):
            assert client.patch(url, 0, piece).status == 204
        return client.ask("POST", "/files/", b"", Upload_Concat=f"final;{' '.join(urls)}").status

    assert join(PNG[:3000], b"<html>" * 500) == 201
    assert join(HTML[:3000], PNG) == 415


def test_first_piece_that_breaks_off_leaves_an_upload_that_goes_on(strict: App) -> None:
    client = Client(strict)
    url = client.create(len(PNG))
    with client.begin_patch(url, 0, len(PNG), PNG[:3000]):
        eventually(lambda: client.received(url) == 3000)
    assert client.offset(url) == 3000
    assert client.ask("PATCH", url, PNG[3000:], Content_Type=PIECE, Upload_Offset=3000).status == 204


@pytest.mark.parametrize("text", ["image", "image/", "*/*", ".png", "image/png;q=1", ","])
def test_types_that_are_none(text: str) -> None:
    done: Any = run_app("--allow-types", text)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--allow-types" in done.stderr
    with pytest.raises(ValueError, match=r"type of files"):
        AllowedTypes([word for word in text.split(",") if word])
