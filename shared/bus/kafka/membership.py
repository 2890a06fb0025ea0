"""A member of a Kafka consumer group whose units of work are transactions."""

from __future__ import annotations

import logging
import re
import socket
import time
import uuid
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from kafka import KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition

from shared.bus.base import BusError, BusUnavailableError, FencedError, Outgoing, Record
from shared.bus.kafka.assignor import CooperativeAssignor
from shared.bus.kafka.clients import (
    CLOSE_TIMEOUT_S,
    SLICE_S,
    KafkaConfig,
    build,
    bus_error,
    fetch,
    milliseconds,
    send_all,
    translated,
)
from shared.bus.kafka.patches import transactions
from shared.bus.kafka.patches.consumer import (
    committed_offsets,
    drop_parked_records,
    heartbeat,
    known_position,
    wait_for_metadata,
)
from shared.bus.kafka.patches.group import GroupPatches, Ownership
from shared.bus.kafka.patches.reach import silent_s
from shared.bus.roles import Closing
from shared.system.fault_points import KAFKA_OFFSETS_SENT, KAFKA_SENT, fault_point

log = logging.getLogger(__name__)

#: A commit waits this long for a pending assignment, because the partitions usually stay.
_SETTLE_S = 1.0
#: How often an idle member looks for trailing offsets without records.
_PASS_EVERY_S = 1.0
#: How long ``keep_alive`` may help a rebalance along.
_REJOIN_SLICE_S = 0.05


