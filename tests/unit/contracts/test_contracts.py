"""The messages: what is taken, what is refused and why, and that bytes and messages are the same thing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from shared.bus.base import Record
from shared.contracts.codec import MalformedMessageError, NewerSchemaError, decode_message, encode_message
from shared.contracts.errors import ErrorCode
from shared.contracts.labels import GENRES
from shared.contracts.messages import (
    ErrorReport,
    GenreFailure,
    IngestedTrack,
    SegmentFeatures,
    SegmentPrediction,
    Stage,
    Status,
    Track,
    TrackRequest,
    TrackResult,
)
from shared.contracts.topics import MAX_MESSAGE_BYTES, Channel, Topics
from shared.contracts.tracks import MAX_URL_LENGTH
from shared.runtime.envelope import outgoing, salvaged_request_id, salvaged_source
from shared.runtime.retries import Retry, RetryNote
from tests.support.poison import features

SPOTIFY_ID = "4uLU6hMCjMI75M1A2tKUQC"


@pytest.mark.parametrize(
    "text",
    [
        SPOTIFY_ID,
        f"spotify:track:{SPOTIFY_ID}",
        f"https://open.spotify.com/track/{SPOTIFY_ID}",
        f"https://open.spotify.com/intl-de/track/{SPOTIFY_ID}?si=0123456789abcdef",
    ],
)
def test_every_way_to_name_a_spotify_track_gives_the_same_key(text: str) -> None:
    request = TrackRequest(request_id="r1", track_id=text)
    assert request.spotify_id == SPOTIFY_ID
    assert request.track_key == f"spotify:{SPOTIFY_ID}"
    assert request.shown_source == text


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "give track_id, audio_url or both"),
        ({"track_id": "4uLU6hMCjMI75M1A2tKUQ"}, "track_id: a Spotify ID has 22 letters and digits; this one has 21"),
        ({"track_id": f"spotify:album:{SPOTIFY_ID}"}, "track_id: it names a Spotify album"),
        ({"track_id": f"https://open.spotify.com/playlist/{SPOTIFY_ID}"}, "track_id: it names a Spotify playlist"),
        ({"track_id": "spotify:track:short"}, "track_id: a Spotify ID has 22"),
        ({"audio_url": "ftp://example.org/a.mp3"}, "audio_url: only http, https and file URLs"),
        ({"audio_url": "file://host/etc/passwd"}, "audio_url: a file URL names an absolute path and no host"),
        ({"audio_url": "http:///a.mp3"}, "audio_url: the URL names no host"),
        ({"audio_url": "http://example.org:99999/a.mp3"}, "audio_url: "),
        ({"audio_url": "http://example.org/a b.mp3"}, "audio_url: a URL holds no spaces"),
        ({"audio_url": "blob:../../etc/passwd"}, "audio_url: a blob reference"),
        ({"audio_url": "http://example.org/" + "a" * 8192}, "audio_url: may have at most 8192 characters"),
        ({"audio_url": "http://example.org/a.mp3", "sped": True}, "unknown field 'sped'"),
        ({"audio_url": "http://example.org/a.mp3", "request_id": "a b"}, "request_id: "),
        ({"audio_url": "http://example.org/a.mp3", "force": "perhaps"}, "force: "),
    ],
)
def test_an_invalid_request_is_refused_with_the_field_and_the_reason(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(MalformedMessageError) as refused:
        decode_message(Channel.REQUESTS, json.dumps({"request_id": "r1", **fields}).encode())
    assert reason in refused.value.reason


@pytest.mark.parametrize("character", ["A", "ü", "音"])
def test_the_longest_url_travels_whole_from_the_request_to_the_result_and_through_the_retry_topic(
    character: str,
) -> None:
    url = "https://bucket.example/a.mp3?X-Amz-Security-Token=".ljust(MAX_URL_LENGTH, character)
    # Most JSON libraries take six bytes for a character beyond ASCII.
    value = json.dumps({"request_id": "r" * 128, "audio_url": url, "source": url, "model": "m" * 200}).encode()
    request = decode_message(Channel.REQUESTS, value)
    assert isinstance(request, TrackRequest)
    record = Record("tonestream.requests", 0, 0, b"k", value)
    retried = Retry(request, record, RetryNote(record.coordinates, 0, first_error="x" * 1000)).outgoing(Topics())
    assert decode_message(Channel.REQUESTS_RETRY, retried.value) == request
    assert len(retried.key) < 100
    error = ErrorReport(code=ErrorCode.FETCH_FAILED, stage=Stage.INGESTION, message="no")
    track = IngestedTrack(
        request_id=request.request_id, track_key=request.track_key, source=request.shown_source, error=error
    )
    shown = Track(key=track.track_key, source=track.source)
    result = TrackResult(request_id="r", status=Status.FAILED, track=shown, errors=(error,))
    assert decode_message(Channel.TRACKS, encode_message(track)) == track
    assert decode_message(Channel.RESULTS, encode_message(result)) == result
    assert result.track.source == url


@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"[]", b"null", b"{", b"[" * 100_000, b"x" * 20_000])
@pytest.mark.parametrize("channel", [channel for channel in Channel if channel is not Channel.DEAD_LETTERS])
def test_bytes_that_are_no_message_are_malformed_on_every_topic(channel: Channel, value: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode_message(channel, value)


def test_a_message_of_a_newer_version_is_told_from_nonsense() -> None:
    with pytest.raises(NewerSchemaError, match="schema_version 2"):
        decode_message(
            Channel.REQUESTS, json.dumps({"schema_version": 2, "request_id": "r1", "playlist": "x"}).encode()
        )


def test_features_travel_as_seven_kilobytes_and_come_back_bit_for_bit() -> None:
    sent = features("r1", matrix=np.random.default_rng(1).standard_normal((130, 13)).astype(np.float32))
    encoded = encode_message(sent)
    assert len(encoded) < 7100
    received = decode_message(Channel.FEATURES, encoded)
    assert isinstance(received, SegmentFeatures)
    assert np.array_equal(received.matrix, sent.matrix)
    assert received.model_dump() == sent.model_dump()


def test_features_that_are_not_finite_are_refused() -> None:
    encoded = bytearray(encode_message(features("r1")))
    encoded[-4:] = np.array([np.nan], "<f4").tobytes()
    with pytest.raises(MalformedMessageError, match="not finite"):
        decode_message(Channel.FEATURES, bytes(encoded))


@pytest.mark.parametrize("cut", [3, 6, 60, 500, 6000])
def test_truncated_features_are_malformed(cut: int) -> None:
    with pytest.raises(MalformedMessageError):
        decode_message(Channel.FEATURES, encode_message(features("r1"))[:cut])


def test_all_other_messages_are_json_a_person_can_read() -> None:
    probabilities = dict.fromkeys(GENRES, 0.1)
    prediction = SegmentPrediction(
        request_id="r1",
        track_key="k",
        index=0,
        start_s=0,
        end_s=3,
        probabilities=probabilities,
        feature_spec="s",
        model="m",
    )
    fields = json.loads(encode_message(prediction))
    assert fields["probabilities"] == probabilities
    assert decode_message(Channel.PREDICTIONS, encode_message(prediction)) == prediction


def test_probabilities_must_be_a_distribution_over_the_ten_genres() -> None:
    fields = {
        "request_id": "r",
        "track_key": "k",
        "index": 0,
        "start_s": 0,
        "end_s": 3,
        "feature_spec": "s",
        "model": "m",
    }
    for probabilities in ({"jazz": 1.0}, dict.fromkeys(GENRES, 0.2), dict.fromkeys(GENRES, -0.1)):
        with pytest.raises(MalformedMessageError, match="probabilities"):
            decode_message(
                Channel.PREDICTIONS,
                json.dumps({**fields, "type": "segment_prediction", "probabilities": probabilities}).encode(),
            )


def test_the_status_of_a_result_follows_from_its_halves() -> None:
    error = ErrorReport(code=ErrorCode.TOO_SHORT, stage=Stage.FEATURE_EXTRACTION, message="2 s")
    track = Track(key="k", source="a.mp3")
    assert TrackResult(request_id="r", status=Status.FAILED, track=track, errors=(error,)).status == "failed"
    with pytest.raises(ValueError, match="the status is failed"):
        TrackResult(request_id="r", status=Status.OK, track=track, errors=(error,))
    with pytest.raises(ValueError, match="says why"):
        TrackResult(request_id="r", status=Status.FAILED, track=track)


def test_records_carry_their_request_in_a_header_even_where_the_value_is_destroyed() -> None:
    topics = Topics("unit")
    error = ErrorReport(code=ErrorCode.INTERNAL, stage=Stage.GENRE_WORKER, message="no")
    sent = outgoing(topics, GenreFailure(request_id="r1", track_key="k", error=error))
    assert (sent.topic, sent.key) == ("unit.predictions", b"k")
    destroyed = Record(sent.topic, 0, 0, sent.key, b"\x00", sent.headers)
    assert salvaged_request_id(destroyed) == "r1"
    assert salvaged_request_id(Record(sent.topic, 0, 0, b"", b"\x00")) is None
    assert salvaged_request_id(Record(sent.topic, 0, 0, b"", b'{"request_id": "a b"}')) is None


@pytest.mark.parametrize("field", ["source", "audio_url", "track_id"])
def test_what_an_invalid_request_asked_for_can_always_be_told(field: str) -> None:
    """Halves of characters, which JSON may name and no message can carry, stand in for nothing else."""
    record = Record("unit.requests", 0, 0, b"", json.dumps({field: "a\ud800b"}).encode())
    source = salvaged_source(record)
    error = ErrorReport(code=ErrorCode.INVALID_REQUEST, stage=Stage.INGESTION, message="no")
    assert source == "a?b"
    encode_message(IngestedTrack(request_id="r", track_key="k", source=source, error=error))


def test_the_source_of_a_refused_request_is_the_whole_url_and_never_half_a_password() -> None:
    for url, shown in (
        ("ftp://example.org/" + "a" * 5000, "ftp://example.org/" + "a" * 5000),
        ("https://me:" + "hush" * 3000 + "@example.org/a.mp3", "https://***@example.org/a.mp3"),
    ):
        record = Record("unit.requests", 0, 0, b"", json.dumps({"audio_url": url}).encode())
        assert salvaged_source(record) == shown


def test_a_message_larger_than_its_topic_takes_is_not_even_sent() -> None:
    error = ErrorReport(code=ErrorCode.INTERNAL, stage=Stage.INGESTION, message="x" * 1000)
    track = IngestedTrack(request_id="r", track_key="k", source="s", error=error)
    assert len(encode_message(track)) < MAX_MESSAGE_BYTES[Channel.TRACKS]
    with pytest.raises(MalformedMessageError, match="takes at most"):
        encode_message(features("r1", matrix=np.zeros((10_000, 100), np.float32)))


def test_the_documents_in_the_repository_say_what_the_code_says() -> None:
    from services.docs import DOCS, generated

    made = generated()
    for name in ("settings.md", "error-codes.md", "architecture.md", "command-line.md"):
        assert (DOCS / name).read_text(encoding="utf-8") == made[name], "run `make docs`"
    written, new = json.loads((DOCS / "asyncapi.json").read_text(encoding="utf-8")), json.loads(made["asyncapi.json"])
    assert written["channels"] == new["channels"], "run `make docs`"
    assert written["components"]["messages"] == new["components"]["messages"], "run `make docs`"
    for name, schema in new["components"]["schemas"].items():
        # How a schema is put depends on pydantic's version; which fields it has does not.
        assert set(written["components"]["schemas"][name].get("properties", {})) == set(schema.get("properties", {}))
