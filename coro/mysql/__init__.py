"""A client for MySQL and MariaDB: `pool = coro.mysql.Pool("mysql://user:password@host/database")`.

    row = yield from pool.fetch_one("SELECT name, size FROM uploads WHERE id = ?", upload_id)

Protocol 4.1 over TCP, TLS and Unix sockets, with failover among several servers; statements with parameters are
prepared on the server; errors are the classes of PEP 249. The bytes are understood in modules that do no I/O
(`packets`, `handshake`, `auth`, `commands`, `rows`, ...); `channel`, `login`, `connection`, `servers`, `pool` perform.
"""

from coro.mysql.columns import Column
from coro.mysql.commands import Result
from coro.mysql.connection import Connection, Isolation, Queries
from coro.mysql.errors import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    ProtocolError,
    Warning,
)
from coro.mysql.parameters import Parameter
from coro.mysql.pool import Pool
from coro.mysql.rows import Row
from coro.mysql.servers import connect
from coro.mysql.sources import LongData
from coro.mysql.streaming import RowStream

__all__ = [
    "Column",
    "Connection",
    "DataError",
    "DatabaseError",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "Isolation",
    "LongData",
    "NotSupportedError",
    "OperationalError",
    "Parameter",
    "Pool",
    "ProgrammingError",
    "ProtocolError",
    "Queries",
    "Result",
    "Row",
    "RowStream",
    "Warning",
    "connect",
]
