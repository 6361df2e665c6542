"""Descriptors and sockets: registration, one waiter per direction, closing, fairness (coro/io.py)."""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import coro
from coro import BusyError, ClosedError, Coro, Descriptor, Loop, Socket, TaskGroup
from coro.io import EAGER
from tests.kernel.support import on_every_selector, run_on
from tests.services import dead_port


class CountingSelector(selectors.EpollSelector):
    """Notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self.asked.append(f"register {events}")
        return super().register(fileobj, events, data)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self.asked.append(f"modify {events}")
        return super().modify(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        self.asked.append("unregister")
        return super().unregister(fileobj)


@pytest.fixture
def pair() -> Iterator[tuple[Socket, Socket]]:
    """Two connected sockets."""
    near, far = (Socket(sock) for sock in socket.socketpair())
    yield near, far
    near.close()
    far.close()


Pair = tuple[Socket, Socket]


# --- Reading and writing -----------------------------------------------------------------------


@on_every_selector
def test_bytes_pass_both_ways(selector: type[selectors.BaseSelector], pair: Pair) -> None:
    near, far = pair

    def echo() -> Coro[None]:
        while data := (yield from far.recv(100)):
            yield from far.send_all(data.upper())
        far.close()

    def body(group: TaskGroup) -> Coro[list[bytes]]:
        group.spawn(echo())
        answers = []
        for word in b"one", b"two", b"three":
            yield from near.send_all(word)
            answers.append((yield from near.recv(100)))
        near.sock.shutdown(socket.SHUT_WR)
        answers.append((yield from near.recv(100)))
        return answers

    assert run_on(selector, coro.task_group(body)) == [b"ONE", b"TWO", b"THREE", b""]


@on_every_selector
def test_writer_is_held_up_until_the_reader_takes_the_bytes(
    selector: type[selectors.BaseSelector], pair: Pair
) -> None:
    near, far = pair
    data = os.urandom(1_000_000)

    def body(group: TaskGroup) -> Coro[None]:
        writing = group.spawn(near.send_all(data))
        yield from coro.sleep(0)
        while writing.request is not near.writable:
            yield from coro.checkpoint()
        got = bytearray(len(data))
        count = 0
        while count < len(data):
            count += yield from far.recv_into(memoryview(got)[count:])
        assert got == data
        yield from writing.join()

    run_on(selector, coro.task_group(body))


def test_recv_into_tells_how_much_it_filled(pair: Pair) -> Coro[None]:
    near, far = pair
    yield from near.send_all(b"hello")
    buffer = bytearray(8)
    assert (yield from far.recv_into(buffer)) == 5
    assert buffer == b"hello\0\0\0"
    near.close()
    assert (yield from far.recv_into(buffer)) == 0


def test_recv_nowait_tells_what_to_wait_for_when_nothing_is_there(pair: Pair) -> Coro[None]:
    near, far = pair
    assert far.recv_nowait(8) is None
    yield from near.send_all(b"hello")
    yield far.blocked
    assert far.recv_nowait(8) == b"hello"
    assert far.recv_nowait(8) is None
    near.close()
    yield far.blocked
    assert far.recv_nowait(8) == b""


def test_recv_nowait_tells_whether_the_next_read_is_to_wait(pair: Pair) -> Coro[None]:
    """A read that leaves room has emptied the kernel's buffer; after enough that did not, it is time for others."""
    near, far = pair
    yield from near.send_all(b"x" * (2 * EAGER + 1))
    yield far.readable
    waits = []
    for _ in range(2 * EAGER):
        assert far.recv_nowait(1) == b"x"
        waits.append(far.drained)
    assert waits == ([False] * (EAGER - 1) + [True]) * 2
    assert far.recv_nowait(2) == b"x" and far.drained


@on_every_selector
def test_peer_that_closes_wakes_reader_and_writer(selector: type[selectors.BaseSelector], pair: Pair) -> None:
    near, far = pair

    def body(group: TaskGroup) -> Coro[None]:
        reading = group.spawn(near.recv(1))
        yield from coro.checkpoint()
        writing = group.spawn(fill(near))
        while near.writer is None or near.reader is None:
            yield from coro.checkpoint()
        far.close()
        for task in reading, writing:
            with pytest.raises(OSError):
                yield from task.join()

    def fill(sock: Socket) -> Coro[None]:
        while True:
            yield from sock.send_all(bytes(100_000))

    with pytest.raises((OSError, ExceptionGroup)):
        run_on(selector, coro.task_group(body))


def test_refused_connection_raises_what_the_kernel_says() -> Coro[None]:
    sock = Socket(socket.socket())
    with pytest.raises(ConnectionRefusedError):
        yield from sock.connect(("127.0.0.1", dead_port()))
    sock.close()


