"""From a target to a session: connects to a server, with TLS as it is asked for, and logs in.

Source: "Connection Phase" in the client/server protocol manual; the `--ssl-mode` option of MySQL's programs.
"""

from __future__ import annotations

import os
import platform
import ssl
import sys

from coro import __version__
from coro.mysql import constants as c
from coro.mysql.channel import Channel, reason
from coro.mysql.compression import CODECS, CompressedFramer
from coro.mysql.connection import Connection
from coro.mysql.errors import DatabaseError, InterfaceError, OperationalError
from coro.mysql.handshake import Login, Tls, login
from coro.mysql.url import Target, TlsMode, is_this_machine
from coro.net import Stream, connect_unix
from coro.net import connect as connect_tcp
from coro.task import Coro


def connect_to(target: Target, context: ssl.SSLContext | None) -> Coro[Connection]:
    """A new session, with the settings that all of them have. Suspends.

    Raises OperationalError (2003: no connection can be made; 1045: access denied; ...).
    """
    codec = CODECS[target.compress]() if target.compress else None
    try:
        if target.socket:
            stream = yield from connect_unix(target.socket)
        else:
            stream = yield from connect_tcp(target.host, target.port)
    except OSError as error:
        raise OperationalError(
            f"cannot connect: {reason(error)}", c.CR_CONN_HOST_ERROR, "08001", target.peer
        ) from error
    channel = Channel(stream, target.peer)
    try:
        exchange = login(channel.framer, _login(target, stream))
        session = yield from channel.perform(exchange, tls=(context, target.host) if context else None)
        if codec is not None:
            channel.framer = CompressedFramer(codec)
        connection = Connection(channel, session)
        yield from connection.settle()
    except BaseException as error:
        channel.abort()
        if isinstance(error, DatabaseError):
            error.outcome_unknown = False  # no statement was sent
        raise
    return connection


def tls_context(target: Target) -> ssl.SSLContext | None:
    """The TLS settings that the target asks for. Reads files; InterfaceError when one cannot be read."""
    if target.socket or target.tls is TlsMode.DISABLED:
        return None
    if target.tls in (TlsMode.PREFERRED, TlsMode.REQUIRED):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        try:
            context = ssl.create_default_context(cafile=target.ca or None)
        except OSError as error:
            message = f"cannot use the CA file {target.ca}: {reason(error)}"
            raise InterfaceError(message, peer=target.peer) from None
        context.check_hostname = target.tls is TlsMode.VERIFY_IDENTITY
    if target.cert:
        try:
            context.load_cert_chain(target.cert, target.key or None, password=_no_passphrase)
        except OSError as error:
            message = f"cannot use the certificate {target.cert}: {reason(error)}"
            raise InterfaceError(message, peer=target.peer) from None
    return context


def _no_passphrase() -> str:
    raise OSError("its key is encrypted")


def _login(target: Target, stream: Stream) -> Login:
    if target.socket or target.tls is TlsMode.DISABLED:
        tls = Tls.NO
    else:
        tls = Tls.IF_OFFERED if target.tls is TlsMode.PREFERRED else Tls.MUST
    here = not target.socket and is_this_machine(stream.socket.sock.getpeername()[0])
    private = bool(target.socket) or tls is Tls.MUST or (tls is Tls.IF_OFFERED and here)
    return Login(
        user=target.user,
        password=target.password,
        further_passwords=target.further_passwords,
        database=target.database,
        tls=tls,
        private=private,
        public_key=_read_public_key(target),
        allow_public_key_retrieval=target.allow_public_key_retrieval,
        allow_cleartext=target.allow_cleartext,
        compress=target.compress,
        local_infile=target.local_infile,
        attributes=_attributes(),
    )


def _attributes() -> dict[str, str]:
    """What performance_schema.session_connect_attrs is to show, under the names that MySQL's programs use."""
    return {
        "program_name": os.path.basename(sys.argv[0]),
        "_client_name": "coro",
        "_client_version": __version__,
        "_os": platform.system(),
        "_platform": platform.machine(),
        "_pid": str(os.getpid()),
    }


def _read_public_key(target: Target) -> bytes | None:
    if not target.public_key:
        return None
    try:
        with open(target.public_key, "rb") as file:
            return file.read()
    except OSError as error:
        raise InterfaceError(
            f"cannot read the server's public key {target.public_key}: {reason(error)}", peer=target.peer
        ) from None
