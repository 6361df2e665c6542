"""The login exchange: what goes out in answer to what, and above all what does not go out."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from coro.mysql import constants as c
from coro.mysql.auth import Challenge
from coro.mysql.errors import (
    InterfaceError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    ProtocolError,
)
from coro.mysql.handshake import Login, Session, Tls, login, parse_greeting
from coro.mysql.packets import Framer, Need, Payload
from tests.mysql.wire import (
    NONCE,
    auth_switch,
    err,
    greeting,
    ok,
    packet,
    packets,
    play,
    play_every_way,
)

# What two real servers said, captured
MARIADB_GREETING = bytes.fromhex(
    "0a352e352e352d31302e31312e31392d4d6172696144422d302b64656231327531003100000032474d2f43405a2200feff080200ff81"
    "150000000000001d0000003a3e666856542761347d3d56006d7973716c5f6e61746976655f70617373776f726400"
)
MYSQL_GREETING = bytes.fromhex(
    "0a392e372e342d3200160000003a3b5a7379295c1900ffffff0200ffdf1500000000000000000000362d6d5e5252307b1a790a5e0063"
    "616368696e675f736861325f70617373776f726400"
)

# The answers of two plugins to the challenge 01 02 .. 14 for the password `secret`, computed with PyMySQL
NATIVE = bytes.fromhex("b32bb3a583e1340c0a1108d58b1be49781ad8c2f")
SHA2 = bytes.fromhex("746ebe205d56a0707acb3e796e834e0dd7b1d61743b26bd5202c7a623230c7c9")

WITH_TLS = 0xFFFFFFFF
WHO = Login("anna", "secret", "shop")
OTHER_NONCE = bytes(range(101, 121))

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def log_in(who: Login, *payloads: bytes | None) -> tuple[Session, list[bytes | Need]]:
    """Logs in at a server that says the payloads, each when it is its turn; None where the client speaks twice."""
    framer = Framer()
    pieces = [packet(payload, number) for number, payload in enumerate(payloads) if payload is not None]
    return play(login(framer, who), framer, pieces)


def conversation(who: Login, *replies: bytes) -> list[bytes]:
    """The payloads that the client sends when the server says each reply after one packet of the client."""
    said: list[bytes | None] = []
    for reply in replies:
        said += [reply, None]
    _, sent = log_in(who, *said)
    return [data[4:] for data in sent if isinstance(data, bytes)]


class Response:
    """HandshakeResponse41, taken apart."""

    def __init__(self, payload: bytes) -> None:
        fields = Payload(payload)
        self.capabilities = fields.integer(4)
        self.max_packet = fields.integer(4)
        self.collation = fields.integer(1)
        assert fields.take(23) == bytes(23)
        self.user = fields.zero_terminated()
        self.answer = fields.lenenc_bytes()
        self.database = fields.zero_terminated() if self.capabilities & c.CLIENT_CONNECT_WITH_DB else None
        self.plugin = fields.zero_terminated()
        pairs = Payload(fields.lenenc_bytes())
        self.attributes = {}
        while pairs.position < len(pairs.data):
            key = pairs.lenenc_bytes()
            self.attributes[key] = pairs.lenenc_bytes()
        assert fields.rest() == b""


def unmasked(secret: bytes) -> bytes:
    """The password that a client encrypted with the server's key, without the zero byte behind it."""
    oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)
    masked = KEY.decrypt(secret, oaep)
    plain = bytes(byte ^ NONCE[index % 20] for index, byte in enumerate(masked))
    assert plain[-1:] == b"\0"
    return plain[:-1]


# --- The greeting ------------------------------------------------------------------


def test_the_greeting_of_mariadb_is_understood() -> None:
    seen = parse_greeting(MARIADB_GREETING)
    assert (seen.server_version, seen.connection_id) == ("5.5.5-10.11.19-MariaDB-0+deb12u1", 49)
    assert seen.plugin == "mysql_native_password"
    assert seen.nonce == b'2GM/C@Z":>fhVT\'a4}=V\0'


def test_the_greeting_of_mysql_is_understood() -> None:
    seen = parse_greeting(MYSQL_GREETING)
    assert (seen.server_version, seen.connection_id) == ("9.7.4-2", 22)
    assert seen.plugin == "caching_sha2_password"
    assert seen.capabilities & c.CLIENT_SSL


