"""The three short replies: OK, ERR and EOF. They end every exchange, and every result set.

    OK   0x00 (or 0xFE behind rows), affected rows, last insert id, status flags, warnings, information
    ERR  0xFF, error number, '#' and SQLSTATE, message
    EOF  0xFE, warnings, status flags             (less than 9 bytes; only without CLIENT_DEPRECATE_EOF)

Source: "Generic Response Packets" in the client/server protocol manual.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

from coro.mysql.errors import DatabaseError, ProtocolError, error_class
from coro.mysql.packets import Payload, lenenc_int

# The first byte of a reply, to be compared with `payload[:1]`: a packet may be empty
OK: Final = b"\x00"
ERR: Final = b"\xff"
EOF: Final = b"\xfe"
LOCAL_INFILE: Final = b"\xfb"

_EOF_LIMIT: Final = 9  # a row can start with 0xFE too, but is then longer than this
_STATUS_AND_WARNINGS: Final = Struct("<HH")


class Outcome(NamedTuple):
    """What an OK packet (or an EOF packet, as far as it goes) tells."""

    affected_rows: int
    last_insert_id: int
    status: int
    warnings: int


def parse_ok(payload: bytes) -> Outcome:
    """Reads an OK packet. Its information text is left aside. Raises ProtocolError."""
    try:
        affected_rows, position = lenenc_int(payload, 1)
        last_insert_id, position = lenenc_int(payload, position)
        status, warnings = _STATUS_AND_WARNINGS.unpack_from(payload, position)
    except (IndexError, StructError):
        raise ProtocolError("an OK packet is cut off") from None
    return Outcome(affected_rows, last_insert_id, status, warnings)


def is_eof(payload: bytes) -> bool:
    """Whether this is an EOF packet of a server that still sends them."""
    return len(payload) < _EOF_LIMIT and payload[:1] == EOF


def parse_eof(payload: bytes) -> Outcome:
    """Reads an EOF packet. Raises ProtocolError when it is something else."""
    if not is_eof(payload):
        raise ProtocolError("an EOF packet was due")
    fields = Payload(payload, 1)
    warnings = fields.integer(2)
    return Outcome(0, 0, fields.integer(2), warnings)


def parse_err(payload: bytes) -> DatabaseError:
    """The exception for an ERR packet. Before the handshake has agreed on a protocol it has no SQLSTATE."""
    fields = Payload(payload, 1)
    code = fields.integer(2)
    sqlstate = "HY000"
    if fields.data[fields.position : fields.position + 1] == b"#":
        sqlstate = fields.take(6)[1:].decode("ascii", "replace")
    message = fields.rest().decode("utf-8", "replace")
    return error_class(code, sqlstate)(message, code, sqlstate)


def expect_ok(payload: bytes) -> Outcome:
    """Reads a reply that can only be OK or ERR. Raises the server's error, or ProtocolError."""
    first = payload[:1]
    if first == OK:
        return parse_ok(payload)
    if first == ERR:
        raise parse_err(payload)
    raise ProtocolError(f"OK or an error was due, not {payload[:8].hex() or 'an empty packet'}")
