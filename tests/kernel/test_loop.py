"""The loop: the one door in, order, fairness, timers, background tasks, posts (coro/loop.py)."""

from __future__ import annotations

import math
import selectors
import socket
import threading
import time

import pytest

import coro
from coro import Cancelled, Coro, Loop, Task, TaskCancelled, TaskGroup
from coro.testing import run_virtual
from tests.kernel.support import on_every_selector, python, run_on, run_tidy


def number() -> Coro[int]:
    yield from coro.checkpoint()
    return 7


# --- The one door in --------------------------------------------------------------------------


@on_every_selector
def test_run_returns_the_result_of_main(selector: type[selectors.BaseSelector]) -> None:
    assert run_on(selector, number()) == 7


def test_run_raises_what_main_raised() -> None:
    def main() -> Coro[None]:
        yield from coro.checkpoint()
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        coro.run(main())
    assert coro.run(number()) == 7  # nothing is left of the first


def test_run_takes_a_generator() -> None:
    with pytest.raises(TypeError, match=r"coro\.run\(\) takes a generator, as in coro\.run\(work\(\)\)"):
        coro.run(number)  # type: ignore[arg-type]


def test_run_inside_run_is_refused() -> Coro[None]:
    work = number()
    for run in coro.run, run_virtual:
        with pytest.raises(RuntimeError, match=r"inside coro\.run\(\)"):
            run(work)
    assert (yield from work) == 7


def test_two_threads_can_run_a_loop_each() -> None:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(coro.run(number())))

    def main() -> Coro[int]:
        thread.start()
        yield from coro.to_thread(thread.join)
        return (yield from number())

    assert coro.run(main()) == 7
    assert results == [7]


def test_main_that_cancels_itself_raises_task_cancelled() -> None:
    def main() -> Coro[None]:
        coro.current_task().cancel()
        yield from coro.sleep(1)

    with pytest.raises(TaskCancelled, match="main task"):
        coro.run(main())


# --- Order and fairness -------------------------------------------------------------------------


def test_ready_tasks_run_in_the_order_in_which_they_became_ready() -> Coro[None]:
    order: list[str] = []

    def work(name: str) -> Coro[None]:
        for _ in range(3):
            order.append(name)
            yield from coro.checkpoint()

    yield from coro.gather(work("a"), work("b"), work("c"))
    assert order == list("abc" * 3)


@on_every_selector
def test_tasks_that_are_always_ready_delay_neither_io_nor_timers(selector: type[selectors.BaseSelector]) -> None:
    turns = 0
    ticks = iter(range(1_000_000))

    def busy() -> Coro[None]:
        nonlocal turns
        while True:
            turns += 1
            yield from coro.checkpoint()

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(busy())
        group.spawn(busy())
        near, far = (coro.Socket(sock) for sock in socket.socketpair())
        reading = group.spawn(far.recv(100))
        yield from coro.checkpoint()
        started = turns
        yield from near.send_all(b"x")
        assert (yield from reading.join()) == b"x"
        assert turns - started <= 6
        started, due = turns, coro.now() + 10
        yield from coro.sleep(10)
        assert coro.now() - due <= 2
        group.cancel()
        near.close()
        far.close()

    # A clock that moves by a second whenever it is read, which is once or twice in a turn.
    loop = Loop(selector(), clock=lambda: float(next(ticks)))
    loop.run(coro.task_group(body))


# --- Timers -----------------------------------------------------------------------------------


def test_timers_fire_in_order_of_time_then_of_setting() -> Coro[None]:
    fired: list[str] = []
    loop = coro.current_task().loop
    for name, when in ("late", 3.0), ("first", 1.0), ("second", 1.0), ("middle", 2.0):
        loop.call_at(when, lambda name=name: fired.append(name))  # type: ignore[misc]
    yield from coro.sleep(5)
    assert fired == ["first", "second", "middle", "late"]


def test_cancelled_timer_does_not_fire() -> Coro[None]:
    timer = coro.current_task().loop.call_at(1, lambda: pytest.fail("fired"))
    timer.cancel()
    timer.cancel()
    yield from coro.sleep(5)