@pytest.mark.parametrize("size", range(len(MYSQL_GREETING)))
def test_a_greeting_cut_anywhere_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError):
        parse_greeting(MYSQL_GREETING[:size])


def test_a_server_that_refuses_at_once_is_quoted() -> None:
    with pytest.raises(OperationalError, match="Too many connections") as caught:
        log_in(WHO, b"\xff" + struct.pack("<H", 1040) + b"Too many connections")
    assert caught.value.code == 1040


def test_another_protocol_version_is_not_supported() -> None:
    with pytest.raises(NotSupportedError, match="protocol version 9"):
        log_in(WHO, greeting(version=9))


def test_a_server_without_protocol_41_is_not_supported() -> None:
    with pytest.raises(NotSupportedError, match=r"4\.1"):
        log_in(WHO, greeting(capabilities=0xFFFFFFFF & ~c.CLIENT_PROTOCOL_41))


# --- The response --------------------------------------------------------------------


def test_the_response_says_who_and_where() -> None:
    who = replace(WHO, attributes={"_client_name": "coro"})
    session, sent = log_in(who, greeting(), None, ok())
    assert isinstance(sent[0], bytes)
    assert sent[0][3] == 1  # the greeting had sequence number 0
    response = Response(sent[0][4:])
    assert (response.user, response.database) == (b"anna", b"shop")
    assert (response.plugin, response.answer) == (b"mysql_native_password", NATIVE)
    assert response.attributes == {b"_client_name": b"coro"}
    assert session.greeting.connection_id == 7
    assert session.greeting.server_version == "9.1.0-test"
    assert not session.encrypted


def test_a_login_is_the_same_however_its_bytes_come() -> None:
    sessions = play_every_way(lambda framer: login(framer, WHO), packets(greeting(), first=0) + packet(ok(), 2))
    assert all(session == sessions[0] for session in sessions)


def test_no_database_is_asked_for_when_none_is_given() -> None:
    [response] = conversation(replace(WHO, database=""), greeting(), ok())
    assert Response(response).database is None


def test_an_empty_password_is_an_empty_answer() -> None:
    for plugin in ("mysql_native_password", "caching_sha2_password"):
        [response] = conversation(replace(WHO, password=""), greeting(plugin=plugin), ok())
        assert Response(response).answer == b""


def test_the_text_of_a_connection_is_utf8mb4() -> None:
    [response] = conversation(WHO, greeting(), ok())
    assert Response(response).collation == 45  # utf8mb4_general_ci, the only one that every server knows


def test_neither_local_files_nor_several_statements_are_offered() -> None:
    [response] = conversation(WHO, greeting(), ok())
    local_files, multi_statements = 1 << 7, 1 << 16
    assert not Response(response).capabilities & (local_files | multi_statements)


def test_no_capability_is_claimed_that_the_server_lacks() -> None:
    [response] = conversation(WHO, greeting(capabilities=0xFFFFFFFF & ~(c.CLIENT_SSL | c.CLIENT_DEPRECATE_EOF)), ok())
    assert not Response(response).capabilities & c.CLIENT_DEPRECATE_EOF


def test_a_zero_byte_in_a_name_is_refused() -> None:
    with pytest.raises(InterfaceError, match="zero byte"):
        log_in(replace(WHO, user="an\0na"), greeting())


def test_the_password_is_in_no_repr() -> None:
    assert "secret" not in repr(WHO)
    assert "secret" not in repr(Challenge(b"secret", bytes(20), True, True, False, None, False))


# --- The verdict -----------------------------------------------------------------------


def test_a_refused_login_raises_the_servers_error() -> None:
    with pytest.raises(OperationalError, match="Access denied") as caught:
        conversation(WHO, greeting(), err(1045, "Access denied", "28000"))
    assert (caught.value.code, caught.value.sqlstate) == (1045, "28000")


@pytest.mark.parametrize("payload", [b"", b"\x03", b"\x17abc", b"\xfb"])
def test_a_reply_without_meaning_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="has no meaning in a login"):
        conversation(WHO, greeting(), payload)


def test_a_server_that_never_decides_is_left() -> None:
    with pytest.raises(ProtocolError, match="has not decided"):
        conversation(WHO, greeting(), *[auth_switch("mysql_native_password")] * 40)


