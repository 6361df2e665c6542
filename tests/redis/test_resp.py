"""Reading RESP: every wire vector whole, byte by byte, with what follows, and split anywhere."""

from __future__ import annotations

import math
import random
import tracemalloc
import weakref
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coro.redis import errors
from coro.redis.errors import ReplyError
from coro.redis.resp import (
    CRLF,
    MAX_BULK,
    MAX_DEPTH,
    MAX_LINE,
    Attributes,
    OutOfBand,
    Parser,
    ProtocolError,
    Push,
    VerbatimString,
)


def described(value: Any) -> Any:
    """`value` so that == tells 1 from True from 1.0 and one error from another, and nan equals itself."""
    kind = type(value).__name__
    if isinstance(value, (list, tuple)):
        return kind, [described(element) for element in value]
    if isinstance(value, (set, frozenset)):
        return kind, frozenset(repr(described(element)) for element in value)
    if isinstance(value, dict):
        return kind, [(described(key), described(element)) for key, element in value.items()]
    if isinstance(value, Push):
        return kind, value.kind, described(value.data)
    if isinstance(value, Attributes):
        return kind, described(value.data)
    if isinstance(value, VerbatimString):
        return kind, value.format, bytes(value)
    if isinstance(value, float):
        return kind, repr(value)
    return kind, str(value) if isinstance(value, Exception) else value


def fed(parser: Parser, pieces: Iterable[bytes]) -> list[Any]:
    return [described(reply) for piece in pieces for reply in parser.feed(piece)]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in pairwise(bounds)]


def outcome(pieces: Iterable[bytes]) -> tuple[list[Any], bool]:
    """All that could be read, and whether the stream broke."""
    parser = Parser()
    replies: list[Any] = []
    for piece in pieces:
        try:
            replies += parser.feed(piece)
        except ProtocolError as error:
            return [described(reply) for reply in replies + error.replies], True
    return [described(reply) for reply in replies], False


def verbatim(kind: bytes, text: bytes) -> VerbatimString:
    value = VerbatimString(text)
    value.format = kind
    return value


