"""Batches that nobody can read, on a real broker: what stands before, behind and beside them is handled."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from shared.bus.base import Record, TopicSpec
from shared.bus.kafka.bus import KafkaBus, KafkaConfig
from shared.bus.kafka.patches.codecs import MAX_UNPACKED_BYTES
from shared.bus.topics import topic_specs
from shared.contracts.codec import decode_message, encode_message
from shared.contracts.errors import ErrorCode
from shared.contracts.messages import IngestedTrack, TrackRequest
from shared.contracts.topics import Channel, Topics
from shared.runtime.dead_letters import DeadLetter
from shared.runtime.loop import ServiceLoop
from shared.runtime.policy import LoopPolicy
from tests.support import damage
from tests.support.damage import Damage
from tests.support.deadly_worker import Deadly
from tests.support.kafka_broker import JavaBroker, KafkaBroker
from tests.support.names import Names

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

CODECS = ("gzip", "snappy", "lz4", "zstd")
PATIENCE_S = 40.0


@pytest.fixture
def java_broker(kafka_broker: KafkaBroker) -> JavaBroker:
    """A broker whose disk is at hand."""
    if not isinstance(kafka_broker, JavaBroker):
        pytest.skip("the disk of this broker is not at hand; TONESTREAM_TEST_KAFKA=java starts one whose disk is")
    return kafka_broker


class Entry:
    """A requests topic of two partitions, and what its workers make of it."""

    def __init__(self, servers: str, prefix: str) -> None:
        self.servers = servers
        self.topics = Topics(prefix)
        self.requests = self.topics.name(Channel.REQUESTS)
        self.bus = KafkaBus(KafkaConfig(servers, session_timeout_s=6.0))
        specs = [
            TopicSpec(spec.name, 2, spec.retention_ms, spec.max_message_bytes) for spec in topic_specs(self.topics)
        ]
        self.bus.create_topics(specs)

    def send(self, partition: int, names: Sequence[str], codec: str | None = None) -> int:
        """One batch, written as a stranger would; returns its first offset."""
        producer = KafkaProducer(
            bootstrap_servers=self.servers, compression_type=codec, linger_ms=500, allow_auto_create_topics=False
        )
        try:
            sent = [
                producer.send(self.requests, encode_message(a_request(name)), partition=partition, key=b"k")
                for name in names
            ]
            producer.flush(timeout=30)
            offsets = [future.get(10).offset for future in sent]
        finally:
            producer.close(timeout=10)
        assert offsets == list(range(offsets[0], offsets[0] + len(names)))
        return int(offsets[0])

    @contextmanager
    def worker(self) -> Iterator[None]:
        membership = self.bus.join("g", [self.requests])
        policy = LoopPolicy(batch_records=5, dead_letter_limit=1)
        loop = ServiceLoop(Deadly(), membership, self.topics, policy)
        thread = threading.Thread(target=loop.run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            loop.stop()
            thread.join(20)
            assert not thread.is_alive(), "it does not come back from its poll"

    def read(self, channel: Channel, count: int) -> list[Record]:
        """Exactly ``count`` records."""
        deadline = time.monotonic() + PATIENCE_S
        found: list[Record] = []
        with self.bus.reader([self.topics.name(channel)]) as reader:
            while len(found) < count or not reader.at_end():
                assert time.monotonic() < deadline, f"{len(found)} of {count} came: {found}"
                found += reader.poll(100, 0.2)
        assert len(found) == count
        return found

    def answered(self, count: int) -> list[str]:
        tracks = [decode_message(Channel.TRACKS, record.value) for record in self.read(Channel.TRACKS, count)]
        for track in tracks:
            assert isinstance(track, IngestedTrack) and track.error and track.error.code is ErrorCode.NO_AUDIO
        return sorted(track.request_id for track in tracks)


@pytest.fixture
def entry(bootstrap_servers: str, names: Names) -> Iterator[Entry]:
    made = Entry(bootstrap_servers, names.prefix)
    yield made
    made.bus.close()


def a_request(name: str) -> TrackRequest:
    return TrackRequest(request_id=name, audio_url=f"http://example.org/{'long/' * 100}{name}.mp3")


def test_a_worker_and_a_reader_read_every_codec_of_kafka(entry: Entry) -> None:
    sent = []
    for codec in CODECS:
        sent += [f"{codec}-{number}" for number in range(3)]
        entry.send(0, sent[-3:], codec)
    with KafkaAdminClient(bootstrap_servers=entry.servers) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, entry.requests, {"compression.type": "zstd"})])
    entry.send(1, ["packed-by-the-topic"])
    sent.append("packed-by-the-topic")
    with entry.worker():
        assert entry.answered(13) == sorted(sent)
    assert len(entry.read(Channel.REQUESTS, 13)) == 13


def test_a_few_kilobytes_that_unpack_to_more_than_a_worker_takes_are_a_dead_letter(entry: Entry) -> None:
    entry.send(0, ["before"])
    size = MAX_UNPACKED_BYTES + 1
    producer = KafkaProducer(bootstrap_servers=entry.servers, compression_type="zstd", max_request_size=2 * size)
    producer.send(entry.requests, bytes(size), partition=0).get(20)
    producer.close(timeout=10)
    entry.send(0, ["behind"])
    with entry.worker():
        assert entry.answered(2) == ["before", "behind"]
        (record,) = entry.read(Channel.DEAD_LETTERS, 1)
    assert "unpack to more than" in DeadLetter.of(record).message and len(record.value) < 10_000


#: What is done to a batch of three, and which of the three can still be read.
DAMAGES: list[tuple[str, Damage, str | None, int]] = [
    ("header", damage.wild_last_offset, None, 0),
    ("count", damage.one_record_too_many, None, 3),
    ("end", damage.garbage_end, None, 2),
    ("checksum", damage.bad_checksum, None, 0),
    ("packed-checksum", damage.bad_checksum, "zstd", 0),
    ("codec", damage.unknown_codec, None, 0),
    *((f"garbage-{codec}", damage.garbage_body, codec, 0) for codec in CODECS),
    *((f"cut-{codec}", damage.truncated_body, codec, 0) for codec in ("gzip", "lz4", "zstd")),
]


def test_a_batch_that_cannot_be_read_is_a_dead_letter_and_what_is_before_behind_and_beside_it_is_answered(
    entry: Entry, java_broker: JavaBroker, caplog: pytest.LogCaptureFixture
) -> None:
    good, damages, spans = [], {}, set()
    for name, how, codec, left in DAMAGES:
        entry.send(0, [f"before-{name}"])
        base = entry.send(0, [f"bad-{name}-{number}" for number in range(3)], codec)
        damages[base] = how
        if left < 3:
            spans.add((base + left, base + 2))
        entry.send(1, [f"beside-{name}"])
        good += [f"before-{name}", f"beside-{name}", *(f"bad-{name}-{number}" for number in range(left))]
    # The end of the log is damaged, too: nothing behind says where the batch ends.
    java_broker.stop()
    try:
        damage.damage_file(java_broker.log_file(entry.requests, 0), damages)
    finally:
        java_broker.start()
    with entry.worker():
        letters = [DeadLetter.of(record) for record in entry.read(Channel.DEAD_LETTERS, len(spans))]
        entry.send(0, ["behind"])
        assert entry.answered(len(good) + 1) == sorted([*good, "behind"])
    assert {(int(letter.first_offset), int(letter.offset)) for letter in letters} == spans
    for letter in letters:
        assert (letter.exception, letter.topic, letter.partition) == ("UnreadableBatch", entry.requests, "0")
        assert f"{entry.requests}, partition 0, offset" in letter.message and letter.offset in letter.message
        assert letter.request_id is None and letter.record.value
    # Somebody who follows the topic is told, and reads on.
    with caplog.at_level(logging.WARNING):
        assert len(entry.read(Channel.REQUESTS, len(good) + 1)) == len(good) + 1
    assert sum("skipped" in line.message for line in caplog.records) == len(spans)
