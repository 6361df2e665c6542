"""The page's text: which language is sent to whom, and that all languages say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.upload.page import PLACE, STATIC, chosen_language, texts
from tests.upload.harness import App

ENGLISH, CHINESE = "en", "zh-CN"
TEXTS = texts()
SCRIPTS = "".join(path.read_text() for path in STATIC.glob("*.js"))
VALUE = re.compile(r"\{(\w+)\}")


# --- What is sent --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", ENGLISH),
        ("zh-CN,zh;q=0.9,en;q=0.8", CHINESE),
        ("en-GB,en;q=0.9,zh;q=0.8", ENGLISH),
        ("zh", CHINESE),
        ("ZH-hans-cn", CHINESE),
        ("zh-TW", CHINESE),  # better than English
        ("en;q=0.1, zh;q=0.2", CHINESE),
        ("en , zh", ENGLISH),  # as much as each other: the first
        ("zh, en", CHINESE),
        ("fr, zh;q=0.001", CHINESE),
        ("fr, de;q=0.5", ENGLISH),
        ("*", ENGLISH),
        ("en;q=0, *;q=0.1", CHINESE),
        ("zh;q=0, *", ENGLISH),
        ("zh;q=0", ENGLISH),
        ("en;q=0", ENGLISH),  # there has to be some page
        ("zh;q=1.5, zh ;; q=1, q=1, -, en", ENGLISH),  # what is none is left out
        ("zh\t;\tq=1", CHINESE),
        ("en;q=0.5, zh-CN;q=0.2, zh;q=0.7", CHINESE),
    ],
)
def test_the_language_that_is_wanted_most(accepted: str, language: str) -> None:
    assert chosen_language(accepted, tuple(TEXTS)) == language


def test_the_page_is_served_in_the_language_of_its_reader(app: App) -> None:
    for accepted, language in (("zh-CN,en;q=0.5", CHINESE), ("en", ENGLISH)):
        answer = app.ask("GET", "/", Accept_Language=accepted)
        assert answer.status == 200
        assert (answer.headers["Content-Language"], answer.headers["Vary"]) == (language, "Accept-Language")
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        page = answer.body.decode()
        assert f'<html lang="{language}">' in page
        assert f"<title>{TEXTS[language]['title']}</title>" in page
        assert not PLACE.search(page)


def test_a_browser_that_has_the_page_is_told_so_if_it_is_of_the_same_language(app: App) -> None:
    etag = app.ask("GET", "/", Accept_Language="zh").headers["ETag"]
    unchanged = app.ask("GET", "/", Accept_Language="zh", If_None_Match=etag)
    assert (unchanged.status, unchanged.headers["Vary"], unchanged.body) == (304, "Accept-Language", b"")
    assert app.ask("GET", "/", Accept_Language="en", If_None_Match=etag).status == 200


def test_the_page_may_load_only_what_is_its_own(app: App) -> None:
    policy = app.ask("GET", "/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy


def test_the_pages_files_are_served(app: App) -> None:
    for path in [*STATIC.glob("*.js"), STATIC / "style.css", STATIC / "icon.svg"]:
        answer = app.ask("GET", f"/static/{path.name}")
        assert (answer.status, answer.body) == (200, path.read_bytes())


def test_nothing_in_the_texts_ends_the_script_that_holds_them(app: App) -> None:
    script = app.ask("GET", "/").body.decode().partition('id="texts">')[2].partition("</script>")[0]
    assert "<" not in script


# --- What it says --------------------------------------------------------------------------------


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys, those of the errors too; the forms of a number count as one text."""
    for key, words in table.items():
        if key == "errors":
            yield from _flat(words, "errors.")
        else:
            yield prefix + key, words


@pytest.mark.parametrize("language", [language for language in TEXTS if language != ENGLISH])
def test_every_language_has_every_text_with_the_same_values(language: str) -> None:
    english, other = dict(_flat(TEXTS[ENGLISH])), dict(_flat(TEXTS[language]))
    assert other.keys() == english.keys()
    for key, words in other.items():
        assert set(VALUE.findall(str(words))) == set(VALUE.findall(str(english[key]))), key
        assert isinstance(words, dict) == isinstance(english[key], dict), key


def test_there_are_texts_for_all_that_the_page_asks_for_and_no_others() -> None:
    page = (STATIC / "index.html").read_text()
    keys = {key for key in TEXTS[ENGLISH] if key != "errors"}
    named = set(re.findall(r'"(\w+)"', SCRIPTS)) | set(PLACE.findall(page))
    made = {f"{action}File" for action in ("pause", "resume", "retry")} | {"waiting", "done", "paused"}
    asked = set(re.findall(r'\btext\("(\w+)"', SCRIPTS)) | set(PLACE.findall(page)) - {"language", "texts"}
    assert asked <= keys
    assert keys <= named | made


def test_the_errors_that_are_translated_are_those_of_the_server() -> None:
    apps = Path(STATIC).parent
    sources = "".join(path.read_text() for path in apps.glob("*.py"))
    said = re.sub(r"\{[^{}\"]*\}", "{}", sources)
    for message in TEXTS[ENGLISH]["errors"]:
        words = re.sub(r"\{\w+\}", "{}", message)
        assert words in said, message
