"""Real Redis servers that belong together: a cluster of primaries with replicas, and a master watched by sentinels.

As in `tests.services`, each is in private directories, on loopback ports of its own, and ended by process id.

    with RedisCluster() as cluster, SentinelTrio() as trio:
        ... cluster.url, cluster.primaries()[0].kill(), trio.url, trio.master().kill() ...
"""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, Self

import redis

from tests.services import PATIENCE, FailedServer, RedisServer, _pick_port, program

PRIMARIES = 3
SLOTS = 16384
# A node that is waited for so long is taken for dead. None is to be so by mistake on a machine under load: a shared
# cluster stands still, and where a node is to be replaced, it is after a time in which any other has answered.
STEADY, HASTY = 60_000, 5_000  # milliseconds
ACQUAINTANCE = 500  # milliseconds; the same while nodes get to know each other, which they do at the pace that it sets


def until(ready: Callable[[], object], what: str) -> None:
    """Wait for other processes: return when `ready()` is true. FailedServer when that is not to be."""
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            raise FailedServer(f"not within {PATIENCE:.0f} s: {what}")
        time.sleep(0.01)


class ClusterNode(RedisServer):
    """A Redis that is to be part of a cluster."""

    def __init__(self, *options: str, password: str = "") -> None:
        super().__init__(*options, password=password)
        self.bus_port = 0
        self.timeout = ACQUAINTANCE

    def _pick_ports(self) -> None:
        super()._pick_ports()
        self.bus_port = _pick_port()

    def _command(self) -> Sequence[str]:
        settings = {
            "cluster-enabled": "yes",
            "cluster-port": self.bus_port,
            "cluster-node-timeout": self.timeout,
            "cluster-replica-validity-factor": 0,
            "repl-diskless-sync-delay": 0,
            "repl-ping-replica-period": 1,  # a replica is shown when it has heard something from its primary
            "masterauth": self.password,
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        return [*super()._command(), *words]

    @property
    def identity(self) -> str:
        return str(self.command("CLUSTER", "MYID").decode())

    def is_primary(self) -> bool:
        return bool(self.command("ROLE")[0] == b"master")

    def take_over(self) -> None:
        """Return when this replica has become the primary, as planned with the one there is.

        Redis gives that up when the primary needs more than 5 s to see it through: then it is asked for again.
        """
        asked = -math.inf

        def is_done() -> bool:
            nonlocal asked
            if self.is_primary():
                return True
            if time.monotonic() - asked > 10:
                asked = time.monotonic()
                with suppress(redis.ResponseError):  # it has become one just now
                    self.command("CLUSTER", "FAILOVER")
            return False

        until(is_done, "a replica takes over as planned")

    def info(self, section: str) -> dict[str, Any]:
        """A section of INFO, as redis-py reads it."""
        told: dict[str, Any] = self.command("INFO", section)
        return told


class RedisCluster:
    """Three primaries, each with a replica, and a third of the slots each."""

    def __init__(self, *options: str, node_timeout: int = HASTY, password: str = "") -> None:
        self.nodes = [ClusterNode(*options, password=password) for _ in range(2 * PRIMARIES)]
        self.node_timeout = node_timeout
        self.password = password
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            self._join()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _join(self) -> None:
        primaries, replicas = self.nodes[:PRIMARIES], self.nodes[PRIMARIES:]
        bounds = [SLOTS * number // PRIMARIES for number in range(PRIMARIES + 1)]
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        until(self._are_acquainted, "the nodes of the cluster know each other")
        for number, node in enumerate(primaries):
            node.command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for primary, replica in zip(primaries, replicas, strict=True):
            until(partial(_follows, replica, primary), "a node of the cluster knows another")
        self.settle()
        for node in self.nodes:
            node.timeout = self.node_timeout  # also when it is started again
            node.command("CONFIG", "SET", "cluster-node-timeout", node.timeout)

    def _are_acquainted(self) -> bool:
        """Have each node meet those that it does not know; False if there was one. They forget it after a second."""
        known = {node: _known(node) for node in self.nodes}
        unknown = [(node, other) for node in known for other in self.nodes if other.bus_port not in known[node]]
        for node, other in unknown:
            node.command("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus_port)
        return not unknown

    def settle(self) -> None:
        """Return when all nodes that run agree, every slot is served, and replicas are in step with their primaries."""
        until(self._is_settled, "the nodes of the cluster agree")

    def _is_settled(self) -> bool:
        ports = {node.port for node in self.running}
        views = {_view(node) for node in self.running}
        return len(views) == 1 and all(map(_is_in_step, self.running)) and _ports(*views) == ports

    @property
    def running(self) -> list[ClusterNode]:
        return [node for node in self.nodes if node.is_running]

    def primaries(self) -> list[ClusterNode]:
        return [node for node in self.running if node.is_primary()]

    def replicas(self) -> list[ClusterNode]:
        return [node for node in self.running if not node.is_primary()]

    def owner(self, slot: int) -> ClusterNode:
        """The primary that serves a slot."""
        port = _owner_port(self.running[0], slot)
        return next(node for node in self.nodes if node.port == port)

    def replica_of(self, primary: ClusterNode) -> ClusterNode:
        return next(node for node in self.replicas() if node.command("ROLE")[2] == primary.port)

    @property
    def url(self) -> str:
        """With every node as a seed."""
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def clear(self) -> None:
        """Return when all nodes agree and none has a client, a key, or a command in its counters."""
        self.settle()
        for node in self.running:
            node.clear()

    @contextmanager
    def migrating(self, slot: int) -> Iterator[tuple[ClusterNode, ClusterNode]]:
        """Inside, the slot is on its way from one primary to another, which are told; afterwards it has arrived."""
        source = self.owner(slot)
        target = next(node for node in self.primaries() if node is not source)
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.identity)
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.identity)
        try:
            yield source, target
        finally:
            while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 1000):
                self.move_keys(source, target, *keys)
            for node in (target, source, *self.primaries()):
                node.command("CLUSTER", "SETSLOT", slot, "NODE", target.identity)

    def move(self, slot: int) -> None:
        """Move a slot to another primary; return when all nodes know."""
        with self.migrating(slot):
            pass
        self.settle()

    def move_keys(self, source: ClusterNode, target: ClusterNode, *keys: str | bytes) -> None:
        """Move keys of a slot that is migrating."""
        port = target.tls_port if "--tls-cluster" in target.options else target.port
        source.command("MIGRATE", "127.0.0.1", port, "", 0, 100_000, *self._migrate_login(), "KEYS", *keys)

    def _migrate_login(self) -> list[str]:
        return ["AUTH", self.password] if self.password else []


