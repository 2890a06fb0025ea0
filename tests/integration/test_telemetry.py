"""The pipeline in memory with its gateway, seen from outside: every metric moves, and one trace follows a request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from services.cli.embedded import EmbeddedPipeline
from services.topology import TOPOLOGY
from shared.bus.base import Outgoing, Record
from shared.contracts.codec import decode_message, encode_message
from shared.contracts.messages import IngestedTrack, TrackResult
from shared.contracts.topics import Channel
from shared.runtime import metrics, traces
from shared.settings import Settings
from tests.support.gateway_bench import GatewayBench
from tests.support.telemetry import Samples, groups, in_trace, moved, samples, trace_of, traceparent
from tests.support.web_server import Exchange, WebServer

SONG, OTHER, THIRD, *_ = sorted((Path(__file__).resolve().parents[2] / "samples").glob("*.mp3"))
PATIENCE_S = 120.0
#: The context that a client sends with one of its requests.
OWN_TRACE, OWN_SPAN = 0xABCD << 112, 0x1234
#: Both at once: one leads, and the other follows.
TOGETHER = ("twice-1", "twice-2")


@dataclass(frozen=True, slots=True)
class Seen:
    """``results`` by request, with the record of each; ``scraped`` is what the gateway's /metrics said."""

    before: Samples
    after: Samples
    spans: list[ReadableSpan]
    results: dict[str, tuple[Record, TrackResult]]
    scraped: str

    def trace(self, request_id: str) -> list[ReadableSpan]:
        """The spans of the trace in which a request was submitted."""
        (entry,) = (
            span
            for span in self.spans
            if span.name == "process t.requests" and (span.attributes or {}).get("tonestream.request_id") == request_id
        )
        return in_trace(self.spans, trace_of(entry))


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """A success, a failure, a retry, a cache hit, shared work, an upload, a dead letter, a held record, webhooks."""
    folder = tmp_path_factory.mktemp("telemetry")
    exporter = InMemorySpanExporter()
    metrics.UNFINISHED.clear()  # other tests of this process leave it at the 0 that it ends with here
    before = samples()
    traces.start_with(exporter, "test", "memory")
    try:
        with WebServer() as web:
            yield run(folder, web, exporter, before)
    finally:
        traces.stop()


def run(folder: Path, web: WebServer, exporter: InMemorySpanExporter, before: Samples) -> Seen:
    song = SONG.read_bytes()
    web.add("/song.mp3", song)
    web.add("/same.mp3", song)
    flaky = iter([503, 503, *[200] * 9])
    web.add_handler("/flaky.mp3", lambda exchange: exchange.answer(next(flaky), OTHER.read_bytes()))
    both_are_there = threading.Event()

    def shared(exchange: Exchange) -> None:
        both_are_there.wait(PATIENCE_S)
        exchange.answer(200, THIRD.read_bytes())

    web.add_handler("/twice.mp3", shared)
    web.add_handler("/hook", lambda exchange: exchange.answer(204))
    web.add_handler("/broken-hook", lambda exchange: exchange.answer(500))
    settings = Settings(
        topic_prefix="t", fetch_allow="127.0.0.1", genre_model="mfcc-lstm", local_files=SONG.parent, worker_threads=2
    )
    pipeline = EmbeddedPipeline(settings, blobs=folder / "blobs")
    with pipeline, GatewayBench(folder, pipeline.bus, gateway_webhook_private=True) as bench:
        tracks = pipeline.bus.reader([bench.topics.name(Channel.TRACKS)])
        reader = pipeline.bus.reader([bench.topics.name(Channel.RESULTS)])
        results: dict[str, tuple[Record, TrackResult]] = {}

        def answered(*request_ids: str) -> None:
            def came() -> bool:
                for record in reader.poll(100, 0.1):
                    result = decode_message(Channel.RESULTS, record.value)
                    assert isinstance(result, TrackResult)
                    results[result.request_id] = record, result
                return set(request_ids) <= set(results)

            until(came)

        def ask(request_id: str, path: str, **headers: str) -> None:
            named = {"Idempotency-Key": request_id, **headers}
            asked = bench.client.post("/v1/tracks", json={"audio_url": web.url(path)}, headers=named)
            assert asked.status_code == 202, asked.text

        for hook in ("/hook", "/broken-hook"):
            assert bench.client.post("/v1/webhooks", json={"url": web.url(hook)}).status_code == 201
        ask("song", "/song.mp3", traceparent=f"00-{OWN_TRACE:032x}-{OWN_SPAN:016x}-01")
        ask("gone", "/gone.mp3")
        ask("flaky", "/flaky.mp3")
        for request_id in TOGETHER:
            ask(request_id, "/twice.mp3")
        until(lambda: metrics.COALESCED.labels("source")._value.get() > 0)
        both_are_there.set()
        answered("song", "gone", "flaky", *TOGETHER)
        ask("same", "/same.mp3")
        upload = bench.client.post(
            "/v1/tracks", content=song, headers={"Content-Type": "audio/mpeg", "Idempotency-Key": "upload"}
        )
        assert upload.status_code == 202
        answered("same", "upload")
        with pipeline.bus.publisher() as publisher:
            publisher.publish([Outgoing(bench.topics.name(Channel.TRACKS), b"k", b"no message")])
            tracks_with_work = (one for one in map(_track, tracks.poll(100, 1.0)) if one and one.audio)
            announced = next(one for one in tracks_with_work if not one.answered_elsewhere)
            publisher.publish([_held(announced, bench.topics.name(Channel.TRACKS))])
        until(lambda: bool(metrics.REWINDS.labels("mood-worker", "held")._value.get()))
        until(lambda: bool(metrics.WEBHOOK_ATTEMPTS.labels("failed")._value.get()))
        with bench.events():
            scraped = bench.client.get("/metrics")
            after = samples()
        assert scraped.status_code == 200 and scraped.headers["content-type"].startswith("text/plain; version=")
        tracks.close()
        reader.close()
    traces.stop()
    return Seen(before, after, list(exporter.get_finished_spans()), results, scraped.text)


