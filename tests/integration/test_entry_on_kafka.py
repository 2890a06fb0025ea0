"""What strangers publish to the requests topic of a real broker: answered, and of no consequence for anybody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from shared.bus.base import TopicSpec
from shared.bus.kafka.bus import KafkaBus, KafkaConfig
from shared.bus.topics import topic_specs
from shared.contracts.codec import decode_message
from shared.contracts.errors import ErrorCode
from shared.contracts.messages import IngestedTrack
from shared.contracts.topics import Channel, Topics
from shared.runtime.dead_letters import DeadLetter
from tests.support.environment import worker_environment
from tests.support.names import Names
from tests.support.records import all_of

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(180)]

PATIENCE_S = 60.0
#: A request whose answer takes no network: the address is forbidden.
GOOD = {"audio_url": "http://127.0.0.1:9/a.mp3"}


class Entry:
    """Topics on the broker, and one ingestion worker of its own process."""

    def __init__(self, folder: Path, bootstrap_servers: str, redis_url: str, prefix: str) -> None:
        self.folder = folder
        self.servers = bootstrap_servers
        self.topics = Topics(prefix)
        self.bus = KafkaBus(KafkaConfig(bootstrap_servers))
        # The third dead letter of a minute would stop the worker.
        self.environment = worker_environment(folder, bootstrap_servers, redis_url, prefix, dead_letter_limit="2")
        self.worker: subprocess.Popen[bytes] | None = None

    def create_topics(self, **changed: TopicSpec) -> None:
        """All topics; those in ``changed``, by channel, as somebody else made them."""
        self.bus.create_topics(
            [
                changed.get(channel.name.lower(), spec)
                for channel, spec in zip(Channel, topic_specs(self.topics), strict=True)
            ]
        )
        self.tracks = self.bus.reader([self.topics.name(Channel.TRACKS)])
        self.letters = self.bus.reader([self.topics.name(Channel.DEAD_LETTERS)])

    def spec(self, channel: Channel) -> TopicSpec:
        return topic_specs(self.topics)[list(Channel).index(channel)]

    def start(self, *module: str) -> None:
        command = module or ("services.cli.main", "worker", "ingestion")
        with (self.folder / "worker.log").open("wb") as log:
            self.worker = subprocess.Popen([sys.executable, "-m", *command], env=self.environment, stderr=log)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "services.cli.main", *arguments],
            env=self.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def send(self, *sent: Mapping[str, Any]) -> None:
        """Records as kafka-python's ``send`` takes them, one after the other in one partition."""
        producer = KafkaProducer(
            bootstrap_servers=self.servers, max_request_size=8_000_000, compression_type="gzip", batch_size=1
        )
        try:
            for one in sent:
                producer.send(self.topics.name(Channel.REQUESTS), **{"key": b"one", **one}).get(30)
        finally:
            producer.close(timeout=10)

    def answered(self, count: int) -> dict[str, IngestedTrack]:
        """So many answers by request ID; each request has one, and the worker lives."""
        found: dict[str, IngestedTrack] = {}
        deadline = time.monotonic() + PATIENCE_S
        while len(found) < count:
            assert self.worker is not None and self.worker.poll() is None, self.log()
            assert time.monotonic() < deadline, f"{sorted(found)}\n{self.log()}"
            for record in self.tracks.poll(1000, 0.2):
                track = decode_message(Channel.TRACKS, record.value)
                assert isinstance(track, IngestedTrack) and track.request_id not in found
                found[track.request_id] = track
        return found

    def log(self) -> str:
        return (self.folder / "worker.log").read_text(errors="replace")[-6000:]

    def close(self) -> None:
        if self.worker is not None:
            self.worker.kill()
            self.worker.wait()
        self.bus.close()


@pytest.fixture
def entry(tmp_path: Path, bootstrap_servers: str, redis_url: str, names: Names) -> Iterator[Entry]:
    made = Entry(tmp_path, bootstrap_servers, redis_url, names.prefix)
    yield made
    made.close()


def request(request_id: str, **fields: Any) -> dict[str, bytes]:
    return {"value": json.dumps({"request_id": request_id, **GOOD, **fields}).encode()}


def codes(tracks: Mapping[str, IngestedTrack]) -> dict[str, ErrorCode | None]:
    return {name: track.error.code if track.error else None for name, track in tracks.items()}


