"""Batches that cannot be read are delivered as records that say so.

kafka-python 3.0.12 raises once where a batch is damaged (its checksum, its codec, its compressed body, the records in
it), and from then on its poll never returns: ``Fetcher.fetched_records`` goes round and round over an iterator that is
used up. Raising would not be enough either, as nobody could tell how far to skip. So the reading of a fetched partition
is replaced here by one that goes on: what can be read before the damage is delivered as always, then one record in
place of the rest of the batch, marked and at its last offset. Committing that commits past the batch.
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

#: How often a partition that its broker cannot read is named, and fetched again.
_TELL_AGAIN_S = 60.0
_ASK_AGAIN_S = 0.05


class UnreadableRecord(ConsumerRecord):  # type: ignore[misc]
    """Stands for a batch, or the rest of one, that cannot be read. Its value is the raw batch."""

    unreadable: Unreadable


def name_unreadable_batches(consumer: KafkaConsumer) -> None:
    """Make ``consumer`` deliver an UnreadableRecord where it would raise.

    Where a broker itself cannot read a partition there is nothing to deliver and no telling how far to skip. That
    partition waits for its operator, and the others go on: kafka-python would raise, and hold them up as well.
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
            # The broker answers such a fetch at once, and is asked again at once.
            time.sleep(_ASK_AGAIN_S)
            return None

    fetcher._parse_fetched_data = parse_or_wait


def unreadable(record: Any) -> Unreadable | None:
    """What is wrong with a record of kafka-python's; None where it was read."""
    return record.unreadable if isinstance(record, UnreadableRecord) else None


class _BatchEnds(Exception):  # noqa: N818 (no error)
    """kafka-python asks for the batch after the one it was given."""


class _OneBatch:
    """Shows only one batch of the fetched records, so that its damage does not hide the batches behind it."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def next_batch(self) -> Any:
        if self._batch is None:
            raise _BatchEnds
        batch, self._batch = self._batch, None
        return batch


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The records that one fetch brought of one partition."""

    def __init__(self, assignment: Mapping[TopicPartition, Any], *arguments: Any, **options: Any) -> None:
        self._assignment = assignment
        super().__init__(*arguments, **options)

    def take(self, n: int | None = None) -> list[Any]:
        try:
            taken: list[Any] = super().take(n)
        except BaseException:
            # Used up by the error. Dropped, the partition is fetched again; kept, it would be asked for ever.
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
                    # The damaged batch may have ended a transaction. What comes next is fetched anew: then the broker
                    # says again which of the records behind it were never committed.
                    break
        self.drain()

    def _unreadable(self, tp: TopicPartition, raw: Any, last: int, error: Exception) -> UnreadableRecord:
        first = min(max(self.next_fetch_offset, self.fetch_offset), last)
        self.next_fetch_offset = last + 1
        value = bytes(raw)
        record = UnreadableRecord(
            tp.topic, tp.partition, self.leader_epoch, last, 0, 0, None, value, [], None, -1, len(value), -1
        )
        # An error of kafka-python's says its number and its name by itself.
        said = error.args[0] if isinstance(error, KafkaError) and error.args else error
        record.unreadable = Unreadable(first, f"{type(error).__name__}: {said}")
        return record

    def _last_offset(self, tp: TopicPartition, raw: Any, records: Any) -> tuple[int, bool]:
        """The last offset of the batch in ``raw``, and whether its header can be right about it.

        The header is as damaged as the rest, perhaps. So the offset is never before the one that was asked for, which
        would bring the same batch for ever, and never behind the next batch or the end, which would skip what is good.
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
    """The last offset as the header says it, and as its count of records does; -1 where it is too short."""
    if len(raw) < _HEADER.size:
        return -1, -1
    base, magic, delta, count = _HEADER.unpack_from(raw)
    return (base + delta, base + count - 1) if magic == 2 else (base, base)


#: Base offset, (length, leader epoch), magic, (checksum, attributes), last offset delta, (times, producer), count.
_HEADER = struct.Struct(">q8xb6xi30xi")
