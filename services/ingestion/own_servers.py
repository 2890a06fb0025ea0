"""The servers of this installation itself: what an operator opens for music never opens these.

An allow list names networks, and Kafka and Redis often stand in the same ones as the music. So:

- The ports of our Kafka and Redis are closed, whatever is allowed, and by every address of theirs.
- Their other ports are further listeners, controllers and cluster buses, which no setting names. So a network or a host
  without a port opens nothing on a machine that has one of our servers; an entry with the port does. The blob store is
  opened by that, too: its own presigned URLs are fetched like others.
- On this machine itself only the named ports are closed: a music server beside a local Kafka is nothing unusual.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from redis.connection import parse_url

from services.ingestion.addresses import Address, AllowList, plain_name, unwrapped
from services.ingestion.lookup import LookUps
from shared.cache.connection import MEMORY_SCHEME
from shared.contracts.errors import ErrorCode, TonestreamError, TransientError
from shared.settings import Settings

_KAFKA_PORT: Final = 9092
_REDIS_PORT: Final = 6379
#: Where s3fs and its kin take the address of a store that is not Amazon's.
_S3_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "FSSPEC_S3_ENDPOINT_URL")
_WEB_PORTS: Final = {"http": 80, "https": 443}
#: The longest look-up of a server of ours, and how long one that failed is not tried again, seconds.
_LOOK_UP_S: Final = 2.0
_NOT_AGAIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class OwnServer:
    """``secret``: nothing opens its port."""

    host: str
    port: int
    secret: bool = True


def own_servers(settings: Settings, environment: Mapping[str, str] = os.environ) -> tuple[OwnServer, ...]:
    """Kafka, Redis and a blob store with an address of its own, as the settings name them."""
    found = []
    for server in settings.kafka_bootstrap_servers.split(","):
        broker = urlsplit(f"//{server.strip()}")
        found.append(OwnServer(plain_name(broker.hostname or "localhost"), broker.port or _KAFKA_PORT))
    redis_url = settings.redis_url.get_secret_value()
    if not redis_url.startswith((MEMORY_SCHEME, "unix:")):
        redis = parse_url(redis_url)  # type: ignore[no-untyped-call]
        found.append(OwnServer(plain_name(redis.get("host", "localhost")), redis.get("port", _REDIS_PORT)))
    blobs = settings.blob_url
    if blobs.startswith("s3"):
        blobs = next((environment[name] for name in _S3_ENDPOINTS if environment.get(name)), "")
    store = urlsplit(blobs)
    if store.scheme in _WEB_PORTS and store.hostname:
        found.append(OwnServer(plain_name(store.hostname), store.port or _WEB_PORTS[store.scheme], secret=False))
    return tuple(dict.fromkeys(found))


class OwnServers:
    """Keeps downloads from the servers of this installation. Safe from many threads.

    Their names are looked up anew for each download that could reach them: containers change their addresses. Where a
    name cannot be looked up, its last addresses count, and the name itself.
    """

    def __init__(self, servers: Sequence[OwnServer], allow: AllowList, look_ups: LookUps) -> None:
        self._servers = servers
        self._allow = allow
        self._look_ups = look_ups
        self._known: dict[OwnServer, frozenset[Address]] = {}
        self._failed_at: dict[OwnServer, float] = {}

    def check(self, host: str, address: Address, port: int, abandoned: threading.Event) -> None:
        """``address`` is what ``host`` resolved to, and allowed. Raises TonestreamError (fetch_forbidden) where it is
        one of ours, and not to be fetched from; AbandonedError."""
        opened = self._allow.is_open(address, port) or self._allow.names_port(host, address, port)
        for server in self._servers:
            if port == server.port:
                if opened and not server.secret:
                    continue
            elif opened or is_of_this_machine(address):
                continue
            if plain_name(host) == server.host or _place(address) in self._places(server, abandoned):
                closed = port == server.port and server.secret
                raise TonestreamError(
                    ErrorCode.FETCH_FORBIDDEN,
                    f"{host}:{port} belongs to this installation itself"
                    + ("" if closed else "; an operator can allow it by its port (TONESTREAM_FETCH_ALLOW)"),
                )

    def _places(self, server: OwnServer, abandoned: threading.Event) -> set[object]:
        return {_place(address) for address in self._addresses(server, abandoned)}

    def _addresses(self, server: OwnServer, abandoned: threading.Event) -> frozenset[Address]:
        try:
            return frozenset({ipaddress.ip_address(server.host)})
        except ValueError:
            pass
        if time.monotonic() - self._failed_at.get(server, -_NOT_AGAIN_S) >= _NOT_AGAIN_S:
            try:
                found = self._look_ups.addresses(server.host, server.port, _LOOK_UP_S, abandoned)
                self._known[server] = frozenset(ipaddress.ip_address(one.partition("%")[0]) for one in found)
            except (OSError, UnicodeError, TransientError):
                # Whoever needs that server says that it cannot be found.
                self._failed_at[server] = time.monotonic()
        return self._known.get(server, frozenset())


def is_of_this_machine(address: Address) -> bool:
    """Whether a connection to ``address`` ends on this machine, by whichever of its interfaces."""
    address = unwrapped(address)
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as own:
            own.bind((str(address), 0))  # nothing is sent; only an address of this machine can be bound
            return True
    except OSError:
        return False


def _place(address: Address) -> object:
    """Equal for all addresses that lead to the same machine, as far as it can be told."""
    return "this machine" if is_of_this_machine(address) else unwrapped(address)
