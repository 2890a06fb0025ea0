"""What an operator opens for music never opens the installation's own Kafka, Redis and blob store."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from services.ingestion.addresses import AllowList
from services.ingestion.fetch import Fetcher, FetchLimits
from services.ingestion.own_servers import OwnServer, own_servers
from shared.contracts.errors import ErrorCode, TonestreamError
from shared.settings import Settings
from tests.support.processes import free_port
from tests.support.web_server import WebServer

LIMITS = FetchLimits(total_s=3.0, connect_s=0.3, first_byte_s=1.0)
NAMES = {
    "kafka": ["172.18.0.5"],
    "redis": ["172.18.0.6", "fd00::6"],
    "minio": ["172.18.0.7"],
    "music": ["172.18.0.9"],
    "alias": ["172.18.0.6"],
    "mapped": ["::ffff:172.18.0.6"],
    "nat64": ["64:ff9b::172.18.0.6"],
    "managed": ["93.184.215.14"],
}
OWN = (
    OwnServer("kafka", 19092),
    OwnServer("redis", 6379),
    OwnServer("minio", 9000, secret=False),
    OwnServer("managed", 443),
)
#: The network of the containers, in every form that an address of it may have.
OPEN = "172.18.0.0/16,[fd00::/8]:*,[::/0]:*,redis,kafka,172.18.0.6:6379,redis:6379"


def resolver(host: str, port: int) -> list[str]:
    if host.rstrip(".") not in NAMES:
        raise OSError(f"no address of {host}")
    return NAMES[host.rstrip(".")]


def refusal(url: str, file: Path, allow: str = OPEN) -> str | None:
    """Why the URL is not fetched from; None where a connection to it was tried."""
    with pytest.raises(TonestreamError) as caught:
        Fetcher(LIMITS, AllowList.parse(allow), resolver, OWN).fetch(url, file)
    return caught.value.message if caught.value.code is ErrorCode.FETCH_FORBIDDEN else None


@pytest.fixture(autouse=True)
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to other machines than this one fail at once."""
    real = socket.create_connection

    def connect(address: tuple[str, int], *arguments: object, **more: object) -> socket.socket:
        if address[0].startswith("127."):
            return real(address, *arguments, **more)  # type: ignore[arg-type]
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)


@pytest.mark.parametrize(
    "place",
    [
        "redis:6379", "REDIS.:6379", "172.18.0.6:6379", "alias:6379", "mapped:6379", "nat64:6379",
        "[::ffff:172.18.0.6]:6379", "[::ffff:ac12:6]:6379", "[64:ff9b::ac12:6]:6379", "[fd00::6]:6379",
        "[fd00:0::0:6]:6379",
        "kafka:19092", "172.18.0.5:19092", "managed:443",
    ],
)  # fmt: skip
def test_no_entry_opens_the_ports_of_our_own_servers_by_any_spelling(place: str, tmp_path: Path) -> None:
    scheme = "https" if place.endswith(":443") else "http"
    reason = refusal(f"{scheme}://{place}/", tmp_path / "x")
    assert reason is not None and reason.endswith("belongs to this installation itself"), reason


def test_a_network_opens_no_other_port_on_the_machines_of_our_servers_and_a_named_port_does(tmp_path: Path) -> None:
    for place in ("redis:16379", "172.18.0.6:80", "kafka:9092", "172.18.0.7:9000", "minio:9000"):
        reason = refusal(f"http://{place}/", tmp_path / "x")
        assert reason is not None and "allow it by its port (TONESTREAM_FETCH_ALLOW)" in reason
    for place in ("redis:16379", "172.18.0.7:9000", "minio:9000"):
        port = place.rpartition(":")[2]
        assert refusal(f"http://{place}/", tmp_path / "x", f"172.18.0.0/16:{port},[fd00::/8]:{port}") is None
    for place in ("music:6379", "172.18.0.9:80", "managed:80"):
        assert refusal(f"http://{place}/", tmp_path / "x") is None


def test_servers_whose_names_cannot_be_looked_up_stay_closed_by_name_and_by_their_last_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetcher = Fetcher(LIMITS, AllowList.parse(OPEN), resolver, OWN)

    def code(url: str) -> ErrorCode:
        with pytest.raises(TonestreamError) as caught:
            fetcher.fetch(url, tmp_path / "x")
        return caught.value.code

    assert code("http://172.18.0.6:6379/") is ErrorCode.FETCH_FORBIDDEN
    monkeypatch.delitem(NAMES, "redis")
    assert code("http://172.18.0.6:6379/") is ErrorCode.FETCH_FORBIDDEN
    assert code("http://music:8000/") is ErrorCode.FETCH_FAILED, "music is fetched meanwhile"
    monkeypatch.setitem(NAMES, "redis", ["172.18.0.9"])
    own = [OwnServer("kafka.away", 9092)]
    by_name = Fetcher(LIMITS, AllowList.parse("kafka.away"), lambda host, port: ["172.18.0.1"], own)
    with pytest.raises(TonestreamError, match="belongs to this installation itself"):
        by_name.fetch("http://kafka.away:9092/", tmp_path / "x")


def test_on_this_machine_only_the_ports_of_our_servers_are_closed_also_behind_a_redirect(tmp_path: Path) -> None:
    own = (OwnServer("localhost", free_port()),)
    names = {"localhost": ["127.0.0.1"]}
    with WebServer() as web:
        web.add("/a.mp3", b"ID3" + bytes(1000))
        for host in ("127.0.0.1", "localhost", "127.8.8.8", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]"):
            target = f"http://{host}:{own[0].port}/"
            web.redirect("/out", target)
            allow = AllowList.parse("127.0.0.0/8,0.0.0.0,localhost,::/0")
            fetcher = Fetcher(LIMITS, allow, lambda host, port: names[host], own)
            with pytest.raises(TonestreamError, match="belongs to this installation itself") as caught:
                fetcher.fetch(web.url("/out"), tmp_path / "x")
            assert caught.value.code is ErrorCode.FETCH_FORBIDDEN
            assert fetcher.fetch(web.url("/a.mp3"), tmp_path / "x").size == 1003


def test_the_settings_name_the_servers_of_the_installation() -> None:
    def named(environment: dict[str, str] | None = None, **settings: str) -> list[tuple[str, int, bool]]:
        return [(one.host, one.port, one.secret) for one in own_servers(Settings(**settings), environment or {})]

    kafka = [("localhost", 9092, True)]
    assert named() == [*kafka, ("localhost", 6379, True)]
    brokers = named(kafka_bootstrap_servers="Kafka-1:19092, [fd00::1]:9093,kafka-3", redis_url="unix:///run/redis.sock")
    assert brokers == [("kafka-1", 19092, True), ("fd00::1", 9093, True), ("kafka-3", 9092, True)]
    assert named(redis_url="rediss://user:secret@[fd00::2]/0") == [*kafka, ("fd00::2", 6379, True)]
    assert named(redis_url="memory://x", blob_url="https://store.local/audio")[1:] == [("store.local", 443, False)]
    minio = {"AWS_ENDPOINT_URL": "http://minio:9000"}
    assert named(minio, redis_url="memory://x", blob_url="s3://audio")[1:] == [("minio", 9000, False)]
    assert named(redis_url="memory://x", blob_url="s3://audio") == kafka, "Amazon's is part of the internet"
