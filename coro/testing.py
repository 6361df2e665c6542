"""For tests: virtual time, connections in memory, seeded schedules, and a pytest plugin for tests that are generators.

The rule of virtual time. The clock stands still while any task can run. When all of them wait, it jumps to the next
timer, provided that *nothing from outside can wake the loop before*: no call runs in a thread, and no task waits for a
descriptor. While something can, time passes at its real pace. A test that uses neither takes no time and has one
outcome; one that does is never told that a limit has passed which has not. When there is no timer to jump to either,
the test would wait for ever, and is ended with `Deadlock`.

What the rule does not see: threads that a test starts by itself, and signals sent by other processes.

The plugin: `pytest -p coro.testing`, or `pytest_plugins = ["coro.testing"]` in the top `conftest.py`. Tests that are
generator functions, also under hypothesis' `given`, then run as the main task of a `run_virtual`, with fixtures that
are generator functions too (`fixture`); and calls that are never driven raise (coro/undriven.py).

(PYTEST_DONT_REWRITE: there is no assertion here to be explained, and conftest.py may import this module.)
"""

from __future__ import annotations

import errno
import functools
import inspect
import math
import os
import random
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload
from unittest import TestCase

from coro import undriven
from coro.debug.waits import from_outside
from coro.errors import BusyError, ClosedError, CoroError, TaskCancelled
from coro.group import TaskGroup, task_group
from coro.io import Buffer, Descriptor, Socket
from coro.loop import Loop
from coro.mistakes import SharedGenerators, check_fresh
from coro.net import Stream
from coro.sync import Event
from coro.task import CancelScope, Coro, Request, Task, running

if TYPE_CHECKING:
    import pytest

T = TypeVar("T")

CAPACITY = 65536  # bytes that a connection in memory holds in each direction


class Deadlock(CoroError):
    """Every task waits, and nothing can wake any of them."""


# --- Virtual time ---------------------------------------------------------------------


class VirtualClock:
    """A clock, in seconds from 0, that moves only when it is told to."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds


class _VirtualSelector(selectors.BaseSelector):
    """Where the loop would sleep, this one moves the clock instead, if the rule allows it."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._real = selectors.DefaultSelector()
        self.loop: VirtualLoop

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._real.select(0)
        if events or timeout == 0:
            return events
        if from_outside(self.loop):
            started = time.monotonic()
            wait = None if timeout is None else min(timeout, Loop.LONGEST_POLL)
            events = self._real.select(wait)
            self._clock.advance(time.monotonic() - started if events or wait is None else wait)
            return events
        if timeout is None or timeout == math.inf:
            self.loop.end_deadlock()
        else:
            self._clock.advance(timeout)
        return []


class VirtualLoop(Loop):
    """A loop in virtual time. With a `seed`, ready tasks are stepped in an order that is random, but the seed's."""

    LONGEST_POLL = math.inf

    def __init__(self, seed: int | None = None) -> None:
        clock = VirtualClock()
        selector = _VirtualSelector(clock)
        selector.loop = self
        self._random = random.Random(seed) if seed is not None else None
        self._deadlock: Deadlock | None = None
        self._shared = SharedGenerators()
        super().__init__(selector, clock)

    def run(self, main: Coro[T]) -> T:
        try:
            return super().run(main)
        except TaskCancelled:
            if self._deadlock is not None:
                raise self._deadlock from None
            raise

    def _step_batch(self) -> None:
        if self._random is not None:
            self._random.shuffle(self.ready)
        batch = tuple(self.ready)
        for task in batch:
            self._report(task, self._shared.before_step(task))
        super()._step_batch()
        for task in batch:
            if not task.done:
                self._report(task, self._shared.after_step(task))

    def _report(self, task: Task[Any], mistake: BusyError | None) -> None:
        """Raise a mistake in the task that was found to make it, whatever it waits for."""
        if mistake is None:
            return
        if task.request is not None:
            task.request.withdraw(task)
            task.fail(mistake)
        else:
            task.error = mistake

    def end_deadlock(self) -> None:
        """Cancel the main task, so that the tasks clean up; when that is of no use, break off."""
        assert self.main is not None
        if self._deadlock is not None:
            raise self._deadlock
        waiting = "".join(f"\n  {task!r}" for task in self._all_tasks())
        self._deadlock = Deadlock(f"every task waits, there is no timer, and nothing else can wake them:{waiting}")
        self.main.cancel()

    def _all_tasks(self) -> list[Task[Any]]:
        tasks = list(self.tasks)
        for task in tasks:
            for group in task.groups or ():
                tasks.extend(group.tasks)
        return tasks


def run_virtual(main: Coro[T], *, seed: int | None = None) -> T:
    """As `coro.run`, in virtual time; its result. `seed` makes the order in which ready tasks run random.

    Raises what `main` raised, or `Deadlock`.
    """
    if running.loop is not None:
        raise RuntimeError("run_virtual() was called inside coro.run(): use `yield from` or a task group instead")
    check_fresh(main, "run_virtual")
    return VirtualLoop(seed).run(main)


