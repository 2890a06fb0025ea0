"""doctor asks a real Kafka and a real Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from services.cli.doctor import servers
from services.cli.doctor.finding import Finding
from shared.bus.connect import kafka_bus
from shared.bus.topics import topic_specs
from shared.contracts.topics import Topics
from shared.settings import Settings
from tests.support.names import Names


def levels(found: Iterator[Finding]) -> list[str]:
    return [finding.level for finding in found]


@pytest.mark.redis
def test_a_redis_that_forgets_or_evicts_is_found(redis_url: str) -> None:
    settings = Settings(redis_url=redis_url)
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    before = client.config_get("append*", "maxmemory-policy")
    try:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("appendonly", "yes")
        client.config_set("appendfsync", "always")
        assert levels(servers.redis(settings)) == ["ok", "ok", "ok"]
        client.config_set("appendfsync", "everysec")
        assert levels(servers.redis(settings)) == ["ok", "warn", "ok"]
        client.config_set("appendonly", "no")
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert levels(servers.redis(settings)) == ["ok", "fail", "fail", "ok"]
    finally:
        for name in ("appendfsync", "appendonly", "maxmemory-policy"):
            client.config_set(name, str(before[name]))
        client.close()


@pytest.mark.kafka
def test_topics_are_missing_until_they_are_created(bootstrap_servers: str, names: Names) -> None:
    settings = Settings(kafka_bootstrap_servers=bootstrap_servers, topic_prefix=names.prefix)
    assert levels(servers.kafka(settings)) == ["ok", "fail"]
    bus = kafka_bus(settings, client_id="test")
    bus.create_topics(topic_specs(Topics(names.prefix)))
    bus.close()
    assert levels(servers.kafka(settings)) == ["ok", "ok"]
