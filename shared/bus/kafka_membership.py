"""A member of a Kafka consumer group whose units of work are transactions."""

from __future__ import annotations

import logging
import re
import socket
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.structs import ConsumerGroupMetadata, MemberState, OffsetAndMetadata, TopicPartition

from shared.bus.base import BusError, BusUnavailableError, FencedError, Outgoing, Record
from shared.bus.kafka_clients import (
    CLOSE_TIMEOUT_S,
    SLICE_S,
    KafkaConfig,
    build,
    bus_error,
    close_producer,
    fetch,
    milliseconds,
    send_all,
    translated,
)
from shared.bus.roles import Closing
from shared.fault_points import KAFKA_OFFSETS_SENT, KAFKA_SENT, fault_point

log = logging.getLogger(__name__)

#: A rebalance that is under way at a commit is waited for this long: the partitions mostly stay where they are.
_SETTLE_S = 1.0
#: How long ``keep_alive`` may help a rebalance along.
_REJOIN_SLICE_S = 0.05


class _Tenures(ConsumerRebalanceListener):  # type: ignore[misc]
    """Since when this member owns each partition without a break, counted in rebalances.

    A rebalance gives most partitions back to the member that had them; a batch in hand is fenced only if one of its
    partitions was away meanwhile. A member cannot miss a generation unnoticed: it would be expelled, and
    ``on_partitions_lost`` ends all its tenures.
    """

    def __init__(self, consumer: KafkaConsumer) -> None:
        self.since: dict[TopicPartition, int] = {}
        self.generation = -1
        self._rebalances = 0
        self._consumer = consumer
        self._joined: Any = None
        self._hold_on_to_joins()

    def _hold_on_to_joins(self) -> None:
        """Work round kafka-python 3.0.12 losing the answer to a join that arrives between two polls.

        Its next poll then joins once more, which can go on for ever where polls are short (``keep_alive``); or, when
        new partitions were the reason, never looks again: the member stays without heartbeats and partitions. Here
        the answer is kept until it is taken, and a join under way counts as a reason to look.
        """
        coordinator = self._consumer._coordinator
        join, need_rejoin = coordinator._do_join_and_sync_async, coordinator.need_rejoin

        async def join_or_answer() -> Any:
            if self._joined is None:
                self._joined = await join()
            return self._joined

        coordinator._do_join_and_sync_async = join_or_answer
        coordinator.need_rejoin = lambda: need_rejoin() or coordinator._join_task is not None

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Says nothing yet: the eager protocol revokes all partitions before it hands most of them back."""

    def on_partitions_lost(self, lost: Any) -> None:
        self.since = {}
        self._joined = None

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._joined = None
        self._rebalances += 1
        self.since = {partition: self.since.get(partition, self._rebalances) for partition in assigned}
        self.generation = self._consumer.group_metadata().generation_id


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
        self._kept: deque[Record] = deque()
        self._rewind_due = False
        self._closed = False
        self._consumer: KafkaConsumer = build(
            KafkaConsumer,
            config.consumer(
                group,
                group_id=group,
                # Same number, same member, whatever the topic: the records of a key meet in one place.
                partition_assignment_strategy=(RangePartitionAssignor,),
                session_timeout_ms=milliseconds(config.session_timeout_s),
                heartbeat_interval_ms=min(3000, milliseconds(config.session_timeout_s / 6)),
                max_poll_interval_ms=milliseconds(config.max_poll_interval_s),
            ),
        )
        self._tenures = _Tenures(self._consumer)
        self._consumer.subscribe(topics=list(topics), listener=self._tenures)
        try:
            with translated():
                # Not before the partitions are known: a leader that joins earlier assigns nothing to anybody at first.
                self._consumer._net.run(
                    self._consumer._manager.wait_for,
                    self._consumer._cluster.request_update(),
                    milliseconds(config.connect_timeout_s),
                )
        except BaseException:
            self.close()
            raise

    # Reading

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        deadline = time.monotonic() + timeout_s
        if self._rewind_due:
            self._seek_to_committed()
        records = self._take_kept(max_records)
        while not records:
            remaining = deadline - time.monotonic()
            records = self._fetch(max_records, max(0.0, min(SLICE_S, remaining)))
            if remaining <= 0:
                break
        return records

    def keep_alive(self) -> None:
        """A poll that delivers nothing: it is what the group measures ``max_poll_interval_s`` by.

        What was fetched ahead for the paused partitions stays parked in the client until they are resumed. A rebalance
        during this poll can add partitions that were not there to be paused; their records are kept for ``poll``.
        """
        with translated():
            self._consumer.pause(*self._consumer.assignment())
            try:
                # A rebalance takes some requests; without one there is nothing to wait for.
                wait_s = _REJOIN_SLICE_S if self._consumer._coordinator.need_rejoin() else 0.0
                self._kept.extend(self._fetch(max_records=1, timeout_s=wait_s))
            finally:
                self._consumer.resume(*self._consumer.paused())

    def rewind(self) -> None:
        # Remembered until it succeeds: polling on from here would skip what was not committed.
        self._rewind_due = True
        self._kept.clear()
        self._seek_to_committed()

    def assigned(self) -> frozenset[tuple[str, int]]:
        return frozenset((partition.topic, partition.partition) for partition in self._consumer.assignment())

    def committed(self, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        if not partitions:
            return {}
        with translated():
            found = self._consumer._coordinator.fetch_committed_offsets(
                [TopicPartition(topic, partition) for topic, partition in partitions],
                timeout_ms=milliseconds(self._config.commit_timeout_s),
            )
        return {(partition.topic, partition.partition): known.offset for partition, known in found.items()}

    def _take_kept(self, max_records: int) -> list[Record]:
        taken: list[Record] = []
        while self._kept and len(taken) < max_records:
            record = self._kept.popleft()
            # Of an ended tenure: fetched again by its new owner, or by this member from the committed offset on.
            if self._tenure(record) == record.epoch:
                taken.append(record)
        return taken

    def _fetch(self, max_records: int, timeout_s: float) -> list[Record]:
        """One poll of the client. A rebalance takes place before it returns, so what it returns is of this tenure."""
        return [replace(record, epoch=self._tenure(record)) for record in fetch(self._consumer, max_records, timeout_s)]

    def _tenure(self, record: Record) -> int:
        return self._tenures.since.get(TopicPartition(record.topic, record.partition), 0)

    def _seek_to_committed(self) -> None:
        if self._unsettled:
            # A commit of unknown outcome: the same transactional ID, initialised anew, makes the broker end it one
            # way or the other, and only then do the committed offsets tell which.
            self._ready_producer()
        assigned = list(self._consumer.assignment())
        with translated():
            # One request for all partitions; the public committed() takes one each. It requires stable offsets, i.e.
            # waits out the transactions of others that are about to commit some (KIP-447).
            committed = self._consumer._coordinator.fetch_committed_offsets(
                assigned, timeout_ms=milliseconds(self._config.commit_timeout_s)
            )
            for partition in assigned:
                if partition in committed:
                    self._consumer.seek(partition, committed[partition].offset)
                else:
                    self._consumer.seek_to_beginning(partition)
        self._rewind_due = False

    # Committing

    def commit(self, outputs: Sequence[Outgoing], consumed: Sequence[Record]) -> None:
        if not outputs and not consumed:
            return
        deadline = time.monotonic() + self._config.commit_timeout_s
        # 1. Is it still ours? Cheap, and saves most of the transactions that the broker would refuse below. One
        #    snapshot of the group metadata serves the check and the commit: nothing can change in between.
        membership = self._settled_membership(deadline) if consumed else self._consumer.group_metadata()
        offsets = self._offsets(membership, consumed)
        # 2. A producer without a transaction under way, whatever became of the one before.
        producer = self._ready_producer()
        try:
            with translated():
                # 3. Open the transaction only now: while a batch is worked on none is open, so none can time out, and
                #    readers are not held up behind it.
                producer.begin_transaction()
                # 4. All outputs, and their acknowledgements: the first refusal ends the unit and names its culprit.
                send_all(producer, outputs, deadline, self._config.max_buffered_bytes)
                fault_point(KAFKA_SENT)
                # 5. The offsets join the transaction. The broker checks member and generation, so a member that was
                #    replaced unnoticed is fenced here, at the latest.
                if offsets:
                    manager = producer._transaction_manager
                    self._complete(manager.send_offsets_to_transaction(offsets, membership), producer, deadline)
                    fault_point(KAFKA_OFFSETS_SENT)
                # 6. Everything becomes visible, in one step.
                self._unsettled = True
                self._complete(producer._transaction_manager.begin_commit(), producer, deadline)
                self._unsettled = False
        except BaseException as error:
            self._abort(producer)
            if self._unsettled and isinstance(error, BusError) and not isinstance(error, BusUnavailableError):
                raise BusUnavailableError(str(error)) from error
            raise

    def _settled_membership(self, deadline: float) -> ConsumerGroupMetadata:
        until = min(deadline, time.monotonic() + _SETTLE_S)
        while (membership := self._consumer.group_metadata()).state == MemberState.REBALANCING:
            if time.monotonic() > until:
                break
            self.keep_alive()
        return membership

    def _offsets(
        self, membership: ConsumerGroupMetadata, consumed: Sequence[Record]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """The offset behind the last consumed record of each partition. FencedError if one is not ours any more."""
        offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        for record in consumed:
            partition = TopicPartition(record.topic, record.partition)
            tenure = self._tenures.since.get(partition)
            if tenure is None or tenure != record.epoch:
                raise FencedError(f"{record.coordinates} was given to another member of {self._group} meanwhile")
            known = offsets.get(partition)
            if known is None or record.offset >= known.offset:
                offsets[partition] = OffsetAndMetadata(record.offset + 1, "", -1)
        if offsets and membership.generation_id != self._tenures.generation:
            raise FencedError(f"{self._group} was rebalanced; this member does not know its partitions yet")
        return offsets

    @staticmethod
    def _complete(result: Any, producer: KafkaProducer, deadline: float) -> None:
        """Wait for a step of the transaction.

        The public methods wait without limit, whatever happens to the broker; hence their two halves here, with one.
        """
        producer._sender.wakeup()
        if not result.wait(timeout_ms=milliseconds(deadline - time.monotonic())):
            raise BusUnavailableError("the broker did not complete the transaction in time")

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
                close_producer(producer, 0)
                raise
            self._producer = producer
            self._unsettled = False
        return self._producer

    def _abort(self, producer: KafkaProducer) -> None:
        """End the failed transaction. A producer that cannot do that is thrown away; its successor ends it."""
        try:
            if self._unsettled:
                raise BusUnavailableError("a commit under way cannot be aborted")
            aborted = producer._transaction_manager.begin_abort()
            self._complete(aborted, producer, time.monotonic() + CLOSE_TIMEOUT_S)
        except (kafka_errors.KafkaError, BusError) as error:
            log.warning("transaction left to the next producer to end: %s", bus_error(error))
            self._unsettled = True
            self._producer = None
            close_producer(producer, 0)

    # Leaving

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            # First the group: the others get the partitions while the producer is still closing.
            self._consumer.close(autocommit=False, timeout_ms=milliseconds(CLOSE_TIMEOUT_S))
        except kafka_errors.KafkaError as error:
            log.warning("left the group without saying so: %s", bus_error(error))
        finally:
            if self._producer is not None:
                close_producer(self._producer, CLOSE_TIMEOUT_S)
