"""Tasks waiting for each other: Event, Lock, Semaphore, Condition, Queue.

No two tasks run at once and a switch happens only at `yield`, so none of these needs atomic operations. Waiters are
served strictly first come, first served, and what is released is *handed* to the first waiter, never put back for
whoever runs next: nobody can barge in. A waiter that is cancelled is no longer in the queue; what was handed to it, and
what it has not taken yet, goes to the next one. A task that never has to wait lets others run every `EAGER` operations.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

from coro.errors import ClosedError
from coro.handover import Handed
from coro.task import CHECKPOINT, CancelScope, Coro, Request, Task, current_task

T = TypeVar("T")

EAGER = 64  # operations on one object that need not wait, after which the next one lets others run


class WaitQueue(Request):
    """First come, first served: the tasks that wait for one thing. Build new kinds of waiting on it."""

    __slots__ = ("_tasks", "eager", "what")

    def __init__(self, what: str) -> None:
        self.what = what
        self.eager = 0  # operations in a row that did not wait
        self._tasks: OrderedDict[Task[Any], None] = OrderedDict()

    def submit(self, task: Task[Any]) -> None:
        self._tasks[task] = None

    def withdraw(self, task: Task[Any]) -> None:
        del self._tasks[task]

    def wake_one(self, value: Any = None) -> bool:
        """Wake the first waiter with `value`; False when nobody waits."""
        if not self._tasks:
            return False
        self._tasks.popitem(last=False)[0].wake(value)
        return True

    def hand_one(self, value: Any, give_back: Callable[[Any], object]) -> bool:
        """Hand `value` to the first waiter; False when nobody waits. If it is cancelled first: `give_back(value)`."""
        return self.wake_one(Handed(value, give_back)) if self._tasks else False

    def had_its_share(self) -> bool:
        """Is an operation that need not wait to let others run first?"""
        self.eager = self.eager + 1 if self.eager < EAGER else 0
        return not self.eager

    def wake_all(self, value: Any = None) -> None:
        while self.wake_one(value):
            pass

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """End every wait with an error of its own, made by `error()`."""
        while self._tasks:
            self._tasks.popitem(last=False)[0].fail(error())

    def __len__(self) -> int:
        return len(self._tasks)

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def __repr__(self) -> str:
        return self.what


class Event:
    """A flag that tasks can wait for. Once set it stays set."""

    def __init__(self) -> None:
        self._set = False
        self._waiters = WaitQueue("an Event")

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        """Set the flag and wake every waiter. Does not suspend."""
        self._set = True
        self._waiters.wake_all()

    def wait(self) -> Coro[None]:
        """Return when the flag is set. May suspend."""
        if not self._set:
            yield self._waiters
        elif self._waiters.had_its_share():  # elsewhere, lest every waiting task's frame has room for it
            yield CHECKPOINT


class _Permits(WaitQueue):
    """The free permits and the tasks that wait for one. `with` gives one back at the end of the block."""

    __slots__ = ("free", "limit", "owed")

    def __init__(self, what: str, free: int, limit: float) -> None:
        super().__init__(what)
        self.free = free
        self.limit = limit
        self.owed = 0  # that will be given back without having been taken

    def give_back(self, nothing: None = None) -> None:
        if self.owed:
            self.owed -= 1
        elif self._tasks:
            self._tasks.popitem(last=False)[0].wake(Handed(None, self.give_back))
        elif self.free < self.limit:
            self.free += 1
        else:
            raise RuntimeError(f"release of {self.what} that is not held")

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.give_back()


class Semaphore:
    """A number of permits. `with (yield from semaphore.acquire()):` holds one for the block."""

    _what, _limit = "a Semaphore", math.inf

    def __init__(self, permits: int) -> None:
        if permits < 0:
            raise ValueError(f"a {type(self).__name__} cannot have {permits} permits")
        self._permits = _Permits(self._what, permits, self._limit)

    @property
    def free(self) -> int:
        """How many permits can be had at once."""
        return self._permits.free

    def acquire(self) -> Coro[AbstractContextManager[None]]:
        """Take a permit, to be given back by `with` or with `release`. Suspends while none is free."""
        permits = self._permits
        if permits.eager >= EAGER:
            permits.eager = 0
            yield CHECKPOINT
        if permits.free:
            permits.free -= 1
            permits.eager += 1
        else:
            yield permits
        return permits  # and not `self`, so that `with semaphore:` is an error

    def acquire_nowait(self) -> bool:
        """Take a permit if one is free; whether it was. Does not suspend."""
        if not self._permits.free:
            return False
        self._permits.free -= 1
        return True

    def release(self) -> None:
        """Give a permit back: to the first waiter, if there is one. Does not suspend."""
        self._permits.give_back()


class Lock(Semaphore):
    """One permit. `with (yield from lock.acquire()):` holds it for the block.

    `release` raises RuntimeError when nobody holds the lock.
    """

    _what, _limit = "a Lock", 1

    def __init__(self) -> None:
        super().__init__(1)

    def locked(self) -> bool:
        return not self.free

    def owe(self) -> None:
        """The next `release` is by somebody who does not hold the lock, and is to do nothing."""
        self._permits.owed += 1


class Condition:
    """Wait, holding a lock, for others to change what it guards.

    with (yield from condition.acquire()):
        while not ready():
            yield from condition.wait()
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._owner: Task[Any] | None = None  # who took the lock last
        self._waiters = WaitQueue("a Condition")

    def acquire(self) -> Coro[AbstractContextManager[None]]:
        """Take the lock, to be given back by `with`. Suspends while another task holds it."""
        permit = yield from self._lock.acquire()
        self._owner = current_task()
        return permit

    def wait(self) -> Coro[None]:
        """Let go of the lock, wait for a `notify`, take the lock again. Suspends. RuntimeError without the lock.

        However it ends, the lock is held again: cancellation, too, arrives with it.
        """
        self._check_owner("wait")
        self._lock.release()
        try:
            yield self._waiters
        except GeneratorExit:  # abandoned: nothing may be waited for, but the block around gives the lock back
            self._lock.owe()
            raise
        except BaseException:
            yield from self._take_again()
            raise
        yield from self._take_again()

    def _take_again(self) -> Coro[None]:
        with CancelScope(shielded=True):
            yield from self.acquire()

    def _check_owner(self, what: str) -> None:
        if not self._lock.locked() or self._owner is not current_task():
            raise RuntimeError(f"{what} of a Condition whose lock this task does not hold")

    def notify(self, count: int = 1) -> None:
        """Wake the `count` tasks that have waited longest. RuntimeError without the lock. Does not suspend."""
        self._check_owner("notify")
        for _ in range(count):
            self._notify()

    def _notify(self, nothing: None = None) -> None:
        self._waiters.hand_one(None, self._notify)

    def notify_all(self) -> None:
        """Wake all that wait. RuntimeError without the lock. Does not suspend."""
        self.notify(len(self._waiters))


