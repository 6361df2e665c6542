"""Numbers of the client/server protocol, under the names that the MySQL manual gives them.

Source: https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html (capability flags, status flags,
commands, field types, column flags) and the client error numbers of the reference manual.
"""

from __future__ import annotations

from typing import Final

# Capability flags
CLIENT_LONG_PASSWORD: Final = 1 << 0
CLIENT_LONG_FLAG: Final = 1 << 2
CLIENT_CONNECT_WITH_DB: Final = 1 << 3
CLIENT_COMPRESS: Final = 1 << 5
CLIENT_LOCAL_FILES: Final = 1 << 7
CLIENT_PROTOCOL_41: Final = 1 << 9
CLIENT_SSL: Final = 1 << 11
CLIENT_TRANSACTIONS: Final = 1 << 13
CLIENT_SECURE_CONNECTION: Final = 1 << 15
CLIENT_MULTI_RESULTS: Final = 1 << 17
CLIENT_PS_MULTI_RESULTS: Final = 1 << 18
CLIENT_PLUGIN_AUTH: Final = 1 << 19
CLIENT_CONNECT_ATTRS: Final = 1 << 20
CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA: Final = 1 << 21
CLIENT_SESSION_TRACK: Final = 1 << 23
CLIENT_DEPRECATE_EOF: Final = 1 << 24
CLIENT_ZSTD_COMPRESSION_ALGORITHM: Final = 1 << 26
CLIENT_MULTI_FACTOR_AUTHENTICATION: Final = 1 << 28
MARIADB_CLIENT_STMT_BULK_OPERATIONS: Final = 1 << 34  # those above 31 are MariaDB's, and travel in a field of their own

# Commands: the first byte of a request
COM_QUIT: Final = 0x01
COM_QUERY: Final = 0x03
COM_PING: Final = 0x0E
COM_CHANGE_USER: Final = 0x11
COM_STMT_PREPARE: Final = 0x16
COM_STMT_EXECUTE: Final = 0x17
COM_STMT_SEND_LONG_DATA: Final = 0x18
COM_STMT_CLOSE: Final = 0x19
COM_STMT_BULK_EXECUTE: Final = 0xFA  # MariaDB's
COM_STMT_FETCH: Final = 0x1C
COM_RESET_CONNECTION: Final = 0x1F

# Cursor types of COM_STMT_EXECUTE
CURSOR_TYPE_NO_CURSOR: Final = 0
CURSOR_TYPE_READ_ONLY: Final = 1

# Server status flags
SERVER_STATUS_IN_TRANS: Final = 0x0001
SERVER_STATUS_AUTOCOMMIT: Final = 0x0002
SERVER_MORE_RESULTS_EXISTS: Final = 0x0008
SERVER_STATUS_CURSOR_EXISTS: Final = 0x0040
SERVER_STATUS_LAST_ROW_SENT: Final = 0x0080
SERVER_STATUS_IN_TRANS_READONLY: Final = 0x2000
SERVER_SESSION_STATE_CHANGED: Final = 0x4000

# Field types
MYSQL_TYPE_DECIMAL: Final = 0x00
MYSQL_TYPE_TINY: Final = 0x01
MYSQL_TYPE_SHORT: Final = 0x02
MYSQL_TYPE_LONG: Final = 0x03
MYSQL_TYPE_FLOAT: Final = 0x04
MYSQL_TYPE_DOUBLE: Final = 0x05
MYSQL_TYPE_NULL: Final = 0x06
MYSQL_TYPE_TIMESTAMP: Final = 0x07
MYSQL_TYPE_LONGLONG: Final = 0x08
MYSQL_TYPE_INT24: Final = 0x09
MYSQL_TYPE_DATE: Final = 0x0A
MYSQL_TYPE_TIME: Final = 0x0B
MYSQL_TYPE_DATETIME: Final = 0x0C
MYSQL_TYPE_YEAR: Final = 0x0D
MYSQL_TYPE_NEWDATE: Final = 0x0E
MYSQL_TYPE_VARCHAR: Final = 0x0F
MYSQL_TYPE_BIT: Final = 0x10
MYSQL_TYPE_JSON: Final = 0xF5
MYSQL_TYPE_NEWDECIMAL: Final = 0xF6
MYSQL_TYPE_ENUM: Final = 0xF7
MYSQL_TYPE_SET: Final = 0xF8
MYSQL_TYPE_TINY_BLOB: Final = 0xF9
MYSQL_TYPE_MEDIUM_BLOB: Final = 0xFA
MYSQL_TYPE_LONG_BLOB: Final = 0xFB
MYSQL_TYPE_BLOB: Final = 0xFC
MYSQL_TYPE_VAR_STRING: Final = 0xFD
MYSQL_TYPE_STRING: Final = 0xFE
MYSQL_TYPE_GEOMETRY: Final = 0xFF

# Column flags
UNSIGNED_FLAG: Final = 1 << 5

# Character sets and collations, by collation id
BINARY_CHARSET: Final = 63
UTF8MB4_GENERAL_CI: Final = 45

# Client error numbers: conditions that the client finds, numbered as libmysqlclient numbers them
CR_CONN_HOST_ERROR: Final = 2003
CR_VERSION_ERROR: Final = 2007
CR_SERVER_LOST: Final = 2013
CR_NET_PACKET_TOO_LARGE: Final = 2020
CR_SSL_CONNECTION_ERROR: Final = 2026
CR_MALFORMED_PACKET: Final = 2027
CR_INVALID_PARAMETER_NO: Final = 2034
CR_AUTH_PLUGIN_CANNOT_LOAD: Final = 2059
CR_AUTH_PLUGIN_ERR: Final = 2061
CR_LOAD_DATA_LOCAL_INFILE_REJECTED: Final = 2068
