"""Performs exchanges with a server over a stream: the one place of this package where bytes leave and arrive.

The rule: an exchange that was interrupted (cancelled, timed out, lost, out of protocol) closes the stream at
once and for good, so that nobody can read the answer to another's question. An error that the server reports
ends its exchange, and the next one can follow. Nothing is ever sent twice.
"""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress
from typing import Final, TypeVar

from coro.errors import BusyError, Cancelled
from coro.mysql import constants as c
from coro.mysql.errors import DatabaseError, InterfaceError, OperationalError, ProtocolError
from coro.mysql.packets import Exchange, Framer, Need
from coro.mysql.replies import ERR, parse_err
from coro.net import Stream
from coro.task import Coro

T = TypeVar("T")

_FIRST_READ: Final = 16 << 10  # bytes; most answers are small
_NEXT_READ: Final = 64 << 10
_PEER_CLOSED: Final = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_OUT_OF_STEP: Final = (c.CR_SERVER_LOST, c.CR_SSL_CONNECTION_ERROR)
# ER_SERVER_SHUTDOWN, ER_CONNECTION_KILLED, ER_SESSION_WAS_KILLED, ER_CLIENT_INTERACTION_TIMEOUT: the session has ended
_ENDED: Final = (1053, 1927, 3169, 4031)


class Channel:
    """A stream to the server at `peer`. One exchange at a time.

    `holder` is who has an answer under way that takes several exchanges to read; nobody else may begin one.
    """

    def __init__(self, stream: Stream, peer: str) -> None:
        self.stream = stream
        self.peer = peer
        self.framer = Framer()
        self.closed = False
        self.holder: object = None
        self.interrupted = False  # in the middle of an exchange, by cancellation
        self.lingers = False  # when interrupted, keep the stream open until `abort`, and so the session and its id
        self._busy = False
        self._ahead = b""

    def perform(
        self, exchange: Exchange[T], *, by: object = None, tls: tuple[ssl.SSLContext, str] | None = None
    ) -> Coro[T]:
        """Does what an exchange asks for, to its end; its result. Suspends.

        `by` is the holder, when it is the holder who asks. `tls` is the context and the host's name for an
        exchange that asks for TLS. Raises what the exchange raises; OperationalError 2013 when the connection is
        lost, 2026 when TLS fails; InterfaceError, BusyError.
        """
        if self.closed:
            raise InterfaceError("the connection is closed", peer=self.peer)
        if self._busy:
            raise BusyError(f"two tasks use the connection to {self.peer} at once: take one each, from a pool")
        if self.holder is not by:
            raise BusyError(f"the connection to {self.peer} is taken until this has ended: {self.holder!r}")
        stream, framer = self.stream, self.framer
        self._busy = True
        in_step = sent = False
        limit = _FIRST_READ
        try:
            while True:
                step = next(exchange)
                if step is Need.DATA:
                    data = yield from stream.read(limit)
                    if not data:
                        raise self._lost("the server closed the connection")
                    framer.feed(data)
                    limit = _NEXT_READ
                elif step is Need.TLS:
                    assert tls is not None
                    yield from self._start_tls(*tls)
                else:
                    sent = True
                    yield from stream.write(self._ahead + step if self._ahead else step)
                    self._ahead = b""
        except StopIteration as stop:
            in_step = True
            result: T = stop.value
            return result
        except ProtocolError as error:
            raise self._about(self._farewell() or error, sent) from None
        except DatabaseError as error:
            in_step = error.code not in _OUT_OF_STEP + _ENDED
            self._about(error, sent and not in_step)
            raise
        except OSError as error:
            if isinstance(error, _PEER_CLOSED):  # it may have said why, and closed while we were sending
                with suppress(OSError):
                    framer.feed((yield from stream.read()))
            raise self._about(self._farewell() or self._lost(reason(error)), sent) from error
        except (Cancelled, GeneratorExit):
            self.interrupted = True
            raise
        finally:
            self._busy = False
            if not in_step:
                self.give_up()

    def send_ahead(self, command: bytes) -> None:
        """Sends a command that has no answer, with the next one that has. Does not suspend."""
        self._ahead += command

    def is_silent(self) -> bool:
        """Whether the connection is open, and the server says nothing. Does not suspend.

        A server that says something while it is not asked is saying farewell: it was shut down, or the
        session was killed or idle for too long. So is one whose end of the connection is closed.
        """
        if self.stream.closed:
            return False
        try:
            socket.socket.recv(self.stream.socket.sock, 1, socket.MSG_PEEK)  # below TLS, if there is any
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Ends the session: says so to the server, without waiting, closes the socket. Can be repeated."""
        if not (self.closed or self._busy or self.holder):
            with suppress(OSError, ProtocolError):
                self.stream.socket.sock.send(self.framer.command(bytes((c.COM_QUIT,))))
        self.abort()

    def give_up(self) -> None:
        """Closes the channel for further use, and the socket unless it lingers. Can be repeated."""
        self.closed = True
        if not (self.interrupted and self.lingers):
            self.stream.close()

    def abort(self) -> None:
        """Closes the socket. The server notices, and rolls back what is open. Can be repeated."""
        self.closed = True
        self.stream.close()

    def _start_tls(self, context: ssl.SSLContext, host: str) -> Coro[None]:
        try:
            yield from self.stream.start_tls(context, server_hostname=host)
        except ssl.SSLError as error:
            raise OperationalError(f"TLS: {reason(error)}", c.CR_SSL_CONNECTION_ERROR) from error

    def _farewell(self) -> DatabaseError | None:
        """The error with which the server ended the session, if it said one."""
        payload = self.framer.farewell()
        if payload[:1] != ERR:
            return None
        return parse_err(payload)

    def _about(self, error: DatabaseError, unknown: bool) -> DatabaseError:
        error.peer = self.peer
        error.outcome_unknown = unknown
        return error

    def _lost(self, why: str) -> OperationalError:
        return OperationalError(f"lost the connection ({why})", c.CR_SERVER_LOST, "08S01")


def reason(error: OSError) -> str:
    """What went wrong, in the words that a message is made of."""
    if isinstance(error, ssl.SSLCertVerificationError):
        message = f"the server's certificate does not pass: {error.verify_message}"
        return message + "; name who signed it with ca=FILE in the URL, or encrypt only, with tls=required"
    if isinstance(error, ssl.SSLError) or not error.errno or error.errno < 0:
        return str(error.strerror or error)
    return os.strerror(error.errno)