def _follows(replica: ClusterNode, primary: ClusterNode) -> bool:
    """Make one node the other's replica; False while it does not know it yet."""
    try:
        replica.command("CLUSTER", "REPLICATE", primary.identity)
    except redis.ResponseError:
        return False
    return True


def _known(node: ClusterNode) -> set[int]:
    """The ports of the cluster's bus of all nodes that a node knows, itself among them."""
    found = re.findall(rb"@(\d+)\S* (\S+)", node.command("CLUSTER", "NODES"))
    return {int(port) for port, flags in found if b"handshake" not in flags}


def _view(node: ClusterNode) -> object:
    """Who serves what, as the node sees it; a new object, equal to no other, while it is not sure."""
    slots = node.command("CLUSTER", "SLOTS")
    served = sum(last - first + 1 for first, last, *_ in slots)
    if b"cluster_state:ok" not in node.command("CLUSTER", "INFO") or served != SLOTS:
        return object()
    return frozenset(
        (first, last, primary[1], frozenset(other[1] for other in others)) for first, last, primary, *others in slots
    )


def _ports(view: Any) -> set[int]:
    """The ports of all nodes in a view; none if it is not one."""
    shards = view if isinstance(view, frozenset) else ()
    return {port for _, _, primary, replicas in shards for port in (primary, *replicas)}


def _owner_port(node: ClusterNode, slot: int) -> int:
    return next(
        int(primary[1]) for first, last, primary, *_ in node.command("CLUSTER", "SLOTS") if first <= slot <= last
    )


def _is_in_step(node: RedisServer) -> bool:
    """A replica that has all that its master has, or a master."""
    role = node.command("ROLE")
    return bool(role[0] == b"master" or role[3] == b"connected")


class Sentinel(RedisServer):
    """A sentinel that watches one master, and knows the other sentinels and replicas from the start."""

    name = "sentinel"

    def __init__(self, group: SentinelTrio) -> None:
        super().__init__()
        self.group = group
        self.identity = secrets.token_hex(20)

    def _command(self) -> Sequence[str]:
        file = self.directory / "sentinel.conf"
        if not file.exists():
            file.write_text("\n".join([*self._settings(), *self._watched()]) + "\n")
        return [program("redis-server"), str(file), "--sentinel"]

    def _settings(self) -> list[str]:
        return [
            "bind 127.0.0.1",
            f"port {self.port}",
            *self._tls(),
            f"unixsocket {self.socket}",
            f"dir {self.directory}",
            f"sentinel myid {self.identity}",
            *([f"requirepass {self.group.sentinel_password}"] if self.group.sentinel_password else []),
        ]

    def _tls(self) -> list[str]:
        if not self.group.tls:
            return []
        return [
            f"tls-port {self.tls_port}",
            f"tls-ca-cert-file {self.certificates.authority}",
            f"tls-cert-file {self.certificates.certificate}",
            f"tls-key-file {self.certificates.key}",
            "tls-auth-clients no",
            "tls-replication yes",
        ]

    def _watched(self) -> list[str]:
        group, name = self.group, self.group.name
        return [
            f"sentinel monitor {name} 127.0.0.1 {group.port_of(group.servers[0])} 2",
            f"sentinel down-after-milliseconds {name} {HASTY}",
            f"sentinel failover-timeout {name} 3000",
            *([f"sentinel auth-pass {name} {group.password}"] if group.password else []),
            *(f"sentinel known-replica {name} 127.0.0.1 {group.port_of(server)}" for server in group.servers[1:]),
        ]


