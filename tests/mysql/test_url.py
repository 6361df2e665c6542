"""What a `mysql://` URL says."""

from __future__ import annotations

import pytest

from coro.mysql.errors import InterfaceError
from coro.mysql.url import Target, TlsMode, parse_url


def test_every_part_has_its_place() -> None:
    target = parse_url("mysql://anna:secret@db1:3307/shop?tls=preferred")
    assert target == Target(host="db1", port=3307, user="anna", password="secret", database="shop")
    assert target.peer == "db1:3307"


def test_what_is_left_out_has_a_default() -> None:
    assert parse_url("mysql://") == Target(host="127.0.0.1", port=3306, user="root")


def test_parts_are_percent_decoded() -> None:
    target = parse_url("mysql://an%40na:p%2F%3A%40%C3%A4@db1/a%2Fb%3F")
    assert (target.user, target.password, target.database) == ("an@na", "p/:@ä", "a/b?")


def test_an_ipv6_address_stands_in_brackets() -> None:
    target = parse_url("mysql://root@[::1]:3307/")
    assert (target.host, target.peer) == ("::1", "[::1]:3307")


def test_a_unix_socket_is_named_by_its_path() -> None:
    target = parse_url("mysql://root@/shop?socket=/run/mysqld/mysqld.sock")
    assert (target.socket, target.database) == ("/run/mysqld/mysqld.sock", "shop")
    assert target.peer == "/run/mysqld/mysqld.sock"


@pytest.mark.parametrize(
    ("query", "mode"),
    [
        ("", TlsMode.VERIFY_IDENTITY),
        ("?tls=disabled", TlsMode.DISABLED),
        ("?tls=preferred", TlsMode.PREFERRED),
        ("?tls=required", TlsMode.REQUIRED),
        ("?tls=verify-ca", TlsMode.VERIFY_CA),
        ("?tls=verify-identity", TlsMode.VERIFY_IDENTITY),
        ("?ca=/x.pem", TlsMode.VERIFY_IDENTITY),
        ("?ca=/x.pem&tls=preferred", TlsMode.VERIFY_IDENTITY),
        ("?ca=/x.pem&tls=required", TlsMode.VERIFY_IDENTITY),
        ("?ca=/x.pem&tls=verify-ca", TlsMode.VERIFY_CA),
    ],
)
def test_the_tls_mode_is_as_asked_and_a_ca_is_used_when_given(query: str, mode: TlsMode) -> None:
    assert parse_url("mysql://db1/" + query).tls is mode


@pytest.mark.parametrize("host", ["", "localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_a_server_on_this_machine_needs_no_certificate_unless_a_ca_is_given(host: str) -> None:
    assert parse_url(f"mysql://{host}/").tls is TlsMode.PREFERRED
    assert parse_url(f"mysql://{host}/?ca=/x.pem").tls is TlsMode.VERIFY_IDENTITY


@pytest.mark.parametrize("host", ["db1", "localhost.example.com", "10.0.0.1", "128.0.0.1", "[::2]", "192.168.1.2"])
def test_a_server_elsewhere_is_verified(host: str) -> None:
    assert parse_url(f"mysql://{host}/").tls is TlsMode.VERIFY_IDENTITY


def test_further_passwords_stand_in_their_order() -> None:
    assert parse_url("mysql://anna:a@db1/?password3=c&password2=b").further_passwords == ("b", "c")
    assert parse_url("mysql://anna:a@db1/?password2=").further_passwords == ("",)
    assert "geheim" not in repr(parse_url("mysql://anna:a@db1/?password2=geheim"))
    with pytest.raises(InterfaceError, match="password2 is not"):
        parse_url("mysql://anna:a@db1/?password3=c")


def test_a_password_in_the_clear_is_allowed_only_when_that_is_asked_for() -> None:
    assert not parse_url("mysql://db1/").allow_cleartext
    assert parse_url("mysql://db1/?allow-cleartext-password=true").allow_cleartext


def test_the_servers_rsa_key_is_trusted_only_when_that_is_asked_for() -> None:
    assert not parse_url("mysql://db1/").allow_public_key_retrieval
    assert not parse_url("mysql://db1/?allow-public-key-retrieval=false").allow_public_key_retrieval
    assert parse_url("mysql://db1/?allow-public-key-retrieval=true").allow_public_key_retrieval
    assert parse_url("mysql://db1/?public-key=/k.pem").public_key == "/k.pem"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://db1/", "does not start with 'mysql://'"),
        ("db1:3306", "does not start with 'mysql://'"),
        ("mysql://db1:port/", "no host and port"),
        ("mysql://db1:99999/", "a port is a number from 1 to 65535"),
        ("mysql://db1:0/", "a port is a number from 1 to 65535"),
        ("mysql://db1/a/b", "one name"),
        ("mysql://db1/a#b", "one name"),
        ("mysql://db1/?tls=maybe", "'maybe' is none of disabled, preferred"),
        ("mysql://db1/?tls=disabled&ca=/x.pem", "no meaning"),
        ("mysql://db1/?charset=utf8", "unknown parameter 'charset'"),
        ("mysql://db1/?tls=required&tls=disabled", "twice"),
        ("mysql://db1/?tls", "name=value"),
        ("mysql://db1/?allow-public-key-retrieval=yes", "neither true nor false"),
        ("mysql://db1/?key=/k.pem", "cert is not"),
        ("mysql://db1/?tls=disabled&cert=/c.pem", "no meaning"),
    ],
)
def test_a_url_that_says_something_else_is_refused(url: str, reason: str) -> None:
    with pytest.raises(InterfaceError, match=reason):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://anna:secret@db1:port/",
        "mysql://anna:secret/more@db1",
        "mysql://anna:12?secret@db1",
        "mysql://anna:secret@db1/?x=1",
        "mysql:anna:secret@db1",
        "mysql://anna:12/secret@db1",
        "mysql://anna:12?tls=secret@db1/",
        "mysql://anna:12?secret=more@db1/",
    ],
)
def test_no_error_shows_the_password(url: str) -> None:
    with pytest.raises(InterfaceError) as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)


def test_no_repr_shows_the_password() -> None:
    assert "secret" not in repr(parse_url("mysql://anna:secret@db1/"))
