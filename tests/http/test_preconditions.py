"""Conditional requests, as RFC 9110, section 13.2.2 orders them."""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coro.http import HTTPError, Request, check_preconditions
from coro.http.message import Headers

MODIFIED = 1_700_000_000.7
SAME, BEFORE, AFTER = (formatdate(int(MODIFIED) + offset, usegmt=True) for offset in (0, -1, 1))


class Conditional(Request):
    """A request of which only the method and the header fields are asked for."""

    def __init__(self, method: str, fields: dict[bytes, bytes]) -> None:
        self._method = method
        self._headers = Headers(fields)

    @property
    def method(self) -> str:
        return self._method

    @property
    def headers(self) -> Headers:
        return self._headers


def status(
    method: str, fields: Sequence[tuple[str, str]], etag: str | None = '"v1"', modified: float | None = MODIFIED
) -> int:
    """Of the answer; 200 stands for whatever the handler makes of it."""
    request = Conditional(method, {name.lower().encode(): value.encode("latin-1") for name, value in fields})
    try:
        answer = check_preconditions(request, etag=etag, modified=modified)
    except HTTPError as error:
        return error.status
    return 200 if answer is None else answer.status


MATCH, NONE_MATCH, SINCE, UNMODIFIED = "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"


@pytest.mark.parametrize(
    ("fields", "get", "put"),
    [
        ([], 200, 200),
        ([(NONE_MATCH, '"v1"')], 304, 412),
        ([(NONE_MATCH, 'W/"v1"')], 304, 412),
        ([(NONE_MATCH, '"v2"')], 200, 200),
        ([(NONE_MATCH, '"v2", "v1"')], 304, 412),
        ([(NONE_MATCH, '"v2","a,b" , W/"v1",')], 304, 412),
        ([(NONE_MATCH, "*")], 304, 412),
        ([(NONE_MATCH, "v1")], 200, 200),
        ([(NONE_MATCH, '"v1')], 200, 200),
        ([(NONE_MATCH, "")], 200, 200),
        ([(MATCH, '"v1"')], 200, 200),
        ([(MATCH, 'W/"v1"')], 412, 412),
        ([(MATCH, '"v2", "v1"')], 200, 200),
        ([(MATCH, '"v2"')], 412, 412),
        ([(MATCH, "*")], 200, 200),
        ([(MATCH, "v1")], 412, 412),
        ([(SINCE, SAME)], 304, 200),
        ([(SINCE, AFTER)], 304, 200),
        ([(SINCE, BEFORE)], 200, 200),
        ([(SINCE, "yesterday")], 200, 200),
        ([(SINCE, "Tue, 14 Nov 99999 22:13:20 GMT")], 200, 200),
        ([(SINCE, "Tuesday, 14-Nov-23 22:13:20 GMT")], 304, 200),
        ([(SINCE, "Tue Nov 14 22:13:20 2023")], 304, 200),
        ([(UNMODIFIED, SAME)], 200, 200),
        ([(UNMODIFIED, AFTER)], 200, 200),
        ([(UNMODIFIED, BEFORE)], 412, 412),
        ([(UNMODIFIED, "yesterday")], 200, 200),
        ([(NONE_MATCH, '"v2"'), (SINCE, SAME)], 200, 200),  # the tag goes before the date
        ([(NONE_MATCH, '"v1"'), (SINCE, BEFORE)], 304, 412),
        ([(MATCH, '"v1"'), (UNMODIFIED, BEFORE)], 200, 200),
        ([(MATCH, '"v2"'), (NONE_MATCH, '"v1"')], 412, 412),
        ([(MATCH, '"v1"'), (NONE_MATCH, '"v1"')], 304, 412),
    ],
)
def test_conditions(fields: list[tuple[str, str]], get: int, put: int) -> None:
    assert (status("GET", fields), status("HEAD", fields), status("PUT", fields)) == (get, get, put)


def test_weak_tag_is_never_what_a_client_requires() -> None:
    assert status("GET", [(MATCH, 'W/"v1"')], etag='W/"v1"') == 412
    assert status("GET", [(NONE_MATCH, '"v1"')], etag='W/"v1"') == 304


def test_conditions_on_what_is_not_known() -> None:
    assert status("GET", [(NONE_MATCH, '"v1"'), (SINCE, SAME)], etag=None) == 200
    assert status("GET", [(SINCE, SAME)], modified=None) == 200
    assert status("GET", [(UNMODIFIED, BEFORE)], modified=None) == 200


@given(st.text(st.characters(max_codepoint=255)))
def test_any_field_is_understood_or_not_but_never_an_error(text: str) -> None:
    for name in MATCH, NONE_MATCH, SINCE, UNMODIFIED:
        assert status("GET", [(name, text)]) in (200, 304, 412)
