"""What the allow list opens never reaches the installation's own Kafka and Redis."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.ingestion.fetch import AllowList, Fetcher, FetchLimits
from shared.contracts.errors import ErrorCode, TonestreamError
from shared.http.lookup import LookUps
from shared.http.own_servers import Endpoint, OwnServers, endpoints
from shared.settings import Settings

NAMES = {"kafka": ["10.1.0.5"], "redis": ["10.1.0.6", "fd00::6"], "here": ["127.0.0.1"]}


def resolver(host: str, port: int) -> list[str]:
    if host not in NAMES:
        raise OSError("no such host")
    return NAMES[host]


def own(*servers: Endpoint) -> OwnServers:
    return OwnServers(servers, LookUps(resolver))


def test_the_settings_name_the_servers() -> None:
    given = {"kafka_bootstrap_servers": "a:19092, [fd00::1]:9093,b", "redis_url": "rediss://u:p@c/0"}
    assert endpoints(Settings.model_validate(given)) == (
        Endpoint("a", 19092),
        Endpoint("fd00::1", 9093),
        Endpoint("b", 9092),
        Endpoint("c", 6379),
    )
    for url in ("memory://x", "unix:///run/redis.sock"):
        assert endpoints(Settings.model_validate({"redis_url": url})) == (Endpoint("localhost", 9092),)


@pytest.mark.parametrize(
    ("address", "port", "named", "covered"),
    [
        ("10.1.0.5", 9092, False, True),
        ("10.1.0.5", 9092, True, True),  # an entry for just this port does not help
        ("10.1.0.5", 9093, False, True),  # its other listeners
        ("10.1.0.5", 8080, True, False),  # a web server on the same machine, which an entry names
        ("10.1.0.6", 6379, False, True),
        ("fd00::6", 6379, False, True),
        ("::ffff:10.1.0.6", 6379, False, True),
        ("10.1.0.7", 6379, False, False),  # somebody else's
        ("10.1.0.7", 8080, False, False),
    ],
)
def test_the_addresses_of_a_server_are_closed_in_every_spelling(
    address: str, port: int, named: bool, covered: bool
) -> None:
    servers = own(Endpoint("kafka", 9092), Endpoint("redis", 6379))
    assert servers.cover(ipaddress.ip_address(address), port, named) is covered


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"])
def test_on_this_machine_only_the_servers_own_port_is_closed(address: str) -> None:
    servers = own(Endpoint("here", 9092))
    assert servers.cover(ipaddress.ip_address(address), 9092, True)
    assert not servers.cover(ipaddress.ip_address(address), 8000, False)


def test_where_the_name_cannot_be_looked_up_its_port_is_closed() -> None:
    servers = own(Endpoint("gone", 9092))
    assert servers.cover(ipaddress.ip_address("10.9.9.9"), 9092, True)
    assert not servers.cover(ipaddress.ip_address("10.9.9.9"), 8080, False)


def test_a_name_that_cannot_be_looked_up_is_not_asked_for_at_every_download(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def nobody(host: str, port: int) -> list[str]:
        asked.append(host)
        raise OSError("no such host")

    now = [100.0]
    monkeypatch.setattr("shared.http.own_servers.time.monotonic", lambda: now[0])
    servers = OwnServers([Endpoint("gone", 9092)], LookUps(nobody))
    for _ in range(10):
        assert servers.cover(ipaddress.ip_address("10.9.9.9"), 9092, False)
    assert asked == ["gone"]
    now[0] += 6.0
    assert servers.cover(ipaddress.ip_address("10.9.9.9"), 9092, False)
    assert asked == ["gone", "gone"]


@contextmanager
def listening() -> Iterator[tuple[int, list[object]]]:
    """A port of this machine, and the connections that were opened to it."""
    opened: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                opened.append(address)
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1]), opened
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1", "the services themselves work with"),
        ("localhost", "the services themselves work with"),
        ("[::ffff:127.0.0.1]", "the services themselves work with"),
        ("127.1", "four decimal numbers"),  # refused before anybody asks where it leads
    ],
)
def test_no_byte_reaches_our_redis_although_its_network_is_allowed(tmp_path: Path, host: str, said: str) -> None:
    with listening() as (port, opened):
        allow = AllowList.parse("127.0.0.0/8,localhost,::ffff:0:0/96")
        fetcher = Fetcher(FetchLimits(), allow, own=[Endpoint("localhost", port)])
        with pytest.raises(TonestreamError) as caught:
            fetcher.fetch(f"http://{host}:{port}/x.mp3", tmp_path / "x")
        assert caught.value.code is ErrorCode.FETCH_FORBIDDEN
        assert said in caught.value.message
        assert opened == []
