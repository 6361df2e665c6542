"""Places on earth, in sorted sets.

Specification: https://redis.io/docs/latest/commands/?group=geo
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coro.redis.commands.base import Key, S, Sender, flags, option
from coro.redis.replies import as_float, places, positions, texts
from coro.redis.resp import Argument
from coro.task import Coro


class GeoCommands(Sender[S]):
    """Commands on places. Units are "m", "km", "mi", "ft"; coordinates are (longitude, latitude), in degrees."""

    def geoadd(
        self, name: Key, values: Sequence[Argument], nx: bool = False, xx: bool = False, ch: bool = False
    ) -> Coro[int]:
        """Add places: longitude, latitude, member, in turns; how many are new, with `ch` how many are new or moved."""
        if len(values) % 3:
            raise ValueError("geoadd takes longitude, latitude and member of each place")
        return self._send((b"GEOADD", name, *flags(nx=nx, xx=xx, ch=ch), *values))

    def geodist(self, name: Key, place1: Argument, place2: Argument, unit: str | None = None) -> Coro[float | None]:
        """The distance between two places, in metres unless told otherwise; None if one is not there."""
        return self._send((b"GEODIST", name, place1, place2, *([] if unit is None else [unit])), as_float)

    def geohash(self, name: Key, *values: Argument) -> Coro[list[str | None]]:
        """The geohash of each place; None for one that is not there."""
        return self._send((b"GEOHASH", name, *values), texts)

    def geopos(self, name: Key, *values: Argument) -> Coro[list[tuple[float, float] | None]]:
        """The coordinates of each place; None for one that is not there."""
        return self._send((b"GEOPOS", name, *values), positions)

    def geosearch(
        self,
        name: Key,
        member: Argument | None = None,
        longitude: float | None = None,
        latitude: float | None = None,
        unit: str = "m",
        radius: float | None = None,
        width: float | None = None,
        height: float | None = None,
        sort: str | None = None,
        count: int | None = None,
        any: bool = False,
        withcoord: bool = False,
        withdist: bool = False,
        withhash: bool = False,
    ) -> Coro[list[Any]]:
        """The places around `member`, or around coordinates, in a circle of `radius` or a box of `width` x `height`.

        With any of the `with...`, each is a list: the member, its distance, geohash number, coordinates. `sort` is
        "ASC" or "DESC", by distance; with `count` up to so many, the nearest, or with `any` some.
        """
        where = _area(member, longitude, latitude, unit, radius, width, height)
        options = [*_choice(sort, count, any), *flags(withcoord=withcoord, withdist=withdist, withhash=withhash)]
        convert = places(withdist, withhash, withcoord) if withdist or withhash or withcoord else None
        return self._send((b"GEOSEARCH", name, *where, *options), convert)

    def geosearchstore(
        self,
        dest: Key,
        name: Key,
        member: Argument | None = None,
        longitude: float | None = None,
        latitude: float | None = None,
        unit: str = "m",
        radius: float | None = None,
        width: float | None = None,
        height: float | None = None,
        sort: str | None = None,
        count: int | None = None,
        any: bool = False,
        storedist: bool = False,
    ) -> Coro[int]:
        """Store what `geosearch` returns, with `storedist` by distance; how many places that are."""
        where = _area(member, longitude, latitude, unit, radius, width, height)
        options = [*_choice(sort, count, any), *flags(storedist=storedist)]
        return self._send((b"GEOSEARCHSTORE", dest, name, *where, *options))


def _area(
    member: Argument | None,
    longitude: float | None,
    latitude: float | None,
    unit: str,
    radius: float | None,
    width: float | None,
    height: float | None,
) -> list[Argument]:
    area: list[Argument] = []
    if member is not None and longitude is None and latitude is None:
        area += (b"FROMMEMBER", member)
    elif member is None and longitude is not None and latitude is not None:
        area += (b"FROMLONLAT", longitude, latitude)
    else:
        raise ValueError("a search is around a member, or around a longitude and a latitude")
    if radius is not None and width is None and height is None:
        area += (b"BYRADIUS", radius, unit)
    elif radius is None and width is not None and height is not None:
        area += (b"BYBOX", width, height, unit)
    else:
        raise ValueError("a search has a radius, or a width and a height")
    return area


def _choice(sort: str | None, count: int | None, any: bool) -> list[Argument]:
    if any and count is None:
        raise ValueError("any=True says nothing without a count")
    return [*([] if sort is None else [sort]), *option(b"COUNT", count), *flags(any=any)]
