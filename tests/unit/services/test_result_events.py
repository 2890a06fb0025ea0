"""A result is a CloudEvent: its headers, and an ID that stays the same when its record is delivered again."""

from __future__ import annotations

import re
import time

from shared.bus.base import Outgoing, Record
from shared.contracts.cloud_events import ATTRIBUTES, HEADER_PREFIX, CloudEvent
from shared.contracts.messages import ErrorReport, Stage, Status, Track, TrackResult
from shared.contracts.topics import Topics
from shared.runtime.envelope import outgoing
from shared.runtime.policy import LoopPolicy
from shared.runtime.settling import Settler
from shared.state.requests import Part
from tests.support.mill import QUICK
from tests.unit.services.test_aggregator import Bench, following, lead, mood, prediction, track

TOPICS = Topics("music")


def events(sent: tuple[Outgoing, ...]) -> list[dict[str, str]]:
    return [
        {name: value.decode() for name, value in one.headers if name.startswith(HEADER_PREFIX)}
        for one in sent
        if one.topic == "music.results"
    ]


class Desk(Bench):
    """An aggregator whose records are settled as a worker settles them."""

    def settle(self, *records: Record, policy: LoopPolicy = QUICK) -> list[dict[str, str]]:
        settler = Settler(self.worker(), TOPICS, policy, sleep=lambda seconds: None, redact=str)
        return events(tuple(output for settled in settler.settle(records) for output in settled.outputs))

    def parts(self, request_id: str = "r1") -> list[Record]:
        return self.records(track(request_id, segments=1), prediction(0, request_id=request_id), mood(request_id))

    def records(self, *parts: Part) -> list[Record]:
        sent = [outgoing(TOPICS, part) for part in parts]
        return [Record(one.topic, 3, next(self.offsets), one.key, one.value, one.headers) for one in sent]


def test_a_result_carries_the_headers_of_a_cloud_event(tmp_path: object) -> None:
    before = time.time()
    desk = Desk(str(tmp_path))
    parts = desk.parts()
    (event,) = desk.settle(*parts)
    assert set(event) == {f"{HEADER_PREFIX}{name}" for name in ATTRIBUTES}
    assert event["ce_specversion"] == "1.0"
    assert event["ce_type"] == "org.tonestream.result.v1"
    assert event["ce_source"] == "urn:tonestream:music"
    assert event["ce_subject"] == "r1"
    assert event["ce_id"] == f"r1@{parts[-1].coordinates}" == "r1@music.moods/3@2"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["ce_time"])
    assert event["ce_time"] >= CloudEvent("", "", "", before - 0.001).headers()["ce_time"]


def test_a_record_that_is_delivered_again_makes_the_event_with_the_same_id(tmp_path: object) -> None:
    desk = Desk(str(tmp_path))
    *first, last = desk.parts()
    assert desk.settle(*first) == []
    (event,), (again,) = desk.settle(last), desk.settle(last)  # the commit failed in between
    assert event["ce_id"] == again["ce_id"]


def test_requests_that_one_record_answers_have_events_with_ids_of_their_own(tmp_path: object) -> None:
    desk = Desk(str(tmp_path))
    lead(desk, "r1", "r2")
    one, two = desk.settle(*desk.records(following("r2", "r1")), *desk.parts("r1"))
    assert {one["ce_subject"], two["ce_subject"]} == {"r1", "r2"}
    assert one["ce_id"].removeprefix("r1") == two["ce_id"].removeprefix("r2")  # the same record completes both


def test_the_further_result_of_a_replayed_request_is_another_event(tmp_path: object) -> None:
    desk = Desk(str(tmp_path))
    parts = desk.parts()
    (event,) = desk.settle(*parts)
    desk.requests().close("r1", parts[-1].coordinates)
    desk.requests().reopen(["r1"])
    (again,) = desk.settle(*desk.parts())
    assert event["ce_subject"] == again["ce_subject"] == "r1"
    assert event["ce_id"] != again["ce_id"]


def test_a_message_between_services_is_no_event() -> None:
    assert all(not name.startswith(HEADER_PREFIX) for name, _ in outgoing(TOPICS, track()).headers)


def test_an_event_costs_microseconds() -> None:
    error = ErrorReport(code="internal", stage=Stage.AGGREGATOR, message="why")
    result = TrackResult(
        request_id="r1", status=Status.FAILED, track=Track(key="k", source="song.mp3"), errors=(error,)
    )
    began = time.process_time()
    for _ in range(1000):
        CloudEvent.of(result, "music", "music.moods/3@17", 1.0).headers()
    assert (time.process_time() - began) / 1000 < 200e-6  # a result costs milliseconds
