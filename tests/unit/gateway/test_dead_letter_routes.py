"""Dead letters over HTTP: listed, shown, and replayed."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from shared.bus.base import Outgoing, Record
from shared.bus.memory import MemoryBus
from shared.bus.topics import topic_specs
from shared.contracts.messages import Stage, TrackRequest
from shared.contracts.topics import Channel, Topics
from shared.runtime.dead_letters import dead_letter
from shared.runtime.envelope import outgoing
from shared.settings import Settings
from tests.support.dead_letter_desk import failed
from tests.support.gateway_bench import GatewayBench, problem_of


class Bench(GatewayBench):
    """A gateway on a bus that keeps its records, as Kafka does."""

    def __init__(self, folder: Path) -> None:
        bus = MemoryBus()
        bus.create_topics(topic_specs(Topics("t")))
        # What every reader has passed is dropped: one that stays behind makes a log of it.
        self.keeper = bus.reader([Topics("t").name(Channel.DEAD_LETTERS)])
        super().__init__(folder, bus, mode="kafka")
        redis = SecretStr(f"memory://{time.monotonic_ns()}")
        self.settings: Settings = self.settings.model_copy(update={"redis_url": redis})

    def bury(self, request_id: str, value: bytes | None = None, stage: Stage = Stage.INGESTION) -> None:
        sent = outgoing(self.topics, TrackRequest(request_id=request_id, audio_url="https://example.org/a.mp3"))
        content = sent.value if value is None else value
        record = Record(sent.topic, 0, 7, sent.key, content, (("own", b"\xff"),))
        letter = dead_letter(self.topics, record, stage, failed(ValueError("a defect")), 3)
        with self.bus.publisher() as publisher:
            publisher.publish([letter])

    def ids(self, **filters: str) -> list[str]:
        found = self.client.get("/v1/dead-letters", params=filters)
        assert found.status_code == 200, found.text
        return [one["id"] for one in found.json()["dead_letters"]]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(tmp_path_factory.mktemp("gateway")) as running:
        for number in range(3):
            running.bury(f"r{number}")
        running.bury("binary", b"\xff\x00", Stage.MOOD_WORKER)
        yield running
        running.keeper.close()


def test_dead_letters_are_listed_the_newest_last(bench: Bench) -> None:
    assert len(bench.ids()) >= 4
    assert bench.ids(limit="2") == bench.ids()[-2:]
    assert len(bench.ids(service="mood-worker")) == 1
    first = bench.client.get("/v1/dead-letters").json()["dead_letters"][0]
    assert (first["request_id"], first["exception"], first["message"]) == ("r0", "ValueError", "a defect")
    assert (first["service"], first["attempts"], first["offset"], first["replayed"]) == ("ingestion", "3", "7", False)


def test_one_is_shown_with_its_stack_trace_and_its_record(bench: Bench) -> None:
    found = bench.client.get(f"/v1/dead-letters/{bench.ids(service='mood-worker')[0]}").json()
    assert "ValueError: a defect" in found["stacktrace"]
    assert found["value"] == {"encoding": "base64", "content": base64.b64encode(b"\xff\x00").decode(), "bytes": 2}
    assert found["key"]["encoding"] == "utf-8" and found["key"]["content"].startswith("url:")
    assert found["headers"] == [{"name": "own", "value": {"encoding": "base64", "content": "/w==", "bytes": 1}}]


def test_a_request_is_published_again_and_the_letter_marked(bench: Bench) -> None:
    first = bench.ids()[0]
    found = bench.client.post(f"/v1/dead-letters/{first}/replay")
    assert found.status_code == 202 and found.json()["request_id"] == "r0"
    (again,) = bench.asked()
    assert again.request_id == "r0"
    assert bench.client.get(f"/v1/dead-letters/{first}").json()["replayed"] is True


def test_what_cannot_be_replayed_is_refused_with_the_reason(bench: Bench) -> None:
    name = bench.topics.name(Channel.DEAD_LETTERS)
    with bench.bus.publisher() as publisher:
        publisher.publish([Outgoing(name, b"stray", b"not one of ours")])
    found = bench.client.post(f"/v1/dead-letters/{bench.ids()[-1]}/replay")
    assert problem_of(found) == (409, "conflict")
    assert "original topic is unknown" in found.json()["detail"]


@pytest.mark.parametrize("letter", ["0:999", "999:0", "11:0"])
def test_an_unknown_one_is_not_found(bench: Bench, letter: str) -> None:
    if letter in bench.ids():
        pytest.skip("it is known")
    assert problem_of(bench.client.get(f"/v1/dead-letters/{letter}")) == (404, "not_found")
    assert problem_of(bench.client.post(f"/v1/dead-letters/{letter}/replay")) == (404, "not_found")


@pytest.mark.parametrize("letter", ["x", "1", "1:x", "-1:0", "0:9999999999999999999"])
def test_what_is_no_id_is_refused(bench: Bench, letter: str) -> None:
    assert bench.client.get(f"/v1/dead-letters/{letter}").status_code in (404, 422)


def test_a_pipeline_inside_the_process_keeps_none_and_says_so(tmp_path: Path) -> None:
    with GatewayBench(tmp_path) as embedded:
        found = embedded.client.get("/v1/dead-letters")
        assert problem_of(found) == (503, "unavailable")
        assert "its log says" in found.json()["detail"]
