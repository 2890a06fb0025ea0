"""Every offset that a consumer group ever committed, read from the broker's own log of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from kafka import KafkaConsumer, TopicPartition

_LOG = "__consumer_offsets"


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed offset. ``timestamp_ms`` is the broker's time of the commit, Unix epoch in ms."""

    group: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int


def commits(bootstrap_servers: str, group: str) -> list[Commit]:
    """The commits of ``group`` in the order in which they took effect; those of aborted transactions are left out."""
    return [commit for commit in _all_commits(bootstrap_servers) if commit.group == group]


def commits_that_went_back(bootstrap_servers: str, prefix: str) -> list[tuple[Commit, Commit]]:
    """Each commit, of all groups whose names begin with ``prefix``, that is behind the one before it, with that one."""
    latest: dict[tuple[str, str, int], Commit] = {}
    found = []
    for commit in _all_commits(bootstrap_servers):
        if not commit.group.startswith(prefix):
            continue
        place = (commit.group, commit.topic, commit.partition)
        if (before := latest.get(place)) is not None and commit.offset < before.offset:
            found.append((before, commit))
        latest[place] = commit
    return found


def _all_commits(bootstrap_servers: str) -> Iterator[Commit]:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        exclude_internal_topics=False,
    )
    try:
        partitions = [TopicPartition(_LOG, number) for number in consumer.partitions_for_topic(_LOG) or ()]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for records in consumer.poll(timeout_ms=500).values():
                for record in records:
                    if record.value is not None and (place := _place(record.key)) is not None:
                        (offset,) = struct.unpack_from(">q", record.value, 2)
                        yield Commit(*place, offset, record.timestamp)
    finally:
        consumer.close()


def _place(key: bytes) -> tuple[str, str, int] | None:
    """(group, topic, partition) of a key; None if the record is about a group and not about an offset."""
    (version,) = struct.unpack_from(">h", key)
    if version not in (0, 1):
        return None
    position, names = 2, []
    for _ in range(2):
        (length,) = struct.unpack_from(">h", key, position)
        names.append(key[position + 2 : position + 2 + length].decode())
        position += 2 + length
    (partition,) = struct.unpack_from(">i", key, position)
    return names[0], names[1], partition
