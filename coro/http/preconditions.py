"""Conditional requests (RFC 9110, section 13): is what the client has, or believes to be there, still so?"""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime

from coro.http.message import HTTPError, Request, Response

ENTITY_TAG = re.compile(r'(W/)?("[!#-~\x80-\xff]*")')  # RFC 9110, section 8.8.3
ENTITY_TAGS = re.compile(rf"[\s,]*{ENTITY_TAG.pattern}(?:\s*,[\s,]*{ENTITY_TAG.pattern})*[\s,]*")
SAFE = ("GET", "HEAD")


def check_preconditions(request: Request, *, etag: str | None = None, modified: float | None = None) -> Response | None:
    """What to answer instead of the content: 304 when the client has it already; None to go on.

    `etag` is the entity tag of what is there now, with its quotes; `modified`, in seconds since the epoch, when it last
    changed. Does not suspend. `HTTPError` 412 when what is there is not what the client requires.
    """
    match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    when = None if modified is None else int(modified)
    # The order is that of RFC 9110, section 13.2.2.
    if match is not None:
        if not _any_matches(match, etag, weak=False):
            raise HTTPError(412, "it has changed: If-Match does not hold")
    elif when is not None and when > _seconds(request, "if-unmodified-since", when):
        raise HTTPError(412, "it has changed: If-Unmodified-Since does not hold")
    if none_match is not None:
        unchanged = _any_matches(none_match, etag, weak=True)
        if unchanged and request.method not in SAFE:
            raise HTTPError(412, "it is there: If-None-Match does not hold")
    else:
        unchanged = when is not None and when <= _seconds(request, "if-modified-since", -1)
    if not unchanged or request.method not in SAFE:
        return None
    return Response(304, headers=validators(etag, modified))


def validators(etag: str | None, modified: float | None) -> list[tuple[str, str]]:
    """The header fields that tell a client what to ask by the next time."""
    fields = [] if modified is None else [("Last-Modified", formatdate(modified, usegmt=True))]
    return fields if etag is None else [*fields, ("ETag", etag)]


def _any_matches(field: str, etag: str | None, weak: bool) -> bool:
    """Is `etag` among those of the field? The weak comparison (section 8.8.3.2) does not mind `W/`."""
    if field.strip() == "*":
        return True
    current = ENTITY_TAG.fullmatch(etag or "")
    if current is None or not ENTITY_TAGS.fullmatch(field) or (current[1] and not weak):
        return False
    return any(opaque == current[2] and (weak or not mark) for mark, opaque in ENTITY_TAG.findall(field))


def _seconds(request: Request, name: str, otherwise: int) -> int:
    """The field's date; `otherwise` when there is none, or none that can be read (which is to be ignored)."""
    try:
        date = parsedate_to_datetime(request.headers.get(name, ""))
        return int(date.replace(tzinfo=date.tzinfo or UTC).timestamp())
    except (ValueError, OverflowError):
        return otherwise
