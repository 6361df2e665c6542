"""What Redis URLs mean."""

from __future__ import annotations

from typing import Any

import pytest

from coro.redis import Redis
from coro.redis.url import Settings, parse_url


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("redis://db1", Settings(host="db1")),
        ("redis://", Settings()),
        ("redis://db1:6380/3", Settings(host="db1", port=6380, database=3)),
        ("redis://db1?db=3", Settings(host="db1", database=3)),
        ("redis://db1/3?db=3", Settings(host="db1", database=3)),
        ("redis://:a,b@db1?name=a,b", Settings(host="db1", password="a,b", client_name="a,b")),
        ("redis://:secret@db1", Settings(host="db1", password="secret")),
        ("redis://app:secret@db1", Settings(host="db1", username="app", password="secret")),
        ("redis://app@db1", Settings(host="db1", username="app")),
        ("redis://:p%40ss%2F%23@db1", Settings(host="db1", password="p@ss/#")),
        ("redis://[::1]:6380/1", Settings(host="::1", port=6380, database=1)),
        ("rediss://db1", Settings(host="db1", tls=True)),
        ("rediss://db1?ca=/etc/ca.pem", Settings(host="db1", tls=True, ca="/etc/ca.pem")),
        ("unix:///run/redis.sock", Settings(path="/run/redis.sock")),
        ("unix:///run/redis.sock?db=2", Settings(path="/run/redis.sock", database=2)),
        ("unix://:secret@/run/my%20redis", Settings(path="/run/my redis", password="secret")),
        ("redis://db1?timeout=0.5&connect_timeout=2", Settings(host="db1", timeout=0.5, connect_timeout=2)),
    ],
)
def test_reads(url: str, settings: Settings) -> None:
    assert parse_url(url) == settings


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://db1", "'http' is no scheme of Redis URLs"),
        ("db1:6379", "'db1' is no scheme"),
        ("redis:db1", "// behind its scheme"),
        ("redis://db1,db2:7000", "names one host here"),
        ("redis://:secret@db1:7000,db2:7000/0", "names one host here"),
        ("redis://db1/1?db=2", "names two databases"),
        ("redis://db1:port", "host or port"),
        ("redis://db1/users", "the number of a database"),
        ("redis://db1/-1", "the number of a database"),
        ("redis://db1?tiemout=1", "tiemout in a Redis URL"),
        ("redis://db1?timeout=soon", "timeout must be a number of seconds"),
        ("redis://db1?timeout=0", "timeout must be a number of seconds above 0"),
        ("redis://db1?connect_timeout=inf", "connect_timeout must be a number of seconds above 0"),
        ("redis://db1?ca=/etc/ca.pem", "write rediss://"),
        ("unix://run/redis.sock", "absolute path"),
        ("unix://", "absolute path"),
        ("redis://:a#b@db1", "%XX for /, # and ?"),
        ("redis://db1/0#1", "write %23"),
    ],
)
def test_refuses(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:top/secret@db1",
        "redis://:1/secret@db1",
        "redis://:a#secret@db1",
        "redis://:1?secret@db1",
        "redis://:1?timeout=secret@db1",
    ],
)
def test_error_does_not_show_a_password_that_was_not_escaped(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", [None, b"redis://db1", 6379])
def test_url_is_a_str(url: Any) -> None:
    with pytest.raises(TypeError, match="a Redis URL is a str"):
        Redis.from_url(url)


def test_client_is_made_of_settings() -> None:
    url: Any = "redis://db1"
    with pytest.raises(TypeError, match=r"Redis\.from_url"):
        Redis(url)


def test_settings_do_not_show_the_password() -> None:
    assert "secret" not in repr(parse_url("redis://:secret@db1"))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://db1", "db1:6379"),
        ("redis://[::1]:7000", "[::1]:7000"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
    ],
)
def test_address_for_people(url: str, address: str) -> None:
    assert parse_url(url).address == address


@pytest.mark.parametrize("name", ["max_unanswered", "max_connections"])
def test_at_least_one_command_and_connection_must_be_allowed(name: str) -> None:
    values: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        Settings(**values)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("timeout", "5", "timeout must be a number of seconds, not '5'"),
        ("connect_timeout", None, "connect_timeout must be a number of seconds, not None"),
        ("max_connections", 1.5, "max_connections must be a whole number, not 1.5"),
    ],
)
def test_settings_of_the_wrong_type(name: str, value: Any, message: str) -> None:
    values: dict[str, Any] = {name: value}
    with pytest.raises(TypeError, match=message):
        Settings(**values)


@pytest.mark.parametrize("name", ["two words", "ä", "line\nbreak"])
def test_name_of_a_client_has_no_special_characters(name: str) -> None:
    with pytest.raises(ValueError, match="a client's name has no spaces or special characters"):
        Settings(client_name=name)


def test_options_go_before_what_the_url_says() -> None:
    redis = Redis.from_url("redis://db1?timeout=1&name=of-url", timeout=2, max_connections=3, health_check_interval=4)
    settings = redis.settings
    assert (settings.timeout, settings.max_connections, settings.health_check_interval) == (2, 3, 4)
    assert settings.client_name == "of-url"
    with pytest.raises(ValueError, match="health_check_interval must be a number of seconds above 0"):
        Redis.from_url("redis://db1", health_check_interval=0)
