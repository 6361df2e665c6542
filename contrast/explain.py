"""`coro explain`: what a switch saves and restores, shown on real frames, and what it costs, measured on the spot.

Nothing is drawn from knowledge: addresses, offsets, locals and sizes are read from the live objects, the value stack
from what the interpreter tells its garbage collector of a generator, a thread's registers from proc(5).
"""

from __future__ import annotations

import dis
import gc
import importlib.util
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from types import FunctionType, GeneratorType
from typing import Any, TypeAlias

from contrast import switching
from contrast.switching import cost, switch_cost

Task: TypeAlias = "GeneratorType[Any, Any, Any]"

NO_GREENLET = "  not shown: greenlet is not installed (pip install greenlet)"
DEPTHS = (1, 2, 5, 10, 20, 50, 100)


def work(name: str) -> Generator[int, str, str]:
    """What the two tasks do. At the `yield`, half of an expression is computed: that must be kept, too."""
    heard = ""
    for count in range(1, 4):
        heard = name + " heard " + (yield count)
    return heard


def has_greenlet() -> bool:
    return importlib.util.find_spec("greenlet") is not None


def switch() -> int:
    """`coro explain switch`; the exit code."""
    _generators()
    _greenlets()
    _thread()
    _costs()
    return 0


def _generators() -> None:
    print("GENERATORS: two tasks run this function in turn\n")
    print("    for count in range(1, 4):")
    print('        heard = name + " heard " + (yield count)\n')
    tasks: dict[str, Any] = {name: work(name) for name in ("anna", "bert")}
    for name, task in tasks.items():
        print(f"{name} is a generator on the heap, at {id(task):#x}: {sys.getsizeof(task)} bytes,")
        print(f"  its frame included: {_slots(task)}.")
    step = 0
    seen: dict[str, str] = {}
    for message in (None, "hello", "goodbye"):
        for name, task in tasks.items():
            step += 1
            print(f"\n{step}. {name}.send({message!r})")
            if name in seen:
                same = "as it was left" if _state(task) == seen[name] else "CHANGED"
                print(f"  restored: nothing was moved, the frame is {same};")
                print(f"    goes on at   {_instruction(task, 'RESUME')}")
            value = task.send(message)
            seen[name] = _state(task)
            print(f"  yields {value}; saved, in the frame:")
            print(seen[name])
    print("\nA switch leaves the offset in the frame and takes the frame off the chain of")
    print("those that run. Nothing is copied, and the C stack is not in it at all.")


def _slots(task: Task) -> str:
    code = task.gi_code
    return f"{code.co_nlocals} slots for locals, {code.co_stacksize} for the value stack"


def _state(task: Task) -> str:
    """What a suspended generator keeps."""
    frame = task.gi_frame
    assert frame is not None
    return "\n".join([
        f"    offset       {_instruction(task)}",
        f"    locals       {_shown(frame.f_locals)}",
        f"    value stack  {', '.join(map(_brief, value_stack(task)))}",
    ])  # fmt: skip


def _brief(value: object) -> str:
    return repr(value) if isinstance(value, str) else f"a {type(value).__name__}"


def _shown(local_variables: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in local_variables.items())


def _instruction(task: Task, opcode: str = "") -> str:
    """The instruction at which a suspended generator stands; or the first such one from there on."""
    assert task.gi_frame is not None
    last = task.gi_frame.f_lasti
    it = next(it for it in dis.get_instructions(task.gi_code) if it.offset >= last and opcode in it.opname)
    return f"{it.offset:3} {it.opname}, line {task.gi_frame.f_lineno} of {Path(__file__).name}"


def value_stack(task: Task) -> list[Any]:
    """What lies on a suspended generator's value stack: of what it refers to, that which has no name, in this order.

    CPython tells its garbage collector of each slot in use (`_PyFrame_Traverse`): the locals, then the stack.
    """
    frame = task.gi_frame
    assert frame is not None
    local_variables = frame.f_locals
    others = (*local_variables.values(), local_variables, task.gi_code, frame, task.__name__, task.__qualname__)
    known = {id(value) for value in others}
    return [it for it in gc.get_referents(task) if id(it) not in known and not isinstance(it, FunctionType | dict)]


def _greenlets() -> None:
    print("\n\nGREENLETS: the same, with a function that switches away below a call\n")
    if not has_greenlet():
        print(NO_GREENLET)
        return
    from greenlet import getcurrent, greenlet

    here = getcurrent()

    def listen(count: int) -> str:
        return str(here.switch(count))

    def work(name: str) -> None:
        heard = ""
        for count in range(1, 4):
            heard = name + " heard " + listen(count)
        del heard

    tasks = {name: greenlet(work) for name in ("anna", "bert")}
    for step, (name, message) in enumerate([(name, word) for word in (None, "hello") for name in tasks], 1):
        task = tasks[name]
        before = task._stack_saved
        print(f"{step}. {name}.switch({(message or name)!r})")
        if message:
            print(f"  restored: {before:,} bytes of C stack, copied back to where they were")
        task.switch(message or name)
        frame = task.gr_frame
        print(f"  saved: {task._stack_saved:,} bytes of C stack, copied to the heap; it waits in")
        while frame is not None and frame.f_code is not _greenlets.__code__:
            print(f"    {frame.f_code.co_name}: offset {frame.f_lasti}, locals {_names(frame.f_locals)}")
            frame = frame.f_back
    print("\nPython's own frames lie in memory that each greenlet has for itself. What is")
    print("copied is the interpreter's C stack: it grows with each call through C.")