# --- Plugins -----------------------------------------------------------------------------


def test_caching_sha2_is_done_when_the_server_knows_the_digest() -> None:
    _, sent = log_in(WHO, greeting(plugin="caching_sha2_password"), None, b"\x01\x03", ok())
    assert len(sent) == 1
    assert isinstance(sent[0], bytes)
    assert Response(sent[0][4:]).answer == SHA2


def test_a_switch_answers_the_new_challenge_with_the_new_plugin() -> None:
    _, answer = conversation(WHO, greeting(nonce=OTHER_NONCE), auth_switch("caching_sha2_password"), ok())
    assert answer == SHA2


def test_the_server_may_switch_several_times() -> None:
    switches = [auth_switch("caching_sha2_password", OTHER_NONCE), auth_switch("mysql_native_password")]
    _, _, answer = conversation(WHO, greeting(nonce=OTHER_NONCE), *switches, ok())
    assert answer == NATIVE


def test_a_plugin_that_is_not_known_is_passed_over_when_the_server_has_another() -> None:
    switches = [auth_switch("dialog"), auth_switch("mysql_native_password")]
    _, nothing, answer = conversation(WHO, greeting(), *switches, ok())
    assert (nothing, answer) == (b"", NATIVE)


def test_a_plugin_that_is_not_known_is_named_when_the_login_fails() -> None:
    with pytest.raises(OperationalError, match="Access denied; the account logs in by dialog"):
        conversation(WHO, greeting(), auth_switch("dialog"), err(1045, "Access denied", "28000"))


@pytest.mark.parametrize("plugin", ["dialog", "mysql_clear_password", "sha256_password", "client_ed25519"])
def test_a_plugin_that_cannot_be_the_first_waits_until_it_is_asked_for(plugin: str) -> None:
    [response] = conversation(replace(WHO, private=True), greeting(plugin=plugin), ok())
    assert Response(response).plugin == b"mysql_native_password"
    assert Response(response).answer == NATIVE


def test_an_account_from_before_mysql_41_is_not_supported() -> None:
    with pytest.raises(NotSupportedError, match=r"before MySQL 4\.1"):
        conversation(WHO, greeting(), b"\xfe")


@pytest.mark.parametrize(
    "replies",
    [
        [greeting(), b"\x01more"],
        [greeting(plugin="caching_sha2_password"), b"\x01\x03\x03"],
        [greeting(), auth_switch("dialog"), b"\x01\x04"],
        [greeting(), auth_switch("mysql_native_password", b"short")],
    ],
)
def test_messages_that_a_plugin_does_not_have_are_refused(replies: Sequence[bytes]) -> None:
    with pytest.raises(ProtocolError):
        conversation(WHO, *replies)


def test_more_data_behind_the_end_of_an_authentication_is_refused() -> None:
    with pytest.raises(ProtocolError, match="was over"):
        log_in(WHO, greeting(plugin="caching_sha2_password"), None, b"\x01\x03", b"\x01\x03")


def test_a_plugin_that_was_switched_away_from_says_nothing_more() -> None:
    who = replace(WHO, private=True)
    with pytest.raises(ProtocolError, match="was over"):
        conversation(who, greeting(plugin="caching_sha2_password"), auth_switch("dialog"), b"\x01\x04")


# --- The password itself ----------------------------------------------------------------


FULL = (greeting(plugin="caching_sha2_password"), b"\x01\x04")


def test_the_password_does_not_go_out_over_a_channel_that_is_not_private() -> None:
    with pytest.raises(OperationalError, match="not private"):
        conversation(WHO, *FULL)


def test_the_password_goes_out_over_a_private_channel() -> None:
    _, password = conversation(replace(WHO, private=True), *FULL, ok())
    assert password == b"secret\0"


def test_a_channel_that_was_to_be_encrypted_and_is_not_is_not_private() -> None:
    with pytest.raises(OperationalError, match="not private"):
        conversation(replace(WHO, private=True, tls=Tls.IF_OFFERED), *FULL)


def test_the_password_is_encrypted_with_the_key_that_the_caller_gave() -> None:
    _, secret = conversation(replace(WHO, public_key=PEM), *FULL, ok())
    assert unmasked(secret) == b"secret"


