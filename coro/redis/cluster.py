"""The client of a Redis Cluster: the same commands as `Redis`, each sent to the node that serves its keys.

    redis = RedisCluster.from_url("redis://a.example:7000,b.example:7000")

Every node has one connection that all tasks share, as `Redis` has, so what the tasks issue in one round leaves in one
send for each node. A pipeline is split by node and its results are put back in order. What a node did not carry out
(the slot has moved, is moving, or the command could not be sent) is sent on; what was sent and not answered is an
error, as everywhere here: see `coro.redis.dispatch`. Where the slots are is found out, and kept up to date, by
`coro.redis.nodes`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, Unpack, overload

from coro.redis.client import Client, Options, Redis
from coro.redis.cluster_pubsub import ClusterPubSub, NodeConnections
from coro.redis.commands.base import Convert, Key, S
from coro.redis.commands.scan import Scan
from coro.redis.dispatch import Job, carry_out, exchange
from coro.redis.errors import (
    AskError,
    ClusterDownError,
    RedirectError,
    RedisConnectionError,
    RedisError,
    ReplyError,
    TransactionAbortedError,
    TryAgainError,
)
from coro.redis.everywhere import APART, EVERYWHERE, Outcomes, only_reply, put_together, slot_of, take_apart
from coro.redis.keys import ONE_KEY, RULES, Rule, command_name, keys_of, rule_for, told_rule
from coro.redis.nodes import ClusterMap, Node
from coro.redis.pubsub import MAX_BYTES, MAX_MESSAGES
from coro.redis.replies import decoded, result
from coro.redis.resp import Argument, bytes_of
from coro.redis.session import Transaction, run_transaction
from coro.redis.shared import Command
from coro.redis.slots import key_slot
from coro.redis.url import Settings, parse_urls
from coro.task import Coro

Plan: TypeAlias = tuple[list[Job], Callable[[Outcomes], Any]]  # what to do, and what makes one reply of it

READS_FROM_REPLICAS = [("READONLY",)]  # has a replica serve reads instead of sending them to its primary


class RedisCluster(Client[S]):
    """A client for a cluster. It looks for the nodes when the first command is issued.

    With `replica_reads`, commands that only read go to replicas, where there are any: they may be a moment behind.
    """

    def __init__(self, seeds: Sequence[Settings], *, decode: bool = False, replica_reads: bool = False) -> None:
        """Does not suspend and does not connect; reads the files that TLS needs (OSError, ValueError).

        `seeds` are nodes to ask about the others, one that is alive is enough. How to log in, TLS and limits of time
        are the same for all nodes, those of the first.
        """
        if not seeds:
            raise ValueError("a cluster needs a node to begin with")
        if any(seed.database or seed.path for seed in seeds):
            raise ValueError("the nodes of a cluster are reached by TCP, and have database 0 only")
        self.settings = seeds[0]
        self.decode = decode
        self._replica_reads = replica_reads
        self._map = ClusterMap(seeds, READS_FROM_REPLICAS if replica_reads else ())
        self._owners = self._map.owners
        self._told: dict[bytes, Rule | None] = {}  # what servers said about commands that are not in our table

    @overload
    @classmethod
    def from_url(
        cls, url: str, *, decode: Literal[True], replica_reads: bool = False, **options: Unpack[Options]
    ) -> RedisCluster[str]: ...

    @overload
    @classmethod
    def from_url(
        cls, url: str, *, decode: Literal[False] = False, replica_reads: bool = False, **options: Unpack[Options]
    ) -> RedisCluster: ...

    @classmethod
    def from_url(
        cls, url: str, *, decode: bool = False, replica_reads: bool = False, **options: Unpack[Options]
    ) -> RedisCluster[Any]:
        """A client for a `redis://` or `rediss://` URL, which may name several nodes: `redis://HOST:PORT,HOST:PORT`.

        As `Redis.from_url`; what else the URL says holds for every node. ValueError. Does not suspend.
        """
        seeds = [dataclasses.replace(seed, **options) for seed in parse_urls(url)]
        return cls(seeds, decode=decode, replica_reads=replica_reads)

    # --- One command ---------------------------------------------------------------

    def _send(self, args: Sequence[Argument], convert: Convert = None) -> Coro[Any]:
        node = None
        if len(args) > 1 and args[0].__class__ is bytes and args[0] in ONE_KEY and not self._replica_reads:
            # Nearly all commands come this way.
            key = args[1]
            slot = key_slot(key if key.__class__ is bytes else bytes_of(key))
            node = self._owners[slot]
        if node is None:
            reply = yield from self._carry_out(args)
        else:
            try:
                reply = yield Command(node.shared, args)
            except (ReplyError, RedisConnectionError) as error:
                job = Job(args, slot).at(node, outcome=error)
                yield from carry_out(self._map, [job], exchange)
                reply = job.result()
        if convert is not None:
            return result(reply, convert, self.decode)
        return decoded(reply) if self.decode else reply

    def _carry_out(self, args: Sequence[Argument]) -> Coro[Any]:
        """Carry out any command; the reply."""
        jobs, finish = yield from self._plan(args, self._replica_reads)
        yield from carry_out(self._map, jobs, exchange)
        return finish([job.outcome for job in jobs])

    def _wait(self, args: Sequence[Argument], seconds: float, convert: Convert = None) -> Coro[Any]:
        patience = seconds + self.settings.timeout if seconds else math.inf
        name = command_name(args)
        keys, _ = yield from self._keys(args, name)
        job = Job(args, slot_of(keys, name))
        yield from carry_out(self._map, [job], lambda jobs: _exchange_alone(jobs[0], patience))
        return result(job.result(), convert, self.decode)

    # --- Several commands ----------------------------------------------------------

    def send_all(self, commands: Sequence[Sequence[Argument]]) -> Coro[list[Any]]:
        """Carry out commands, each at the node for its keys: those for one node leave in one piece. Suspends.

        The replies, in the order of the commands; errors, also of connections, are values among them. All go to
        primaries, so that a command sees what those before it wrote.
        """
        plans: list[Plan] = []
        for args in commands:
            try:
                plans.append((yield from self._plan(args, False)))
            except RedisError as error:
                plans.append(([], partial(_failed, error)))
        yield from carry_out(self._map, [job for jobs, _ in plans for job in jobs], exchange)
        replies: list[Any] = []
        for jobs, finish in plans:
            try:
                replies.append(finish([job.outcome for job in jobs]))
            except RedisError as error:
                replies.append(error)
        return replies

    def send_transaction(self, commands: Sequence[Sequence[Argument]]) -> Coro[list[Any]]:
        """As `Redis.send_transaction`; all keys have to be in one slot: `CrossSlotError`."""
        keys: list[bytes] = []
        for args in commands:
            found, _ = yield from self._keys(args, command_name(args))
            keys += found
        return (yield from self._transact(keys, lambda node: node.send_transaction(commands)))

    def transaction(
        self, body: Callable[[Transaction[S]], Coro[Any]], *watches: Key, attempts: int = 64
    ) -> Coro[list[Any]]:
        """As `Redis.transaction`; all keys have to be in one slot: `CrossSlotError`.

        `body` is also run again when the slot turns out to be at another node.
        """
        keys = [bytes_of(key) for key in watches]
        return self._transact(keys, lambda node: run_transaction(node.pool, self.decode, body, watches, attempts))

    def _transact(self, keys: Sequence[bytes], run: Callable[[Node], Coro[list[Any]]]) -> Coro[list[Any]]:
        job = Job((b"MULTI",), slot_of(keys, b"a transaction"))
        yield from carry_out(self._map, [job], lambda jobs: _attempt(jobs[0], run))
        results: list[Any] = job.result()
        return results

    def pubsub(self, *, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> ClusterPubSub[S]:
        """Subscriptions, as `Redis.pubsub`; sharded ones are of one slot: see `coro.redis.cluster_pubsub`."""
        nodes = NodeConnections(self._map, self.settings)
        return ClusterPubSub(nodes, self.decode, max_messages=max_messages, max_bytes=max_bytes)

    def scan_iter(self, match: Key | None = None, count: int | None = None, _type: str | None = None) -> Scan[list[S]]:
        """All keys that match, of one primary after the other. Keys of a slot that moves meanwhile may be missed."""
        nodes: list[Redis] = []
        cursor: int | None = None

        def page(_: int) -> Coro[tuple[int, list[S]]]:
            nonlocal cursor
            if cursor is None:
                nodes[:] = yield from self.primaries()
            cursor, keys = yield from nodes[-1].scan(cursor or 0, match, count, _type)
            if not cursor:
                nodes.pop()
            batch: Any = decoded(keys) if self.decode else keys
            return len(nodes), batch

        return Scan(page)

    # --- What a command is -----------------------------------------------------------

    def _plan(self, args: Sequence[Argument], replica_reads: bool) -> Coro[Plan]:
        """What is to be done for a command, and how to make one reply of what comes of it."""
        if not args:
            raise ValueError("a command needs at least its name")
        name = command_name(args)
        if name == b"SCAN":
            raise RedisError("SCAN walks through the keys of one node: use scan_iter, which goes to all of them")
        if name in EVERYWHERE:
            rule = EVERYWHERE[name]
            nodes = yield from self._map.everyone(rule.replicas)
            return [Job(args, None).at(node, stays=True) for node in nodes], rule.finish
        if name in APART and len(args) > 1:
            parts = take_apart(args)
            from_replica = replica_reads and RULES[name].reads
            jobs = [Job(part.args, part.slot, reads=from_replica) for part in parts]
            return jobs, partial(put_together, name, parts)
        keys, reads = yield from self._keys(args, name)
        return [Job(args, slot_of(keys, name), reads=reads and replica_reads)], only_reply

    def _keys(self, args: Sequence[Argument], name: bytes) -> Coro[tuple[list[bytes], bool]]:
        """The keys of a command, and whether it only reads."""
        rule = rule_for(name)
        if rule is None:
            rule = yield from self._ask_about(args, name)
        if rule is None:
            return (yield from self._ask_for_keys(args)), False
        return keys_of(args, rule), rule.reads

    def _ask_about(self, args: Sequence[Argument], name: bytes) -> Coro[Rule | None]:
        """What a server says about a command that is not in our table; None if its keys may stand anywhere."""
        if name not in self._told:
            node = yield from self._map.anyone()
            (info,) = yield from node.execute(b"COMMAND", b"INFO", args[0])
            if info is None:
                return Rule(lambda args: ())  # there is no such command, and the server will say so
            self._told[name] = told_rule(info)
        return self._told[name]

    def _ask_for_keys(self, args: Sequence[Argument]) -> Coro[list[bytes]]:
        """The keys of one command, as a server sees them."""
        node = yield from self._map.anyone()
        try:
            keys: list[bytes] = yield from node.execute(b"COMMAND", b"GETKEYS", *args)
        except ReplyError:
            return []  # it has none, or is not well-formed, and the server will say so
        return keys

    # --- The nodes -----------------------------------------------------------------

    def primaries(self) -> Coro[Sequence[Redis]]:
        """A client for each primary, for commands to this one node. Suspends if they are not known yet."""
        return (yield from self._map.everyone(False))

    def replicas(self) -> Coro[Sequence[Redis]]:
        """A client for each replica, as `primaries`. It serves reads if this client was made with `replica_reads`."""
        nodes = yield from self._map.everyone(True)
        return nodes[len(self._map.primaries) :]

    def close(self) -> None:
        """Close the client for good; who waits for a reply gets `ClosedError`. Does not suspend."""
        self._map.close()

    def __repr__(self) -> str:
        return f"<RedisCluster {self._map!r}>"


def _exchange_alone(job: Job, patience: float) -> Coro[None]:
    """Carry out a command that may block, on a connection of its own."""
    assert job.node is not None
    pool = job.node.pool
    commands = [(b"ASKING",), job.args] if job.asking else [job.args]
    try:
        *_, job.outcome = yield from pool.lend(lambda connection: pool.exchange(connection, commands, patience))
    except RedisConnectionError as error:
        job.outcome = error


def _attempt(job: Job, run: Callable[[Node], Coro[list[Any]]]) -> Coro[None]:
    """Carry out a transaction at the job's node. One that was refused for its slot has done nothing."""
    assert job.node is not None
    try:
        job.outcome = yield from run(job.node)
    except (ReplyError, RedisConnectionError) as error:
        cause = error.__cause__ if isinstance(error, TransactionAbortedError) else error
        job.outcome = cause if isinstance(cause, (RedirectError, TryAgainError, ClusterDownError)) else error
        if isinstance(cause, AskError):  # each command would need its own ASKING: wait until the slot has moved
            job.outcome = TryAgainError("TRYAGAIN the slot of a transaction is moving")


def _failed(error: RedisError, outcomes: Outcomes) -> Any:
    raise error