def test_cancelled_timers_do_not_pile_up() -> Coro[None]:
    loop = coro.current_task().loop
    for _ in range(10_000):
        loop.call_at(1000, lambda: None).cancel()
        loop.call_at(0.5, lambda: None).cancel()
    assert len(loop.timers) == 0
    assert loop.timers.kept <= 202
    yield from ()


def test_sweep_in_the_middle_of_firing_neither_loses_nor_repeats_a_timer() -> None:
    """One timer cancels so many that the heap is swept while the loop goes through it, and sets new ones."""
    fired: list[str] = []

    def main() -> Coro[None]:
        loop = coro.current_task().loop
        doomed = [loop.call_at(1.5, lambda: fired.append("doomed")) for _ in range(500)]

        def sweep() -> None:
            for timer in doomed:
                timer.cancel()
            loop.call_at(1.0, lambda: fired.append("new"))

        loop.call_at(1.0, sweep)
        loop.call_at(1.0, lambda: fired.append("old"))
        yield from coro.sleep(1)
        assert fired == ["old", "new"]
        assert loop.timers.kept <= 202
        yield from coro.sleep(5)
        assert fired == ["old", "new"]

    run_tidy(main())  # which also sees that the count of cancelled timers is right


@on_every_selector
@pytest.mark.parametrize("seconds", [1e9, 1e300, math.inf])
def test_very_distant_timer_is_just_a_long_wait(selector: type[selectors.BaseSelector], seconds: float) -> None:
    def body(group: TaskGroup) -> Coro[str]:
        task = group.spawn(coro.sleep(seconds))
        loop = coro.current_task().loop

        def end() -> None:
            while not loop._polling or loop.ready:
                time.sleep(0)
            loop.post(task.cancel)

        thread = threading.Thread(target=end)
        loop.post(thread.start)
        with pytest.raises(TaskCancelled):
            yield from task.join()
        thread.join()
        return "woken"

    assert run_on(selector, coro.task_group(body)) == "woken"


def test_timer_action_that_raises_ends_the_run_with_its_error() -> None:
    def main() -> Coro[None]:
        coro.current_task().loop.call_at(0, lambda: [].pop())
        yield from coro.sleep_forever()

    with pytest.raises(IndexError):
        coro.run(main())
    assert coro.run(number()) == 7


# --- Background tasks ---------------------------------------------------------------------------


def test_background_task_is_cancelled_and_awaited_when_main_has_ended() -> None:
    log: list[str] = []

    def server() -> Coro[None]:
        try:
            yield from coro.sleep_forever()
        finally:
            with coro.shield():
                yield from coro.sleep(5)
            log.append("closed")

    def main() -> Coro[str]:
        coro.background(server())
        yield from coro.checkpoint()
        log.append("main ended")
        return "result"

    assert run_tidy(main()) == "result"
    assert log == ["main ended", "closed"]


def test_failure_of_a_background_task_cancels_main_and_is_raised() -> None:
    log: list[str] = []

    def server() -> Coro[None]:
        yield from coro.sleep(1)
        raise LookupError("lost")

    def main() -> Coro[None]:
        coro.background(server())
        try:
            yield from coro.sleep_forever()
        except Cancelled:
            log.append("main cancelled")
            raise

    with pytest.raises(LookupError, match="lost"):
        run_tidy(main())
    assert log == ["main cancelled"]


def test_failures_of_main_and_of_a_background_task_are_raised_together() -> None:
    def server() -> Coro[None]:
        try:
            yield from coro.sleep_forever()
        finally:
            raise LookupError("background")

    def main() -> Coro[None]:
        coro.background(server())
        yield from coro.sleep(1)
        raise ValueError("main")

    with pytest.raises(ExceptionGroup) as caught:
        run_tidy(main())
    assert [str(error) for error in caught.value.exceptions] == ["main", "background"]


