"""A change of model in the middle of the work: nothing under way is lost, whoever is restarted when.

One pipeline on real Kafka and Redis, whose workers are ended and started with other settings; the tests are in order.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer

from services.topology import SERVICE_NAMES
from shared.bus.base import Record
from shared.contracts.codec import decode_message
from shared.contracts.messages import IngestedTrack
from shared.contracts.topics import Channel
from shared.models.manifest import load_manifest
from shared.runtime.envelope import salvaged_request_id
from shared.settings import Settings
from tests.support.names import Names
from tests.support.pipeline import Pipeline
from tests.support.samples import SAMPLES
from tests.support.sources import frame_at
from tests.support.web_server import WebServer

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(420)]

PATIENCE_S = 180.0
UNDER_WAY = 8
#: Of MP3 at 112 kb/s: about 10 s.
_PIECE = 140 * 1024
MODELS = Settings().models_dir
#: What is in the pipeline: names of folders, and the model IDs that results name.
ACCURATE, CHEAP = "musicnn-lstm", "mfcc-lstm"
IDS = {name: load_manifest(MODELS / name).model_id for name in (ACCURATE, CHEAP)}


class Upgrade:
    """The pipeline, and a web server whose every path is a track of its own."""

    def __init__(self, pipeline: Pipeline, site: WebServer) -> None:
        self.pipeline = pipeline
        self.site = site
        self.asked = 0

    def ask(self, prefix: str, count: int, **more: Any) -> list[str]:
        """Publish so many requests, each for a source of its own, that the workers must work for; their IDs."""
        requests = []
        for number in range(count):
            path = f"/{prefix}-{number}.mp3"
            data = SAMPLES[number % len(SAMPLES)].read_bytes()
            self.site.add(path, data[frame_at(data, 1) :][:_PIECE])
            requests.append(
                {"request_id": f"{prefix}-{number}", "audio_url": self.site.url(path), "force": True, **more}
            )
        self.pipeline.publish(requests)
        self.asked += count
        return [request["request_id"] for request in requests]

    def end(self, *services: str) -> None:
        self.pipeline.end(*services)

    def start(self, model: str, *services: str, **more: str) -> None:
        self.pipeline.environment["TONESTREAM_GENRE_MODEL"] = model
        before = dict(self.pipeline.environment)
        self.pipeline.environment.update({f"TONESTREAM_{name.upper()}": value for name, value in more.items()})
        for service in services:
            self.pipeline.start(service)
        self.pipeline.environment = before

    def results(self, count: int | None = None) -> dict[str, dict[str, Any]]:
        """The results by request, once all are there (or ``count``); no request has two."""
        found = self.pipeline.results(self.asked if count is None else count, PATIENCE_S)
        assert max(Counter(result["request_id"] for result in found).values()) == 1
        return {result["request_id"]: result for result in found}

    def records(self, channel: Channel) -> Iterator[Record]:
        """What is committed on a topic by now."""
        consumer = KafkaConsumer(
            self.pipeline.topics.name(channel),
            bootstrap_servers=self.pipeline.bootstrap_servers,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        try:
            while polled := consumer.poll(timeout_ms=1500):
                for records in polled.values():
                    for r in records:
                        yield Record(r.topic, r.partition, r.offset, r.key or b"", r.value, tuple(r.headers))
        finally:
            consumer.close()


@pytest.fixture(scope="module")
def upgrade(tmp_path_factory: pytest.TempPathFactory, bootstrap_servers: str, redis_url: str) -> Iterator[Upgrade]:
    folder, names = tmp_path_factory.mktemp("upgrade"), Names.unique("upgrade")
    settings = {"fetch_allow": "127.0.0.1", "genre_model": ACCURATE, "batch_records": "4"}
    with (
        WebServer() as site,
        Pipeline(folder, bootstrap_servers, redis_url, names.prefix, **settings) as pipeline,
    ):
        yield Upgrade(pipeline, site)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.2)


def figures(results: dict[str, dict[str, Any]], requests: Sequence[str]) -> str:
    """In one line: how the requests ended, for a reader of the test's output."""
    ends: Counter[str] = Counter()
    for request_id in requests:
        result = results[request_id]
        codes = sorted({error["code"] for error in result["errors"]})
        model = result["genre"] and result["genre"]["model"].rpartition("-")[0]
        ends[" ".join([result["status"], *codes, f"by {model}"])] += 1
    return f"{len(requests)} requests: {dict(ends)}"