VECTORS: list[tuple[bytes, Any]] = [
    # RESP2
    (b"+OK\r\n", b"OK"),
    (b"+\r\n", b""),
    (b"+hello world\r\n", b"hello world"),
    (b"-ERR unknown command\r\n", ReplyError("ERR unknown command")),
    (b":0\r\n", 0),
    (b":1000\r\n", 1000),
    (b":+7\r\n", 7),
    (b":-1\r\n", -1),
    (b":-9223372036854775808\r\n", -(2**63)),
    (b"$0\r\n\r\n", b""),
    (b"$5\r\nhello\r\n", b"hello"),
    (b"$6\r\n\r\n\r\n\r\n\r\n", b"\r\n\r\n\r\n"),
    (b"$8\r\n$3\r\nabc\r\r\n", b"$3\r\nabc\r"),
    (b"$1023\r\n" + b"x" * 1023 + b"\r\n", b"x" * 1023),
    (b"$1024\r\n" + b"x" * 1024 + b"\r\n", b"x" * 1024),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"*0\r\n", []),
    (b"*2\r\n$5\r\nhello\r\n$5\r\nworld\r\n", [b"hello", b"world"]),
    (b"*3\r\n:1\r\n$-1\r\n*-1\r\n", [1, None, None]),
    (b"*2\r\n*2\r\n:1\r\n*0\r\n*1\r\n+a\r\n", [[1, []], [b"a"]]),
    (b"*2\r\n+OK\r\n-WRONGTYPE no\r\n", [b"OK", errors.WrongTypeError("WRONGTYPE no")]),
    # RESP3: one line
    (b"_\r\n", None),
    (b"#t\r\n", True),
    (b"#f\r\n", False),
    (b",1.23\r\n", 1.23),
    (b",10\r\n", 10.0),
    (b",-0\r\n", -0.0),
    (b",+1.5E+20\r\n", 1.5e20),
    (b",1e-7\r\n", 1e-7),
    (b",inf\r\n", math.inf),
    (b",-inf\r\n", -math.inf),
    (b",nan\r\n", math.nan),
    (b",-nan\r\n", math.nan),
    (b",NAN\r\n", math.nan),
    (b",nan(0x8000)\r\n", math.nan),
    (b"(3492890328409238509324850943850943825024385\r\n", 3492890328409238509324850943850943825024385),
    (b"(-18446744073709551616\r\n", -(2**64)),
    # RESP3: with a length
    (b"!21\r\nSYNTAX invalid syntax\r\n", ReplyError("SYNTAX invalid syntax")),
    (b"!11\r\nERR a\r\nb\r\nc\r\n", ReplyError("ERR a\r\nb\r\nc")),
    (b"=15\r\ntxt:Some string\r\n", verbatim(b"txt", b"Some string")),
    (b"=4\r\nmkd:\r\n", verbatim(b"mkd", b"")),
    # RESP3: with elements
    (b"%0\r\n", {}),
    (b"%2\r\n+first\r\n:1\r\n+second\r\n:2\r\n", {b"first": 1, b"second": 2}),
    (b"%1\r\n+a\r\n%1\r\n+b\r\n~1\r\n+c\r\n", {b"a": {b"b": {b"c"}}}),
    (b"%2\r\n+a\r\n:1\r\n+a\r\n:2\r\n", {b"a": 2}),
    (b"%1\r\n*2\r\n:1\r\n*1\r\n:2\r\n*0\r\n", {(1, (2,)): []}),
    (b"%2\r\n%1\r\n+a\r\n*0\r\n:1\r\n~1\r\n+b\r\n:2\r\n", {((b"a", ()),): 1, frozenset([b"b"]): 2}),
    (b"~0\r\n", set()),
    (b"~4\r\n+orange\r\n#t\r\n:100\r\n+orange\r\n", {b"orange", True, 100}),
    (b"~2\r\n*1\r\n+a\r\n%0\r\n", {(b"a",), ()}),
    (b">1\r\n+invalidate\r\n", Push(b"invalidate", [])),
    (b">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$5\r\nhello\r\n", Push(b"message", [b"ch", b"hello"])),
    (b">2\r\n$10\r\ninvalidate\r\n*1\r\n+k\r\n", Push(b"invalidate", [[b"k"]])),
    (b"|1\r\n+ttl\r\n:3600\r\n", Attributes({b"ttl": 3600})),
    (b"|1\r\n+popular\r\n%1\r\n+a\r\n,0.5\r\n", Attributes({b"popular": {b"a": 0.5}})),
    (b"*3\r\n:1\r\n|1\r\n+ttl\r\n:3600\r\n:2\r\n|0\r\n:3\r\n", [1, 2, 3]),
    (b"%1\r\n|1\r\n+x\r\n*0\r\n+key\r\n|1\r\n+y\r\n+z\r\n+value\r\n", {b"key": b"value"}),
    # RESP3: streamed
    (b"$?\r\n;0\r\n", b""),
    (b"$?\r\n;4\r\nHell\r\n;5\r\no wor\r\n;2\r\nld\r\n;0\r\n", b"Hello world"),
    (b"$?\r\n;2\r\n\r\n\r\n;3\r\n;0\r\r\n;0\r\n", b"\r\n;0\r"),
    (b"*?\r\n.\r\n", []),
    (b"*?\r\n:1\r\n:2\r\n:3\r\n.\r\n", [1, 2, 3]),
    (b"*?\r\n*?\r\n.\r\n*1\r\n*?\r\n$?\r\n;1\r\na\r\n;0\r\n.\r\n.\r\n", [[], [[b"a"]]]),
    (b"~?\r\n+a\r\n+b\r\n.\r\n", {b"a", b"b"}),
    (b"%?\r\n+a\r\n:1\r\n+b\r\n:2\r\n.\r\n", {b"a": 1, b"b": 2}),
]
vectors = pytest.mark.parametrize(("wire", "value"), VECTORS, ids=[repr(wire[:40]) for wire, _ in VECTORS])


@vectors
def test_a_whole_reply_is_read_at_once(wire: bytes, value: Any) -> None:
    assert fed(Parser(), [wire]) == [described(value)]


@vectors
def test_a_reply_is_complete_with_its_last_byte_and_not_before(wire: bytes, value: Any) -> None:
    parser = Parser()
    assert fed(parser, one_by_one(wire[:-1])) == []
    assert fed(parser, [wire[-1:]]) == [described(value)]


@vectors
def test_what_follows_a_reply_belongs_to_the_next(wire: bytes, value: Any) -> None:
    for length in range(len(b"$2\r\nab\r\n")):
        parser = Parser()
        assert fed(parser, [wire + wire + b"$2\r\nab\r\n"[:length]]) == [described(value)] * 2
        assert fed(parser, [b"$2\r\nab\r\n"[length:]]) == [described(b"ab")]


@vectors
def test_where_the_bytes_are_split_changes_nothing(wire: bytes, value: Any) -> None:
    chance = random.Random(wire)
    data = wire + b":5\r\n" + wire
    for _ in range(50):
        pieces = cut(data, chance.sample(range(len(data)), 4))
        assert fed(Parser(), pieces) == [described(value), described(5), described(value)]


