"""Connecting to a host of several addresses, in virtual time (coro/net.py; RFC 8305)."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

import pytest

import coro
import coro.testing
from coro import Coro
from coro.net import ATTEMPT_DELAY, interleaved

SIX = [(socket.AF_INET6, (f"2001:db8::{n}", 80, 0, 0)) for n in range(1, 4)]
FOUR = [(socket.AF_INET, (f"192.0.2.{n}", 80)) for n in range(1, 4)]


class Network:
    """Addresses that answer after some seconds, refuse after some seconds (negative), or never do (absent)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, addresses: list[Any], answers: Mapping[str, float]) -> None:
        self.answers = answers
        self.attempts: list[tuple[float, str]] = []  # when, and to where
        self.sockets: list[coro.Socket] = []

        def resolve(host: str, port: int) -> Coro[list[Any]]:
            yield from ()
            return addresses

        def connect(sock: coro.Socket, address: Any) -> Coro[None]:
            return self.connect(sock, address[0])

        monkeypatch.setattr("coro.net.resolve", resolve)
        monkeypatch.setattr(coro.Socket, "connect", connect)

    def connect(self, sock: coro.Socket, host: str) -> Coro[None]:
        self.attempts.append((coro.now(), host))
        self.sockets.append(sock)
        answer = self.answers.get(host)
        if answer is None:
            yield from coro.sleep_forever()
            return
        yield from coro.sleep(abs(answer))
        if answer < 0:
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))

    def open_sockets(self) -> list[str]:
        return [host for (_, host), sock in zip(self.attempts, self.sockets, strict=True) if sock.fd >= 0]


Make = Callable[[list[Any], Mapping[str, float]], Network]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Make:
    return lambda addresses, answers: Network(monkeypatch, addresses, answers)


def test_families_take_turns_beginning_with_the_preferred_one() -> None:
    assert interleaved([*SIX, *FOUR[:1]]) == [SIX[0], FOUR[0], SIX[1], SIX[2]]
    assert interleaved([*FOUR[:1], *SIX]) == [FOUR[0], SIX[0], SIX[1], SIX[2]]


def test_address_that_answers_in_time_is_the_only_one_tried(network: Make) -> Coro[None]:
    net = network([SIX[0], FOUR[0]], {"2001:db8::1": ATTEMPT_DELAY * 0.9, "192.0.2.1": 0.0})
    stream = yield from coro.connect("host", 80)
    assert net.attempts == [(0.0, "2001:db8::1")]
    assert stream.socket is net.sockets[0]
    stream.close()


def test_silent_address_delays_the_next_one_only_a_moment(network: Make) -> Coro[None]:
    net = network([SIX[0], SIX[1], FOUR[0]], {"192.0.2.1": 0.01})
    stream = yield from coro.connect("host", 80)
    assert net.attempts == [(0.0, "2001:db8::1"), (ATTEMPT_DELAY, "192.0.2.1")]
    assert coro.now() == pytest.approx(ATTEMPT_DELAY + 0.01)
    assert net.open_sockets() == ["192.0.2.1"]
    stream.close()


def test_refusal_begins_the_next_attempt_at_once(network: Make) -> Coro[None]:
    net = network([SIX[0], FOUR[0]], {"2001:db8::1": -0.01, "192.0.2.1": 0.01})
    stream = yield from coro.connect("host", 80)
    assert [when for when, _ in net.attempts] == pytest.approx([0.0, 0.01])
    assert net.open_sockets() == ["192.0.2.1"]
    stream.close()


def test_attempt_goes_on_while_later_ones_are_made_and_may_still_win(network: Make) -> Coro[None]:
    slow = ATTEMPT_DELAY * 1.5
    net = network([SIX[0], FOUR[0]], {"2001:db8::1": slow})
    stream = yield from coro.connect("host", 80)
    assert coro.now() == pytest.approx(slow)
    assert net.open_sockets() == ["2001:db8::1"]
    stream.close()


def test_of_two_that_answer_in_the_same_moment_one_is_closed(network: Make) -> Coro[None]:
    net = network([SIX[0], FOUR[0]], {"2001:db8::1": ATTEMPT_DELAY * 2, "192.0.2.1": ATTEMPT_DELAY})
    stream = yield from coro.connect("host", 80)
    assert len(net.attempts) == 2
    assert len(net.open_sockets()) == 1
    assert not stream.closed
    stream.close()


def test_when_all_refuse_the_first_reason_is_told(network: Make) -> Coro[None]:
    net = network([*SIX, *FOUR], {str(address[0]): -0.1 for _, address in [*SIX, *FOUR]})
    with pytest.raises(ConnectionRefusedError, match="cannot connect to host:80: Connection refused"):
        yield from coro.connect("host", 80)
    assert len(net.attempts) == 6
    assert net.open_sockets() == []


def test_family_that_the_kernel_does_not_have_is_passed_over(network: Make) -> Coro[None]:
    net = network([(9999, ("nowhere", 80)), FOUR[0]], {"192.0.2.1": 0.0})
    stream = yield from coro.connect("host", 80)
    assert [host for _, host in net.attempts] == ["192.0.2.1"]
    stream.close()


def test_cancelled_at_any_moment_it_leaves_no_socket_open(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"2001:db8::1": -0.1, "192.0.2.1": 0.7, "2001:db8::2": 0.3}

    def cancelled_after(seconds: float) -> Coro[bool]:
        net = Network(monkeypatch, [SIX[0], SIX[1], FOUR[0]], answers)
        with coro.move_on_after(seconds) as scope:
            stream = yield from coro.connect("host", 80)
            stream.close()
        assert net.open_sockets() == []
        return scope.cancelled_caught

    times = [moment + offset for moment in (0.0, 0.1, 0.35, 0.65, 0.8) for offset in (0, 1e-9, -1e-9)]
    outcomes = {coro.testing.run_virtual(cancelled_after(seconds), seed=seed)
                for seconds, seed in itertools.product(times, range(5))}  # fmt: skip
    assert outcomes == {True, False}