class _Put(Request, Generic[T]):
    """Wait until a full queue has taken an item."""

    __slots__ = ("item", "queue", "task")

    def __init__(self, queue: Queue[T], item: T) -> None:
        self.queue = queue
        self.item = item

    def submit(self, task: Task[Any]) -> None:
        self.task = task
        self.queue._puts[self] = None

    def withdraw(self, task: Task[Any]) -> None:
        del self.queue._puts[self]

    def __repr__(self) -> str:
        return f"room in {self.queue!r}"


class Queue(Generic[T]):
    """Items passed from task to task, first in, first out; at most `capacity` of them waiting (None: any number)."""

    def __init__(self, capacity: int | None = None) -> None:
        if capacity is not None and capacity < 0:
            raise ValueError(f"a queue cannot have a capacity of {capacity}")
        self.capacity = capacity
        self.closed = False
        self._items: deque[T] = deque()
        self._gets = WaitQueue("an item in a Queue")
        self._puts: OrderedDict[_Put[T], None] = OrderedDict()

    def put(self, item: T) -> Coro[None]:
        """Add an item. Suspends while the queue is full. `ClosedError` when it is closed."""
        if (gets := self._gets).eager >= EAGER:
            gets.eager = 0
            yield CHECKPOINT
        if self.put_nowait(item):
            gets.eager += 1
        else:
            yield _Put(self, item)

    def put_nowait(self, item: T) -> bool:
        """Add an item if there is room; whether there was. Does not suspend. `ClosedError` when it is closed."""
        if self.closed:
            raise ClosedError("put into a closed queue")
        if self._gets and self._gets.hand_one(item, self._put_back):
            return True
        if self.capacity is not None and len(self._items) >= self.capacity:
            return False
        self._items.append(item)
        return True

    def get(self) -> Coro[T]:
        """The oldest item. Suspends while there is none. `ClosedError` when the queue is closed and empty."""
        if (gets := self._gets).eager >= EAGER:
            gets.eager = 0
            yield CHECKPOINT
        if self._items or self._puts or self.closed:
            gets.eager += 1
            return self.get_nowait()
        item: T = yield gets
        return item

    def get_nowait(self) -> T:
        """The oldest item. Does not suspend: IndexError when there is none, `ClosedError` if none will come."""
        if self._items:
            item = self._items.popleft()
            if self._puts:
                self._items.append(self._admit())
            return item
        if self._puts:
            return self._admit()
        if self.closed:
            raise ClosedError("the queue is closed and empty")
        raise IndexError("the queue is empty")

    def _put_back(self, item: T) -> None:
        """Whoever was to have it was cancelled: it is the oldest item again."""
        if not self._gets.hand_one(item, self._put_back):
            self._items.appendleft(item)

    def _admit(self) -> T:
        put = self._puts.popitem(last=False)[0]
        put.task.wake()
        return put.item

    def close(self) -> None:
        """No more items: waiting `put`s and, when the rest is gone, `get`s raise `ClosedError`. Does not suspend."""
        self.closed = True
        while self._puts:
            self._puts.popitem(last=False)[0].task.fail(ClosedError("the queue was closed"))
        self._gets.fail_all(lambda: ClosedError("the queue was closed"))

    def __len__(self) -> int:
        return len(self._items)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<Queue of {len(self._items)}{' closed' if self.closed else ''}>"