def test_one_installation_answers_two_requests_for_the_same_audio_by_two_models(upgrade: Upgrade) -> None:
    upgrade.site.add("/same.mp3", SAMPLES[0].read_bytes())
    same = {"audio_url": upgrade.site.url("/same.mp3")}
    submitted = upgrade.pipeline.command("submit", "--model", CHEAP, same["audio_url"])
    assert submitted.returncode == 0, submitted.stderr
    by_folder = submitted.stdout.split("\t")[0]
    upgrade.pipeline.publish(
        [
            {"request_id": "own", **same},
            {"request_id": "by-id", **same, "model": IDS[CHEAP]},
            {"request_id": "unknown", **same, "model": "resnet"},
        ]
    )
    upgrade.asked += 4
    results = upgrade.results()
    print(figures(results, ["own", by_folder, "by-id", "unknown"]))
    models = {name: results[name]["genre"] and results[name]["genre"]["model"] for name in results}
    assert models == {"own": IDS[ACCURATE], by_folder: IDS[CHEAP], "by-id": IDS[CHEAP], "unknown": None}
    # The two for one model are one piece of work, that for the other is another.
    assert not results["own"]["cached"]
    assert sorted([results[by_folder]["cached"], results["by-id"]["cached"]]) == [False, True]
    (error,) = results["unknown"]["errors"]
    assert error["code"] == "invalid_request"
    assert all(name in error["message"] for name in (ACCURATE, CHEAP, IDS[ACCURATE], IDS[CHEAP]))
    # From the cache, too, each gets the answer by its model.
    upgrade.pipeline.publish([{"request_id": f"again-{name}", **same, "model": name} for name in (ACCURATE, CHEAP)])
    upgrade.asked += 2
    results = upgrade.results()
    for name in (ACCURATE, CHEAP):
        assert results[f"again-{name}"]["cached"] and results[f"again-{name}"]["genre"]["model"] == IDS[name]


def test_features_under_way_for_one_model_are_answered_by_it_when_all_restart_with_another(upgrade: Upgrade) -> None:
    upgrade.end("genre-worker")
    forth = upgrade.ask("forth", UNDER_WAY)
    wait_until(lambda: not {"ingestion", "feature-extraction"} & set(upgrade.pipeline.lag()))
    upgrade.end(*SERVICE_NAMES)
    upgrade.start(CHEAP, *SERVICE_NAMES)
    results = upgrade.results()
    print(f"{ACCURATE} -> {CHEAP}:", figures(results, forth))
    assert {results[one]["status"] for one in forth} == {"ok"}
    assert {results[one]["genre"]["model"] for one in forth} == {IDS[ACCURATE]}
    # And the way back.
    upgrade.end("genre-worker")
    back = upgrade.ask("back", UNDER_WAY)
    wait_until(lambda: not {"ingestion", "feature-extraction"} & set(upgrade.pipeline.lag()))
    upgrade.start(ACCURATE, "genre-worker")
    results = upgrade.results()
    print(f"{CHEAP} -> {ACCURATE}:", figures(results, back))
    assert {results[one]["status"] for one in back} == {"ok"}
    assert {results[one]["genre"]["model"] for one in back} == {IDS[CHEAP]}


def test_services_restarted_one_by_one_in_any_order_with_another_model_lose_nothing(upgrade: Upgrade) -> None:
    order = list(SERVICE_NAMES)
    seed = random.randrange(1000)
    random.Random(seed).shuffle(order)
    asked: list[str] = []
    for wave, service in enumerate(order):
        asked += upgrade.ask(f"wave{wave}", 3)
        upgrade.end(service)
        upgrade.start(ACCURATE, service)
    asked += upgrade.ask("last", 3)
    results = upgrade.results()
    print(f"seed {seed}, {' '.join(order)}:", figures(results, asked))
    assert {results[one]["status"] for one in asked} == {"ok"}
    announced = {
        track.request_id: track.answer_key.genre_model
        for track in (decode_message(Channel.TRACKS, record.value) for record in upgrade.records(Channel.TRACKS))
        if isinstance(track, IngestedTrack) and track.answer_key is not None
    }
    assert {one: results[one]["genre"]["model"] for one in asked} == {one: announced[one] for one in asked}
    assert results["last-0"]["genre"]["model"] == IDS[ACCURATE]


def test_a_worker_without_the_model_holds_its_tracks_lets_the_others_go_and_serves_them_once_it_has_it(
    upgrade: Upgrade, tmp_path: Path
) -> None:
    old_image = tmp_path / "models"
    for name in (CHEAP, "mood-ten"):
        shutil.copytree(MODELS / name, old_image / name)
    upgrade.end("genre-worker")
    upgrade.start(CHEAP, "genre-worker", models_dir=str(old_image))
    (held,) = upgrade.ask("held", 1)
    wait_until(lambda: not {"ingestion", "feature-extraction"} & set(upgrade.pipeline.lag()))
    ready = upgrade.ask("ready", 6, model=CHEAP)
    wait_until(lambda: not {"ingestion", "feature-extraction"} & set(upgrade.pipeline.lag()))
    partitions = {salvaged_request_id(record): record.partition for record in upgrade.records(Channel.FEATURES)}
    elsewhere = {one for one in ready if partitions[one] != partitions[held]}

    def answered() -> set[str | None]:
        return {salvaged_request_id(record) for record in upgrade.records(Channel.RESULTS)}

    wait_until(lambda: elsewhere <= answered())
    assert held not in answered()
    assert f"the genre model {IDS[ACCURATE]} is not installed" in upgrade.pipeline.logs()
    shutil.copytree(MODELS / ACCURATE, old_image / ACCURATE)
    results = upgrade.results()
    print(figures(results, [held, *ready]))
    assert {results[one]["status"] for one in (held, *ready)} == {"ok"}
    assert results[held]["genre"]["model"] == IDS[ACCURATE]
