"""The bus over Apache Kafka. ``membership.py`` has the members of groups."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final
from weakref import WeakSet

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import TopicPartition

from shared.bus.base import (
    SAFE_REPLICAS,
    BusError,
    BusUnavailableError,
    Durability,
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
_MIN_INSYNC: Final = "min.insync.replicas"
_CLEANUP: Final = "cleanup.policy"
_UNCLEAN: Final = "unclean.leader.election.enable"
_STAMPS: Final = "message.timestamp.type"
_BROKERS_STAMP: Final = "LogAppendTime"
#: How often a reader looks whether its topics have more partitions by now, seconds.
_LOOK_FOR_PARTITIONS_S: Final = 10.0
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
        with closing(self._admin()) as admin, translated():
            replicas = self._replicas(admin)
            wanted = {
                spec.name: {
                    "num_partitions": spec.partitions,
                    "replication_factor": replicas,
                    "configs": _topic_configs(spec, replicas),
                }
                for spec in topics
            }
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

    def grow_topics(self, partitions: Mapping[str, int], timeout_s: float = 30.0) -> None:
        """Give each of these topics so many partitions, more than it has. Members and readers find them by themselves,
        within ``metadata_max_age_s``."""
        if not partitions:
            return
        with closing(self._admin()) as admin, translated():
            admin.create_partitions(dict(partitions), timeout_ms=milliseconds(timeout_s))
            admin.wait_for_topics(list(partitions), timeout_ms=milliseconds(timeout_s))

    def existing(self, topics: Sequence[str]) -> dict[str, TopicSpec]:
        with closing(self._admin()) as admin, translated():
            described = {
                topic["name"]: topic["partitions"]
                for topic in admin.describe_topics(list(topics))
                if not topic["error_code"]
            }
            configs = _found_configs(admin, list(described)) if described else {}
            brokers = len(admin.describe_cluster()["brokers"]) if described else 0
        return {
            name: _found_spec(name, partitions, configs.get(name, {}), brokers)
            for name, partitions in described.items()
        }

    def _replicas(self, admin: Any) -> int:
        """How many replicas a new topic gets. Raises BusError for more than there are brokers."""
        wanted = self._config.replication_factor
        if wanted is not None and wanted < 0:
            return wanted
        brokers = len(admin.describe_cluster()["brokers"])
        if wanted is not None and wanted > brokers:
            raise BusError(f"{wanted} replicas need as many brokers, and {brokers} answer")
        return min(SAFE_REPLICAS, brokers) if wanted is None else wanted

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


def _found_configs(admin: KafkaAdminClient, topics: Sequence[str]) -> dict[str, dict[str, str]]:
    """The settings of each topic that matter here, by their names; empty if this client may not read them."""
    names = [_RETENTION, _LARGEST_MESSAGE, _MIN_INSYNC, _CLEANUP, _UNCLEAN, _STAMPS]
    wanted = [ConfigResource(ConfigResourceType.TOPIC, topic, names) for topic in topics]
    try:
        found = admin.describe_configs(wanted, config_filter="all")["topic"]
    except kafka_errors.AuthorizationError:
        return {}
    return {
        topic: {name: str(settings[name]["value"]) for name in names if name in settings}
        for topic, settings in found.items()
    }


def _found_spec(name: str, partitions: Sequence[Any], settings: Mapping[str, str], brokers: int) -> TopicSpec:
    if not settings:
        return TopicSpec(name, len(partitions))
    return TopicSpec(
        name,
        len(partitions),
        int(settings[_RETENTION]),
        int(settings[_LARGEST_MESSAGE]),
        settings[_STAMPS] == _BROKERS_STAMP,
        Durability(
            brokers=brokers,
            replicas=min(len(partition["replica_nodes"]) for partition in partitions),
            min_insync_replicas=int(settings[_MIN_INSYNC]),
            compacted="compact" in settings[_CLEANUP],
            unclean_elections=settings[_UNCLEAN] == "true",
        ),
    )


def _topic_configs(spec: TopicSpec, replicas: int) -> dict[str, str]:
    configs: dict[str, str] = {}
    if replicas > 0:
        # A record is acknowledged by two of three: one broker may be away, and one that has the record is left.
        configs[_MIN_INSYNC] = "2" if replicas >= SAFE_REPLICAS else "1"
        configs[_CLEANUP] = "delete"
        configs[_UNCLEAN] = "false"
    if spec.retention_ms is not None:
        configs[_RETENTION] = str(spec.retention_ms)
    if spec.max_message_bytes is not None:
        configs[_LARGEST_MESSAGE] = str(spec.max_message_bytes)
    if spec.stamped_by_broker:
        configs[_STAMPS] = _BROKERS_STAMP
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
    """Reads all partitions of the topics, also those that come later; leaves no trace on the broker."""

    def __init__(
        self, config: KafkaConfig, partitions: Sequence[TopicPartition], from_beginning: bool, positions: Positions
    ) -> None:
        self._timeout_s = config.commit_timeout_s
        self._partitions = list(partitions)
        self._ahead: deque[Record] = deque()
        self._returned: dict[tuple[str, int], int] = {}
        self._next_look = time.monotonic() + _LOOK_FOR_PARTITIONS_S
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
        self._look_for_partitions()
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

    def _look_for_partitions(self) -> None:
        """Read partitions that were added since, from their beginning: all in them came after this reader."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_FOR_PARTITIONS_S
        known = set(self._partitions)
        # The client has looked these up by itself; this asks nobody.
        found = {
            TopicPartition(topic, number)
            for topic in {partition.topic for partition in known}
            for number in self._consumer.partitions_for_topic(topic)
        }
        if new := sorted(found - known):
            log.info("reads new partitions", extra={"partitions": [f"{one.topic}/{one.partition}" for one in new]})
            self._partitions += new
            with translated():
                self._consumer.assign(self._partitions)
                for partition in new:
                    self._consumer.seek(partition, 0)

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
