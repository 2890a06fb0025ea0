"""What the roles of the Kafka bus share: settings, clients that fail cleanly, error mapping, sending and reading.

What reaches below the public surface of kafka-python is in ``patches/``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors

from shared.bus.base import (
    BusError,
    BusUnavailableError,
    FencedError,
    MessageTooLargeError,
    Outgoing,
    Record,
)
from shared.bus.kafka.patches.network import NetworkClient
from shared.bus.kafka.patches.unreadable import name_unreadable_batches, unreadable

#: The longest single call into the client, so that the caller can watch its deadline and signals.
SLICE_S = 0.5
#: How many bytes of a key an error shows.
_SHOWN_KEY = 100
#: How long to wait while connections and threads are closed.
CLOSE_TIMEOUT_S = 3.0

_FENCED = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.FencedInstanceIdError,
    kafka_errors.RebalanceInProgressError,
)
_TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)
#: Only a change of settings or permissions helps against these.
_HOPELESS = (
    kafka_errors.AuthorizationError,
    kafka_errors.InvalidTopicError,
    kafka_errors.IllegalStateError,
    kafka_errors.KafkaConfigurationError,
    kafka_errors.PolicyViolationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.UnsupportedVersionError,
)


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """How to speak to the brokers. Times in seconds, sizes in bytes.

    ``security`` is passed to every client unchanged (``security_protocol``, ``ssl_*``, ``sasl_*`` of kafka-python).
    """

    bootstrap_servers: str | Sequence[str]
    client_id: str = "tonestream"
    security: Mapping[str, Any] = field(default_factory=dict, repr=False)
    #: A member without a heartbeat for this long loses its partitions.
    session_timeout_s: float = 8.0
    #: Longest time between two polls; ``keep_alive`` counts as one.
    max_poll_interval_s: float = 300.0
    #: The broker aborts the transaction of a dead member after this time. Until then its successors wait.
    transaction_timeout_s: float = 15.0
    commit_timeout_s: float = 30.0
    connect_timeout_s: float = 10.0
    #: How soon new topics and partitions are noticed.
    metadata_max_age_s: float = 10.0
    #: Limits what is fetched ahead, and separately what is sent and not yet acknowledged.
    max_buffered_bytes: int = 16 * 1024 * 1024
    #: The largest record that any client sends. Topics have smaller limits of their own.
    max_message_bytes: int = 6 * 1024 * 1024
    compression: str | None = "lz4"
    #: Replicas of the topics that are created: -1 for the broker's default, None for three, or one a broker where there
    #: are fewer.
    replication_factor: int | None = -1

    def common(self, role: str) -> dict[str, Any]:
        """The settings that every kind of client takes."""
        servers = self.bootstrap_servers
        return {
            "bootstrap_servers": servers.split(",") if isinstance(servers, str) else list(servers),
            "client_id": f"{self.client_id}-{role}",
            "bootstrap_timeout_ms": milliseconds(self.connect_timeout_s),
            # By default the pause between attempts grows to 30 s. This finds a returning broker sooner.
            "reconnect_backoff_max_ms": 1000,
            "metadata_max_age_ms": milliseconds(self.metadata_max_age_s),
            **self.security,
        }

    def consumer(self, role: str, **more: Any) -> dict[str, Any]:
        """The settings of a consumer of committed records."""
        return {
            **self.common(role),
            "isolation_level": "read_committed",
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "allow_auto_create_topics": False,
            # One fetch is in flight at a time. A shorter wait delays rewinds and new partitions less.
            "fetch_max_wait_ms": 250,
            "fetch_max_bytes": self.max_buffered_bytes,
            "max_partition_fetch_bytes": min(1024 * 1024, self.max_buffered_bytes),
            "metrics_enabled": False,
            **more,
        }

    def producer(self, role: str, **more: Any) -> dict[str, Any]:
        """The settings of a producer whose records are stored once and in order."""
        request_timeout_s = min(10.0, self.commit_timeout_s / 2)
        return {
            **self.common(role),
            "enable_idempotence": True,
            "acks": "all",
            "allow_auto_create_topics": False,
            "compression_type": self.compression,
            "max_request_size": self.max_message_bytes,
            # Below the smallest limit of a topic, so that no batch is refused because of its size.
            "batch_size": 64 * 1024,
            "linger_ms": 5,
            "request_timeout_ms": milliseconds(request_timeout_s),
            "delivery_timeout_ms": milliseconds(self.commit_timeout_s),
            "max_block_ms": milliseconds(request_timeout_s),
            "metrics_enabled": False,
            **more,
        }


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, never negative."""
    return max(0, round(seconds * 1000))


