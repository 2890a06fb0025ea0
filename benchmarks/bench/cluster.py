"""Kafka, Redis and the workers, each a process of its own whose CPU and memory can be read.

Both benchmarks that need servers, this one and ``benchmarks.capacity``, run on it.
"""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from benchmarks.bench.environment import ROOT, chosen_setting
from benchmarks.bench.measurement import MemoryWatch, NotMeasuredError, cpu_s_of
from benchmarks.bench.start import is_ready
from services.topology import SERVICE_NAMES, TOPOLOGY
from shared.contracts.codec import decode_message
from shared.contracts.messages import Status, TrackRequest, TrackResult
from shared.contracts.topics import Channel
from shared.runtime.envelope import outgoing
from tests.support.kafka_broker import start_kafka
from tests.support.pipeline import Pipeline
from tests.support.processes import NotAvailableError, free_port
from tests.support.redis_server import start_redis

BROKER: Final = "broker"
REDIS: Final = "redis"
_PATIENCE_S: Final = 120.0
_PATIENCE_A_TRACK_S: Final = 5.0
_ASKED_EVERY_S: Final = 0.05
#: Workers that are paused for a measurement keep their partitions.
_SESSION_TIMEOUT_S: Final = 240
#: A rebalance takes two rounds; after the second nothing moves.
_SETTLING_S: Final = 1.0

