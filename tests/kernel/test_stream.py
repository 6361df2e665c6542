"""Reading and writing streams, on real sockets and on connections in memory (coro/net.py, coro/testing.py)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

import coro
from coro import BusyError, ClosedError, Coro, EndOfStream, LimitExceeded, Socket, Stream, TaskGroup
from coro.testing import memory_streams

Pair = tuple[Stream, Stream]


@pytest.fixture(params=["sockets", "memory"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The two ends of a connection."""
    if request.param == "memory":
        near, far = memory_streams()
    else:
        near, far = (Stream(Socket(sock)) for sock in socket.socketpair())
    yield near, far
    near.close()
    far.close()


def sends(stream: Stream, *pieces: bytes, end: bool = False) -> Coro[None]:
    """Write the pieces so that each arrives by itself."""
    for piece in pieces:
        for _ in range(5):
            yield from coro.checkpoint()
        yield from stream.write(piece)
    if end:
        stream.write_eof()


def exchange(pair: Pair, *pieces: bytes, reading: Coro[Any], end: bool = False) -> Coro[Any]:
    """What `reading` returns while the pieces arrive at the far end."""

    def body(group: TaskGroup) -> Coro[Any]:
        group.spawn(sends(pair[0], *pieces, end=end))
        return (yield from reading)

    return (yield from coro.task_group(body))


# --- read ----------------------------------------------------------------------------------------------


def test_read_returns_what_is_there(pair: Pair) -> Coro[None]:
    assert (yield from exchange(pair, b"hello", reading=pair[1].read())) == b"hello"


def test_read_returns_no_more_than_its_limit(pair: Pair) -> Coro[None]:
    yield from pair[0].write(b"hello")
    assert (yield from pair[1].read(3)) == b"hel"
    assert (yield from pair[1].read(3)) == b"lo"


@pytest.mark.parametrize("limit", [0, -1])
def test_read_of_no_bytes_is_refused(limit: int, pair: Pair) -> Coro[None]:
    """It could only return what means the end of the stream."""
    yield from pair[0].write(b"hello")
    for _ in range(2):  # what is in the kernel, then what is in the stream's buffer
        with pytest.raises(ValueError, match="at least one byte"):
            yield from pair[1].read(limit)
        with pytest.raises(ValueError, match="no room"):
            yield from pair[1].read_into(bytearray())
        pair[1].unread((yield from pair[1].read()))
    assert (yield from pair[1].read()) == b"hello"


def test_read_exactly_takes_no_negative_count(pair: Pair) -> Coro[None]:
    yield from pair[0].write(b"hello")
    pair[1].unread((yield from pair[1].read()))
    assert (yield from pair[1].read_exactly(0)) == b""
    with pytest.raises(ValueError, match="no end to count from"):
        yield from pair[1].read_exactly(-1)
    assert (yield from pair[1].read_exactly(5)) == b"hello"


def test_read_returns_nothing_at_the_end_again_and_again(pair: Pair) -> Coro[None]:
    yield from sends(pair[0], b"x", end=True)
    assert (yield from pair[1].read()) == b"x"
    for _ in range(3):
        assert (yield from pair[1].read()) == b""


def test_reading_goes_on_after_the_own_end_was_sent(pair: Pair) -> Coro[None]:
    near, far = pair
    far.write_eof()
    assert (yield from near.read()) == b""
    yield from near.write(b"still here")
    assert (yield from far.read()) == b"still here"


def test_read_into_fills_the_buffer_from_what_was_buffered_and_then_from_the_socket(pair: Pair) -> Coro[None]:
    near, far = pair
    yield from near.write(b"line\nrest")
    assert (yield from far.read_until(b"\n")) == b"line\n"
    buffer = bytearray(3)
    assert (yield from far.read_into(buffer)) == 3
    assert buffer == b"res"
    assert (yield from far.read_into(buffer)) == 1
    assert buffer == b"tes"
    yield from near.write(b"more")
    assert (yield from far.read_into(memoryview(buffer))) == 3
    assert buffer == b"mor"


def test_bytes_put_back_are_read_first(pair: Pair) -> Coro[None]:
    near, far = pair
    yield from near.write(b"ab\ncd")
    line = yield from far.read_until(b"\n")
    far.unread(line)
    assert (yield from far.read_exactly(5)) == b"ab\ncd"


# --- read_exactly -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [[b"abcdef"], [b"abc", b"def"], [b"a", b"b", b"c", b"d", b"e", b"f"]], ids=len)
def test_read_exactly_waits_for_all_of_it_and_leaves_the_rest(pieces: list[bytes], pair: Pair) -> Coro[None]:
    _, far = pair
    assert (yield from exchange(pair, *pieces, reading=far.read_exactly(4))) == b"abcd"
    assert (yield from far.read_exactly(0)) == b""
    assert (yield from far.read_exactly(2)) == b"ef"


def test_read_exactly_at_the_end_tells_what_had_come(pair: Pair) -> Coro[None]:
    with pytest.raises(EndOfStream, match="ended 7 bytes short of 10") as caught:
        yield from exchange(pair, b"ab", b"c", reading=pair[1].read_exactly(10), end=True)
    assert caught.value.partial == b"abc"


def test_read_exactly_that_is_cancelled_loses_nothing(pair: Pair) -> Coro[None]:
    near, far = pair

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(far.read_exactly(10))
        yield from sends(near, b"ab", b"cd", b"")
        task.cancel()
        with pytest.raises(coro.TaskCancelled):
            yield from task.join()

    yield from coro.task_group(body)
    yield from near.write(b"ef")
    assert (yield from far.read_exactly(6)) == b"abcdef"


