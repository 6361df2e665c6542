"""What sentinels say about a master, and which of them to believe.

Each sentinel has a view of its own, and for a moment around a failover they differ. They settle that among themselves
by the configuration epoch: the view of the latest failover wins, as each of them adopts a higher epoch when it hears of
it. So it is here: of the views that were told in time the one with the highest epoch counts, and among equals the one
that most sentinels have. As soon as more than half of all sentinels are of one view, nobody else needs to be heard.

    SENTINEL GET-MASTER-ADDR-BY-NAME name   [host, port], or null: the name is not known
    SENTINEL MASTER name                    a map: config-epoch, flags, ...
    SENTINEL REPLICAS name                  a map for each replica: ip, port, flags, master-link-status, ...

Specification: https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/ ("Sentinel API", "Configuration
epochs") and https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coro.redis.errors import ReplyError
from coro.redis.replies import as_dict, text
from coro.redis.resp import Argument, ProtocolError
from coro.redis.slots import Address

UNFIT = frozenset(("s_down", "o_down", "disconnected"))  # flags of a replica that is not to be used


@dataclass(frozen=True)
class View:
    """What one sentinel says."""

    epoch: int
    master: Address
    replicas: tuple[Address, ...]  # that are up and have a link to the master


def questions(name: str) -> list[Sequence[Argument]]:
    """The commands whose replies make a view."""
    return [
        ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name),
        ("SENTINEL", "MASTER", name),
        ("SENTINEL", "REPLICAS", name),
    ]


def read_view(replies: Sequence[Any]) -> View | None:
    """The view that the replies to `questions` tell; None if there is no such master. ReplyError, ProtocolError."""
    place, master, replicas = replies
    if isinstance(place, ReplyError):
        raise place
    if place is None:
        return None
    try:
        # Who may ask for the address only is not told the rest: then there are no epochs to go by, and no replicas.
        epoch = 0 if isinstance(master, ReplyError) else int(_fields(master)["config-epoch"])
        told = [] if isinstance(replicas, ReplyError) else [_fields(replica) for replica in replicas]
        fit = [_address(replica["ip"], replica["port"]) for replica in told if _is_fit(replica)]
        return View(epoch, _address(*map(text, place)), tuple(sorted(fit)))
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"the replies of a sentinel cannot be read: {error!r}") from None


def _fields(reply: Any) -> dict[str, str]:
    fields: dict[str, str] = text(as_dict(reply))
    return fields


def _is_fit(replica: dict[str, str]) -> bool:
    return replica.get("master-link-status") == "ok" and not UNFIT & set(replica["flags"].split(","))


def _address(host: Any, port: Any) -> Address:
    if not isinstance(host, str) or not isinstance(port, str):
        raise TypeError(f"{host!r}, {port!r} is no address")
    return Address(host, int(port))


def is_agreed(views: Sequence[View], sentinels: int) -> bool:
    """Whether more than half of so many sentinels name one master, in one epoch."""
    votes = Counter((view.epoch, view.master) for view in views)
    return any(2 * count > sentinels for count in votes.values())


def best_view(views: Sequence[View]) -> View:
    """The view to believe, of one or more."""
    votes = Counter((view.epoch, view.master) for view in views)
    return max(views, key=lambda view: (view.epoch, votes[view.epoch, view.master], len(view.replicas)))
