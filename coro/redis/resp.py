"""The Redis serialization protocol, RESP2 and RESP3, without I/O: bytes to replies, commands to bytes.

A reply is one line, a type byte and a value, ended by CRLF. For strings the value is a length, and the bytes
follow; for aggregates it is a count, and that many replies follow:

    +OK   -ERR text   :12   _   #t                 simple string, error, integer, null, boolean
    ,1.5   (123                                    double, big number
    $5 CRLF hello CRLF   !5 ...   =9 ...           bulk string, bulk error, verbatim string (txt:hello)
    *2   %1   ~2                                   array, map (counted in pairs), set
    $-1   *-1                                      the two nulls of RESP2
    |1                                             attributes (pairs): about the reply that comes next
    >2                                             push: no reply, the server speaks by itself
    $?  ;4 CRLF Hell CRLF  ;1 CRLF o CRLF  ;0      streamed string: chunks, and one of no length at the end
    *?   %?   ~?   ...   .                         streamed aggregates: the end is marked, the count not told

The parser is one generator, which runs through the bytes as if it could wait for more in mid-reply: where it
is short of data it yields, and its frame is the parser's whole state. Bytes once read are not read again,
except an unfinished line's, `MAX_LINE` at most. The aggregates being read are a list and not a recursion, so
that an element goes the same short way as a reply of its own. Nothing is allocated on the word of a length or
a count.

A broken stream is a `ProtocolError` and final: nobody can know where the next reply begins, so the parser
reads no further, and the connection has to be closed.

Specifications: https://github.com/redis/redis-specifications/blob/master/protocol/RESP3.md and
https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from coro.redis.errors import RedisError, ReplyError, reply_error

CRLF = b"\r\n"
MAX_LINE = 64 * 1024  # bytes in one line: a simple string, an error, a number
MAX_BULK = 512 * 1024 * 1024  # bytes in one string: what Redis itself holds (proto-max-bulk-len)
MAX_ITEMS = 2**32 - 1  # elements, or pairs, of one aggregate: what a Redis collection holds
MAX_DEPTH = 128  # aggregates inside one another
MAX_REPLY = 1024 * 1024 * 1024  # bytes in one reply, with all that is in it
LARGE = 64 * 1024  # bytes from which encode_into passes an argument by reference

Argument: TypeAlias = bytes | bytearray | memoryview | str | int | float
Reply: TypeAlias = (
    "bool | int | float | bytes | ReplyError | list[Reply] | dict[Hashable, Reply] | set[Hashable] | None"
)


class ProtocolError(RedisError):
    """The peer's bytes are not RESP, or are over a limit.

    `replies` are those of the same feed that were whole before the stream broke.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.replies: list[Reply | OutOfBand] = []


class OutOfBand:
    """What comes between replies and answers no command."""

    __slots__ = ()


@dataclass(slots=True)
class Push(OutOfBand):
    """A message the server sends by itself. `kind` is its first element (b"message", b"invalidate", ...)."""

    kind: bytes
    data: list[Reply]


@dataclass(slots=True)
class Attributes(OutOfBand):
    """What the server tells about the reply (or push message) that comes next."""

    data: dict[Hashable, Reply]


class VerbatimString(bytes):
    """A string to be shown as it is; `format` is its three-letter kind: b"txt", or b"mkd" for Markdown."""

    format: bytes


class Parser:
    """Turns the bytes a server sends into Python values.

    Strings of every kind are bytes, error replies are `ReplyError` values; arrays are lists, maps dicts, sets
    sets. As a key of a map or a member of a set, a list is a tuple, a set a frozenset, a map a tuple of
    pairs. Keys or members that Python holds equal (1 and True) become one. `Push` and `Attributes` stand
    among the replies where they came. Attributes inside an aggregate are read and dropped: its elements have
    nowhere to carry them.
    """

    __slots__ = ("_machine", "_max_reply", "_pending", "_ready", "_resume")

    def __init__(
        self,
        *,
        max_bulk: int = MAX_BULK,
        max_items: int = MAX_ITEMS,
        max_depth: int = MAX_DEPTH,
        max_line: int = MAX_LINE,
        max_reply: int = MAX_REPLY,
    ) -> None:
        """Limits: bytes of a string, elements (or pairs) of an aggregate, aggregates inside one another, bytes of a
        line, and bytes of a whole reply (of which no more is kept than was fed at once beyond it).
        """
        self._ready: list[Any] = []
        self._max_reply = max_reply
        self._pending = 0  # bytes fed since a reply was whole
        machine = _parse(self._ready, max_bulk, max_items, max_depth, max_line)
        next(machine)
        self._machine = machine
        self._resume = machine.send

    def feed(self, data: bytes | bytearray | memoryview) -> list[Reply | OutOfBand]:
        """The replies that `data` completes, in order; what is left over waits for more. Never suspends.

        `data` may be reused afterwards. A broken stream raises `ProtocolError`, and so does every later feed.
        """
        ready = self._ready
        try:
            self._resume(data if data.__class__ is bytes else bytes(data))
        except ProtocolError as error:
            error.replies = ready
            raise
        except StopIteration:
            raise ProtocolError("the stream of replies broke before; close the connection") from None
        replies = ready[:]
        if replies:
            ready.clear()
            self._pending = 0
        else:
            self._pending += len(data)
            if self._pending > self._max_reply:
                self._machine.close()
                raise ProtocolError(f"a reply is over the limit of {self._max_reply} bytes")
        return replies