@vectors
def test_a_buffer_that_is_reused_after_the_feed_leaves_replies_alone(wire: bytes, value: Any) -> None:
    for view in (bytes, memoryview):
        parser = Parser()
        replies: list[Any] = []
        for i in range(0, len(wire), 3):
            buffer = bytearray(wire[i : i + 3])
            replies += parser.feed(buffer if view is bytes else memoryview(buffer))
            buffer[:] = b"#" * len(buffer)
        assert [described(reply) for reply in replies] == [described(value)]


@vectors
def test_empty_feeds_change_nothing(wire: bytes, value: Any) -> None:
    parser = Parser()
    pieces = [piece for byte in one_by_one(wire) for piece in (b"", byte, b"")]
    assert fed(parser, pieces) == [described(value)]


def test_all_vectors_in_one_stream_come_out_in_order() -> None:
    stream = b"".join(wire for wire, _ in VECTORS)
    assert fed(Parser(), [stream]) == [described(value) for _, value in VECTORS]


def test_push_and_attributes_stand_where_they_came_and_are_told_from_replies() -> None:
    replies = Parser().feed(b"+a\r\n>1\r\n+kind\r\n|1\r\n+k\r\n+v\r\n+b\r\n")
    assert replies == [b"a", Push(b"kind", []), Attributes({b"k": b"v"}), b"b"]
    assert [isinstance(reply, OutOfBand) for reply in replies] == [False, True, True, False]


def test_a_verbatim_string_is_used_like_any_string() -> None:
    (reply,) = Parser().feed(b"=8\r\ntxt:abcd\r\n")
    assert isinstance(reply, VerbatimString)
    assert (reply, reply.format) == (b"abcd", b"txt")


# Values that a server may send, each beside one of its wire forms.

Wire = tuple[bytes, Any]


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def streamed_string(chunks: list[bytes]) -> Wire:
    wire = b"".join(b";%d\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"$?\r\n" + wire + b";0\r\n", b"".join(chunks)


def aggregate(kind: bytes, make: Callable[[list[Any]], Any]) -> Callable[[tuple[list[Wire], bool]], Wire]:
    def build(drawn: tuple[list[Wire], bool]) -> Wire:
        elements, streamed = drawn
        wire = b"".join(element for element, _ in elements)
        whole = kind + b"?\r\n" + wire + b".\r\n" if streamed else kind + b"%d\r\n" % len(elements) + wire
        return whole, make([value for _, value in elements])

    return build


def as_pair(pair: tuple[bytes, Wire]) -> Wire:
    key, (wire, value) = pair
    return bulk(key) + wire, (key, value)


TEXT = st.binary(max_size=20).filter(lambda text: b"\r" not in text and b"\n" not in text)
SCALARS: st.SearchStrategy[Wire] = st.one_of(
    st.none().map(lambda _: (b"_\r\n", None)),
    st.booleans().map(lambda truth: (b"#t\r\n" if truth else b"#f\r\n", truth)),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: (b":%d\r\n" % number, number)),
    st.integers().map(lambda number: (b"(%d\r\n" % number, number)),
    st.floats().map(lambda number: (b",%b\r\n" % repr(number).encode(), number)),
    TEXT.map(lambda text: (b"+%b\r\n" % text, text)),
    TEXT.map(lambda text: (b"-ERR %b\r\n" % text, ReplyError("ERR " + text.decode(errors="backslashreplace")))),
    st.binary(max_size=2000).map(lambda data: (bulk(data), data)),
    st.lists(st.binary(min_size=1, max_size=20), max_size=5).map(streamed_string),
)


def aggregates(inner: st.SearchStrategy[Wire]) -> st.SearchStrategy[Wire]:
    pairs = st.dictionaries(TEXT, inner, max_size=5).map(lambda drawn: list(map(as_pair, drawn.items())))
    members = st.lists(TEXT.map(lambda text: (bulk(text), text)), max_size=5)
    return st.one_of(
        st.tuples(st.lists(inner, max_size=5), st.booleans()).map(aggregate(b"*", list)),
        st.tuples(members, st.booleans()).map(aggregate(b"~", set)),
        st.tuples(pairs, st.booleans()).map(aggregate(b"%", dict)),
    )


@given(st.lists(st.recursive(SCALARS, aggregates, max_leaves=12), max_size=4), st.data())
def test_whatever_a_server_writes_is_read_back(sent: list[Wire], data: st.DataObject) -> None:
    stream = b"".join(wire for wire, _ in sent)
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    assert fed(Parser(), cut(stream, places)) == [described(value) for _, value in sent]


