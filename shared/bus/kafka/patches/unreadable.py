"""Delivers unreadable batches as marked records.

kafka-python 3.0.12 raises once if a batch is damaged (its checksum, its codec, its compressed body, its records). After
that its poll never returns, because ``Fetcher.fetched_records`` loops over an exhausted iterator. Raising would not be
enough either: the caller could not tell how far to skip. So this module replaces the reading of a fetched partition.
The records before the damage are delivered as usual. Then one marked record stands for the rest of the batch, at the
last offset of the batch. Committing it commits past the batch.
"""

from __future__ import annotations

import functools
import logging
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

from kafka import KafkaConsumer
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.errors import CorruptRecordError, InvalidRecordError, KafkaError, UnknownError
from kafka.structs import TopicPartition

import shared.bus.kafka.patches.codecs  # noqa: F401 (replaces kafka-python's decoders)
from shared.bus.base import Unreadable

log = logging.getLogger(__name__)

#: How often a partition that its broker cannot read is logged and fetched again.
_TELL_AGAIN_S = 60.0
_ASK_AGAIN_S = 0.05


class UnreadableRecord(ConsumerRecord):  # type: ignore[misc]
    """Stands for an unreadable batch, or the rest of one. Its value is the raw batch."""

    unreadable: Unreadable


def name_unreadable_batches(consumer: KafkaConsumer) -> None:
    """Make ``consumer`` deliver an UnreadableRecord instead of raising.

    If a broker itself cannot read a partition, there is nothing to deliver and no known offset to skip to. That
    partition waits for its operator and the others go on. kafka-python would raise and hold up all of them.
    """
    fetcher = consumer._fetcher
    fetcher.PartitionRecords = functools.partial(_PartitionRecords, consumer._subscription.assignment)
    parse, quiet_until = fetcher._parse_fetched_data, dict[TopicPartition, float]()

    def parse_or_wait(fetch: Any) -> Any:
        try:
            return parse(fetch)
        except (CorruptRecordError, InvalidRecordError, UnknownError) as error:
            if time.monotonic() > quiet_until.get(fetch.topic_partition, 0.0):
                quiet_until[fetch.topic_partition] = time.monotonic() + _TELL_AGAIN_S
                log.error("the broker cannot read %s at %d: %s", fetch.topic_partition, fetch.fetched_offset, error)
            # The broker answers such a fetch at once, so the next one would follow at once.
            time.sleep(_ASK_AGAIN_S)
            return None

    fetcher._parse_fetched_data = parse_or_wait


def unreadable(record: Any) -> Unreadable | None:
    """Why a record of kafka-python's is unreadable; None if it was read."""
    return record.unreadable if isinstance(record, UnreadableRecord) else None


class _BatchEnds(Exception):  # noqa: N818 (no error)
    """kafka-python asks for the batch after the current one."""


class _OneBatch:
    """Exposes one batch of the fetched records at a time, so that damage does not hide the batches after it."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def next_batch(self) -> Any:
        if self._batch is None:
            raise _BatchEnds
        batch, self._batch = self._batch, None
        return batch


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one partition from one fetch."""

    def __init__(self, assignment: Mapping[TopicPartition, Any], *arguments: Any, **options: Any) -> None:
        self._assignment = assignment
        super().__init__(*arguments, **options)

    def take(self, n: int | None = None) -> list[Any]:
        try:
            taken: list[Any] = super().take(n)
        except BaseException:
            # The error exhausted the iterator. Without it the partition is fetched again; with it the loop would never
            # end.
            self.drain()
            raise
        return taken

    def _unpack_records(self, tp: TopicPartition, records: Any, *deserializers: Any) -> Iterator[Any]:
        while records.has_next():
            raw, read_before = records._next_slice, self.records_read
            try:
                batch = records.next_batch()
                yield from super()._unpack_records(tp, _OneBatch(batch), *deserializers)
            except _BatchEnds:
                if batch.magic == 2:
                    # Records at the end of the batch may have been compacted away.
                    self.next_fetch_offset = batch.next_offset
            except MemoryError:
                raise
            except Exception as error:
                if self.records_read > read_before and self.next_fetch_offset > _said_last_offsets(raw)[0]:
                    log.warning("%s is damaged behind its last record, at offset %d", tp, self.next_fetch_offset - 1)
                    continue
                last, trusted = self._last_offset(tp, raw, records)
                yield self._unreadable(tp, raw, last, error)
                if trusted:
                    # The damaged batch may have ended a transaction. The records after it are fetched again, so that
                    # the broker lists the aborted transactions again.
                    break
        self.drain()

    def _unreadable(self, tp: TopicPartition, raw: Any, last: int, error: Exception) -> UnreadableRecord:
        first = min(max(self.next_fetch_offset, self.fetch_offset), last)
        self.next_fetch_offset = last + 1
        value = bytes(raw)
        record = UnreadableRecord(
            tp.topic, tp.partition, self.leader_epoch, last, 0, 0, None, value, [], None, -1, len(value), -1
        )
        # The text of kafka-python's errors includes number and name.
        said = error.args[0] if isinstance(error, KafkaError) and error.args else error
        record.unreadable = Unreadable(first, f"{type(error).__name__}: {said}")
        return record

    def _last_offset(self, tp: TopicPartition, raw: Any, records: Any) -> tuple[int, bool]:
        """The last offset of the batch in ``raw``, and whether its header can be right about it.

        The header may be damaged as well. So the offset is never before the requested one, which would deliver the same
        batch for ever, and never after the next batch or the end, which would skip good records.
        """
        following = records._next_slice
        if following is not None and len(following) < _HEADER.size:
            following = None  # no batch
        first = max(self.next_fetch_offset, self.fetch_offset)
        by_offset, by_count = _said_last_offsets(raw)
        end = struct.unpack_from(">q", following)[0] if following is not None else self._assignment[tp].highwater
        if end is None or by_offset < end or end <= first:
            return max(by_offset, first), True
        return (end - 1 if following is not None else min(max(by_count, first), end - 1)), False


def _said_last_offsets(raw: Any) -> tuple[int, int]:
    """The last offset by the header's field, and by its record count; -1 if it is too short."""
    if len(raw) < _HEADER.size:
        return -1, -1
    base, magic, delta, count = _HEADER.unpack_from(raw)
    return (base + delta, base + count - 1) if magic == 2 else (base, base)


#: Base offset, (length, leader epoch), magic, (checksum, attributes), last offset delta, (times, producer), count.
_HEADER = struct.Struct(">q8xb6xi30xi")
