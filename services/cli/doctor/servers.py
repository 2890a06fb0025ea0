"""Kafka and Redis: do they answer, and are they set up so that the promises of docs/guarantees.md hold?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from services.cli.doctor.finding import Finding, fail, ok, warn
from shared.bus.base import BusError
from shared.bus.topics import shortcomings, topic_specs
from shared.contracts.errors import DependencyError
from shared.contracts.topics import Topics
from shared.settings import Settings

_CREATE: Final = "`tonestream topics create` creates the topics"
#: A difference of clocks that leases and deadlines bear, in seconds.
_SKEW_S: Final = 5.0
_REDIS_TIMEOUT_S: Final = 5.0


def kafka(settings: Settings) -> Iterator[Finding]:
    """Brokers and topics."""
    from shared.bus.connect import kafka_bus

    wanted = topic_specs(Topics(settings.topic_prefix))
    try:
        with closing(kafka_bus(settings, client_id="tonestream-doctor")) as bus:
            existing = bus.existing([spec.name for spec in wanted])
    except BusError as error:
        yield fail("kafka", str(error), "check TONESTREAM_KAFKA_BOOTSTRAP_SERVERS; `make up` starts a broker")
        return
    yield ok("kafka", f"{settings.kafka_bootstrap_servers} answers")
    missing = [spec.name for spec in wanted if spec.name not in existing]
    if missing:
        yield fail("topics", f"missing: {', '.join(missing)}", _CREATE)
    faults = [fault for spec in wanted if spec.name in existing for fault in shortcomings(spec, existing[spec.name])]
    for fault in faults:
        yield warn("topics", fault, "change it by that command")
    if not missing and not faults:
        yield ok("topics", f"all {len(wanted)}, with partitions, sizes, retention and replicas as needed")


def redis(settings: Settings) -> Iterator[Finding]:
    """Does it answer, keep what it acknowledged, and throw nothing away? Does its clock agree with ours?"""
    from redis.exceptions import RedisClusterException, RedisError

    from shared.state.connection import connect, require_trust

    try:
        client = connect(settings.redis_url.get_secret_value(), _REDIS_TIMEOUT_S)
        if (silent := require_trust(client)) is not None:
            raise DependencyError(f"Redis: {silent}")
    except DependencyError as error:
        yield fail("redis", str(error), "check TONESTREAM_REDIS_URL; `make up` starts a server")
        return
    try:
        before = time.time()
        seconds, microseconds = client.time()
        skew = seconds + microseconds / 1e6 - (before + time.time()) / 2
        config = {str(name): str(value) for name, value in client.config_get("append*", "maxmemory*").items()}
    except (RedisError, RedisClusterException, ValueError, TypeError) as error:
        yield warn("redis", f"answers, but not what it is set up for: {error}", "allow this user CONFIG GET and TIME")
        return
    yield ok("redis", "answers")
    yield from _durability(config)
    yield _clocks(skew)


def _durability(config: dict[str, str]) -> Iterator[Finding]:
    if config.get("appendonly") != "yes":
        yield fail(
            "redis",
            "appendonly is off: a restart of Redis loses unfinished requests",
            "set appendonly yes in redis.conf",
        )
    elif config.get("appendfsync") != "always":
        yield warn(
            "redis",
            f"appendfsync is {config.get('appendfsync')}: a power failure may lose acknowledged writes",
            "set appendfsync always in redis.conf",
        )
    else:
        yield ok("redis", "keeps every acknowledged write")
    policy = config.get("maxmemory-policy")
    if policy != "noeviction":
        yield fail(
            "redis", f"maxmemory-policy is {policy}: it may throw away unfinished requests", "set it to noeviction"
        )


def _clocks(skew: float) -> Finding:
    if abs(skew) > _SKEW_S:
        which = "ahead of" if skew > 0 else "behind"
        return warn("clock", f"that of Redis is {abs(skew):.0f} s {which} this machine's", "synchronise both (NTP)")
    return ok("clock", "agrees with that of Redis")
