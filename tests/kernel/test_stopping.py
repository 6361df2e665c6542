"""Asking a scope to stop: what is begun is finished, what is waited for between is given up."""

from __future__ import annotations

import coro
from coro import Coro
from tests.kernel.support import run_tidy


class Service:
    """Waits for requests, one after the other, and takes a second for each."""

    def __init__(self) -> None:
        self.requests: coro.Queue[int] = coro.Queue()
        self.log: list[str] = []

    def serve(self) -> Coro[None]:
        while not coro.stopping():
            with coro.until_stopping() as waiting:
                number = yield from self.requests.get()
            if waiting.cancelled_caught:
                break
            yield from coro.sleep(1)
            self.log.append(f"answered {number}")
        self.log.append("stopped")


def test_idle_task_stops_at_once() -> Coro[None]:
    service = Service()

    def body(group: coro.TaskGroup) -> Coro[None]:
        group.spawn(service.serve())
        yield from coro.sleep(5)
        group.request_stop()

    yield from coro.task_group(body)
    assert (service.log, coro.now()) == (["stopped"], 5)


def test_busy_task_finishes_what_it_does() -> Coro[None]:
    service = Service()

    def body(group: coro.TaskGroup) -> Coro[None]:
        group.spawn(service.serve())
        yield from service.requests.put(1)
        yield from service.requests.put(2)
        yield from coro.sleep(0.5)
        group.request_stop()

    yield from coro.task_group(body)
    assert (service.log, coro.now()) == (["answered 1", "stopped"], 1)


def test_request_reaches_tasks_of_nested_groups() -> Coro[None]:
    service = Service()

    def outer(group: coro.TaskGroup) -> Coro[None]:
        group.spawn(coro.task_group(lambda inner: _spawn(inner, service)))
        yield from coro.sleep(1)
        group.request_stop()

    def _spawn(group: coro.TaskGroup, service: Service) -> Coro[None]:
        group.spawn(service.serve())
        yield from ()

    yield from coro.task_group(outer)
    assert service.log == ["stopped"]


def test_block_entered_after_the_request_is_cancelled_at_its_first_wait() -> Coro[None]:
    with coro.move_on_after(60) as scope:
        scope.request_stop()
        with coro.until_stopping() as block:
            yield from coro.sleep(5)
        assert block.cancelled_caught
        assert coro.now() == 0
        yield from coro.sleep(1)  # outside of it, waiting goes on as usual
    assert (coro.now(), scope.cancelled_caught) == (1, False)


def test_scope_that_was_not_asked_goes_on() -> Coro[None]:
    with coro.move_on_after(60) as asked:
        asked.request_stop()
        assert coro.stopping()
    assert not coro.stopping()
    with coro.until_stopping() as block:
        yield from coro.sleep(1)
    assert not block.cancelled_caught


def test_outermost_of_nested_blocks_ends() -> Coro[None]:
    with coro.move_on_after(60) as scope:
        scope.request_stop()
        with coro.until_stopping() as outer:
            with coro.until_stopping() as inner:
                yield from coro.sleep(1)
            raise AssertionError("the inner block must not swallow what ends the outer one")
        assert (outer.cancelled_caught, inner.cancelled_caught) == (True, False)


def test_shield_keeps_the_request_out() -> Coro[None]:
    with coro.move_on_after(60) as scope:
        scope.request_stop()
        with coro.until_stopping() as block:
            with coro.shield():
                yield from coro.sleep(1)
            assert coro.now() == 1
            yield from coro.sleep(1)
        assert block.cancelled_caught


def test_value_handed_over_in_the_same_turn_is_not_lost() -> None:
    for seed in range(30):
        queue: coro.Queue[int] = coro.Queue()
        got: list[int] = []

        def take(queue: coro.Queue[int] = queue, got: list[int] = got) -> Coro[None]:
            with coro.until_stopping():
                got.append((yield from queue.get()))

        def main(queue: coro.Queue[int] = queue, take: object = take, got: list[int] = got) -> Coro[None]:
            def body(group: coro.TaskGroup) -> Coro[None]:
                group.spawn(take())  # type: ignore[operator]
                yield from coro.checkpoint()
                queue.put_nowait(7)
                group.request_stop()

            yield from coro.task_group(body)
            assert got + [queue.get_nowait() for _ in range(len(queue))] == [7]

        run_tidy(main(), seed=seed)
