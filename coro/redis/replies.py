"""What becomes of replies: functions that turn a reply of RESP2, or of RESP3, into the same Python value.

RESP2 has neither maps nor numbers with a fraction: where RESP3 sends a map, RESP2 sends an array in which keys and
values take turns, and a number is a string. Each function here takes either form. The strings in a reply are still
bytes then; where they are to be text for everybody (names of fields that the server chose), they become so here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

Reply = Any


def is_ok(reply: Reply) -> bool:
    """Whether the server said OK."""
    return bool(reply == b"OK")


def was_done(reply: Reply) -> bool:
    """Whether there is a reply, for commands that answer null when they did nothing."""
    return reply is not None


def as_bytes(reply: Reply) -> Reply:
    """The reply as it is, also where strings are text: what it holds is not text."""
    return reply


def decoded(value: Any) -> Any:
    """`value`, with str for bytes everywhere in it. UnicodeDecodeError for what is not UTF-8."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [decoded(element) for element in value]
    if isinstance(value, dict):
        return {decoded(key): decoded(element) for key, element in value.items()}
    if value.__class__ is tuple:
        return tuple(decoded(element) for element in value)
    if isinstance(value, set):
        return {decoded(element) for element in value}
    if isinstance(value, frozenset):
        return frozenset(decoded(element) for element in value)
    return value


def result(reply: Reply, convert: Callable[[Any], Any] | None, decode: bool) -> Any:
    """What a command method returns for `reply`."""
    if convert is not None:
        reply = convert(reply)
    return decoded(reply) if decode and convert is not as_bytes else reply


# --- Single values --------------------------------------------------------------------


def as_float(reply: Reply) -> float | None:
    return None if reply is None else float(reply)


def as_floats(reply: Reply) -> list[float | None]:
    return [as_float(element) for element in reply]


def as_bools(reply: Reply) -> list[bool]:
    return [bool(element) for element in reply]


def unix_time(reply: Reply) -> datetime:
    return datetime.fromtimestamp(reply)


def server_time(reply: Reply) -> tuple[int, int]:
    return int(reply[0]), int(reply[1])


