"""A worker that stops at any of its steps, and wakes after others did its work, leaves nothing behind.

All steps with ``TONESTREAM_CHAOS=long`` (``make chaos``), else those that once went wrong.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from shared.contracts.topics import Channel
from shared.state.keys import Keys
from shared.system.fault_points import (
    ANSWER_CLAIMED,
    ANSWER_KEPT,
    AUDIO_STORED,
    BATCH_BEGUN,
    COMMITTED,
    HANDLED,
    KAFKA_OFFSETS_SENT,
    KAFKA_SENT,
    LEAD_TAKEN,
    PARTS_NOTED,
    REQUEST_ENTERED,
    SOURCE_REMEMBERED,
    VARIABLE,
)
from tests.support.committed_offsets import commits_that_went_back
from tests.support.kafka_broker import KafkaBroker
from tests.support.names import Names
from tests.support.pipeline import Pipeline
from tests.support.redis_server import RedisServer
from tests.support.samples import SAMPLES
from tests.support.sources import frame_at
from tests.support.state import left_over
from tests.support.web_server import WebServer

LONG = os.environ.get("TONESTREAM_CHAOS") == "long"
pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(300)]

PATIENCE_S = 60.0
#: Of MP3 at 112 kb/s: about 5 s.
_PIECE = 70 * 1024
#: Two for each partition, so that the worker that stops gets some whatever its share.
_REQUESTS = 24

STEPS = [
    ("ingestion", LEAD_TAKEN),
    ("ingestion", AUDIO_STORED),
    ("aggregator", PARTS_NOTED),
    ("aggregator", ANSWER_CLAIMED),
]
if LONG:
    STEPS += [("ingestion", point) for point in (BATCH_BEGUN, REQUEST_ENTERED, SOURCE_REMEMBERED)]
    STEPS += [("aggregator", ANSWER_KEPT)]
    STEPS += [
        (service, point)
        for service in ("ingestion", "aggregator")
        for point in (HANDLED, KAFKA_SENT, KAFKA_OFFSETS_SENT, COMMITTED)
    ]


class Installation:
    """One worker of each service over a web server, and what has been answered."""

    def __init__(self, pipeline: Pipeline, web: WebServer, client: redis.Redis) -> None:
        self.pipeline = pipeline
        self._web = web
        self._redis = client
        self._rounds = 0
        self._seen: list[dict[str, Any]] = []
        self._consumer = pipeline.consumer(Channel.RESULTS)

    def sources(self) -> list[str]:
        """URLs of music that nobody asked for before."""
        self._rounds += 1
        urls = []
        for number in range(_REQUESTS):
            data = SAMPLES[number % len(SAMPLES)].read_bytes()
            start = frame_at(data, (self._rounds * _REQUESTS + number) * 400 % (len(data) - _PIECE) + 1)
            body = data[start : start + _PIECE]
            name = f"/{self._rounds}-{number}.mp3"
            self._web.add(name, body, headers={"ETag": f'"{name}"'})
            urls.append(self._web.url(name))
        return urls

    def answers(self, ids: set[str], patience_s: float) -> dict[str, dict[str, Any]]:
        """The result of each of these requests, once all are there or time is up."""
        deadline = time.monotonic() + patience_s
        while True:
            for records in self._consumer.poll(timeout_ms=200).values():
                self._seen += [json.loads(record.value) for record in records]
            found = {result["request_id"]: result for result in self._seen if result["request_id"] in ids}
            if len(found) == len(ids) or time.monotonic() > deadline:
                return found

    def doubled(self) -> list[str]:
        """Requests with more than one result."""
        self.answers({"nobody's"}, 1.0)
        return [id_ for id_, count in Counter(result["request_id"] for result in self._seen).items() if count > 1]

    def left(self) -> dict[str, int]:
        """What is there although nothing is under way."""
        found = left_over(self._redis, Keys(self.pipeline.topics.prefix))
        found["blobs"] = len(list((self.pipeline.folder / "blobs").rglob("*.wav")))
        return {kind: count for kind, count in found.items() if count}

    def until_nothing_is_left(self) -> dict[str, int]:
        deadline = time.monotonic() + PATIENCE_S
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return left


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, kafka_broker: KafkaBroker, redis_server: RedisServer
) -> Iterator[Installation]:
    client: redis.Redis = redis.Redis.from_url(redis_server.url, decode_responses=True)
    with (
        WebServer() as web,
        Pipeline(
            tmp_path_factory.mktemp("zombies"), kafka_broker.bootstrap_servers, redis_server.url,
            Names.unique("zombies").prefix, fetch_allow="127.0.0.1", genre_model="mfcc-lstm",
            kafka_session_timeout_s="3", kafka_transaction_timeout_s="3",
        ) as pipeline,
    ):  # fmt: skip
        made = Installation(pipeline, web, client)
        # A first request, until every worker is up.
        pipeline.publish([{"request_id": "first", "audio_url": made.sources()[0]}])
        assert made.answers({"first"}, 3 * PATIENCE_S), pipeline.logs()
        yield made


@pytest.mark.parametrize(("service", "point"), STEPS, ids=[f"{service}-{point}" for service, point in STEPS])
def test_a_worker_that_stops_at_a_step_and_wakes_when_others_did_its_work_leaves_nothing_behind(
    installation: Installation, service: str, point: str
) -> None:
    pipeline = installation.pipeline
    urls = installation.sources()
    sleeper = pipeline.start(service, **{VARIABLE: f"{point}=stop"})
    try:
        log = sorted(pipeline.folder.glob(f"{service}-*.log"), key=lambda path: path.stat().st_mtime)[-1]
        until = time.monotonic() + PATIENCE_S
        asked: dict[str, str] = {}
        while not _stopped(sleeper):
            assert time.monotonic() < until, log.read_text()
            if asked and len(asked) % _REQUESTS == 0:
                urls = installation.sources()  # a known source is not decoded again
            wave = {f"{service}-{point}-{len(asked) + n}": urls[(len(asked) + n) % len(urls)] for n in range(8)}
            asked |= wave
            pipeline.publish({"request_id": id_, "audio_url": url} for id_, url in wave.items())
            time.sleep(1.0)
        found = installation.answers(set(asked), PATIENCE_S)
        missing = set(asked) - set(found)
        sleeper.send_signal(signal.SIGCONT)
        time.sleep(2.0)
        again = {f"again-{service}-{point}-{n}": url for n, url in enumerate(urls)}
        started = time.monotonic()
        pipeline.publish({"request_id": id_, "audio_url": url} for id_, url in again.items())
        later = installation.answers(set(again), PATIENCE_S)
        waited_s = time.monotonic() - started
        left = installation.until_nothing_is_left()
        alive = sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()
        pipeline.workers = [(name, worker) for name, worker in pipeline.workers if worker is not sleeper]
    print(f"{service} {point}: {len(asked)} asked, {len(missing)} missing, again in {waited_s:.1f} s, left {left}")
    assert not missing, (missing, log.read_text()[-3000:])
    assert {result["status"] for result in found.values()} == {"ok"}
    assert set(later) == set(again) and {result["status"] for result in later.values()} == {"ok"}
    assert waited_s < 15.0
    assert installation.doubled() == []
    assert not left
    assert alive, log.read_text()[-3000:]
    assert commits_that_went_back(pipeline.bootstrap_servers, pipeline.topics.prefix) == []


def _stopped(process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, process.returncode
    return Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
