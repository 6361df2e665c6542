"""Requests out of bytes: every vector whole, byte by byte, with what follows, and split anywhere."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coro.http.parser import HEAD_SLACK, KNOWN_NUMBER, Head, Limits, PlainReader, RequestParser
from tests.http.vectors import (
    ACCEPTED,
    HOST,
    LAST,
    NEXT,
    NEXT_REQUEST,
    POST,
    REFUSED,
    Expected,
    chunked,
    get,
    line,
    post,
)

untimed = settings(deadline=None)
SMALL = Limits(target=40, head=80, fields=4, chunk_framing=60)


def described(head: Head) -> Expected:
    body = b"".join(head.chunks) if head.complete else ...
    return Expected(f"{head.method} {head.target} HTTP/{head.version}", body, head.keep_alive)


def outcome(pieces: Iterable[bytes], limits: Limits | None = None) -> tuple[list[Expected], int | None]:
    """The requests, taken out as soon as they are there, and the status of the refusal.

    They must be the same for a parser that knows the lines of all requests so far, and for one that leaves all heads to
    llhttp.
    """
    limits = limits or Limits()
    heads, status = read(pieces, RequestParser(limits))
    for plain in known.setdefault(limits, PlainReader(limits)), NothingIsPlain(limits):
        again, same = read(pieces, RequestParser(limits, plain))
        assert [everything(head) for head in again] == [everything(head) for head in heads] and same == status
    return [described(head) for head in heads], status


class NothingIsPlain(PlainReader):
    def _read_head(self, data: bytes) -> None:
        return None


known: dict[Limits, PlainReader] = {}


def read(pieces: Iterable[bytes], parser: RequestParser) -> tuple[list[Head], int | None]:
    heads = []
    for piece in pieces:
        head = parser.next_head(piece)
        while head is not None:
            heads.append(head)
            head = parser.next_head()
    return heads, parser.refusal.status if parser.refusal else None


def everything(head: Head) -> list[object]:
    names = [*vars(head), "content_length", "chunked", "expects_continue", "upgrade", "buffered", "complete"]
    return [getattr(head, name) for name in sorted(set(names) - {"chunks"})] + [b"".join(head.chunks)]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    return [data[a:b] for a, b in pairwise([0, *sorted(places), len(data)])]


def ways(data: bytes) -> list[list[bytes]]:
    """The data whole, byte by byte, cut once at each place, and cut at random."""
    chance = random.Random(data)
    places = range(len(data) + 1)
    return [
        [data],
        one_by_one(data),
        *([data[:place], data[place:]] for place in places),
        *(cut(data, chance.choices(places, k=chance.randrange(2, 8))) for _ in range(20)),
    ]


# --- The corpus --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepts(name: str) -> None:
    data, requests = ACCEPTED[name]
    for pieces in ways(data):
        assert outcome(pieces) == (requests, None), pieces


@pytest.mark.parametrize("name", ACCEPTED)
def test_goes_on_after(name: str) -> None:
    data, requests = ACCEPTED[name]
    for pieces in ways(data + NEXT):
        assert outcome(pieces) == ([*requests, NEXT_REQUEST], None), pieces


@pytest.mark.parametrize("name", LAST)
def test_takes_nothing_more_after(name: str) -> None:
    data, request = LAST[name]
    assert outcome([data]) == ([request], None)
    for pieces in ways(data + NEXT):
        assert outcome(pieces) == ([request], 400), pieces


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    """And makes no request of what follows."""
    data, requests, status = REFUSED[name]
    for pieces in ways(data + NEXT):
        assert outcome(pieces) == (requests, status), pieces


# --- What a head says ----------------------------------------------------------------------


def head_of(data: bytes) -> Head:
    parser = RequestParser(Limits())
    parser.feed(data)
    head = parser.next_head()
    assert head is not None and parser.refusal is None
    return head


def test_field_names_are_in_lower_case_and_values_without_the_space_around() -> None:
    assert head_of(get(b"HOST: a", b"X-Y:  z \t")).fields == {b"host": b"a", b"x-y": b"z"}


def test_repeated_fields_are_joined_by_commas_and_cookies_by_semicolons() -> None:
    head = head_of(get(b"Host: a", b"X: 1", b"Cookie: b=1", b"x: 2", b"Cookie: c=2"))
    assert (head.fields[b"x"], head.fields[b"cookie"]) == (b"1, 2", b"b=1; c=2")


@pytest.mark.parametrize("name", [b"Authorization", b"Range", b"Expect", b"Host", b"Content-Length"])
def test_fields_that_cannot_be_joined_may_come_once(name: bytes) -> None:
    data = b"GET / HTTP/1.0\r\n" + 2 * (name + b": 1\r\n") + b"\r\n"
    assert outcome([data]) == ([], 400)


def test_the_host_of_an_absolute_target_counts() -> None:
    assert head_of(line(b"GET http://other:81/a HTTP/1.1")).fields[b"host"] == b"other:81"


def test_trailer_fields_do_not_join_the_header_fields() -> None:
    head = head_of(chunked(b"0\r\nHost: evil\r\nX: y\r\n\r\n"))
    assert head.fields == {b"host": b"example.org", b"transfer-encoding": b"chunked"}


UPGRADE = b"Connection: upgrade\r\nUpgrade: h2c\r\n"


@pytest.mark.parametrize("upgrade", [b"", UPGRADE])
def test_content_length_is_told_before_the_body_has_come(upgrade: bytes) -> None:
    head = head_of(post(upgrade + b"Content-Length: 12345678901", b"abc"))
    assert (head.content_length, head.chunked, head.buffered, head.complete) == (12345678901, False, 3, False)


@pytest.mark.parametrize("upgrade", [b"", UPGRADE])
def test_chunked_body_has_no_content_length(upgrade: bytes) -> None:
    head = head_of(post(upgrade + b"Transfer-Encoding: chunked", b"3\r\nab"))
    assert (head.content_length, head.chunked, head.buffered, head.complete) == (None, True, 2, False)


def test_expectation_of_100_continue_is_told() -> None:
    assert head_of(get(b"Host: a", b"Expect: 100-Continue")).expects_continue


def test_expectation_of_an_http_1_0_client_is_ignored() -> None:
    assert not head_of(b"GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expects_continue


def test_http_1_0_connection_is_kept_when_asked_for() -> None:
    assert head_of(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive


def test_refusal_says_why() -> None:
    parser = RequestParser(Limits())
    parser.feed(get(b"Host: a/b"))
    assert str(parser.refusal) == "malformed Host field"


# --- Where a message stands -----------------------------------------------------------------


def test_is_in_a_head_from_its_target_to_its_end() -> None:
    parser = RequestParser(Limits())
    seen = []
    for piece in (b"\r\n", b"GET /", b" HTTP/1.1\r\nHos", b"t: a\r\n", b"\r\n"):
        parser.feed(piece)
        seen.append(parser.mid_head)
    assert seen == [False, True, True, True, False]


def test_is_in_the_next_head_when_part_of_it_came_with_the_last_message() -> None:
    parser = RequestParser(Limits())
    parser.feed(get(b"Host: a") + b"GET /b HT")
    assert parser.next_head() and not parser.next_head()
    assert parser.mid_head


def test_is_not_in_a_head_within_a_body() -> None:
    parser = RequestParser(Limits())
    parser.feed(post(b"Content-Length: 3", b"a"))
    assert not parser.mid_head


@pytest.mark.parametrize("here", range(len(NEXT) + 1))
def test_after_detach_the_next_byte_begins_a_request(here: int) -> None:
    """Some of the body goes through the parser, the rest past it."""
    parser = RequestParser(Limits())
    parser.feed(post(b"Content-Length: %d" % (len(NEXT) + 1), NEXT[:here]))
    head = parser.next_head()
    assert head is not None and b"".join(head.chunks) == NEXT[:here]
    parser.detach()
    parser.feed(NEXT)
    head = parser.next_head()
    assert head is not None and described(head) == NEXT_REQUEST


# --- Plain heads ----------------------------------------------------------------------------

PLAIN = [
    get(b"Host: a"),
    get(b"Host: a", b"Connection: Keep-Alive", b"X: y z", b"Cookie: a=b; c=d"),
    line(b"DELETE /a?b=c%20d HTTP/1.1"),
    line(b"HEAD / HTTP/1.1"),
    line(b"OPTIONS /a HTTP/1.1"),
    b"\r\n" * 1000 + get(b"Host: a"),  # lines that are empty, each two of which look like the end of a head
]


@pytest.mark.parametrize("data", PLAIN)
def test_plain_heads_are_read_without_llhttp(data: bytes) -> None:
    limits = Limits()
    parser = RequestParser(limits)
    assert parser.next_head(data) and parser._llhttp is None
    [head], _ = read([data], RequestParser(limits, NothingIsPlain(limits)))
    [plain], _ = read([data], RequestParser(limits))
    assert everything(plain) == everything(head)


def test_the_same_head_is_not_read_again() -> None:
    """Seen by what only the parser can tell: it is one and the same."""
    plain = PlainReader(Limits())
    [first], _ = read([get(b"Host: a", b"X: y")], RequestParser(Limits(), plain))
    [second], _ = read([get(b"Host: a", b"X: y")], RequestParser(Limits(), plain))
    [other], _ = read([get(b"Host: a", b"X: z")], RequestParser(Limits(), plain))
    assert first is second and other.fields == {b"host": b"a", b"x": b"z"}


def test_few_and_small_parts_of_heads_are_kept() -> None:
    plain = PlainReader(Limits())
    requests = [b"GET /%d HTTP/1.1\r\nHost: a%d\r\n\r\n" % (number, number) for number in range(3 * KNOWN_NUMBER)]
    requests += [get(b"Host: a", b"X: " + b"y" * 2000), line(b"GET /" + b"y" * 2000 + b" HTTP/1.1")]
    heads, _ = read(requests, RequestParser(Limits(), plain))
    assert len(heads) == len(requests)
    for known in plain.heads, plain.lines, plain.fields:
        assert 0 < len(known) <= KNOWN_NUMBER and max(map(len, known)) < 100


@pytest.mark.parametrize("field", [b"Host: a", b"Host:  a"])  # one that is remembered, and one that llhttp reads
def test_the_fields_of_a_head_cannot_be_changed(field: bytes) -> None:
    """Equal requests may share them."""
    plain = PlainReader(Limits())
    for _ in range(2):
        [head], _ = read([get(field)], RequestParser(Limits(), plain))
        assert head.fields == {b"host": b"a"}
        with pytest.raises(TypeError):
            head.fields[b"x"] = b"y"  # type: ignore[index]


def test_pipelined_requests_are_taken_out_of_the_bytes_one_at_a_time() -> None:
    """What waits for its turn costs no more than its bytes."""
    parser = RequestParser(Limits())
    data = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 600
    parser.feed(data)
    assert len(parser._rest) == len(data) * 599 // 600
    assert len(read([b""], parser)[0]) == 600


# --- Limits ---------------------------------------------------------------------------------

TARGET = b"/" + b"t" * (SMALL.target - 1)
FIELD = b"X: " + b"v" * (SMALL.head - len("X") - 4 - len("Host" "a") - 4)
LIMITED = {
    "target": (line(b"GET " + TARGET + b" HTTP/1.1"), line(b"GET " + TARGET + b"t HTTP/1.1"), 414),
    "target, absolute": (
        line(b"GET http://h" + TARGET[:-8] + b" HTTP/1.1"), line(b"GET http://h" + TARGET[:-7] + b" HTTP/1.1"), 414
    ),
    "head": (get(b"Host: a", FIELD), get(b"Host: a", FIELD + b"v"), 431),
    "head, first field": (get(FIELD, b"Host: a"), get(FIELD + b"v", b"Host: a"), 431),
    "head, name": (
        get(b"Host: a", FIELD[3:] + b": v"), get(b"Host: a", FIELD[3:] + b"n: v"), 431
    ),
    "fields": (get(b"Host: a", b"X:", b"Y:", b"Z:"), get(b"Host: a", b"W:", b"X:", b"Y:", b"Z:"), 431),
    "fields of one name": (get(b"Host: a", b"X:", b"X:", b"X:"), get(b"Host: a", b"X:", b"X:", b"X:", b"X:"), 431),
    "trailer fields": (
        chunked(b"0\r\nA:\r\nB:\r\nC:\r\nD:\r\n\r\n"), chunked(b"0\r\nA:\r\nB:\r\nC:\r\nD:\r\nE:\r\n\r\n"), 431
    ),
    "trailer size": (
        chunked(b"0\r\nX: " + b"v" * (SMALL.head - 5) + b"\r\n\r\n"),
        chunked(b"0\r\nX: " + b"v" * (SMALL.head - 4) + b"\r\n\r\n"), 431
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITED)
def test_takes_what_just_fits(name: str) -> None:
    fits, _, _ = LIMITED[name]
    limits = Limits(SMALL.target, SMALL.head, SMALL.fields)  # what trailers cost as framing is another matter
    for pieces in ways(fits):
        requests, status = outcome(pieces, limits)
        assert status is None
        assert [request.body for request in requests] == [b""], pieces


@pytest.mark.parametrize("name", LIMITED)
def test_refuses_what_just_does_not_fit(name: str) -> None:
    _, exceeds, status = LIMITED[name]
    limits = Limits(SMALL.target, SMALL.head, SMALL.fields)
    for pieces in ways(exceeds + NEXT):
        requests, refused = outcome(pieces, limits)
        assert refused == status
        assert not [request for request in requests if request.body is not ...], pieces


def test_limits_count_for_each_message_anew() -> None:
    fits = [data for data, _, status in LIMITED.values() if status != 414]
    requests, status = outcome(one_by_one(b"".join(fits)), Limits(SMALL.target, SMALL.head, SMALL.fields))
    assert (len(requests), status) == (len(fits), None)


ENDLESS = {
    "target": (b"GET /", b"t", 414),
    "field name": (b"GET / HTTP/1.1\r\nHost: a\r\nX", b"n", 431),
    "first field name": (b"GET / HTTP/1.1\r\nX", b"n", 431),
    "field value": (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"v", 431),
    "first field value": (b"GET / HTTP/1.1\r\nX: ", b"v", 431),
    "space before a value": (b"GET / HTTP/1.1\r\nHost: a\r\nX:", b" ", 431),
    "space after a value": (b"GET / HTTP/1.1\r\nHost: a\r\nX: v", b" ", 431),
    "fields": (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n", 431),
    "chunk extension": (chunked(b"1"), b";x", 400),
    "chunk extension value": (chunked(b'1;x="'), b"v", 400),
    "chunk size": (chunked(b""), b"0", 400),
    "trailer value": (chunked(b"0\r\nX: "), b"v", 400),
    "trailer name": (chunked(b"0\r\nX"), b"n", 400),
    "extensions of small chunks": (chunked(b""), b"1;x=" + b"y" * 40 + b"\r\na\r\n", 400),
}


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("step", [1, 7, 64])
def test_ends_what_would_go_on_for_ever(name: str, step: int) -> None:
    start, again, status = ENDLESS[name]
    parser = RequestParser(SMALL)
    parser.feed(start)
    piece = again * step
    most = (SMALL.target + SMALL.head + HEAD_SLACK) // len(piece) + 2
    for _ in range(most):
        parser.feed(piece)
    assert parser.refusal is not None
    assert parser.refusal.status == status


def test_small_chunks_do_not_count_as_extensions() -> None:
    data = chunked(b"1\r\na\r\n" * 1000 + b"0\r\n\r\n")
    assert outcome(one_by_one(data), SMALL) == ([POST._replace(body=b"a" * 1000)], None)


def test_a_head_after_much_else_in_one_piece_is_measured_from_its_own_beginning() -> None:
    limits = Limits(target=100, head=1000, fields=10)
    data = post(b"Content-Length: 5000", b"b" * 5000) + get(b"Host: a", b"X: " + b"v" * 900)
    for place in range(len(data) - 950, len(data)):
        requests, status = outcome([data[:place], *one_by_one(data[place:])], limits)
        assert (len(requests), status) == (2, None)


# --- Anything at all ------------------------------------------------------------------------

corpus = st.sampled_from(
    [data for data, _ in ACCEPTED.values()]
    + [data for data, _ in LAST.values()]
    + [data for data, _, _ in REFUSED.values() if len(data) < 1000]
)


damage = st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b"0", b":", b"\0", HOST])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Some vectors in a row, damaged here and there."""
    data = bytearray(b"".join(draw(st.lists(corpus, min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 3))
        data[place : place + length] = draw(damage)
    return bytes(data)


anything = st.one_of(st.binary(max_size=300), mutated())
SMALL_HEADS = Limits(target=60, head=200, fields=5)


@given(anything, st.data())
@untimed
def test_any_bytes_give_requests_or_a_refusal_however_they_are_split(data: bytes, draw: st.DataObject) -> None:
    whole = outcome([data], SMALL_HEADS)
    places = draw.draw(st.lists(st.integers(0, len(data)), max_size=10))
    assert outcome(cut(data, places), SMALL_HEADS) == whole
    assert outcome(one_by_one(data), SMALL_HEADS) == whole


@given(anything)
@untimed
def test_nothing_is_taken_after_a_refusal(data: bytes) -> None:
    parser = RequestParser(Limits())
    parser.feed(data)
    while parser.next_head():
        pass
    if (refusal := parser.refusal) is not None:
        parser.feed(NEXT)
        assert (parser.next_head(), parser.refusal) == (None, refusal)


upgrades = st.sampled_from([b"", UPGRADE])


@given(anything, upgrades, st.data())
@untimed
def test_no_body_ever_becomes_a_request(body: bytes, upgrade: bytes, draw: st.DataObject) -> None:
    data = post(upgrade + b"Content-Length: %d" % len(body), body) + NEXT
    places = draw.draw(st.lists(st.integers(0, len(data)), max_size=10))
    assert outcome(cut(data, places)) == ([POST._replace(body=body), NEXT_REQUEST], None)


@given(st.lists(anything.filter(bool)), upgrades, st.data())
@untimed
def test_no_chunk_ever_becomes_a_request(chunks: list[bytes], upgrade: bytes, draw: st.DataObject) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    data = post(upgrade + b"Transfer-Encoding: chunked", body) + NEXT
    places = draw.draw(st.lists(st.integers(0, len(data)), max_size=10))
    assert outcome(cut(data, places)) == ([POST._replace(body=b"".join(chunks)), NEXT_REQUEST], None)
