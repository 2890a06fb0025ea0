"""Where connections may lead: the public internet on the web's ports, and what the operator allows."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Self

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PUBLIC_PORTS: Final = frozenset({80, 443})
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
#: The only part of IPv6 that is given out on the internet.
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
#: Not for web servers either, though some versions of Python's ``ipaddress`` call them global.
_CLOSED: Final[tuple[Network, ...]] = (
    ipaddress.IPv4Network("192.0.0.0/24"),  # protocol assignments; a cloud's metadata service lives here
    ipaddress.IPv4Network("192.88.99.0/24"),  # 6to4 relays
    ipaddress.IPv4Network("168.63.129.16/32"),  # another cloud's own services, as seen by its machines
    ipaddress.IPv6Network("2001::/23"),  # protocol assignments, Teredo among them
    ipaddress.IPv6Network("2001:db8::/32"),  # documentation
    ipaddress.IPv6Network("2002::/16"),  # 6to4: wraps any IPv4 address
    ipaddress.IPv6Network("3fff::/20"),  # documentation
)
#: Bits 32 to 63 from the right of an address that ISATAP makes of an IPv4 address, with the local bit and without.
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
_HOST: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_PORTS: Final = range(1, 65536)


def is_public(address: Address) -> bool:
    """Whether the address belongs to the public internet. Every form that wraps an IPv4 address is refused, but for
    NAT64 around a public one: networks without IPv4 reach the rest of the internet by it."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _GLOBAL_UNICAST or (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
            return False
    closed = any(address in network for network in _CLOSED)
    return address.is_global and not address.is_multicast and not closed


def is_open_to_all(address: Address, port: int) -> bool:
    """Whether it is a public web address, which needs no entry."""
    return port in PUBLIC_PORTS and is_public(address)


@dataclass(frozen=True, slots=True)
class _Entry:
    """``port`` None: any port."""

    host: str | None
    network: Network | None
    port: int | None

    def permits(self, host: str, address: Address, port: int) -> bool:
        if self.port is not None and port != self.port:
            return False
        if self.network is not None:
            return address in self.network
        return self.host == host


@dataclass(frozen=True, slots=True)
class AllowList:
    """Hosts and networks that are open although they are private, or on another port than 80 and 443."""

    entries: tuple[_Entry, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``host``, ``host:port``, ``network`` or ``network:port``, separated by commas; port ``*`` is any port.

        An IPv6 address or network with a port stands in brackets. Raises ValueError naming the entry.
        """
        return cls(tuple(_parse(entry.strip()) for entry in text.split(",") if entry.strip()))

    def permits(self, host: str, address: Address, port: int) -> bool:
        """Whether a connection to ``address`` (which ``host`` resolved to) may be opened."""
        return is_open_to_all(address, port) or bool(self._entries_for(host, address, port))

    def names_the_port(self, host: str, address: Address, port: int) -> bool:
        """Whether an entry permits just this port of that host or address."""
        return any(entry.port == port for entry in self._entries_for(host, address, port))

    def _entries_for(self, host: str, address: Address, port: int) -> list[_Entry]:
        name = host.lower().rstrip(".")
        return [entry for entry in self.entries if entry.permits(name, address, port)]


def _parse(text: str) -> _Entry:
    place, port = text, None
    if text.startswith("["):
        place, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(f"fetch_allow: {text!r} is not an address in brackets, with or without a port")
        port = rest[1:] if rest else None
    elif text.count(":") == 1:
        place, port = text.split(":")
    number = None
    if port not in (None, "*"):
        number = int(port) if re.fullmatch(r"[0-9]{1,5}", port) else 0
        if number not in _PORTS:
            raise ValueError(f"fetch_allow: {text!r} has no valid port")
    try:
        return _Entry(None, ipaddress.ip_network(place, strict=False), number)
    except ValueError:
        host = place.lower().rstrip(".")
        # A name that ends in a number is a mistyped address.
        if text.startswith("[") or not _HOST.fullmatch(host) or host.rpartition(".")[2].isdigit():
            raise ValueError(f"fetch_allow: {text!r} is neither a host nor a network") from None
        return _Entry(host, None, number)