def test_cancelled_background_task_fails_nobody() -> None:
    def main() -> Coro[str]:
        task = coro.background(coro.sleep_forever())
        yield from coro.checkpoint()
        task.cancel()
        yield from coro.sleep(1)
        return "well"

    assert run_tidy(main()) == "well"


def test_background_task_started_after_the_end_of_main_is_cancelled_too() -> None:
    late: list[Task[None]] = []

    def server() -> Coro[None]:
        try:
            yield from coro.sleep_forever()
        finally:
            late.append(coro.background(coro.sleep_forever()))

    def main() -> Coro[None]:
        coro.background(server())
        yield from coro.checkpoint()

    run_tidy(main())
    assert isinstance(late[0].exception, Cancelled)


# --- Other threads ---------------------------------------------------------------------------------


@on_every_selector
def test_post_from_a_thread_wakes_a_sleeping_loop(selector: type[selectors.BaseSelector]) -> None:
    def main() -> Coro[str]:
        queue: coro.Queue[str] = coro.Queue()
        loop = coro.current_task().loop
        thread = threading.Thread(target=loop.post, args=(lambda: queue.put_nowait("posted"),))
        thread.start()
        got = yield from queue.get()
        thread.join()
        return got

    assert run_on(selector, main()) == "posted"


def test_posts_without_end_do_not_keep_tasks_from_running() -> Coro[None]:
    loop = coro.current_task().loop
    posted = 0

    def again() -> None:
        nonlocal posted
        posted += 1
        if not done:
            loop.post(again)

    done = False
    again()
    for _ in range(10):
        yield from coro.checkpoint()
    done = True
    assert posted <= 11


def test_post_to_a_loop_that_has_ended_is_harmless() -> None:
    loops: list[Loop] = []

    def main() -> Coro[None]:
        loops.append(coro.current_task().loop)
        yield from ()

    coro.run(main())
    loops[0].post(lambda: None)


def test_loop_inside_run_is_refused_too() -> Coro[None]:
    with pytest.raises(RuntimeError, match="inside coro"):
        coro.Loop()
    yield from coro.checkpoint()
    assert coro.now() == 0  # and the run goes on


def test_process_that_was_forked_in_a_task_can_run_a_loop_of_its_own() -> None:
    done = python("""
import coro, os
def child():
    yield from coro.sleep(0)
    return 7
def main():
    yield from coro.checkpoint()
    pid = os.fork()
    if not pid:
        os._exit(coro.run(child()))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(coro.run(main()))
""")
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_traceback_shows_the_users_frames_and_none_of_the_kernel() -> None:
    done = python("""
import coro
def fails():
    yield from coro.sleep(0)
    raise ValueError("wrong")
def work():
    yield from fails()
def blocking():
    raise KeyError("in a thread")
def in_thread():
    yield from coro.to_thread(blocking)
def names(error):
    frames, tb = [], error.__traceback__
    while tb:
        frames.append(tb.tb_frame.f_code.co_name)
        tb = tb.tb_next
    return frames
for main in coro.gather(work(), coro.sleep(1)), coro.gather(in_thread(), limit=1), coro.race(work(), coro.sleep(1)):
    try:
        coro.run(main)
    except Exception as error:
        print(names(error), error.__notes__)
""")
    assert done.stderr == ""
    notes = [f"""["in task '{name}' of group '{group}'", "in task '{group}'"]""" for name, group in [
        ("work", "gather"), ("in_thread", "gather"), ("work", "race"),
    ]]  # fmt: skip
    assert done.stdout.splitlines() == [
        f"['<module>', 'work', 'fails'] {notes[0]}",
        f"['<module>', 'in_thread', 'blocking'] {notes[1]}",
        f"['<module>', 'work', 'fails'] {notes[2]}",
    ]


@pytest.mark.parametrize(("given", "hint"), [
    (coro.sleep, r": call it, coro.run\(sleep\(\)\)"),
    (None, ": what was called is no generator function, there is no `yield` in it"),
])  # fmt: skip
def test_run_says_what_was_probably_meant(given: object, hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        coro.run(given)  # type: ignore[arg-type]
