"""What to say of the mistakes that generators invite: what was done, where, and what was probably meant."""

from __future__ import annotations

from types import GeneratorType
from typing import Any

from coro.task import Task


def not_a_request(value: object, task: Task[Any]) -> TypeError:
    """The error for a task that yielded something else than a request."""
    if isinstance(value, GeneratorType):
        hint = f"write `yield from {value.__name__}(...)` instead of `yield {value.__name__}(...)`"
    elif value is None:
        hint = "to let others run, use `yield from coro.checkpoint()`"
    elif hasattr(value, "__await__"):
        hint = "awaitables belong to asyncio; coro drives plain generators with `yield from`"
    else:
        hint = "delegate to coro's functions with `yield from`"
    return TypeError(f"task {task.name!r} yielded {value!r}, which is not a request: {hint}")


def swallows_cancelled(task: Task[Any], times: int) -> str:
    """For a task that catches `Cancelled` and goes on."""
    generator: Any = task.generator
    while isinstance(generator.gi_yieldfrom, GeneratorType):
        generator = generator.gi_yieldfrom
    place = f"{generator.gi_code.co_filename}:{generator.gi_frame.f_lineno}"
    return f"task {task.name!r} goes on although it was cancelled {times} times: let Cancelled pass, at {place}"
