"""Who the client is, behind proxies: what `X-Forwarded-For` says, as far as those who say it are trusted.

Each proxy appends the address that it was connected from. So the last address is the word of the proxy at the other end
of our connection, the one before it that of the proxy before, and so on; the first that is not a trusted proxy's
is the client's. All before it may be invented.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

MAX_PROXIES = 32  # one behind another: each costs a look at all networks, and anybody can write thousands
UNIX = "unix"  # stands for whoever is at the other end of a Unix socket


def host_of(address: str) -> str:
    """The host of `192.0.2.1:80`, `[::1]:80`, or either without a port; `unix` for a Unix socket."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    host, colon, port = address.rpartition(":")
    if colon and ":" not in host and port.isdecimal():
        return host
    return address if ":" in address or address.count(".") == 3 else UNIX


class Proxies:
    """The proxies whose word counts: addresses, networks (`10.0.0.0/8`), and `unix`. ValueError for anything else."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        trusted = set(trusted)
        self._unix = UNIX in trusted
        self._networks = [ipaddress.ip_network(network) for network in sorted(trusted - {UNIX})]

    def trusts(self, host: str) -> bool:
        """Is a proxy that is configured at this address?"""
        if host == UNIX:
            return self._unix
        if not self._networks:
            return False
        address = _address(host)
        return address is not None and any(address in network for network in self._networks)

    def client(self, host: str, forwarded_for: str) -> str:
        """The client's address, for a connection from `host` with the given `X-Forwarded-For`."""
        if not forwarded_for:
            return host
        addresses = forwarded_for.rsplit(",", MAX_PROXIES)
        while addresses and self.trusts(host):
            said = addresses.pop()
            address = _address(host_of(said.strip()))
            if address is None or "%" in said:  # which would begin a zone: of this machine only, and any text
                break  # no address: the proxy's own is the best that is known
            host = str(address)
        return host


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
