"""Commands of a cluster that are not for one node: those that go to all of them, and those that are taken apart by key.

What is done follows the hints that the server gives about its commands (`request_policy`, `response_policy`), except
here. `MSET` and `MSETNX` are not taken apart: they promise that all keys are set or none, and a command in parts cannot
keep that. `SCRIPT LOAD` goes to primaries only: a replica that is down is no reason for it to fail. And what sets up
each node by itself (users, configuration) or is known to one node only (who subscribes) goes to all.

Specification: https://redis.io/docs/latest/develop/reference/command-tips/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from coro.redis.errors import CrossSlotError
from coro.redis.resp import Argument, bytes_of
from coro.redis.slots import key_slot

Outcomes: TypeAlias = Sequence[Any]  # replies, and exceptions in place of those that were not had


class Everywhere(NamedTuple):
    """How a command for all nodes is carried out."""

    join: Callable[[list[Any]], Any]  # makes one reply of what the nodes answered
    replicas: bool = False  # does it go to them as well?
    one_will_do: bool = False  # does an error count only if there is nothing else?

    def finish(self, outcomes: Outcomes) -> Any:
        """The joint reply. Raises the first error there is, if it counts."""
        good = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
        if len(good) == len(outcomes) or (good and self.one_will_do):
            return self.join(good)
        raise next(outcome for outcome in outcomes if isinstance(outcome, Exception))


def only_reply(outcomes: Outcomes) -> Any:
    """The reply to a command that is for one node. Raises the error in its place."""
    (outcome,) = outcomes
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _first(replies: list[Any]) -> Any:
    return replies[0]


def _all_of_each(replies: list[Any]) -> Any:
    """For lists of the same questions: 1 where all say 1."""
    return [min(answers) for answers in zip(*replies, strict=True)]


def _chained(replies: list[Any]) -> Any:
    return [item for reply in replies for item in reply]


def _united(replies: list[Any]) -> Any:
    return list(dict.fromkeys(_chained(replies)))


def _any_key(replies: list[Any]) -> Any:
    return next((reply for reply in replies if reply is not None), None)


def _counts(replies: list[Any]) -> Any:
    """For lists in which names and numbers take turns: the sums."""
    sums: dict[Any, int] = {}
    for reply in replies:
        for name, count in zip(reply[::2], reply[1::2], strict=True):
            sums[name] = sums.get(name, 0) + count
    return [word for pair in sums.items() for word in pair]


EVERYWHERE: dict[bytes, Everywhere] = {
    b"ACL DELUSER": Everywhere(_first, replicas=True),
    b"ACL LOAD": Everywhere(_first, replicas=True),
    b"ACL SAVE": Everywhere(_first, replicas=True),
    b"ACL SETUSER": Everywhere(_first, replicas=True),
    b"CONFIG RESETSTAT": Everywhere(_first, replicas=True),
    b"CONFIG REWRITE": Everywhere(_first, replicas=True),
    b"CONFIG SET": Everywhere(_first, replicas=True),
    b"DBSIZE": Everywhere(sum),
    b"FLUSHALL": Everywhere(_first),
    b"FLUSHDB": Everywhere(_first),
    b"FUNCTION DELETE": Everywhere(_first),
    b"FUNCTION FLUSH": Everywhere(_first),
    b"FUNCTION KILL": Everywhere(_first, one_will_do=True),
    b"FUNCTION LOAD": Everywhere(_first),
    b"FUNCTION RESTORE": Everywhere(_first),
    b"KEYS": Everywhere(_chained),
    b"LATENCY RESET": Everywhere(sum, replicas=True),
    b"MEMORY PURGE": Everywhere(_first),
    b"PING": Everywhere(_first),
    b"PUBSUB CHANNELS": Everywhere(_united, replicas=True),
    b"PUBSUB NUMPAT": Everywhere(sum, replicas=True),
    b"PUBSUB NUMSUB": Everywhere(_counts, replicas=True),
    b"PUBSUB SHARDCHANNELS": Everywhere(_united, replicas=True),
    b"PUBSUB SHARDNUMSUB": Everywhere(_counts, replicas=True),
    b"RANDOMKEY": Everywhere(_any_key),
    b"SCRIPT EXISTS": Everywhere(_all_of_each),
    b"SCRIPT FLUSH": Everywhere(_first, replicas=True),
    b"SCRIPT KILL": Everywhere(_first, one_will_do=True),
    b"SCRIPT LOAD": Everywhere(_first),
    b"SLOWLOG GET": Everywhere(_chained, replicas=True),
    b"SLOWLOG LEN": Everywhere(sum, replicas=True),
    b"SLOWLOG RESET": Everywhere(_first, replicas=True),
}
# Each key's part is a command of its own; together they mean what the whole would have.
APART = frozenset((b"DEL", b"EXISTS", b"MGET", b"TOUCH", b"UNLINK"))
_IN_PARTS = Everywhere(list)


class Part(NamedTuple):
    """One of the commands into which one was taken apart."""

    slot: int
    positions: list[int]  # of its keys in the whole command
    args: list[Argument]


def take_apart(args: Sequence[Argument]) -> list[Part]:
    """The parts of a command in `APART`, one for each slot."""
    parts: dict[int, Part] = {}
    for position in range(1, len(args)):
        slot = key_slot(bytes_of(args[position]))
        part = parts.get(slot)
        if part is None:
            part = parts[slot] = Part(slot, [], [args[0]])
        part.positions.append(position)
        part.args.append(args[position])
    return list(parts.values())


def put_together(name: bytes, parts: Sequence[Part], outcomes: Outcomes) -> Any:
    """The reply to a command that was taken apart. Raises the first error there is."""
    replies = _IN_PARTS.finish(outcomes)
    if name != b"MGET":
        return sum(replies)
    values = {
        position: value
        for part, reply in zip(parts, replies, strict=True)
        for position, value in zip(part.positions, reply, strict=True)
    }
    return [values[position] for position in sorted(values)]


def slot_of(keys: Sequence[bytes], name: bytes) -> int | None:
    """The slot that all the keys are in; None without keys. `CrossSlotError`; `name` is whose keys they are."""
    slots = [key_slot(key) for key in keys]
    for key, slot in zip(keys, slots, strict=True):
        if slot != slots[0]:
            raise CrossSlotError(
                f"CROSSSLOT {name.decode('utf-8', 'backslashreplace')} was given keys of different slots:"
                f" {keys[0]!r} is in slot {slots[0]}, {key!r} in {slot}."
                " What stands in braces decides: {tag}a and {tag}b are in one slot"
            )
    return slots[0] if slots else None