#: Where partitions end.
Ends = Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What ``tracks`` took that were published at once.

    CPU and peak memory by service, ``broker`` and ``redis``; without servers that were given, not started here.
    """

    tracks: int
    wall_s: float
    cpu_s: Mapping[str, float]
    peak_mb: Mapping[str, float]

    @property
    def cpu_a_track(self) -> float:
        """CPU seconds a track, of all together."""
        return sum(self.cpu_s.values()) / self.tracks


@dataclass(frozen=True, slots=True)
class Answer:
    """A result, and when it came by ``time.monotonic``."""

    at: float
    result: TrackResult


class Cluster:
    """A context manager: a broker, a Redis and the topics; workers on demand. Raises NotMeasuredError.

    ``folder`` is for logs and blobs; ``settings`` are those of the workers. ``environment`` leads others to the
    servers, and ``versions`` are those of broker and Redis.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        self._settings = settings
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                broker = start_kafka()
                stack.callback(broker.close)
                redis = start_redis()
                stack.callback(redis.close)
                self._servers = {BROKER: broker.pid, REDIS: redis.pid}
                self.versions = {BROKER: broker.version, REDIS: redis.version}
                self.redis_url = redis.url
            except NotAvailableError as error:
                raise NotMeasuredError(str(error)) from None
            self.pipeline = Pipeline(
                self._folder,
                broker.bootstrap_servers,
                redis.url,
                f"bench-{uuid.uuid4().hex[:8]}",
                services=(),
                **{"kafka_session_timeout_s": str(_SESSION_TIMEOUT_S), **self._settings},
            )
            self.environment = self.pipeline.environment
            self.environment |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **chosen_setting()}
            stack.enter_context(self.pipeline)
            self._admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
            stack.callback(self._admin.close)
            self._producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
            stack.callback(self._producer.close, timeout=5)
            self._results = self.pipeline.consumer(Channel.RESULTS)
            stack.callback(self._results.close)
            # Whose only task is to ask for the ends of topics.
            self._ends = KafkaConsumer(
                bootstrap_servers=broker.bootstrap_servers, isolation_level="read_committed", enable_auto_commit=False
            )
            stack.callback(self._ends.close)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def server_pid(self, name: str) -> int:
        """The process ID of the ``broker`` or of ``redis``. Raises NotMeasuredError if it was not started here."""
        pid = self._servers[name]
        if pid is None:
            raise NotMeasuredError(f"the {name} was not started here, so it cannot be measured")
        return pid

    def worker_pids(self) -> dict[str, int]:
        """The process ID of each service's last worker."""
        return {service: process.pid for service, process in self.pipeline.workers}

    def start(self, services: Iterable[str] = SERVICE_NAMES, **variables: str) -> None:
        """One more worker of each of these; returns when they are ready."""
        ports = {service: free_port() for service in services}
        for service, port in ports.items():
            self.pipeline.start(service, **variables, TONESTREAM_HEALTH_PORT=str(port))
        for service, port in ports.items():
            self._until(partial(is_ready, port), f"the {service} was not ready")

    def end(self, service: str) -> None:
        """End the workers of that service."""
        self.pipeline.end(service)

    def settle(self, service: str, count: int) -> None:
        """Return when ``count`` workers share the partitions of that service."""
        self._until(lambda: self.pipeline.members(service) == count, f"the group of {service} did not settle")
        time.sleep(_SETTLING_S)

    @contextmanager
    def paused(self, services: Iterable[str]) -> Iterator[None]:
        """All workers of these services stand still in the block."""
        workers = [process for service, process in self.pipeline.workers if service in set(services)]
        for worker in workers:
            worker.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for worker in workers:
                worker.send_signal(signal.SIGCONT)

    def submit(self, urls: Iterable[str], force: bool = True) -> list[str]:
        """Publish a request for each; returns their IDs when the broker has them."""
        requests = [TrackRequest(request_id=uuid.uuid4().hex, audio_url=url, force=force) for url in urls]
        for one in (outgoing(self.pipeline.topics, request) for request in requests):
            self._producer.send(one.topic, one.value, one.key)
        self._producer.flush(timeout=30)
        return [request.request_id for request in requests]

    def wait(self, ids: Iterable[str]) -> dict[str, Answer]:
        """The answers to all of these. Raises NotMeasuredError if one does not come, or is not well."""
        waiting, answers = set(ids), dict[str, Answer]()
        deadline = time.monotonic() + _PATIENCE_S + _PATIENCE_A_TRACK_S * len(waiting)
        while waiting:
            for records in self._results.poll(timeout_ms=200).values():
                now = time.monotonic()
                for result in (decode_message(Channel.RESULTS, record.value) for record in records):
                    assert isinstance(result, TrackResult)
                    if result.status is not Status.OK:
                        raise NotMeasuredError(f"a track ended as {result.status}: {result.errors}")
                    if result.request_id in waiting:
                        waiting.remove(result.request_id)
                        answers[result.request_id] = Answer(now, result)
            if dead := self.pipeline.dead():
                raise NotMeasuredError(f"{dead} ended: {self.pipeline.logs()[-300:]}")
            if time.monotonic() > deadline:
                raise NotMeasuredError(f"{len(waiting)} results did not come")
        return answers

    def backlog(self, files: Sequence[Path]) -> Backlog:
        """Publish all of these at once, and wait for their results."""
        processes = self._processes()
        with MemoryWatch({f"{name}/{pid}": pid for name, pids in processes.items() for pid in pids}) as memory:
            before, started = _cpu_s(processes), time.perf_counter()
            self.wait(self.submit(uris(files)))
            wall_s, after = time.perf_counter() - started, _cpu_s(processes)
        peaks = {name: sum(memory.peak_mb(f"{name}/{pid}") for pid in pids) for name, pids in processes.items()}
        return Backlog(len(files), wall_s, {name: after[name] - before[name] for name in processes}, peaks)

    def until_drained(self, service: str) -> None:
        """Return when the service has committed all that there is for it."""
        self._until(lambda: self._lag(service) == 0, f"{service} did not finish")

    def outputs_end(self, service: str) -> Ends:
        """Where the topics that the service writes end now."""
        nodes = [node for node in TOPOLOGY if node.stage.value == service]
        return self._ends_of({channel for node in nodes for channel in node.writes})

    def last_written(self, since: Ends) -> float:
        """When the last record behind ``since`` was written, in seconds since the epoch. Raises NotMeasuredError."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.pipeline.bootstrap_servers, isolation_level="read_committed",
            enable_auto_commit=False, auto_offset_reset="none",
        )  # fmt: skip
        written_ms: list[int] = []

        def all_read() -> bool:
            polled = consumer.poll(timeout_ms=500)
            written_ms.extend(record.timestamp for records in polled.values() for record in records)
            return all(consumer.position(partition) >= end for partition, end in ends.items())

        try:
            consumer.assign(list(since))
            for partition, offset in since.items():
                consumer.seek(partition, offset)
            ends = consumer.end_offsets(list(since))
            self._until(all_read, "what was written could not be read")
        finally:
            consumer.close()
        if not written_ms:
            raise NotMeasuredError("nothing was written")
        return max(written_ms) / 1000

    def _ends_of(self, channels: Iterable[Channel]) -> Ends:
        names = [self.pipeline.topics.name(channel) for channel in channels]
        partitions = [
            TopicPartition(name, number) for name in names for number in self._ends.partitions_for_topic(name) or ()
        ]
        ends: Ends = self._ends.end_offsets(partitions)
        return ends

    def _lag(self, service: str) -> int:
        lag = 0
        for node in (node for node in TOPOLOGY if node.stage.value == service):
            ends = self._ends_of(node.reads)
            group = self.pipeline.topics.group(node.name)
            committed = self._admin.list_group_offsets(group)[group]
            lag += sum(end - (committed[one].offset if one in committed else 0) for one, end in ends.items())
        return lag

    def _processes(self) -> dict[str, list[int]]:
        processes: dict[str, list[int]] = {}
        for service, worker in self.pipeline.workers:
            processes.setdefault(service, []).append(worker.pid)
        return processes | {name: [pid] for name, pid in self._servers.items() if pid is not None}

    def _until(self, done: Callable[[], bool], failed: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not done():
            if dead := self.pipeline.dead():
                raise NotMeasuredError(f"{dead} ended: {self.pipeline.logs()[-300:]}")
            if time.monotonic() > deadline:
                raise NotMeasuredError(f"{failed} within {_PATIENCE_S:.0f} s")
            time.sleep(_ASKED_EVERY_S)


def uris(files: Iterable[Path]) -> list[str]:
    """The files as requests name them. Ingestion has to be allowed to read their folder (``local_files``)."""
    return [file.as_uri() for file in files]


def _cpu_s(processes: Mapping[str, Sequence[int]]) -> dict[str, float]:
    return {name: sum(map(cpu_s_of, pids)) for name, pids in processes.items()}
