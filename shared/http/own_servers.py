"""The servers of this installation itself: no entry of the allow list opens them to requests.

A network that is opened for the sake of one web server may hold Kafka and Redis as well.
"""

from __future__ import annotations

import contextlib
import ipaddress
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from shared.contracts.errors import TonestreamError
from shared.http.addresses import Address
from shared.http.lookup import LookUps
from shared.settings import Settings, brokers
from shared.state.connection import CLUSTER_SCHEME

_LOOK_UP_S: Final = 3.0
#: How long an address holds for a name, seconds. A server that moved is looked up anew.
_KEPT_S: Final = 60.0
#: How long a name that could not be looked up is not asked for again, seconds: each download would wait for it.
_ASK_AGAIN_S: Final = 5.0
_REDIS_PORT: Final = 6379
_HTTP_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server that the services connect to."""

    host: str
    port: int


def endpoints(settings: Settings) -> tuple[Endpoint, ...]:
    """Kafka's brokers, Redis and the S3 server, as the settings name them."""
    found = [Endpoint(host, port) for host, port in brokers(settings.kafka_bootstrap_servers)]
    redis = urlsplit(settings.redis_url.get_secret_value())
    if redis.scheme.removeprefix(CLUSTER_SCHEME) in {"redis", "rediss"}:
        found.append(Endpoint(redis.hostname or "localhost", redis.port or _REDIS_PORT))
    if settings.blob_endpoint_url is not None:
        blobs = urlsplit(settings.blob_endpoint_url)
        found.append(Endpoint(blobs.hostname or "localhost", blobs.port or _HTTP_PORTS[blobs.scheme]))
    return tuple(found)


class OwnServers:
    """Knows the addresses of ``servers``. Safe from many threads."""

    def __init__(self, servers: Iterable[Endpoint] = (), look_ups: LookUps | None = None) -> None:
        self._servers = tuple(servers)
        self._look_ups = look_ups or LookUps()
        self._lock = threading.Lock()
        #: The addresses of each server, None if none were ever found, and until when they hold.
        self._known: dict[Endpoint, tuple[frozenset[Address] | None, float]] = {}

    def cover(self, address: Address, port: int, named: bool) -> bool:
        """Whether a connection to ``address`` and ``port`` might reach one of the servers.

        A server on another machine may listen on several ports. All ports of that machine are closed, except those that
        the allow list names (``named``); the server's own port stays closed. On this machine only the server's own port
        is closed. If its name cannot be looked up, its port is closed on every machine.
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
            known, until = self._known.get(server, (None, 0.0))
        if time.monotonic() < until:
            return known
        addresses, kept_s = known, _ASK_AGAIN_S
        with contextlib.suppress(OSError, UnicodeError, TonestreamError):
            addresses, kept_s = self._looked_up(server), _KEPT_S
        with self._lock:
            self._known[server] = (addresses, time.monotonic() + kept_s)
        return addresses

    def _looked_up(self, server: Endpoint) -> frozenset[Address]:
        """Raises OSError, UnicodeError, TonestreamError."""
        found = self._look_ups.addresses(server.host, server.port, _LOOK_UP_S)
        addresses = frozenset(_plain(ipaddress.ip_address(one.partition("%")[0])) for one in found)
        if any(address.is_loopback for address in addresses):
            addresses |= {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")}
        return addresses


def _plain(address: Address) -> Address:
    """One form for all addresses that lead to the same place."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_unspecified or (isinstance(address, ipaddress.IPv4Address) and address.is_loopback):
        return ipaddress.IPv4Address("127.0.0.1")
    return address
