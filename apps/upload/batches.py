"""What becomes ready together is done together.

Some work costs about as much for many uploads as for one: a commit, a sync. So what is ready is taken up at once; what
becomes ready while that is under way is the next batch, and each upload goes on after its own. When there is little to
do, batches are of one, and nothing waits for company.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from coro import Coro, CoroError, Request, Task, background, now

T = TypeVar("T")

MAX_SIZE = 64


class Batches(Generic[T]):
    """Gathers items for `work`, which a subclass defines."""

    name = "batch writer"
    kind = ""  # of the wait, for `coro top` and `coro run --stats`
    at_once = 1  # batches that may be under way
    patience = 0.0  # seconds that a batch must have taken before another one may be begun beside it

    def __init__(self) -> None:
        self._ready: deque[_Item[T]] = deque()
        self._under_way = 0
        self._begun = 0.0  # when the latest batch was
        self._beginning = False  # is there one that has yet to take what is ready?

    def add(self, item: T) -> Coro[None]:
        """Have it worked on. Suspends. Raises what `work` tells of it. When cancelled, it is worked on all the same."""
        yield _Item(self, item)

    def work(self, batch: Sequence[T]) -> Coro[Sequence[Exception | None]]:
        """Do what is due to 1, 2, 4, ... `MAX_SIZE` items; for each, what went wrong with it. Suspends."""
        raise NotImplementedError

    def submit(self, item: _Item[T]) -> None:
        self._ready.append(item)
        if self._beginning or self._under_way == self.at_once:
            return
        if not self._under_way or now() - self._begun >= self.patience:
            self._beginning = True
            self._under_way += 1
            background(self._run(), name=self.name)  # it begins when all that are ready now have come here

    def _run(self) -> Coro[None]:
        self._beginning = False
        try:
            while self._ready:
                size = min(MAX_SIZE, 1 << (len(self._ready).bit_length() - 1))
                self._begun = now()
                yield from self._do([self._ready.popleft() for _ in range(size)])
        finally:
            self._under_way -= 1

    def _do(self, batch: list[_Item[T]]) -> Coro[None]:
        try:
            outcomes = yield from self.work([item.content for item in batch])
        except BaseException as error:
            for item in batch:
                failure = CoroError(f"the {self.name} was stopped by {error!r}")  # one each, as it gets a traceback
                failure.__cause__ = error
                item.done(failure)
            if not isinstance(error, Exception):
                raise
        else:
            for item, outcome in zip(batch, outcomes, strict=True):
                item.done(outcome)


class _Item(Request, Generic[T]):
    """Wait until a batch with `content` has been worked on."""

    __slots__ = ("batches", "content", "task")

    def __init__(self, batches: Batches[T], content: T) -> None:
        self.batches = batches
        self.content = content
        self.task: Task[Any] | None = None

    def submit(self, task: Task[Any]) -> None:
        self.task = task
        self.batches.submit(self)

    def withdraw(self, task: Task[Any]) -> None:
        self.task = None  # it is worked on all the same, which `add` has said

    def done(self, error: Exception | None) -> None:
        if self.task is None:
            return
        if error is None:
            self.task.wake()
        else:
            self.task.fail(error)

    @property
    def kind(self) -> str:
        return self.batches.kind

    def __repr__(self) -> str:
        return f"the {self.batches.name}"  # the content may be a secret
