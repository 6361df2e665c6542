"""The commands that people use, as methods with types.

Names, the order of arguments and results are those of redis-py, so that habits carry over; docs/redis.md says where
they differ, and what is not covered. A method returns a generator: drive it with `yield from`. Every method raises what
`Redis.execute` raises.

Specification: https://redis.io/docs/latest/commands/
"""

from coro.redis.commands.base import Key
from coro.redis.commands.every import Commands

__all__ = ["Commands", "Key"]
