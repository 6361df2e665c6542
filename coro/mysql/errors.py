"""What can go wrong with a MySQL server, as the exception classes of PEP 249.

An error that the server reports carries its number (`code`) and its SQLSTATE (`sqlstate`); a condition found
on this side carries the number that libmysqlclient has for it (2003: cannot connect, 2013: connection lost,
2027: broken stream). The class follows the number where the number is telling, else the class of the SQLSTATE
(its first two characters), else it is `OperationalError`.

After an error that the server reported the connection is in step and can be used again. After a
`ProtocolError`, or any 2013, it is not, and is closed.

Source: PEP 249; "Server Error Message Reference" and "Client Error Message Reference" of the MySQL manual.
"""

from __future__ import annotations

from typing import Final

from coro.errors import CoroError
from coro.mysql.constants import CR_MALFORMED_PACKET


class Warning(Exception):
    """An important warning. The client raises none; the name completes PEP 249's set."""


class Error(CoroError):
    """Base of all errors of this package: a message, the number `code`, and the `sqlstate`.

    `peer` tells which server it was ("host:port" or the path of the socket) where one is concerned.
    `outcome_unknown`: the statement had been sent, and the connection ended before its answer had come: it may have
    been carried out, or not. (A timeout or a cancellation in the middle of a statement means the same.)
    """

    outcome_unknown = False

    def __init__(self, message: str, code: int = 0, sqlstate: str = "HY000", peer: str = "") -> None:
        super().__init__(message, code, sqlstate, peer)
        self.message = message
        self.code = code
        self.sqlstate = sqlstate
        self.peer = peer

    def __str__(self) -> str:
        where = f"{self.peer}: " if self.peer else ""
        number = f" ({self.code}, SQLSTATE {self.sqlstate})" if self.code else ""
        return f"{where}{self.message}{number}"


class InterfaceError(Error):
    """The client was used in a way it cannot follow: a bad URL, a closed connection."""


class DatabaseError(Error):
    """Base of the errors that concern the database."""


class DataError(DatabaseError):
    """A value does not fit: out of range, too long, not of the column's type."""


class OperationalError(DatabaseError):
    """Not the program's fault: server away, login refused, deadlock, timeout, out of space."""


class IntegrityError(DatabaseError):
    """A constraint would be violated: duplicate key, foreign key, NOT NULL, CHECK."""


class InternalError(DatabaseError):
    """The database found itself in a state it should not be in."""


class ProgrammingError(DatabaseError):
    """The statement is wrong: syntax, a table or column that is not there, the number of parameters."""


class NotSupportedError(DatabaseError):
    """The server, or this client, does not support what was asked."""


class ProtocolError(OperationalError):
    """The server sent bytes that the protocol does not allow there. The connection is of no more use."""

    def __init__(
        self, message: str, code: int = CR_MALFORMED_PACKET, sqlstate: str = "HY000", peer: str = ""
    ) -> None:
        super().__init__(message, code, sqlstate, peer)


_BY_CODE: Final[dict[int, type[DatabaseError]]] = {
    code: error
    for error, codes in {
        # 1044 and 1045 access denied, 1049 unknown database, 1142 and 1143 no right on a table or column,
        # 1205 lock wait timeout, 1213 deadlock, 1290 and 1836 read-only, 1317 interrupted,
        # 1969 and 3024 time limit
        OperationalError: (1044, 1045, 1049, 1142, 1143, 1205, 1213, 1290, 1317, 1836, 1969, 3024),
        # 1048 NULL in NOT NULL, 1364 no default, 3819 and 4025 CHECK; 1216, 1217, 1451, 1452 foreign key;
        # the others duplicate key
        IntegrityError: (1022, 1048, 1062, 1169, 1216, 1217, 1364, 1451, 1452, 1557, 1586, 1761, 1762, 3819)
        + (4025,),
        # 1230 wrong value for a variable, 1264 out of range, 1265 truncated, 1292 and 1366 incorrect value,
        # 1365 division by zero, 1406 too long, 1411 incorrect argument, 1690 out of range in an expression
        DataError: (1230, 1264, 1265, 1292, 1365, 1366, 1406, 1411, 1690, 3140, 3156),
        NotSupportedError: (1112, 1178, 1235, 1286, 1289, 1295, 1508),
        ProgrammingError: (1007, 1008, 1046, 1054, 1064, 1102, 1103, 1109, 1146, 1210, 1243, 1305),
    }.items()
    for code in codes
}

_BY_SQLSTATE_CLASS: Final[dict[str, type[DatabaseError]]] = {
    "02": DataError,
    "07": ProgrammingError,
    "0A": NotSupportedError,
    "20": ProgrammingError,
    "21": ProgrammingError,
    "22": DataError,
    "23": IntegrityError,
    "24": ProgrammingError,
    "25": ProgrammingError,
    "34": ProgrammingError,
    "3D": ProgrammingError,
    "42": ProgrammingError,
    "XA": IntegrityError,
}


def error_class(code: int, sqlstate: str) -> type[DatabaseError]:
    """The class for an error that a server reported."""
    return _BY_CODE.get(code) or _BY_SQLSTATE_CLASS.get(sqlstate[:2]) or OperationalError