def text(value: Any) -> Any:
    """As `decoded`, for names that the server chose; what is no UTF-8 all the same is escaped."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, (list, set, tuple)):
        return [text(element) for element in value]
    if isinstance(value, dict):
        return {text(key): text(element) for key, element in value.items()}
    return value


texts = text

# --- Maps and pairs -------------------------------------------------------------------


def turns(reply: Reply) -> Iterable[tuple[Any, Any]]:
    """Pairs, of a list in which two kinds of things take turns."""
    return zip(reply[::2], reply[1::2], strict=True)


def as_dict(reply: Reply) -> dict[Any, Any]:
    return reply if isinstance(reply, dict) else dict(turns(reply))


def flat(reply: Reply) -> Reply:
    """One list of what may be a list of pairs."""
    if reply and isinstance(reply[0], list):
        return [element for pair in reply for element in pair]
    return reply


def pair(reply: Reply) -> tuple[Any, Any] | None:
    return None if reply is None else (reply[0], reply[1])


def counts(reply: Reply) -> list[tuple[Any, int]]:
    return list(as_dict(reply).items())


def settings(reply: Reply) -> dict[str, str]:
    named: dict[str, str] = text(as_dict(reply))
    return named


def page(convert: Callable[[Any], Any]) -> Callable[[Reply], tuple[int, Any]]:
    """For SCAN and its kin: the next cursor, and the batch as `convert` turns it."""
    return lambda reply: (int(reply[0]), convert(reply[1]))


def grouped(size: int) -> Callable[[Reply], Reply]:
    """Tuples of `size`, of a list in which so many things take turns."""
    if size < 2:
        raise ValueError("sort: groups=True needs several patterns to get")
    return lambda reply: list(zip(*[iter(reply)] * size, strict=True))


# --- Sorted sets ----------------------------------------------------------------------


def scored(reply: Reply) -> list[tuple[Any, float]] | None:
    """(member, score) of each; RESP2, and RESP3 where only one is asked for, send one list of both in turns."""
    if reply is None:
        return None
    if reply and isinstance(reply[0], list):
        return [(member, float(score)) for member, score in reply]
    return [(member, float(score)) for member, score in turns(reply)]


def popped(reply: Reply) -> tuple[Any, list[tuple[Any, float]]] | None:
    return None if reply is None else (reply[0], [(member, float(score)) for member, score in reply[1]])


def first_scored(reply: Reply) -> tuple[Any, Any, float] | None:
    return None if reply is None else (reply[0], reply[1], float(reply[2]))


# --- Streams --------------------------------------------------------------------------


def entries(reply: Reply) -> list[tuple[Any, dict[Any, Any]]]:
    """(id, fields) of each entry; Redis before 7 sends null for a deleted one that is claimed."""
    return [_entry(entry) for entry in reply if entry is not None]


def _entry(entry: Reply) -> tuple[Any, dict[Any, Any]]:
    return entry[0], as_dict(entry[1] or {})


def streams(reply: Reply) -> list[tuple[Any, list[Any]]]:
    """(name, entries) of each stream."""
    if reply is None:
        return []
    return [(name, entries(found)) for name, found in (reply.items() if isinstance(reply, dict) else reply)]


def claimed(reply: Reply) -> list[Any]:
    return [reply[0], entries(reply[1]), *reply[2:]]


def pending(reply: Reply) -> dict[str, Any]:
    count, first, last, consumers = reply
    each = [{"name": name, "pending": int(number)} for name, number in consumers or ()]
    return {"pending": count, "min": first, "max": last, "consumers": each}


def pending_range(reply: Reply) -> list[dict[str, Any]]:
    names = ("message_id", "consumer", "time_since_delivered", "times_delivered")
    return [dict(zip(names, entry, strict=True)) for entry in reply]


# --- What the server tells of itself -----------------------------------------------------


def as_info(reply: Reply) -> dict[str, Any] | None:
    """A map whose keys the server chose."""
    return None if reply is None else {text(key): value for key, value in as_dict(reply).items()}


def infos(reply: Reply) -> list[Any]:
    return [as_info(element) for element in reply]


as_dicts = infos


def stream_info(reply: Reply) -> dict[str, Any]:
    told = as_info(reply) or {}
    for name in "first-entry", "last-entry":
        if told.get(name) is not None:
            told[name] = _entry(told[name])
    return told


def stream_info_full(reply: Reply) -> dict[str, Any]:
    told = as_info(reply) or {}
    told["entries"] = entries(told["entries"])
    told["groups"] = infos(told["groups"])
    for group in told["groups"]:
        group["consumers"] = infos(group["consumers"])
    return told


def libraries(reply: Reply) -> list[dict[str, Any]]:
    told = infos(reply)
    for library in told:
        library["functions"] = infos(library["functions"])
    return told


def function_stats(reply: Reply) -> dict[str, Any]:
    told = as_info(reply) or {}
    told["running_script"] = as_info(told["running_script"])
    told["engines"] = {text(name): as_info(engine) for name, engine in as_dict(told["engines"]).items()}
    return told


def memory_stats(reply: Reply) -> dict[str, Any]:
    told = as_info(reply) or {}
    return {name: as_info(value) if name.startswith("db.") else value for name, value in told.items()}


def info(reply: Reply) -> dict[str, Any]:
    """INFO: `name:value` a line; a value may be a number, or `name=value,name=value`."""
    told: dict[str, Any] = {}
    for line in reply.decode("utf-8", "backslashreplace").splitlines():
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#"):
            told[name] = _info_value(value)
    return told


def _info_value(value: str) -> Any:
    if "=" in value:
        parts = [part.partition("=") for part in value.split(",")]
        if all(equals for _, equals, _ in parts):
            return {name: _info_value(part) for name, _, part in parts}
    for kind in int, float:
        try:
            return kind(value)
        except ValueError:
            pass
    return value


def client_info(reply: Reply) -> dict[str, str]:
    """A line of CLIENT LIST: `name=value name=value`."""
    line = reply.decode("utf-8", "backslashreplace").rstrip()
    return {name: value for name, _, value in (word.partition("=") for word in line.split(" "))}


def client_list(reply: Reply) -> list[dict[str, str]]:
    return [client_info(line) for line in reply.splitlines()]


def slow_log(reply: Reply) -> list[dict[str, Any]]:
    return [
        {
            "id": entry[0],
            "start_time": entry[1],
            "duration": entry[2],
            "command": b" ".join(entry[3]),
            "client_address": entry[4],
            "client_name": entry[5],
        }
        for entry in reply
    ]


def latencies(reply: Reply) -> list[list[Any]]:
    return [[text(name), *numbers] for name, *numbers in reply]


# --- Places ---------------------------------------------------------------------------


def positions(reply: Reply) -> list[tuple[float, float] | None]:
    return [None if place is None else (float(place[0]), float(place[1])) for place in reply]


def places(distance: bool, number: bool, position: bool) -> Callable[[Reply], list[list[Any]]]:
    """[member, distance, geohash number, coordinates] of each, of which those that were asked for are there."""
    converts: list[Callable[[Any], Any]] = []
    if distance:
        converts.append(float)
    if number:
        converts.append(int)
    if position:
        converts.append(lambda place: (float(place[0]), float(place[1])))

    def convert(reply: Reply) -> list[list[Any]]:
        return [[member, *(turn(one) for turn, one in zip(converts, rest, strict=True))] for member, *rest in reply]

    return convert
