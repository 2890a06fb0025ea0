"""The two lanes of ingestion: what moves to the second, what is known of a request there, and when a fault is final."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.ingestion.lanes import CutShortError, Lane, Patience, Try, final
from services.ingestion.service import IngestionRetry
from shared.bus.base import Record
from shared.contracts.errors import ErrorCode, TonestreamError, TransientError
from shared.contracts.messages import TrackRequest
from shared.contracts.topics import MAX_MESSAGE_BYTES, Channel, Topics
from shared.runtime.envelope import REPLAY_HEADER, REQUEST_ID_HEADER
from shared.runtime.retries import PREFIX, Retry, RetryNote
from shared.runtime.service import Delivery, Outcome
from tests.support.ingestion_bench import Bench, announced, retried
from tests.support.samples import SAMPLE
from tests.support.web_server import WebServer

FIRST = Lane(3.0, 20.0, last=False)
LAST = Lane(120.0, 300.0, last=True)
PATIENCE = Patience(attempts=3, fetch_s=120.0, pauses_s=30.0)
NOTE = RetryNote("tonestream.requests/3@17", 1000)
BUSY = TransientError(ErrorCode.FETCH_FAILED, "the server answered with status 503")
LATE = TransientError(ErrorCode.FETCH_TIMEOUT, "the download took longer than 3 s")


def tried(lane: Lane, note: RetryNote = NOTE) -> Try:
    return Try(lane, note, threading.Event())


def test_what_the_first_lane_cut_short_goes_on_at_once_and_has_failed_no_try() -> None:
    for fault in (LATE, CutShortError(ErrorCode.INTERNAL, "decoding did not end")):
        following = PATIENCE.next_try(NOTE, fault, tried(FIRST), FIRST, now_ms=5000)
        assert following is not None
        assert (following.attempt, following.not_before_ms, following.waited_ms) == (0, 5000, 0)
        assert following.first_error == f"{fault.code.value}: {fault.message}"


def test_a_fault_that_may_heal_is_tried_again_after_a_pause_and_is_final_after_the_last_try() -> None:
    note: RetryNote | None = NOTE
    pauses = []
    for lane in (FIRST, LAST):
        assert note is not None
        waited = note.waited_ms
        note = PATIENCE.next_try(note, BUSY, tried(lane, note), lane, now_ms=5000)
        assert note is not None and note.not_before_ms == 5000 + note.waited_ms - waited
        pauses.append(note.waited_ms - waited)
    assert 250 <= pauses[0] <= 500 and 500 <= pauses[1] <= 1000
    assert note is not None and note.attempt == 2
    assert PATIENCE.next_try(note, BUSY, tried(LAST, note), LAST, now_ms=5000) is None


def test_a_pause_longer_than_all_pauses_together_is_not_made() -> None:
    asked = TransientError(ErrorCode.FETCH_FAILED, "busy", retry_after_s=31.0)
    assert PATIENCE.next_try(NOTE, asked, tried(FIRST), FIRST, now_ms=0) is None


def test_a_download_that_used_its_whole_time_is_not_tried_again() -> None:
    note = replace(NOTE, spent_ms=119_500)
    assert tried(LAST, note).left_s < 0.6
    assert PATIENCE.next_try(note, LATE, tried(LAST, note), LAST, now_ms=0) is None
    half = replace(NOTE, spent_ms=60_000)
    assert PATIENCE.next_try(half, LATE, tried(LAST, half), LAST, now_ms=0) is not None


def test_no_clock_that_is_wrong_makes_a_request_wait_longer_than_all_pauses_together() -> None:
    assert PATIENCE.wait_s(replace(NOTE, not_before_ms=2000), now_ms=500) == 1.5
    assert PATIENCE.wait_s(replace(NOTE, not_before_ms=2000), now_ms=9000) == 0.0
    assert PATIENCE.wait_s(replace(NOTE, not_before_ms=10**12), now_ms=0) == 30.0


def test_the_answer_names_the_first_fault_where_it_was_another() -> None:
    first = replace(NOTE, first_error=f"{LATE.code.value}: {LATE.message}")
    assert final(BUSY, first).message == f"{BUSY.message}; the first try failed with: {LATE.message}"
    assert final(LATE, first).message == LATE.message


def record_of(retry: Retry, offset: int = 4) -> Record:
    sent = retry.outgoing(Topics())
    return Record(sent.topic, 0, offset, sent.key, sent.value, sent.headers, int(time.time() * 1000))


def test_a_note_travels_whole_and_one_that_is_not_is_no_note() -> None:
    note = RetryNote("t.requests/3@17", 1000, 1, 2000, 3, 4, "fetch_failed: é" + "x" * 400)
    request = TrackRequest(request_id="r", audio_url="http://a.example/a.mp3")
    origin = Record("t.requests", 3, 17, b"", b'{"request_id": "r"}')
    record = record_of(Retry(request, origin, note))
    assert RetryNote.of(record) == replace(note, first_error=note.first_error[:300])
    assert record.value == origin.value and record.key == request.track_key.encode()
    assert record.header(REQUEST_ID_HEADER) == b"r"
    for missing in range(len(record.headers)):
        headers = record.headers[:missing] + record.headers[missing + 1 :]
        if record.headers[missing][0].startswith(PREFIX):
            with pytest.raises(ValueError, match="no header"):
                RetryNote.of(replace(record, headers=headers))
    with pytest.raises(ValueError):
        RetryNote.of(replace(record, headers=(*record.headers, (f"{PREFIX}attempt", b"-1"))))


def test_of_a_clients_headers_only_those_travel_on_that_say_which_replay_it_is() -> None:
    replays = tuple((REPLAY_HEADER, f"0:{number}".encode()) for number in range(3))
    forged = ((f"{PREFIX}attempt", b"9"), (REQUEST_ID_HEADER, b"other"), ("x", b"y" * 60_000))
    origin = Record("t.requests", 0, 0, b"", b"x" * MAX_MESSAGE_BYTES[Channel.REQUESTS], (*forged, *replays))
    request = TrackRequest(request_id="r", audio_url="http://a.example/a.mp3")
    record = record_of(Retry(request, origin, NOTE))
    assert [header for header in record.headers if header[0] == REPLAY_HEADER] == list(replays)
    assert RetryNote.of(record) == NOTE and record.header(REQUEST_ID_HEADER) == b"r" and record.header("x") is None
    assert len(record.value) <= MAX_MESSAGE_BYTES[Channel.REQUESTS_RETRY]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with WebServer() as web:
        made = Bench(tmp_path, web, fetch_first_timeout_s=0.3)
        yield made
        made.service.close()


@pytest.fixture
def second(bench: Bench) -> Iterator[IngestionRetry]:
    made = IngestionRetry.build(bench.settings)
    yield made
    made.close()


def moved(bench: Bench, delivery: Delivery[TrackRequest]) -> Delivery[TrackRequest]:
    """The delivery in the second lane of what the first lane hands over."""
    handled = bench.handled(delivery)
    assert isinstance(handled, Outcome) and handled.retry is not None and not handled.messages, handled
    return Delivery(record_of(handled.retry), delivery.message)


def test_a_slow_source_is_answered_in_the_second_lane_by_the_request_that_entered_in_the_first(
    bench: Bench, second: IngestionRetry
) -> None:
    bench.web.hang("/a.mp3")
    delivery = bench.delivery("r1", audio_url=bench.web.url("/a.mp3"))
    retry = moved(bench, delivery)
    bench.web.add("/a.mp3", SAMPLE.read_bytes())
    (handled,) = second.handle([retry])
    track = announced(handled)
    assert track.audio is not None and track.received_at_ms == delivery.record.timestamp_ms
    # Delivered again, it is the same request; one with its ID that entered elsewhere is not.
    assert announced(second.handle([retry])[0]).audio == track.audio
    note = RetryNote.of(retry.record)
    other = replace(note, entered="tonestream.requests/0@999")
    (refused,) = second.handle([Delivery(replace(retry.record, headers=other.headers()), retry.message)])
    assert refused == Outcome()


def test_a_request_that_was_answered_meanwhile_is_not_fetched_again_in_the_second_lane(
    bench: Bench, second: IngestionRetry
) -> None:
    bench.web.hang("/a.mp3")
    retry = moved(bench, bench.delivery("r1", audio_url=bench.web.url("/a.mp3")))
    answering = Record("tonestream.tracks", 0, 1, b"k", b"")
    assert bench.requests.answer("r1", answering)
    assert bench.requests.close("r1", answering.coordinates)
    asked = bench.web.count("/a.mp3")
    (handled,) = second.handle([retry])
    assert handled == Outcome() and bench.web.count("/a.mp3") == asked


def test_who_wants_what_is_slow_follows_the_request_in_the_second_lane(bench: Bench, second: IngestionRetry) -> None:
    bench.web.hang("/a.mp3")
    retry = moved(bench, bench.delivery("r1", audio_url=bench.web.url("/a.mp3")))
    assert bench.track("r2", audio_url=bench.web.url("/a.mp3")).follows == "r1"
    bench.web.add("/a.mp3", SAMPLE.read_bytes())
    assert announced(second.handle([retry])[0]).audio is not None


def test_headers_of_the_second_lane_mean_nothing_at_the_entry(bench: Bench) -> None:
    bench.web.add("/a.mp3", status=503)
    entering = bench.delivery("r1", audio_url=bench.web.url("/a.mp3"))
    forged = replace(entering.record, headers=replace(NOTE, attempt=2, first_error="a lie").headers())
    note = retried(bench.handled(replace(entering, record=forged)))
    assert (note.entered, note.attempt) == (entering.record.coordinates, 1)
    assert note.first_error == "fetch_failed: the server answered with status 503 (Service Unavailable)"


def test_a_record_without_its_note_is_due_at_once_and_a_defect(bench: Bench, second: IngestionRetry) -> None:
    entering = bench.delivery("r1", audio_url=bench.web.url("/a.mp3"))
    stray = replace(entering.record, topic=Topics().name(Channel.REQUESTS_RETRY))
    assert second.wait_s(stray) == 0.0
    (handled,) = second.handle([replace(entering, record=stray)])
    assert isinstance(handled, ValueError)


def test_a_request_whose_last_try_fails_is_answered_with_that_fault(bench: Bench, second: IngestionRetry) -> None:
    bench.web.add("/a.mp3", status=503)
    delivery = bench.delivery("r1", audio_url=bench.web.url("/a.mp3"))
    for _ in range(2):
        handled = second.handle([delivery])[0] if delivery.record.topic.endswith("retry") else bench.handled(delivery)
        assert isinstance(handled, Outcome) and handled.retry is not None
        delivery = Delivery(record_of(handled.retry), delivery.message)
    (handled,) = second.handle([delivery])
    assert isinstance(handled, TonestreamError) and not isinstance(handled, TransientError)
    assert handled.code is ErrorCode.FETCH_FAILED and bench.web.count("/a.mp3") == 3