TOKENS = [bytes([byte]) for byte in b"+-:(,_#$!=*~%|>.;?012t\na"] + [CRLF] * 8


@given(st.lists(st.sampled_from(TOKENS)), st.data())
def test_any_bytes_give_replies_or_a_protocol_error_however_they_are_split(
    tokens: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(tokens)
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    assert outcome([stream]) == outcome(cut(stream, places)) == outcome(one_by_one(stream))


@given(st.sampled_from([wire for wire, _ in VECTORS if len(wire) < 100]), st.data())
def test_a_damaged_byte_gives_the_same_outcome_however_the_bytes_are_split(wire: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(wire) - 1))
    stream = b"+OK\r\n" + wire[:place] + data.draw(st.binary(max_size=2)) + wire[place + 1 :] + wire
    assert outcome([stream]) == outcome(one_by_one(stream))


# Broken streams


@pytest.mark.parametrize(
    ("wire", "complaint"),
    [
        (b"\r\n", "no reply"),
        (b"?\r\n", "no reply"),
        (b"#x\r\n", "no reply"),
        (b"_1\r\n", "no reply"),
        (b".\r\n", "no reply"),
        (b";1\r\na\r\n", "no reply"),
        (b"*1\r\n.\r\n", "no reply"),
        (b"*?\r\n*1\r\n.\r\n", "no reply"),
        (b"$\r\n", "length"),
        (b"$x\r\n", "length"),
        (b"$-2\r\n", "length"),
        (b"$+1\r\n", "length"),
        (b"$1_0\r\n", "length"),
        (b"$ 1\r\n", "length"),
        (b"$" + b"1" * 5000 + b"\r\n", "length"),
        (b"!-1\r\n", "length"),
        (b"=?\r\n", "length"),
        (b"*-2\r\n", "length"),
        (b"%-1\r\n", "length"),
        (b">?\r\n", "length"),
        (b"|?\r\n", "length"),
        (b"$3\r\nabcde", "not CRLF"),
        (b"$3\r\nabc\n\n", "not CRLF"),
        (b"$0\r\n:1\r\n", "not CRLF"),
        (b"$2000\r\n" + b"x" * 2002, "not CRLF"),
        (b"=3\r\nabc\r\n", "format"),
        (b"=8\r\ntext:abc\r\n", "format"),
        (b"+a\rb\r\n", "line break"),
        (b"-ERR a\nb\r\n", "line break"),
        (b":\r\n", "integer"),
        (b":1.0\r\n", "integer"),
        (b": 1\r\n", "integer"),
        (b":1_0\r\n", "integer"),
        (b"(" + b"9" * 5000 + b"\r\n", "integer"),
        (b",\r\n", "number"),
        (b",.5\r\n", "number"),
        (b",1.\r\n", "number"),
        (b",0x1\r\n", "number"),
        (b",infinity\r\n", "number"),
        (b"$?\r\n$1\r\na\r\n", "chunk"),
        (b"$?\r\n.\r\n", "chunk"),
        (b"$?\r\n;-1\r\n", "length"),
        (b"%?\r\n+a\r\n.\r\n", "after a key"),
        (b">0\r\n", "kind"),
        (b">1\r\n:1\r\n", "kind"),
        (b"*1\r\n>1\r\n+message\r\n", "inside a reply"),
    ],
)
def test_malformed_bytes_are_a_protocol_error(wire: bytes, complaint: str) -> None:
    for pieces in ([wire], one_by_one(wire)):
        with pytest.raises(ProtocolError, match=complaint):
            fed(Parser(), pieces)


@pytest.mark.parametrize("greeting", [b"H", b"\x15\x03\x03", b"J\x00\x00\x00\n8.0"])
def test_a_peer_that_is_no_redis_server_is_told_by_its_first_byte(greeting: bytes) -> None:
    with pytest.raises(ProtocolError, match="is the peer a Redis server"):
        Parser().feed(greeting)


def test_replies_before_the_broken_one_come_with_the_error() -> None:
    with pytest.raises(ProtocolError) as caught:
        Parser().feed(b"+a\r\n:2\r\n*2\r\n:3\r\n$x\r\n+never\r\n")
    assert caught.value.replies == [b"a", 2]


def test_after_a_broken_reply_nothing_more_is_read() -> None:
    parser = Parser()
    with pytest.raises(ProtocolError):
        parser.feed(b"+a\r\n?\r\n")
    for _ in range(2):
        with pytest.raises(ProtocolError, match="close the connection") as caught:
            parser.feed(b"+b\r\n")
        assert caught.value.replies == []


# Limits