# --- Fairness ------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["recv", "recv_into", "send_all", "accept"])
def test_operations_that_never_have_to_wait_let_others_run(operation: str, pair: Pair) -> None:
    """Each is repeated against a peer that is always ready. Without a turn for others it would not end."""
    near, far = pair

    def always_ready() -> Coro[None]:
        if operation == "accept":
            listener = Socket(socket.create_server(("127.0.0.1", 0), backlog=1000))
            clients = [socket.create_connection(listener.sock.getsockname()) for _ in range(100)]
            try:
                while True:
                    (yield from listener.accept()).close()
                    clients.append(socket.create_connection(listener.sock.getsockname()))
            finally:
                listener.close()
                for client in clients:
                    client.close()
        buffer = bytearray(10)
        while True:
            if operation == "send_all":
                yield from near.send_all(bytes(10))
                far.sock.recv(1000)
                continue
            near.sock.send(bytes(10))
            if operation == "recv":
                yield from far.recv(10)
            else:
                yield from far.recv_into(buffer)

    def body(group: TaskGroup) -> Coro[None]:
        group.spawn(always_ready())
        for _ in range(5):
            yield from coro.checkpoint()
        group.cancel()

    coro.run(coro.task_group(body))


# --- One waiter for each direction -------------------------------------------------------------------


@on_every_selector
def test_second_reader_is_refused_and_the_first_goes_on(selector: type[selectors.BaseSelector], pair: Pair) -> None:
    near, far = pair

    def body(group: TaskGroup) -> Coro[None]:
        first = group.spawn(far.recv(10), name="first")
        yield from coro.checkpoint()
        with pytest.raises(BusyError, match="task 'first' already reads from fd"):
            yield from far.recv(10)
        yield from near.send_all(b"x")
        assert (yield from first.join()) == b"x"

    run_on(selector, coro.task_group(body))


@on_every_selector
def test_second_writer_is_refused_and_the_first_goes_on(selector: type[selectors.BaseSelector], pair: Pair) -> None:
    near, far = pair

    def body(group: TaskGroup) -> Coro[None]:
        first = group.spawn(near.send_all(bytes(1_000_000)), name="first")
        while near.writer is None:
            yield from coro.checkpoint()
        with pytest.raises(BusyError, match="task 'first' already writes to fd"):
            yield near.writable
        count = 0
        while count < 1_000_000:
            count += len((yield from far.recv(100_000)))
        yield from first.join()

    run_on(selector, coro.task_group(body))


@on_every_selector
def test_one_task_can_read_while_another_writes(selector: type[selectors.BaseSelector], pair: Pair) -> None:
    near, far = pair

    def body(group: TaskGroup) -> Coro[None]:
        reading = group.spawn(near.recv(10))
        writing = group.spawn(near.send_all(bytes(1_000_000)))
        while near.reader is None or near.writer is None:
            yield from coro.checkpoint()
        yield from far.send_all(b"x")
        assert (yield from reading.join()) == b"x"
        count = 0
        while count < 1_000_000:
            count += len((yield from far.recv(100_000)))
        yield from writing.join()

    run_on(selector, coro.task_group(body))


# --- Registration --------------------------------------------------------------------------------------


def test_descriptor_stays_registered_between_waits(pair: Pair) -> None:
    near, far = pair
    selector = CountingSelector()

    def body(group: TaskGroup) -> Coro[None]:
        for _ in range(5):
            reading = group.spawn(far.recv(10))
            yield from coro.checkpoint()
            yield from near.send_all(b"x")
            yield from reading.join()

    Loop(selector).run(coro.task_group(body))
    assert selector.asked == ["register 1", "register 1"]  # the first is the loop's own, for wake-ups


def test_event_that_nobody_waits_for_takes_the_registration_back(pair: Pair) -> None:
    near, far = pair
    selector = CountingSelector()

    def body(group: TaskGroup) -> Coro[None]:
        with coro.move_on_after(0):
            yield from far.recv(10)
        near.sock.send(b"x")
        for _ in range(5):
            yield from coro.checkpoint()
        assert far.events == 0
        assert (yield from far.recv(10)) == b"x"

    def wait_first() -> Coro[None]:
        def cancel_soon(scope: coro.CancelScope) -> Coro[None]:
            yield from coro.checkpoint()
            scope.cancel()

        def inner(group: TaskGroup) -> Coro[None]:
            with coro.CancelScope() as scope:
                group.spawn(cancel_soon(scope))
                yield from far.recv(10)
            assert far.reader is None
            yield from body(group)

        yield from coro.task_group(inner)

    Loop(selector).run(wait_first())
    assert selector.asked == ["register 1", "register 1", "unregister"]


def test_file_that_the_selector_refuses_raises_at_the_wait(tmp_path: Any) -> None:
    def main() -> Coro[None]:
        with open(tmp_path / "file", "wb") as file:
            descriptor = Descriptor(file.fileno())
            with pytest.raises(PermissionError):
                yield descriptor.readable
            assert (descriptor.events, descriptor.reader) == (0, None)

    run_on(selectors.EpollSelector, main())  # the others say that a file can always be read