def _parse(
    ready: list[Any], max_bulk: int, max_items: int, max_depth: int, max_line: int
) -> Generator[None, bytes, None]:
    """Takes bytes by `send`, appends to `ready` each reply they complete, and waits in `yield` for more."""
    small = _SMALL_BULKS if max_bulk >= _SMALL else {}
    constants = _CONSTANTS
    # The aggregate being read: its elements so far, how many are missing, its type; around it: `outer`.
    # Outermost is the list of whole replies, of which there is always another to come.
    items, missing, kind = ready, -1, b""
    outer: list[tuple[list[Any], int, bytes]] = []
    value: Any
    buffer, position = b"", 0
    while True:
        if not missing:
            value = _ASSEMBLE[kind](items)
            items, missing, kind = outer.pop()
            if not outer or value.__class__ is not Attributes:
                items.append(value)
                missing -= 1
            continue
        end = buffer.find(CRLF, position)
        if end < 0:
            value = None  # so that an idle parser keeps no reply alive
            buffer, position = _unfinished(buffer, position, max_line), 0
            buffer += yield
            continue
        line = buffer[position:end]
        position = end + 2
        size = small.get(line, -1)
        if size >= 0:
            end = position + size
            value = buffer[position:end]
            if buffer[end : end + 2] == CRLF:
                position = end + 2
            else:
                value, buffer, position = yield from _bulk(buffer, position, size)
        elif line in constants:
            value = constants[line]
        elif len(line) > max_line:
            raise _too_long(line, max_line)
        elif line[:1] in _SCALARS:
            value = _SCALARS[line[:1]](line)
        elif line == b"$?":
            value, buffer, position = yield from _streamed_string(buffer, position, max_bulk)
        elif line[:1] in _BULKS:
            value, buffer, position = yield from _bulk(buffer, position, _length(line, max_bulk))
            value = _BULKS[line[:1]](value)
        elif line == b"." and kind in _STREAMED:
            kind, missing = kind[:1], 0
            continue
        else:
            if len(outer) >= max_depth:
                raise ProtocolError(f"a reply has over {max_depth} aggregates inside one another")
            count = _count(line, max_items, bool(outer))
            outer.append((items, missing, kind))
            items, missing, kind = [], count, line if line in _STREAMED else line[:1]
            continue
        items.append(value)
        missing -= 1


def _streamed_string(buffer: bytes, position: int, room: int) -> Generator[None, bytes, tuple[bytes, bytes, int]]:
    """The chunks from `position`, joined; the buffer now read from; and the position after them."""
    chunks: list[bytes] = []
    while True:
        while (end := buffer.find(CRLF, position)) < 0:
            buffer, position = _unfinished(buffer, position), 0
            buffer += yield
        line = buffer[position:end]
        position = end + 2
        if line[:1] != b";":
            raise ProtocolError(f"{_shown(line)} stands where a chunk of a streamed string should")
        size = _length(line, room)
        if size == 0:
            return b"".join(chunks), buffer, position
        room -= size
        chunk, buffer, position = yield from _bulk(buffer, position, size)
        chunks.append(chunk)


def _count(line: bytes, limit: int, inside: bool) -> int:
    """How many elements the aggregate `line` opens has; for a streamed one, how many are too many."""
    kind = line[:1]
    if kind not in _AGGREGATES:
        raise _unexpected(line)
    if kind == b">" and inside:
        raise ProtocolError("a push message stands inside a reply")
    width = _AGGREGATES[kind]
    if line in _STREAMED:
        return width * limit + 1
    return width * _length(line, limit)