def _names(local_variables: dict[str, Any]) -> str:
    return ", ".join(name for name in local_variables if name not in ("here", "listen"))


def _thread() -> None:
    print("\n\nTHREADS: the kernel switches\n")
    turn, mine = threading.Semaphore(0), threading.Semaphore(0)

    def work() -> None:
        for _ in range(3):
            mine.release()
            turn.acquire()

    thread = threading.Thread(target=work)
    thread.start()
    for step in range(1, 4):
        mine.acquire()
        stopped = _blocked(thread.native_id or 0)
        print(f"{step}. anna, thread {thread.native_id}, waits for a lock")
        print(f"  saved: {stopped}")
        turn.release()
    thread.join()
    limit = resource.getrlimit(resource.RLIMIT_STACK)[0]
    size = "as much as it likes" if limit == resource.RLIM_INFINITY else f"{limit >> 20:,} MiB"
    print(f"\nNothing is copied, as each thread keeps a stack of its own ({size} of")
    print("addresses; the pages that were touched take memory), and one in the kernel.")


def _blocked(thread: int) -> str:
    """The registers that the kernel keeps of a thread which waits: proc(5), /proc/pid/task/tid/syscall."""
    for _ in range(1000):
        try:
            words = Path(f"/proc/self/task/{thread}/syscall").read_text().split()
        except OSError as error:
            return f"its registers, in the kernel, which does not show them here ({error.strerror})"
        if len(words) == 9:
            return f"stack pointer {words[7]}, program counter {words[8]}"
        os.sched_yield()  # it is on its way there
    return "its registers, in the kernel (it was still running when looked at)"


def _costs() -> None:
    print("\n\nCOST of one switch, measured here (CPU time)\n")
    greenlets = has_greenlet()
    rows: list[tuple[str, float | None]] = [
        ("generator: send, and back", cost(switching.bare_generators, switching.SWITCHES)),
        ("  through coro's loop", switch_cost("generators")),
        ("greenlet: switch, and back", cost(switching.bare_greenlets, switching.SWITCHES) if greenlets else None),
        ("  through a hub", switch_cost("greenlets") if greenlets else None),
        ("thread: to the next one, by a lock", cost(switching.threads, switching.THREAD_SWITCHES)),
    ]
    for what, seconds in rows:
        print(f"  {what:36} " + ("not measured" if seconds is None else f"{seconds * 1e9:9,.0f} ns"))
    if not greenlets:
        print(NO_GREENLET)


# --- Depth -----------------------------------------------------------------------------


def nested(levels: int, bottom: Callable[[], Any]) -> Generator[None, None, None]:
    """A generator that waits `levels` deep in `yield from`; each time it goes on it calls `bottom`."""
    if levels > 1:
        yield from nested(levels - 1, bottom)
    while True:
        bottom()
        yield


def depth() -> int:
    """`coro explain depth`; the exit code."""
    greenlets = has_greenlet()
    print("A send enters a chain of `yield from` from outside and passes down each level.\n")
    print("levels   send, ns   a level, ns   greenlet, ns   a call down there, ns   bytes")
    first = 0.0
    for levels in DEPTHS:
        send = _send_cost(levels, _nothing)
        calls = max(0.0, _send_cost(levels, _ten_calls) - send) / 10
        first = first or send
        level = f"{(send - first) / (levels - 1) * 1e9:11.1f}" if levels > 1 else f"{'-':>11}"
        other = f"{_greenlet_cost(levels) * 1e9:12,.0f}" if greenlets else f"{'-':>12}"
        print(f"{levels:6}  {send * 1e9:9,.0f}   {level}   {other}   {calls * 1e9:21.0f}   {_size(levels):6,}")
    if not greenlets:
        print(NO_GREENLET)
    print("\nWhat depth costs: some nanoseconds a level each time that the task goes on, and")
    print("a frame of memory a level while it waits.")
    print("\nWhat it does not cost: a call of a plain function is as fast down there as at")
    print("the top; tasks that wait take no time; and the loop sees one generator only.")
    return 0


def _nothing() -> None:
    pass


def _ten_calls() -> None:
    for _ in range(10):
        _nothing()


def _send_cost(levels: int, bottom: Callable[[], Any]) -> float:
    send = nested(levels, bottom).send
    send(None)
    return _fastest(lambda: send(None))


def _greenlet_cost(levels: int) -> float:
    from greenlet import getcurrent, greenlet

    here = getcurrent()

    def work(levels: int) -> None:
        if levels > 1:
            work(levels - 1)
        while True:
            here.switch()

    task = greenlet(work)
    task.switch(levels)
    return _fastest(task.switch)


def _fastest(function: Callable[[], Any]) -> float:
    """CPU seconds for a call."""
    times = []
    for _ in range(switching.REPEATS):
        began = time.process_time()
        for _ in range(switching.SWITCHES // 10):
            function()
        times.append(time.process_time() - began)
    return min(times) / (switching.SWITCHES // 10)


def _size(levels: int) -> int:
    """Bytes of all generators in a chain that waits."""
    task: Any = nested(levels, _nothing)
    task.send(None)
    chain = [task]  # each holds the next: if the first one went, all would end
    while chain[-1].gi_yieldfrom is not None:
        chain.append(chain[-1].gi_yieldfrom)
    return sum(map(sys.getsizeof, chain))


TOPICS = {"switch": switch, "depth": depth}
