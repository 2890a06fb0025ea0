"""Tracks over HTTP: sent, followed stage by stage, sent again, and refused in good order."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import NoReturn

import httpx
import pytest

from services.gateway.view import records
from services.gateway.view.database import add_derived
from services.library.row import Row
from shared.bus.base import BusUnavailableError
from shared.contracts.messages import TrackResult
from tests.support.gateway_bench import GatewayBench, answer, problem_of

URL = "https://example.org/song.mp3"


def test_a_url_is_published_and_answered_under_its_location(bench: GatewayBench) -> None:
    taken = bench.post({"audio_url": URL, "model": "mfcc-lstm"})
    assert taken.status_code == 202
    accepted = taken.json()
    assert accepted["stage"] == "queued" and accepted["source"] == URL
    assert taken.headers["location"] == accepted["location"] == f"/v1/tracks/{accepted['request_id']}"
    (request,) = bench.asked()
    assert (request.request_id, request.audio_url, request.model) == (accepted["request_id"], URL, "mfcc-lstm")
    assert request.embedding, "else no similar tracks could be found"
    before = bench.client.get(accepted["location"]).json()
    assert before["stage"] == "queued" and before["result"] is None
    result = answer(request.request_id, source=URL)
    bench.answered(result)
    found = bench.client.get(accepted["location"]).json()
    assert found["stage"] == "ok" and found["finished_at"] >= found["submitted_at"]
    assert found["result"] == result.model_dump(mode="json")


def test_a_track_shows_its_stages_in_order_whatever_the_order_of_the_topics(bench: GatewayBench) -> None:
    bench.post({"audio_url": URL}, **{"Idempotency-Key": "r"})
    (request,) = bench.asked()
    bench.retried(request)
    bench.until(lambda: bench.stage("r") == "fetching")
    bench.heard(request)
    bench.until(lambda: bench.stage("r") == "listening")
    bench.retried(request)  # read late
    bench.answered(answer("r"))
    bench.heard(request)
    bench.answered(answer("other"))
    assert bench.stage("r") == "ok"


def test_waiting_ends_when_the_result_comes_and_not_before(bench: GatewayBench) -> None:
    bench.post({"audio_url": URL}, **{"Idempotency-Key": "r"})
    started = time.monotonic()
    assert bench.client.get("/v1/tracks/r?wait=0.3").json()["stage"] == "queued"
    assert time.monotonic() - started >= 0.3
    threading.Timer(0.3, bench.publish, [answer("r")]).start()
    assert bench.client.get("/v1/tracks/r?wait=20").json()["stage"] == "ok"
    assert bench.client.get("/v1/tracks/r?wait=20").json()["stage"] == "ok"


def test_the_same_key_is_the_same_request_and_nothing_is_published_twice(bench: GatewayBench) -> None:
    first = bench.post({"audio_url": URL}, **{"Idempotency-Key": "my-1"}).json()
    bench.asked()
    again = bench.post({"audio_url": URL}, **{"Idempotency-Key": "my-1"})
    assert (again.status_code, again.json()) == (202, first)
    bench.answered(answer("my-1"))
    late = bench.post({"audio_url": URL}, **{"Idempotency-Key": "my-1"})
    assert late.json()["stage"] == "ok"
    assert bench.nothing_asked()


@pytest.mark.parametrize("other", [{"audio_url": "https://example.org/b.mp3"}, {"audio_url": URL, "force": True}])
def test_a_key_of_another_request_is_a_conflict(bench: GatewayBench, other: dict[str, object]) -> None:
    bench.post({"audio_url": URL}, **{"Idempotency-Key": "my-1"})
    bench.asked()
    refused = bench.post(other, **{"Idempotency-Key": "my-1"})
    assert problem_of(refused) == (409, "conflict") and refused.json()["request_id"] == "my-1"
    assert bench.nothing_asked()


def test_several_tracks_are_each_answered_in_their_order(bench: GatewayBench) -> None:
    wanted = [{"audio_url": URL}, {"audio_url": "nonsense"}, {"track_id": "4uLU6hMCjMI75M1A2tKUQC"}, {"url": URL}, 7]
    answered = bench.post({"tracks": wanted})
    assert answered.status_code == 202
    tracks = answered.json()["tracks"]
    assert [one.get("stage") or one["problem"]["code"] for one in tracks] == [
        "queued", "invalid_request", "queued", "invalid_request", "invalid_request",
    ]  # fmt: skip
    assert "did you mean audio_url?" in tracks[3]["problem"]["detail"]
    assert [one.request_id for one in bench.asked(2)] == [tracks[0]["request_id"], tracks[2]["request_id"]]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", (422, "invalid_request")),
        (b'"text"', (422, "invalid_request")),
        (b"[" * 100_000, (422, "invalid_request")),
        (b"{}", (422, "invalid_request")),
        (b'{"audio_url": "ftp://example.org/a"}', (422, "invalid_request")),
        (b'{"audio_url": "https://example.org/\\ud800"}', (422, "invalid_request")),
        (b'{"audio_url": "https://example.org/a", "model": "\\ud800"}', (422, "invalid_request")),
        (b'{"tracks": []}', (422, "invalid_request")),
        (b'{"tracks": {}}', (422, "invalid_request")),
        (b'{"audio_url": "blob:uploads/1"}', (403, "fetch_forbidden")),
        (b'{"audio_url": "FILE:///etc/passwd"}', (403, "fetch_forbidden")),
    ],
)
def test_what_is_no_track_is_refused_with_a_reason(
    shared: GatewayBench, body: bytes, expected: tuple[int, str]
) -> None:
    refused = shared.client.post("/v1/tracks", content=body, headers={"Content-Type": "application/json"})
    assert problem_of(refused) == expected
    assert shared.nothing_asked()


def test_blobs_and_files_of_the_machine_may_be_opened_to_clients(tmp_path: Path) -> None:
    with GatewayBench(tmp_path, gateway_local_sources=True) as bench:
        assert bench.post({"audio_url": "file:///music/song.mp3"}).status_code == 202


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 129])
def test_a_key_that_is_no_request_id_is_refused(shared: GatewayBench, key: str) -> None:
    refused = shared.client.post("/v1/tracks", json={"audio_url": URL}, headers=[(b"Idempotency-Key", key.encode())])
    assert problem_of(refused) == (422, "invalid_request")


def test_an_id_with_slashes_is_found_in_both_spellings(bench: GatewayBench) -> None:
    """Invalid records are answered under their coordinates."""
    bench.answered(answer("t.requests/3@17"))
    for spelling in ("t.requests/3@17", "t.requests%2F3%4017"):
        assert bench.stage(spelling) == "ok"
        assert problem_of(bench.client.get(f"/v1/tracks/{spelling}/waveform")) == (410, "audio_gone")


def test_an_unknown_request_is_not_found(shared: GatewayBench) -> None:
    for path in ("/v1/tracks/r", "/v1/tracks/r/audio", "/v1/tracks/r/waveform", "/v1/similar/r"):
        assert problem_of(shared.client.get(path)) == (404, "not_found")
    assert problem_of(shared.client.post("/v1/tracks/r/retry")) == (404, "not_found")


def test_a_retry_is_a_new_request_for_the_same(bench: GatewayBench) -> None:
    bench.post({"audio_url": URL, "model": "mfcc-lstm"}, **{"Idempotency-Key": "r"})
    bench.asked()
    again = bench.client.post("/v1/tracks/r/retry")
    assert again.status_code == 202 and again.json()["request_id"] != "r"
    (request,) = bench.asked()
    assert (request.request_id, request.audio_url, request.model) == (again.json()["request_id"], URL, "mfcc-lstm")


def test_an_upload_that_is_gone_cannot_be_retried(bench: GatewayBench) -> None:
    taken = bench.client.post("/v1/tracks", content=b"RIFF", headers={"Content-Type": "audio/wav"}).json()
    (request,) = bench.asked()
    assert bench.client.post(f"{taken['location']}/retry").status_code == 202
    assert request.audio_url is not None
    bench.blobs.delete(request.audio_url)
    assert problem_of(bench.client.post(f"{taken['location']}/retry")) == (410, "audio_gone")


def test_requests_of_other_clients_are_seen_too(bench: GatewayBench) -> None:
    bench.post({"audio_url": URL}, **{"Idempotency-Key": "mine"})
    (request,) = bench.asked()
    bench.publish(request.model_copy(update={"request_id": "theirs"}))
    bench.until(lambda: bench.client.get("/v1/tracks/theirs").status_code == 200)
    same = bench.post({"audio_url": URL}, **{"Idempotency-Key": "theirs"})
    assert same.status_code == 202
    assert problem_of(bench.post({"audio_url": f"{URL}?2"}, **{"Idempotency-Key": "theirs"})) == (409, "conflict")


def test_nothing_is_entered_while_there_is_no_bus(bench: GatewayBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> NoReturn:
        raise BusUnavailableError("Kafka is away")

    with monkeypatch.context() as patched:
        patched.setattr(bench.bus, "publisher", away)
        refused = bench.post({"audio_url": URL}, **{"Idempotency-Key": "r"})
        assert problem_of(refused) == (503, "unavailable") and refused.headers["retry-after"]
        assert problem_of(bench.client.get("/v1/tracks/r")) == (404, "not_found")
    assert bench.post({"audio_url": URL}, **{"Idempotency-Key": "r"}).status_code == 202
    assert bench.asked()[0].request_id == "r"


def test_what_the_bus_may_have_taken_is_kept_and_sent_again(
    bench: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*arguments: object) -> None:
        raise BusUnavailableError("Kafka is away")

    with monkeypatch.context() as patched:
        patched.setattr(bench.bus, "_publish", away)
        refused = bench.post({"audio_url": URL}, **{"Idempotency-Key": "r"})
        assert problem_of(refused) == (503, "unavailable") and refused.headers["retry-after"]
        assert bench.stage("r") == "queued"
    assert bench.asked()[0].request_id == "r", "nobody had to ask again"
    assert bench.post({"audio_url": URL}, **{"Idempotency-Key": "r"}).status_code == 202


def test_a_dead_pipeline_or_reader_is_said_in_every_answer(bench: GatewayBench) -> None:
    assert bench.client.get("/readyz").json() == {"ok": True}
    bench.pipeline_fault = "aggregator ended: out of memory"
    for answered in _every_kind(bench):
        assert problem_of(answered) == (503, "unavailable") and answered.headers["retry-after"]
        assert "aggregator" in answered.json()["detail"]
    for probe in ("/readyz", "/livez"):
        found = bench.client.get(probe)
        assert found.status_code == 503 and "aggregator" in found.json()["because"]
    bench.pipeline_fault = None
    bench.gateway.follower.stop()
    for answered in _every_kind(bench):
        assert problem_of(answered) == (503, "unavailable")
    assert bench.client.get("/readyz").status_code == 503


def _every_kind(bench: GatewayBench) -> list[httpx.Response]:
    paths = ("/v1/results", "/v1/summary", "/v1/map", "/v1/events", "/v1/tracks/r?wait=60")
    reading = [bench.client.get(path) for path in paths]
    return [*reading, bench.post({"audio_url": URL})]


def test_a_record_that_meets_a_defect_does_not_stop_the_reader(
    bench: GatewayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(connection: sqlite3.Connection, seq: int, result: TrackResult, finished_at: float) -> Row:
        if result.request_id == "bad":
            raise RuntimeError("a defect")
        return add_derived(connection, seq, result, finished_at)

    monkeypatch.setattr(records, "add_derived", broken)
    bench.publish(answer("bad"))
    bench.answered(answer("good"))
    assert [row["id"] for row in bench.results()["results"]] == ["good"]