def test_the_server_is_asked_for_its_key_only_when_that_is_allowed() -> None:
    who = replace(WHO, allow_public_key_retrieval=True)
    _, request, secret = conversation(who, *FULL, b"\x01" + PEM, ok())
    assert request == b"\x02"
    assert unmasked(secret) == b"secret"


def test_a_password_longer_than_the_challenge_is_masked_all_along() -> None:
    who = replace(WHO, password="long" * 20, public_key=PEM)
    _, secret = conversation(who, *FULL, ok())
    assert unmasked(secret) == b"long" * 20


OTHER_KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
NO_RSA = OTHER_KEY.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("key", [b"", b"no key", PEM[:100], NO_RSA], ids=["empty", "text", "cut", "ec"])
def test_a_key_that_is_none_is_refused(key: bytes) -> None:
    with pytest.raises(ProtocolError, match="does not serve"):
        conversation(replace(WHO, allow_public_key_retrieval=True), *FULL, b"\x01" + key)
    with pytest.raises(InterfaceError, match="does not serve"):
        conversation(replace(WHO, public_key=key), *FULL)


def test_without_cryptography_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(InterfaceError, match=r"pip install 'coro-loop\[rsa\]'"):
        conversation(replace(WHO, public_key=PEM), *FULL)


# --- TLS -----------------------------------------------------------------------------------


def test_before_tls_nothing_goes_out_but_the_wish_for_it() -> None:
    who = replace(WHO, tls=Tls.MUST)
    session, sent = log_in(who, greeting(capabilities=WITH_TLS), None, None, ok())
    request, tls, response = sent
    assert isinstance(request, bytes)
    assert isinstance(response, bytes)
    assert tls is Need.TLS
    assert len(request) == 4 + 32
    assert request[4:] == response[4 : 4 + 32]
    assert (request[3], response[3]) == (1, 2)
    assert Response(response[4:]).capabilities & c.CLIENT_SSL
    assert session.encrypted


def test_a_server_without_tls_is_left_when_tls_is_a_must() -> None:
    with pytest.raises(OperationalError, match="offers no TLS, and it is required; tls=disabled") as caught:
        log_in(replace(WHO, tls=Tls.MUST), greeting())
    assert caught.value.code == 2026


def test_tls_is_not_started_when_it_is_not_wanted() -> None:
    session, sent = log_in(WHO, greeting(capabilities=WITH_TLS), None, ok())
    assert Need.TLS not in sent
    assert not session.encrypted


def test_bytes_slipped_in_ahead_of_tls_are_refused() -> None:
    framer = Framer()
    pieces = [packet(greeting(capabilities=WITH_TLS), 0) + packet(ok(), 2)]
    with pytest.raises(ProtocolError, match="in the clear"):
        play(login(framer, replace(WHO, tls=Tls.MUST)), framer, pieces)


def test_a_database_that_does_not_exist_is_the_servers_error() -> None:
    with pytest.raises((OperationalError, ProgrammingError), match="Unknown database"):
        conversation(WHO, greeting(), err(1049, "Unknown database 'shop'", "42000"))


@pytest.mark.parametrize(("own", "known"), [(0, True), (c.CLIENT_LONG_PASSWORD, False)], ids=["MariaDB", "MySQL"])
def test_mariadbs_own_capabilities_are_read_and_answered_in_their_field(own: int, known: bool) -> None:
    """MariaDB leaves out the lowest flag; the four bytes ahead of the challenge's rest are then its own flags."""
    bulk = (c.MARIADB_CLIENT_STMT_BULK_OPERATIONS >> 32).to_bytes(4, "little")
    payload = greeting(capabilities=0xFFFFFFFE & ~c.CLIENT_SSL | own)
    start = payload.index(bytes(10))
    payload = payload[: start + 6] + bulk + payload[start + 10 :]
    framer = Framer()
    session, sent = play(login(framer, Login("anna", "secret")), framer, [packet(payload, 0), packet(ok(), 2)])
    assert bool(session.capabilities & c.MARIADB_CLIENT_STMT_BULK_OPERATIONS) is known
    assert isinstance(sent[0], bytes)
    assert sent[0][4 + 28 : 4 + 32] == (bulk if known else bytes(4))
