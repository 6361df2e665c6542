"""Whatever happens to a request, nobody gets another's answer: cancelled at every step, cut at every byte, anything."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import coro
from coro import Coro, TaskGroup
from coro.http import Client, ClientError, ClientLimits, ConnectionLost, StreamBody, StreamedResponse
from coro.http.client.request import Write
from coro.testing import run_virtual
from tests.http.client.network import Network, Wire
from tests.http.client.vectors import COMPLETE, ENDED, LAST, WHOLE

untimed = settings(deadline=None)
LONG = bytes(range(256)) * 20


def echo(wire: Wire) -> Coro[None]:
    """Answers, in pieces, with the path of the request and its body, in one of three framings by the path's end."""
    while True:
        head = yield from wire.head()
        if b"Expect" in head:
            yield from wire.send(b"HTTP/1.1 100 ", b"Continue\r\n\r\n")
        body = yield from wire.body(head)
        path = head.split(b" ")[1]
        said = path + b":" + body
        if path.endswith(b"chunked"):
            fields, said = b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(said), said)
        elif path.endswith(b"gzip"):
            said = gzip.compress(said)
            fields = b"Content-Encoding: gzip\r\nContent-Length: %d" % len(said)
        elif path.endswith(b"moved"):
            fields, said = b"Location: /length\r\nContent-Length: 2", b"->"
        else:
            fields = b"Content-Length: %d" % len(said)
        status = b"302 X" if path.endswith(b"moved") else b"200 OK"
        answer = b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n\r\n" + said
        yield from wire.send(answer[:5], answer[5:30], answer[30:-1], answer[-1:])


def pieces(write: Write) -> Coro[None]:
    for start in range(0, len(LONG), 1000):
        yield from write(LONG[start : start + 1000])
        yield from coro.checkpoint()


def streamed(client: Client) -> Coro[bytes]:
    def use(response: StreamedResponse) -> Coro[bytes]:
        data = yield from response.read(3)
        return data + (yield from response.read_all(1 << 20))

    return client.stream("GET", "http://a/chunked", use)


def whole(method: str, path: str, **options: Any) -> Callable[[Client], Coro[bytes]]:
    def ask(client: Client) -> Coro[bytes]:
        return (yield from client.request(method, f"http://a{path}", **options)).body

    return ask


ASKING: dict[str, tuple[Callable[[Client], Coro[bytes]], bytes]] = {
    "get": (whole("GET", "/length"), b"/length:"),
    "get, chunked": (whole("GET", "/chunked"), b"/chunked:"),
    "get, gzip": (whole("GET", "/gzip"), b"/gzip:"),
    "get, redirected": (whole("GET", "/moved"), b"/length:"),
    "post": (whole("POST", "/length", body=LONG), b"/length:" + LONG),
    "post, streamed": (whole("POST", "/length", body=StreamBody(pieces)), b"/length:" + LONG),
    "post, asking before": (whole("POST", "/length", body=LONG, expect_continue=True), b"/length:" + LONG),
    "stream": (streamed, b"/chunked:"),
}


def steps(body: Callable[[int], Coro[bool]]) -> Iterator[int]:
    """Run `body(step)` for every step until it tells that it was over by then."""
    for step in itertools.count():
        yield step
        if run_virtual(body(step)):
            return


