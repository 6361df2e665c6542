"""Authentication plugins: how a password is proved to the server.

A plugin is a generator over the plugin's own messages: the first value it yields answers the server's
challenge, each later one answers the `AuthMoreData` that it was resumed with. When it returns, it has nothing
more to say. To add a plugin, write such a function and enter it in `PLUGINS`.

The rule: what a reader of the wire could log in with goes out only when the channel is private
(`Challenge.private`), or encrypted with a key that the caller gave or allowed to ask for. An answer to the
server's random challenge is not such a thing.

Source: "Authentication Methods" in MySQL's client/server protocol manual; "Connection" in MariaDB's, for ed25519
and parsec.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from hashlib import pbkdf2_hmac, sha1, sha256
from typing import Final

from coro.mysql.constants import CR_AUTH_PLUGIN_ERR
from coro.mysql.ed25519 import sign
from coro.mysql.errors import InterfaceError, OperationalError, ProtocolError

NONCE_SIZE: Final = 20  # of the plugins that MySQL has
_ED25519_NONCE_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a plugin has to go by."""

    password: bytes = field(repr=False)
    nonce: bytes  # the server's random bytes; how many, and what ends them, is the plugin's business
    private: bool  # nobody but the server can read what is sent: the password itself may go out
    encrypted: bool  # by TLS
    allow_cleartext: bool  # the password may go out even where it is not private
    public_key: bytes | None  # the server's RSA key (PEM), as the caller gave it
    allow_public_key_retrieval: bool  # the server may be asked for its key, on trust


Plugin = Callable[[Challenge], Generator[bytes, bytes, None]]


def mysql_native_password(challenge: Challenge) -> Generator[bytes, bytes, None]:
    """SHA1(password) XOR SHA1(nonce + SHA1(SHA1(password))); empty for an empty password."""
    password = challenge.password
    if not password:
        answer = b""
    else:
        once = sha1(password).digest()
        answer = _xor(once, sha1(_nonce(challenge) + sha1(once).digest()).digest())
    yield answer
    raise ProtocolError("mysql_native_password: more data after the answer")


_REQUEST_PUBLIC_KEY: Final = b"\x02"
_FAST_AUTH_SUCCESS: Final = b"\x03"
_PERFORM_FULL_AUTHENTICATION: Final = b"\x04"


def caching_sha2_password(challenge: Challenge) -> Generator[bytes, bytes, None]:
    """SHA256(password) XOR SHA256(SHA256(SHA256(password)) + nonce), against the server's cache of digests.

    When the cache knows the account the server is content (fast path). Else it wants the password itself:
    as it is over a private channel, else encrypted with the server's RSA key.
    """
    password = challenge.password
    if not password:
        answer = b""
    else:
        once = sha256(password).digest()
        answer = _xor(once, sha256(sha256(once).digest() + _nonce(challenge)).digest())
    verdict = yield answer
    if verdict == _FAST_AUTH_SUCCESS:
        return
    if verdict != _PERFORM_FULL_AUTHENTICATION:
        raise ProtocolError(f"caching_sha2_password: unknown message {verdict[:8].hex()}")
    if challenge.private:
        yield password + b"\0"
    else:
        yield from _send_encrypted(challenge, _REQUEST_PUBLIC_KEY)
    raise ProtocolError("caching_sha2_password: more data after the password")


_SHA256_REQUEST_PUBLIC_KEY: Final = b"\x01"


def sha256_password(challenge: Challenge) -> Generator[bytes, bytes, None]:
    """The password itself over TLS, else encrypted with the server's RSA key, over a Unix socket too."""
    if not challenge.password:
        yield b"\0"
    elif challenge.private and challenge.encrypted:
        yield challenge.password + b"\0"
    else:
        yield from _send_encrypted(challenge, _SHA256_REQUEST_PUBLIC_KEY)
    raise ProtocolError("sha256_password: more data after the password")


def mysql_clear_password(challenge: Challenge) -> Generator[bytes, bytes, None]:
    """The password itself, which the server hands on to a judge of its own (PAM, LDAP)."""
    if not (challenge.private or challenge.allow_cleartext):
        raise OperationalError(
            "the server wants the password itself, over a connection that is not private:"
            " use TLS or a Unix socket, or allow it (allow-cleartext-password=true)",
            CR_AUTH_PLUGIN_ERR,
        )
    yield challenge.password + b"\0"
    raise ProtocolError("mysql_clear_password: more data after the password")


