"""Workers that really die, on real Kafka and Redis: their killer is found, and their dead letters are limited."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.bus.base import Outgoing, Record
from shared.bus.kafka.bus import KafkaBus, KafkaConfig
from shared.bus.topics import topic_specs
from shared.contracts.codec import decode_message
from shared.contracts.errors import ErrorCode
from shared.contracts.messages import IngestedTrack, TrackRequest
from shared.contracts.topics import Channel, Topics
from shared.runtime.envelope import outgoing
from tests.support.environment import worker_environment
from tests.support.names import Names
from tests.support.processes import free_port
from tests.support.records import all_of

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(300)]


class Stand:
    """Topics on the broker, and workers of which each is a process."""

    def __init__(self, folder: Path, bootstrap_servers: str, redis_url: str, prefix: str) -> None:
        self.topics = Topics(prefix)
        self.bus = KafkaBus(KafkaConfig(bootstrap_servers))
        self.bus.create_topics(topic_specs(self.topics))
        self.tracks = self.bus.reader([self.topics.name(Channel.TRACKS)])
        self.letters = self.bus.reader([self.topics.name(Channel.DEAD_LETTERS)])
        self.environment = worker_environment(
            folder, bootstrap_servers, redis_url, prefix,
            kafka_session_timeout_s="2", kafka_transaction_timeout_s="2",
        )  # fmt: skip
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, **settings: str) -> subprocess.Popen[bytes]:
        more = {f"TONESTREAM_{name.upper()}": value for name, value in settings.items()}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.deadly_worker"],
            env=self.environment | more,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "services.cli.main", *arguments],
            env=self.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def send(self, *names: str) -> None:
        requests = [TrackRequest(request_id=name, audio_url="http://example.org/a.mp3") for name in names]
        sent: list[Outgoing] = [outgoing(self.topics, request, key="one") for request in requests]
        with self.bus.publisher() as publisher:
            publisher.publish(sent)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.bus.close()


@pytest.fixture
def stand(tmp_path: Path, bootstrap_servers: str, redis_url: str, names: Names) -> Iterator[Stand]:
    made = Stand(tmp_path, bootstrap_servers, redis_url, names.prefix)
    yield made
    made.close()


def answers(records: list[Record]) -> dict[str, ErrorCode]:
    found = {}
    for record in records:
        track = decode_message(Channel.TRACKS, record.value)
        assert isinstance(track, IngestedTrack) and track.error is not None
        assert track.request_id not in found, "answered twice"
        found[track.request_id] = track.error.code
    return found


def test_a_record_that_kills_its_process_is_buried_and_its_neighbours_go_through(stand: Stand) -> None:
    good = [f"good-{number}" for number in range(20)]
    stand.send(*good[:10], "killer", *good[10:])
    deaths = 0
    found: list[Record] = []
    process = stand.start()
    deadline = time.monotonic() + 240
    while len(found) < 21:
        assert time.monotonic() < deadline, f"{deaths} deaths, {len(found)} answers"
        if process.poll() is not None:
            # Right after the broker started, a worker may find no coordinator yet, and end with another status.
            deaths += process.returncode == -signal.SIGKILL
            process = stand.start()  # as a supervisor would
        found += stand.tracks.poll(1000, 0.2)
    assert deaths == 3 + 5
    assert answers(found) == {**dict.fromkeys(good, ErrorCode.NO_AUDIO), "killer": ErrorCode.INTERNAL}
    process.terminate()
    assert process.wait(30) == 0
    (letter,) = all_of(stand.letters)
    assert letter.header("tonestream.errors.exception") == b"CrashLoop"
    assert letter.header("tonestream.errors.attempts") == b"8"
    listed = stand.command("dead-letters", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    assert json.loads(listed.stdout)["request_id"] == "killer"


def test_a_worker_that_buries_too_much_stops_says_why_on_its_health_and_ends_after_a_pause(stand: Stand) -> None:
    port = free_port()
    stand.send(*(f"defect-{number}" for number in range(50)))
    settings = {"dead_letter_limit": "5", "dead_letter_pause_s": "600", "health_port": str(port)}
    process = stand.start(**settings)
    report: dict[str, Any] = {}
    deadline = time.monotonic() + 120
    while not report.get("stopped_because"):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                report = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            report = json.loads(error.read())
        except OSError:
            continue
    assert report["ready"] is False and "more than 5 dead letters in a minute" in report["stopped_because"]
    assert len(all_of(stand.letters)) == 5
    # Told to stop it does not wait any longer, and the status tells it from a crash.
    process.terminate()
    assert process.wait(30) == 65
    # A worker of a better version, here one without a limit, takes what was left: every request has one answer.
    stand.start(dead_letter_limit="0")
    found: list[Record] = []
    while len(found) < 50:
        assert time.monotonic() < deadline
        found += stand.tracks.poll(1000, 0.2)
    assert len(answers(found)) == 50
    assert Counter(answers(found).values()) == {ErrorCode.INTERNAL: 50}
