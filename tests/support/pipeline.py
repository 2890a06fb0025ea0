"""The pipeline as its users run it: every worker a process of its own, on real Kafka and Redis."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from services.topology import SERVICE_NAMES
from shared.bus.connect import kafka_bus
from shared.bus.topics import topic_specs
from shared.contracts.topics import Channel, Topics
from shared.settings import Settings
from tests.support.environment import worker_environment

_STOP_S = 40.0

Answer = TypeVar("Answer")


class Pipeline:
    """A context manager: creates the topics, starts one worker of each of ``services``, ends them all."""

    def __init__(
        self,
        folder: Path,
        bootstrap_servers: str,
        redis_url: str,
        prefix: str,
        *,
        services: Sequence[str] = SERVICE_NAMES,
        **settings: str,
    ) -> None:
        self.folder = folder
        self.bootstrap_servers = bootstrap_servers
        self.topics = Topics(prefix)
        self.environment = worker_environment(folder, bootstrap_servers, redis_url, prefix, **settings)
        self.workers: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._started = 0
        self._services = services

    def __enter__(self) -> Self:
        self.create_topics()
        for service in self._services:
            self.start(service)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, process in self.workers:
            if process.poll() is None:
                process.kill()
        for _, process in self.workers:
            process.wait()

    def create_topics(self) -> None:
        """What ``tonestream topics create`` does, without a process of its own."""
        settings = Settings(kafka_bootstrap_servers=self.bootstrap_servers)
        bus = kafka_bus(settings, client_id="tests")
        try:
            bus.create_topics(topic_specs(self.topics))
        finally:
            bus.close()

    def start(self, service: str, **variables: str) -> subprocess.Popen[bytes]:
        """One more worker of that service, with more environment variables."""
        self._started += 1
        log = self.folder / f"{service}-{self._started}.log"
        with log.open("wb") as opened:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.cli.main", "worker", service],
                env=self.environment | variables,
                stderr=opened,
                stdout=opened,
            )
        self.workers.append((service, process))
        return process

    def end(self, *services: str) -> None:
        """SIGTERM to all workers of these services; returns when they have ended."""
        ending = [process for service, process in self.workers if service in services]
        for process in ending:
            process.send_signal(signal.SIGTERM)
        for process in ending:
            assert process.wait(_STOP_S) == 0, self.logs()
        self.workers = [worker for worker in self.workers if worker[0] not in services]

    def command(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``tonestream`` with these arguments against this pipeline."""
        return subprocess.run(
            [sys.executable, "-m", "services.cli.main", *arguments],
            env=self.environment, input=stdin, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def stop(self) -> dict[str, int]:
        """SIGTERM to all; returns each worker's exit status."""
        for _, process in self.workers:
            process.send_signal(signal.SIGTERM)
        return {f"{service}-{number}": process.wait(_STOP_S) for number, (service, process) in enumerate(self.workers)}

    def dead(self) -> list[str]:
        """The workers that have ended."""
        return [service for service, process in self.workers if process.poll() is not None]

    def logs(self) -> str:
        """All that the workers said, for a failing test."""
        return "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')}" for log in sorted(self.folder.glob("*.log"))
        )

    # As an outsider would: plain kafka-python, plain JSON

    def publish(self, requests: Iterable[Mapping[str, Any] | bytes]) -> None:
        producer = KafkaProducer(bootstrap_servers=self.bootstrap_servers)
        try:
            for request in requests:
                value = request if isinstance(request, bytes) else json.dumps(request).encode()
                producer.send(self.topics.name(Channel.REQUESTS), value=value)
            producer.flush(timeout=30)
        finally:
            producer.close(timeout=10)

    def consumer(self, channel: Channel) -> KafkaConsumer:
        """Reads the committed records of a topic from the beginning."""
        return KafkaConsumer(
            self.topics.name(channel),
            bootstrap_servers=self.bootstrap_servers,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )

    def read(self, channel: Channel) -> int:
        """How many committed records there are on a topic by now, as far as half a second of reading tells."""
        consumer = self.consumer(channel)
        try:
            return sum(len(records) for records in consumer.poll(timeout_ms=500).values())
        finally:
            consumer.close()

    def results(self, count: int, timeout_s: float, but_not: str | None = None) -> list[dict[str, Any]]:
        """All results from the beginning, once there are ``count`` and every group has read all there is for it.

        ``but_not`` names a group that is not waited for.
        """
        consumer = self.consumer(Channel.RESULTS)
        deadline = time.monotonic() + timeout_s
        found: list[dict[str, Any]] = []
        try:
            while time.monotonic() < deadline:
                complete = len(found) >= count and not set(self.lag()) - {but_not}
                new = [json.loads(r.value) for records in consumer.poll(timeout_ms=500).values() for r in records]
                found += new
                if complete and not new:
                    return found
                assert not self.dead(), f"{self.dead()} ended\n{self.logs()}"
        finally:
            consumer.close()
        raise AssertionError(
            f"{len(found)} of {count} results after {timeout_s:.0f} s; lag {self.lag()}\n{self.logs()}"
        )

    def members(self, service: str) -> int:
        """How many workers of a service share its partitions at the moment."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        try:
            described = _patiently(lambda group: admin.describe_groups([group]), self.topics.group(service))
            return sum(bool(member["member_assignment"]) for member in described["members"])
        finally:
            admin.close()

    @contextmanager
    def _asking(self) -> Iterator[tuple[KafkaConsumer, KafkaAdminClient]]:
        """Clients that ask for offsets. The consumer sees what is committed, and belongs to no group."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap_servers, isolation_level="read_committed", enable_auto_commit=False
        )
        try:
            admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
            try:
                yield consumer, admin
            finally:
                admin.close()
        finally:
            consumer.close()

    def lag(self) -> Counter[str]:
        """How far each group is behind the ends of its topics, as a dashboard shows it; empty when none is."""
        inputs = {
            "ingestion": [Channel.REQUESTS],
            "ingestion-retry": [Channel.REQUESTS_RETRY],
            "feature-extraction": [Channel.TRACKS],
            "genre-worker": [Channel.FEATURES],
            "mood-worker": [Channel.TRACKS],
            "aggregator": [Channel.TRACKS, Channel.PREDICTIONS, Channel.MOODS],
        }
        lag: Counter[str] = Counter()
        with self._asking() as (consumer, admin):
            for service, channels in inputs.items():
                names = [self.topics.name(channel) for channel in channels]
                partitions = [
                    TopicPartition(name, p) for name in names for p in consumer.partitions_for_topic(name) or ()
                ]
                ends = consumer.end_offsets(partitions)
                committed = _patiently(admin.list_group_offsets, self.topics.group(service))
                lag[service] += sum(
                    ends[one] - (committed[one].offset if one in committed else 0) for one in partitions
                )
        return +lag


def _patiently(ask: Callable[[str], dict[str, Answer]], group: str) -> Answer:
    """What the broker says of a group. One that has just started has no coordinator of groups yet."""
    deadline = time.monotonic() + _STOP_S
    while True:
        try:
            return ask(group)[group]
        except KafkaError as error:
            if not error.retriable or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