# --- Connections in memory ------------------------------------------------------------


class _MemoryEnd:
    """What the kernel does for one end of a connection: a non-blocking `socket.socket`, as far as streams need it."""

    def __init__(self, number: int, capacity: int) -> None:
        self._address = ("memory", number)
        self._capacity = capacity
        self._received = bytearray()
        self._ended = False  # the peer has sent all
        self._shut = False  # we have
        self._closed = False
        self.peer: _MemoryEnd
        self.owner: MemorySocket

    def ready(self) -> int:
        """The events that a selector would report."""
        mask = EVENT_READ if self._received or self._ended else 0
        return mask | (EVENT_WRITE if self.peer._closed or self.peer._room() else 0)

    def _room(self) -> int:
        return self._capacity - len(self._received)

    def recv(self, limit: int) -> bytes:
        if not self._received:
            if self._ended:
                return b""
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        data = bytes(self._received[:limit])
        del self._received[:limit]
        self.peer.owner.notify()
        return data

    def recv_into(self, buffer: bytearray | memoryview) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: Buffer) -> int:
        if self._shut or self.peer._closed:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        if data and not self.peer._room():
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        taken = memoryview(data)[: self.peer._room()]
        self.peer._received += taken
        self.peer.owner.notify()
        return len(taken)

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR
        self._shut = self.peer._ended = True
        self.peer.owner.notify()

    def close(self) -> None:
        self._closed = True
        self.shutdown(socket.SHUT_WR)

    def getsockname(self) -> tuple[str, int]:
        return self._address

    def getpeername(self) -> tuple[str, int]:
        return self.peer._address


class MemorySocket(Socket):
    """A socket whose kernel is `_MemoryEnd`, and which needs no selector. Made by `memory_streams`."""

    __slots__ = ()

    def __init__(self, end: _MemoryEnd) -> None:
        Descriptor.__init__(self, NO_DESCRIPTOR)
        self.sock = cast(socket.socket, end)
        self.tls = self.drained = False
        self.eager = 0
        self.blocked = self.readable
        end.owner = self

    def watch(self, loop: Loop, events: int) -> None:
        if self.fd < 0:
            raise ClosedError(f"{self!r} is closed")
        self.loop = loop
        self.events = events
        self.notify()

    def notify(self) -> None:
        """Something has changed: report it in the next turn, as a selector would."""
        if self.events and running.loop is not None:
            running.loop.post(self._report)

    def _report(self) -> None:
        if self.fd < 0:
            return
        mask = cast(_MemoryEnd, self.sock).ready() & self.events
        if mask:
            self.events &= ~mask  # reported once: the next wait asks anew
            self.on_event(mask)


NO_DESCRIPTOR = 1 << 30  # is a number as descriptors have, but no process has so many


def memory_streams(capacity: int = CAPACITY) -> tuple[Stream, Stream]:
    """The two ends of a connection in memory, which holds up to `capacity` bytes each way. Does not suspend.

    Everything of `Stream` works but TLS.
    """
    ends = _MemoryEnd(1, capacity), _MemoryEnd(2, capacity)
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    return Stream(MemorySocket(ends[0])), Stream(MemorySocket(ends[1]))


# --- The pytest plugin ----------------------------------------------------------------


@overload
def fixture(function: Callable[..., Coro[T]], /) -> Callable[..., T]: ...
@overload
def fixture(*, name: str) -> Callable[[Callable[..., Coro[T]]], Callable[..., T]]: ...
def fixture(function: Any = None, /, *, name: str | None = None) -> Any:
    """Make a generator function a pytest fixture for tests that are generator functions: decorate it.

    It runs as a task beside the test, in the same loop. What it returns is what the test gets. To clean up after the
    test, it hands the value over with `provide` instead, which returns when the test has ended:

        @coro.testing.fixture
        def server(port: int) -> Coro[None]:
            server = yield from start(port)
            yield from provide(server)
            yield from server.stop()

    It may use other fixtures, and is made anew for every test, and for every example of hypothesis (whose health check
    `function_scoped_fixture` does not know that: suppress it).
    """
    import pytest

    def decorate(function: Callable[..., Coro[Any]]) -> Any:
        if not inspect.isgeneratorfunction(function):
            raise TypeError(f"{function!r} is no generator function: use pytest's own fixture for it")

        @functools.wraps(function)
        def recipe(*args: Any, **arguments: Any) -> _Recipe:
            return _Recipe(functools.partial(function, *args), arguments, name or function.__name__)

        return pytest.fixture(recipe, name=name)

    return decorate if function is None else decorate(function)


def provide(value: Any) -> Coro[None]:
    """In a fixture: hand `value` to the test; returns when the test and what uses this fixture have ended. Suspends."""
    active = _active.get(None)
    if active is None:
        raise RuntimeError("provide() is for generator functions that coro.testing.fixture decorates")
    active.value = value
    active.ready.set()
    yield from active.ended.wait()


