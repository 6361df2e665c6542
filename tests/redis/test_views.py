"""What sentinels say, read in both protocols, and whom of them is believed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coro.redis import ReplyError
from coro.redis.resp import ProtocolError
from coro.redis.slots import Address
from coro.redis.views import View, best_view, is_agreed, read_view

A, B, C = Address("10.0.0.1", 6379), Address("10.0.0.2", 6379), Address("redis.example", 6380)
REFUSAL = ReplyError("NOPERM no")


def place(address: Address) -> list[bytes]:
    return [address.host.encode(), b"%d" % address.port]


def replica(address: Address, flags: bytes = b"slave", link: bytes = b"ok") -> dict[bytes, bytes]:
    return {b"ip": place(address)[0], b"port": place(address)[1], b"flags": flags, b"master-link-status": link}


def flat(fields: dict[bytes, bytes]) -> list[bytes]:
    """As RESP2 sends a map."""
    return [word for pair in fields.items() for word in pair]


def test_view_in_both_protocols() -> None:
    master, replicas = {b"config-epoch": b"7", b"flags": b"master"}, [replica(C), replica(B)]
    view = View(7, A, (B, C))
    assert read_view([place(A), master, replicas]) == view
    assert read_view([place(A), flat(master), [flat(fields) for fields in replicas]]) == view


@pytest.mark.parametrize(
    ("flags", "link", "fit"),
    [
        (b"slave", b"ok", True),
        (b"slave,reconf_inprog", b"ok", True),
        (b"slave", b"err", False),
        (b"s_down,slave", b"ok", False),
        (b"slave,o_down", b"ok", False),
        (b"slave,disconnected", b"ok", False),
    ],
)
def test_replicas_that_are_fit_for_use(flags: bytes, link: bytes, fit: bool) -> None:
    view = read_view([place(A), {b"config-epoch": b"0"}, [replica(B, flags, link)]])
    assert view == View(0, A, (B,) if fit else ())


def test_name_that_is_not_known() -> None:
    assert read_view([None, ReplyError("ERR No such master with that name"), REFUSAL]) is None


def test_sentinel_that_may_tell_the_address_only() -> None:
    assert read_view([place(A), REFUSAL, REFUSAL]) == View(0, A, ())


def test_sentinel_that_may_not_tell_the_address() -> None:
    with pytest.raises(ReplyError, match="NOPERM"):
        read_view([REFUSAL, {}, []])


@pytest.mark.parametrize(
    "replies",
    [
        [b"OK", {b"config-epoch": b"1"}, []],
        [[b"host", b"x"], {b"config-epoch": b"1"}, []],
        [place(A), {}, []],
        [place(A), {b"config-epoch": b"many"}, []],
        [place(A), {b"config-epoch": b"1"}, [{b"flags": b"slave", b"master-link-status": b"ok"}]],
        [place(A), 5, []],
    ],
)
def test_replies_that_make_no_sense(replies: Any) -> None:
    with pytest.raises(ProtocolError, match="a sentinel cannot be read"):
        read_view(replies)


def test_view_of_the_latest_failover_is_believed_whoever_else_says_what() -> None:
    old, new = View(3, A, (B, C)), View(4, B, ())
    assert best_view([old, old, new]) == new


def test_among_views_of_one_epoch_most_sentinels_are_believed() -> None:
    assert best_view([View(1, A, ()), View(1, B, ()), View(1, B, ())]).master == B


def test_among_equal_views_the_one_with_more_replicas_is_of_more_use() -> None:
    assert best_view([View(1, A, ()), View(1, A, (B,))]).replicas == (B,)


@pytest.mark.parametrize(
    ("views", "sentinels", "agreed"),
    [
        ([], 1, False),
        ([View(0, A, ())], 1, True),
        ([View(0, A, ())], 2, False),
        ([View(0, A, ()), View(0, A, (B,))], 3, True),
        ([View(0, A, ()), View(1, A, ())], 3, False),
        ([View(0, A, ()), View(0, B, ()), View(0, A, ())], 3, True),
        ([View(0, A, ()), View(0, A, ())], 4, False),
    ],
)
def test_more_than_half_of_all_sentinels_make_an_agreement(views: list[View], sentinels: int, agreed: bool) -> None:
    assert is_agreed(views, sentinels) is agreed


VIEWS = st.lists(st.builds(View, st.integers(0, 3), st.sampled_from([A, B, C]), st.just(())), min_size=1, max_size=7)


@given(VIEWS)
def test_belief_does_not_hang_on_the_order_of_epochs(views: list[View]) -> None:
    assert best_view(views).epoch == max(view.epoch for view in views)
    assert best_view(views) in views
