"""URLs: whom to ask, and for what (coro/http/client/url.py)."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coro.http.client.errors import InvalidURL
from coro.http.client.url import HOST_NAME, URL, Pairs, add_query, join, parse_url

PARSED = {
    "http://example.org": "http example.org 80 /",
    "http://example.org/": "http example.org 80 /",
    " http://example.org/ ": "http example.org 80 /",
    "HTTP://EXAMPLE.org:8080/A?b=C#d": "http example.org 8080 /A?b=C",
    "https://example.org?a/b": "https example.org 443 /?a/b",
    "https://example.org#a/b": "https example.org 443 /",
    "http://example.org:/": "http example.org 80 /",
    "https://example.org:443/": "https example.org 443 /",
    "http://example.org./": "http example.org. 80 /",
    "http://a_b.example/": "http a_b.example 80 /",
    "http://127.0.0.1:8000/": "http 127.0.0.1 8000 /",
    "http://[::1]:8000/x": "http ::1 8000 /x",
    "http://[2001:DB8:0:0::1]/": "http 2001:db8::1 80 /",
    "http://[::ffff:127.0.0.1]/": f"http {IPv6Address('::ffff:127.0.0.1')} 80 /",  # as this Python writes it
    "http://a/b c": "http a 80 /b%20c",
    "http://a/%20%2f%zz": "http a 80 /%20%2f%zz",
    "http://a/ä?ö=ü": "http a 80 /%C3%A4?%C3%B6=%C3%BC",
    "http://a/\"<>\\^`{|}": "http a 80 /%22%3C%3E%5C%5E%60%7B%7C%7D",
    "http://a/b//c/../d": "http a 80 /b//c/../d",
    "http://bücher.example/": "http xn--bcher-kva.example 80 /",
    "http://BÜCHER.example/": "http xn--bcher-kva.example 80 /",
    "http://例え.テスト/": "http xn--r8jz45g.xn--zckzah 80 /",
}


def described(url: URL) -> str:
    return f"{url.origin.scheme} {url.origin.host} {url.origin.port} {url.target}"


@pytest.mark.parametrize("text", PARSED)
def test_parts_of_a_url(text: str) -> None:
    assert described(parse_url(text)) == PARSED[text]


@pytest.mark.parametrize("text", PARSED)
def test_text_of_a_url_is_the_same_url(text: str) -> None:
    assert parse_url(str(parse_url(text))) == parse_url(text)


def test_url_that_may_hold_a_secret_is_not_remembered() -> None:
    for text, remembered in ("http://a/b", True), ("http://me:secret@a/b", False), ("http://a/b?key=secret", False):
        assert (parse_url(text) is parse_url(text)) is remembered


REFUSED = [
    "", "example.org", "/a", "//a/b", "ftp://a/", "http:/a", "http:a", "http+unix://%2Frun%2Fx/", "http://", "http:///a",
    "http://:80/", "http://a:b/", "http://a:0/", "http://a:65536/", "http://a:-1/", "http://a:80:80/", "http://a b/",
    "http://a%41/", "http://a,b/", "http://a..b/", "http://.a/", "http://[::1/", "http://::1/", "http://[::g]/",
    "http://[fe80::1%25eth0]/", "http://[::1]x/", "http://x[::1]/", "http://a\\@b/", "http://a/\r\nX: y", "http://a/\0",
    "http://a\n/", "http://a/\x7f", "http://a/\tb", "http://127.1/", "http://0x7f.0.0.1/", "http://2130706433/",
    "http://127.0.0.256/", "http://127.0.0.01/", "http://1.2.3.4.5/", "http://faß.example/", "http://βόλος.example/",
    "http://a\u200db.example/", "http://u@v@a/b@c:x/", "http://a\u2100b/", "http://" + "ä" * 100 + ".example/",
    "http://a:" + "8" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_refuses(text: str) -> None:
    with pytest.raises(InvalidURL):
        parse_url(text)


@pytest.mark.parametrize(
    "text", ["http://u:secret@:80/", "http://u:secret@a b/", "u:secret@http://a", "http://u:secret@127.1/"]
)
def test_error_never_tells_a_password(text: str) -> None:
    with pytest.raises(InvalidURL) as raised:
        parse_url(text)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "credentials"),
    [
        ("http://a/", None), ("http://u:p@a/", b"u:p"), ("http://u@a/", b"u:"), ("http://:p@a/", b":p"),
        ("http://u%40x:p%3A%2F@a/", b"u@x:p:/"), ("http://u:p:q@a/", b"u:p:q"), ("http://%C3%A4:p@a/", "ä:p".encode()),
    ],
)  # fmt: skip
def test_user_and_password(text: str, credentials: bytes | None) -> None:
    url = parse_url(text)
    assert url.credentials == credentials
    assert str(url) == "http://a/"


@pytest.mark.parametrize(
    ("text", "authority"),
    [("http://A/", "a"), ("http://a:80/", "a"), ("http://a:81/", "a:81"), ("https://a:80/", "a:80"),
     ("http://[::1]/", "[::1]"), ("http://[::1]:81/", "[::1]:81"), ("https://u:p@a:443/", "a")],
)  # fmt: skip
def test_authority_is_without_the_schemes_own_port_and_without_the_user(text: str, authority: str) -> None:
    assert parse_url(text).origin.authority == authority


@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({}, "/x"), ({"a": "b"}, "/x?a=b"), ({"a": ["1", 2], "c": 3.5}, "/x?a=1&a=2&c=3.5"),
        ([("b", "1"), ("a", "2"), ("b", "3")], "/x?b=1&a=2&b=3"), ({"ä &": "=#\r\n"}, "/x?%C3%A4+%26=%3D%23%0D%0A"),
    ],
)  # fmt: skip
def test_parameters_become_the_query(params: Pairs, target: str) -> None:
    assert add_query(parse_url("http://a/x"), params).target == target
    more = target.removeprefix("/x").replace("?", "&", 1)
    assert add_query(parse_url("http://a/x?y"), params).target == "/x?y" + more


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("/c", "http://a:8080/c"), ("c", "http://a:8080/b/c"), ("?d", "http://a:8080/b/x?d"), ("", "http://a:8080/b/x?q"),
        ("//b/c", "http://b/c"), ("https://b/c", "https://b/c"), ("../c", "http://a:8080/c"),
        ("/%C3%A4", "http://a:8080/%C3%A4"), ("/ä".encode().decode("latin-1"), "http://a:8080/%C3%A4"),
        ("/a b", "http://a:8080/a%20b"), ("/#x", "http://a:8080/"),
    ],
)  # fmt: skip
def test_location_is_relative_to_what_was_asked_for(location: str, text: str) -> None:
    assert str(join(parse_url("http://a:8080/b/x?q"), location)) == text


@pytest.mark.parametrize(
    "location", ["ftp://a/", "javascript:alert(1)", "http://u:p@a/", "http://u@a/", "//[x", "//a b/"]
)
def test_location_that_leads_nowhere(location: str) -> None:
    with pytest.raises(InvalidURL):
        join(parse_url("http://a/"), location)


@given(st.text(max_size=30) | st.text("ahtp:/@[]?#\\.1%", max_size=30).map("http://".__add__))
def test_any_text_is_a_url_of_plain_characters_or_refused(text: str) -> None:
    try:
        url = parse_url(text)
    except InvalidURL:
        return
    assert url.target.isascii() and url.target.isprintable() and " " not in url.target
    assert HOST_NAME.fullmatch(url.origin.host) or ":" in url.origin.host
