"""Where the fetcher may connect to: the public internet on the web's ports, and what the operator allows."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final, Self

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PUBLIC_PORTS: Final = frozenset({80, 443})
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


def is_public(address: Address) -> bool:
    """Whether the address belongs to the public internet, seen through every form that wraps an IPv4 address."""
    return all(part.is_global and not part.is_multicast for part in (address, *_wrapped(address)))


def _wrapped(address: Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address leads to: mapped, compatible, 6to4, Teredo, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found = [part for part in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())) if part is not None]
    if address in _NAT64 or address in _IPV4_COMPATIBLE:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found


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
        """From ``host``, ``host:port``, ``network`` or ``network:port``, separated by commas.

        An IPv6 address or network with a port stands in brackets. Raises ValueError naming the entry.
        """
        return cls(tuple(_parse(entry.strip()) for entry in text.split(",") if entry.strip()))

    def permits(self, host: str, address: Address, port: int) -> bool:
        """Whether a connection to ``address`` (which ``host`` resolved to) may be opened."""
        if any(entry.permits(host.lower().rstrip("."), address, port) for entry in self.entries):
            return True
        return port in PUBLIC_PORTS and is_public(address)


def _parse(text: str) -> _Entry:
    place, port = text, None
    if text.startswith("["):
        place, _, rest = text[1:].partition("]")
        if rest and not rest.startswith(":"):
            raise ValueError(f"fetch_allow: {text!r} has something other than a port behind the bracket")
        port = rest[1:] or None
    elif text.count(":") == 1:
        place, port = text.split(":")
    try:
        number = None if port in (None, "*") else int(port)
    except ValueError:
        raise ValueError(f"fetch_allow: {text!r} has no valid port") from None
    try:
        return _Entry(None, ipaddress.ip_network(place, strict=False), number)
    except ValueError:
        if "/" in place or not place:
            raise ValueError(f"fetch_allow: {text!r} is neither a host nor a network") from None
        return _Entry(place.lower().rstrip("."), None, number)
