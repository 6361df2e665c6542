"""Gets commands to the nodes of a cluster, in one piece for each node, and sends on what a node did not carry out.

A node that does not serve a command's slot says so, and has done nothing: `MOVED` and `ASK` name the node that will,
`TRYAGAIN` and `CLUSTERDOWN` mean later. The same holds for a command that could not be sent at all. So these may be
sent again, and are, a limited number of times; what was sent and got no answer is an error, as nobody knows what became
of it.

    MOVED        there, and for this slot from now on; the map is asked for again
    ASK          there, once, after ASKING: the slot is moving
    TRYAGAIN     after a pause: the slot is moving, and its keys are in two places
    CLUSTERDOWN  after a pause, and with a new map
    not sent     to whom a new map names; an error when it names the same node

A replica that is loading, or has lost its primary, or cannot be reached, is passed over in favour of the primary.

Specification: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/ ("Redirection and resharding")
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from coro import gather, sleep
from coro.redis.errors import (
    AskError,
    ClusterDownError,
    LoadingError,
    MasterDownError,
    RedirectError,
    RedisConnectionError,
    RedisError,
    ReplyError,
    TryAgainError,
)
from coro.redis.nodes import ClusterMap, Node
from coro.redis.resp import Argument
from coro.redis.shared import Batch, Command
from coro.task import Coro

ATTEMPTS = 6  # times that a command is sent to one node or another
FIRST_WAIT = 0.02  # seconds before it is sent again to a cluster that said later; doubled each time


PENDING = object()  # no outcome yet


class Job:
    """A command, where it goes, and what has become of it."""

    __slots__ = ("args", "asking", "node", "outcome", "reads", "slot", "stays")

    def __init__(self, args: Sequence[Argument], slot: int | None, *, reads: bool = False) -> None:
        self.args = args
        self.slot = slot  # None: any node will do
        self.reads = reads  # from a replica, if there is one
        self.node: Node | None = None  # None: the one that the map says
        self.stays = False  # it is for this node and no other
        self.asking = False
        self.outcome: Any = PENDING  # the reply, or the error in its place

    def at(self, node: Node, *, outcome: Any = PENDING, stays: bool = False) -> Job:
        """The job itself, on its way to a node (or refused by it: `outcome`)."""
        self.node, self.outcome, self.stays = node, outcome, stays
        return self

    def result(self) -> Any:
        """The reply; raises the error in its place."""
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def carry_out(cluster: ClusterMap, jobs: list[Job], perform: Callable[[list[Job]], Coro[None]]) -> Coro[None]:
    """Give each job its outcome. Suspends. Jobs for one node are carried out in their order.

    A job that has an outcome already is one that was tried before. `perform` takes jobs that have a node, and gives
    them outcomes, as `exchange` does.
    """
    wait = FIRST_WAIT
    for _ in range(ATTEMPTS):
        verdicts = [(job, _judge(cluster, job)) for job in jobs]
        if any(verdict is Verdict.LATER for _, verdict in verdicts):
            yield from sleep(wait * random.uniform(0.5, 1))
            wait *= 2
        elsewhere = [job for job, verdict in verdicts if verdict is Verdict.ELSEWHERE]
        if elsewhere:
            yield from _find_others(cluster, elsewhere)
        jobs = []
        for job, verdict in verdicts:
            if job.node is None and verdict in (Verdict.SEND, Verdict.LATER):
                yield from _place(cluster, job)
            if job.node is not None and verdict is not Verdict.DONE:
                jobs.append(job)
        if not jobs:
            return
        yield from perform(jobs)


def exchange(jobs: list[Job]) -> Coro[None]:
    """Send each node its jobs on its shared connection, and wait for all replies. Suspends.

    TypeError for what cannot be sent; then nothing was.
    """
    parts: dict[Node, list[Job]] = {}
    for job in jobs:
        assert job.node is not None
        parts.setdefault(job.node, []).append(job)
    requests = [(_request(node, part), part) for node, part in parts.items()]
    if len(requests) == 1:
        yield from _send(*requests[0])
    else:
        yield from gather(*[_send(request, part) for request, part in requests])


def _request(node: Node, jobs: list[Job]) -> Command:
    commands: list[Sequence[Argument]] = []
    for job in jobs:
        commands += ((b"ASKING",), job.args) if job.asking else (job.args,)
    return Command(node.shared, commands[0]) if len(commands) == 1 else Batch(node.shared, commands)


def _send(request: Command, jobs: list[Job]) -> Coro[None]:
    try:
        reply = yield request
    except ReplyError as error:
        reply = error
    except RedisConnectionError as error:
        for job in jobs:  # each its own: raised in several places, one object would gather all their tracebacks
            job.outcome = RedisConnectionError(str(error), sent=error.sent)
            job.outcome.__cause__ = error.__cause__
        return
    replies = iter(reply if isinstance(request, Batch) else [reply])
    for job in jobs:
        if job.asking:
            next(replies)
        job.outcome = next(replies)


# --- What a node did not carry out ------------------------------------------------------------


class Verdict(Enum):
    DONE = "it has its outcome"
    SEND = "it is to be sent (again), at once"
    LATER = "it is to be sent again after a pause"
    ELSEWHERE = "it was not sent: the node cannot be reached"


def _judge(cluster: ClusterMap, job: Job) -> Verdict:
    """What is to be done with a job, and by which node if one was named."""
    outcome, node = job.outcome, job.node
    job.asking = False
    if outcome is PENDING:
        return Verdict.SEND
    if not isinstance(outcome, Exception):
        return Verdict.DONE
    assert node is not None
    if job.stays:
        _note(outcome, node)
        return Verdict.DONE
    if isinstance(outcome, RedirectError):
        job.asking = isinstance(outcome, AskError)
        job.node = cluster.target(outcome, node) if job.asking else cluster.moved(outcome, node)
        return Verdict.SEND
    if isinstance(outcome, RedisConnectionError):
        cluster.suspect(node)
    elif isinstance(outcome, (TryAgainError, *_UNFIT)):
        cluster.refresh()
    if job.reads and (isinstance(outcome, _UNFIT) or _was_not_sent(outcome)):
        job.reads, job.node = False, None
        return Verdict.SEND
    if isinstance(outcome, (TryAgainError, ClusterDownError)):
        job.node = None
        return Verdict.LATER
    if _was_not_sent(outcome):
        return Verdict.ELSEWHERE
    _note(outcome, node)
    return Verdict.DONE


def _note(error: Exception, node: Node) -> None:
    """Whose answer it was; errors of connections say that by themselves."""
    if isinstance(error, ReplyError):
        error.add_note(f"answered by Redis at {node.address}")


_UNFIT = (ClusterDownError, LoadingError, MasterDownError)  # what a replica answers that cannot serve reads now


def _was_not_sent(outcome: Exception) -> bool:
    return isinstance(outcome, RedisConnectionError) and not outcome.sent


def _find_others(cluster: ClusterMap, jobs: list[Job]) -> Coro[None]:
    """Take the node that a new map names, unless it is the one that was not reached: then there is none. Suspends."""
    problem: RedisConnectionError | None = None
    try:
        yield from cluster.refreshed()
    except RedisConnectionError as error:
        problem = error
    for job in jobs:
        vain, job.node = job.node, None
        if problem is not None:
            job.outcome = RedisConnectionError(str(problem), sent=False)
        elif job.slot is None:
            job.node = next((node for node in cluster.primaries if node is not vain), None)
        elif cluster.owners[job.slot] is not vain:
            job.node = cluster.owners[job.slot]


def _place(cluster: ClusterMap, job: Job) -> Coro[None]:
    """Choose the node of a job; without one, it has an error for its outcome. Suspends."""
    try:
        if job.slot is None:
            job.node = yield from cluster.anyone()
            return
        node = yield from cluster.owner(job.slot)
        job.node = random.choice(node.replicas) if job.reads and node.replicas else node
    except RedisError as error:
        job.outcome = error