@on_every_selector
def test_descriptor_can_be_used_by_one_run_after_another(selector: type[selectors.BaseSelector], pair: Pair) -> None:
    near, far = pair

    def crash() -> Coro[None]:
        coro.background(far.recv(10))
        yield from coro.checkpoint()
        coro.current_task().loop.call_at(0, lambda: [].pop())
        yield from coro.sleep_forever()

    def body(group: TaskGroup) -> Coro[bytes]:
        reading = group.spawn(far.recv(10))
        yield from coro.checkpoint()
        yield from near.send_all(b"x")
        return (yield from reading.join())

    assert run_on(selector, coro.task_group(body)) == b"x"
    with pytest.raises(IndexError):  # this run ends with a task still waiting for the socket
        run_on(selector, crash())
    assert run_on(selector, coro.task_group(body)) == b"x"


def test_socket_can_be_closed_after_the_run(pair: Pair) -> None:
    near, far = pair

    def main() -> Coro[None]:
        near.sock.send(b"x")
        yield far.readable

    coro.run(main())
    raw = far.sock
    far.close()
    assert raw.fileno() == -1


# --- Closing -----------------------------------------------------------------------------------------------


@on_every_selector
def test_close_wakes_reader_and_writer_with_closed_error(
    selector: type[selectors.BaseSelector], pair: Pair
) -> None:
    near, _ = pair

    def body(group: TaskGroup) -> Coro[None]:
        reading = group.spawn(expect_closed(near.recv(1)), name="reader")
        writing = group.spawn(expect_closed(near.send_all(bytes(1_000_000))), name="writer")
        while near.reader is None or near.writer is None:
            yield from coro.checkpoint()
        near.close()
        near.close()
        assert "was closed while task 'reader' waited for it" in (yield from reading.join())
        assert "was closed while task 'writer' waited for it" in (yield from writing.join())

    run_on(selector, coro.task_group(body))


def expect_closed(work: Coro[Any]) -> Coro[str]:
    with pytest.raises(ClosedError) as caught:
        yield from work
    return str(caught.value)


@pytest.mark.parametrize("operation", ["recv", "recv_into", "send_all", "accept", "readable", "writable"])
@pytest.mark.parametrize("used", [False, True])
def test_every_operation_on_a_closed_socket_raises_closed_error(operation: str, used: bool, pair: Pair) -> Coro[None]:
    near, far = pair
    if used:
        yield from near.send_all(b"x")
        yield from far.recv(1)
    far.close()

    def attempt() -> Coro[Any]:
        if operation == "recv":
            yield from far.recv(1)
        elif operation == "recv_into":
            yield from far.recv_into(bytearray(1))
        elif operation == "send_all":
            yield from far.send_all(b"x")
        elif operation == "accept":
            yield from far.accept()
        else:
            yield getattr(far, operation)

    for _ in range(2):
        with pytest.raises(ClosedError, match="socket is closed"):
            yield from attempt()


@on_every_selector
def test_number_that_is_used_again_is_not_inherited(selector: type[selectors.BaseSelector]) -> None:
    """Close a descriptor that a task waits for, open another one with the same number, and wait for that."""

    def body(group: TaskGroup) -> Coro[None]:
        with ExitStack() as stack:
            old, old_peer = (Socket(sock) for sock in socket.socketpair())
            stack.callback(old_peer.close)
            waiting = group.spawn(expect_closed(old.recv(10)))
            yield from coro.checkpoint()
            number = old.fd
            old.close()
            new, new_peer = socket_with_number(number, stack)
            reading = group.spawn(new.recv(10))
            yield from coro.checkpoint()
            assert "was closed" in (yield from waiting.join())
            old.close()  # closing it again does not hurt the new owner either
            yield from new_peer.send_all(b"its own")
            assert (yield from reading.join()) == b"its own"

    run_on(selector, coro.task_group(body))


def socket_with_number(number: int, stack: ExitStack) -> tuple[Socket, Socket]:
    """A connected socket that has this number, which must be free, and its peer."""
    while True:
        pair = [Socket(sock) for sock in socket.socketpair()]
        for sock in pair:
            stack.callback(sock.close)
        for new, peer in pair, reversed(pair):
            if new.fd == number:
                return new, peer


def test_reader_that_was_woken_when_the_socket_is_closed_is_told_so_too(pair: Pair) -> None:
    near, far = pair

    def body(group: TaskGroup) -> Coro[None]:
        reading = group.spawn(expect_closed(far.recv(10)))
        yield from coro.checkpoint()
        near.sock.send(b"x")
        while reading.request is not None:
            yield from coro.checkpoint()
        far.close()
        yield from reading.join()

    coro.run(coro.task_group(body))


def test_cancelled_read_takes_nothing_from_the_socket(pair: Pair) -> None:
    near, far = pair

    def cancel_and_send(loop: Loop, scope: coro.CancelScope) -> None:
        loop.post(scope.cancel)
        loop.post(lambda: near.sock.send(b"for the next"))

    def main() -> Coro[bytes]:
        with coro.CancelScope() as scope:
            loop = coro.current_task().loop
            thread = threading.Thread(target=cancel_and_send, args=(loop, scope))
            thread.start()
            yield from far.recv(100)
        thread.join()
        assert scope.cancelled_caught
        return (yield from far.recv(100))

    assert coro.run(main()) == b"for the next"