class SentinelTrio:
    """A master with two replicas, and the three sentinels that watch it."""

    def __init__(self, *, password: str = "", sentinel_password: str = "", tls: bool = False) -> None:
        self.name = "mymaster"
        self.tls = tls  # is all that one says to another secured?
        self.password = password
        self.sentinel_password = sentinel_password
        self.servers: list[RedisServer] = []
        self.sentinels: list[Sentinel] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for _ in range(3):
                options = ["--repl-diskless-sync-delay", "0", "--masterauth", self.password]
                if self.tls:
                    options += ["--tls-replication", "yes"]
                if self.servers:
                    options += ["--replicaof", f"127.0.0.1 {self.port_of(self.servers[0])}"]
                server = RedisServer(*options, password=self.password)
                self.servers.append(stack.enter_context(server))
            until(lambda: all(map(_is_in_step, self.servers)), "the replicas follow the master")
            for _ in range(3):
                sentinel = Sentinel(self)
                sentinel.password = self.sentinel_password
                self.sentinels.append(stack.enter_context(sentinel))
            self.settle()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def settle(self) -> None:
        """Return when the sentinels know each other, and a master and replicas that are up."""
        until(lambda: all(map(self._is_settled, self.sentinels)), "the sentinels know all")

    def _is_settled(self, sentinel: Sentinel) -> bool:
        told: dict[bytes, bytes] = sentinel.command("SENTINEL", "MASTER", self.name)
        replicas: list[dict[bytes, bytes]] = sentinel.command("SENTINEL", "REPLICAS", self.name)
        up = [replica for replica in replicas if replica[b"flags"] == b"slave"]
        known = (told[b"flags"], told[b"num-other-sentinels"], len(up), int(told[b"port"]))
        # Of their links to the master a sentinel learns every ten seconds: one that it takes for whole will do.
        linked = any(replica[b"master-link-status"] == b"ok" for replica in up)
        return linked and known == (b"master", b"2", 2, self.port_of(self.master()))

    @property
    def running(self) -> list[RedisServer]:
        return [server for server in self.servers if server.is_running]

    def master(self) -> RedisServer:
        """The server that is master now."""
        return next(server for server in self.running if server.command("ROLE")[0] == b"master")

    def heal(self) -> None:
        """Start what is not running, have servers follow the master, and wait until all know all."""
        for sentinel in self.sentinels:
            if not sentinel.is_running:
                sentinel.start()
        for server in self.servers:
            if not server.is_running:
                server.start()
        until(self._named, "the sentinels name one master, which is one")
        (master,) = self._named()
        for server in self.servers:
            if server is not master and server.command("ROLE")[:3:2] != [b"slave", self.port_of(master)]:
                server.command("REPLICAOF", "127.0.0.1", self.port_of(master))
        self.settle()
        until(lambda: all(map(_is_in_step, self.servers)), "the replicas follow the master")

    def _named(self) -> list[RedisServer]:
        """The master that all sentinels name; nothing where they do not agree, or it is none."""
        ask = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        ports = {int(sentinel.command(*ask)[1]) for sentinel in self.sentinels}
        named = [server for server in self.running if ports == {self.port_of(server)}]
        return [server for server in named if server.command("ROLE")[0] == b"master"]

    def port_of(self, server: RedisServer) -> int:
        """The port at which others find a server or a sentinel."""
        return server.tls_port if self.tls else server.port

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{self.port_of(sentinel)}" for sentinel in self.sentinels)
        login = f":{self.password}@" if self.password else ""
        own = [f"sentinel_password={self.sentinel_password}"] if self.sentinel_password else []
        own += [f"ca={self.servers[0].certificates.authority}"] if self.tls else []
        return f"redis{'s' * self.tls}+sentinel://{login}{hosts}/{self.name}?{'&'.join(own)}"
