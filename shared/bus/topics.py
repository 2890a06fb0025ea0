"""The topics of an installation, ready to be created on a bus."""

from __future__ import annotations

from shared.bus.base import TopicSpec
from shared.contracts.topics import (
    FRAMING_BYTES,
    FROM_OUTSIDE,
    MAX_MESSAGE_BYTES,
    PARTITIONS,
    RETENTION_MS,
    Channel,
    Topics,
)


def topic_specs(topics: Topics) -> list[TopicSpec]:
    """One specification per channel, in the order of ``Channel``."""
    return [
        TopicSpec(
            name=topics.name(channel),
            partitions=PARTITIONS,
            retention_ms=RETENTION_MS[channel],
            max_message_bytes=MAX_MESSAGE_BYTES[channel] + FRAMING_BYTES,
            # Retention uses the timestamps: a record that its client dates to 1970 would be removed before it is read.
            stamped_by_broker=channel in FROM_OUTSIDE,
        )
        for channel in Channel
    ]
