"""The state machine of a request: its arrows, and what each of them leaves."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from shared.bus.base import Record
from shared.contracts.errors import ErrorCode
from shared.contracts.messages import (
    ErrorReport,
    IngestedTrack,
    MoodPrediction,
    SilentSegment,
    Stage,
    Status,
    Track,
    TrackResult,
)
from shared.state.coalescing import Coalescing
from shared.state.connection import connect
from shared.state.keys import Keys
from shared.state.requests import Part, Phase, Requests
from tests.support.state import left_over

KEYS = Keys("t")
ERROR = ErrorReport(code=ErrorCode.INTERNAL, stage=Stage.INGESTION, message="x")
ENTRY = Record("t.requests", 0, 1, b"k", b"")
LAST = Record("t.moods", 0, 9, b"k", b"")
TRACK = IngestedTrack(request_id="r1", track_key="k", source="s", error=ERROR)
MOOD = MoodPrediction(request_id="r1", track_key="k", error=ERROR)
RESULT = TrackResult(request_id="r1", status=Status.FAILED, track=Track(key="k", source="s"), errors=(ERROR,))


@pytest.fixture
def requests() -> Requests:
    return Requests.open(connect(f"memory://{time.monotonic_ns()}"), KEYS, "s", 1000, 100.0)


def phase(requests: Requests) -> Phase:
    return requests.claims(["r1"])["r1"].phase


def test_a_request_goes_through_its_phases_and_back_to_the_first_by_a_replay(requests: Requests) -> None:
    assert phase(requests) is Phase.NEW
    assert requests.accept("r1", ENTRY)
    assert phase(requests) is Phase.ACCEPTED
    requests.add([(TRACK, ENTRY)])
    assert phase(requests) is Phase.WAITING and requests.unfinished() == 1
    requests.add([(MOOD, LAST)])
    assert requests.states(["r1"])["r1"].complete
    assert requests.answer("r1", LAST)
    assert phase(requests) is Phase.ANSWERED
    assert requests.close("r1", LAST.coordinates)
    assert phase(requests) is Phase.CLOSED
    requests.forget("r1", LAST.coordinates)
    assert phase(requests) is Phase.CLOSED and requests.unfinished() == 0
    assert left_over(requests.client, KEYS) == {}
    requests.reopen(["r1"])
    assert phase(requests) is Phase.NEW
    assert requests.accept("r1", replace(ENTRY, offset=2))


def test_only_the_record_that_made_a_claim_may_make_it_again(requests: Requests) -> None:
    other = replace(ENTRY, offset=7)
    assert requests.accept("r1", ENTRY) and requests.accept("r1", ENTRY) and not requests.accept("r1", other)
    assert requests.answer("r1", LAST) and requests.answer("r1", LAST) and not requests.answer("r1", other)
    assert not requests.close("r1", other.coordinates)


def test_a_request_that_was_reopened_meanwhile_keeps_its_new_parts(requests: Requests) -> None:
    """A worker closes, sleeps, and wakes to forget when the request has been replayed."""
    assert requests.answer("r1", LAST) and requests.close("r1", LAST.coordinates)
    requests.reopen(["r1"])
    requests.add([(TRACK, ENTRY)])
    requests.forget("r1", LAST.coordinates)
    assert phase(requests) is Phase.WAITING


def test_what_a_reopened_request_holds_on_to_can_still_be_let_go(requests: Requests) -> None:
    coalescing = Coalescing(requests)
    assert coalescing.lead_or_follow("r1", "source:a", ENTRY) is None
    assert coalescing.lead_or_follow("r2", "source:a", ENTRY) == "r1"
    requests.reopen(["r1"])
    assert coalescing.end("r1", RESULT) == ["r2"]
    assert coalescing.lead_or_follow("r3", "source:a", ENTRY) is None, "the old lead is gone"


@pytest.mark.parametrize("segments", [1, 1000, 2500])
def test_parts_count_once_however_often_they_come_and_all_of_them_go(requests: Requests, segments: int) -> None:
    parts: list[tuple[Part, Record]] = [
        (SilentSegment(request_id="r1", track_key="k", index=index), ENTRY) for index in range(segments)
    ]
    for _ in range(2):
        requests.add(parts)
    assert requests.states(["r1"])["r1"].segments == segments
    assert requests.answer("r1", LAST) and requests.close("r1", LAST.coordinates)
    requests.forget("r1", LAST.coordinates)
    assert set(requests.client.hgetall(KEYS.request("r1"))) == {"answered_by", "closed"}


def test_everything_expires(requests: Requests) -> None:
    requests.accept("r1", ENTRY)
    requests.add([(TRACK, ENTRY)])
    Coalescing(requests).lead_or_follow("r1", "source:a", ENTRY)
    for key in map(str, requests.client.keys("*")):
        assert key == KEYS.waiting() or 0 < int(requests.client.ttl(key)) <= 1000, key
