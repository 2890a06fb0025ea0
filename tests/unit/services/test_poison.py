"""Poison in front of every real service: each has its outcome, and the next message is handled."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from services.aggregator.service import Aggregator
from services.feature_extraction.service import FeatureExtraction
from services.genre_worker.service import GenreWorker
from services.ingestion.service import Ingestion
from services.mood_worker.service import MoodWorker
from shared.audio.spec import MFCC13
from shared.blobs.store import BlobStore
from shared.bus.base import Outgoing
from shared.contracts.codec import Message, decode_message
from shared.contracts.errors import ErrorCode
from shared.contracts.labels import GENRES
from shared.contracts.messages import (
    ErrorReport,
    GenreFailure,
    IngestedAudio,
    IngestedTrack,
    MoodPrediction,
    SegmentPrediction,
    Stage,
    Status,
    TrackRequest,
    TrackResult,
)
from shared.contracts.topics import Channel
from shared.models.catalogue import Catalogue, Kind
from shared.models.loaded import LoadedModels
from shared.runtime.service import AnyService
from shared.settings import Settings
from tests.support import poison
from tests.support.loop_bench import read, running
from tests.support.mill import TOPICS, Mill, wav
from tests.support.poison import Poison

SHA = "ab" * 32
CATALOGUE = Catalogue(Settings().models_dir)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"redis_url": f"memory://{tmp_path}", "blob_url": f"file://{tmp_path}/blobs"})


def stored(settings: Settings, tmp_path: Path, content: bytes, name: str) -> str:
    (tmp_path / "content").write_bytes(content)
    return BlobStore(settings.blob_url).put(tmp_path / "content", name)


def track(request_id: str, blob: str = "blob:audio/x.wav", segments: int = 2) -> IngestedTrack:
    audio = IngestedAudio(blob=blob, sha256=SHA, duration_s=3.0 * segments, segments=segments)
    return IngestedTrack(request_id=request_id, track_key="k", source="s", audio=audio)


def no_audio(request_id: str) -> IngestedTrack:
    error = ErrorReport(code=ErrorCode.NO_AUDIO, stage=Stage.INGESTION, message="none")
    return IngestedTrack(request_id=request_id, track_key="k", source="s", error=error)


def genre_worker() -> GenreWorker:
    def predict(batch: np.ndarray) -> np.ndarray:
        return np.full((len(batch), len(GENRES)), 0.1)

    manifest: Any = SimpleNamespace(model_id="m", name="m", require_feature_spec=lambda: MFCC13, calibration=None)
    model: Any = SimpleNamespace(manifest=manifest, predict=predict)
    return GenreWorker(CATALOGUE, loaded("genre", model, Settings().genre_model))


def mood_worker(settings: Settings) -> MoodWorker:
    manifest = SimpleNamespace(model_id="m", require_feature_spec=lambda: MFCC13)
    model: Any = SimpleNamespace(manifest=manifest, predict=lambda batch: (None, np.zeros((len(batch), 0))))
    models, taggers = loaded("mood", model, settings.mood_model), loaded("tags", model, settings.tag_model)
    return MoodWorker(BlobStore(settings.blob_url), CATALOGUE, models, taggers, None, 1)


def loaded(kind: Kind, model: Any, folder: str) -> LoadedModels[Any]:
    return LoadedModels(CATALOGUE, kind, lambda _: model, folder)


def outcome(message: Message) -> ErrorCode | None:
    """The code of the failure that a message tells; None if it tells of none."""
    error = getattr(message, "error", None)
    if isinstance(message, TrackResult):
        error = message.errors[0] if message.errors else None
    return None if error is None else error.code


Made = Callable[[str, Settings, Path], Message]
SERVICES: dict[str, tuple[Callable[[Settings], AnyService], Channel, Made]] = {
    # An address that is forbidden is an answer that takes no network.
    "ingestion": (
        Ingestion.build,
        Channel.TRACKS,
        lambda name, settings, folder: TrackRequest(request_id=name, audio_url="http://127.0.0.1:9/a.mp3"),
    ),
    "feature-extraction": (
        lambda settings: FeatureExtraction(BlobStore(settings.blob_url), CATALOGUE, MFCC13, 1),
        Channel.FEATURES,
        lambda name, settings, folder: track(name, stored(settings, folder, wav(3.5), f"audio/{name}.wav"), 1),
    ),
    "genre-worker": (
        lambda settings: genre_worker(), Channel.PREDICTIONS, lambda name, settings, folder: poison.features(name),
    ),
    "mood-worker": (mood_worker, Channel.MOODS, lambda name, settings, folder: no_audio(name)),
}  # fmt: skip


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_no_message_of_the_topic_is_answered_or_kept_and_the_next_message_handled(
    service: str, settings: Settings, tmp_path: Path
) -> None:
    build, output, good = SERVICES[service]
    mill = Mill(build(settings), output)
    failures = mill.bus.reader([TOPICS.name(Channel.PREDICTIONS)])
    (channel,) = build(settings).inputs
    bad = list(poison.no_messages(channel))
    mill.put(good("first", settings, tmp_path))
    mill.put(*(one.sent(TOPICS) for one in bad))
    mill.put(good("last", settings, tmp_path))
    with running(mill):
        made = mill.made_until("last")
        letters = read(mill.dead, sum(one.letter for one in bad))
    assert "first" in {message.request_id for message in made}
    assert sorted((letter.key, letter.value) for letter in letters) == sorted(
        (one.key, one.value) for one in bad if one.letter
    )
    assert {letter.header("tonestream.errors.exception") for letter in letters} <= {
        b"MalformedMessageError", b"NewerSchemaError",
    }  # fmt: skip
    # Those that tell whose request they were have an answer as well.
    told = made + _rest(mill)
    if output is Channel.FEATURES:
        told = [decode_message(Channel.PREDICTIONS, record.value) for record in failures.poll(1000, 0.5)]
    for known in ("half", "newer"):
        if known == "newer" and channel is Channel.FEATURES:
            continue  # it stands inside the features' own header, which only a reader of that version knows to find
        (answered,) = [message for message in told if message.request_id == known]
        from_outside = channel is Channel.REQUESTS
        assert outcome(answered) is (ErrorCode.INVALID_REQUEST if from_outside else ErrorCode.INTERNAL)


def _rest(mill: Mill) -> list[Message]:
    return [decode_message(mill.output, record.value) for record in mill.outputs.poll(1000, 0.1)]


@pytest.mark.parametrize("name", [one.name for one in poison.bad_features("r")])
def test_features_that_are_nothing_for_the_model_fail_the_genre_of_their_request_alone(name: str) -> None:
    (bad,) = [one for one in poison.bad_features("bad") if one.name == name]
    mill = Mill(genre_worker(), Channel.PREDICTIONS)
    mill.put(poison.features("first"), bad.sent(TOPICS), poison.features("last"))
    with running(mill):
        made = {message.request_id: message for message in mill.made(3)}
        read(mill.dead, int(bad.letter))
    assert isinstance(made["first"], SegmentPrediction) and isinstance(made["last"], SegmentPrediction)
    assert isinstance(made["bad"], GenreFailure) and made["bad"].error.code is ErrorCode.INTERNAL


BLOBS = {
    "garbage": (b"\x00\xff" * 5000, ErrorCode.CORRUPT_AUDIO),
    "nothing": (b"", ErrorCode.CORRUPT_AUDIO),
    "half a WAV": (wav(6.5)[:100_000], ErrorCode.CORRUPT_AUDIO),
    "another rate": (wav(6.5, 44100), ErrorCode.CORRUPT_AUDIO),
    "gone": (None, ErrorCode.INTERNAL),
}


@pytest.mark.parametrize("content", BLOBS)
@pytest.mark.parametrize("service", ["feature-extraction", "mood-worker"])
def test_wrong_content_for_a_blob_reference_is_a_typed_failure(
    service: str, content: str, settings: Settings, tmp_path: Path
) -> None:
    build, _, good = SERVICES[service]
    given, expected = BLOBS[content]
    blob = "blob:audio/gone.wav" if given is None else stored(settings, tmp_path, given, "audio/bad.wav")
    mill = Mill(build(settings), Channel.PREDICTIONS if service == "feature-extraction" else Channel.MOODS)
    following = mill.bus.reader([TOPICS.name(SERVICES[service][1])])
    mill.put(track("bad", blob), good("last", settings, tmp_path))
    with running(mill):
        (failed,) = [message for message in mill.made_until("bad") if message.request_id == "bad"]
        read(following, 1 if service == "feature-extraction" else 2)
        read(mill.dead, 0)
    assert outcome(failed) is expected


@pytest.mark.parametrize("blob", ["blob:../../etc/passwd", "/etc/passwd", "\x00", "blob:"])
def test_a_blob_reference_that_is_none_is_kept_for_the_operator_and_its_request_answered(
    blob: str, settings: Settings, tmp_path: Path
) -> None:
    for service, output in (("feature-extraction", Channel.PREDICTIONS), ("mood-worker", Channel.MOODS)):
        mill = Mill(SERVICES[service][0](settings), output)
        mill.put(track("bad", blob))
        with running(mill):
            (failed,) = mill.made(1)
            read(mill.dead, 1)
        assert outcome(failed) is ErrorCode.INTERNAL


# The aggregator


def whole(request_id: str, segments: int = 1) -> list[Message]:
    """All that makes an answer."""
    predictions = [poison.prediction(request_id, index=index) for index in range(segments)]
    return [
        track(request_id, segments=segments),
        *(SegmentPrediction.model_validate(fields) for fields in predictions),
        MoodPrediction.model_validate(poison.mood(request_id)),
    ]


def answers(mill: Mill, sent: Sequence[Outgoing | Message], letters: int) -> dict[str, TrackResult]:
    """The results when ``sent`` comes between a good request and another; each request has one at most."""
    mill.put(*whole("first"))
    mill.put(*sent)
    with running(mill):
        found = mill.made_until("first")
        mill.put(*whole("last"))
        found += mill.made_until("last")
        read(mill.dead, letters)
        found += _rest(mill)
    results = {message.request_id: message for message in found if isinstance(message, TrackResult)}
    assert len(results) == len(found)
    assert results["first"].status is results["last"].status is Status.OK
    return results


@pytest.mark.parametrize("channel", [Channel.TRACKS, Channel.PREDICTIONS, Channel.MOODS])
def test_the_aggregator_keeps_what_is_no_message_and_answers_the_others(channel: Channel, settings: Settings) -> None:
    bad = list(poison.no_messages(channel))
    answers(Mill(Aggregator.build(settings), Channel.RESULTS), [one.sent(TOPICS) for one in bad], len(bad))


@pytest.mark.parametrize("name", [one.name for one in (*poison.bad_predictions("r"), *poison.bad_moods("r"))])
def test_a_part_that_is_nearly_one_fails_its_half_of_its_request(name: str, settings: Settings) -> None:
    every: list[Poison] = [*poison.bad_predictions("bad"), *poison.bad_moods("bad")]
    (bad,) = [one for one in every if one.name == name]
    kind = MoodPrediction if bad.channel is Channel.MOODS else SegmentPrediction
    others = [part for part in whole("bad") if not isinstance(part, kind)]
    mill = Mill(Aggregator.build(settings), Channel.RESULTS)
    result = answers(mill, [bad.sent(TOPICS), *others], 1)["bad"]
    assert result.status is Status.PARTIAL
    assert (result.mood if kind is MoodPrediction else result.genre) is None
    assert [error.code for error in result.errors] == [ErrorCode.INTERNAL]


def test_predictions_for_a_request_nobody_made_are_no_answer_and_no_letter(settings: Settings) -> None:
    strays = [SegmentPrediction.model_validate(poison.prediction(f"nobody-{n}", index=n)) for n in range(5)]
    results = answers(Mill(Aggregator.build(settings), Channel.RESULTS), strays, 0)
    assert set(results) == {"first", "last"}


def test_a_track_announced_twice_has_the_length_of_the_first_announcement(settings: Settings) -> None:
    parts = whole("twice", segments=2)
    results = answers(
        Mill(Aggregator.build(settings), Channel.RESULTS), [parts[0], track("twice", segments=9), *parts[1:]], 0
    )
    genre = results["twice"].genre
    assert results["twice"].status is Status.OK and genre is not None and len(genre.segments) == 2


def test_numbers_at_the_edge_of_what_a_message_may_hold_are_an_answer(settings: Settings) -> None:
    far = poison.prediction("far", start_s=1e300, end_s=1e308, timings_ms={"x": 1e308})
    tiny = {**dict.fromkeys(GENRES, 0.0), GENRES[0]: 1.0}
    parts: list[Message] = [
        track("far", segments=2),
        SegmentPrediction.model_validate(far),
        SegmentPrediction.model_validate({**far, "index": 1, "probabilities": tiny}),
        MoodPrediction.model_validate(poison.mood("far")),
    ]
    results = answers(Mill(Aggregator.build(settings), Channel.RESULTS), parts, 0)
    assert "far" in results


def test_a_model_that_never_comes_is_waited_for_once_and_its_segments_fail_while_the_others_are_predicted(
    tmp_path: Path,
) -> None:
    def predict(batch: np.ndarray) -> np.ndarray:
        return np.full((len(batch), len(GENRES)), 0.1)

    manifest: Any = SimpleNamespace(model_id="m", name="m", require_feature_spec=lambda: MFCC13, calibration=None)
    catalogue = Catalogue(Settings().models_dir, wait_s=1.0)
    mill = Mill(
        GenreWorker(catalogue, loaded("genre", SimpleNamespace(manifest=manifest, predict=predict), "mfcc-lstm")),
        Channel.PREDICTIONS,
    )

    def segment(request_id: str, model: str | None) -> Message:
        whole = poison.features(request_id)
        return whole.model_copy(update={"model": model})

    started = time.monotonic()
    mill.put(segment("before", None), segment("missing", "newer"), segment("behind", "m"), segment("again", "newer"))
    with running(mill):
        assert [message.request_id for message in mill.made(1)] == ["before"]
        missing, behind, again = mill.made(3)
    waited = time.monotonic() - started
    assert isinstance(behind, SegmentPrediction) and 1.0 <= waited < 10
    for failed in (missing, again):
        assert isinstance(failed, GenreFailure) and failed.error.code is ErrorCode.INTERNAL
        assert "the genre model newer is not installed" in failed.error.message
    assert mill.dead.poll(1, 0.0) == []
