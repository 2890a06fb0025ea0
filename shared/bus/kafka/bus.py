"""The bus over Apache Kafka. ``membership.py`` has the members of groups."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from typing import Any
from weakref import WeakSet

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import TopicPartition

from shared.bus.base import (
    BusError,
    BusUnavailableError,
    Outgoing,
    Positions,
    Record,
    TopicSpec,
    UnreadableBatch,
)
from shared.bus.kafka.clients import (
    CLOSE_TIMEOUT_S,
    SLICE_S,
    KafkaConfig,
    build,
    fetch,
    milliseconds,
    send_all,
    translated,
)
from shared.bus.kafka.membership import KafkaMembership
from shared.bus.kafka.patches import transactions
from shared.bus.roles import Closing

__all__ = ["KafkaBus", "KafkaConfig", "KafkaMembership", "KafkaPublisher", "KafkaReader"]

log = logging.getLogger(__name__)

#: The setting of a topic that limits its batches, after compression and with their framing.
_LARGEST_MESSAGE = "max.message.bytes"
#: The setting of a topic that says how long its records are kept, in ms.
_RETENTION = "retention.ms"
#: The most records that are fetched to find out whether a reader is at the end.
_LOOK_AHEAD_RECORDS = 100
#: How long a reader waits for open transactions before it reports that it is not at the end.
_TRANSACTION_S = 1.0


class KafkaBus:
    """See :class:`shared.bus.base.Bus`. Connects when a role is made; BusUnavailableError if no broker answers."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._roles: WeakSet[KafkaMembership | KafkaPublisher | KafkaReader] = WeakSet()

    def create_topics(self, topics: Sequence[TopicSpec], timeout_s: float = 30.0) -> list[str]:
        if not topics:
            return []
        wanted = {
            spec.name: {
                "num_partitions": spec.partitions,
                "replication_factor": self._config.replication_factor,
                "configs": _topic_configs(spec),
            }
            for spec in topics
        }
        with closing(self._admin()) as admin, translated():
            # There is no check before the attempt. If two clients create a topic at once, the broker tells one of them
            # that it exists, and neither fails.
            answer = admin.create_topics(wanted, timeout_ms=milliseconds(timeout_s), raise_errors=False)
            created = []
            for topic in answer["topics"]:
                error = kafka_errors.for_code(topic["error_code"])
                if error is kafka_errors.NoError:
                    created.append(topic["name"])
                elif error is not kafka_errors.TopicAlreadyExistsError:
                    raise error(f"topic {topic['name']}: {topic.get('error_message')}")
            # A created topic is not usable yet: each partition needs a leader first.
            admin.wait_for_topics(list(wanted), timeout_ms=milliseconds(timeout_s))
            return created

    def existing(self, topics: Sequence[str]) -> dict[str, TopicSpec]:
        with closing(self._admin()) as admin, translated():
            described = {
                topic["name"]: len(topic["partitions"])
                for topic in admin.describe_topics(list(topics))
                if not topic["error_code"]
            }
            configs = _limits(admin, list(described)) if described else {}
        specs = {}
        for name, partitions in described.items():
            limits = configs.get(name, {})
            specs[name] = TopicSpec(name, partitions, limits.get(_RETENTION), limits.get(_LARGEST_MESSAGE))
        return specs

    def join(self, group: str, topics: Sequence[str]) -> KafkaMembership:
        membership = KafkaMembership(self._config, group, topics)
        self._roles.add(membership)
        return membership

    def publisher(self) -> KafkaPublisher:
        publisher = KafkaPublisher(self._config)
        self._roles.add(publisher)
        return publisher

    def reader(
        self, topics: Sequence[str], from_beginning: bool = True, positions: Positions | None = None
    ) -> KafkaReader:
        reader = KafkaReader(self._config, self._partitions(topics), from_beginning, positions or {})
        self._roles.add(reader)
        return reader

    def close(self) -> None:
        for role in list(self._roles):
            role.close()

    def _admin(self) -> Any:
        return build(KafkaAdminClient, self._config.common("admin"))

    def _partitions(self, topics: Sequence[str]) -> list[TopicPartition]:
        """Uses the admin client, because a consumer's partitions_for_topic() waits without limit."""
        with closing(self._admin()) as admin, translated():
            described = admin.describe_topics(list(topics))
        for topic in described:
            if topic["error_code"]:
                raise BusError(f"topic {topic['name']!r}: {kafka_errors.for_code(topic['error_code']).__name__}")
        return [
            TopicPartition(topic["name"], partition["partition_index"])
            for topic in described
            for partition in topic["partitions"]
        ]


def _limits(admin: KafkaAdminClient, topics: Sequence[str]) -> dict[str, dict[str, int]]:
    """The retention and the largest message of each topic, by the names of these settings; empty if this client may not
    read them."""
    names = [_RETENTION, _LARGEST_MESSAGE]
    wanted = [ConfigResource(ConfigResourceType.TOPIC, topic, names) for topic in topics]
    try:
        found = admin.describe_configs(wanted, config_filter="all")["topic"]
    except kafka_errors.AuthorizationError:
        return {}
    return {
        topic: {name: int(settings[name]["value"]) for name in names if name in settings}
        for topic, settings in found.items()
    }


