"""Authentication plugins: byte by byte, and at the servers that have them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from coro.mysql import Connection, OperationalError, ProtocolError
from coro.mysql import constants as c
from coro.mysql.ed25519 import sign
from coro.mysql.handshake import Tls, login
from coro.mysql.packets import Framer
from tests.mysql.sessions import create_user, with_connection
from tests.mysql.test_handshake import NATIVE, PEM, SHA2, WHO, Response, conversation, unmasked
from tests.mysql.wire import AUTOCOMMIT, NONCE, auth_switch, err, every_way, greeting, ok, packet, play
from tests.services import MariaDB11Server, MySQL9Server, SQLServer

PASSWORD = "a password of more than twenty bytes"
LONG_NONCE = bytes(range(32))


def current_user(url: str) -> str:
    return str(with_connection(url, lambda connection: connection.fetch_value("SELECT CURRENT_USER()")))


def by_socket(server: SQLServer, user: str, password: str = PASSWORD) -> str:
    return f"mysql://{user}:{quote(password, safe='')}@/?socket={server.socket}"


# --- Signatures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "message", "signature"),
    [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
            "4a7c15e9716ed28dc027beceea1ec40a",
        ),
    ],
)
def test_a_signature_is_that_of_rfc_8032(secret: str, message: str, signature: str) -> None:
    assert sign(bytes.fromhex(secret), bytes.fromhex(message)).hex() == signature


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_a_signature_is_that_of_another_library(secret: bytes, message: bytes) -> None:
    assert sign(secret, message) == Ed25519PrivateKey.from_private_bytes(secret).sign(message)


# --- Byte by byte -------------------------------------------------------------------------------------------


def test_ed25519_signs_the_challenge_with_the_password() -> None:
    _, answer = conversation(WHO, greeting(), auth_switch("client_ed25519", LONG_NONCE), ok())
    assert answer == sign(b"secret", LONG_NONCE)


def test_parsec_signs_both_challenges_with_a_key_made_of_the_password() -> None:
    salt = bytes(range(50, 68))
    _, nothing, answer = conversation(
        WHO, greeting(), auth_switch("parsec", LONG_NONCE), b"\x01P\x02" + salt, ok()
    )
    ours, signature = answer[:32], answer[32:]
    secret = hashlib.pbkdf2_hmac("sha512", b"secret", salt, 4096, 32)
    assert nothing == b""
    Ed25519PrivateKey.from_private_bytes(secret).public_key().verify(signature, LONG_NONCE + ours)


def test_parsec_has_a_new_challenge_each_time() -> None:
    replies = [greeting(), auth_switch("parsec", LONG_NONCE), b"\x01P\x00" + bytes(18), ok()]
    assert conversation(WHO, *replies)[2][:32] != conversation(WHO, *replies)[2][:32]


@pytest.mark.parametrize("kind", [b"", b"P\0", b"Q\0" + bytes(18), b"P\x09" + bytes(18), b"P\0" + bytes(19)])
def test_parsec_refuses_another_way_to_make_a_key_and_one_that_takes_long(kind: bytes) -> None:
    with pytest.raises(ProtocolError, match="parsec"):
        conversation(WHO, greeting(), auth_switch("parsec", LONG_NONCE), b"\x01" + kind)


@pytest.mark.parametrize("plugin", ["client_ed25519", "parsec", "sha256_password"])
def test_a_challenge_of_another_size_is_refused(plugin: str) -> None:
    who = replace(WHO, public_key=PEM)
    with pytest.raises(ProtocolError, match="challenge has 15 bytes"):
        conversation(who, greeting(), auth_switch(plugin, bytes(range(1, 15))))


@pytest.mark.parametrize("plugin", ["client_ed25519", "sha256_password", "mysql_clear_password"])
def test_a_plugin_that_has_answered_has_nothing_more_to_say(plugin: str) -> None:
    who = replace(WHO, public_key=PEM, allow_cleartext=True)
    nonce = LONG_NONCE if plugin == "client_ed25519" else NONCE
    with pytest.raises(ProtocolError, match="more data after"):
        conversation(who, greeting(), auth_switch(plugin, nonce), b"\x01more")


@pytest.mark.parametrize(
    ("plugin", "challenge", "more"),
    [
        ("mysql_native_password", NONCE, []),
        ("caching_sha2_password", NONCE, [b"\x01\x04", b"\x01" + PEM]),
        ("sha256_password", NONCE, [b"\x01" + PEM]),
        ("mysql_clear_password", NONCE, []),
        ("client_ed25519", LONG_NONCE, []),
        ("parsec", LONG_NONCE, [b"\x01P\0" + bytes(18)]),
    ],
)
def test_a_login_is_the_same_however_its_bytes_come(plugin: str, challenge: bytes, more: list[bytes]) -> None:
    who = replace(WHO, allow_public_key_retrieval=True, allow_cleartext=True)
    said = [greeting(), auth_switch(plugin, challenge), *more, ok()]
    data = b"".join(packet(payload, 2 * number) for number, payload in enumerate(said))
    for pieces in every_way(data):
        framer = Framer()
        session, sent = play(login(framer, who), framer, [*pieces[:-1], pieces[-1] + b"more"])
        assert len(sent) == len(said) - 1
        assert session.status == AUTOCOMMIT
        assert framer.unread == len(b"more")


SHA256 = auth_switch("sha256_password")
CLEAR = auth_switch("mysql_clear_password")
ENCRYPTED = {"tls": Tls.MUST, "private": True}


def over_tls(*replies: bytes) -> list[bytes]:
    """What the client sends behind its wish for TLS."""
    who = replace(WHO, tls=Tls.MUST, private=True)
    return conversation(who, greeting(capabilities=0xFFFFFFFF), *replies)


@pytest.mark.parametrize("switch", [SHA256, CLEAR])
def test_the_password_itself_does_not_go_over_a_channel_that_is_not_private(switch: bytes) -> None:
    with pytest.raises(OperationalError, match="not private") as caught:
        conversation(WHO, greeting(), switch)
    assert caught.value.code == 2061


def test_the_password_in_the_clear_goes_over_a_private_channel_or_where_it_is_allowed() -> None:
    for who in (replace(WHO, private=True), replace(WHO, allow_cleartext=True)):
        _, password = conversation(who, greeting(), CLEAR, ok())
        assert password == b"secret\0"


def test_sha256_encrypts_the_password_with_the_key_it_has_or_may_ask_for() -> None:
    _, secret = conversation(replace(WHO, public_key=PEM), greeting(), SHA256, ok())
    assert unmasked(secret) == b"secret"
    for who in (replace(WHO, allow_public_key_retrieval=True), replace(WHO, private=True)):
        _, request, secret = conversation(who, greeting(), SHA256, b"\x01" + PEM, ok())
        assert request == b"\x01"
        assert unmasked(secret) == b"secret"


def test_sha256_has_nothing_to_hide_without_a_password() -> None:
    _, nothing = conversation(replace(WHO, password=""), greeting(), SHA256, ok())
    assert nothing == b"\0"


# --- Several passwords --------------------------------------------------------------------------------------


def next_factor(plugin: str) -> bytes:
    return b"\x02" + auth_switch(plugin)[1:]


def test_each_further_factor_takes_the_next_password() -> None:
    who = replace(WHO, further_passwords=("two", "three"), private=True)
    factors = [next_factor("mysql_clear_password"), next_factor("mysql_clear_password")]
    response, second, third = conversation(who, greeting(), *factors, ok())
    assert Response(response).answer == NATIVE
    assert Response(response).capabilities & c.CLIENT_MULTI_FACTOR_AUTHENTICATION
    assert (second, third) == (b"two\0", b"three\0")


def test_a_switch_keeps_to_the_password_of_its_factor() -> None:
    who = replace(WHO, further_passwords=("secret",), password="one")
    replies = [next_factor("mysql_native_password"), auth_switch("caching_sha2_password")]
    assert conversation(who, greeting(), *replies, ok())[1:] == [NATIVE, SHA2]


def test_a_factor_without_a_password_has_an_empty_one() -> None:
    _, answer = conversation(WHO, greeting(), next_factor("mysql_native_password"), ok())
    assert answer == b""


def test_a_factor_that_needs_no_password_may_be_unknown_here() -> None:
    _, answer = conversation(WHO, greeting(), next_factor("auth_socket"), ok())
    assert answer == b""


def test_an_unknown_factor_is_named_when_the_login_fails() -> None:
    with pytest.raises(OperationalError, match="the account logs in by authentication_webauthn_client"):
        conversation(WHO, greeting(), next_factor("authentication_webauthn_client"), err(1045, "Access denied"))


@pytest.mark.mysql9
def test_mysql_asks_for_a_second_factor(mysql9: MySQL9Server) -> None:
    """Of the plugins that can be a second factor Debian's MySQL has one: who owns the other end of the socket?"""
    owner = Path(mysql9.socket).owner()
    first, second = f"WITH caching_sha2_password BY '{PASSWORD}'", f"IDENTIFIED WITH auth_socket AS '{owner}'"
    good = create_user(mysql9, PASSWORD, f"{first} AND {second}")
    assert current_user(by_socket(mysql9, good)) == f"{good}@%"
    with pytest.raises(OperationalError, match="Access denied"):
        current_user(by_socket(mysql9, good, "wrong"))
    other = create_user(mysql9, "b", "WITH sha256_password BY 'b' AND IDENTIFIED WITH auth_socket AS 'somebody else'")
    with pytest.raises(OperationalError, match="Access denied"):
        current_user(by_socket(mysql9, other, "b"))