def test_no_client_can_stop_ingestion_by_what_it_publishes(entry: Entry) -> None:
    """Thirty requests of a newer version, and whatever else is a client's mistake, between good requests."""
    (entry.folder / "blobs" / "music").mkdir(parents=True)
    entry.create_topics()
    entry.start()
    newer = {f"newer-{number}": request(f"newer-{number}", schema_version=2) for number in range(30)}
    invalid: dict[str, dict[str, Any]] = {
        **newer,
        "a-wrong-field": {"value": b'{"request_id":"a-wrong-field","audiourl":"http://e.org"}'},
        "utf-16": {"value": '{"request_id":"utf-16"}'.encode("utf-16")},
        "odd-key": {"value": b'{"request_id":"odd-key"}', "key": b"\xff\xfe" * 2000},
        "many-headers": {"value": b'{"request_id":"many-headers"}', "headers": [("h", b"\xff")] * 5000},
        "wide-headers": {"value": b'{"request_id":"wide-headers"}', "headers": [("h", b"v" * 6000)] * 500},
        "too-large": {"value": b'{"request_id":"too-large","source":"' + b"x" * 500_000 + b'"}'},
    }
    unnamed: list[Mapping[str, Any]] = [
        {"value": value} for value in (None, b"", b"\x00\xff" * 50, b"[" * 9000, b"x" * 6_000_000)
    ]
    not_there = {
        "a-folder": request("a-folder", audio_url="blob:music"),
        "no-name": request("no-name", audio_url="blob:" + "a" * 280),
        "nothing": request("nothing", audio_url="blob:uploads/nothing"),
    }
    good = {"first": request("first"), "last": request("last", source="http://a@" + "b" * 4087)}
    entry.send(good["first"], *invalid.values(), *unnamed, *not_there.values(), good["last"])
    found = entry.answered(len(good) + len(invalid) + len(unnamed) + len(not_there))
    told = codes(found)
    assert {told.pop(name) for name in invalid} == {ErrorCode.INVALID_REQUEST}
    assert {told.pop(name) for name in not_there} == {ErrorCode.FETCH_FAILED}
    # Either may follow the other, which nobody ends here.
    both = {told.pop("first"), told.pop("last")}
    assert ErrorCode.FETCH_FORBIDDEN in both and both <= {None, ErrorCode.FETCH_FORBIDDEN}
    assert set(told.values()) == {ErrorCode.INVALID_REQUEST}
    assert all(name.startswith(f"{entry.topics.name(Channel.REQUESTS)}/") for name in told)
    assert all_of(entry.letters) == []
    assert entry.worker is not None
    entry.worker.terminate()
    assert entry.worker.wait(30) == 0


def test_a_forwarded_header_answers_nobody_elses_request(entry: Entry) -> None:
    entry.create_topics()
    entry.start()
    forwarded = {"headers": [("tonestream.request_id", b"A")]}
    entry.send(
        {"value": b'{"request_id":"B","audiourl":"http://e.org"}', **forwarded},
        {"value": b"nothing that names a request", **forwarded},
        request("A"),
    )
    told = codes(entry.answered(3))
    assert told.pop("A") is ErrorCode.FETCH_FORBIDDEN
    assert told.pop("B") is ErrorCode.INVALID_REQUEST
    assert list(told.values()) == [ErrorCode.INVALID_REQUEST]


def test_topics_of_somebody_else_are_told_from_ours_and_their_odd_timestamps_make_no_nonsense(entry: Entry) -> None:
    name = entry.topics.name(Channel.REQUESTS)
    few = TopicSpec(entry.topics.name(Channel.MOODS), 5)
    entry.create_topics(requests=TopicSpec(name, 1, max_message_bytes=1_000_000), moods=few)
    created = entry.command("topics", "create")
    assert created.returncode == 0, created.stderr
    assert created.stdout == "all topics exist, some with less than is wanted\n"
    assert f"{name} has 1 partition, not 12: only 1 worker of a service can share it." in created.stderr
    assert "tonestream topics create --partitions 12" in created.stderr
    assert f"{name} keeps the time stamps of clients" in created.stderr
    assert f"{few.name} has 5 partitions, not 12: at most 5 workers of a service can share it." in created.stderr
    assert len(created.stderr.splitlines()) == 3

    entry.start()
    now_ms = int(time.time() * 1000)
    stamps = {"none": -1, "1970": 1, "a-year-ago": now_ms - 365 * 86_400_000, "soon": now_ms + 1_800_000}
    right = {"an-hour-ago": now_ms - 3_600_000}
    entry.send(*({**request(one), "timestamp_ms": stamp} for one, stamp in (stamps | right).items()))
    found = entry.answered(5)
    later_ms = time.time() * 1000
    assert all(now_ms - 1 <= found[one].received_at_ms <= later_ms for one in stamps)
    assert found["an-hour-ago"].received_at_ms == right["an-hour-ago"]
    assert all_of(entry.letters) == []


def test_a_topic_with_a_smaller_limit_than_ours_is_named_with_the_command_that_raises_it(entry: Entry) -> None:
    name = entry.topics.name(Channel.TRACKS)
    entry.create_topics(tracks=replace(entry.spec(Channel.TRACKS), max_message_bytes=131_072))
    created = entry.command("topics", "create")
    assert created.returncode == 0
    assert f"{name} takes messages of 131072 bytes, not" in created.stderr
    assert f"--alter --topic {name} --add-config max.message.bytes=" in created.stderr


def test_a_dead_letter_that_its_topic_refuses_is_cut_until_it_is_taken(entry: Entry) -> None:
    """Noise, which does not compress: the broker counts compressed bytes."""
    large = replace(entry.spec(Channel.REQUESTS), max_message_bytes=8_000_000)
    # As a broker makes a topic by itself: a megabyte.
    entry.create_topics(requests=large, dead_letters=TopicSpec(entry.topics.name(Channel.DEAD_LETTERS), 1))
    entry.start("tests.support.deadly_worker")
    headers = [("h", os.urandom(1000)) for _ in range(3000)]
    entry.send({**request("defect-1"), "headers": headers}, request("good"))
    assert codes(entry.answered(2)) == {"defect-1": ErrorCode.INTERNAL, "good": ErrorCode.NO_AUDIO}
    (record,) = all_of(entry.letters)
    letter = DeadLetter.of(record)
    assert letter.request_id == "defect-1" and letter.exception == "ValueError"
    assert letter.stood_at.startswith(f"{entry.topics.name(Channel.REQUESTS)}/") and letter.stood_at.endswith("@0")
    assert "3000 headers" in letter.cut
    assert entry.command("dead-letters", "replay", letter.id).returncode == 1
