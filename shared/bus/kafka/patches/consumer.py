"""What a consumer knows or can do without a public method."""

from __future__ import annotations

from collections.abc import Sequence

from kafka import KafkaConsumer
from kafka.structs import OffsetAndMetadata, TopicPartition


def wait_for_metadata(consumer: KafkaConsumer, timeout_ms: int) -> None:
    """Return when the partitions of the subscribed topics are known. Raises KafkaTimeoutError.

    A leader that joins earlier assigns no partitions at first. ``partitions_for_topic`` and ``topics`` wait without
    limit.
    """
    consumer._net.run(consumer._manager.wait_for, consumer._cluster.request_update(), timeout_ms)


def heartbeat(consumer: KafkaConsumer, timeout_ms: int) -> None:
    """Ask the group's coordinator whether this member belongs to its generation.

    Raises the coordinator's error. kafka-python's own heartbeats are sent by a thread, and their answers are not
    accessible.
    """
    manager = consumer._manager
    answer = manager.call_soon(consumer._coordinator._send_heartbeat_request)
    consumer._net.run(manager.wait_for, answer, timeout_ms)


def committed_offsets(
    consumer: KafkaConsumer, partitions: Sequence[TopicPartition], timeout_ms: int
) -> dict[TopicPartition, OffsetAndMetadata]:
    """The group's committed offset of each partition that has one, in one request. Raises KafkaTimeoutError.

    ``KafkaConsumer.committed`` sends one request per partition; a member of the aggregator's group has
    36. Both wait until open transactions on these offsets have ended (stable offsets, KIP-447).
    """
    found: dict[TopicPartition, OffsetAndMetadata] = consumer._coordinator.fetch_committed_offsets(
        partitions, timeout_ms=timeout_ms
    )
    return found


def drop_parked_records(consumer: KafkaConsumer, partition: TopicPartition) -> None:
    """Forget what was fetched from a paused partition before its pause, so that it is fetched again after the resume.

    The client delivers these records only when it has no others, and fetches nothing from the partition until then.
    Under a steady load from other partitions that never happens.
    """
    consumer._fetcher._paused_partition_records.pop(partition, None)
    consumer._fetcher._paused_completed_fetches.pop(partition, None)


def known_position(consumer: KafkaConsumer, partition: TopicPartition) -> int | None:
    """The offset of the next record to fetch, without a request; None if it is unknown.

    ``KafkaConsumer.position`` may send a request and wait.
    """
    state = consumer._subscription.assignment.get(partition)
    return None if state is None or state.position is None else state.position.offset
