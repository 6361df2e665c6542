"""Framing: where a packet ends, what is joined, and what is refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coro.mysql.errors import DataError, ProtocolError
from coro.mysql.packets import MAX_PAYLOAD, Framer, Payload, lenenc
from tests.mysql.wire import every_way, packet, packets

TWO = packets(b"one", b"", first=0)


def taken(framer: Framer) -> list[bytes]:
    found = []
    while (payload := framer.next_packet()) is not None:
        found.append(payload)
    return found


@pytest.mark.parametrize("pieces", every_way(TWO), ids=lambda pieces: f"{len(pieces)} pieces")
def test_packets_come_out_whole_however_they_came_in(pieces: list[bytes]) -> None:
    framer = Framer()
    found: list[bytes] = []
    for piece in pieces:
        framer.feed(piece)
        found += taken(framer)
    assert found == [b"one", b""]


def test_bytes_behind_a_packet_stay_for_the_next_call() -> None:
    framer = Framer()
    framer.feed(TWO + b"\x05\x00")
    assert taken(framer) == [b"one", b""]
    assert framer.unread == 2


def test_asking_again_without_new_data_changes_nothing() -> None:
    framer = Framer()
    framer.feed(TWO[:5])
    assert [framer.next_packet() for _ in range(3)] == [None, None, None]
    framer.feed(TWO[5:])
    assert taken(framer) == [b"one", b""]


def test_sequence_numbers_go_round_after_255() -> None:
    framer = Framer()
    framer.feed(packets(*[b"x"] * 300, first=0))
    assert len(taken(framer)) == 300


def test_a_wrong_sequence_number_is_refused() -> None:
    framer = Framer()
    framer.feed(packet(b"x", 1))
    with pytest.raises(ProtocolError, match="sequence number 1 where 0 was due"):
        framer.next_packet()


@pytest.mark.parametrize("size", [MAX_PAYLOAD - 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 2 * MAX_PAYLOAD])
def test_a_long_payload_survives_both_ways(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    framed = Framer().frame(payload)
    assert len(framed) == size + 4 * (size // MAX_PAYLOAD + 1)
    receiver = Framer()
    receiver.feed(framed)
    assert taken(receiver) == [payload]
    assert receiver.sequence == size // MAX_PAYLOAD + 1


def test_a_payload_of_exactly_the_maximum_is_followed_by_an_empty_packet() -> None:
    framed = Framer().frame(bytes(MAX_PAYLOAD))
    assert framed[:4] == b"\xff\xff\xff\x00"
    assert framed[-4:] == b"\x00\x00\x00\x01"


def test_a_long_payload_in_small_pieces_is_not_copied_for_each_of_them() -> None:
    framer = Framer()
    framed = Framer().frame(bytes(8 << 20))
    framer.feed(framed[:1000])
    assert framer.next_packet() is None
    held = framer.buffer
    for start in range(1000, len(framed) - 1000, 1000):
        framer.feed(framed[start : start + 1000])
        assert framer.next_packet() is None
        assert framer.buffer is held
    assert framer.unread == 8_388_000


def test_a_payload_over_the_limit_is_refused_when_it_is_announced() -> None:
    framer = Framer(limit=100)
    framer.feed(packet(bytes(101), 0)[:4])
    with pytest.raises(ProtocolError, match="more than 100 bytes"):
        framer.next_packet()


def test_the_limit_counts_all_parts_of_a_payload() -> None:
    framer = Framer(limit=MAX_PAYLOAD + 10)
    framer.feed(packet(bytes(MAX_PAYLOAD), 0) + packet(bytes(11), 1)[:4])
    with pytest.raises(ProtocolError, match="more than"):
        framer.next_packet()


def test_a_payload_over_the_limit_is_not_sent() -> None:
    with pytest.raises(DataError, match="101 bytes is over the limit of 100"):
        Framer(limit=100).frame(bytes(101))


def test_a_command_starts_at_sequence_number_0() -> None:
    framer = Framer()
    framer.frame(b"x")
    assert framer.command(b"y") == packet(b"y", 0)


def test_data_that_answers_no_command_is_refused_at_the_next_one() -> None:
    framer = Framer()
    framer.feed(b"\x01")
    with pytest.raises(ProtocolError, match="answers no command"):
        framer.command(b"y")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**64 - 1))
def test_length_encoded_integers_are_read_in_every_width(value: int) -> None:
    encodings = [b"\xfe" + value.to_bytes(8, "little")]
    encodings += [b"\xfd" + value.to_bytes(3, "little")] if value < 1 << 24 else []
    encodings += [b"\xfc" + value.to_bytes(2, "little")] if value < 1 << 16 else []
    encodings += [bytes([value])] if value < 0xFB else []
    for encoding in encodings:
        fields = Payload(encoding + b"rest")
        assert (fields.lenenc_int(), fields.rest()) == (value, b"rest")


@pytest.mark.parametrize("size", [0, 250, 251, 0xFFFF, 0x10000, 0xFFFFFF, 0x1000000])
def test_length_encoded_strings_come_back(size: int) -> None:
    fields = Payload(lenenc(bytes(size)) + b"rest")
    assert (len(fields.lenenc_bytes()), fields.rest()) == (size, b"rest")


@pytest.mark.parametrize("cut", [b"", b"\xfc\x01", b"\xfd\x01\x01", b"\xfe" + bytes(7), b"\x05abcd"])
def test_a_cut_off_string_is_refused(cut: bytes) -> None:
    with pytest.raises(ProtocolError, match="cut off"):
        Payload(cut).lenenc_bytes()


@pytest.mark.parametrize("first", [b"\xfb", b"\xff"])
def test_null_and_error_marks_are_no_lengths(first: bytes) -> None:
    with pytest.raises(ProtocolError, match="is no length"):
        Payload(first + bytes(9)).lenenc_int()


def test_a_string_without_its_zero_byte_is_refused() -> None:
    with pytest.raises(ProtocolError, match="has no end"):
        Payload(b"abc").zero_terminated()