class _Recipe:
    """What pytest has as the value of a fixture that is a generator function: how to make it, in the test's loop."""

    def __init__(self, function: Callable[..., Coro[Any]], arguments: dict[str, Any], name: str) -> None:
        self.function = function
        self.arguments = arguments
        self.name = name

    def __repr__(self) -> str:
        return f"<fixture {self.name!r}, which only tests and fixtures that are generator functions can use>"


class _ActiveFixture:
    """A fixture for the time of one test. It is shielded: whatever ends the test, it cleans up when it is its turn."""

    def __init__(self) -> None:
        self.value: Any = None
        self.scope = CancelScope()
        self.ready = Event()
        self.ended = Event()
        self.task: Task[None]

    def run(self, recipe: _Recipe, arguments: dict[str, Any]) -> Coro[None]:
        _active.set(self)
        with CancelScope(shielded=True), self.scope:
            value = yield from recipe.function(**arguments)
            if not self.ready.is_set():
                self.value = value
                self.ready.set()

    def end(self) -> Coro[None]:
        """Have it clean up, wait until it has. What goes wrong there is raised by the group. Suspends."""
        self.ended.set()
        if not self.ready.is_set():
            self.scope.cancel()
        with suppress(Exception):
            yield from self.task.join()


_active: ContextVar[_ActiveFixture] = ContextVar("_active")


class _Fixtures:
    """The fixtures of one test, in the order in which they were made."""

    def __init__(self, group: TaskGroup) -> None:
        self._group = group
        self._active: dict[_Recipe, _ActiveFixture] = {}

    def resolve(self, arguments: dict[str, Any]) -> Coro[dict[str, Any]]:
        """The arguments, with values in the place of recipes. Suspends."""
        resolved = dict(arguments)
        for name, recipe in arguments.items():
            if isinstance(recipe, _Recipe):
                if recipe not in self._active:
                    inner = yield from self.resolve(recipe.arguments)
                    active = _ActiveFixture()
                    active.task = self._group.spawn(active.run(recipe, inner), name=f"fixture {recipe.name}")
                    self._active[recipe] = active
                    yield from active.ready.wait()
                resolved[name] = self._active[recipe].value
        return resolved

    def end(self) -> Coro[None]:
        """End them, the last one first. Suspends."""
        with CancelScope(shielded=True):
            for active in reversed(self._active.values()):
                yield from active.end()


def pytest_load_initial_conftests() -> None:
    """Have calls that are never driven raise, in all that is imported from now on."""
    undriven.install()


def pytest_configure() -> None:
    """The same, for when a conftest.py names this plugin."""
    undriven.install()


def pytest_unconfigure() -> None:
    undriven.uninstall()


def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> list[pytest.Function] | None:
    """Collect tests that are generator functions, which pytest alone refuses."""
    if not inspect.isgeneratorfunction(obj) or not collector.istestfunction(obj, name):
        return None
    return list(collector._genfunctions(name, obj))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """unittest calls its methods itself: one that is a generator function would pass without being run."""
    owner = getattr(item, "cls", None)
    if owner is not None and issubclass(owner, TestCase) and inspect.isgeneratorfunction(getattr(owner, item.name)):
        raise TypeError(f"{item.name} is a generator function, which a unittest.TestCase cannot run: use a plain class")


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run them."""
    function = pyfuncitem.obj
    for name, value in pyfuncitem.funcargs.items():
        if isinstance(value, Request):
            raise TypeError(f"fixture {name!r} has to wait: decorate it with coro.testing.fixture, not pytest's")
    given = getattr(function, "hypothesis", None)
    if given is not None and inspect.isgeneratorfunction(given.inner_test):
        given.inner_test = _runs(given.inner_test)
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    if not inspect.isgeneratorfunction(function):
        if given is None and (recipes := [value for value in arguments.values() if isinstance(value, _Recipe)]):
            raise TypeError(f"{pyfuncitem.name} is no generator function, but uses {recipes[0]!r}")
        return None
    _runs(function)(**arguments)
    return True


def _runs(test: Callable[..., Coro[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **arguments: Any) -> None:
        run_virtual(_with_fixtures(functools.partial(test, *args), arguments, test.__qualname__))

    return run


def _with_fixtures(test: Callable[..., Coro[None]], arguments: dict[str, Any], name: str) -> Coro[None]:
    if not any(isinstance(value, _Recipe) for value in arguments.values()):
        return test(**arguments)

    def body(group: TaskGroup) -> Coro[None]:
        fixtures = _Fixtures(group)
        group.owner.label = name
        try:
            resolved = yield from fixtures.resolve(arguments)
            yield from test(**resolved)
        finally:
            yield from fixtures.end()

    return task_group(body, name="the test and its fixtures")
