"""All commands in one class."""

from coro.redis.commands.base import S
from coro.redis.commands.bits import BitCommands
from coro.redis.commands.geo import GeoCommands
from coro.redis.commands.hashes import HashCommands
from coro.redis.commands.keys import KeyCommands
from coro.redis.commands.lists import ListCommands
from coro.redis.commands.scripting import ScriptingCommands
from coro.redis.commands.server import AclCommands, ServerCommands
from coro.redis.commands.sets import SetCommands
from coro.redis.commands.sorted_sets import SortedSetCommands
from coro.redis.commands.streams import StreamCommands
from coro.redis.commands.strings import StringCommands


class Commands(
    StringCommands[S],
    KeyCommands[S],
    HashCommands[S],
    ListCommands[S],
    SetCommands[S],
    SortedSetCommands[S],
    StreamCommands[S],
    ScriptingCommands[S],
    BitCommands[S],
    GeoCommands[S],
    ServerCommands[S],
    AclCommands[S],
):
    """All typed commands. A subclass provides `_send` and, for commands that block, `_wait`."""