def build(factory: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
    """A client that is connected. BusUnavailableError if no broker answers, BusSecurityError if they refuse.

    A kafka-python constructor that fails leaves its network thread running. So the network client is kept here and
    closed in that case.
    """
    networks: list[NetworkClient] = []

    def network(**configs: Any) -> NetworkClient:
        networks.append(NetworkClient(**configs))
        return networks[-1]

    try:
        with translated():
            client = factory(**settings, kafka_client=network)
            if isinstance(client, KafkaConsumer):
                name_unreadable_batches(client)
            return client
    except BaseException as error:
        for client in networks:
            client.close()
        if isinstance(error, BusUnavailableError):
            reason = (networks[-1].last_failure if networks else None) or str(error)
            servers = ", ".join(settings["bootstrap_servers"])
            raise BusUnavailableError(
                f"no Kafka broker answers at {servers}: {reason} (TONESTREAM_KAFKA_BOOTSTRAP_SERVERS names the brokers)"
            ) from error
        raise


@contextmanager
def translated() -> Iterator[None]:
    """Translates kafka-python's errors to those of the bus."""
    try:
        yield
    except kafka_errors.KafkaError as error:
        raise bus_error(error) from error


def bus_error(error: BaseException) -> BusError:
    """The error of the bus that tells the caller what to do about ``error``."""
    said = describe(error)
    if isinstance(error, BusError):
        return error
    if isinstance(error, _FENCED):
        return FencedError(said)
    if isinstance(error, _TOO_LARGE):
        return MessageTooLargeError(said)
    if isinstance(error, _HOPELESS):
        return BusError(said)
    return BusUnavailableError(said)


def describe(error: BaseException) -> str:
    """The kind of ``error`` and its text. The text of kafka-python's errors begins with the kind."""
    name, said = type(error).__name__, str(error)
    return said if said.startswith(name) else f"{name}: {said}"


def send_all(producer: KafkaProducer, outputs: Sequence[Outgoing], deadline: float, max_buffered_bytes: int) -> None:
    """Send and wait until every record is acknowledged.

    Raises the error of the first that is not. kafka-python's producer buffers without limit (it has no
    ``buffer_memory``), so sending pauses here whenever ``max_buffered_bytes`` are unacknowledged.
    """
    waiting: list[tuple[Outgoing, Any]] = []
    size = 0
    for output in outputs:
        try:
            headers = list(output.headers)
            waiting.append((output, producer.send(output.topic, output.value, output.key, headers)))
        except kafka_errors.KafkaError as error:
            # A failed transaction refuses further records. The cause is then the error of an earlier record.
            raise _first_failure(waiting) or _blamed(output, error) from error
        size += len(output.key) + len(output.value)
        if size >= max_buffered_bytes:
            _await(producer, waiting, deadline)
            waiting, size = [], 0
    _await(producer, waiting, deadline)


def _await(producer: KafkaProducer, waiting: list[tuple[Outgoing, Any]], deadline: float) -> None:
    if not waiting:
        return
    try:
        # Sends the buffered records without waiting for fuller batches. It does not report which records failed.
        producer.flush(timeout=max(0.0, deadline - time.monotonic()))
    except kafka_errors.KafkaError as error:
        raise _first_failure(waiting) or BusUnavailableError(
            f"records not acknowledged in time: {describe(error)}"
        ) from error
    failure = _first_failure(waiting)
    if failure is not None:
        raise failure
    if not all(future.is_done for _, future in waiting):
        raise BusUnavailableError("records not acknowledged in time")


def _first_failure(waiting: Sequence[tuple[Outgoing, Any]]) -> BusError | None:
    """The error to report. A record that is too large fails the others with it, often with the same error. So it is
    reported."""
    failures = [(output, future.exception) for output, future in waiting if future.is_done and future.failed()]
    failures.sort(key=lambda failure: (not isinstance(failure[1], _TOO_LARGE), -len(failure[0].value)))
    return _blamed(*failures[0]) if failures else None


def _blamed(output: Outgoing, error: BaseException) -> BusError:
    translation = bus_error(error)
    size = len(output.key) + len(output.value) + sum(len(name) + len(value) for name, value in output.headers)
    key = output.key if len(output.key) <= _SHOWN_KEY else output.key[:_SHOWN_KEY] + b"..."
    return type(translation)(f"{size} bytes with key {key!r} for {output.topic!r}: {translation}")


def fetch(consumer: KafkaConsumer, max_records: int, timeout_s: float) -> list[Record]:
    """One poll of the client: at most ``max_records``, partition by partition; see ``Record.unreadable``."""
    with translated():
        fetched = consumer.poll(timeout_ms=milliseconds(timeout_s), max_records=max_records)
    return [
        Record(
            topic=one.topic,
            partition=one.partition,
            offset=one.offset,
            key=one.key or b"",
            value=one.value or b"",
            headers=tuple((name, value or b"") for name, value in one.headers),
            timestamp_ms=one.timestamp,
            unreadable=unreadable(one),
        )
        for records in fetched.values()
        for one in records
    ]
