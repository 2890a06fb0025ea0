"""A producer's transaction, step by step and with time limits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from kafka import KafkaProducer
from kafka import errors as kafka_errors
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition

from shared.bus.base import BusUnavailableError


def send_offsets(
    producer: KafkaProducer,
    offsets: Mapping[TopicPartition, OffsetAndMetadata],
    membership: ConsumerGroupMetadata,
    deadline: float,
) -> None:
    """Like ``KafkaProducer.send_offsets_to_transaction``, which waits without limit. See ``_complete``."""
    _complete(producer, producer._transaction_manager.send_offsets_to_transaction(offsets, membership), deadline)


def commit(producer: KafkaProducer, deadline: float) -> None:
    """Like ``KafkaProducer.commit_transaction``, which waits without limit. See ``_complete``."""
    _complete(producer, producer._transaction_manager.begin_commit(), deadline)


def abort(producer: KafkaProducer, deadline: float) -> None:
    """Like ``KafkaProducer.abort_transaction``, which waits without limit. See ``_complete``."""
    _complete(producer, producer._transaction_manager.begin_abort(), deadline)


def _complete(producer: KafkaProducer, result: Any, deadline: float) -> None:
    """Wait for a step until ``deadline`` (of ``time.monotonic``). Raises BusUnavailableError.

    The public methods wait until the broker answers, without limit. They consist of these two halves: start the step,
    and wait for it.
    """
    producer._sender.wakeup()
    if not result.wait(timeout_ms=max(0, round((deadline - time.monotonic()) * 1000))):
        raise BusUnavailableError("the broker did not complete the transaction in time")


def close(producer: KafkaProducer, timeout_s: float) -> None:
    """Close within about ``timeout_s``, whatever the producer is waiting for.

    ``KafkaProducer.close`` flushes first. If that fails it gives up, and the sender thread stays alive.
    """
    try:
        producer.close(timeout=timeout_s)
    except kafka_errors.KafkaError:
        producer._sender.force_close()
        producer._closed = True
