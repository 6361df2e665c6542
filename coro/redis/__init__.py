"""Redis: `redis = Redis.from_url(url)`, then `yield from redis.get(name)`."""

from coro.redis.client import Redis
from coro.redis.cluster import RedisCluster
from coro.redis.cluster_pubsub import ClusterPubSub
from coro.redis.commands.scan import Scan
from coro.redis.commands.script import Script
from coro.redis.errors import (
    AskError,
    AuthenticationError,
    BusyGroupError,
    BusyScriptError,
    ClusterDownError,
    CrossSlotError,
    LoadingError,
    LockLostError,
    MasterDownError,
    MisconfigurationError,
    MovedError,
    NoPermissionError,
    NoProtocolError,
    NoReplicasError,
    NoScriptError,
    OutOfMemoryError,
    OwnConnectionError,
    ReadOnlyError,
    RedirectError,
    RedisConnectionError,
    RedisError,
    ReplyError,
    TransactionAbortedError,
    TryAgainError,
    UnblockedError,
    WatchError,
    WrongTypeError,
)
from coro.redis.lock import Lock
from coro.redis.monitor import Monitor, Monitored
from coro.redis.pipeline import Pipeline
from coro.redis.pubsub import Gap, Message, PubSub
from coro.redis.resp import ProtocolError
from coro.redis.sentinel import Sentinel
from coro.redis.session import Session, Transaction
from coro.redis.url import Settings, parse_url

__all__ = [
    "AskError",
    "AuthenticationError",
    "BusyGroupError",
    "BusyScriptError",
    "ClusterDownError",
    "ClusterPubSub",
    "CrossSlotError",
    "Gap",
    "LoadingError",
    "Lock",
    "LockLostError",
    "MasterDownError",
    "Message",
    "MisconfigurationError",
    "Monitor",
    "Monitored",
    "MovedError",
    "NoPermissionError",
    "NoProtocolError",
    "NoReplicasError",
    "NoScriptError",
    "OutOfMemoryError",
    "OwnConnectionError",
    "Pipeline",
    "ProtocolError",
    "PubSub",
    "ReadOnlyError",
    "RedirectError",
    "Redis",
    "RedisCluster",
    "RedisConnectionError",
    "RedisError",
    "ReplyError",
    "Scan",
    "Script",
    "Session",
    "Sentinel",
    "Settings",
    "Transaction",
    "TransactionAbortedError",
    "TryAgainError",
    "UnblockedError",
    "WatchError",
    "WrongTypeError",
    "parse_url",
]
