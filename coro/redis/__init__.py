"""Redis: `redis = Redis.from_url(url)`, then `yield from redis.get(name)`."""

from coro.redis.client import Redis
from coro.redis.errors import (
    AuthenticationError,
    BusyScriptError,
    LoadingError,
    NoPermissionError,
    OutOfMemoryError,
    OwnConnectionError,
    ReadOnlyError,
    RedisConnectionError,
    RedisError,
    ReplyError,
    WrongTypeError,
)
from coro.redis.resp import ProtocolError
from coro.redis.url import Settings, parse_url

__all__ = [
    "AuthenticationError",
    "BusyScriptError",
    "LoadingError",
    "NoPermissionError",
    "OutOfMemoryError",
    "OwnConnectionError",
    "ProtocolError",
    "ReadOnlyError",
    "Redis",
    "RedisConnectionError",
    "RedisError",
    "ReplyError",
    "Settings",
    "WrongTypeError",
    "parse_url",
]
