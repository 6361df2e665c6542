"""What can go wrong with Redis, as exceptions.

Redis answers a failed command with an *error reply*: a text whose first word, in capitals, names the kind of
error (`WRONGTYPE Operation against a key ...`). Here that word, the prefix, chooses the class, so that
callers catch `WrongTypeError` and need not match text. A prefix without a class of its own (`ERR`), and the
error of a script that has no prefix, make a plain `ReplyError`.

Specification: "Simple errors" and "Bulk errors" in the Redis serialization protocol specification,
https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import re

from coro.errors import CoroError


class RedisError(CoroError):
    """Base of every error that coro.redis defines."""


class RedisConnectionError(RedisError, ConnectionError):
    """There is no connection to the server, or it was lost: the text says to which, and why.

    Whether a command that had been sent was carried out, nobody can know; `sent` is False when it was not sent, and
    therefore not carried out. The next call connects again.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class OwnConnectionError(RedisError):
    """The command blocks or changes its connection: it must not be sent on the one that all tasks share."""


class WatchError(RedisError):
    """A transaction was begun again and again, as often as allowed: each time a watched key was changed by others."""


class LockLostError(RedisError):
    """The lock is not held any more: its time ran out, and somebody else may hold it."""


class ReplyError(RedisError):
    """Redis answered a command with an error reply. `str(error)` is its text as the server sent it."""

    @property
    def prefix(self) -> str:
        """The first word when it is in capitals (`ERR`, `WRONGTYPE`), else an empty string."""
        word = str(self).partition(" ")[0]
        return word if word.isupper() else ""


class AuthenticationError(ReplyError):
    """NOAUTH, WRONGPASS: a password is required, or the user name and password are not right."""


class NoPermissionError(ReplyError):
    """NOPERM: the user's access control list forbids the command, key or channel."""


class NoProtocolError(ReplyError):
    """NOPROTO: the server does not speak the protocol version that HELLO asked for."""


class WrongTypeError(ReplyError):
    """WRONGTYPE: the key holds another kind of value than the command works on."""


class OutOfMemoryError(ReplyError):
    """OOM: the server has reached `maxmemory` and may not evict."""


class LoadingError(ReplyError):
    """LOADING: the server is still reading its data set into memory."""


class BusyScriptError(ReplyError):
    """BUSY: a script or function holds the server."""


class NoScriptError(ReplyError):
    """NOSCRIPT: the server's script cache does not have the digest that EVALSHA named."""


class ReadOnlyError(ReplyError):
    """READONLY: a write was sent to a read-only replica."""


class MisconfigurationError(ReplyError):
    """MISCONF: the server refuses writes because it cannot persist them."""


class NoReplicasError(ReplyError):
    """NOREPLICAS: fewer replicas are attached than the server demands before it accepts a write."""


class TransactionAbortedError(ReplyError):
    """EXECABORT: EXEC ran nothing, because a command queued before it was refused."""


class BusyGroupError(ReplyError):
    """BUSYGROUP: the consumer group exists already."""


class UnblockedError(ReplyError):
    """UNBLOCKED: CLIENT UNBLOCK, or a change of role, ended a blocking command."""


class MasterDownError(ReplyError):
    """MASTERDOWN: the replica has lost its master and may not serve stale data."""


class ClusterDownError(ReplyError):
    """CLUSTERDOWN: the cluster does not serve the slot at present."""


class CrossSlotError(ReplyError):
    """CROSSSLOT: the keys of one command belong to different slots."""


class TryAgainError(ReplyError):
    """TRYAGAIN: the keys of one command are split between two nodes while their slot moves."""


class RedirectError(ReplyError):
    """The key's slot is served by another node. `host` is empty when it is the host that answered."""

    _TEXT = re.compile(r"[A-Z]+ (\d{1,5}) (.*):(\d{1,5})")

    def __init__(self, text: str) -> None:
        super().__init__(text)
        found = self._TEXT.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} does not read 'MOVED SLOT HOST:PORT'")
        self.slot = int(found[1])
        self.host = found[2]
        self.port = int(found[3])


class MovedError(RedirectError):
    """MOVED: send this and every later command for the slot to `host`:`port`."""


class AskError(RedirectError):
    """ASK: send this one command to `host`:`port`, after ASKING."""


_BY_PREFIX: dict[str, type[ReplyError]] = {
    "ASK": AskError,
    "BUSY": BusyScriptError,
    "BUSYGROUP": BusyGroupError,
    "CLUSTERDOWN": ClusterDownError,
    "CROSSSLOT": CrossSlotError,
    "EXECABORT": TransactionAbortedError,
    "LOADING": LoadingError,
    "MASTERDOWN": MasterDownError,
    "MISCONF": MisconfigurationError,
    "MOVED": MovedError,
    "NOAUTH": AuthenticationError,
    "NOPERM": NoPermissionError,
    "NOPROTO": NoProtocolError,
    "NOREPLICAS": NoReplicasError,
    "NOSCRIPT": NoScriptError,
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
    "TRYAGAIN": TryAgainError,
    "UNBLOCKED": UnblockedError,
    "WRONGPASS": AuthenticationError,
    "WRONGTYPE": WrongTypeError,
}


def reply_error(text: bytes) -> ReplyError:
    """The exception for the error reply `text` (without its type byte); returned, not raised.

    Bytes that are not UTF-8 appear escaped. A redirection that cannot be read is a plain `ReplyError`.
    """
    readable = text.decode("utf-8", "backslashreplace")
    kind = _BY_PREFIX.get(readable.partition(" ")[0], ReplyError)
    try:
        return kind(readable)
    except ValueError:
        return ReplyError(readable)