def test_a_line_may_have_max_line_bytes_and_no_more() -> None:
    fits = b"+" + b"x" * (MAX_LINE - 1)
    for data in (fits + CRLF, b"*1\r\n" + fits + CRLF):
        assert len(Parser().feed(data)) == 1
    parser = Parser()
    assert parser.feed(fits + b"\r") == []
    assert parser.feed(b"\n") == [fits[1:]]
    for pieces in ([fits + b"x" + CRLF], [fits, b"xx"]):
        with pytest.raises(ProtocolError, match=f"limit of {MAX_LINE}"):
            fed(Parser(), pieces)


@pytest.mark.parametrize("limit", [10, 5000])
def test_a_string_may_have_max_bulk_bytes_and_no_more(limit: int) -> None:
    parser = Parser(max_bulk=limit)
    assert parser.feed(bulk(b"x" * limit)) == [b"x" * limit]
    with pytest.raises(ProtocolError, match=f"limit of {limit}"):
        parser.feed(b"$%d\r\n" % (limit + 1))


def test_the_chunks_of_a_streamed_string_are_limited_together() -> None:
    parser = Parser(max_bulk=10)
    assert parser.feed(b"$?\r\n;6\r\nabcdef\r\n;4\r\nghij\r\n;0\r\n") == [b"abcdefghij"]
    with pytest.raises(ProtocolError, match="limit of 4"):
        parser.feed(b"$?\r\n;6\r\nabcdef\r\n;5\r\n")


@pytest.mark.parametrize(("kind", "width"), [(b"*", 1), (b"~", 1), (b"%", 2)])
def test_an_aggregate_may_have_max_items_and_no_more(kind: bytes, width: int) -> None:
    items = b"".join(b":%d\r\n" % number for number in range(3 * width))
    parser = Parser(max_items=3)
    assert len(parser.feed(kind + b"3\r\n" + items + kind + b"?\r\n" + items + b".\r\n")) == 2
    for opening in (b"4\r\n", b"?\r\n" + items + b"_\r\n"):
        with pytest.raises(ProtocolError, match="limit"):
            Parser(max_items=3).feed(kind + opening)


def test_aggregates_may_be_max_depth_deep_and_no_deeper() -> None:
    deepest: Any = []
    for _ in range(MAX_DEPTH - 1):
        deepest = [deepest]
    assert Parser().feed(b"*1\r\n" * (MAX_DEPTH - 1) + b"*0\r\n") == [deepest]
    for opening in (b"*1\r\n", b"|1\r\n", b"%?\r\n"):
        with pytest.raises(ProtocolError, match=f"over {MAX_DEPTH}"):
            Parser().feed(opening * (MAX_DEPTH + 1))


# Memory


def peak_of(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        result = action()
        _, peak = tracemalloc.get_traced_memory()
        del result
    finally:
        tracemalloc.stop()
    return peak


@pytest.mark.parametrize("header", [b"*4294967295\r\n", b"%4294967295\r\n", b"$%d\r\n" % MAX_BULK])
def test_what_is_announced_takes_no_memory_before_it_comes(header: bytes) -> None:
    parser = Parser()
    assert peak_of(lambda: parser.feed(header)) < 10_000


def test_a_large_string_in_pieces_is_copied_once() -> None:
    wire = bulk(b"x" * 2**20)
    pieces = [wire[i : i + 2**16] for i in range(0, len(wire), 2**16)]
    parser = Parser()
    assert peak_of(lambda: [parser.feed(piece) for piece in pieces]) < 2**20 + 3 * 2**16


def test_an_idle_parser_keeps_no_reply_alive() -> None:
    parser = Parser()
    replies = parser.feed(b"~1\r\n+a\r\n")
    (reply,) = replies
    assert isinstance(reply, set)
    seen = weakref.ref(reply)
    del reply, replies
    assert seen() is None


def test_reply_as_a_whole_is_bounded() -> None:
    parser = Parser(max_reply=1000)
    assert parser.feed(b"*100\r\n" + b":1\r\n" * 100) == [[1] * 100]
    assert parser.feed(b"*1000\r\n" + b":12\r\n" * 198) == []
    with pytest.raises(ProtocolError, match="a reply is over the limit of 1000 bytes"):
        parser.feed(b":12\r\n")
    with pytest.raises(ProtocolError, match="broke before"):
        parser.feed(b":12\r\n")


def test_length_of_a_line_can_be_chosen() -> None:
    assert Parser(max_line=100_000).feed(b"+" + b"x" * 99_999 + b"\r\n") == [b"x" * 99_999]
    with pytest.raises(ProtocolError, match="over the limit of 10 bytes"):
        Parser(max_line=10).feed(b"+" + b"x" * 20)