@pytest.mark.parametrize("name", ASKING)
def test_cancelled_at_every_step_its_connection_is_never_used_again(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    ask, expected = ASKING[name]

    def cancelled_at(step: int) -> Coro[bool]:
        network = Network(monkeypatch)
        network.capacity = 1000
        network.serve(echo)
        client = network.limit(connections=1)
        yield from client.get("http://a/before")

        def body(group: TaskGroup) -> Coro[bool]:
            task = group.spawn(ask(client))
            for _ in range(step):
                yield from coro.checkpoint()
            if task.done:
                assert task.result() == expected
                return True
            task.cancel()
            assert (yield from client.get("http://a/after")).body == b"/after:"
            assert (yield from client.get("http://a/then")).body == b"/then:"
            assert network.most_open == 1
            return False

        over = yield from coro.task_group(body)
        assert repr(client) == "<http.Client, 0 connections lent, 1 idle>"
        client.close()
        assert not any(network.open)
        return over

    assert len(list(steps(cancelled_at))) > 8


def test_cancelled_while_it_waits_or_is_handed_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def cancelled_at(step: int) -> Coro[bool]:
        network = Network(monkeypatch)
        network.serve(echo)
        client = network.limit(connections=2, connections_per_origin=1)

        def body(group: TaskGroup) -> Coro[bool]:
            tasks = [group.spawn(client.get(f"http://{host}/{host}")) for host in "aabbcc"]
            for _ in range(step):
                yield from coro.checkpoint()
            over = tasks[2].done and tasks[4].done
            tasks[2].cancel()
            tasks[4].cancel()
            for task, host in zip(tasks, "aabbcc", strict=True):
                if task not in (tasks[2], tasks[4]):
                    assert (yield from task.join()).text == f"/{host}:"
            return over

        over = yield from coro.task_group(body)
        assert network.most_open <= 2
        assert client._pool.lent == 0
        client.close()
        assert not client._pool._places and not any(network.open)
        return over

    assert len(list(steps(cancelled_at))) > 20


@pytest.mark.parametrize("seed", range(30))
def test_crowd_of_tasks_of_which_some_are_cancelled(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Each gets its own answer or none, and never are there more connections than allowed."""
    def crowd() -> Coro[None]:
        network = Network(monkeypatch)
        network.serve(echo)
        client = network.limit(connections=4, connections_per_origin=2)

        def one(number: int) -> Coro[None]:
            host = "abcd"[number * seed % 4]
            with coro.move_on_after(0 if number % 5 == 0 else 1000) as scope:
                for _ in range(number % 7):
                    yield from coro.checkpoint()
                if number % 5 == 1:
                    scope.deadline = coro.now()
                path = f"/{number}-{'chunked' if number % 3 else 'gzip'}"
                response = yield from client.post(f"http://{host}{path}", body=b"x" * number)
                assert response.body == f"{path}:{'x' * number}".encode()

        yield from coro.gather(*[one(number) for number in range(40)])
        assert network.most_open <= 4
        client.close()
        assert not any(network.open) and client._pool.lent == 0

    run_virtual(crowd(), seed=seed)


# --- Cut, and anything ------------------------------------------------------------------------


def says(data: bytes) -> Callable[[Wire], Coro[None]]:
    """Reads one request, says this, and closes; does so with every connection."""
    def handler(wire: Wire) -> Coro[None]:
        yield from wire.request()
        yield from wire.send(data)

    return handler


def get_all(client: Client) -> Coro[tuple[int, bytes]]:
    response = yield from client.get("http://a/", timeout=1000)
    return response.status, response.body


@pytest.mark.parametrize("name", [*COMPLETE, *LAST])
def test_response_that_is_cut_at_any_byte_is_never_taken_for_whole(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    data, expected = (COMPLETE | LAST)[name]

    def cut_at(place: int) -> Coro[None]:
        network = Network(monkeypatch)
        network.serve(says(data[:place]))
        with pytest.raises(ConnectionLost, match="GET http://a: "):
            yield from network.client.get("http://a/")
        assert network.open == [False]

    def not_cut() -> Coro[None]:
        network = Network(monkeypatch)
        network.serve(says(data))
        assert (yield from get_all(network.client)) == expected

    for place in range(len(data)):
        run_virtual(cut_at(place))
    run_virtual(not_cut())


all_vectors = {name: data for name, (data, _) in (COMPLETE | LAST | ENDED).items()}


@untimed
@given(
    st.binary(max_size=80)
    | st.builds(
        lambda name, at, new: all_vectors[name][:at] + new + all_vectors[name][at + len(new) :],
        st.sampled_from(list(all_vectors)), st.integers(0, 120), st.binary(max_size=4),
    )
)  # fmt: skip
@example(WHOLE)
def test_any_bytes_are_a_response_or_a_client_error(data: bytes) -> None:
    def main() -> Coro[None]:
        network = Network(monkeypatch)
        network.serve(says(data))
        try:
            status, _ = yield from get_all(network.client)
            assert 200 <= status <= 999
        except ClientError as error:
            assert str(error).startswith("GET http://a: ") and str(error).isprintable()
        network.client.close()
        assert not any(network.open)

    with pytest.MonkeyPatch.context() as monkeypatch:
        run_virtual(main())


def test_bytes_without_end_are_bounded(network: Network) -> Coro[None]:
    """Of each part of a response; the body is bounded by its reader."""
    endless = [
        (b"HTTP/1.1 200 ", b"x"), (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"", b"HTTP/1.1 103 Hints\r\n\r\n"), (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;x\r\na\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    ]  # fmt: skip
    for start, more in endless:
        sent = 0

        def handler(wire: Wire, start: bytes = start, more: bytes = more) -> Coro[None]:
            nonlocal sent
            yield from wire.request()
            yield from wire.stream.write(start)
            while True:
                yield from wire.stream.write(more * 1000)
                sent += len(more) * 1000

        network.serve(handler)
        with pytest.raises(ClientError):
            yield from network.client.get("http://a/", timeout=1e9)
        assert sent < 400_000, (start, more)
        assert not any(network.open)


def test_limits_are_what_the_client_was_given(network: Network) -> None:
    assert network.limit(head=100).limits == ClientLimits(head=100)