def _topic_configs(spec: TopicSpec) -> dict[str, str]:
    configs: dict[str, str] = {}
    if spec.retention_ms is not None:
        configs[_RETENTION] = str(spec.retention_ms)
    if spec.max_message_bytes is not None:
        configs[_LARGEST_MESSAGE] = str(spec.max_message_bytes)
    if spec.stamped_by_broker:
        configs["message.timestamp.type"] = "LogAppendTime"
    return configs


class KafkaPublisher(Closing):
    """Appends records without a transaction: each once and in order within its key, even if sending is retried.

    After an error some of them may be stored; after BusUnavailableError some may be stored later.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        # One call at a time: a refused record fails all records in flight, whichever call sent them.
        self._lock = threading.Lock()
        self._producer: KafkaProducer = self._connect()
        self._failed = False

    def publish(self, outputs: Sequence[Outgoing], timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        if not self._lock.acquire(timeout=timeout_s):
            raise BusUnavailableError("other threads' records were not acknowledged in time")
        try:
            if self._failed:
                # kafka-python gives an idempotent producer up for good at the first record that a broker refuses.
                transactions.close(self._producer, 0)
                self._producer, self._failed = self._connect(), False
            with translated():
                send_all(self._producer, outputs, deadline, self._config.max_buffered_bytes)
        except BusError:
            self._failed = True
            raise
        finally:
            self._lock.release()

    def _connect(self) -> KafkaProducer:
        return build(KafkaProducer, self._config.producer("publisher"))

    def close(self) -> None:
        transactions.close(self._producer, CLOSE_TIMEOUT_S)


class KafkaReader(Closing):
    """Reads all partitions that the topics had when it was made; leaves no trace on the broker."""

    def __init__(
        self, config: KafkaConfig, partitions: Sequence[TopicPartition], from_beginning: bool, positions: Positions
    ) -> None:
        self._timeout_s = config.commit_timeout_s
        self._partitions = list(partitions)
        self._ahead: deque[Record] = deque()
        self._returned: dict[tuple[str, int], int] = {}
        self._consumer: KafkaConsumer = build(KafkaConsumer, config.consumer("reader"))
        try:
            # A consumer sees the end offsets of its own isolation level only. This one sees the high watermark.
            watermarks = config.consumer("reader-ends", isolation_level="read_uncommitted")
            self._watermarks: KafkaConsumer = build(KafkaConsumer, watermarks)
        except BaseException:
            self._consumer.close(autocommit=False)
            raise
        try:
            self._consumer.assign(self._partitions)
            # seek_to_end() looks the end up at the first poll, and would miss records published before that.
            begin: dict[TopicPartition, int] = {} if from_beginning else dict(self._end_offsets(self._consumer))
            begin |= {one: positions[tuple(one)] for one in self._partitions if tuple(one) in positions}
            for partition, offset in begin.items():
                self._consumer.seek(partition, offset)
                self._returned[tuple(partition)] = offset
        except BaseException:
            self.close()
            raise

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        deadline = time.monotonic() + timeout_s
        records = [self._ahead.popleft() for _ in range(min(max_records, len(self._ahead)))]
        while not records:
            remaining = deadline - time.monotonic()
            records = _readable(fetch(self._consumer, max_records, max(0.0, min(SLICE_S, remaining))))
            if remaining <= 0:
                break
        for record in records:
            self._returned[(record.topic, record.partition)] = record.offset + 1
        return records

    def positions(self) -> Positions:
        return dict(self._returned)

    def at_end(self) -> bool:
        """See the interface. Also False while a transaction before the end is open, because it may be committed.

        A commit is done when its outcome is on record; its records become readable a moment later. So the last stable
        offset would be an end too early, and this waits a little for the high watermark instead. Transaction markers
        occupy offsets and deliver nothing, so only fetching tells whether any record is left. Fetched records are kept
        for ``poll``.
        """
        deadline = time.monotonic() + _TRANSACTION_S
        ends = self._end_offsets(self._watermarks)
        while not self._ahead:
            with translated():
                behind = any(
                    (self._consumer.position(partition, timeout_ms=milliseconds(SLICE_S)) or 0) < end
                    for partition, end in ends.items()
                )
            if not behind:
                return True
            if time.monotonic() > deadline:
                return False
            self._ahead.extend(_readable(fetch(self._consumer, _LOOK_AHEAD_RECORDS, timeout_s=0.05)))
        return False

    def _end_offsets(self, consumer: KafkaConsumer) -> dict[TopicPartition, int]:
        with translated():
            ends: dict[TopicPartition, int] = consumer.end_offsets(
                self._partitions, timeout_ms=milliseconds(self._timeout_s)
            )
            return ends

    def close(self) -> None:
        for consumer in (self._consumer, self._watermarks):
            consumer.close(autocommit=False, timeout_ms=milliseconds(CLOSE_TIMEOUT_S))


def _readable(records: Sequence[Record]) -> list[Record]:
    """The readable records. An unreadable batch is logged."""
    for record in records:
        if record.unreadable is not None:
            log.warning("skipped: %s", UnreadableBatch(record))
    return [record for record in records if record.unreadable is None]
