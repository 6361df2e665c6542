"""What can go wrong, as exceptions.

Everything that coro raises of its own is a `CoroError`, but for two kinds: time limits raise the builtin
`TimeoutError`, and `Cancelled` is a `BaseException`, so that `except Exception` does not swallow it.
"""

from __future__ import annotations


class CoroError(Exception):
    """Base of every error that coro defines."""


class Cancelled(BaseException):
    """Raised inside a task at its request: a scope around it was cancelled.

    Let it pass; clean up in `finally`. Every further request inside the cancelled scope raises it again, except
    under `shield`. The scope that was cancelled catches it. `waited_for` says in words what the task waited for.
    """

    def __init__(self, message: str = "", waited_for: str = "") -> None:
        super().__init__(message)
        self.waited_for = waited_for


def without_cancelled(error: BaseException) -> BaseException | None:
    """What is left of an error when the `Cancelled` in it are taken out, also out of groups; None if it is all."""
    if isinstance(error, Cancelled):
        return None
    if isinstance(error, BaseExceptionGroup):
        cancelled, rest = error.split(Cancelled)
        return error if cancelled is None else rest
    return error


class TaskCancelled(CoroError):
    """What `Task.join` raises when the joined task was cancelled (the joiner itself was not)."""


class BusyError(CoroError):
    """A second task tried to wait for the same direction of the same descriptor, or drove another's generator."""


class ClosedError(CoroError):
    """The socket, stream, queue or client that the call needs is closed on this side."""


class EndOfStream(CoroError, EOFError):
    """The peer ended its stream before what was asked for was complete. `partial` holds what had come."""

    def __init__(self, message: str, partial: bytes = b"") -> None:
        super().__init__(message)
        self.partial = partial


class LimitExceeded(CoroError):
    """A peer sent more than the stated limit allows."""