# --- At MariaDB ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("password", ["e", PASSWORD, "ünïcödé " * 20])
def test_mariadb_accepts_an_ed25519_signature(mariadb: SQLServer, password: str) -> None:
    user = create_user(mariadb, password, f"VIA ed25519 USING PASSWORD('{password}')")
    assert current_user(mariadb.url(user=user, password=password) + "?tls=disabled") == f"{user}@%"
    with pytest.raises(OperationalError, match="Access denied"):
        current_user(mariadb.url(user=user, password=password + "x"))


@pytest.mark.parametrize("password", ["e", "n"])
@pytest.mark.parametrize(
    "how",
    [
        "VIA ed25519 USING PASSWORD('e') OR mysql_native_password USING PASSWORD('n')",
        "VIA mysql_native_password USING PASSWORD('n') OR ed25519 USING PASSWORD('e')",
    ],
)
def test_mariadb_may_switch_plugins_twice(mariadb: SQLServer, how: str, password: str) -> None:
    user = create_user(mariadb, password, how)
    assert current_user(mariadb.url(user=user, password=password)) == f"{user}@%"
    with pytest.raises(OperationalError, match="Access denied"):
        current_user(mariadb.url(user=user, password="other"))


@pytest.mark.mariadb11
@pytest.mark.parametrize("password", ["p", PASSWORD, "ünïcödé " * 20])
def test_mariadb_accepts_a_parsec_signature(mariadb11: MariaDB11Server, password: str) -> None:
    user = create_user(mariadb11, password, f"VIA parsec USING PASSWORD('{password}')")
    assert current_user(mariadb11.url(user=user, password=password) + "?tls=disabled") == f"{user}@%"
    with pytest.raises(OperationalError, match="Access denied"):
        current_user(mariadb11.url(user=user, password=password + "x"))


