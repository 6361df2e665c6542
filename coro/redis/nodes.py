"""The nodes of a cluster, each with its client, and the map that says which of them serves a slot.

The map is a guess that the nodes correct. It is asked for when the first command needs it, and again when something
says that it is out of date: a redirection, a lost connection, a slot that nobody serves; and once in a while without
any reason. One task does the asking: however many callers find out at once that a node is gone, they wait for the same
answer, and between two askings there is a pause. Any node will do, those known and those named at the start: the first
that answers is believed, and one that is silent for a while is not waited for alone. As long as a node of the map
cannot be reached, the map is asked for again and again, less and less often.

What waits to be sent to a node that serves no slots any more is handed back, to be sent elsewhere. Of a node that is
left out of a new map the connections are closed, once what was sent there has been answered.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress

from coro import (
    ClosedError,
    Event,
    Task,
    TaskCancelled,
    TaskGroup,
    background,
    move_on_after,
    now,
    sleep,
    task_group,
)
from coro.redis.client import Redis
from coro.redis.connection import Connector, explained, other_loop
from coro.redis.errors import ClusterDownError, RedirectError, RedisConnectionError, RedisError
from coro.redis.resp import Argument
from coro.redis.shared import Command
from coro.redis.slots import SLOTS, Address, Topology, read_topology
from coro.redis.url import Settings
from coro.sync import WaitQueue
from coro.task import Coro, current_task

REFRESH_INTERVAL = 60.0  # seconds after which the map is asked for without a reason
SUSPICION_INTERVAL = 0.5  # seconds; doubled for each time that a node cannot be reached, or is not yet back
PAUSE = 0.1  # seconds between two askings; doubled each time that no node answers
LONGEST_PAUSE = 1.0  # seconds
PATIENCE = 0.5  # seconds in which a node may answer before another is asked as well


class Node(Redis):
    """The client of one node."""

    def __init__(self, address: Address, connector: Connector) -> None:
        super().__init__(connector.settings, connector=connector)
        self.address = address
        self.shared = self._shared
        self.replicas: list[Node] = []  # that have copies of what this node serves

    def retire(self) -> None:
        """Close the connections, once what was sent has been answered. Does not suspend."""
        self.shared.retire()
        self.pool.retire()


class ClusterMap:
    """Finds the node for a slot. For one run of the loop at a time: the next one starts with nothing but the seeds."""

    def __init__(self, seeds: Sequence[Settings], setup: Sequence[Sequence[Argument]] = ()) -> None:
        """`seeds` are where to ask first; how to log in the first of them says for all. `setup` as in `Connector`."""
        self.closed = False
        self.owners: list[Node | None] = [None] * SLOTS  # the primary that serves each slot
        self.primaries: list[Node] = []
        self._connector = Connector(seeds[0], setup)
        self._seeds = [Address(seed.host, seed.port) for seed in seeds]
        self._nodes: dict[Address, Node] = {}
        self._keeper: Task[None] | None = None
        self._wanted = False
        self._suspects: set[Node] = set()  # to which a connection was lost, or not had
        self._interval = REFRESH_INTERVAL
        self._reasons = WaitQueue("a reason to ask for the nodes of the cluster")
        self._waiters = WaitQueue(f"the nodes of {self}")
        self._refusal: RedisConnectionError | None = None  # what the last asking ended in, if not in a map
        self._pause = PAUSE
        self._ask_at = 0.0  # not before

    # --- Finding nodes -------------------------------------------------------------

    def owner(self, slot: int) -> Coro[Node]:
        """The primary that serves a slot. Suspends if none is known. `ClusterDownError`, and as `refreshed`."""
        node = self.owners[slot]
        if node is None and (not self.primaries or now() >= self._ask_at):  # else the map is as new as can be
            yield from self.refreshed()
            node = self.owners[slot]
        if node is None:
            raise ClusterDownError(f"CLUSTERDOWN no node of {self} serves slot {slot}")
        return node

    def anyone(self) -> Coro[Node]:
        """Some primary. Suspends if none is known, as `refreshed`."""
        if not self.primaries:
            yield from self.refreshed()
        return random.choice(self.primaries)

    def everyone(self, replicas: bool) -> Coro[list[Node]]:
        """All primaries; with `replicas` the replicas too. Suspends if none is known, as `refreshed`."""
        if not self.primaries:
            yield from self.refreshed()
        return [*self.primaries, *(copy for node in self.primaries for copy in node.replicas if replicas)]

    def target(self, error: RedirectError, asked: Node) -> Node:
        """The node that a redirection by the node `asked` names. Does not suspend."""
        return self._node(Address(error.host or asked.address.host, error.port))

    def moved(self, error: RedirectError, asked: Node) -> Node:
        """As `target`; from now on that node serves the slot. Does not suspend."""
        node = self.owners[error.slot] = self.target(error, asked)
        self.refresh()
        return node

    def _node(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = Node(address, self._connector.elsewhere(*address))
        return node

    # --- Keeping the map up to date ---------------------------------------------------

    def refresh(self) -> None:
        """Have the map asked for again; nobody waits for it. Does not suspend. `ClosedError`."""
        self.check_loop()
        self._wanted = True
        if self._keeper is None:
            if self.closed:
                raise ClosedError(f"the client of {self} is closed")
            self._keeper = background(self._keep(), name=str(self))
        self._reasons.wake_one()

    def check_loop(self) -> None:
        """RuntimeError in another thread's loop than the one that keeps the map up to date."""
        if self._keeper is not None and self._keeper.loop is not current_task().loop:
            raise other_loop(str(self))

    def suspect(self, node: Node) -> None:
        """As `refresh`, and until the node is back or out of the map. Does not suspend."""
        self._suspects.add(node)
        self._interval = SUSPICION_INTERVAL
        self.refresh()

    def refreshed(self) -> Coro[None]:
        """Have the map asked for again, and wait for it. Suspends. `RedisConnectionError` when no node answers."""
        left = self._ask_at - now()
        if self._refusal is not None and left > 0:
            text = f"{self._refusal} (trying again in {left:.2f} s)"
            raise RedisConnectionError(text, sent=False) from self._refusal.__cause__
        self.refresh()
        yield self._waiters

    def _keep(self) -> Coro[None]:
        try:
            while True:
                if not self._wanted:
                    with move_on_after(self._interval):
                        yield self._reasons
                yield from sleep(self._ask_at - now())
                self._wanted = False
                yield from self._ask()
        finally:
            self._keeper = None
            self._forget()
            self._waiters.fail_all(lambda: ClosedError(f"the client of {self} was closed"))

    def _ask(self) -> Coro[None]:
        try:
            topology = yield from self._first_answer()
        except RedisConnectionError as error:
            refusal = error
            self._refusal = error
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
            self._waiters.fail_all(lambda: RedisConnectionError(str(refusal), sent=False))
        else:
            self._refusal, self._pause = None, PAUSE
            self._install(topology)
            self._suspects = {node for node in self._suspects & {*self._nodes.values()} if not node.shared.connected}
            self._interval = min(2 * self._interval, REFRESH_INTERVAL) if self._suspects else REFRESH_INTERVAL
            self._waiters.wake_all()
        self._ask_at = now() + self._pause * random.uniform(0.5, 1)

    def _first_answer(self) -> Coro[Topology]:
        """Ask one node after the other, and the next one also when an answer is slow in coming: the first map."""
        known = [*self._nodes]
        random.shuffle(known)
        answers: list[Topology] = []
        failures: dict[str, list[str]] = {}

        def ask(node: Node, group: TaskGroup, ended: Event) -> Coro[None]:
            try:
                reply = yield Command(node.shared, (b"CLUSTER", b"SLOTS"))
                answers.append(_checked(read_topology(reply, node.address.host)))
                group.cancel()
            except (RedisError, ClosedError) as error:
                failures.setdefault(_reason(error, node), []).append(str(node.address))
            finally:
                ended.set()

        def body(group: TaskGroup) -> Coro[None]:
            for address in dict.fromkeys([*known, *self._seeds]):
                ended = Event()
                group.spawn(ask(self._node(address), group, ended))
                with move_on_after(PATIENCE):
                    yield from ended.wait()

        with suppress(TaskCancelled):  # there is an answer
            yield from task_group(body)
        if not answers:
            told = "; ".join(f"{reason} ({', '.join(nodes)})" for reason, nodes in failures.items())
            raise RedisConnectionError(f"no node of {self} tells who serves what: {told}", sent=False)
        return answers[0]

    def _install(self, topology: Topology) -> None:
        before = {*self.primaries}
        for address in self._nodes.keys() - set(topology.nodes):
            node = self._nodes.pop(address)
            node.retire()
            before.add(node)
        for shard in topology.shards:
            self._node(shard.primary).replicas = [self._node(address) for address in shard.replicas]
        self.primaries = [self._node(shard.primary) for shard in topology.shards]
        for node in before - {*self.primaries}:
            node.shared.fail_unsent(RedisError("it serves no slots any more"))
        self.owners[:] = topology.spread(lambda shard: self._node(shard.primary))

    def _forget(self) -> None:
        """The run is over: its connections have ended with it."""
        self.owners[:] = [None] * SLOTS
        self.primaries = []
        self._nodes = {}
        self._refusal = None
        self._suspects, self._interval = set(), REFRESH_INTERVAL
        self._pause, self._ask_at, self._wanted = PAUSE, 0.0, False

    def close(self) -> None:
        """Close all connections for good. Does not suspend; can be repeated."""
        self.closed = True
        for node in self._nodes.values():
            node.close()
        if self._keeper is not None:
            self._keeper.cancel()

    def __str__(self) -> str:
        return f"the Redis cluster at {', '.join(map(str, self._seeds))}"

    def __repr__(self) -> str:
        return f"{self}, {len(self._nodes)} nodes known"


def _checked(topology: Topology) -> Topology:
    if not topology.ranges:
        raise RedisError("it knows of no node that serves anything")
    return topology


def _reason(error: BaseException, node: Node) -> str:
    """Why a node gave no map, without its address."""
    if isinstance(error, RedisConnectionError) and error.__cause__ is not None:
        return explained(error.__cause__, node.settings)
    return str(error)
