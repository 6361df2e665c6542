"""Trees of groups, scopes, time limits, shields and soft cancels that hypothesis makes up, against a model.

Each task keeps, beside the kernel's scopes, a chain of marks of its own that says, by the rules of
docs/design/cancellation.md, from when on it is cancelled. Every wait is checked against it as it ends: neither earlier
nor later than it must, and `Cancelled` if and only if it must. All lengths of time differ in their last bits, so that
no two times fall together by chance, and all are sums of powers of two, so that they are compared exactly.
"""

from __future__ import annotations

import math
import random
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import coro
from coro import CancelScope, Coro, Task, TaskGroup
from tests.kernel.support import run_tidy

Node = tuple[Any, ...]


@dataclass(eq=False)
class Mark:
    """What the model knows of one scope."""

    parent: Mark | None
    kind: str
    deadline: float = math.inf
    cancelled: float = math.inf  # since when
    stopped: float = math.inf
    scope: CancelScope | None = None

    def since(self) -> float:
        """From when on is code inside to be cancelled? Infinity: not yet, as far as is known."""
        earliest, soft, mark = math.inf, False, self
        while True:
            soft = soft or mark.kind == "soft"
            earliest = min(earliest, mark.cancelled, mark.deadline, mark.stopped if soft else math.inf)
            if mark.kind == "shield" or mark.parent is None:
                return earliest
            mark = mark.parent

    def outwards(self, steps: int) -> Mark:
        """The mark of a scope around this one that the program may cancel."""
        mark, best = self, self
        while mark.parent is not None and steps >= 0:
            if mark.scope is not None:
                best, steps = mark, steps - 1
            mark = mark.parent
        return best


@dataclass(eq=False)
class Family:
    """What the model knows of one group."""

    running: int = 0
    errors: list[BaseException] = field(default_factory=list)
    returned: bool = False


class Boom(Exception):
    pass