@pytest.mark.mariadb11
@pytest.mark.parametrize("query", ["?tls=required", "?tls=disabled&allow-public-key-retrieval=true"])
def test_mariadb_has_caching_sha2_too(mariadb11: MariaDB11Server, query: str) -> None:
    user = create_user(mariadb11, PASSWORD, f"VIA caching_sha2_password USING PASSWORD('{PASSWORD}')")
    assert current_user(mariadb11.url(user=user, password=PASSWORD) + query) == f"{user}@%"


# --- sha256_password ----------------------------------------------------------------------------------------


@pytest.mark.mysql9
def test_sha256_goes_by_tls_or_rsa(mysql9: MySQL9Server) -> None:
    user = create_user(mysql9, PASSWORD, f"WITH sha256_password BY '{PASSWORD}'")
    url = mysql9.url(user=user, password=PASSWORD)
    key = mysql9.directory / "data" / "public_key.pem"
    for query in ("?tls=required", "?tls=disabled&allow-public-key-retrieval=true", f"?tls=disabled&public-key={key}"):
        assert current_user(url + query) == f"{user}@%"
    assert current_user(by_socket(mysql9, user)) == f"{user}@%"
    with pytest.raises(OperationalError, match="not private"):
        current_user(url + "?tls=disabled")


# --- caching_sha2_password, which MySQL 9 has ---------------------------------------------------------------


def new_to_the_cache(server: SQLServer) -> str:
    """A user whose digest the server does not have in its cache: it wants the password itself."""
    user = create_user(server, PASSWORD)
    server.sql("FLUSH PRIVILEGES")
    return user


@pytest.mark.mysql9
@pytest.mark.parametrize(
    "query", ["?tls=required", "?tls=preferred", "?tls=disabled&allow-public-key-retrieval=true"]
)
def test_full_authentication_goes_by_tls_or_rsa_and_the_fast_one_without(mysql9: MySQL9Server, query: str) -> None:
    url = mysql9.url(user=new_to_the_cache(mysql9), password=PASSWORD)
    with_connection(url + query, Connection.ping)
    with_connection(url + "?tls=disabled", Connection.ping)


@pytest.mark.mysql9
def test_full_authentication_goes_over_a_unix_socket(mysql9: MySQL9Server) -> None:
    user = new_to_the_cache(mysql9)
    with_connection(by_socket(mysql9, user), Connection.ping)


@pytest.mark.mysql9
def test_full_authentication_goes_by_a_key_from_a_file(mysql9: MySQL9Server) -> None:
    url = mysql9.url(user=new_to_the_cache(mysql9), password=PASSWORD)
    key = mysql9.directory / "data" / "public_key.pem"
    with_connection(f"{url}?tls=disabled&public-key={key}", Connection.ping)


@pytest.mark.mysql9
def test_full_authentication_does_not_go_in_the_clear(mysql9: MySQL9Server) -> None:
    url = mysql9.url(user=new_to_the_cache(mysql9), password=PASSWORD)
    with pytest.raises(OperationalError, match="not private") as caught:
        with_connection(url + "?tls=disabled", Connection.ping)
    assert caught.value.code == 2061


@pytest.mark.mysql9
def test_full_authentication_refuses_a_wrong_password(mysql9: MySQL9Server) -> None:
    url = mysql9.url(user=new_to_the_cache(mysql9), password="wrong")
    with pytest.raises(OperationalError, match="Access denied"):
        with_connection(url, Connection.ping)
