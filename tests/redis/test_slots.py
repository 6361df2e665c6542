"""Which slot a key is in, and what a reply to CLUSTER SLOTS says: vectors, and a real server's word."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coro.redis.resp import ProtocolError
from coro.redis.slots import SLOTS, Address, Shard, key_slot, read_topology
from tests.topologies import RedisCluster

A, B, C = Address("10.0.0.1", 7000), Address("10.0.0.2", 7001), Address("db.example", 7002)


def node(address: Address, *more: Any) -> list[Any]:
    return [address.host.encode(), address.port, b"id", *more]


def bitwise_crc16(data: bytes) -> int:
    """CRC16 as the cluster specification's appendix A defines it, a bit at a time."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"123456789", 0x31C3),  # the check value of the specification
        (b"", 0),
        (b"foo", 12182),
        (b"{user1000}.following", 3443),
        (b"{user1000}.followers", 3443),
        (b"foo{bar}{zap}", key_slot(b"bar")),
        (b"foo{{bar}}zap", key_slot(b"{bar")),
        (b"foo{}{bar}", bitwise_crc16(b"foo{}{bar}") % SLOTS),
        (b"{}", bitwise_crc16(b"{}") % SLOTS),
        (b"foo}{", bitwise_crc16(b"foo}{") % SLOTS),
        (b"foo{bar", bitwise_crc16(b"foo{bar") % SLOTS),
        (b"}{bar}", key_slot(b"bar")),
    ],
)
def test_slot_of_a_key(key: bytes, slot: int) -> None:
    assert key_slot(key) == slot


@given(st.binary().filter(lambda key: b"{" not in key))
def test_slot_is_crc16_modulo_the_number_of_slots(key: bytes) -> None:
    assert key_slot(key) == bitwise_crc16(key) % SLOTS


@given(st.binary(), st.binary(min_size=1), st.binary())
def test_keys_with_one_tag_share_a_slot(before: bytes, tag: bytes, after: bytes) -> None:
    before, tag = before.replace(b"{", b"("), tag.replace(b"}", b")")
    assert key_slot(before + b"{" + tag + b"}" + after) == key_slot(b"{" + tag + b"}")


def test_the_server_agrees(redis_cluster: RedisCluster) -> None:
    @given(st.lists(st.sampled_from([b"{", b"}", b"a", b"\0", b"\xff", b"key"]), max_size=9).map(b"".join))
    def check(key: bytes) -> None:
        assert key_slot(key) == redis_cluster.nodes[0].command("CLUSTER", "KEYSLOT", key)

    check()


# --- CLUSTER SLOTS -------------------------------------------------------------------------


def test_topology_of_two_shards() -> None:
    topology = read_topology([[0, 99, node(A), node(B)], [100, 16383, node(B)]], "asked")
    first, second = Shard(A, (B,)), Shard(B, ())
    assert topology.spread(str) == [str(first)] * 100 + [str(second)] * (SLOTS - 100)
    assert topology.shards == [first, second]
    assert topology.nodes == [A, B]


def test_shard_with_several_ranges_is_one_shard() -> None:
    topology = read_topology([[0, 9, node(A), node(C)], [20, 29, node(A), node(C)]], "asked")
    assert topology.shards == [Shard(A, (C,))]
    assert topology.spread(lambda shard: shard.primary)[9:21] == [A, *[None] * 10, A]
    assert topology.nodes == [A, C]


@pytest.mark.parametrize("host", [None, b""])
def test_node_that_does_not_know_its_host_is_where_it_was_asked(host: bytes | None) -> None:
    topology = read_topology([[0, 16383, [host, 7000, b"id", []]]], "asked.example")
    assert topology.nodes == [Address("asked.example", 7000)]


def test_node_without_the_host_name_it_should_have_is_left_out() -> None:
    nobody = [b"?", 7000, b"id", {b"ip": b"10.0.0.9"}]
    topology = read_topology([[0, 9, node(A), nobody, node(B)], [10, 19, nobody, node(C)]], "asked")
    assert topology.ranges == ((0, 9, Shard(A, (B,))),)
    assert topology.nodes == [A, B]


def test_cluster_without_slots() -> None:
    assert read_topology([], "asked").shards == []


@pytest.mark.parametrize(
    "reply",
    [
        b"OK",
        None,
        [[0, 16384, node(A)]],
        [[-1, 5, node(A)]],
        [[5, 4, node(A)]],
        [[0, 5]],
        [[0, 5, [b"host", 0, b"id"]]],
        [[0, 5, [b"host", 65536, b"id"]]],
        [[0, 5, [b"\xff", 7000, b"id"]]],
        [[0, 5, [7000]]],
        [[0, b"5", node(A)]],
    ],
)
def test_reply_that_makes_no_sense_is_a_protocol_error(reply: Any) -> None:
    with pytest.raises(ProtocolError, match="CLUSTER SLOTS cannot be read"):
        read_topology(reply, "asked")


@pytest.mark.parametrize(("address", "text"), [(A, "10.0.0.1:7000"), (Address("::1", 7000), "[::1]:7000")])
def test_address_for_people(address: Address, text: str) -> None:
    assert str(address) == text


def test_topology_of_a_real_cluster(redis_cluster: RedisCluster) -> None:
    server = redis_cluster.nodes[0]
    topology = read_topology(server.command("CLUSTER", "SLOTS"), "127.0.0.1")
    assert None not in topology.spread(str)
    assert {address.port for address in topology.nodes} == {node.port for node in redis_cluster.nodes}
    for shard in topology.shards:
        primary = next(node for node in redis_cluster.nodes if node.port == shard.primary.port)
        assert [replica.port for replica in shard.replicas] == [redis_cluster.replica_of(primary).port]
