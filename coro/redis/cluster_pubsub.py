"""Subscriptions in a cluster: what is published anywhere comes to every node, but for sharded channels.

Of the first kind any node tells, so one is chosen, and another one when that is lost. A sharded channel belongs to the
slot of its name, as a key does, and its messages stay at the nodes that serve the slot: there the connection goes, and
follows when the slot moves. One connection serves the channels of one slot; those of several take several objects.

Specification: https://redis.io/docs/latest/develop/pubsub/ ("Sharded Pub/Sub")
"""

from __future__ import annotations

from coro.redis.commands.base import Key, S
from coro.redis.connection import Connection
from coro.redis.errors import CrossSlotError, RedirectError, RedisConnectionError
from coro.redis.everywhere import slot_of
from coro.redis.nodes import ClusterMap
from coro.redis.pool import ConnectionPool
from coro.redis.pubsub import PubSub
from coro.redis.resp import bytes_of
from coro.redis.url import Settings
from coro.task import Coro

ATTEMPTS = 6  # to subscribe at the node that is named


class NodeConnections:
    """Lends connections to the node for a slot, or to any node while `slot` is None."""

    def __init__(self, cluster: ClusterMap, settings: Settings) -> None:
        self.settings = settings  # of the node to which a connection was lent last
        self.slot: int | None = None
        self._cluster = cluster
        self._lenders: dict[Connection, ConnectionPool] = {}
        self._first = True

    @property
    def closed(self) -> bool:
        return self._cluster.closed

    def check_loop(self) -> None:
        self._cluster.check_loop()

    def take(self) -> Coro[Connection]:
        """As `ConnectionPool.take`. Who comes again has lost a connection: the map may be out of date."""
        if not self._first:
            yield from self._cluster.refreshed()
        self._first = False
        node = yield from (self._cluster.anyone() if self.slot is None else self._cluster.owner(self.slot))
        try:
            connection = yield from node.pool.take()
        except RedisConnectionError:
            self._cluster.suspect(node)
            raise
        self.settings = node.settings
        self._lenders[connection] = node.pool
        return connection

    def give_back(self, connection: Connection) -> None:
        """As `ConnectionPool.give_back`."""
        self._lenders.pop(connection).give_back(connection)


class ClusterPubSub(PubSub[S]):
    """Made by `RedisCluster.pubsub`. As `PubSub`; its sharded channels are of one slot."""

    def __init__(self, nodes: NodeConnections, decode: bool, *, max_messages: int, max_bytes: int) -> None:
        super().__init__(nodes, decode, max_messages=max_messages, max_bytes=max_bytes)
        self._nodes = nodes

    def ssubscribe(self, *channels: Key) -> Coro[None]:
        """As `PubSub.ssubscribe`. `CrossSlotError` for channels that are not of one slot, the same in all calls."""
        slot = slot_of([bytes_of(channel) for channel in channels], b"SSUBSCRIBE")
        nodes = self._nodes
        if slot not in (None, nodes.slot):
            if nodes.slot is not None:
                raise CrossSlotError(
                    f"CROSSSLOT this subscription is for slot {nodes.slot}, and {channels[0]!r} is in slot {slot}:"
                    " make another one with RedisCluster.pubsub"
                )
            nodes.slot = slot
            yield from self.reconnect()
        for _ in range(ATTEMPTS):
            try:
                return (yield from super().ssubscribe(*channels))
            except RedirectError as error:
                moved = error
            yield from self.reconnect()  # to whom a new map names
        raise moved
