"""Ed25519 signatures, with a secret of any length: MariaDB's `client_ed25519` signs with the password itself.

That is all in which it differs from RFC 8032, whose secret has 32 bytes, and why no common library can do it. The
secret is hashed; half of the hash is the scalar, the other half makes the signature's own random number.

A point is (X, Y, Z, T) with x = X/Z, y = Y/Z, x*y = T/Z. Multiples of the base point are added up out of a table, one
for each four bits, zero or not, so that the number of steps does not depend on the secret. Python's integers are
still not constant in time; a login is one signature and a round trip, which drowns it.

Source: RFC 8032, sections 5.1.4 to 5.1.6.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha512
from typing import Final

_Point = tuple[int, int, int, int]

_P: Final = 2**255 - 19
_L: Final = 2**252 + 27742317777372353535851937790883648493  # order of the base point
_2D: Final = 2 * -121665 * pow(121666, -1, _P) % _P
_ZERO: Final[_Point] = (0, 1, 1, 0)
_X: Final = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_Y: Final = 4 * pow(5, -1, _P) % _P
_BASE: Final[_Point] = (_X, _Y, 1, _X * _Y % _P)
_DIGITS: Final = 64  # of four bits each, in a scalar


def sign(secret: bytes, message: bytes) -> bytes:
    """The signature of `message`, 64 bytes."""
    digest = sha512(secret).digest()
    scalar = int.from_bytes(digest[:32], "little") & ((1 << 254) - 8) | 1 << 254
    public_key = _encoded(_times_base(scalar))
    number = _hashed(digest[32:], message)
    head = _encoded(_times_base(number))
    tail = (number + _hashed(head, public_key, message) * scalar) % _L
    return head + tail.to_bytes(32, "little")


def _hashed(*parts: bytes) -> int:
    return int.from_bytes(sha512(b"".join(parts)).digest(), "little") % _L


def _add(a: _Point, b: _Point) -> _Point:
    x1, y1, z1, t1 = a
    x2, y2, z2, t2 = b
    minus, plus = (y1 - x1) * (y2 - x2) % _P, (y1 + x1) * (y2 + x2) % _P
    c, d = t1 * _2D * t2 % _P, 2 * z1 * z2 % _P
    e, f, g, h = plus - minus, d - c, d + c, plus + minus
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


@cache
def _multiples() -> list[list[_Point]]:
    """For each digit of a scalar the point that it stands for, 0 to 15. Made at the first signature, in 5 ms."""
    table: list[list[_Point]] = []
    power = _BASE
    for _ in range(_DIGITS):
        row = [_ZERO]
        for _ in range(15):
            row.append(_add(row[-1], power))
        table.append(row)
        power = _add(row[-1], power)
    return table


def _times_base(scalar: int) -> _Point:
    point = _ZERO
    for row in _multiples():
        point = _add(point, row[scalar & 15])
        scalar >>= 4
    return point


def _encoded(point: _Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, -1, _P)
    return (y * inverse % _P | (x * inverse % _P & 1) << 255).to_bytes(32, "little")
