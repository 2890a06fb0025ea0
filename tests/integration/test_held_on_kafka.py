"""What is held in one partition keeps no other waiting, on a real Kafka, however much of it there is."""

from __future__ import annotations

import threading
import time

import pytest

from shared.bus.kafka.bus import KafkaBus, KafkaConfig
from shared.bus.topics import topic_specs
from shared.contracts.codec import decode_message
from shared.contracts.messages import IngestedTrack
from shared.contracts.topics import Channel, Topics
from shared.runtime.envelope import outgoing
from shared.runtime.loop import ServiceLoop
from shared.runtime.policy import LoopPolicy
from tests.support.loop_bench import Holding, request
from tests.support.names import Names

pytestmark = pytest.mark.kafka

HELD = [f"held-{number}" for number in range(40)]
READY = [f"ready-{number}" for number in range(24)]
PATIENCE_S = 30.0


@pytest.mark.parametrize("place", [0, -1], ids=["first", "last"])
def test_a_partition_full_of_held_records_starves_no_other(bootstrap_servers: str, names: Names, place: int) -> None:
    topics = Topics(names.prefix)
    bus = KafkaBus(KafkaConfig(bootstrap_servers, session_timeout_s=6.0))
    bus.create_topics(topic_specs(topics))
    service = Holding(set(HELD))
    partitions: dict[str, int] = {}
    with bus.publisher() as publisher, bus.reader([topics.name(Channel.REQUESTS)]) as reader:
        publisher.publish([outgoing(topics, request(name), key=name) for name in READY])
        until = time.monotonic() + PATIENCE_S
        while len(partitions) < len(READY) and time.monotonic() < until:
            for record in reader.poll(100, 0.5):
                partitions[decode_message(Channel.REQUESTS, record.value).request_id] = record.partition
        # The client drains partitions in an order of its own: what is held is once the first of them, once the last.
        beside = sorted(READY, key=partitions.__getitem__)[place]
        publisher.publish([outgoing(topics, request(name), key=beside) for name in HELD])
    elsewhere = {name for name in READY if partitions[name] != partitions[beside]}
    assert elsewhere
    membership = bus.join(topics.group("g"), [topics.name(Channel.REQUESTS)])
    loop = ServiceLoop(service, membership, topics, LoopPolicy(batch_records=2))
    running = threading.Thread(target=loop.run, daemon=True)
    running.start()
    answered: set[str] = set()
    try:
        with bus.reader([topics.name(Channel.TRACKS)]) as reader:

            def answers(count: int) -> None:
                until = time.monotonic() + PATIENCE_S
                while len(answered) < count and time.monotonic() < until:
                    for record in reader.poll(100, 0.5):
                        track = decode_message(Channel.TRACKS, record.value)
                        assert isinstance(track, IngestedTrack)
                        answered.add(track.request_id)

            answers(len(elsewhere) + sum(partitions[name] == partitions[beside] for name in READY))
            assert answered == set(READY)
            service.missing.clear()
            answers(len(READY) + len(HELD))
            assert answered == {*READY, *HELD}
    finally:
        loop.stop()
        running.join(20)
        bus.close()