def _bulk(buffer: bytes, start: int, size: int) -> Generator[None, bytes, tuple[bytes, bytes, int]]:
    """The `size` bytes at `start`, the buffer now read from, and the position after their CRLF.

    Bytes still to come are kept as they come and joined once.
    """
    end = start + size
    if end <= len(buffer):
        value = buffer[start:end]
    else:
        missing = end - len(buffer)
        pieces = [buffer[start:]]
        while missing > 0:
            buffer = yield
            pieces.append(buffer)
            missing -= len(buffer)
        end = len(buffer) + missing
        pieces[-1] = buffer[:end]
        value = b"".join(pieces)
    while len(buffer) < end + 2:
        buffer, end = buffer[end:], 0
        buffer += yield
    if buffer[end : end + 2] != CRLF:
        raise ProtocolError(f"a string of {size} bytes ends in {buffer[end : end + 2]!r}, not CRLF")
    return value, buffer, end + 2


def _unfinished(buffer: bytes, position: int, max_line: int = MAX_LINE) -> bytes:
    """The line that has begun at `position`, after a look at whether it can become one."""
    rest = buffer[position:]
    if rest and rest[0] not in _TYPES:
        raise _unexpected(rest)
    if len(rest) > max_line + 1:  # the one is a CR whose LF is still to come
        raise _too_long(rest, max_line)
    return rest


def _length(line: bytes, limit: int) -> int:
    digits = line[1:]
    if not digits.isdigit() or len(digits) > 20:
        raise ProtocolError(f"{_shown(line)} does not tell a length")
    length = int(digits)
    if length > limit:
        raise ProtocolError(f"{_shown(line)} announces more than the limit of {limit}")
    return length


def _shown(line: bytes) -> str:
    return repr(line) if len(line) <= 40 else f"{line[:40]!r}..."


def _unexpected(line: bytes) -> ProtocolError:
    return ProtocolError(f"{_shown(line)} is no reply: is the peer a Redis server, and is TLS on or off as it expects?")


def _too_long(line: bytes, limit: int) -> ProtocolError:
    return ProtocolError(f"a line that begins {_shown(line)} is over the limit of {limit} bytes")


# -- types of one line

_INTEGER = re.compile(rb"[+-]?[0-9]+")
_DOUBLE = re.compile(rb"[+-]?(?:[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?|inf)", re.IGNORECASE)
_NAN = re.compile(rb"[+-]?nan(?:\(.*\))?", re.IGNORECASE)  # Redis before 7.2 sends what the C library prints


def _text(line: bytes) -> bytes:
    if b"\r" in line or b"\n" in line:
        raise ProtocolError(f"{_shown(line)} has a line break inside")
    return line[1:]


def _error(line: bytes) -> ReplyError:
    return reply_error(_text(line))


def _integer(line: bytes) -> int:
    number = line[1:]
    if number.isdigit() or _INTEGER.fullmatch(number):
        try:
            return int(number)
        except ValueError:  # more digits than sys.get_int_max_str_digits()
            pass
    raise ProtocolError(f"{_shown(line)} is not an integer that can be read")


def _double(line: bytes) -> float:
    if _DOUBLE.fullmatch(line, 1):
        return float(line[1:])
    if _NAN.fullmatch(line, 1):
        return float("nan")
    raise ProtocolError(f"{_shown(line)} is not a number")


_SCALARS: dict[bytes, Callable[[bytes], Reply]] = {
    b"+": _text,
    b"-": _error,
    b":": _integer,
    b"(": _integer,
    b",": _double,
}
_CONSTANTS: dict[bytes, Reply] = {  # lines with one meaning only, and those that come most
    b"_": None,
    b"$-1": None,
    b"*-1": None,
    b"#t": True,
    b"#f": False,
    b"+OK": b"OK",
    b"+QUEUED": b"QUEUED",
    b":0": 0,
    b":1": 1,
}

# -- types with a length


def _verbatim(payload: bytes) -> VerbatimString:
    if payload[3:4] != b":":
        raise ProtocolError(f"{_shown(payload)} is not a verbatim string: it has no format before it")
    value = VerbatimString(payload[4:])
    value.format = payload[:3]
    return value