def client_ed25519(challenge: Challenge) -> Generator[bytes, bytes, None]:
    """The nonce, signed with the password as the secret."""
    yield sign(challenge.password, _nonce(challenge, _ED25519_NONCE_SIZE))
    raise ProtocolError("client_ed25519: more data after the signature")


_PBKDF2: Final = ord("P")
_PARSEC_SALT_SIZE: Final = 18
_PARSEC_MAX_FACTOR: Final = 8  # 262,144 iterations: as long as the loop may be kept from its work


def parsec(challenge: Challenge) -> Generator[bytes, bytes, None]:
    """Both sides' nonces, signed with a secret that PBKDF2 makes of the password and the account's salt.

    server: 'P', u8 factor, 18 bytes of salt      in answer to an empty packet; iterations = 1024 << factor
    client: 32 bytes of nonce, 64 of signature
    """
    theirs = _nonce(challenge, _ED25519_NONCE_SIZE)
    kind = yield b""
    if len(kind) != 2 + _PARSEC_SALT_SIZE or kind[0] != _PBKDF2 or kind[1] > _PARSEC_MAX_FACTOR:
        raise ProtocolError(f"parsec: cannot make a key by {kind[:8].hex()}")
    secret = pbkdf2_hmac("sha512", challenge.password, kind[2:], 1024 << kind[1], 32)
    ours = os.urandom(_ED25519_NONCE_SIZE)
    yield ours + sign(secret, theirs + ours)
    raise ProtocolError("parsec: more data after the signature")


PLUGINS: Final[dict[str, Plugin]] = {
    "mysql_native_password": mysql_native_password,
    "caching_sha2_password": caching_sha2_password,
    "sha256_password": sha256_password,
    "mysql_clear_password": mysql_clear_password,
    "client_ed25519": client_ed25519,
    "parsec": parsec,
}


def _nonce(challenge: Challenge, size: int = NONCE_SIZE) -> bytes:
    """The server's random bytes; a zero byte may end them."""
    nonce = challenge.nonce
    if len(nonce) == size + 1 and nonce[size] == 0:
        return nonce[:size]
    if len(nonce) != size:
        raise ProtocolError(f"the server's challenge has {len(nonce)} bytes instead of {size}")
    return nonce


def _xor(data: bytes, mask: bytes) -> bytes:
    """`data` XOR `mask`, which is repeated as often as needed."""
    return bytes(byte ^ mask[index % len(mask)] for index, byte in enumerate(data))


def _send_encrypted(challenge: Challenge, request: bytes) -> Generator[bytes, bytes, None]:
    """The password, encrypted with the RSA key that is known, or that `request` brings."""
    if challenge.public_key is not None:
        yield _encrypt(challenge, challenge.public_key)
    elif challenge.allow_public_key_retrieval or challenge.private:
        yield _encrypt(challenge, (yield request))
    else:
        raise OperationalError(
            "the server wants the password itself, over a connection that is not private: use TLS or a Unix socket,"
            " or give (public-key=FILE) or allow (allow-public-key-retrieval=true) the server's RSA key",
            CR_AUTH_PLUGIN_ERR,
        )


def _encrypt(challenge: Challenge, public_key: bytes) -> bytes:
    """RSA (OAEP, SHA-1) of the zero-terminated password, which is masked with the nonce."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding, rsa
    except ImportError:
        raise InterfaceError(
            "the server wants the password encrypted with RSA: pip install 'coro-loop[rsa]'"
        ) from None
    masked = _xor(challenge.password + b"\0", _nonce(challenge))
    try:
        key = serialization.load_pem_public_key(public_key)
        if not isinstance(key, rsa.RSAPublicKey):
            raise ValueError("not an RSA key")
        oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)
        return key.encrypt(masked, oaep)
    except (ValueError, UnsupportedAlgorithm) as error:
        message = f"the server's RSA key does not serve: {error}"
        if public_key is challenge.public_key:
            raise InterfaceError(message) from None
        raise ProtocolError(message) from None
