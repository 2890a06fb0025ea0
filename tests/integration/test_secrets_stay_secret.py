"""Workers with secrets of every kind, through faults of every kind: nothing that others read shows one of them.

All secrets here hold the word ``hush``. What a user gave to name the track is the user's own to show: the result's
``source`` has the URL as it was given, a signature in it too, but never a password.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from shared.bus.base import Outgoing, Record
from shared.bus.connect import kafka_bus
from shared.bus.kafka.bus import KafkaBus
from shared.contracts.topics import Channel
from shared.settings import Settings
from tests.support.names import Names
from tests.support.pipeline import Pipeline
from tests.support.processes import free_port
from tests.support.secure_kafka import SecureBroker
from tests.support.secure_redis import SecureRedis
from tests.support.web_server import WebServer

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SIGNED = "X-Amz-Credential=AKIA-hush&X-Amz-Signature=5ig-hush&token=t0ken-hush&sig=azure-hush"


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        server.redirect("/away", "https://me:redirect-hush@203.0.113.1/a.mp3")
        server.redirect("/nowhere", "https://me:redirect/hush@203.0.113.1/a.mp3")
        server.redirect("/signed-away", f"http://10.1.2.3/a.mp3?{SIGNED}")
        server.add("/broken", b"RIFF not audio at all", headers={"ETag": "1"})
        yield server


@pytest.fixture
def workers(
    tmp_path: Path, secure_broker: SecureBroker, secure_redis: SecureRedis, names: Names, web: WebServer
) -> Iterator[Pipeline]:
    password = quote(SecureRedis.PASSWORD, safe="")
    pipeline = Pipeline(
        tmp_path,
        secure_broker.bootstrap_servers,
        f"rediss://app:{password}@localhost:{secure_redis.tls_port}/0",
        names.prefix,
        kafka_bootstrap_servers=secure_broker.addresses["SASL_SSL"],
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="PLAIN",
        kafka_sasl_username=SecureBroker.USER,
        kafka_sasl_password=SecureBroker.PASSWORD,
        kafka_ssl_cafile=str(secure_broker.authority.certificate),
        redis_ssl_cafile=str(secure_redis.authority.certificate),
        spotify_client_id="an-app",
        spotify_client_secret="spotify-hush",
        spotify_token_url=web.url("/token-service-that-answers-404"),
        spotify_api_url=web.url("/api/"),
        fetch_allow=f"127.0.0.1:{web.port}",
        fetch_connect_timeout_s="1",
        retry_attempts="1",
        result_deadline_s="3",  # nobody measures the mood here
        log_level="DEBUG",
    )
    try:
        created = pipeline.command("topics", "create")
        assert created.returncode == 0, created.stderr
        for service in ("ingestion", "aggregator"):
            pipeline.environment["TONESTREAM_HEALTH_PORT"] = str(free_port())
            pipeline.start(service)
        yield pipeline
    finally:
        pipeline.__exit__(None, None, None)


def requests(web: WebServer) -> dict[str, dict[str, Any] | str]:
    """What may come in, by request ID: each fails in a way of its own."""
    urls = {
        "password": "https://me:audio-hush@example.org/a.mp3",
        "password-that-ends-the-host": "https://me:audio/hush@example.org/a.mp3",
        "password-in-a-name-of-odd-letters": "https://me:hush@ex\u2100mple.org/a.mp3",
        "password-and-brackets": "https://me:hush@[not-an-address/a.mp3",
        "signed-missing": web.url(f"/missing?{SIGNED}"),
        "signed-forbidden": f"http://10.0.0.1/a.mp3?{SIGNED}",
        "signed-broken": web.url(f"/broken?{SIGNED}"),
        "signed-refused": f"http://127.0.0.1:1/a.mp3?{SIGNED}",
        "signed-and-spaced": f"https://example.org/a b.mp3?{SIGNED}",
        "redirect-to-a-password": web.url("/away"),
        "redirect-to-another": web.url("/signed-away"),
    }
    given: dict[str, dict[str, Any] | str] = {
        name: {"request_id": name, "audio_url": url} for name, url in urls.items()
    }
    given["signed-as-track"] = {"request_id": "signed-as-track", "track_id": f"https://example.org/a.mp3?{SIGNED}"}
    given["spotify"] = {"request_id": "spotify", "track_id": "4uLU6hMCjMI75M1A2tKUQC"}
    given["source"] = {"request_id": "source", "audio_url": urls["signed-missing"], "source": urls["password"]}
    given["unknown-field"] = {"request_id": "unknown-field", "audio_url": urls["password"], "token": "hush"}
    return given


def test_no_secret_is_seen_through_faults_of_any_kind(
    workers: Pipeline, web: WebServer, secure_redis: SecureRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in workers.environment.items():
        if name.startswith("TONESTREAM_"):
            monkeypatch.setenv(name, value)
    settings = Settings()
    assert_secret("settings", repr(settings), str(settings))
    bus = kafka_bus(settings, "test")
    given = requests(web)
    requests_topic, tracks_topic = workers.topics.name(Channel.REQUESTS), workers.topics.name(Channel.TRACKS)
    odd = b'{"request_id": "odd", "source": "https://me:hush@example.org/a.mp3", "track_key": "odd"'
    with bus.publisher() as publisher:
        publisher.publish(
            [Outgoing(requests_topic, name.encode(), json.dumps(one).encode()) for name, one in given.items()]
            + [Outgoing(requests_topic, b"no-json", b'{"audio_url": "https://me:hush@example.org/'), Outgoing(
                tracks_topic, b"odd", odd + b', "error": {"code": "hush", "token": "hush"}}'
            )]
        )  # fmt: skip

    results = [json.loads(one.value) for one in records(bus, workers, Channel.RESULTS, len(given) + 2)]
    by_request = {one["request_id"]: one for one in results}
    assert by_request.keys() >= given.keys(), workers.logs()
    for name, one in by_request.items():
        source = one["track"].pop("source")
        if "password" in name or name in {"source", "unknown-field"}:
            assert_secret(name, source)
        elif name.startswith("signed"):
            asked = given[name]
            assert isinstance(asked, dict) and source == asked.get("audio_url", asked.get("track_id"))
    assert {one["status"] for one in results} == {"failed"}
    assert_secret("results", *map(json.dumps, results))

    letters = records(bus, workers, Channel.DEAD_LETTERS, 1)
    assert letters
    assert_secret("dead letters", *(repr(letter.headers) for letter in letters))
    shown = workers.command("dead-letters", "list")
    assert_secret("dead-letters list", shown.stdout, shown.stderr)

    # The users' rights are withdrawn while the workers run.
    admin = redis_admin(secure_redis)
    admin("ACL", "SETUSER", "app", "off")
    admin("CLIENT", "KILL", "USER", "app")
    try:
        assert eventually(lambda: "Redis cannot be used" in workers.logs()), workers.logs()
        told = health(workers)
        assert "hush" not in told and "ready" in told
    finally:
        admin("ACL", "SETUSER", "app", "on")
    command = workers.command("health", "--port", workers.environment["TONESTREAM_HEALTH_PORT"])
    assert_secret("health", command.stdout, command.stderr)
    bus.close()
    workers.stop()
    assert_secret("logs", workers.logs())
    assert "failed" in workers.logs(), "the logs must tell of the faults, or this proves nothing"


def records(bus: KafkaBus, workers: Pipeline, channel: Channel, count: int) -> list[Record]:
    found: list[Record] = []
    with bus.reader([workers.topics.name(channel)]) as reader:
        deadline = time.monotonic() + 90
        while len(found) < count and time.monotonic() < deadline:
            found += reader.poll(100, 1.0)
    return found


def redis_admin(server: SecureRedis) -> Callable[..., object]:
    import redis

    client = redis.Redis(port=server.plain_port, password=SecureRedis.PASSWORD)
    return client.execute_command


def health(workers: Pipeline) -> str:
    """What the last worker's endpoint says of itself, health and metrics."""
    said = ""
    for path in ("livez", "readyz", "metrics"):
        try:
            port = workers.environment["TONESTREAM_HEALTH_PORT"]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
                said += answer.read().decode()
        except urllib.error.HTTPError as error:
            said += error.read().decode()
    return said


def eventually(condition: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def assert_secret(where: str, *texts: str) -> None:
    """No secret in any of ``texts``; what stands around one is shown."""
    for text in texts:
        at = text.lower().find("hush")
        assert at < 0, f"{where}: ...{text[max(0, at - 300) : at + 30]}..."
