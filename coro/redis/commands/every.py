"""All commands in one class."""

from coro.redis.commands.base import S
from coro.redis.commands.keys import KeyCommands
from coro.redis.commands.server import ServerCommands
from coro.redis.commands.strings import StringCommands


class Commands(StringCommands[S], KeyCommands[S], ServerCommands[S]):
    """All typed commands. A subclass provides `_send` and, for commands that block, `_wait`."""
