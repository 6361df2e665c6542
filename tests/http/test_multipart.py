"""multipart/form-data bodies, part by part, however they are split."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coro.http import HTTPError, MultipartReader, Request, Response
from coro.http.body import Body
from coro.http.message import Headers
from coro.http.multipart import MAX_OUTSIDE, MAX_PART_FIELD_SIZE, MAX_PART_FIELDS, MAX_PARTS
from coro.task import Coro
from tests.http.conftest import Serve
from tests.http.serving import PATIENCE, put

T = TypeVar("T")
Parts = list[tuple[str, str | None, str | None, bytes]]

TYPE = "multipart/form-data; boundary=XyZ"
FORM = (
    b"--XyZ\r\n"
    b'Content-Disposition: form-data; name="text"\r\n\r\n'
    b"\r\n--Xy\r\n--XyX\r\n"
    b"\r\n--XyZ\r\n"
    b'Content-Disposition: form-data; name="file"; filename="a b.txt"\r\nContent-Type: text/plain\r\n\r\n'
    b"content\r"
    b"\r\n--XyZ\r\n"
    b'content-disposition: form-data; name="empty"\r\n\r\n'
    b"\r\n--XyZ--\r\n"
)
PARTS: Parts = [
    ("text", None, None, b"\r\n--Xy\r\n--XyX\r\n"),
    ("file", "a b.txt", "text/plain", b"content\r"),
    ("empty", None, None, b""),
]


class Pieces(Body):
    """A body that has come in these pieces."""

    __slots__ = ("pieces",)

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = [piece for piece in pieces if piece]

    def read(self, limit: int = 65536) -> Coro[bytes]:
        yield from ()
        return self.pieces.pop(0) if self.pieces else b""


def finish(generator: Coro[T]) -> T:
    """The result of a generator that has nothing to wait for."""
    try:
        next(generator)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("it waits")


class FormRequest(Request):
    """A request with this body."""

    __slots__ = ("_headers", "_pieces")

    def __init__(self, content_type: str | None, pieces: Iterable[bytes]) -> None:
        self._headers = Headers({b"content-type": content_type.encode("latin-1")} if content_type else {})
        self._pieces = Pieces(pieces)

    @property
    def body(self) -> Body:
        return self._pieces

    @property
    def headers(self) -> Headers:
        return self._headers


def parts(pieces: Iterable[bytes], limit: int = 65536, content_type: str = TYPE) -> Parts:
    form = MultipartReader(FormRequest(content_type, pieces))
    found: Parts = []
    while part := finish(form.next_part()):
        content = b""
        while data := finish(part.read(limit)):
            assert len(data) <= limit
            content += data
        found.append((part.name, part.filename, part.content_type, content))
    return found


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    return [data[a:b] for a, b in pairwise([0, *sorted(places), len(data)])]


@pytest.mark.parametrize("limit", [1, 5, 65536])
def test_parts_come_whole_however_they_are_split(limit: int) -> None:
    chance = random.Random(1)
    places = range(len(FORM))
    assert parts([FORM], limit) == PARTS
    assert parts((FORM[i : i + 1] for i in places), limit) == PARTS
    for place in places:
        assert parts([FORM[:place], FORM[place:]], limit) == PARTS
    for _ in range(200):
        assert parts(cut(FORM, chance.choices(places, k=5)), limit) == PARTS


@pytest.mark.parametrize("place", [0, 1, 2, 20])
def test_what_stands_around_the_parts_is_skipped(place: int) -> None:
    whole = b"a preamble\r\n" + FORM + b"an epilogue\r\n--XyZ\r\n"
    end = len(whole) - len(b"an epilogue\r\n--XyZ\r\n")
    assert parts(cut(whole, [end - place])) == PARTS


def test_form_without_parts() -> None:
    assert parts([b"--XyZ--\r\n"]) == []


def test_quoted_boundary() -> None:
    assert parts([FORM], content_type='Multipart/Form-Data; charset=utf-8; boundary="XyZ"') == PARTS


def test_names_in_other_alphabets() -> None:
    form = '--XyZ\r\nContent-Disposition: form-data; name="n\u00e9"; filename="\u4e2d.txt"\r\n\r\n\r\n--XyZ--'
    assert parts([form.encode()]) == [("n\u00e9", "\u4e2d.txt", None, b"")]


def test_part_that_was_not_read_is_skipped() -> None:
    form = MultipartReader(FormRequest(TYPE, [FORM]))
    names = []
    while part := finish(form.next_part()):
        names.append(part.name)
    assert names == ["text", "file", "empty"]


def test_part_that_has_passed_gives_nothing() -> None:
    form = MultipartReader(FormRequest(TYPE, [FORM]))
    first = finish(form.next_part())
    second = finish(form.next_part())
    assert first and second
    assert (finish(first.read()), finish(second.read(3))) == (b"", b"con")


def test_there_is_nothing_after_the_last_part() -> None:
    form = MultipartReader(FormRequest(TYPE, [FORM]))
    while finish(form.next_part()):
        pass
    assert finish(form.next_part()) is None


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=XyZ",
     "application/x-www-form-urlencoded", "multipart/form-data; boundary=" + "b" * 71],
)  # fmt: skip
def test_body_of_another_type_is_415(content_type: str | None) -> None:
    with pytest.raises(HTTPError) as caught:
        MultipartReader(FormRequest(content_type, [FORM]))
    assert caught.value.status == 415


FIELD = b'Content-Disposition: form-data; name="a"\r\n'
BROKEN = {
    "nothing": b"",
    "no boundary": b"text",
    "cut in a part": FORM[:150],
    "cut in the fields": FORM[:20],
    "cut before the last boundary's end": FORM[:-4],
    "other boundary": FORM.replace(b"XyZ", b"zYx"),
    "no disposition": b"--XyZ\r\nContent-Type: text/plain\r\n\r\n\r\n--XyZ--",
    "other disposition": b"--XyZ\r\nContent-Disposition: attachment\r\n\r\n\r\n--XyZ--",
    "no colon": b"--XyZ\r\n" + FIELD + b"junk\r\n\r\n\r\n--XyZ--",
    "bad name": b"--XyZ\r\n" + FIELD + b"a b: c\r\n\r\n\r\n--XyZ--",
    "bare LF": b"--XyZ\r\n" + FIELD.replace(b"\r", b"") + b"\n\n--XyZ--",
    "not UTF-8": b"--XyZ\r\n" + FIELD.replace(b"a", b"\xff") + b"\r\n\r\n--XyZ--",
    "text after a boundary": FORM.replace(b"--XyZ\r\nC", b"--XyZjunk\r\nC"),
    "too many parts": (b"--XyZ\r\n" + FIELD + b"\r\n\r\n") * (MAX_PARTS + 1) + b"--XyZ--",
    "too many fields": b"--XyZ\r\n" + FIELD + b"X: y\r\n" * MAX_PART_FIELDS + b"\r\n\r\n--XyZ--",
    "field too long": b"--XyZ\r\n" + FIELD + b"X: " + b"y" * MAX_PART_FIELD_SIZE + b"\r\n\r\n\r\n--XyZ--",
    "long preamble": b"x" * 3 * MAX_OUTSIDE + b"\r\n" + FORM,
    "long epilogue": FORM + b"x" * 3 * MAX_OUTSIDE,
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("size", [1000, 32768, 1 << 20])
def test_broken_body_is_400(name: str, size: int) -> None:
    data = BROKEN[name]
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    if name.startswith("long") and len(pieces) == 1:
        assert parts(pieces) == PARTS  # it came as one piece: nothing had to be waited for
        return
    with pytest.raises(HTTPError) as caught:
        parts(pieces)
    assert caught.value.status == 400


def test_as_many_and_as_long_as_allowed() -> None:
    many = (b"--XyZ\r\n" + FIELD + b"\r\n\r\n") * MAX_PARTS + b"--XyZ--"
    assert len(parts([many])) == MAX_PARTS
    fields = FIELD + b"X: y\r\n" * (MAX_PART_FIELDS - 2) + b"X: " + b"y" * (MAX_PART_FIELD_SIZE - 3) + b"\r\n"
    assert parts([b"--XyZ\r\n" + fields + b"\r\n\r\n--XyZ--"]) == [("a", None, None, b"")]


@given(st.lists(st.binary(max_size=50)), st.data())
@settings(deadline=None)
def test_content_comes_back_as_it_was(contents: list[bytes], draw: st.DataObject) -> None:
    contents = [content for content in contents if b"--XyZ" not in content]
    form = b"".join(b"--XyZ\r\n" + FIELD + b"\r\n" + content + b"\r\n" for content in contents) + b"--XyZ--\r\n"
    places = draw.draw(st.lists(st.integers(0, len(form)), max_size=10))
    assert [part[3] for part in parts(cut(form, places))] == contents


fragments = st.lists(st.sampled_from([FORM, b"--XyZ", b"\r\n", b"--", FIELD, b":", b"\n"]))


@given(st.one_of(st.binary(), fragments.map(b"".join)))
@settings(deadline=None)
def test_any_bytes_give_parts_or_400(data: bytes) -> None:
    try:
        parts([data])
    except HTTPError as error:
        assert error.status == 400


def test_curl_sends_a_form(serve: Serve, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(1 << 20)
    (tmp_path / "data").write_bytes(content)
    found: list[Any] = []

    def handle(request: Request) -> Coro[Response]:
        form = MultipartReader(request)
        while part := (yield from form.next_part()):
            pieces = []
            while data := (yield from part.read()):
                pieces.append(data)
            found.append((part.name, part.filename, b"".join(pieces)))
        return Response(204)

    url = f"http://127.0.0.1:{serve(handle).port}/"
    subprocess.run(
        ["curl", "-sS", "-f", "-F", "a=b", "-F", f"file=@{tmp_path}/data", url],
        check=True, capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    assert found == [("a", None, b"b"), ("file", "data", content)]


def test_connection_goes_on_after_a_broken_form(serve: Serve) -> None:
    def handle(request: Request) -> Coro[Response]:
        form = MultipartReader(request)
        while (yield from form.next_part()):
            pass
        return Response(204)

    client = serve(handle).client()
    client.send(put(b"junk", f"Content-Type: {TYPE}\r\n") + put(FORM, f"Content-Type: {TYPE}\r\n"))
    assert [client.answer().status, client.answer().status] == [400, 204]
