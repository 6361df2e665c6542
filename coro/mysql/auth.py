"""Authentication plugins: how a password is proved to the server.

A plugin is a generator over the plugin's own messages: the first value it yields answers the server's
challenge, each later one answers the `AuthMoreData` that it was resumed with. When it returns, it has nothing
more to say. To add a plugin, write such a function and enter it in `PLUGINS`.

The rule: what a reader of the wire could log in with goes out only when the channel is private
(`Challenge.private`), or encrypted with a key that the caller gave or allowed to ask for. An answer to the
server's random challenge is not such a thing.

Source: "Native Authentication" and "Caching_sha2_password information" in the client/server protocol manual.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from typing import Final

from coro.mysql.constants import CR_AUTH_PLUGIN_ERR
from coro.mysql.errors import InterfaceError, OperationalError, ProtocolError

NONCE_SIZE: Final = 20


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a plugin has to go by."""

    password: bytes = field(repr=False)
    nonce: bytes  # the server's random bytes; how many, and what ends them, is the plugin's business
    private: bool  # nobody but the server can read what is sent: the password itself may go out
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
    elif challenge.public_key is not None:
        yield _encrypt(challenge, challenge.public_key)
    elif challenge.allow_public_key_retrieval:
        yield _encrypt(challenge, (yield _REQUEST_PUBLIC_KEY))
    else:
        raise OperationalError(
            "the server wants the password itself, over a connection that is not private:"
            " use TLS or a Unix socket, or give or allow the server's RSA key",
            CR_AUTH_PLUGIN_ERR,
        )
    raise ProtocolError("caching_sha2_password: more data after the password")


PLUGINS: Final[dict[str, Plugin]] = {
    "mysql_native_password": mysql_native_password,
    "caching_sha2_password": caching_sha2_password,
}


def _nonce(challenge: Challenge) -> bytes:
    """The 20 random bytes that both plugins here work with; a zero byte ends them."""
    nonce = challenge.nonce
    if len(nonce) == NONCE_SIZE + 1 and nonce[NONCE_SIZE] == 0:
        return nonce[:NONCE_SIZE]
    if len(nonce) != NONCE_SIZE:
        raise ProtocolError(f"the server's challenge has {len(nonce)} bytes instead of {NONCE_SIZE}")
    return nonce


def _xor(data: bytes, mask: bytes) -> bytes:
    """`data` XOR `mask`, which is repeated as often as needed."""
    return bytes(byte ^ mask[index % len(mask)] for index, byte in enumerate(data))


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
        message = f"caching_sha2_password: the server's RSA key does not serve: {error}"
        if public_key is challenge.public_key:
            raise InterfaceError(message) from None
        raise ProtocolError(message) from None