_SMALL = 1024  # strings shorter than this have their header in a table: no number is parsed or printed
_BULK_HEADERS = [b"$%d" % size for size in range(_SMALL)]
_ARRAY_HEADERS = [b"*%d" % count for count in range(_SMALL)]
_SMALL_BULKS = {header: size for size, header in enumerate(_BULK_HEADERS)}
_BULKS: dict[bytes, Callable[[bytes], Reply]] = {b"$": bytes, b"!": reply_error, b"=": _verbatim}

# -- types with elements


def _hashable(value: Any) -> Hashable:
    """`value` as a key: what can change becomes its unchanging counterpart."""
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    if isinstance(value, set):
        return frozenset(value)
    if isinstance(value, dict):
        return tuple((key, _hashable(element)) for key, element in value.items())
    return value  # type: ignore[no-any-return]


def _array(items: list[Any]) -> list[Reply]:
    return items


def _map(items: list[Any]) -> dict[Hashable, Reply]:
    if len(items) % 2:
        raise ProtocolError("a streamed map ends after a key")
    keys, values = items[::2], items[1::2]
    try:
        return dict(zip(keys, values, strict=True))
    except TypeError:
        return dict(zip(map(_hashable, keys), values, strict=True))


def _set(items: list[Any]) -> set[Hashable]:
    try:
        return set(items)
    except TypeError:
        return set(map(_hashable, items))


def _push(items: list[Any]) -> Push:
    if not items or not isinstance(items[0], bytes):
        raise ProtocolError("a push message does not begin with its kind")
    return Push(items[0], items[1:])


def _attributes(items: list[Any]) -> Attributes:
    return Attributes(_map(items))


def _endless(items: list[Any]) -> Reply:
    raise ProtocolError(f"a streamed aggregate goes beyond the limit, with {len(items)} elements")


_AGGREGATES = {b"*": 1, b"~": 1, b">": 1, b"%": 2, b"|": 2}  # to how many replies one count amounts
_STREAMED = frozenset((b"*?", b"~?", b"%?"))
_ASSEMBLE: dict[bytes, Callable[[list[Any]], Reply | OutOfBand]] = {
    b"*": _array,
    b"~": _set,
    b"%": _map,
    b"|": _attributes,
    b">": _push,
    **dict.fromkeys(_STREAMED, _endless),
}
_TYPES = frozenset(b"+-:(,_#$!=*~%|>.;")


# -- commands


def encode(args: Sequence[Argument]) -> bytes:
    """The command `args` as an array of bulk strings, as servers read it. Errors as in `encode_into`."""
    parts: list[bytes] = []
    encode_into(parts, args)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def encode_into(parts: list[bytes], args: Sequence[Argument]) -> None:
    """Append the command `args` to `parts`, whose concatenation is what is to be sent.

    A bytes argument of `LARGE` bytes or more becomes a part by itself, uncopied; what lies between such is
    one part. str is sent as UTF-8, int in decimal, float as `repr` writes it, which reads back as the same
    number.

    When an error is raised `parts` is unchanged: TypeError for an argument of another type (and for bool and
    None, which Redis has no form for), ValueError for a command without a name, UnicodeEncodeError for a lone
    surrogate.
    """
    count = len(args)
    if not count:
        raise ValueError("a command needs at least its name")
    whole: list[bytes] = []
    words = [_ARRAY_HEADERS[count] if count < _SMALL else b"*%d" % count]
    for arg in args:
        if arg.__class__ is not bytes:
            arg = arg.encode() if isinstance(arg, str) else bytes_of(arg)
        size = len(arg)
        if size < _SMALL:
            words += (_BULK_HEADERS[size], arg)
        elif size < LARGE:
            words += (b"$%d" % size, arg)
        else:
            words += (b"$%d" % size, b"")
            whole += (CRLF.join(words), arg)
            words = [b""]
    words.append(b"")
    if whole:
        parts += whole
    parts.append(CRLF.join(words))


def bytes_of(arg: Argument) -> bytes:
    """`arg` as it is sent; errors as in `encode_into`."""
    if isinstance(arg, str):
        return arg.encode()
    if isinstance(arg, (bytes, bytearray, memoryview)):
        return bytes(arg)
    if isinstance(arg, int) and not isinstance(arg, bool):
        return b"%d" % arg
    if isinstance(arg, float):
        return float.__repr__(arg).encode()
    raise TypeError(
        f"{arg!r} ({type(arg).__name__}) cannot be sent to Redis: pass bytes, str, int or float"
        " (for True and False say 1 and 0; for None an empty string, or leave the argument out)"
    )
