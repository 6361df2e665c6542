"""Logging in at real servers: passwords, plugins, TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import coro
from coro import Coro, Stream
from coro.mysql import Connection, InterfaceError, OperationalError, connect
from tests.mysql.sessions import create_user, with_connection
from tests.mysql.wire import auth_switch, greeting, packet
from tests.proxy import Proxy, through_proxy
from tests.services import SQLServer


def cipher(url: str) -> str:
    """The cipher that the server says it uses with us; empty without TLS."""

    def body(connection: Connection) -> Coro[Any]:
        return (yield from connection.fetch_one("SHOW SESSION STATUS LIKE 'Ssl_cipher'"))

    return str(with_connection(url, body)[1])


def test_a_session_has_utf8mb4_and_autocommit(sql_database: str) -> None:
    def body(connection: Connection) -> Coro[Any]:
        sql = "SELECT @@character_set_client, @@character_set_connection, @@character_set_results, @@autocommit"
        return (yield from connection.fetch_one(sql))

    assert with_connection(sql_database, body) == ("utf8mb4", "utf8mb4", "utf8mb4", 1)


def test_the_collation_is_the_one_that_the_server_prefers(sql_server: SQLServer) -> None:
    def body(connection: Connection) -> Coro[Any]:
        preferred = yield from connection.fetch_one("SHOW CHARACTER SET LIKE 'utf8mb4'")
        assert preferred is not None
        assert preferred[2] == (yield from connection.fetch_value("SELECT @@collation_connection"))

    with_connection(sql_server.url(), body)


def test_autocommit_is_switched_on_when_the_server_has_it_off(sql_server: SQLServer) -> None:
    sql_server.sql("SET GLOBAL autocommit = 0")
    try:
        found = with_connection(sql_server.url(), lambda connection: connection.fetch_value("SELECT @@autocommit"))
    finally:
        sql_server.sql("SET GLOBAL autocommit = 1")
    assert found == 1


def test_a_connection_knows_its_server(sql_server: SQLServer) -> None:
    def body(connection: Connection) -> Coro[None]:
        assert (yield from connection.fetch_value("SELECT CONNECTION_ID()")) == connection.id
        assert (yield from connection.fetch_value("SELECT VERSION()")) in connection.server_version

    with_connection(sql_server.url(), body)


def test_a_server_that_is_not_there_is_named(sql_server: SQLServer) -> None:
    with pytest.raises(OperationalError, match=r"127\.0\.0\.1:1: cannot connect: Connection refused") as caught:
        with_connection("mysql://root@127.0.0.1:1/", Connection.ping)
    assert caught.value.code == 2003
    with pytest.raises(OperationalError, match="/nowhere/socket: cannot connect: No such file") as caught:
        with_connection("mysql://root@/?socket=/nowhere/socket", Connection.ping)
    assert caught.value.code == 2003


def test_an_unknown_database_is_named(sql_server: SQLServer) -> None:
    with pytest.raises(OperationalError, match="Unknown database 'nowhere'") as caught:
        with_connection(sql_server.url("nowhere"), Connection.ping)
    assert caught.value.code == 1049


@pytest.mark.parametrize("password", ["secret", "with spaces & ünïcödé", "/:@?#[]%"])
def test_a_password_is_proved(sql_server: SQLServer, password: str) -> None:
    user = create_user(sql_server, password)
    url = sql_server.url(user=user, password=password)
    assert with_connection(url, lambda connection: connection.fetch_value("SELECT CURRENT_USER()")) == f"{user}@%"


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_password_is_refused(sql_server: SQLServer, password: str) -> None:
    user = create_user(sql_server, "right")
    with pytest.raises(OperationalError, match=f"Access denied for user '{user}'") as caught:
        with_connection(sql_server.url(user=user, password=password), Connection.ping)
    assert caught.value.code == 1045


# --- TLS ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["preferred", "required"])
def test_tls_is_used_when_it_is_offered(sql_server: SQLServer, mode: str) -> None:
    assert cipher(sql_server.url() + f"?tls={mode}")


def test_tls_is_not_used_when_it_is_disabled(sql_server: SQLServer) -> None:
    assert not cipher(sql_server.url() + "?tls=disabled")


def test_a_unix_socket_needs_no_tls(sql_server: SQLServer) -> None:
    assert not cipher(f"mysql://root@/?socket={sql_server.socket}")


@pytest.mark.parametrize("mode", ["verify-ca", "verify-identity"])
def test_a_certificate_is_verified_against_the_given_ca(sql_server: SQLServer, mode: str) -> None:
    assert cipher(sql_server.url() + f"?tls={mode}&ca={sql_server.certificates.authority}")


@pytest.mark.parametrize("mode", ["verify-ca", "verify-identity"])
def test_a_certificate_that_no_known_ca_has_signed_is_refused(sql_server: SQLServer, mode: str) -> None:
    with pytest.raises(OperationalError, match="the server's certificate does not pass") as caught:
        with_connection(sql_server.url() + f"?tls={mode}", Connection.ping)
    assert caught.value.code == 2026


def test_a_certificate_for_another_host_is_refused_unless_only_the_ca_counts(sql_server: SQLServer) -> None:
    def through(proxy: Proxy) -> Coro[None]:
        # 127.0.0.2 is this machine as well, and not in the certificate
        listener = coro.listen("127.0.0.2", 0)
        serving = coro.background(coro.serve(listener, proxy.serve))
        url = f"mysql://root@127.0.0.2:{listener.port}/?ca={sql_server.certificates.authority}"
        with pytest.raises(OperationalError, match=r"certificate does not pass.*127\.0\.0\.2"):
            yield from connect(url)
        connection = yield from connect(url + "&tls=verify-ca")
        yield from connection.ping()
        connection.close()
        serving.cancel()
        listener.close()

    coro.run(through_proxy(sql_server.port, through))


def test_a_ca_file_that_is_not_there_is_named(sql_server: SQLServer) -> None:
    with pytest.raises(InterfaceError, match=r"cannot use the CA file /nowhere\.pem: No such file"):
        with_connection(sql_server.url() + "?ca=/nowhere.pem", Connection.ping)


def test_a_certificate_of_ones_own_is_shown(sql_server: SQLServer) -> None:
    user = create_user(sql_server, "pw")
    sql_server.sql(f"ALTER USER {user}@'%' REQUIRE X509")
    url = sql_server.url(user=user, password="pw")
    own = sql_server.certificates
    for mode in ("preferred", "verify-identity&ca=" + str(own.authority)):
        assert cipher(f"{url}?tls={mode}&cert={own.certificate}&key={own.key}")
        with pytest.raises(OperationalError, match="Access denied"):
            with_connection(f"{url}?tls={mode}", Connection.ping)


def test_a_certificate_of_ones_own_that_cannot_be_used_is_named(sql_server: SQLServer, tmp_path: Path) -> None:
    own = sql_server.certificates
    with pytest.raises(InterfaceError, match=r"cannot use the certificate /nowhere\.pem: No such file"):
        with_connection(sql_server.url() + "?cert=/nowhere.pem", Connection.ping)
    with pytest.raises(InterfaceError, match=f"cannot use the certificate {own.authority}"):
        with_connection(sql_server.url() + f"?cert={own.authority}&key={own.key}", Connection.ping)
    locked = tmp_path / "locked.pem"
    secret = serialization.BestAvailableEncryption(b"secret")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret))
    with pytest.raises(InterfaceError, match="its key is encrypted"):
        with_connection(sql_server.url() + f"?cert={own.certificate}&key={locked}", Connection.ping)


def test_long_values_pass_through_tls(sql_server: SQLServer) -> None:
    data = bytes(range(256)) * (1 << 14)

    def body(connection: Connection) -> Coro[None]:
        assert (yield from connection.fetch_value("SELECT HEX(?)", data)) == data.hex().upper()

    with_connection(sql_server.url() + "?tls=required", body)


@pytest.mark.parametrize("plugin", ["caching_sha2_password", "sha256_password", "mysql_clear_password"])
@pytest.mark.parametrize("query", ["?tls=disabled", "?tls=preferred", ""])
def test_no_server_gets_the_password_without_tls(plugin: str, query: str) -> None:
    """Not one on this machine either: whose it is, and who listens, nobody has looked at."""
    heard: list[bytes] = []

    def serve(stream: Stream) -> Coro[None]:
        yield from stream.write(packet(greeting(), 0))
        heard.append((yield from stream.read()))
        yield from stream.write(packet(auth_switch(plugin), 2))
        while data := (yield from stream.read()):
            heard.append(data)
            yield from stream.write(packet(b"\x01\x04", 4))
        stream.close()

    def both(group: coro.TaskGroup) -> Coro[None]:
        listener = coro.listen("127.0.0.1", 0)
        group.spawn(coro.serve(listener, serve))
        with pytest.raises(OperationalError, match="not private"):
            yield from connect(f"mysql://anna:secret@localhost:{listener.port}/{query}")
        group.cancel()
        listener.close()

    coro.run(coro.task_group(both))
    assert heard
    assert b"secret" not in b"".join(heard)
