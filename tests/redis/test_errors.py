"""Error replies: which exception each becomes, and what it tells."""

from __future__ import annotations

import pytest

from coro.errors import CoroError
from coro.redis import errors
from coro.redis.errors import RedisError, ReplyError
from coro.redis.resp import Parser


@pytest.mark.parametrize(
    ("text", "kind", "prefix"),
    [
        ("ERR syntax error", ReplyError, "ERR"),
        ("custom failure of a script", ReplyError, ""),
        ("WRONGTYPE Operation against a key", errors.WrongTypeError, "WRONGTYPE"),
        ("NOAUTH Authentication required.", errors.AuthenticationError, "NOAUTH"),
        ("WRONGPASS invalid username-password pair", errors.AuthenticationError, "WRONGPASS"),
        ("NOPERM no permissions", errors.NoPermissionError, "NOPERM"),
        ("NOPROTO unsupported protocol version", errors.NoProtocolError, "NOPROTO"),
        ("OOM command not allowed", errors.OutOfMemoryError, "OOM"),
        ("LOADING Redis is loading", errors.LoadingError, "LOADING"),
        ("BUSY Redis is busy", errors.BusyScriptError, "BUSY"),
        ("BUSYGROUP Consumer Group name already exists", errors.BusyGroupError, "BUSYGROUP"),
        ("NOSCRIPT No matching script", errors.NoScriptError, "NOSCRIPT"),
        ("READONLY You can't write", errors.ReadOnlyError, "READONLY"),
        ("MISCONF Redis is configured", errors.MisconfigurationError, "MISCONF"),
        ("NOREPLICAS Not enough good replicas", errors.NoReplicasError, "NOREPLICAS"),
        ("EXECABORT Transaction discarded", errors.TransactionAbortedError, "EXECABORT"),
        ("UNBLOCKED client unblocked", errors.UnblockedError, "UNBLOCKED"),
        ("MASTERDOWN Link with MASTER is down", errors.MasterDownError, "MASTERDOWN"),
        ("CLUSTERDOWN The cluster is down", errors.ClusterDownError, "CLUSTERDOWN"),
        ("CROSSSLOT Keys in request", errors.CrossSlotError, "CROSSSLOT"),
        ("TRYAGAIN Multiple keys request", errors.TryAgainError, "TRYAGAIN"),
        ("MOVED 3999 127.0.0.1:6381", errors.MovedError, "MOVED"),
        ("ASK 3999 127.0.0.1:6381", errors.AskError, "ASK"),
        ("MOVED to another town", ReplyError, "MOVED"),
    ],
)
def test_the_prefix_of_an_error_reply_chooses_its_class(text: str, kind: type, prefix: str) -> None:
    (reply,) = Parser().feed(f"-{text}\r\n".encode())
    assert type(reply) is kind
    assert isinstance(reply, ReplyError)
    assert isinstance(reply, RedisError)
    assert isinstance(reply, CoroError)
    assert (str(reply), reply.prefix) == (text, prefix)


@pytest.mark.parametrize(
    ("wire", "where"),
    [
        (b"-MOVED 3999 127.0.0.1:6381\r\n", (3999, "127.0.0.1", 6381)),
        (b"-MOVED 0 fe80::1:6381\r\n", (0, "fe80::1", 6381)),
        (b"-ASK 16383 :6381\r\n", (16383, "", 6381)),
    ],
)
def test_a_redirection_tells_slot_host_and_port(wire: bytes, where: tuple[int, str, int]) -> None:
    (reply,) = Parser().feed(wire)
    assert isinstance(reply, errors.RedirectError)
    assert (reply.slot, reply.host, reply.port) == where


def test_an_error_reply_that_is_not_utf8_is_shown_escaped() -> None:
    (reply,) = Parser().feed(b"-ERR caf\xc3\xa9 \xff\r\n")
    assert str(reply) == "ERR café \\xff"
