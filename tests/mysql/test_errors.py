"""Which class an error has, and what it says."""

from __future__ import annotations

import pickle

import pytest

from coro.errors import CoroError
from coro.mysql import errors
from coro.mysql.errors import Error, error_class


@pytest.mark.parametrize(
    ("code", "sqlstate", "expected"),
    [
        (1062, "23000", errors.IntegrityError),  # duplicate entry
        (1048, "23000", errors.IntegrityError),  # NULL in NOT NULL
        (1364, "HY000", errors.IntegrityError),  # no default
        (4025, "23000", errors.IntegrityError),  # CHECK, MariaDB
        (3819, "HY000", errors.IntegrityError),  # CHECK, MySQL
        (1264, "22003", errors.DataError),  # out of range
        (1406, "22001", errors.DataError),  # too long
        (1366, "22007", errors.DataError),  # incorrect value
        (1064, "42000", errors.ProgrammingError),  # syntax
        (1146, "42S02", errors.ProgrammingError),  # no such table
        (1054, "42S22", errors.ProgrammingError),  # no such column
        (1213, "40001", errors.OperationalError),  # deadlock
        (1205, "HY000", errors.OperationalError),  # lock wait timeout
        (1045, "28000", errors.OperationalError),  # access denied
        (1049, "42000", errors.OperationalError),  # unknown database
        (1040, "08004", errors.OperationalError),  # too many connections
        (1235, "42000", errors.NotSupportedError),
        (9999, "HY000", errors.OperationalError),
        (9999, "23999", errors.IntegrityError),
        (9999, "0A000", errors.NotSupportedError),
        (9999, "", errors.OperationalError),
    ],
)
def test_the_class_follows_the_number_then_the_sqlstate(code: int, sqlstate: str, expected: type[Error]) -> None:
    assert error_class(code, sqlstate) is expected


def test_the_classes_stand_as_pep_249_has_them() -> None:
    for name in ("Data", "Operational", "Integrity", "Internal", "Programming", "NotSupported"):
        assert issubclass(getattr(errors, name + "Error"), errors.DatabaseError)
    assert issubclass(errors.DatabaseError, errors.Error)
    assert issubclass(errors.InterfaceError, errors.Error)
    assert issubclass(errors.Error, CoroError)
    assert issubclass(errors.ProtocolError, errors.OperationalError)
    assert not issubclass(errors.Warning, errors.Error)


def test_an_error_names_the_server_the_number_and_the_sqlstate() -> None:
    error = errors.IntegrityError("Duplicate entry", 1062, "23000", "db1:3306")
    assert str(error) == "db1:3306: Duplicate entry (1062, SQLSTATE 23000)"


def test_an_error_without_server_and_number_is_its_message() -> None:
    assert str(errors.InterfaceError("bad MySQL URL")) == "bad MySQL URL"


def test_a_broken_stream_has_the_number_of_a_malformed_packet() -> None:
    assert errors.ProtocolError("x").code == 2027


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(errors.DataError("too long", 1406, "22001", "db1:3306")))
    assert (type(error), error.code, error.sqlstate, error.peer) == (errors.DataError, 1406, "22001", "db1:3306")
