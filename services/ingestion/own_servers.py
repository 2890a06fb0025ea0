"""The servers of this installation itself: no entry of the allow list opens them to requests.

A network that is opened for the sake of one web server may hold Kafka and Redis as well.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from services.ingestion.addresses import Address
from services.ingestion.lookup import LookUps
from shared.contracts.errors import TonestreamError
from shared.settings import Settings

_LOOK_UP_S: Final = 3.0
#: How long an address holds for a name, seconds. A server that moved is looked up anew.
_KEPT_S: Final = 60.0
_KAFKA_PORT: Final = 9092
_REDIS_PORT: Final = 6379


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server that the services connect to."""

    host: str
    port: int


def endpoints(settings: Settings) -> tuple[Endpoint, ...]:
    """Kafka's brokers and Redis, as the settings name them."""
    found = [_endpoint(f"//{server.strip()}", _KAFKA_PORT) for server in settings.kafka_bootstrap_servers.split(",")]
    redis_url = settings.redis_url.get_secret_value()
    if redis_url.startswith(("redis:", "rediss:")):
        found.append(_endpoint(redis_url, _REDIS_PORT))
    return tuple(found)


def _endpoint(url: str, port: int) -> Endpoint:
    split = urlsplit(url)
    return Endpoint(split.hostname or "localhost", split.port or port)


class OwnServers:
    """Knows the addresses of ``servers``. Safe from many threads."""

    def __init__(self, servers: Iterable[Endpoint] = (), look_ups: LookUps | None = None) -> None:
        self._servers = tuple(servers)
        self._look_ups = look_ups or LookUps()
        self._lock = threading.Lock()
        self._known: dict[Endpoint, tuple[frozenset[Address], float]] = {}

    def cover(self, address: Address, port: int, named: bool) -> bool:
        """Whether a connection to ``address`` would reach one of the servers.

        On another machine all its ports are closed, but for those that the allow list has ``named``: a broker listens
        on more than one. On this machine only the server's own is. Where its name cannot be looked up, its port is
        closed wherever it leads.
        """
        address = _plain(address)
        for server in self._servers:
            addresses = self._addresses(server)
            if addresses is None:
                if port == server.port:
                    return True
            elif address in addresses and (port == server.port or not (named or address.is_loopback)):
                return True
        return False

    def _addresses(self, server: Endpoint) -> frozenset[Address] | None:
        with self._lock:
            known = self._known.get(server)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        try:
            found = self._look_ups.addresses(server.host, server.port, _LOOK_UP_S)
        except (OSError, UnicodeError, TonestreamError):
            return None if known is None else known[0]
        addresses = frozenset(_plain(ipaddress.ip_address(one.partition("%")[0])) for one in found)
        if any(address.is_loopback for address in addresses):
            addresses |= {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")}
        with self._lock:
            self._known[server] = (addresses, time.monotonic() + _KEPT_S)
        return addresses


def _plain(address: Address) -> Address:
    """One form for all addresses that lead to the same place."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_unspecified or (isinstance(address, ipaddress.IPv4Address) and address.is_loopback):
        return ipaddress.IPv4Address("127.0.0.1")
    return address
