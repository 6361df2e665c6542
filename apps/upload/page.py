"""The page: its files, and its text in the language that a reader's browser asks for.

`static/index.html` has places for text, `{{key}}`; a file of `static/texts/`, named by its language (RFC 5646), has the
text for each. The page is made once for every language, when the app starts, with the whole table in it for the
scripts. Which one is sent, `Accept-Language` says (RFC 9110, section 12.5.4).

| request        | answer                                                  |
|----------------|---------------------------------------------------------|
| `GET /`        | the page, in the reader's language; English if no other |
| `GET /static/` | its scripts, style and icon                             |
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from coro import Coro
from coro.http import Answer, HeaderList, Request, Response, Router, check_preconditions

STATIC = Path(__file__).parent / "static"
DEFAULT_LANGUAGE = "en"
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS: HeaderList = [
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-cache"),
    ("Referrer-Policy", "same-origin"),
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
]
PLACE = re.compile(r"\{\{(\w+)\}\}")
# A range, and how much it is wanted; what is not of this form counts as if it were not there.
LANGUAGE_RANGE = re.compile(r"(\*|[a-z]{1,8}(?:-[a-z0-9]{1,8})*)(?:\s*;\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?", re.I)


def add_page(router: Router) -> None:
    """Route the page and its files: a fixed table, so that no request names another file. Blocks briefly. OSError."""
    pages = {language: _File(page, "text/html; charset=utf-8", language) for language, page in _pages()}

    def page(request: Request) -> Coro[Answer]:
        language = chosen_language(request.headers.get("accept-language", ""), tuple(pages))
        return (yield from pages[language].handle(request))

    router.add("GET", "/", page)
    for path in STATIC.iterdir():
        if path.suffix in CONTENT_TYPES:
            router.add("GET", f"/static/{path.name}", _File(path.read_bytes(), CONTENT_TYPES[path.suffix]).handle)


def chosen_language(accepted: str, languages: Sequence[str]) -> str:
    """The one of `languages` that an Accept-Language field wants most; the first if it wants none of them.

    Languages are compared by their first subtag: whoever reads zh-TW is better served with zh-CN than with English.
    """
    wanted: dict[str, float] = {}
    for entry in accepted.split(","):
        if match := LANGUAGE_RANGE.fullmatch(entry.strip()):
            language = match[1].lower().partition("-")[0]
            wanted[language] = max(wanted.get(language, 0.0), float(match[2] or 1))
    order = list(wanted)

    def rank(language: str) -> tuple[float, int]:
        name = language.lower().partition("-")[0]
        name = name if name in wanted else "*"
        return wanted.get(name, 0.0), -order.index(name) if name in wanted else 0

    best = max(languages, key=rank)
    return best if rank(best)[0] > 0 else languages[0]


def texts() -> dict[str, dict[str, Any]]:
    """What the page says, by language; the default one is first. Blocks briefly. OSError."""
    paths = sorted((STATIC / "texts").glob("*.json"), key=lambda path: (path.stem != DEFAULT_LANGUAGE, path.stem))
    return {path.stem: json.loads(path.read_text("utf-8")) for path in paths}


def _pages() -> Iterable[tuple[str, bytes]]:
    template = (STATIC / "index.html").read_text("utf-8")
    for language, table in texts().items():
        places = {key: html.escape(words) for key, words in table.items() if isinstance(words, str)}
        places["language"] = language
        # Within <script>, only "</script" and "<!--" have a meaning, and no text needs a "<" as it is.
        places["texts"] = json.dumps(table, ensure_ascii=False).replace("<", "\\u003c")
        yield language, _filled(template, places).encode()


def _filled(template: str, places: dict[str, str]) -> str:
    return PLACE.sub(lambda match: places[match[1]], template)


class _File:
    """What is sent as it is, or not at all to a browser that has it."""

    def __init__(self, content: bytes, content_type: str, language: str | None = None) -> None:
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        self.etag = etag
        self.varying = [] if language is None else [("Content-Language", language), ("Vary", "Accept-Language")]
        self.response = Response(200, content, [*HEADERS, *self.varying, ("ETag", etag)], content_type)

    def handle(self, request: Request) -> Coro[Answer]:
        yield from ()
        unchanged = check_preconditions(request, etag=self.etag)
        if unchanged is not None:
            unchanged.headers = (*unchanged.headers, *self.varying, ("Cache-Control", "no-cache"))
        return unchanged or self.response