def _track(record: Record) -> IngestedTrack | None:
    track = decode_message(Channel.TRACKS, record.value) if record.value.startswith(b"{") else None
    return track if isinstance(track, IngestedTrack) else None


def _held(announced: IngestedTrack, topic: str) -> Outgoing:
    """A track whose mood model is not installed."""
    assert announced.answer_key is not None
    unknown = announced.answer_key.model_copy(update={"mood_model": "mood-ten-000000000000"})
    track = announced.model_copy(update={"request_id": "held", "answer_key": unknown})
    return Outgoing(topic, b"k", encode_message(track))


def test_every_metric_that_is_declared_moves(seen: Seen) -> None:
    assert [one.name for one in metrics.DECLARED if not moved(one, seen.before, seen.after)] == []


def test_every_label_has_one_of_its_declared_values(seen: Seen) -> None:
    values = {(series, label.name): label for one in metrics.DECLARED for series in one.series for label in one.labels}
    for name, labels in seen.after:
        for label, value in labels:
            if (declared := values.get((name, label))) is not None and declared.values:
                assert value in declared.values, f"{label}={value} of {name}"


def test_the_gateway_shows_routes_and_never_the_paths_that_were_asked_for(seen: Seen) -> None:
    assert 'tonestream_http_requests_total{method="POST",route="/v1/tracks",status="202"}' in seen.scraped
    assert "127.0.0.1" not in seen.scraped and "song" not in seen.scraped


def test_one_trace_follows_a_request_through_all_services(seen: Seen) -> None:
    spans = seen.trace("song")
    assert groups(spans) == {f"t.{node.name}" for node in TOPOLOGY} - {"t.ingestion-retry"}
    known = {span.context.span_id for span in spans if span.context} | {OWN_SPAN}
    assert {trace_of(span) for span in spans} == {OWN_TRACE}
    assert all(span.parent and span.parent.span_id in known for span in spans), "each hangs on the one that sent to it"
    record, result = seen.results["song"]
    assert result.genre is not None
    assert traceparent(record.headers)[0] == OWN_TRACE
    heard = [span for span in spans if span.name == "process t.features"]
    assert len(heard) == len(result.genre.segments)


def test_spans_say_what_the_conventions_for_messaging_ask_for(seen: Seen) -> None:
    (span,) = (span for span in seen.trace("song") if span.name == "process t.requests")
    assert dict(span.attributes or {}) | {"messaging.message.body.size": 1, "messaging.kafka.offset": 0} == {
        "messaging.system": "memory",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "t.requests",
        "messaging.destination.partition.id": dict(span.attributes or {})["messaging.destination.partition.id"],
        "messaging.kafka.offset": 0,
        "messaging.message.body.size": 1,
        "messaging.consumer.group.name": "t.ingestion",
        "tonestream.request_id": "song",
        "tonestream.attempts": 1,
    }
    assert span.resource.attributes["service.name"] == "test"
    assert span.resource.attributes["service.version"]


def test_records_that_are_handled_together_are_linked_to_their_batch(seen: Seen) -> None:
    batches = {span.context.span_id: span for span in seen.spans if span.name == "process batch" and span.context}
    linked = [span for span in seen.trace("song") if span.name == "process t.features" and span.links]
    assert linked
    for span in linked:
        batch = batches[span.links[0].context.span_id]
        assert span.context in [link.context for link in batch.links]
        assert (batch.attributes or {})["messaging.batch.message_count"] >= 2  # type: ignore[operator]


def test_a_request_that_is_tried_again_stays_in_its_trace(seen: Seen) -> None:
    spans = seen.trace("flaky")
    assert "t.ingestion-retry" in groups(spans)
    assert traceparent(seen.results["flaky"][0].headers)[0] == trace_of(spans[0])


def test_a_request_that_follows_another_keeps_its_trace_with_a_link_to_the_work(seen: Seen) -> None:
    led, followed = sorted(
        (seen.trace(one) for one in TOGETHER), key=lambda spans: "t.genre-worker" not in groups(spans)
    )
    (answer,) = (span for span in followed if span.name == "answer")
    assert answer.links[0].context.trace_id == trace_of(led[0]) != trace_of(followed[0])
    request_id = str((answer.attributes or {})["tonestream.request_id"])
    assert traceparent(seen.results[request_id][0].headers)[0] == trace_of(followed[0])


def test_an_error_is_on_the_span_by_its_code(seen: Seen) -> None:
    (span,) = (span for span in seen.trace("gone") if span.name == "process t.requests")
    assert (span.attributes or {})["error.type"] == "fetch_failed"
    assert span.status.status_code is StatusCode.ERROR and "404" in (span.status.description or "")