# --- read_until ----------------------------------------------------------------------------------------------


TEXT = b"first\r\nsecond\r\n\r\nrest"


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 8, 100])
def test_read_until_finds_the_separator_however_the_bytes_arrive(size: int, pair: Pair) -> Coro[None]:
    pieces = [TEXT[start : start + size] for start in range(0, len(TEXT), size)]

    def reading() -> Coro[list[bytes]]:
        first = yield from pair[1].read_until(b"\r\n")
        second = yield from pair[1].read_until(b"\r\n\r\n")
        return [first, second, (yield from pair[1].read_exactly(4))]

    found = yield from exchange(pair, *pieces, reading=reading())
    assert found == [b"first\r\n", b"second\r\n\r\n", b"rest"]


@pytest.mark.parametrize(("limit", "fits"), [(6, False), (7, True), (8, True)])
@pytest.mark.parametrize("size", [1, 7, 20])
def test_limit_of_read_until_counts_the_separator(limit: int, fits: bool, size: int, pair: Pair) -> Coro[None]:
    near, far = pair
    data = b"first\r\nsecond"
    pieces = [data[start : start + size] for start in range(0, len(data), size)]

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(sends(near, *pieces))
        if fits:
            assert (yield from far.read_until(b"\r\n", limit)) == b"first\r\n"
        else:
            with pytest.raises(LimitExceeded, match=rf"no b'\\r\\n' within {limit} bytes"):
                yield from far.read_until(b"\r\n", limit)
            assert (yield from far.read_exactly(7)) == b"first\r\n"  # nothing was dropped
        assert (yield from far.read_exactly(6)) == b"second"

    yield from coro.task_group(body)


def test_line_without_an_end_is_refused_before_it_fills_the_memory(pair: Pair) -> Coro[None]:
    near, far = pair

    def flood() -> Coro[None]:
        while True:
            yield from near.write(bytes(10_000))

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(flood())
        with pytest.raises(LimitExceeded):
            yield from far.read_until(b"\n")
        assert len(far._buffer) < 200_000
        group.cancel()

    yield from coro.task_group(body)


def test_read_until_at_the_end_tells_what_had_come(pair: Pair) -> Coro[None]:
    with pytest.raises(EndOfStream, match=r"ended before b'\\n'") as caught:
        yield from exchange(pair, b"no ", b"newline", reading=pair[1].read_until(b"\n"), end=True)
    assert caught.value.partial == b"no newline"


def test_read_until_that_is_cancelled_loses_nothing(pair: Pair) -> Coro[None]:
    near, far = pair

    def body(group: TaskGroup) -> Coro[None]:
        task = group.spawn(far.read_until(b"\n"))
        yield from sends(near, b"ab", b"cd", b"")
        task.cancel()
        with pytest.raises(coro.TaskCancelled):
            yield from task.join()

    yield from coro.task_group(body)
    yield from near.write(b"ef\n")
    assert (yield from far.read_until(b"\n")) == b"abcdef\n"


# --- Writing, closing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_write_of_more_than_fits_waits_for_the_reader(kind: type, pair: Pair) -> Coro[None]:
    near, far = pair
    data = bytes(range(256)) * 8_000

    def body(group: TaskGroup) -> Coro[None]:
        writing = group.spawn(near.write(kind(data)))
        for _ in range(20):
            yield from coro.checkpoint()
        assert not writing.done
        assert (yield from far.read_exactly(len(data))) == data
        yield from writing.join()

    yield from coro.task_group(body)


def test_write_to_a_peer_that_has_closed_is_a_broken_pipe(pair: Pair) -> Coro[None]:
    near, far = pair
    far.close()
    with pytest.raises(BrokenPipeError):
        yield from near.write(b"x")


def test_writer_that_waits_is_woken_when_the_peer_closes(pair: Pair) -> Coro[None]:
    near, far = pair

    def body(group: TaskGroup) -> Coro[None]:
        def write() -> Coro[None]:
            with pytest.raises(ConnectionError):
                yield from near.write(bytes(10_000_000))

        writing = group.spawn(write())
        while not near.socket.writer:
            yield from coro.checkpoint()
        far.close()
        yield from writing.join()

    yield from coro.task_group(body)


def test_second_reader_is_refused(pair: Pair) -> Coro[None]:
    near, far = pair

    def body(group: TaskGroup) -> Coro[None]:
        first = group.spawn(far.read(), name="first")
        yield from coro.checkpoint()
        with pytest.raises(BusyError, match="task 'first' already reads from"):
            yield from far.read()
        yield from near.write(b"x")
        assert (yield from first.join()) == b"x"

    yield from coro.task_group(body)


def test_close_wakes_who_reads(pair: Pair) -> Coro[None]:
    _, far = pair

    def body(group: TaskGroup) -> Coro[None]:
        def read() -> Coro[None]:
            with pytest.raises(ClosedError, match="was closed while task 'reader' waited for it"):
                yield from far.read()

        task = group.spawn(read(), name="reader")
        yield from coro.checkpoint()
        far.close()
        far.close()
        assert far.closed
        yield from task.join()

    yield from coro.task_group(body)


def test_closed_stream_can_be_neither_read_nor_written(pair: Pair) -> Coro[None]:
    near, _ = pair
    near.close()
    with pytest.raises(ClosedError):
        yield from near.read()
    with pytest.raises(ClosedError):
        yield from near.write(b"x")
    with pytest.raises(ClosedError):
        near.write_eof()
    assert repr(near) == "<Stream closed socket>"