class Play:
    """Runs one tree and checks it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.tasks: list[tuple[Task[None], Mark]] = []

    def length(self, seconds: int) -> float:
        return seconds + (1 + self.random.getrandbits(38)) * 2.0**-40

    def main(self, tree: list[Node], cancels: list[tuple[int, int]]) -> Coro[None]:
        top = Mark(None, "top")

        def disturb() -> Coro[None]:
            for seconds, number in cancels:
                yield from coro.sleep(self.length(seconds))
                if self.tasks:
                    task, mark = self.tasks[number % len(self.tasks)]
                    if not task.done:
                        task.cancel()
                        mark.cancelled = min(mark.cancelled, coro.now())

        def body(group: TaskGroup) -> Coro[None]:
            disturber = group.spawn(disturb())
            with suppress(Boom, BaseExceptionGroup, TimeoutError):
                yield from self.block(tree, top)
            disturber.cancel()

        yield from coro.task_group(body)
        assert all(task.done for task, _ in self.tasks)

    def block(self, nodes: list[Node], mark: Mark) -> Coro[None]:
        for kind, *arguments in nodes:
            yield from getattr(self, kind)(mark, *arguments)

    # --- Waits ---

    def sleep(self, mark: Mark, seconds: int) -> Coro[None]:
        began, length = coro.now(), self.length(seconds)
        try:
            yield from coro.sleep(length)
        except coro.Cancelled:
            assert coro.now() == max(began, mark.since()) < began + length
            raise
        assert coro.now() == began + length <= mark.since()

    def turn(self, mark: Mark) -> Coro[None]:
        began, doomed = coro.now(), mark.since() <= coro.now()
        try:
            yield from coro.checkpoint()
        except coro.Cancelled:
            assert mark.since() <= coro.now() == began
            raise
        assert not doomed
        assert coro.now() == began

    # --- What disturbs them ---

    def fail(self, mark: Mark) -> Coro[None]:
        yield from ()
        raise Boom

    def cancel(self, mark: Mark, steps: int) -> Coro[None]:
        target = mark.outwards(steps)
        if target.scope is not None:
            target.scope.cancel()
            target.cancelled = min(target.cancelled, coro.now())
        yield from ()

    def stop(self, mark: Mark, steps: int) -> Coro[None]:
        target = mark.outwards(steps)
        if target.scope is not None:
            target.scope.request_stop()
            target.stopped = min(target.stopped, coro.now())
        yield from ()

    def move(self, mark: Mark, steps: int, seconds: int) -> Coro[None]:
        target = mark.outwards(steps)
        if target.scope is not None and target.deadline > coro.now():
            target.scope.deadline = target.deadline = coro.now() + self.length(seconds)
        yield from ()

    # --- Blocks ---

    def scope(self, mark: Mark, kind: str, seconds: int, nodes: list[Node]) -> Coro[None]:
        inner = Mark(mark, kind)
        made: AbstractContextManager[Any]
        if kind in ("limit", "timeout"):
            length = self.length(seconds)
            inner.deadline = coro.now() + length
            made = coro.move_on_after(length) if kind == "limit" else coro.timeout(length)
        else:
            made = coro.shield() if kind == "shield" else coro.until_stopping()
        assert isinstance(made, CancelScope)
        inner.scope = None if kind == "shield" else made  # nobody cancels a shield
        error: BaseException | None = None
        caught = False
        try:
            with made:
                try:
                    yield from self.block(nodes, inner)
                except BaseException as raised:
                    error = raised
                    caught = isinstance(raised, coro.Cancelled) and mark.since() > coro.now()
                    raise
        except BaseException as passed:
            assert (caught and kind == "timeout" and isinstance(passed, TimeoutError)) or (
                passed is error and not caught
            )
            raise
        else:
            assert error is None or caught
        finally:
            assert made.cancelled_caught == caught
            inner.scope = None

    def group(self, mark: Mark, guarded: bool, nodes: list[Node], children: list[list[Node]]) -> Coro[None]:
        inner, family = Mark(mark, "group"), Family()
        try:
            yield from coro.task_group(lambda group: self.body(group, inner, family, nodes, children))
            assert family.returned and not family.errors
        except coro.TaskCancelled:
            assert min(inner.cancelled, inner.deadline) <= coro.now() < mark.since()
            assert not family.returned and not family.errors
        except coro.Cancelled:
            assert mark.since() <= coro.now() and not family.errors
            raise
        except (Boom, TimeoutError, BaseExceptionGroup) as error:
            assert [error] == family.errors or (
                isinstance(error, BaseExceptionGroup) and list(error.exceptions) == family.errors
            )
            if not guarded:
                raise
        finally:
            inner.scope = None
            assert family.running == 0  # no task outlives its group

    def body(
        self, group: TaskGroup, inner: Mark, family: Family, nodes: list[Node], children: list[list[Node]]
    ) -> Coro[None]:
        inner.scope = group.scope
        for child in children:
            mark = Mark(inner, "task")
            family.running += 1
            self.tasks.append((group.spawn(self.child(child, mark, inner, family)), mark))
        yield from self.counted(nodes, inner, inner, family)
        family.returned = True

    def child(self, nodes: list[Node], mark: Mark, inner: Mark, family: Family) -> Coro[None]:
        try:
            yield from self.counted(nodes, mark, inner, family)
        finally:
            family.running -= 1

    def counted(self, nodes: list[Node], mark: Mark, inner: Mark, family: Family) -> Coro[None]:
        try:
            yield from self.block(nodes, mark)
        except (Boom, TimeoutError, BaseExceptionGroup) as error:
            family.errors.append(error)
            inner.cancelled = min(inner.cancelled, coro.now())
            raise


small = st.integers(0, 3)
leaves = st.one_of(
    st.tuples(st.just("sleep"), small),
    st.tuples(st.just("sleep"), st.integers(1, 6)),
    st.just(("turn",)),
    st.just(("fail",)),
    st.tuples(st.just("cancel"), small),
    st.tuples(st.just("stop"), small),
    st.tuples(st.just("move"), small, small),
)


def blocks(nodes: st.SearchStrategy[Node]) -> st.SearchStrategy[list[Node]]:
    return st.lists(nodes, min_size=1, max_size=3)


def inner_nodes(nodes: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    kinds = st.sampled_from(["limit", "timeout", "shield", "soft"])
    children = st.lists(blocks(nodes), min_size=1, max_size=3)
    return st.one_of(
        st.tuples(st.just("scope"), kinds, small, blocks(nodes)),
        st.tuples(st.just("group"), st.booleans(), blocks(nodes), children),
    )


trees = blocks(inner_nodes(st.recursive(leaves, inner_nodes, max_leaves=12)))


@settings(deadline=None, max_examples=100)
@given(tree=trees, cancels=st.lists(st.tuples(small, st.integers(0, 9)), max_size=4), seed=st.integers(0, 2**32))
def test_every_wait_ends_when_its_scopes_say_and_no_task_outlives_its_group(
    tree: list[Node], cancels: list[tuple[int, int]], seed: int
) -> None:
    run_tidy(Play(seed).main(tree, cancels), seed=seed)
