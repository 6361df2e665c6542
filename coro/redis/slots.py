"""The 16384 hash slots of a Redis Cluster: which slot a key is in, and which nodes serve it.

A key's slot is CRC16 (polynomial 0x1021, initial value 0, the variant called XMODEM) modulo 16384. Of a key with a hash
tag, `{user:7}:name`, only what stands between the first `{` and the first `}` after it is hashed, if that is not empty:
keys with one tag are in one slot, and can be used in one command, transaction or script.

Who serves what is read from the reply to `CLUSTER SLOTS`:

    [[first, last, [host, port, id, metadata], [host, port, id, metadata], ...], ...]     primary, then its replicas

Without a host (null, or empty) the one is meant at which the node that answers was reached: it does not know how it
looks from outside. A host `?` is a node that is to be called by a host name it has not got: nobody can connect to it.

Specification: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/ ("Key distribution model",
"Hash tags") and https://redis.io/docs/latest/commands/cluster-slots/
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from coro.redis.resp import ProtocolError

T = TypeVar("T")

SLOTS = 16384


def key_slot(key: bytes) -> int:
    """The slot of a key, 0 to 16383."""
    start = key.find(b"{") + 1
    if start:
        end = key.find(b"}", start)
        if end > start:
            key = key[start:end]
    return crc_hqx(key, 0) % SLOTS


class Address(NamedTuple):
    """Where a node is reached."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Shard:
    """A primary and the replicas that copy it."""

    primary: Address
    replicas: tuple[Address, ...]


@dataclass(frozen=True)
class Topology:
    """Which shard serves which slots: (first, last, shard), in the order of the slots."""

    ranges: tuple[tuple[int, int, Shard], ...]

    @property
    def shards(self) -> list[Shard]:
        """Each shard once."""
        return list(dict.fromkeys(shard for _, _, shard in self.ranges))

    @property
    def nodes(self) -> list[Address]:
        """All primaries, then all replicas."""
        shards = self.shards
        replicas = (replica for shard in shards for replica in shard.replicas)
        return list(dict.fromkeys([*(shard.primary for shard in shards), *replicas]))

    def spread(self, serve: Callable[[Shard], T]) -> list[T | None]:
        """For each slot, what `serve` returns for its shard; None for a slot that nobody serves."""
        slots: list[T | None] = [None] * SLOTS
        for first, last, shard in self.ranges:
            slots[first : last + 1] = [serve(shard)] * (last + 1 - first)
        return slots


def read_topology(reply: Any, asked: str) -> Topology:
    """The topology that a reply to CLUSTER SLOTS tells; `asked` is the host whose reply it is. ProtocolError."""
    ranges: list[tuple[int, int, Shard]] = []
    try:
        for first, last, primary, *replicas in reply:
            if not 0 <= first <= last < SLOTS:
                raise ValueError(f"slots {first} to {last}")
            address = _address(primary, asked)
            if address is not None:
                others = (_address(replica, asked) for replica in replicas)
                shard = Shard(address, tuple(other for other in others if other is not None))
                ranges.append((first, last, shard))
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ProtocolError(f"the reply to CLUSTER SLOTS cannot be read: {error}") from None
    return Topology(tuple(sorted(ranges, key=lambda range_: range_[:2])))


def _address(node: Any, asked: str) -> Address | None:
    host, port = node[0], node[1]
    if host == b"?":
        return None
    if not 0 < port < 65536:
        raise ValueError(f"port {port}")
    return Address(host.decode() if host else asked, port)