class KafkaMembership(Closing):
    """See :class:`shared.bus.base.Membership`."""

    def __init__(self, config: KafkaConfig, group: str, topics: Sequence[str]) -> None:
        self._config = config
        self._group = group
        # Unique to this membership: nobody else's transactions are fenced by it. A zombie of the same group is fenced
        # by the generation in its group metadata (KIP-447), not, as before, by a transactional ID per partition.
        host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
        self._transactional_id = f"{group}-{host}-{uuid.uuid4().hex[:12]}"
        self._producer: KafkaProducer | None = None
        self._unsettled = False
        #: The offset after the last delivered record of each partition, and its committed offset.
        self._delivered: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        #: The ownership epochs whose records are read from the committed offsets on.
        self._positioned: Mapping[TopicPartition, str] = {}
        self._kept: deque[Record] = deque()
        #: Until when partitions are put aside.
        self._aside: dict[TopicPartition, float] = {}
        self._next_pass = 0.0
        self._closed = False
        assignor = CooperativeAssignor()
        self._consumer: KafkaConsumer = build(
            KafkaConsumer,
            config.consumer(
                group,
                group_id=group,
                partition_assignment_strategy=(assignor,),
                session_timeout_ms=milliseconds(config.session_timeout_s),
                heartbeat_interval_ms=min(3000, milliseconds(config.session_timeout_s / 6)),
                max_poll_interval_ms=milliseconds(config.max_poll_interval_s),
            ),
        )
        self._group_state = GroupPatches(self._consumer)
        assignor.owned = self._group_state.owned
        self._consumer.subscribe(topics=list(topics))
        try:
            with translated():
                wait_for_metadata(self._consumer, milliseconds(config.connect_timeout_s))
        except BaseException:
            self.close()
            raise

    # Reading

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        deadline = time.monotonic() + timeout_s
        while True:
            if not self._kept:
                self._pause_what_is_aside()
                remaining = deadline - time.monotonic()
                self._fetch(max_records, max(0.0, min(SLICE_S, remaining)))
            if records := self._take_kept(max_records):
                return records
            if time.monotonic() >= deadline:
                self._pass_what_nobody_reads()
                return []

    def keep_alive(self) -> None:
        """A poll that delivers nothing; the group measures ``max_poll_interval_s`` between polls.

        Records fetched ahead for the paused partitions stay parked in the client until they are resumed. A rebalance
        during this poll can add partitions that are not paused. ``poll`` reads these from their committed offset,
        whatever they deliver here.
        """
        with translated():
            self._consumer.pause(*self._consumer.assignment())
            try:
                # A rebalance takes several requests. Without one there is nothing to wait for.
                wait_s = _REJOIN_SLICE_S if self._group_state.rejoining else 0.0
                self._fetch(max_records=1, timeout_s=wait_s)
            finally:
                self._consumer.resume(*self._consumer.paused())

    def confirm(self, records: Sequence[Record]) -> None:
        """The broker answers a heartbeat quickly, and checks member and generation as for a commit."""
        deadline = time.monotonic() + self._config.commit_timeout_s
        self._settle(min(deadline, time.monotonic() + _SETTLE_S))
        self._offsets(records, self._group_state.metadata()[1])
        with translated(), suppress(kafka_errors.RebalanceInProgressError):
            heartbeat(self._consumer, milliseconds(deadline - time.monotonic()))

    def rewind(self) -> None:
        # Remembered until it succeeds. Otherwise the next poll would skip uncommitted records.
        self._positioned = {}
        self._kept.clear()
        self._seek_to_committed()

    def put_aside(self, partitions: Collection[tuple[str, int]], seconds: float) -> None:
        until = time.monotonic() + seconds
        self._aside.update({TopicPartition(topic, partition): until for topic, partition in partitions})

    def _pause_what_is_aside(self) -> None:
        now = time.monotonic()
        self._aside = {partition: until for partition, until in self._aside.items() if until > now}
        paused = self._consumer.paused()
        wanted = self._consumer.assignment() & self._aside.keys()
        if wanted != paused:
            self._consumer.pause(*(wanted - paused))
            for partition in paused - wanted:
                drop_parked_records(self._consumer, partition)
                self._consumer.resume(partition)

    def _fetch(self, max_records: int, timeout_s: float) -> None:
        """Keep the records of one poll. All were read from the committed offset of their epoch on."""
        if self._positioned != self._group_state.ownership.epochs:
            self._seek_to_committed()
        records = fetch(self._consumer, max_records, timeout_s)
        epochs = self._group_state.ownership.epochs
        for record in records:
            partition = TopicPartition(record.topic, record.partition)
            epoch = epochs.get(partition)
            # A partition that arrived during the poll. It is read again once its committed offset is known.
            if epoch is not None and epoch == self._positioned.get(partition):
                self._kept.append(replace(record, epoch=epoch))
                self._delivered[partition] = record.offset + 1

    def _take_kept(self, max_records: int) -> list[Record]:
        taken: list[Record] = []
        epochs = self._group_state.ownership.epochs
        while self._kept and len(taken) < max_records:
            record = self._kept.popleft()
            # A record of an ended epoch is dropped. The new owner fetches it again, or this member does, from the
            # committed offset on.
            if epochs.get(TopicPartition(record.topic, record.partition)) == record.epoch:
                taken.append(record)
        return taken

    def _seek_to_committed(self) -> None:
        """Seek each partition whose epoch has just begun, or that was rewound, to the group's committed offset."""
        if self._unsettled:
            # A commit of unknown outcome. Initialising the same transactional ID again makes the broker end the
            # transaction. Only then are the committed offsets final.
            self._ready_producer()
        epochs = self._group_state.ownership.epochs
        begun = [partition for partition, epoch in epochs.items() if self._positioned.get(partition) != epoch]
        with translated():
            committed = committed_offsets(self._consumer, begun, milliseconds(self._config.commit_timeout_s))
            for partition in begun:
                self._delivered.pop(partition, None)
                if partition in committed:
                    self._committed[partition] = committed[partition].offset
                    self._consumer.seek(partition, committed[partition].offset)
                else:
                    self._committed.pop(partition, None)
                    self._consumer.seek_to_beginning(partition)
        self._positioned = epochs

    def _pass_what_nobody_reads(self) -> None:
        """Commit the position of each partition that is read to its end and followed only by transaction markers.

        Otherwise each partition would keep a lag of 1 for ever, and an autoscaler that goes by the lag would never
        scale down.
        """
        if self._kept or self._group_state.awaits_assignment or time.monotonic() < self._next_pass:
            return
        self._next_pass = time.monotonic() + _PASS_EVERY_S
        passed: dict[TopicPartition, OffsetAndMetadata] = {}
        for partition in self._positioned:
            committed = self._committed.get(partition, 0)
            if self._delivered.get(partition, 0) > committed:
                continue  # some records are not committed yet
            position = known_position(self._consumer, partition)
            if position is not None and position > committed:
                passed[partition] = OffsetAndMetadata(position, "", -1)
        if not passed:
            return
        try:
            membership, owned = self._group_state.metadata()
            # Checked again after the snapshot, which the broker uses to check the commit.
            if all(owned.epochs.get(partition) == self._positioned.get(partition) for partition in passed):
                self._transact([], passed, membership, time.monotonic() + self._config.commit_timeout_s)
        except FencedError as error:
            log.debug("left to the next owner: %s", error)

    def assigned(self) -> frozenset[tuple[str, int]]:
        return frozenset((partition.topic, partition.partition) for partition in self._consumer.assignment())

    def lag(self, timeout_s: float = 1.0) -> dict[tuple[str, int], int]:
        owned = list(self._consumer.assignment() & self._positioned.keys())
        with translated():
            # Up to the last stable offset, because the consumer reads what is committed.
            ends = self._consumer.end_offsets(owned, timeout_ms=milliseconds(timeout_s)) if owned else {}
            # Without a committed offset the group begins at the oldest record that is left.
            begun = [partition for partition in owned if partition not in self._committed and ends[partition]]
            begins = self._consumer.beginning_offsets(begun, timeout_ms=milliseconds(timeout_s)) if begun else {}
        return {
            (partition.topic, partition.partition): max(
                0, end - self._committed.get(partition, begins.get(partition, end))
            )
            for partition, end in ends.items()
        }

    def committed(self, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        if not partitions:
            return {}
        with translated():
            wanted = [TopicPartition(topic, partition) for topic, partition in partitions]
            found = committed_offsets(self._consumer, wanted, milliseconds(self._config.commit_timeout_s))
        return {(partition.topic, partition.partition): known.offset for partition, known in found.items()}

    def silent_s(self) -> float:
        return silent_s(self._consumer)

    # Committing

    def commit(self, outputs: Sequence[Outgoing], consumed: Sequence[Record]) -> None:
        if not outputs and not consumed:
            return
        deadline = time.monotonic() + self._config.commit_timeout_s
        if not consumed:
            self._transact(outputs, {}, None, deadline)
            return
        # 1. Check the ownership. This is cheap and saves most of the transactions that the broker would refuse below.
        # The check and the commit use one snapshot of the membership, so nothing can change in between.
        self._settle(min(deadline, time.monotonic() + _SETTLE_S))
        membership, owned = self._group_state.metadata()
        self._transact(outputs, self._offsets(consumed, owned), membership, deadline)

    def _settle(self, until: float) -> None:
        """Wait for a pending assignment. A commit before it belongs to no known generation."""
        while self._group_state.awaits_assignment and time.monotonic() < until:
            self.keep_alive()

    def _offsets(self, consumed: Sequence[Record], owned: Ownership) -> dict[TopicPartition, OffsetAndMetadata]:
        """The offset after the last consumed record of each partition. Raises FencedError if this member lost one."""
        offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        for record in consumed:
            partition = TopicPartition(record.topic, record.partition)
            if not record.epoch or owned.epochs.get(partition) != record.epoch:
                raise FencedError(f"{record.coordinates} was given to another member of {self._group} meanwhile")
            known = offsets.get(partition)
            if known is None or record.offset >= known.offset:
                offsets[partition] = OffsetAndMetadata(record.offset + 1, "", -1)
        return offsets

    def _transact(
        self,
        outputs: Sequence[Outgoing],
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        membership: ConsumerGroupMetadata | None,
        deadline: float,
    ) -> None:
        """Publish and commit as one transaction. ``membership`` goes with the offsets."""
        # 2. Get a producer without an open transaction, whatever became of the one before.
        producer = self._ready_producer()
        try:
            with translated():
                # 3. Open the transaction only now. None is open while a batch is processed, so none can time out or
                # hold up readers.
                producer.begin_transaction()
                # 4. Send all outputs and wait for their acknowledgements. The first refusal ends the unit and names the
                # record.
                send_all(producer, outputs, deadline, self._config.max_buffered_bytes)
                fault_point(KAFKA_SENT)
                # 5. Add the offsets to the transaction. The broker checks member and generation, so a member that was
                # replaced unnoticed is fenced here at the latest.
                if membership is not None:
                    transactions.send_offsets(producer, offsets, membership, deadline)
                    fault_point(KAFKA_OFFSETS_SENT)
                # 6. Commit: everything becomes visible in one step.
                self._unsettled = True
                transactions.commit(producer, deadline)
                self._unsettled = False
        except BaseException as error:
            self._abort(producer)
            if self._unsettled and isinstance(error, BusError) and not isinstance(error, BusUnavailableError):
                raise BusUnavailableError(str(error)) from error
            raise
        self._committed |= {partition: metadata.offset for partition, metadata in offsets.items()}

    def _ready_producer(self) -> KafkaProducer:
        if self._producer is None:
            producer = build(
                KafkaProducer,
                self._config.producer(
                    self._group,
                    transactional_id=self._transactional_id,
                    transaction_timeout_ms=milliseconds(self._config.transaction_timeout_s),
                ),
            )
            try:
                with translated():
                    producer.init_transactions()
            except BaseException:
                transactions.close(producer, 0)
                raise
            self._producer = producer
            self._unsettled = False
        return self._producer

    def _abort(self, producer: KafkaProducer) -> None:
        """End the failed transaction, and its producer with it.

        kafka-python 3.0.12 keeps the offsets that the broker refused and sends them with the next transaction, under
        the new membership. The broker accepts them, and the group's offsets go back. So nothing of a failed transaction
        may survive. If the abort itself fails, the next producer ends the transaction.
        """
        try:
            if self._unsettled:
                raise BusUnavailableError("a commit under way cannot be aborted")
            transactions.abort(producer, time.monotonic() + CLOSE_TIMEOUT_S)
        except (kafka_errors.KafkaError, BusError) as error:
            log.warning("transaction left to the next producer to end: %s", bus_error(error))
            self._unsettled = True
        self._producer = None
        transactions.close(producer, 0)

    # Leaving

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            # The group first, so that the others get the partitions while the producer is still closing.
            self._consumer.close(autocommit=False, timeout_ms=milliseconds(CLOSE_TIMEOUT_S))
        except kafka_errors.KafkaError as error:
            log.warning("left the group without saying so: %s", bus_error(error))
        finally:
            if self._producer is not None:
                transactions.close(self._producer, CLOSE_TIMEOUT_S)
