"""Every kind of poison on every topic of the real pipeline, between good requests that are answered all the same."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from shared.bus.base import Record
from shared.contracts.messages import Stage
from shared.contracts.topics import Channel
from shared.runtime.dead_letters import dead_letter
from tests.support import poison
from tests.support.names import Names
from tests.support.pipeline import Pipeline
from tests.support.poison import Poison
from tests.support.samples import SAMPLE

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(420)]

PATIENCE_S = 240.0
#: How many groups read a topic: each of them keeps a letter of its own.
READERS = {Channel.TRACKS: 3}


def all_poison() -> list[Poison]:
    every = [one for channel in poison.WORK for one in poison.no_messages(channel)]
    for number, make in enumerate((poison.bad_features, poison.bad_predictions, poison.bad_moods)):
        every += make(f"nobody-{number}")
    strays = [poison.prediction(f"stray-{index}", index=index) for index in range(3)]
    every += [Poison("a stray", Channel.PREDICTIONS, json.dumps(fields).encode(), letter=False) for fields in strays]
    garbage = {"blob": "blob:audio/garbage.wav", "sha256": "ab" * 32, "duration_s": 6.0, "segments": 2}
    for name, blob in (("garbage", "blob:audio/garbage.wav"), ("gone", "blob:audio/gone.wav")):
        fields = {"request_id": name, "track_key": "k", "source": "s", "audio": {**garbage, "blob": blob}}
        every.append(
            Poison(f"a track whose audio is {name}", Channel.TRACKS, json.dumps(fields).encode(), letter=False)
        )
    return every


def publish(pipeline: Pipeline, bad: list[Poison]) -> None:
    producer = KafkaProducer(bootstrap_servers=pipeline.bootstrap_servers, max_request_size=6_000_000)
    try:
        for one in bad:
            # A tombstone's value is null; kafka-python sends none without a key.
            value = one.value if one.value or not one.key else None
            headers = [(name, content) for name, content in one.headers]
            producer.send(pipeline.topics.name(one.channel), value=value, key=one.key or None, headers=headers)
        producer.flush(timeout=30)
    finally:
        producer.close(timeout=10)


def bury_request(pipeline: Pipeline, request_id: str) -> str:
    """A dead letter as an ingestion with a defect leaves it; returns the topic of the request."""
    topic = pipeline.topics.name(Channel.REQUESTS)
    value = json.dumps({"request_id": request_id, "audio_url": "blob:music/song.mp3", "force": True}).encode()
    letter = dead_letter(
        pipeline.topics, Record(topic, 0, 0, b"k", value), Stage.INGESTION, ValueError("a defect of before"), 1
    )
    producer = KafkaProducer(bootstrap_servers=pipeline.bootstrap_servers)
    try:
        producer.send(letter.topic, letter.value, letter.key, list(letter.headers)).get(30)
    finally:
        producer.close(timeout=10)
    return topic


def letters(pipeline: Pipeline, count: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        listed = pipeline.command("dead-letters", "list", "--json")
        assert listed.returncode == 0, listed.stderr
        found = [json.loads(line) for line in listed.stdout.splitlines()]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, f"{len(found)} of {count} letters\n{pipeline.logs()}"
        time.sleep(1)


def test_poison_stops_nothing_is_kept_and_can_be_replayed(
    tmp_path: Path, bootstrap_servers: str, redis_url: str, names: Names
) -> None:
    uploads = tmp_path / "blobs" / "music"
    uploads.mkdir(parents=True)
    shutil.copy(SAMPLE, uploads / "song.mp3")
    (tmp_path / "blobs" / "audio").mkdir()
    (tmp_path / "blobs" / "audio" / "garbage.wav").write_bytes(b"\x00\xff" * 5000)
    bad = all_poison()
    with Pipeline(
        tmp_path, bootstrap_servers, redis_url, names.prefix, dead_letter_limit="0", model_wait_s="2"
    ) as pipeline:
        pipeline.publish({"request_id": f"good-{n}", "audio_url": "blob:music/song.mp3", "force": True} for n in (0, 1))
        half = len(bad) // 2
        publish(pipeline, bad[:half])
        pipeline.publish([{"request_id": "good-2", "audio_url": "blob:music/song.mp3", "force": True}])
        publish(pipeline, bad[half:])
        pipeline.publish([{"request_id": "good-3", "audio_url": "blob:music/song.mp3", "force": True}])

        entrance = [one for one in bad if one.channel is Channel.REQUESTS]
        results = pipeline.results(4 + len(entrance), PATIENCE_S)
        counted = Counter(result["request_id"] for result in results)
        assert set(counted.values()) == {1}, counted.most_common(3)
        status = {result["request_id"]: (result["status"], [e["code"] for e in result["errors"]]) for result in results}
        assert {status[f"good-{n}"][0] for n in range(4)} == {"ok"}
        for name in ("half", "newer"):
            # Every topic holds a record with this ID: whichever part of it comes first answers for its half.
            assert status[name][0] == "failed"
            assert status[name][1] and set(status[name][1]) <= {"invalid_request", "internal"}, status[name]
        assert status["garbage"] == ("failed", ["corrupt_audio", "corrupt_audio"])
        assert status["gone"][0] == "failed"
        assert not {name for name in status if name.startswith("stray")}

        expected = sum(READERS.get(one.channel, 1) for one in bad if one.letter)
        listed = letters(pipeline, expected)
        assert len(listed) == expected
        assert set(pipeline.dead()) == set()

        # Nothing that came from outside is among them.
        assert "ingestion" not in {one["service"] for one in listed}

        # A part that a newer version wrote and that names no request: replayed, it dies again, once in each group.
        newer = next(
            one for one in listed if one["exception"] == "NewerSchemaError" and one["service"] == "mood-worker"
        )
        shown = pipeline.command("dead-letters", "show", newer["id"])
        assert shown.returncode == 0 and '"schema_version": 2' in shown.stdout and "Traceback" in shown.stdout
        nameless = next(one for one in listed if one["service"] == "mood-worker" and one["request_id"] is None)
        replayed = pipeline.command("dead-letters", "replay", nameless["id"])
        assert replayed.returncode == 0, replayed.stderr
        again = letters(pipeline, expected + READERS[Channel.TRACKS])
        assert [one["replay_of"] for one in again if one["replay_of"]] == [[nameless["id"]]] * READERS[Channel.TRACKS]
        assert [one["id"] for one in again if one["replayed"]] == [nameless["id"]]

        # A request that an ingestion with a defect buried: replayed, it has one further result, and a good one.
        buried = bury_request(pipeline, "good-0")
        again = letters(pipeline, len(again) + 1)
        (letter,) = [one for one in again if one["service"] == "ingestion"]
        assert (letter["request_id"], letter["exception"]) == ("good-0", "ValueError")
        replayed = pipeline.command("dead-letters", "replay", letter["id"])
        assert replayed.returncode == 0 and buried in replayed.stdout, replayed.stderr
        results = pipeline.results(len(results) + 1, PATIENCE_S)
        assert Counter(result["request_id"] for result in results) == counted + Counter(["good-0"])
        assert {result["status"] for result in results if result["request_id"] == "good-0"} == {"ok"}

        # A part of a request that is answered changes nothing, and the command says so.
        part = next(one for one in again if one["service"] == "aggregator" and one["request_id"] == "newer")
        refused = pipeline.command("dead-letters", "replay", part["id"])
        assert refused.returncode == 1 and "is answered already" in refused.stderr
        unknown = pipeline.command("dead-letters", "show", "0:999999")
        assert unknown.returncode == 1 and "there is no dead letter" in unknown.stderr
        assert set(pipeline.stop().values()) == {0}
