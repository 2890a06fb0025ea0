"""The topics of an installation, ready to be created on a bus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.bus.base import SAFE_REPLICAS, TopicSpec
from shared.contracts.topics import (
    FRAMING_BYTES,
    FROM_OUTSIDE,
    MAX_MESSAGE_BYTES,
    PARTITIONS,
    RETENTION_MS,
    Channel,
    Topics,
)

#: The settings that mend a topic, and the program of Kafka that changes them.
_ALTER: Final = "kafka-configs.sh --bootstrap-server SERVER --alter --topic {} --add-config {}"


def topic_specs(topics: Topics, partitions: int = PARTITIONS) -> list[TopicSpec]:
    """One specification per channel, in the order of ``Channel``."""
    return [
        TopicSpec(
            name=topics.name(channel),
            partitions=partitions,
            retention_ms=RETENTION_MS[channel],
            max_message_bytes=MAX_MESSAGE_BYTES[channel] + FRAMING_BYTES,
            # Retention uses the timestamps: a record that its client dates to 1970 would be removed before it is read.
            stamped_by_broker=channel in FROM_OUTSIDE,
        )
        for channel in Channel
    ]


def shortcomings(wanted: TopicSpec, found: TopicSpec) -> Iterator[str]:
    """What an existing topic lacks, what follows from it, and what mends it."""
    name = wanted.name
    if found.partitions < wanted.partitions:
        has = "1 partition" if found.partitions == 1 else f"{found.partitions} partitions"
        workers = "only 1 worker" if found.partitions == 1 else f"at most {found.partitions} workers"
        yield (
            f"{name} has {has}, not {wanted.partitions}: {workers} of a service can share it. To grow it:"
            f" tonestream topics create --partitions {wanted.partitions}"
        )
    for what, needed, there, setting, effect in (
        (
            "takes messages of {} bytes", wanted.max_message_bytes, found.max_message_bytes, "max.message.bytes",
            "larger ones become dead letters, or are cut where this is the topic of the dead letters",
        ),
        (
            "keeps records for {} ms", wanted.retention_ms, found.retention_ms, "retention.ms",
            "a longer outage loses requests",
        ),
    ):  # fmt: skip
        if needed is not None and there is not None and 0 <= there < needed:
            yield (
                f"{name} {what.format(there)}, not {needed}: {effect}. To raise it:"
                f" {_ALTER.format(name, f'{setting}={needed}')}"
            )
    if wanted.stamped_by_broker and found.durability is not None and not found.stamped_by_broker:
        yield (
            f"{name} keeps the time stamps of clients: what one of them dates to 1970 is removed before it is read."
            f" {_ALTER.format(name, 'message.timestamp.type=LogAppendTime')}"
        )
    yield from _not_durable(found)


def _not_durable(found: TopicSpec) -> Iterator[str]:
    """What may lose records that the topic has acknowledged, or stop it."""
    name, durability = found.name, found.durability
    if durability is None:
        return
    if durability.compacted:
        yield (
            f"{name} is compacted: it forgets all but the newest record of a track."
            f" {_ALTER.format(name, 'cleanup.policy=delete')}"
        )
    if durability.unclean_elections:
        yield (
            f"{name} lets a broker lead that lacks acknowledged records."
            f" {_ALTER.format(name, 'unclean.leader.election.enable=false')}"
        )
    if durability.brokers == 1:
        return  # nothing here outlives its one broker
    if durability.replicas < min(SAFE_REPLICAS, durability.brokers):
        yield (
            f"{name} is on {durability.replicas} of {durability.brokers} brokers: without one of them it stops, and"
            " what it acknowledged may be lost. kafka-reassign-partitions.sh adds replicas"
        )
    elif durability.min_insync_replicas < 2 and durability.replicas >= SAFE_REPLICAS:
        yield (
            f"{name} acknowledges what one broker alone has: its death loses that."
            f" {_ALTER.format(name, 'min.insync.replicas=2')}"
        )
    elif durability.min_insync_replicas >= durability.replicas > 1:
        yield (
            f"{name} takes nothing while one broker is away: all {durability.replicas} of its replicas must have each"
            f" record. {_ALTER.format(name, f'min.insync.replicas={durability.replicas - 1}')}"
        )
