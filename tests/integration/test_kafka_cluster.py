"""Three brokers: topics are made for them, and what is acknowledged outlives any one of them, also the controller."""

from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import pairwise

import pytest

from services.cli.main import main
from shared.bus.base import BusUnavailableError, FencedError, Outgoing, TopicSpec
from shared.bus.kafka.bus import KafkaBus, KafkaConfig
from shared.bus.topics import topic_specs
from shared.contracts.topics import Channel, Topics
from tests.support.kafka_broker import KafkaCluster
from tests.support.names import Names

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

PATIENCE_S = 120.0
#: How often a record is published, seconds.
EVERY_S = 0.02


class Copying:
    """Publishes numbers to one topic and copies them to another in transactions, as a service does."""

    def __init__(self, bus: KafkaBus, names: Names) -> None:
        self.source, self.sink = names.topic("source"), names.topic("sink")
        bus.create_topics([TopicSpec(self.source, 4), TopicSpec(self.sink, 4)])
        self._bus = bus
        self._group = names.group("copying")
        self.sent = 0
        self.copied_at: list[float] = []
        self._publishing, self._closing = threading.Event(), threading.Event()
        self._publishing.set()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._publish, self._copy)]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """No more is published; returns when all is copied."""
        self._publishing.clear()
        self._threads[0].join(PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while len(self.copied_at) < self.sent and time.monotonic() < deadline:
            time.sleep(0.2)
        self._closing.set()
        self._threads[1].join(PATIENCE_S)

    def _publish(self) -> None:
        with self._bus.publisher() as publisher:
            while self._publishing.is_set():
                try:
                    publisher.publish([Outgoing(self.source, str(self.sent % 7).encode(), str(self.sent).encode())])
                except BusUnavailableError:
                    continue  # it may be stored nevertheless: then its number comes twice
                self.sent += 1
                time.sleep(EVERY_S)

    def _copy(self) -> None:
        with self._bus.join(self._group, [self.source]) as member:
            while not self._closing.is_set():
                try:
                    if records := member.poll(20, 0.5):
                        member.commit([Outgoing(self.sink, one.key, one.value) for one in records], records)
                        self.copied_at += [time.monotonic()] * len(records)
                except (BusUnavailableError, FencedError):
                    member.rewind()

    def slowest_since(self, at: float) -> float:
        """The longest time without a copy after that moment, seconds."""
        times = [at, *(one for one in self.copied_at if one >= at)]
        return max(after - before for before, after in pairwise(times))


def values(bus: KafkaBus, topic: str) -> Counter[int]:
    found: Counter[int] = Counter()
    with bus.reader([topic]) as reader:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            records = reader.poll(1000, 0.5)
            found.update(int(record.value) for record in records)
            if not records and reader.at_end():
                return found
    raise AssertionError("the end was not reached")


def test_nothing_is_lost_or_doubled_when_a_broker_and_the_controller_die(
    kafka_cluster: KafkaCluster, names: Names, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = KafkaBus(KafkaConfig(kafka_cluster.bootstrap_servers, replication_factor=None, transaction_timeout_s=5.0))
    copying = Copying(bus, names)
    slowest: dict[str, float] = {}
    for what in ("a broker killed", "the controller killed"):
        kafka_cluster.wait_until_in_sync(PATIENCE_S)
        time.sleep(1.0)
        leads = kafka_cluster.controller()
        number = leads if "controller" in what else next(one for one in kafka_cluster.nodes if one != leads)
        began = time.monotonic()
        kafka_cluster.nodes[number].kill()
        _wait_for_copies(copying, began)
        slowest[what] = copying.slowest_since(began)
        kafka_cluster.nodes[number].start()
    kafka_cluster.wait_until_in_sync(PATIENCE_S)
    copying.finish()
    published, copied = values(bus, copying.source), values(bus, copying.sink)
    bus.close()
    with capsys.disabled():
        waits = ", ".join(f"{seconds:.1f} s without a copy after {what}" for what, seconds in slowest.items())
        print(f"\nKafka: {copying.sent} records acknowledged and copied; {waits}")
    assert set(published) >= set(range(copying.sent)), "what was acknowledged is there"
    assert copied == published, "each record that is there was copied once"


def _wait_for_copies(copying: Copying, began: float) -> None:
    """Until copies come again some time after the fault."""
    deadline = began + PATIENCE_S
    while time.monotonic() < deadline:
        if copying.copied_at and copying.copied_at[-1] > began + 12.0:
            return
        time.sleep(0.2)
    raise AssertionError("nothing was copied after the fault")


def test_topics_are_made_for_three_brokers_and_grow_while_they_are_read(
    kafka_cluster: KafkaCluster, names: Names, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TONESTREAM_KAFKA_BOOTSTRAP_SERVERS", kafka_cluster.bootstrap_servers)
    monkeypatch.setenv("TONESTREAM_TOPIC_PREFIX", names.prefix)
    assert main(["topics", "create", "--partitions", "2"]) == 0
    assert capsys.readouterr().err == "", "nothing is amiss"
    bus = KafkaBus(KafkaConfig(kafka_cluster.bootstrap_servers, metadata_max_age_s=2.0))
    wanted = topic_specs(Topics(names.prefix), 2)
    found = bus.existing([spec.name for spec in wanted])
    assert all(found[spec.name] == spec for spec in wanted)
    for spec in found.values():
        assert spec.durability is not None
        assert (spec.durability.replicas, spec.durability.min_insync_replicas) == (3, 2)
    topic = Topics(names.prefix).name(Channel.RESULTS)
    with bus.reader([topic]) as reader, bus.join(names.group("g"), [topic]) as member:
        assert member.poll(1, 5.0) == []
        assert main(["topics", "create", "--partitions", "6"]) == 0
        assert f"{topic} has 6 partitions now" in capsys.readouterr().out
        with bus.publisher() as publisher:
            deadline, number = time.monotonic() + PATIENCE_S, 0
            read: set[int] = set()
            polled: set[int] = set()
            while (len(read) < 6 or len(polled) < 6) and time.monotonic() < deadline:
                publisher.publish([Outgoing(topic, str(number).encode(), b"x")])
                number += 1
                read |= {record.partition for record in reader.poll(100, 0.1)}
                polled |= {record.partition for record in member.poll(100, 0.1)}
        assert read == polled == set(range(6))
    bus.close()
    assert main(["topics", "create", "--partitions", "3"]) == 0
    assert f"{topic} has 6 partitions, and Kafka takes none away" in capsys.readouterr().err


def test_topics_that_do_not_outlive_a_broker_are_named(
    kafka_cluster: KafkaCluster, names: Names, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TONESTREAM_KAFKA_BOOTSTRAP_SERVERS", kafka_cluster.bootstrap_servers)
    monkeypatch.setenv("TONESTREAM_TOPIC_PREFIX", names.prefix)
    monkeypatch.setenv("TONESTREAM_KAFKA_REPLICATION_FACTOR", "1")
    assert main(["topics", "create", "--partitions", "1"]) == 0
    said = capsys.readouterr().err
    assert f"{names.prefix}.requests is on 1 of 3 brokers: without one of them it stops, and what it" in said
    monkeypatch.setenv("TONESTREAM_KAFKA_REPLICATION_FACTOR", "4")
    assert main(["topics", "create"]) == 1
    assert "4 replicas need as many brokers, and 3 answer" in capsys.readouterr().err
