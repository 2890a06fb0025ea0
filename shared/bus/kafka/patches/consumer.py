"""What a consumer knows or can do, and has no public method for."""

from __future__ import annotations

from collections.abc import Sequence

from kafka import KafkaConsumer
from kafka.structs import OffsetAndMetadata, TopicPartition


def wait_for_metadata(consumer: KafkaConsumer, timeout_ms: int) -> None:
    """Return when the partitions of the subscribed topics are known. Raises KafkaTimeoutError.

    A leader that joins its group earlier assigns nothing to anybody at first. ``partitions_for_topic`` and ``topics``
    wait without limit.
    """
    consumer._net.run(consumer._manager.wait_for, consumer._cluster.request_update(), timeout_ms)


def heartbeat(consumer: KafkaConsumer, timeout_ms: int) -> None:
    """Ask the group's coordinator now whether this member is one of its generation. Raises what it answers.

    Heartbeats are sent by a thread at its own times, and nobody is given their answers.
    """
    manager = consumer._manager
    answer = manager.call_soon(consumer._coordinator._send_heartbeat_request)
    consumer._net.run(manager.wait_for, answer, timeout_ms)


def committed_offsets(
    consumer: KafkaConsumer, partitions: Sequence[TopicPartition], timeout_ms: int
) -> dict[TopicPartition, OffsetAndMetadata]:
    """The group's committed offset of each partition that has one, in one request. Raises KafkaTimeoutError.

    ``KafkaConsumer.committed`` takes one partition a request; a member of the aggregator's group has 36. Both wait for
    the transactions of others that are about to commit some (stable offsets, KIP-447).
    """
    found: dict[TopicPartition, OffsetAndMetadata] = consumer._coordinator.fetch_committed_offsets(
        partitions, timeout_ms=timeout_ms
    )
    return found


def drop_parked_records(consumer: KafkaConsumer, partition: TopicPartition) -> None:
    """Forget what was fetched of a paused partition before its pause, so that it is fetched again when it resumes.

    The client hands these records out only once it has nothing else in hand, and fetches nothing from the partition
    until then. Under a steady load from other partitions that is never.
    """
    consumer._fetcher._paused_partition_records.pop(partition, None)
    consumer._fetcher._paused_completed_fetches.pop(partition, None)


def known_position(consumer: KafkaConsumer, partition: TopicPartition) -> int | None:
    """The offset of the next record to fetch, without asking any broker; None where it is not known.

    ``KafkaConsumer.position`` asks for it if it has to, and waits.
    """
    state = consumer._subscription.assignment.get(partition)
    return None if state is None or state.position is None else state.position.offset
